//! Enhanced mail system status codes (RFC 3463), with the registry's conditions that this server reports (RFC 5248).
//!
//! Replies, outcomes and delivery status notifications share them. A code is a value from where it is parsed to where
//! it is written; only the text of other hosts is searched for one ([`EnhancedStatusCode::find_in`]).

use std::fmt;
use std::str::FromStr;

/// `class.subject.detail`, as in `5.1.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnhancedStatusCode {
    pub(crate) class: StatusClass,
    pub(crate) subject: u16,
    pub(crate) detail: u16,
}

/// RFC 3463 §3.1: the first number of a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    Success,
    PersistentTransient,
    Permanent,
}

/// The text is not `class.subject.detail` with a class of RFC 3463 §3.1 and one to three digits in each of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidStatusCode;

impl StatusClass {
    pub(crate) const fn digit(self) -> u16 {
        match self {
            Self::Success => 2,
            Self::PersistentTransient => 4,
            Self::Permanent => 5,
        }
    }

    const fn from_digit(digit: u16) -> Option<Self> {
        match digit {
            2 => Some(Self::Success),
            4 => Some(Self::PersistentTransient),
            5 => Some(Self::Permanent),
            _ => None,
        }
    }
}

/// Constants under the registry's names. A condition that is reported in two classes has the class in its name.
impl EnhancedStatusCode {
    pub(crate) const OK: Self = Self::success(0, 0);
    pub(crate) const SENDER_VALID: Self = Self::success(1, 0);
    pub(crate) const RECIPIENT_VALID: Self = Self::success(1, 5);
    pub(crate) const AUTHENTICATION_SUCCEEDED: Self = Self::success(7, 0);

    pub(crate) const MAILBOX_FULL: Self = Self::transient(2, 2);
    pub(crate) const TRANSIENT_SYSTEM: Self = Self::transient(3, 0);
    pub(crate) const SYSTEM_FULL: Self = Self::transient(3, 1);
    pub(crate) const SYSTEM_NOT_ACCEPTING: Self = Self::transient(3, 2);
    pub(crate) const NO_ANSWER: Self = Self::transient(4, 1);
    pub(crate) const BAD_CONNECTION: Self = Self::transient(4, 2);
    pub(crate) const DIRECTORY_FAILURE: Self = Self::transient(4, 3);
    pub(crate) const TRANSIENT_ROUTING: Self = Self::transient(4, 4);
    pub(crate) const CONGESTION: Self = Self::transient(4, 5);
    pub(crate) const TRANSIENT_PROTOCOL: Self = Self::transient(5, 0);
    pub(crate) const TOO_MANY_RECIPIENTS: Self = Self::transient(5, 3);
    pub(crate) const TRANSIENT_SECURITY: Self = Self::transient(7, 0);
    pub(crate) const TRANSIENT_NOT_AUTHORIZED: Self = Self::transient(7, 1);
    pub(crate) const TRANSIENT_CRYPTOGRAPHIC_FAILURE: Self = Self::transient(7, 5);
    pub(crate) const TRANSIENT_CREDENTIALS_INVALID: Self = Self::transient(7, 8);

    /// RFC 3463 §3.1: a failure of which nothing more is known.
    pub(crate) const UNDEFINED: Self = Self::permanent(0, 0);
    pub(crate) const BAD_MAILBOX: Self = Self::permanent(1, 1);
    pub(crate) const BAD_SYSTEM: Self = Self::permanent(1, 2);
    pub(crate) const BAD_MAILBOX_SYNTAX: Self = Self::permanent(1, 3);
    /// RFC 7505 §4.1.
    pub(crate) const NULL_MX: Self = Self::permanent(1, 10);
    pub(crate) const PERMANENT_SYSTEM: Self = Self::permanent(3, 0);
    pub(crate) const MESSAGE_TOO_BIG: Self = Self::permanent(3, 4);
    pub(crate) const PERMANENT_ROUTING: Self = Self::permanent(4, 4);
    pub(crate) const ROUTING_LOOP: Self = Self::permanent(4, 6);
    pub(crate) const DELIVERY_TIME_EXPIRED: Self = Self::permanent(4, 7);
    pub(crate) const INVALID_COMMAND: Self = Self::permanent(5, 1);
    pub(crate) const SYNTAX_ERROR: Self = Self::permanent(5, 2);
    pub(crate) const INVALID_ARGUMENTS: Self = Self::permanent(5, 4);
    pub(crate) const MEDIA: Self = Self::permanent(6, 0);
    pub(crate) const CONVERSION_NOT_SUPPORTED: Self = Self::permanent(6, 3);
    /// RFC 6531 §3.5.
    pub(crate) const NON_ASCII_ADDRESS: Self = Self::permanent(6, 7);
    pub(crate) const PERMANENT_SECURITY: Self = Self::permanent(7, 0);
    pub(crate) const NOT_AUTHORIZED: Self = Self::permanent(7, 1);
    /// RFC 4954 §6.
    pub(crate) const CREDENTIALS_INVALID: Self = Self::permanent(7, 8);
}

impl EnhancedStatusCode {
    pub(crate) const fn success(subject: u16, detail: u16) -> Self {
        Self { class: StatusClass::Success, subject, detail }
    }

    pub(crate) const fn transient(subject: u16, detail: u16) -> Self {
        Self { class: StatusClass::PersistentTransient, subject, detail }
    }

    pub(crate) const fn permanent(subject: u16, detail: u16) -> Self {
        Self { class: StatusClass::Permanent, subject, detail }
    }

    pub(crate) const fn is_permanent(self) -> bool {
        matches!(self.class, StatusClass::Permanent)
    }

    /// RFC 3463 §3.1: x.0.0 names no condition; some hosts write it whatever the reason.
    pub(crate) const fn is_undefined(self) -> bool {
        self.subject == 0 && self.detail == 0
    }

    /// Splits a reply's text into the code that it begins with (RFC 2034 §4) and the rest.
    pub(crate) fn split_prefix(text: &str) -> Option<(Self, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some((word.parse().ok()?, rest))
    }

    /// Finds the codes in a text of another host, whatever punctuation surrounds them: `5.7.1`, `(#5.7.1)`,
    /// `550-5.7.1`, `5.1.1:`.
    pub(crate) fn find_in(text: &str) -> impl Iterator<Item = Self> {
        text.split_whitespace().filter_map(|word| {
            let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            // `550-5.1.1` is a line of a multiline reply, `#smtp;550` a source named by a report.
            let part = word.rsplit(['-', ';', '#', '(', '[', '=', ':']).find(|part| part.contains('.'));
            part.unwrap_or(word).parse().ok()
        })
    }
}

impl FromStr for EnhancedStatusCode {
    type Err = InvalidStatusCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.');
        let mut number = |max_digits: usize| {
            let part = parts.next().filter(|part| (1..=max_digits).contains(&part.len()))?;
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok())?
        };
        let class = number(1).and_then(StatusClass::from_digit);
        let (Some(class), Some(subject), Some(detail), None) = (class, number(3), number(3), parts.next()) else {
            return Err(InvalidStatusCode);
        };
        Ok(Self { class, subject, detail })
    }
}

impl fmt::Display for EnhancedStatusCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.class.digit(), self.subject, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_as_it_was_read() {
        for text in ["2.0.0", "4.4.1", "5.1.10", "5.7.511", "5.999.999"] {
            assert_eq!(text.parse::<EnhancedStatusCode>().map(|code| code.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("5.1.1".parse(), Ok(EnhancedStatusCode::BAD_MAILBOX));
        for text in
            ["", "5", "5.1", "5..1", "5.1.", "5.1.1.1", "3.1.1", "6.7.1", "5.7.x", "+5.1.1", "5.1.1000", " 5.1.1"]
        {
            assert_eq!(text.parse::<EnhancedStatusCode>(), Err(InvalidStatusCode), "{text:?}");
        }
    }

    #[test]
    fn only_the_beginning_of_a_reply_counts_as_its_code() {
        let full = EnhancedStatusCode::permanent(2, 2);
        assert_eq!(EnhancedStatusCode::split_prefix("5.2.2 mailbox  full"), Some((full, "mailbox  full")));
        assert_eq!(EnhancedStatusCode::split_prefix("5.2.2"), Some((full, "")));
        for text in ["", "full 5.2.2", "5.2.2: full", "mx.example.com ready"] {
            assert_eq!(EnhancedStatusCode::split_prefix(text), None, "{text:?}");
        }
    }

    #[test]
    fn codes_are_found_wherever_they_stand() {
        for word in ["5.7.1", "(#5.7.1)", "#5.7.1", "550-5.7.1", "5.7.1:", "[5.7.1]", "x;5.7.1"] {
            let found: Vec<_> = EnhancedStatusCode::find_in(word).collect();
            assert_eq!(found, [EnhancedStatusCode::NOT_AUTHORIZED], "{word}");
        }
        for word in ["192.0.2.1", "5.7", "5.7.1.1", "6.7.1", "5.7.x", "v5.7.1", "5.1234.1", ""] {
            assert_eq!(EnhancedStatusCode::find_in(word).next(), None, "{word}");
        }
    }
}
