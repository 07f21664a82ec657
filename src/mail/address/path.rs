//! Reverse-paths and forward-paths of SMTP transactions.

use std::fmt;

use super::mailbox::{MAX_RECEIVED_LOCAL, end_of_quoted, is_loose_dot_string};
use super::{AddressError, Mailbox};

/// The argument of MAIL FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`: a notification, which must not be answered.
    Null,
    /// The mailbox that receives bounces.
    Mailbox(Mailbox),
    /// `<scanner>`: a local part without a domain, as devices send. No mail can be sent there.
    Local(String),
}

impl ReversePath {
    /// Parses a path other than the null path, without angle brackets.
    ///
    /// # Errors
    /// The text is neither a mailbox that SMTP accepts nor a local part alone.
    pub fn parse_received(text: &str) -> Result<Self, AddressError> {
        let is_local =
            if text.starts_with('"') { end_of_quoted(text)? == text.len() } else { is_loose_dot_string(text) };
        match is_local {
            true if text.len() > MAX_RECEIVED_LOCAL => Err(AddressError::TooLong),
            true => Ok(Self::Local(text.to_owned())),
            false => Mailbox::parse_received(text).map(Self::Mailbox),
        }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Local(local) => f.write_str(local),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// The argument of RCPT TO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// The bare `<postmaster>` of RFC 5321 §4.5.1, in any letter case.
    Postmaster,
    /// Any other recipient.
    Mailbox(Mailbox),
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("postmaster"),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reverse_path_may_be_a_name_alone() {
        for local in ["scanner", "HP_Scanner.", "\"a b@c\""] {
            assert_eq!(ReversePath::parse_received(local), Ok(ReversePath::Local(local.to_owned())));
        }
        for bad in ["", "scanner@", "@scanner", "a b", "\"a", "..", &"x".repeat(256)] {
            assert!(ReversePath::parse_received(bad).is_err(), "{bad:?}");
        }
    }
}
