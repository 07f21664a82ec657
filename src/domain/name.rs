//! Decides which names can be a domain of an account (contract 3.4). Pure.

use crate::mail::address::Domain;

/// A DNS name has at most 253 characters, and the longest prefix put before a domain is `mailkite-ed._domainkey.`.
const MAX_LENGTH: usize = 253 - 23;

/// Reason why a name cannot be a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadName {
    /// Not a host name, an address, or without a dot.
    #[error("a domain name such as example.com is required")]
    Form,
    /// Too long to leave room for its DKIM records.
    #[error("this name is longer than {MAX_LENGTH} characters")]
    TooLong,
    /// A public suffix, under which anybody can register.
    #[error("this is a public suffix, which belongs to nobody; give a domain below it")]
    PublicSuffix,
    /// The name of this server.
    #[error("this is the name of this server itself")]
    OwnHost,
}

/// Returns a domain's name as it is stored: A-labels, lower case, no final dot.
///
/// # Errors
/// The name cannot be an account's domain.
pub(crate) fn parse(text: &str, hostname: &str) -> Result<String, BadName> {
    let text = text.trim();
    // Every spelling of an address that a URL's host may have counts as an address, whatever DNS would make of it.
    let is_address = url::Host::parse(text).is_ok_and(|host| !matches!(host, url::Host::Domain(_)));
    let domain = Domain::parse(text).map_err(|_| BadName::Form)?;
    let name = domain.as_str();
    let last = name.rsplit('.').next().unwrap_or_default();
    if is_address || !name.contains('.') || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadName::Form);
    }
    if name.split('.').any(|label| label.contains('_')) {
        return Err(BadName::Form);
    }
    if name.len() > MAX_LENGTH {
        return Err(BadName::TooLong);
    }
    if Domain::parse(hostname).is_ok_and(|host| host.as_str() == name) {
        return Err(BadName::OwnHost);
    }
    let suffix = psl::suffix(name.as_bytes());
    if suffix.is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == name.as_bytes()) {
        return Err(BadName::PublicSuffix);
    }
    Ok(name.to_owned())
}

/// Returns the name and every domain above it that somebody could own.
pub(crate) fn with_parents(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    let mut rest = name;
    while let Some((_, parent)) = rest.split_once('.') {
        if parent.contains('.') {
            names.push(parent.to_owned());
        }
        rest = parent;
    }
    names
}

/// Returns the registrable name above a domain, or the domain itself: the organizational domain (RFC 7489 §3.2).
pub(crate) fn organizational(name: &str) -> &str {
    psl::domain_str(name).unwrap_or(name)
}

/// True for a name reserved for tests (RFC 6761), which dev mode verifies without DNS.
pub(crate) fn is_for_trying(name: &str) -> bool {
    [".test", ".localhost", ".example"].iter().any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, BadName> {
        parse(text, "mail.acme.dev")
    }

    #[test]
    fn names_have_one_form() {
        for (text, name) in [
            ("Acme.DEV.", "acme.dev"),
            (" acme.dev ", "acme.dev"),
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("inbox.test", "inbox.test"),
            ("a.b.c.acme.dev", "a.b.c.acme.dev"),
            ("acme.co.uk", "acme.co.uk"),
            ("me.github.io", "me.github.io"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(name), "{text}");
        }
    }

    #[test]
    fn what_belongs_to_nobody_or_is_no_name_is_refused() {
        for text in ["", "com", "localhost", "a..b", "-a.dev", "a b.dev", "a@b.dev", "http://acme.dev", "*.acme.dev"]
        {
            assert_eq!(parsed(text), Err(BadName::Form), "{text}");
        }
        for text in ["1.2.3.4", "[1.2.3.4]", "0x7f.1", "2130706433", "[::1]", "1.2.3", "_dmarc.acme.dev", "acme.1"] {
            assert_eq!(parsed(text), Err(BadName::Form), "{text}");
        }
        for text in ["co.uk", "github.io", "CO.UK."] {
            assert_eq!(parsed(text), Err(BadName::PublicSuffix), "{text}");
        }
        assert_eq!(parsed("Mail.Acme.Dev"), Err(BadName::OwnHost));
        assert_eq!(parsed(&format!("{}.dev", vec!["a".repeat(45); 5].join("."))), Err(BadName::TooLong));
    }

    #[test]
    fn parents_end_above_the_top_level() {
        assert_eq!(with_parents("a.b.acme.dev"), ["a.b.acme.dev", "b.acme.dev", "acme.dev"]);
    }
}
