//! Signs a message for those of its recipients that are not suppressed, with the keys of its From domain.

use std::sync::Arc;

use super::sender::Sender;
use super::{SubmitError, Submitted};
use crate::clock::Timestamp;
use crate::event_bus::mail_log::{self, Event, Line};
use crate::id::{MessageId, ScheduledId};
use crate::mail::address::Mailbox;
use crate::outbound::Outbound;
use crate::store::sending::suppressions;

/// A message that lacks nothing but its signature.
pub(super) struct CompleteMail {
    pub(super) data: Vec<u8>,
    /// From address.
    pub(super) from_addr: String,
    /// Display name in From.
    pub(super) from_name: Option<String>,
    /// To and Cc: address and display name.
    pub(super) header_to: Vec<(String, Option<String>)>,
    pub(super) subject: Option<String>,
    /// Message-ID, with angle brackets.
    pub(super) message_id_header: Option<String>,
    /// First id of In-Reply-To, else the message's own Message-ID.
    pub(super) thread_id: Option<String>,
    /// True if the data has attachments.
    pub(super) has_attachments: bool,
}

/// A signed message to be stored and sent.
pub(super) struct SignedMessage {
    pub(super) id: MessageId,
    pub(super) sender: Sender,
    /// The message, its data with the signatures.
    pub(super) mail: CompleteMail,
    /// Envelope recipients; at least one, each once.
    pub(super) recipients: Vec<Mailbox>,
    /// Recipients skipped because they are suppressed; the report to `return_to` lists them too.
    pub(super) suppressed: Vec<Mailbox>,
    /// JSON object.
    pub(super) metadata: Option<String>,
    /// Time of sending; `None` for now.
    pub(super) scheduled: Option<(ScheduledId, Timestamp)>,
    /// The address that failure reports go to.
    pub(super) return_to: Option<Mailbox>,
}

impl SignedMessage {
    /// Returns what the client is told of it.
    pub(super) fn submitted(&self) -> Submitted {
        Submitted {
            id: self.id.clone(),
            scheduled: self.scheduled.clone(),
            suppressed: self.suppressed.iter().map(Mailbox::canonical).collect(),
            size: self.mail.data.len(),
        }
    }
}

impl Outbound {
    /// Completes a message with `complete`, which gets a new Message-ID, and signs it for the recipients that are not
    /// suppressed (contract 8.4). Both take CPU time, so they run off the async threads.
    ///
    /// # Errors
    /// Every recipient is suppressed, or the message cannot be completed or signed.
    pub(super) async fn sign<E: From<SubmitError> + Send + 'static>(
        &self,
        sender: &Sender,
        recipients: Vec<Mailbox>,
        complete: impl FnOnce(String) -> Result<CompleteMail, E> + Send + 'static,
        now: Timestamp,
    ) -> Result<SignedMessage, E> {
        let (account, addresses) = (sender.account, recipients.iter().map(ToString::to_string).collect::<Vec<_>>());
        let found =
            self.parts.db.read(move |connection| suppressions::find_suppressed(connection, account, &addresses));
        let found = found.await.map_err(SubmitError::Store)?;
        let (suppressed, recipients): (Vec<Mailbox>, Vec<Mailbox>) =
            recipients.into_iter().partition(|mailbox| found.contains(&mailbox.canonical()));
        if recipients.is_empty() {
            log_suppressed(None, None, &suppressed);
            return Err(SubmitError::Suppressed.into());
        }
        let id = MessageId::new(now);
        let message_id = format!("<{}@{}>", id.suffix(), sender.domain.name);
        let keys = Arc::clone(&sender.keys);
        let signing = tokio::task::spawn_blocking(move || {
            let mut mail = complete(message_id)?;
            let signature = keys.sign(&mail.data).map_err(SubmitError::Sign)?;
            mail.data.splice(..0, signature.into_bytes());
            Ok::<_, E>(mail)
        });
        let mail = signing.await.map_err(|_| SubmitError::Interrupted)??;
        log_suppressed(Some(&id), Some(&mail.from_addr), &suppressed);
        Ok(SignedMessage {
            id,
            sender: sender.clone(),
            mail,
            recipients,
            suppressed,
            metadata: None,
            scheduled: None,
            return_to: None,
        })
    }
}

fn log_suppressed(id: Option<&MessageId>, from: Option<&str>, suppressed: &[Mailbox]) {
    if !suppressed.is_empty() && mail_log::is_enabled() {
        let to = mail_log::join(suppressed.iter().map(Mailbox::to_string));
        let message_id = id.map(MessageId::as_str);
        Line { message_id, from, to: Some(&to), ..Line::default() }.log(Event::Suppressed);
    }
}
