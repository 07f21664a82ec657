//! Header fields in the form in which they are written: each value in the syntax of its field, encoded words only
//! where RFC 2047 §5 allows them, lines folded only at whitespace.
//!
//! Used for fields that API callers provide, which are refused if malformed, and for fields that submission repairs.

mod text;

use super::address::Domain;
use super::line::MAX_LINE;
use super::mailbox_list::{NamedMailbox, parse_list};
use super::{message_id, uri};
pub(crate) use text::encoded_words;
use text::{phrase, phrase_or_atoms, unstructured};

/// RFC 5322 §2.1.1: the length that a line should not exceed.
const PREFERRED_LINE: usize = 78;

/// The syntax of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Unstructured text (RFC 5322 §2.2.1).
    Unstructured,
    Mailboxes,
    /// Message-IDs in angle brackets.
    MessageIds,
    /// URIs in angle brackets (RFC 2369 §2).
    Uris,
    /// An optional phrase and an id in angle brackets (RFC 2919 §3).
    ListId,
    /// Comma-separated phrases (RFC 5322 §3.6.5).
    Phrases,
    /// Keywords of a protocol, always ASCII.
    ProtocolWords,
}

/// A value that does not fit its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("the value must be one or more e-mail addresses")]
    Mailboxes,
    #[error("the value must be one or more Message-IDs in angle brackets")]
    MessageIds,
    #[error("the value must be one or more URLs in angle brackets")]
    Uris,
    #[error("the value must be a list id in angle brackets")]
    ListId,
    /// Not ASCII where nothing may be encoded.
    #[error("the value must be ASCII")]
    Ascii,
    /// Too long for a line, and must not be folded.
    #[error("the value has a part of over 990 characters that must not be folded")]
    TooLong,
}

const FIELD_SYNTAX: &[(Syntax, &[&str])] = &[
    (
        Syntax::Mailboxes,
        &[
            "From",
            "Sender",
            "To",
            "Cc",
            "Reply-To",
            "Disposition-Notification-To",
            "Return-Receipt-To",
            "Read-Receipt-To",
            "X-Confirm-Reading-To",
            "Errors-To",
            "Mail-Followup-To",
            "Mail-Reply-To",
            "Abuse-Reports-To",
            "Apparently-To",
            "X-Report-Abuse-To",
        ],
    ),
    (
        Syntax::MessageIds,
        &["Message-ID", "In-Reply-To", "References", "Supersedes", "Obsoletes", "Original-Message-ID"],
    ),
    (
        Syntax::Uris,
        &[
            "List-Unsubscribe",
            "List-Subscribe",
            "List-Help",
            "List-Owner",
            "List-Post",
            "List-Archive",
            "Archived-At",
        ],
    ),
    (Syntax::ListId, &["List-Id"]),
    (Syntax::Phrases, &["Keywords"]),
    (
        Syntax::ProtocolWords,
        &[
            "List-Unsubscribe-Post",
            "Auto-Submitted",
            "Importance",
            "Priority",
            "Precedence",
            "Sensitivity",
            "X-Priority",
            "X-MSMail-Priority",
            "X-Auto-Response-Suppress",
            "Feedback-ID",
            "Accept-Language",
            "Expires",
            "Expiry-Date",
            "Reply-By",
            "TLS-Required",
            "Require-Recipient-Valid-Since",
            "Autocrypt",
            "Disposition-Notification-Options",
            "MT-Priority",
            "Date",
            "MIME-Version",
            "Received",
        ],
    ),
];

/// Returns the syntax of a field; unknown fields are unstructured.
pub(crate) fn syntax_of(name: &str) -> Syntax {
    let names_it = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    FIELD_SYNTAX.iter().find(|(_, names)| names_it(names)).map_or(Syntax::Unstructured, |(syntax, _)| *syntax)
}

/// Formats the field as `name: value` and CRLF, folded.
///
/// # Errors
/// The value does not have the syntax of the field.
pub(crate) fn field(name: &str, value: &str) -> Result<String, ValueError> {
    fold(name, &format_value(name, value)?)
}

/// Formats a field of mailboxes.
///
/// # Errors
/// A mailbox is too long for a line.
pub(crate) fn mailboxes_field<'m>(
    name: &str,
    list: impl IntoIterator<Item = &'m NamedMailbox>,
) -> Result<String, ValueError> {
    fold(name, &mailboxes(list))
}

/// Formats a field of unstructured text.
///
/// # Errors
/// None in practice: words too long for a line are encoded.
pub(crate) fn text_field(name: &str, text: &str) -> Result<String, ValueError> {
    fold(name, &unstructured(text))
}

/// Formats the value in the syntax of its field, on one line.
fn format_value(name: &str, value: &str) -> Result<String, ValueError> {
    match syntax_of(name) {
        Syntax::Unstructured => Ok(unstructured(value)),
        Syntax::Mailboxes => Ok(mailboxes(&parse_list(value).map_err(|_| ValueError::Mailboxes)?)),
        Syntax::MessageIds => Ok(message_ids(value)?.join(" ")),
        Syntax::Uris => uris(name, value),
        Syntax::ListId => list_id(value),
        Syntax::Phrases => Ok(value.split(',').map(|one| phrase_or_atoms(one.trim())).collect::<Vec<_>>().join(", ")),
        Syntax::ProtocolWords if value.is_ascii() => Ok(value.trim().to_owned()),
        Syntax::ProtocolWords => Err(ValueError::Ascii),
    }
}

/// Formats `name: value` and CRLF, folded before whitespace so that lines have at most 78 octets where possible, and
/// 998 in any case.
///
/// # Errors
/// A word is too long for any line.
pub(crate) fn fold(name: &str, value: &str) -> Result<String, ValueError> {
    let mut field = String::with_capacity(name.len() + value.len() + value.len() / 32 + 8);
    field.push_str(name);
    field.push(':');
    let mut column = field.len();
    let value = value.trim();
    let mut rest = value;
    let mut blank = " ";
    let mut first = true;
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(rest.find([' ', '\t']).unwrap_or(rest.len()));
        let length = blank.len() + word.len();
        if length > MAX_LINE {
            return Err(ValueError::TooLong);
        }
        // Every parser accepts a field whose first line is empty, but some filters dislike it.
        if column + length > if first { MAX_LINE } else { PREFERRED_LINE } {
            field.push_str("\r\n");
            column = 0;
        }
        field.push_str(blank);
        field.push_str(word);
        column += length;
        first = false;
        let blanks = behind.len() - behind.trim_start_matches([' ', '\t']).len();
        (blank, rest) = behind.split_at(blanks);
    }
    field.push_str("\r\n");
    Ok(field)
}

/// Formats comma-separated mailboxes.
pub(crate) fn mailboxes<'m>(list: impl IntoIterator<Item = &'m NamedMailbox>) -> String {
    let list = list.into_iter().map(|one| mailbox(one.name.as_deref(), &one.mailbox.to_string()));
    list.collect::<Vec<_>>().join(", ")
}

/// Formats `"Name" <address>`, or `<address>`.
pub(crate) fn mailbox(name: Option<&str>, address: &str) -> String {
    match name.filter(|name| !name.trim().is_empty()) {
        Some(name) => format!("{} <{address}>", phrase(name)),
        None => format!("<{address}>"),
    }
}

/// Returns the Message-IDs of a field, in angle brackets. A single one may lack them.
///
/// # Errors
/// One of them is not a Message-ID.
pub(crate) fn message_ids(value: &str) -> Result<Vec<String>, ValueError> {
    let mut ids = Vec::new();
    let value = value.trim();
    let mut rest = value;
    let is_between = |c: char| c.is_whitespace() || c == ',';
    while !rest.is_empty() {
        let (id, behind) = match rest.strip_prefix('<') {
            Some(inner) => inner.split_once('>').ok_or(ValueError::MessageIds)?,
            None => rest.split_at(rest.find(|c: char| is_between(c) || c == '<').unwrap_or(rest.len())),
        };
        let bare = !rest.starts_with('<');
        // A bare word without `@` is only an id if it is the whole value.
        if bare && !id.contains('@') && id.len() < value.len() {
            return Err(ValueError::MessageIds);
        }
        ids.push(message_id::bracketed(id).ok_or(ValueError::MessageIds)?);
        rest = behind.trim_start_matches(is_between);
    }
    if ids.is_empty() { Err(ValueError::MessageIds) } else { Ok(ids) }
}

/// Formats comma-separated URIs, each in angle brackets (RFC 2369 §2); comments stay.
fn uris(name: &str, value: &str) -> Result<String, ValueError> {
    let value = value.trim();
    if name.eq_ignore_ascii_case("List-Post")
        && let Some((no, behind)) = value.split_at_checked(2).filter(|(no, _)| no.eq_ignore_ascii_case("NO"))
        && let (comment, "") = comment(behind)?
    {
        return Ok(format!("{}{comment}", no.to_ascii_uppercase()));
    }
    if !value.contains('<') {
        // A comma may be part of a single URI or separate two.
        let separate: Option<Vec<String>> = value.split(',').map(|one| uri::to_ascii(one.trim())).collect();
        let list = separate.or_else(|| uri::to_ascii(value).map(|one| vec![one])).ok_or(ValueError::Uris)?;
        return Ok(list.iter().map(|one| format!("<{one}>")).collect::<Vec<_>>().join(", "));
    }
    let mut list = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (before, uri) = comment(rest)?;
        let (given, behind) = uri.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or(ValueError::Uris)?;
        let (after, behind) = comment(behind)?;
        let given = uri::to_ascii(given).ok_or(ValueError::Uris)?;
        list.push(format!("{before} <{given}>{after}").trim_start().to_owned());
        rest = match behind.strip_prefix(',') {
            Some(behind) => behind.trim_start(),
            None if behind.is_empty() => "",
            None => return Err(ValueError::Uris),
        };
    }
    Ok(list.join(", "))
}

/// Splits off the comment that `text` begins with, formatted for output; it is dropped unless it is plain ASCII.
fn comment(text: &str) -> Result<(String, &str), ValueError> {
    let text = text.trim_start();
    let Some(comment) = text.strip_prefix('(') else { return Ok((String::new(), text)) };
    let (comment, behind) = comment.split_once(')').ok_or(ValueError::Uris)?;
    let is_plain = !comment.contains(['(', '\\']) && comment.is_ascii();
    let normalized = if is_plain { format!(" ({comment})") } else { String::new() };
    Ok((normalized, behind.trim_start()))
}

/// Formats `"Phrase" <list.example>` (RFC 2919 §3); the id may lack its brackets.
fn list_id(value: &str) -> Result<String, ValueError> {
    let value = value.trim();
    let (name, id) = match value.rsplit_once('<') {
        Some((name, id)) => (name.trim(), id.strip_suffix('>').ok_or(ValueError::ListId)?),
        None => ("", value),
    };
    let id = if id.is_ascii() {
        id.trim().to_owned()
    } else {
        Domain::parse(id).map_err(|_| ValueError::ListId)?.to_string()
    };
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>".contains(&byte)) {
        return Err(ValueError::ListId);
    }
    let name = name.trim_matches('"');
    Ok(if name.is_empty() { format!("<{id}>") } else { format!("{} <{id}>", phrase(name)) })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn each_field_has_its_syntax() {
        for (name, value, wanted) in [
            ("List-Unsubscribe", "<https://a.test/u?token=?abc>", "<https://a.test/u?token=?abc>"),
            ("list-unsubscribe", "https://a.test/x,y", "<https://a.test/x,y>"),
            ("List-Unsubscribe", "mailto:u@a.test, https://a.test/u", "<mailto:u@a.test>, <https://a.test/u>"),
            (
                "List-Unsubscribe",
                "<https://bücher.example:81/ü?q=ä b>",
                "<https://xn--bcher-kva.example:81/%C3%BC?q=%C3%A4b>",
            ),
            (
                "List-Help",
                "<mailto:ü@bücher.example?subject=Hä> (help)",
                "<mailto:%C3%BC@xn--bcher-kva.example?subject=H%C3%A4> (help)",
            ),
            ("List-Post", "no", "NO"),
            ("List-Post", "NO (posting not allowed on this list)", "NO (posting not allowed on this list)"),
            (
                "List-Unsubscribe",
                "(Use this command to get off the list) <mailto:list-manager@host.test?body=unsubscribe%20list>",
                "(Use this command to get off the list) <mailto:list-manager@host.test?body=unsubscribe%20list>",
            ),
            ("List-Id", "Bücher <list.bücher.example>", "=?utf-8?B?QsO8Y2hlcg==?= <list.xn--bcher-kva.example>"),
            ("Reply-To", "a@bücher.example", "<a@xn--bcher-kva.example>"),
            (
                "Reply-To",
                "\"Jörg, Müller\" <j@r.test>, b@c.test",
                "=?utf-8?B?SsO2cmcsIE3DvGxsZXI=?= <j@r.test>, <b@c.test>",
            ),
            ("Errors-To", "=?utf-8?q?x?= <a@b.test>", "=?utf-8?B?PT91dGYtOD9xP3g/PQ==?= <a@b.test>"),
            ("References", "<a@b> <c@d>,e@f", "<a@b> <c@d> <e@f>"),
            ("In-Reply-To", "1234", "<1234>"),
            ("Keywords", "a b, Bücher", "a b, =?utf-8?B?QsO8Y2hlcg==?="),
            ("X-Order", "1017 Grüße =?x", "1017 =?utf-8?B?R3LDvMOfZQ==?= =?x"),
            ("Auto-Submitted", "auto-generated", "auto-generated"),
        ] {
            assert_eq!(format_value(name, value).unwrap(), wanted, "{name}: {value}");
        }
    }

    #[test]
    fn what_a_field_does_not_take() {
        for (name, value, wanted) in [
            ("Reply-To", "nobody", ValueError::Mailboxes),
            ("Disposition-Notification-To", "", ValueError::Mailboxes),
            ("List-Unsubscribe", "click here", ValueError::Uris),
            ("List-Unsubscribe", "<https://a.test/", ValueError::Uris),
            ("List-Unsubscribe", "<https:///x>", ValueError::Uris),
            ("References", "see <a@b>", ValueError::MessageIds),
            ("References", "<ä@b>", ValueError::MessageIds),
            ("References", "<a@b> garbage", ValueError::MessageIds),
            ("References", "garbage <a@b>", ValueError::MessageIds),
            ("Importance", "höchste", ValueError::Ascii),
        ] {
            assert_eq!(format_value(name, value), Err(wanted), "{name}: {value}");
        }
        let long = format!("<https://a.test/{}>", "a".repeat(1_000));
        assert_eq!(field("List-Unsubscribe", &long), Err(ValueError::TooLong));
    }

    #[test]
    fn lines_are_folded_at_blanks_alone() {
        let long = format!("<https://a.test/{}>", "a".repeat(950));
        assert_eq!(field("List-Unsubscribe", &long).unwrap(), format!("List-Unsubscribe: {long}\r\n"));
        let longer = format!("<https://a.test/{}>", "a".repeat(970));
        assert_eq!(field("List-Unsubscribe", &longer).unwrap(), format!("List-Unsubscribe:\r\n {longer}\r\n"));
        let text = "word  ".repeat(100);
        let field = text_field("X-Text", &text).unwrap();
        assert!(field.lines().all(|line| line.len() <= 78 && !line.trim().is_empty()));
        assert_eq!(field.replace("\r\n", ""), format!("X-Text: {}", text.trim()));
    }
}
