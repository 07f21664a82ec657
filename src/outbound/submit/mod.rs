//! Accepts mail for sending. Every message takes the same steps, whoever hands it over: may the account send from its
//! From and Sender fields ([`sender`]), is a recipient left that is not suppressed, is it complete ([`submission`],
//! [`smtp_submission`]), signed ([`signed`]), persisted and stored ([`persist`]).

pub(crate) mod batch;
pub(crate) mod persist;
pub(crate) mod scheduled;
pub(crate) mod send_at;
pub(crate) mod sender;
mod signed;
pub(crate) mod smtp_submission;
pub(crate) mod submission;

use super::Outbound;
use super::message::compose::ComposeError;
use super::message::dkim::SignError;
use crate::clock::Timestamp;
use crate::id::{MessageId, ScheduledId};
use crate::store;
use crate::store::accounts::idempotency::{Remembered, RequestKey};
use sender::{Sender, SenderError, SenderFieldError};
use signed::SignedMessage;
use submission::{Submission, SubmissionContent};

/// The lane of scheduled messages.
pub const RELEASE_LANE: &str = "release";

/// An accepted message.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) id: MessageId,
    /// Set if it is sent later.
    pub(crate) scheduled: Option<(ScheduledId, Timestamp)>,
    /// Recipients skipped because they are suppressed, in canonical form.
    pub(crate) suppressed: Vec<String>,
    /// Octets of its mail data.
    pub(crate) size: usize,
}

/// The reason a submission is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// The account may not send from the From domain.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// The account may not use this Sender field.
    #[error("Sender: {0}")]
    SenderField(#[from] SenderFieldError),
    /// Every recipient is suppressed: 409 `recipient_suppressed`.
    #[error("every recipient is suppressed")]
    Suppressed,
    /// A part of it cannot be composed into mail.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The signature failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Completing or signing ended early: it panicked, or the server stops.
    #[error("composing was interrupted")]
    Interrupted,
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The answer to store together with its messages, for idempotent requests (contract 1.11).
pub(crate) struct Remember {
    pub(crate) request: RequestKey,
    pub(crate) answer: Remembered,
}

impl Outbound {
    /// Accepts a message together with the answer about it; once this returns, neither a crash nor a power cut loses
    /// them. The content is loaded only if the account may send (contract 8.1, the order of checks).
    ///
    /// # Errors
    /// See [`SubmitError`], or the content could not be loaded. [`store::Error::outcome`] says whether it is certain
    /// that nothing was stored.
    pub(crate) async fn submit<E: From<SubmitError>>(
        &self,
        submission: Submission,
        content: impl Future<Output = Result<SubmissionContent, E>>,
        answer: impl FnOnce(&Submitted) -> Option<Remember>,
        now: Timestamp,
    ) -> Result<Submitted, E> {
        let sender = self.authorize(&submission, now).await?;
        let content = content.await?;
        let signed = self.compose(&sender, submission, content, now).await?;
        Ok(self.accept(signed, answer, now).await?)
    }

    /// Checks that the account may send from the From and Sender fields.
    async fn authorize(&self, submission: &Submission, now: Timestamp) -> Result<Sender, SubmitError> {
        let sender = self.sender(&submission.submitter, submission.from.mailbox.domain(), now).await?;
        self.check_sender_header(submission, now).await?;
        Ok(sender)
    }

    /// Checks that the account may send from the address of a custom Sender field.
    async fn check_sender_header(&self, submission: &Submission, now: Timestamp) -> Result<(), SubmitError> {
        match submission.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Sender")) {
            Some((_, value)) => self.sender_field(&submission.submitter, value, now).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Composes and signs a message.
    async fn compose(
        &self,
        sender: &Sender,
        submission: Submission,
        content: SubmissionContent,
        now: Timestamp,
    ) -> Result<SignedMessage, SubmitError> {
        let (recipients, metadata) = (submission.recipients(), submission.metadata.clone());
        let scheduled = submission.scheduled_at.map(|at| (ScheduledId::new(now), at));
        let complete = move |message_id| submission.complete(content, message_id, now).map_err(SubmitError::Compose);
        let signed = self.sign(sender, recipients, complete, now).await?;
        Ok(SignedMessage { metadata, scheduled, ..signed })
    }

    /// Stores a message with the answer about it.
    async fn accept(
        &self,
        signed: SignedMessage,
        answer: impl FnOnce(&Submitted) -> Option<Remember>,
        now: Timestamp,
    ) -> Result<Submitted, SubmitError> {
        let submitted = signed.submitted();
        let persisted = self.persist(signed, now).await?;
        self.commit(vec![persisted], answer(&submitted), now).await?;
        Ok(submitted)
    }
}
