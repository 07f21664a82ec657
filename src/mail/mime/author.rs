//! Finds the author of a message for decisions that need certainty: the address that every parser finds in a From
//! field.
//!
//! Parsers differ on malformed fields, and on whitespace and comments within an address, which RFC 5322 allows and
//! few support. There a user may be shown another address than the one that was verified.

use super::Limits;
use super::address::{self, end_of_comment, end_of_quote, is_dot_atom, is_quoted, normalize, normalize_domain};
use super::header::Fields;
use crate::mail::invisible::is_layout_control;

/// Returns the only address in the value of a From field, as `local@domain` with the domain as A-labels in lower
/// case.
///
/// Unquoted special characters in a name, such as a comma, do no harm to an address in angle brackets.
pub(crate) fn sole_author(raw: &[u8]) -> Option<String> {
    let mut rest = raw;
    // The field without comments; and the same without quoted strings.
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
            // Unbalanced delimiters, and anything after the address.
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
            // RFC 5322 §4.4: list members may be empty.
            let is_edge = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
            let start = text.iter().position(|byte| !is_edge(byte))?;
            let end = text.iter().rposition(|byte| !is_edge(byte))?;
            address(text.get(start..=end)?)
        }
    }
}

/// True if From or Sender names an internationalized address (RFC 6531). Such a message cannot be downgraded: without
/// that address nobody is responsible for it.
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

/// Returns the offset of the closing bracket, provided that only an address is inside.
fn end_of_angle(tail: &[u8]) -> Option<usize> {
    let start = match tail.trim_ascii_start() {
        quoted @ [b'"', inner @ ..] => tail.len() - quoted.len() + end_of_quote(inner)? + 2,
        _ => 0,
    };
    let end = start + memchr::memchr(b'>', tail.get(start..)?)?;
    (memchr::memchr3(b'<', b'(', b'"', tail.get(start..end)?).is_none()).then_some(end)
}

/// Parses an address without whitespace, comments or a route, none of whose words looks like another address.
fn address(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let (local, domain) = text.rsplit_once('@')?;
    let is_special = |c: char| c.is_control() || "@<>()[]:;,\\".contains(c);
    let is_word = is_dot_atom(local) || (is_quoted(local) && !local.contains(is_special));
    if local.is_empty() || local.len() > 255 || !is_word || local.contains(is_layout_control) || domain.ends_with('.')
    {
        return None;
    }
    let ascii = normalize_domain(domain)?;
    // A name that IDNA maps to another one, for instance by removing characters, is displayed differently from the
    // one that is looked up.
    let is_as_shown = domain.is_ascii() || idna::domain_to_unicode(&ascii).0 == domain.to_lowercase();
    is_as_shown.then(|| format!("{local}@{ascii}"))
}

/// True if the unquoted part of a display name contains nothing that some parsers take for another address.
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
        assert_eq!(
            sole_author(b"J\xf6rg <j@example.com>").as_deref(),
            Some("j@example.com"),
            "a name may be anything"
        );
        assert_eq!(sole_author(b"j\xf6rg@example.com"), None);
    }
}
