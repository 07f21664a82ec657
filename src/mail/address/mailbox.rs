//! Mailboxes: `local-part@domain`.
//!
//! A local part is kept as written: only the receiving domain may interpret it, and its quotes are part of its meaning.

use std::fmt;

use super::{AddressError, Domain};
use crate::mail::invisible::is_invisible;

/// RFC 5321 §4.5.3.1.1: the longest local part sent from here.
const MAX_LOCAL: usize = 64;
/// Accepted from others: 64 octets is only what a receiver must take, and senders that encode a recipient in their
/// bounce address need more.
pub(super) const MAX_RECEIVED_LOCAL: usize = 255;
/// RFC 5321 §4.5.3.1.3: a path has at most 256 octets, two of them its angle brackets.
const MAX_MAILBOX: usize = 254;

/// `local-part@domain`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mailbox {
    local: String,
    domain: Domain,
}

impl Mailbox {
    /// Parses a mailbox without angle brackets. Control characters are refused everywhere.
    ///
    /// # Errors
    /// The text is not a mailbox, or a part of it is too long.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let mailbox = Self::parse_received(text)?;
        if mailbox.local.len() > MAX_LOCAL || mailbox.local.len() + 1 + mailbox.domain.as_str().len() > MAX_MAILBOX {
            return Err(AddressError::TooLong);
        }
        if !mailbox.local.starts_with('"') && !is_dot_string(&mailbox.local) {
            return Err(AddressError::Syntax);
        }
        Ok(mailbox)
    }

    /// Parses a mailbox as SMTP accepts it from others, without angle brackets: the local part may have dots anywhere
    /// and may be longer than one of ours.
    ///
    /// # Errors
    /// The text is not a mailbox, or a part of it is too long.
    pub fn parse_received(text: &str) -> Result<Self, AddressError> {
        let at =
            if text.starts_with('"') { end_of_quoted(text)? } else { text.find('@').ok_or(AddressError::Syntax)? };
        let (local, rest) = text.split_at_checked(at).ok_or(AddressError::Syntax)?;
        let domain = rest.strip_prefix('@').ok_or(AddressError::Syntax)?;
        let domain = if domain.starts_with('[') { Domain::parse_literal(domain) } else { Domain::parse(domain) }?;
        if local.len() > MAX_RECEIVED_LOCAL {
            return Err(AddressError::TooLong);
        }
        if !local.starts_with('"') && !is_loose_dot_string(local) {
            return Err(AddressError::Syntax);
        }
        Ok(Self { local: local.to_owned(), domain })
    }

    /// True if mail may be sent to and from the address as written ([`Mailbox::parse`]).
    pub(crate) fn is_sendable(&self) -> bool {
        Self::parse(&self.to_string()).is_ok()
    }

    /// Returns the local part as written, with its quotes.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// Returns the domain, or the address literal in its place.
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }

    /// True if the local part has invisible characters. None of our own addresses may: it would look like another
    /// one.
    pub(crate) fn has_invisible_characters(&self) -> bool {
        self.local.chars().any(is_invisible)
    }

    /// Returns `local@domain` in lower case: the form in which suppressions, blocked senders and duplicates are
    /// compared.
    ///
    /// Unneeded quotes and backslashes are dropped, since RFC 5321 §4.1.2 says that they change nothing. A local part
    /// that needs quotes and came without them gets them.
    pub fn canonical(&self) -> String {
        self.normalized(is_dot_string)
    }

    /// Returns the canonical form for routes (contract 4.1), in which dots need no quotes wherever they are.
    pub(crate) fn canonical_for_routes(&self) -> String {
        self.normalized(is_loose_dot_string)
    }

    /// Returns the address in lower case, quoted unless `is_plain`.
    fn normalized(&self, is_plain: impl Fn(&str) -> bool) -> String {
        let quoted = self.local.strip_prefix('"').and_then(|local| local.strip_suffix('"'));
        let text = quoted.map_or_else(|| self.local.clone(), unescape);
        let local = if is_plain(&text) { text.to_lowercase() } else { quote(&text.to_lowercase()) };
        format!("{local}@{}", self.domain)
    }

    /// Returns the address as our own mail shows it to people whom its owner does not know. A local part may spell a
    /// sentence, and a non-ASCII one may look like anything, so only plain ones are shown.
    pub(crate) fn display_for_third_party(&self) -> String {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
        if self.local.bytes().all(is_plain) { self.to_string() } else { format!("an address at {}", self.domain) }
    }

    /// Returns the canonical form without a `+` subaddress (RFC 5233); mail to one mailbox is counted by it.
    pub(crate) fn without_subaddress(&self) -> String {
        let canonical = self.canonical();
        let (local, domain) = canonical.rsplit_once('@').unwrap_or((&canonical, ""));
        let plain = local.split_once('+').map_or(local, |(plain, _)| plain);
        format!("{}@{domain}", if plain.is_empty() { local } else { plain })
    }
}

/// Returns the canonical form of an address in any spelling, or the text in lower case if it is not an address.
pub(crate) fn canonical(text: &str) -> String {
    Mailbox::parse_received(text).map_or_else(|_| text.to_lowercase(), |mailbox| mailbox.canonical())
}

/// Unescapes the content of a quoted string.
fn unescape(quoted: &str) -> String {
    let mut escaped = false;
    let keep = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    quoted.chars().filter(keep).collect()
}

/// Quotes a text, escaping only what must be.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

/// Returns the end of the quoted string at the beginning of the text (RFC 5321 §4.1.2: Quoted-string).
pub(super) fn end_of_quoted(text: &str) -> Result<usize, AddressError> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if c.is_control() => return Err(AddressError::Syntax),
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok(at + 1),
            _ => {}
        }
    }
    Err(AddressError::Syntax)
}

/// Matches RFC 5321 §4.1.2 Dot-string, with the non-ASCII atoms of RFC 6531.
fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// Matches atoms and dots in any order: some providers assign local parts such as `ken..taro` and `ada.`.
pub(super) fn is_loose_dot_string(text: &str) -> bool {
    text.chars().any(is_atext) && text.chars().all(|c| c == '.' || is_atext(c))
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_suffix_makes_no_other_mailbox() {
        for (address, mailbox) in [
            ("Ada@x.test", "ada@x.test"),
            ("ada+news+1@X.test", "ada@x.test"),
            ("\"ada+x\"@x.test", "ada@x.test"),
            ("+1@x.test", "+1@x.test"),
        ] {
            assert_eq!(Mailbox::parse(address).unwrap().without_subaddress(), mailbox);
        }
    }

    #[test]
    fn strangers_are_shown_no_text_of_a_local_part() {
        for (address, shown) in [
            ("Ada.L+x-1_y@X.test", "Ada.L+x-1_y@x.test"),
            ("\"buy at http://evil.test now\"@x.test", "an address at x.test"),
            ("\"ada\"@x.test", "an address at x.test"),
            ("http//evil.test/x@x.test", "an address at x.test"),
            ("\u{430}da@x.test", "an address at x.test"),
        ] {
            assert_eq!(Mailbox::parse(address).unwrap().display_for_third_party(), shown);
        }
    }

    #[test]
    fn quoted_local_parts_keep_their_meaning() {
        let mailbox = Mailbox::parse("\"a@b\"@acme.dev").unwrap();
        assert_eq!((mailbox.local(), mailbox.domain().as_str()), ("\"a@b\"", "acme.dev"));
        assert_eq!(Mailbox::parse("\"bob\"@acme.dev").unwrap().canonical(), "bob@acme.dev");
        assert_eq!(Mailbox::parse("\"B\\ob\"@acme.dev").unwrap().canonical(), "bob@acme.dev");
        assert_eq!(Mailbox::parse("\"a\\ \\\\\\\"\"@acme.dev").unwrap().canonical(), "\"a \\\\\\\"\"@acme.dev");
        assert_eq!(Mailbox::parse("\"a \\\" b\"@acme.dev").unwrap().local(), "\"a \\\" b\"");
        for bad in ["\"a@acme.dev", "\"a\"b@acme.dev", "\"a\u{7}\"@acme.dev", "a\"b\"@acme.dev"] {
            assert!(Mailbox::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_mailbox_is_refused() {
        for bad in [
            "",
            "a",
            "@a.dev",
            "a@",
            "a@b@c",
            ".a@b.c",
            "a.@b.c",
            "a..b@c.d",
            "a b@c.d",
            "a@b c",
            "a\r\n@b.c",
            "<a@b.c>",
        ] {
            assert!(Mailbox::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Mailbox::parse(&format!("{}@a.dev", "x".repeat(65))), Err(AddressError::TooLong));
    }

    #[test]
    fn what_others_write_is_taken_where_it_names_one_mailbox() {
        let longest = format!("{}@a.dev", "x".repeat(MAX_RECEIVED_LOCAL));
        for taken in ["ken..taro@a.dev", ".ken@a.dev", "ilo.@A.dev", "...x@a.dev", &longest] {
            let mailbox = Mailbox::parse_received(taken).unwrap();
            assert_eq!(mailbox.local(), taken.split_once('@').unwrap().0, "as written");
            assert!(!mailbox.is_sendable(), "{taken}");
        }
        assert!(Mailbox::parse_received("\"ken..taro\"@a.dev").unwrap().is_sendable());
        for bad in
            ["..@a.dev", ".@a.dev", "a b@c.d", "a,b@c.d", "a@b..c", "a@b@c", "@a.dev", "a", "<a@b.c>", "a\"b\"@c.d"]
        {
            assert!(Mailbox::parse_received(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Mailbox::parse_received(&format!("x{longest}")), Err(AddressError::TooLong));
    }

    #[test]
    fn dots_make_no_other_mailbox_with_quotes_than_without() {
        for spelling in ["Ken..taro@a.dev", "\"ken..taro\"@A.dev", "\"k\\en..taro\"@a.dev"] {
            let mailbox = Mailbox::parse_received(spelling).unwrap();
            assert_eq!(mailbox.canonical(), "\"ken..taro\"@a.dev");
            assert_eq!(mailbox.canonical_for_routes(), "ken..taro@a.dev");
            assert_eq!(canonical(spelling), mailbox.canonical());
        }
        assert_eq!(Mailbox::parse("\"a b\"@a.dev").unwrap().canonical_for_routes(), "\"a b\"@a.dev");
    }

    #[test]
    fn a_mailbox_is_no_longer_than_a_path_may_be() {
        let longest = format!("{}de", "abcdefg.".repeat(30));
        let local = "x".repeat(MAX_MAILBOX - 1 - longest.len());
        assert!(Mailbox::parse(&format!("{local}@{longest}")).is_ok());
        assert_eq!(Mailbox::parse(&format!("{local}x@{longest}")), Err(AddressError::TooLong));
    }

    #[test]
    fn address_literals_stand_in_mailboxes_and_are_no_names() {
        for (written, read) in [
            ("ada@[192.0.2.1]", "ada@[192.0.2.1]"),
            ("ada@[ipv6:2001:DB8::1]", "ada@[IPv6:2001:db8::1]"),
            ("ada@[IPv6:::ffff:192.0.2.1]", "ada@[IPv6:::ffff:192.0.2.1]"),
        ] {
            assert_eq!(Mailbox::parse(written).unwrap().to_string(), read);
        }
        for bad in
            ["a@[]", "a@[192.0.2]", "a@[192.0.2.1", "a@[192.0.2.256]", "a@[2001:db8::1]", "a@[x:y]", "a@[a.dev]"]
        {
            assert_eq!(Mailbox::parse(bad), Err(AddressError::Syntax), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_mailbox_reads_back_as_it_was_written(local in "[a-z0-9+_-]{1,20}", domain in "[a-z]{1,9}\\.[a-z]{2,5}") {
            let text = format!("{local}@{domain}");
            prop_assert_eq!(Mailbox::parse(&text).unwrap().to_string(), text);
        }

        #[test]
        fn one_mailbox_has_one_canonical_form(local in "[a-zA-Z.@ \"\\\\]{1,12}", escape_all in any::<bool>()) {
            let escaped: String = local
                .chars()
                .map(|c| if escape_all || matches!(c, '"' | '\\') { format!("\\{c}") } else { c.to_string() })
                .collect();
            let mailbox = Mailbox::parse(&format!("\"{escaped}\"@a.dev")).unwrap();
            let canonical = mailbox.canonical();
            let again = Mailbox::parse(&canonical).unwrap();
            prop_assert_eq!(&again.canonical(), &canonical);
            let plainly: String =
                local.chars().map(|c| if matches!(c, '"' | '\\') { format!("\\{c}") } else { c.to_string() }).collect();
            prop_assert_eq!(Mailbox::parse(&format!("\"{plainly}\"@a.dev")).unwrap().canonical(), canonical);
        }

        #[test]
        fn no_text_panics_or_yields_a_control_character(text in "\\PC{0,80}|[\\x00-\\x7f]{0,80}") {
            if let Ok(mailbox) = Mailbox::parse(&text) {
                prop_assert!(!mailbox.to_string().chars().any(char::is_control));
            }
        }
    }
}
