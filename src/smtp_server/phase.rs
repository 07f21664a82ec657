//! The state of a session, and which commands it allows (RFC 5321 §4.1.4). No I/O: check, then proceed.

use crate::mail::envelope::Envelope;
use crate::mail::reply::Reply;

use super::command::MailArguments;

/// The state of a session; leaving a transaction drops its envelope.
#[derive(Debug)]
pub(crate) enum Phase<R> {
    /// No EHLO or HELO yet.
    Connected,
    /// After EHLO or HELO.
    Greeted,
    /// After MAIL.
    Transaction(Envelope<R>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct TransactionLimits {
    /// Octets of one message.
    pub(crate) max_message_bytes: u64,
    pub(crate) max_recipients: usize,
}

impl<R: PartialEq> Phase<R> {
    /// Handles EHLO and HELO, which reset the session (RFC 5321 §4.1.4).
    pub(crate) fn greet(&mut self) {
        *self = Self::Greeted;
    }

    /// Returns true after MAIL.
    pub(crate) const fn is_in_transaction(&self) -> bool {
        matches!(self, Self::Transaction(_))
    }

    /// Handles RSET.
    pub(crate) fn reset(&mut self) {
        if matches!(self, Self::Transaction(_)) {
            *self = Self::Greeted;
        }
    }

    /// Handles MAIL.
    ///
    /// # Errors
    /// The refusal; the state is unchanged.
    pub(crate) fn mail(&mut self, arguments: MailArguments, limits: TransactionLimits) -> Result<Reply, Reply> {
        if !matches!(self, Self::Greeted) {
            return Err(Reply::BAD_SEQUENCE);
        }
        if arguments.size.is_some_and(|size| size > limits.max_message_bytes) {
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

    /// Checks that RCPT is in order, before the recipient is resolved.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn check_rcpt(&self, ascii: bool) -> Result<(), Reply> {
        match self {
            Self::Transaction(envelope) if !ascii && !envelope.smtputf8 => Err(Reply::NEEDS_SMTPUTF8),
            Self::Transaction(_) => Ok(()),
            Self::Connected | Self::Greeted => Err(Reply::BAD_SEQUENCE),
        }
    }

    /// Adds a resolved recipient; a repeated one counts once, even when the limit is reached.
    pub(crate) fn add_recipient(&mut self, recipient: R, limits: TransactionLimits) -> Reply {
        let Self::Transaction(envelope) = self else { return Reply::BAD_SEQUENCE };
        if !envelope.recipients.contains(&recipient) {
            if envelope.recipients.len() >= limits.max_recipients {
                return Reply::TOO_MANY_RECIPIENTS;
            }
            envelope.recipients.push(recipient);
        }
        Reply::RECIPIENT_OK
    }

    /// Handles DATA: returns the envelope and ends the transaction.
    ///
    /// # Errors
    /// The refusal; the state is unchanged.
    pub(crate) fn data(&mut self) -> Result<Envelope<R>, Reply> {
        match self {
            Self::Transaction(envelope) if envelope.recipients.is_empty() => Err(Reply::NO_RECIPIENTS),
            Self::Transaction(_) => match std::mem::replace(self, Self::Greeted) {
                Self::Transaction(envelope) => Ok(envelope),
                Self::Connected | Self::Greeted => Err(Reply::BAD_SEQUENCE),
            },
            Self::Connected | Self::Greeted => Err(Reply::BAD_SEQUENCE),
        }
    }

    /// Returns the recipients of the current transaction.
    pub(crate) fn recipients(&self) -> &[R] {
        match self {
            Self::Transaction(envelope) => &envelope.recipients,
            Self::Connected | Self::Greeted => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use proptest::prelude::*;

    use super::*;
    use crate::mail::address::ReversePath;

    const BOUNDS: TransactionLimits = TransactionLimits { max_message_bytes: 1000, max_recipients: 2 };

    fn arguments(size: Option<u64>, smtputf8: bool) -> MailArguments {
        MailArguments { reverse_path: ReversePath::Null, size, eight_bit: false, smtputf8, auth: false }
    }

    fn transaction(recipients: &[u8]) -> Phase<u8> {
        let mut phase = Phase::Greeted;
        phase.mail(arguments(None, false), BOUNDS).unwrap();
        for recipient in recipients {
            phase.add_recipient(*recipient, BOUNDS);
        }
        phase
    }

    #[test]
    fn a_refusal_changes_nothing() {
        let mut phase: Phase<u8> = Phase::Connected;
        assert_eq!(phase.mail(arguments(None, false), BOUNDS), Err(Reply::BAD_SEQUENCE));
        assert!(matches!(phase, Phase::Connected));
        phase.greet();
        assert_eq!(phase.mail(arguments(Some(1001), false), BOUNDS), Err(Reply::TOO_LARGE));
        assert!(matches!(phase, Phase::Greeted));
        let mut phase = transaction(&[]);
        assert_eq!(phase.data().unwrap_err(), Reply::NO_RECIPIENTS);
        assert_eq!(phase.mail(arguments(None, false), BOUNDS), Err(Reply::BAD_SEQUENCE));
        assert!(matches!(phase, Phase::Transaction(_)));
    }

    #[test]
    fn recipients_count_once_and_only_so_many() {
        let mut phase = transaction(&[1, 1]);
        assert_eq!(phase.add_recipient(2, BOUNDS), Reply::RECIPIENT_OK);
        assert_eq!(phase.add_recipient(3, BOUNDS), Reply::TOO_MANY_RECIPIENTS);
        assert_eq!(phase.add_recipient(1, BOUNDS), Reply::RECIPIENT_OK);
        assert_eq!(phase.check_rcpt(false), Err(Reply::NEEDS_SMTPUTF8));
        assert_eq!(phase.data().unwrap().recipients, [1, 2]);
        assert!(matches!(phase, Phase::Greeted));
    }

    proptest! {
        #[test]
        fn whatever_is_said_data_is_taken_only_with_a_sender_and_a_recipient(
            commands in proptest::collection::vec(0_u8..5, 0..40)
        ) {
            let mut phase: Phase<u8> = Phase::Connected;
            let (mut greeted, mut sender, mut recipients) = (false, false, 0);
            for command in commands {
                match command {
                    0 => {
                        phase.greet();
                        (greeted, sender, recipients) = (true, false, 0);
                    }
                    1 => {
                        prop_assert_eq!(phase.mail(arguments(None, false), BOUNDS).is_ok(), greeted && !sender);
                        sender = greeted;
                    }
                    2 => {
                        prop_assert_eq!(phase.check_rcpt(true).is_ok(), sender);
                        let added = phase.add_recipient(recipients, BOUNDS) == Reply::RECIPIENT_OK;
                        prop_assert_eq!(added, sender && recipients < 2);
                        recipients += u8::from(added);
                    }
                    3 => {
                        phase.reset();
                        (sender, recipients) = (false, 0);
                    }
                    _ => {
                        let taken = phase.data();
                        prop_assert_eq!(taken.is_ok(), sender && recipients > 0);
                        if taken.is_ok() {
                            (sender, recipients) = (false, 0);
                        }
                    }
                }
            }
        }
    }
}
