//! Where a session stands, and what each command may do there (RFC 5321 §4.1.4). No I/O: check, then proceed.

use crate::mail::address::ReversePath;
use crate::mail::envelope::Envelope;
use crate::mail::reply::Reply;

use super::command::MailArguments;

/// Where a session stands; leaving a transaction drops its envelope.
#[derive(Debug)]
pub enum Phase<R> {
    /// Nothing was said yet.
    Connected,
    /// EHLO or HELO was.
    Greeted,
    /// MAIL was.
    Transaction(Envelope<R>),
}

/// What bounds a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The largest message.
    pub max_message_bytes: u64,
    /// Recipients of one message.
    pub max_recipients: usize,
}

impl<R: PartialEq> Phase<R> {
    /// EHLO or HELO: a new start (RFC 5321 §4.1.4).
    pub fn greet(&mut self) {
        *self = Self::Greeted;
    }

    /// RSET.
    pub fn reset(&mut self) {
        if matches!(self, Self::Transaction(_)) {
            *self = Self::Greeted;
        }
    }

    /// MAIL.
    ///
    /// # Errors
    /// The refusal; nothing changed.
    pub fn mail(&mut self, arguments: MailArguments, bounds: Bounds) -> Result<Reply, Reply> {
        if !matches!(self, Self::Greeted) {
            return Err(Reply::BAD_SEQUENCE);
        }
        if arguments.size.is_some_and(|size| size > bounds.max_message_bytes) {
            return Err(Reply::TOO_LARGE);
        }
        *self = Self::Transaction(Envelope {
            reverse_path: arguments.reverse_path,
            recipients: Vec::new(),
            smtputf8: arguments.smtputf8,
            eight_bit: arguments.eight_bit,
        });
        Ok(Reply::SENDER_OK)
    }

    /// Whether RCPT is in order here; asked before the recipient is resolved.
    ///
    /// # Errors
    /// The refusal.
    pub fn check_rcpt(&self, ascii: bool, bounds: Bounds) -> Result<(), Reply> {
        match self {
            Self::Transaction(envelope) if !ascii && !envelope.smtputf8 => Err(Reply::NEEDS_SMTPUTF8),
            Self::Transaction(envelope) if envelope.recipients.len() >= bounds.max_recipients => {
                Err(Reply::TOO_MANY_RECIPIENTS)
            }
            Self::Transaction(_) => Ok(()),
            Self::Connected | Self::Greeted => Err(Reply::BAD_SEQUENCE),
        }
    }

    /// RCPT, once resolved; a repeated recipient counts once.
    pub fn add_recipient(&mut self, recipient: R) -> Reply {
        if let Self::Transaction(envelope) = self
            && !envelope.recipients.contains(&recipient)
        {
            envelope.recipients.push(recipient);
        }
        Reply::RECIPIENT_OK
    }

    /// DATA: hands the envelope over and ends the transaction.
    ///
    /// # Errors
    /// The refusal; nothing changed.
    pub fn data(&mut self) -> Result<Envelope<R>, Reply> {
        match self {
            Self::Transaction(envelope) if envelope.recipients.is_empty() => Err(Reply::NO_RECIPIENTS),
            Self::Transaction(_) => match std::mem::replace(self, Self::Greeted) {
                Self::Transaction(envelope) => Ok(envelope),
                Self::Connected | Self::Greeted => Err(Reply::BAD_SEQUENCE),
            },
            Self::Connected | Self::Greeted => Err(Reply::BAD_SEQUENCE),
        }
    }

    /// The sender of the present transaction.
    pub const fn reverse_path(&self) -> Option<&ReversePath> {
        match self {
            Self::Transaction(envelope) => Some(&envelope.reverse_path),
            Self::Connected | Self::Greeted => None,
        }
    }
}
