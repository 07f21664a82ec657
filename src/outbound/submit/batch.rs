//! Messages of one request that share everything but recipient and content, stored all or none (contract 8.2).

use super::persist::PersistedMessage;
use super::sender::Sender;
use super::submission::{Submission, SubmissionContent};
use super::{Remember, SubmitError, Submitted};
use crate::clock::Timestamp;
use crate::mail::mailbox_list::NamedMailbox;
use crate::outbound::Outbound;
use crate::store;

/// Messages to be stored together. They are persisted one after another, since fifty with large files would not fit in
/// memory; those of a batch that is not committed are removed.
pub(crate) struct Batch {
    outbound: Outbound,
    /// Without recipients.
    shared: Submission,
    sender: Sender,
    persisted: Vec<PersistedMessage>,
    now: Timestamp,
}

impl Outbound {
    /// Begins a batch, if the account may send from its From and Sender fields.
    ///
    /// # Errors
    /// The account may not.
    pub(crate) async fn begin_batch(&self, shared: Submission, now: Timestamp) -> Result<Batch, SubmitError> {
        let sender = self.authorize(&shared, now).await?;
        Ok(Batch { outbound: self.clone(), shared, sender, persisted: Vec::new(), now })
    }
}

impl Batch {
    /// Adds a message with these custom headers instead of the shared ones. Its content is loaded if the account may
    /// send from its Sender field. Nothing is promised before [`Batch::commit`].
    ///
    /// # Errors
    /// See [`SubmitError`]; the message is not part of the batch. Or the content could not be loaded.
    pub(crate) async fn add<E: From<SubmitError>>(
        &mut self,
        to: NamedMailbox,
        headers: Vec<(String, String)>,
        content: impl Future<Output = Result<SubmissionContent, E>>,
    ) -> Result<Submitted, E> {
        let submission = Submission { to: vec![to], headers, ..self.shared.clone() };
        self.outbound.check_sender_header(&submission, self.now).await?;
        let content = content.await?;
        let signed = self.outbound.compose(&self.sender, submission, content, self.now).await?;
        let submitted = signed.submitted();
        self.persisted.push(self.outbound.persist(signed, self.now).await.map_err(SubmitError::Store)?);
        Ok(submitted)
    }

    /// Stores the messages with the answer about them; once this returns, neither a crash nor a power cut loses them.
    ///
    /// # Errors
    /// The disk is full or fails; [`store::Error::outcome`] says whether it is certain that nothing was stored.
    pub(crate) async fn commit(self, remember: Option<Remember>) -> store::Result<()> {
        self.outbound.commit(self.persisted, remember, self.now).await
    }
}
