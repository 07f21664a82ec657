//! The author of a message, for those who have to be sure of it: the address that every reader finds in a From field.
//!
//! Readers differ where a field fits no grammar, and over blanks and comments within an address, which RFC 5322 allows and
//! few read so. There the address that somebody is shown may be another than the one that was judged.

use super::Limits;
use super::address::{self, end_of_comment, end_of_quote, is_dot_atom, is_quoted, normalize_domain, normalize};
use super::header::Fields;
use crate::mail::invisible::is_layout_control;

/// The one address that the value of a From field names, as `local@domain` with the domain as A-labels in lower case.
///
/// Signs that a name should have quoted, such as a comma, do no harm to an address in angle brackets.
pub(crate) fn sole_author(raw: &[u8]) -> Option<String> {
    let mut rest = raw;
    // What stands in the field beside comments; and of that what is not quoted either.
    let (mut text, mut unquoted) = (Vec::new(), Vec::new());
    let mut angle = None;
    while let Some((first, tail)) = rest.split_first() {
        rest = match first {
            b'\r' if matches!(tail, [b'\n', b' ' | b'\t', ..]) => tail.get(1..)?,
            b'(' => tail.get(end_of_comment(tail)? + 1..)?,
            b'"' if angle.is_none() => {
                let (quoted, after) = rest.split_at_checked(end_of_quote(tail)? + 2)?;
                text.extend_from_slice(quoted);
                rest = after;
                continue;
            }
            b'<' if angle.is_none() => {
                let (inner, after) = tail.split_at_checked(end_of_angle(tail)?)?;
                angle = Some(inner);
                after.get(1..)?
            }
            b' ' | b'\t' | b',' | b';' if angle.is_some() => tail,
            // Signs without their partner, and whatever follows the address.
            b'<' | b'>' | b')' => return None,
            _ if angle.is_some() || (first.is_ascii_control() && *first != b'\t') => return None,
            _ => {
                text.push(*first);
                unquoted.push(*first);
                rest = tail;
                continue;
            }
        };
        text.push(b' ');
        unquoted.push(b' ');
    }
    match angle {
        Some(inner) => address(inner.trim_ascii()).filter(|address| names_no_other_address(&unquoted, address)),
        None => {
            // RFC 5322 §4.4: members of a list may be empty.
            let is_edge = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
            let start = text.iter().position(|byte| !is_edge(byte))?;
            let end = text.iter().rposition(|byte| !is_edge(byte))?;
            address(text.get(start..=end)?)
        }
    }
}

/// Whether From or Sender of a message names an international address (RFC 6531). Without it nobody answers for the
/// message: it has no other form.
pub(crate) fn has_international_author(raw: &[u8]) -> bool {
    let limits = Limits::default();
    let mut fields = Fields::new(raw, 0, &limits);
    let mut list = Vec::new();
    while let Some(field) = fields.next(|_| false) {
        if (field.is("From") || field.is("Sender")) && !field.value.is_ascii() {
            address::parse(field.value, limits.max_addresses, &mut list);
        }
    }
    list.iter().any(|one| !one.address.is_ascii())
}

/// Where the bracket closes; there is nothing but an address inside.
fn end_of_angle(tail: &[u8]) -> Option<usize> {
    let start = match tail.trim_ascii_start() {
        quoted @ [b'"', inner @ ..] => tail.len() - quoted.len() + end_of_quote(inner)? + 2,
        _ => 0,
    };
    let end = start + memchr::memchr(b'>', tail.get(start..)?)?;
    (memchr::memchr3(b'<', b'(', b'"', tail.get(start..end)?).is_none()).then_some(end)
}

/// An address without a blank, comment or route in it, none of whose words looks like another address.
fn address(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let (local, domain) = text.rsplit_once('@')?;
    let misleads = |c: char| c.is_control() || "@<>()[]:;,\\".contains(c);
    let is_word = is_dot_atom(local) || (is_quoted(local) && !local.contains(misleads));
    if local.is_empty() || local.len() > 255 || !is_word || local.contains(is_layout_control) || domain.ends_with('.')
    {
        return None;
    }
    let ascii = normalize_domain(domain)?;
    // A name that IDNA maps to another one, by leaving characters out for instance, is shown otherwise than it is asked for.
    let is_as_shown = domain.is_ascii() || idna::domain_to_unicode(&ascii).0 == domain.to_lowercase();
    is_as_shown.then(|| format!("{local}@{ascii}"))
}

/// Whether a display name, apart from what is quoted of it, holds nothing that some readers take for another address.
fn names_no_other_address(name: &[u8], address: &str) -> bool {
    let text = String::from_utf8_lossy(name);
    let Some((_, behind)) = text.split_once('@') else { return true };
    !behind.contains(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'])
        || normalize(name).is_some_and(|named| named == address)
}

#[cfg(test)]
mod tests {
    use super::sole_author;

    #[test]
    fn what_every_reader_reads_alike_names_an_author() {
        for (raw, address) in [
            (" ada@Example.com", "ada@example.com"),
            ("<ada@example.com>", "ada@example.com"),
            ("Ada Lovelace <ada@example.com>", "ada@example.com"),
            ("Ada Lovelace\r\n <ada@example.com>\r\n (home)", "ada@example.com"),
            ("\"Lovelace, \\\"Ada\\\" <x@y.example>\" < ada@example.com >", "ada@example.com"),
            ("ada@example.com (Ada)", "ada@example.com"),
            ("(Ada) ada@example.com ,", "ada@example.com"),
            ("Ada (the (first)) <ada@example.com>, ,", "ada@example.com"),
            ("Lovelace, Ada <ada@example.com>", "ada@example.com"),
            ("Engines: and more <ada@example.com>", "ada@example.com"),
            ("Team: Ada <ada@example.com>;", "ada@example.com"),
            ("=?utf-8?Q?Doe,_J=C3=B6rg?= <j@example.com>", "j@example.com"),
            ("J\u{f6}rg <j@b\u{fc}cher.example>", "j@xn--bcher-kva.example"),
            ("\"ada@example.com\" <ada@example.com>", "ada@example.com"),
            ("ada@example.com <ada@example.com>", "ada@example.com"),
            ("\"ceo@bank.example\" <ada@example.com>", "ada@example.com"),
            ("Ada @ Engines <ada@example.com>", "ada@example.com"),
            ("@ada <ada@example.com>", "ada@example.com"),
            ("\"ada lovelace\"@example.com", "\"ada lovelace\"@example.com"),
            ("<\"ada lovelace\"@example.com>", "\"ada lovelace\"@example.com"),
            ("ada..l.@example.com", "ada..l.@example.com"),
            ("ada@[192.0.2.1]", "ada@[192.0.2.1]"),
        ] {
            assert_eq!(sole_author(raw.as_bytes()).as_deref(), Some(address), "{raw}");
        }
    }

    #[test]
    fn what_readers_differ_over_names_none() {
        for raw in [
            "",
            ",",
            "Ada",
            "<>",
            "Team:;",
            "Team: ada@example.com;",
            "ada@example.com, bob@example.com",
            "Ada <ada@example.com>, Bob <bob@example.com>",
            "<ada@example.com> <ada@example.com>",
            "<<ada@example.com>>",
            "Ada <ada@example.com",
            "Ada ada@example.com>",
            "Ada ada@example.com",
            "ada@example.com Ada",
            "ceo@bank.example <ada@example.com>",
            "ceo@bank.example<ada@example.com>",
            "ceo@bank .example <ada@example.com>",
            "ceo@bank\u{3002}example <ada@example.com>",
            "\"CEO\" ceo@bank.example <ada@example.com>",
            "<ceo@bank.example> ada@example.com",
            "<ada@example.com>ceo@bank.example",
            "ada@example .com",
            "ada@example(x).com",
            "ada @example.com",
            "<ada@example(x).com>",
            "<ada@example\r\n .com>",
            "<ceo@bank.example .evil.example>",
            "ceo@bank.example\".evil.example",
            "ceo@bank.example>.evil.example",
            "ceo@bank.example).evil.example",
            "ceo@bank.example(.evil.example",
            "ceo@bank.example\"\".evil.example",
            "ada@example.com\"",
            "\"Ada <ada@example.com>",
            "Ada) <ada@example.com>",
            "Ada <ada@example.com>>",
            "Ada <ada@example.com> \"",
            "<@bank.example:ada@example.com>",
            "<ceo@bank.example@example.com>",
            "\"ceo@bank.example\"@example.com",
            "<\"ceo@bank.example\"@example.com>",
            "<\"ada>\"@example.com>",
            "<mailto:ada@example.com>",
            "=?utf-8?Q?ceo?=@bank.example",
            "=?utf-8?Q?ceo=40bank.example?= (Ada)",
            "=?utf-8?Q?<ceo=40bank.example>,?= <ada@example.com>",
            "ada@example.com.",
            "ada@exa\u{200b}mple.com",
            "\u{202e}ada@example.com",
            "ada@example.com\0",
            "ada@example.com\u{b}",
            "Ada\rBob <ada@example.com>",
            "Ada\nBob <ada@example.com>",
        ] {
            assert_eq!(sole_author(raw.as_bytes()), None, "{raw}");
        }
        assert_eq!(sole_author(b"J\xf6rg <j@example.com>").as_deref(), Some("j@example.com"), "a name may be anything");
        assert_eq!(sole_author(b"j\xf6rg@example.com"), None);
    }
}
