//! From a draft to a signed message: recipients, ids, composing, signing.

use std::collections::HashSet;
use std::sync::Arc;

use super::SignedMessage;
use super::sender::Sender;
use crate::clock::Timestamp;
use crate::id::{MessageId, ScheduledId};
use crate::mail::address::Mailbox;
use crate::mail::header_value::message_ids;
use crate::mail::mailbox_list::NamedMailbox;
use crate::outbound::Outbound;
use crate::outbound::message::compose::{ComposeError, Content, compose_last};
use crate::outbound::message::dkim::SignError;

/// A message to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    /// The content to compose; Message-ID and date are set here, unless its custom headers have them.
    pub(crate) content: Content,
    /// Recipients that appear in no header field.
    pub(crate) bcc: Vec<NamedMailbox>,
    /// Suppressed addresses, in canonical form.
    pub(crate) suppressed: Vec<String>,
    /// JSON object.
    pub(crate) metadata: Option<String>,
    /// Time of sending; `None` for now.
    pub(crate) scheduled_at: Option<Timestamp>,
}

/// The reason a draft cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmissionError {
    /// Every recipient is suppressed: 409 `recipient_suppressed`.
    #[error("every recipient is suppressed")]
    Suppressed,
    /// A part of it cannot be composed into mail.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The signature failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Composing was interrupted.
    #[error("composing was cut off")]
    CutOff,
}

impl Submission {
    /// Returns every envelope recipient once, whatever its spelling, in the order To, Cc, Bcc.
    pub(crate) fn recipients(&self) -> Vec<Mailbox> {
        let mut seen = HashSet::new();
        let fields = self.content.to.iter().chain(&self.content.cc).chain(&self.bcc);
        fields.map(|one| &one.mailbox).filter(|one| seen.insert(one.canonical())).cloned().collect()
    }

    /// Returns the recipients of this message that are suppressed.
    pub(crate) fn skipped(&self) -> Vec<String> {
        let skipped = |mailbox: &Mailbox| self.suppressed.contains(&mailbox.canonical());
        self.recipients().iter().filter(|mailbox| skipped(mailbox)).map(|mailbox| mailbox.canonical()).collect()
    }
}

impl Outbound {
    /// Composes and signs a draft. A signature takes CPU time, so this runs off the async threads.
    ///
    /// # Errors
    /// See [`SubmissionError`].
    pub(crate) async fn compose(
        &self,
        sender: &Sender,
        draft: Submission,
        now: Timestamp,
    ) -> Result<SignedMessage, SubmissionError> {
        let skipped: HashSet<String> = draft.skipped().into_iter().collect();
        let mut recipients = draft.recipients();
        recipients.retain(|mailbox| !skipped.contains(&mailbox.canonical()));
        if recipients.is_empty() {
            return Err(SubmissionError::Suppressed);
        }
        let id = MessageId::new(now);
        let Submission { mut content, metadata, scheduled_at, .. } = draft;
        let own_id = content.headers.extract_if(.., |(name, _)| name.eq_ignore_ascii_case("Message-ID")).last();
        let message_id =
            own_id.map_or_else(|| format!("<{}@{}>", id.suffix(), sender.domain.name), |(_, message_id)| message_id);
        content.message_id.clone_from(&message_id);
        content.date = scheduled_at.unwrap_or(now);
        let keys = Arc::clone(&sender.keys);
        let made = tokio::task::spawn_blocking(move || {
            let mut mail = compose_last(&mut content)?;
            let signature = keys.sign(&mail)?;
            mail.splice(..0, signature.into_bytes());
            Ok::<_, SubmissionError>((mail, content))
        });
        let (data, content) = made.await.map_err(|_| SubmissionError::CutOff)??;
        let shown = |one: NamedMailbox| (one.mailbox.to_string(), one.name);
        let header = |name: &str| {
            let found = content.headers.iter().rfind(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        let thread = header("In-Reply-To").or_else(|| content.in_reply_to.clone());
        let thread = thread.and_then(|ids| message_ids(&ids).ok()?.into_iter().next());
        Ok(SignedMessage {
            id,
            sender: sender.clone(),
            data,
            from_addr: content.from.mailbox.to_string(),
            from_name: content.from.name,
            header_to: content.to.into_iter().chain(content.cc).map(shown).collect(),
            recipients,
            subject: Some(content.subject),
            thread_id: thread.or_else(|| Some(message_id.clone())),
            message_id_header: Some(message_id),
            metadata,
            scheduled: scheduled_at.map(|at| (ScheduledId::new(now), at)),
            has_attachments: !content.attachments.is_empty(),
            return_to: None,
            suppressed: Vec::new(),
        })
    }
}
