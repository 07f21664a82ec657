//! The lines of a session in the log of mail.

use std::fmt::Display;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Accepted, Role, Session};
use crate::event_bus::mail_log::{self, Event, Line, Via};
use crate::mail::envelope::Envelope;
use crate::mail::reply::Reply;

/// The answer to the end of data, with what only the log tells.
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// Public ids of the accepted messages, separated by commas; empty if there is none.
    pub(super) message_ids: String,
    /// Octets of the mail data, once it came to its end.
    pub(super) size: Option<u64>,
    /// The fault of this server that the reply hides.
    pub(super) fault: Option<String>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, message_ids: String::new(), size: None, fault: None }
    }
}

impl Answer {
    pub(super) fn accepted(id: &str, message_ids: String) -> Self {
        Self { message_ids, ..Reply::accepted(id).into() }
    }

    pub(super) fn fault(reply: Reply, fault: impl Display) -> Self {
        Self { fault: Some(fault.to_string()), ..reply.into() }
    }
}

/// A transaction in which mail data is read, as the log will tell it.
pub(super) struct Transaction {
    from: String,
    to: String,
    began: Instant,
}

impl Transaction {
    /// Begins with the command DATA; `None` if nobody will read of it.
    pub(super) fn begin(envelope: &Envelope<Accepted>) -> Option<Self> {
        mail_log::is_enabled().then(|| Self {
            from: envelope.reverse_path.to_string(),
            to: mail_log::join(envelope.recipients.iter().map(|recipient| recipient.mailbox().to_string())),
            began: Instant::now(),
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn line(&self) -> Line<'_> {
        let via = match &self.shared.role {
            Role::Mx => Via::Mx,
            Role::Submission(_) => Via::Submission,
        };
        Line { session: Some(self.id), ..Line::of(via, &self.peer) }
    }

    /// Logs the end of a transaction that came to its data.
    pub(super) fn log_answer(&self, transaction: Option<Transaction>, answer: &Answer) {
        let Some(Transaction { from, to, began }) = transaction else { return };
        let reply = answer.reply.to_string();
        let line = Line {
            message_id: Some(answer.message_ids.as_str()).filter(|ids| !ids.is_empty()),
            from: Some(&from),
            to: Some(&to),
            reply: Some(&reply),
            reason: answer.fault.as_deref(),
            size: answer.size,
            duration: Some(began.elapsed()),
            fault: answer.fault.is_some(),
            ..self.line()
        };
        line.log(if answer.reply.code == 250 { Event::Accepted } else { Event::Refused });
    }

    /// Logs mail whose data did not come to its end; without a reply the client went away.
    pub(super) fn log_broken_off(&self, transaction: Option<Transaction>, reply: Option<&Reply>) {
        let Some(Transaction { from, to, began }) = transaction else { return };
        let text = reply.map(ToString::to_string);
        let line = Line {
            from: Some(&from),
            to: Some(&to),
            reply: text.as_deref(),
            reason: reply.is_none().then_some("disconnected"),
            duration: Some(began.elapsed()),
            ..self.line()
        };
        line.log(Event::Refused);
    }

    /// Logs a refused MAIL.
    pub(super) fn log_refused_sender(&self, from: impl Display, reply: &Reply) {
        if mail_log::is_enabled() {
            let (from, reply) = (from.to_string(), reply.to_string());
            Line { from: Some(&from), reply: Some(&reply), ..self.line() }.log(Event::Refused);
        }
    }

    /// Logs a refused RCPT of a transaction. Without one it is no mail but an error of the client.
    pub(super) fn log_refused_recipient(&self, to: impl Display, reply: &Reply) {
        if let Some(envelope) = self.phase.envelope()
            && mail_log::is_enabled()
        {
            let (from, to, reply) = (envelope.reverse_path.to_string(), to.to_string(), reply.to_string());
            let line = Line { from: Some(&from), to: Some(&to), reply: Some(&reply), ..self.line() };
            line.log(Event::RecipientRefused);
        }
    }

    /// Logs a line that is no valid MAIL or RCPT, with its arguments as they came.
    pub(super) fn log_refused_line(&self, line: &[u8], reply: &Reply) {
        let (verb, arguments) = line.split_at_checked(4).unwrap_or_default();
        if verb.eq_ignore_ascii_case(b"MAIL") && mail_log::is_enabled() {
            self.log_refused_sender(String::from_utf8_lossy(arguments).trim(), reply);
        } else if verb.eq_ignore_ascii_case(b"RCPT") && mail_log::is_enabled() {
            self.log_refused_recipient(String::from_utf8_lossy(arguments).trim(), reply);
        }
    }
}
