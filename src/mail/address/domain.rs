//! Domain names and address literals.
//!
//! A domain is kept as A-labels in lower case, so that both spellings of an internationalized name are equal.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::AddressError;

/// RFC 5321 §4.5.3.1.2.
const MAX_DOMAIN: usize = 255;

/// A domain name or, in a mailbox, an address literal (RFC 5321 §4.1.3), which is never equal to a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// Parses a domain name, as U-labels or A-labels; a trailing dot is dropped.
    ///
    /// # Errors
    /// The text is not a domain name, is too long, or is an address literal.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('[') {
            return Err(AddressError::Literal);
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > 4 * MAX_DOMAIN {
            return Err(AddressError::TooLong);
        }
        let ascii = if needs_no_idna(text) { text.to_ascii_lowercase() } else { to_a_label(text)? };
        if ascii.len() > MAX_DOMAIN {
            return Err(AddressError::TooLong);
        }
        if ascii.split('.').all(is_label) { Ok(Self(ascii)) } else { Err(AddressError::Syntax) }
    }

    /// Parses an address literal (RFC 5321 §4.1.3) into its canonical spelling. Tags other than `IPv6` are refused:
    /// none is registered.
    pub(super) fn parse_literal(text: &str) -> Result<Self, AddressError> {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).ok_or(AddressError::Syntax)?;
        let tag = inner.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let literal = match tag.and_then(|tag| inner.get(tag.len()..)) {
            Some(v6) => v6.parse::<Ipv6Addr>().map(|v6| format!("[IPv6:{v6}]")),
            None => inner.parse::<Ipv4Addr>().map(|v4| format!("[{v4}]")),
        };
        literal.map(Self).map_err(|_| AddressError::Syntax)
    }

    /// Returns the A-labels in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// True when IDNA has nothing to convert, the usual case.
fn needs_no_idna(text: &str) -> bool {
    text.is_ascii()
        && !text.split('.').any(|label| label.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("xn--")))
}

fn to_a_label(text: &str) -> Result<String, AddressError> {
    idna::domain_to_ascii_strict(text).map_err(|_| AddressError::Syntax)
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn domains_have_one_form() {
        assert_eq!(Domain::parse("Acme.DEV.").unwrap().as_str(), "acme.dev");
        assert_eq!(Domain::parse("bücher.example").unwrap().as_str(), "xn--bcher-kva.example");
        assert_eq!(Domain::parse("XN--BCHER-KVA.example").unwrap().as_str(), "xn--bcher-kva.example");
        assert_eq!(Domain::parse("[192.0.2.1]"), Err(AddressError::Literal));
        for bad in ["", ".", "a..b", "-a.b", "a-.b", "a b.c", "a\u{0}.b", &"x".repeat(64), "a@b"] {
            assert!(Domain::parse(bad).is_err(), "{bad:?}");
        }
    }
}
