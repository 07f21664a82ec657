//! Header fields as they are written: each value in the syntax of its field, encoded words only where RFC 2047 §5 lets them
//! stand, lines folded at blanks alone.
//!
//! Used for the fields of the API's callers, which are refused where they are wrong, and for what submission repairs.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::address::Domain;
use super::mailbox_list::{NamedMailbox, parse_list};

/// RFC 5322 §2.1.1: what a line should not exceed, and what it must not.
const WANTED_LINE: usize = 78;
/// Octets of a line at most, without CRLF.
pub const MAX_LINE: usize = 998;
/// A word of a text that becomes encoded words: with a blank before it, a line has room for anything shorter.
const MAX_WORD: usize = 900;

/// What the value of a field is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// Unstructured text (RFC 5322 §2.2.1).
    Text,
    /// Mailboxes with display names.
    Mailboxes,
    /// Message-IDs in angle brackets.
    MessageIds,
    /// URIs in angle brackets (RFC 2369 §2).
    Uris,
    /// A phrase, then an id in angle brackets (RFC 2919 §3).
    ListId,
    /// Phrases with commas between (RFC 5322 §3.6.5).
    Phrases,
    /// Words of a protocol, never beyond ASCII.
    Words,
}

/// Why a value cannot stand in its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A part of it is no mailbox.
    #[error("the value must be one or more e-mail addresses")]
    Mailboxes,
    /// A part of it is no Message-ID.
    #[error("the value must be one or more Message-IDs in angle brackets")]
    MessageIds,
    /// A part of it is no URI.
    #[error("the value must be one or more URLs in angle brackets")]
    Uris,
    /// It is no list id.
    #[error("the value must be a list id in angle brackets")]
    ListId,
    /// It goes beyond ASCII where nothing may be encoded.
    #[error("the value must be ASCII")]
    Ascii,
    /// No line has room for it, and it must not be folded.
    #[error("the value has a part of over 990 characters that must not be folded")]
    TooLong,
}

const BY_NAME: &[(Syntax, &[&str])] = &[
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
        Syntax::Words,
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

/// The syntax of a field; what is not known is text.
pub fn syntax_of(name: &str) -> Syntax {
    let names_it = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    BY_NAME.iter().find(|(_, names)| names_it(names)).map_or(Syntax::Text, |(syntax, _)| *syntax)
}

/// A field of this value, `name: value` and CRLF, folded.
///
/// # Errors
/// The value has not the syntax of the field.
pub fn field(name: &str, value: &str) -> Result<String, ValueError> {
    folded(name, &written(name, value)?)
}

/// A field of these mailboxes.
///
/// # Errors
/// A line is too short for one of them.
pub fn mailboxes_field<'m>(
    name: &str,
    list: impl IntoIterator<Item = &'m NamedMailbox>,
) -> Result<String, ValueError> {
    folded(name, &mailboxes(list))
}

/// A field of unstructured text.
///
/// # Errors
/// None occurs: what is too long is encoded.
pub fn text_field(name: &str, text: &str) -> Result<String, ValueError> {
    folded(name, &unstructured(text))
}

/// The value as its field wants it, on one line.
fn written(name: &str, value: &str) -> Result<String, ValueError> {
    match syntax_of(name) {
        Syntax::Text => Ok(unstructured(value)),
        Syntax::Mailboxes => Ok(mailboxes(&parse_list(value).map_err(|_| ValueError::Mailboxes)?)),
        Syntax::MessageIds => Ok(message_ids(value)?.join(" ")),
        Syntax::Uris => uris(name, value),
        Syntax::ListId => list_id(value),
        Syntax::Phrases => Ok(value.split(',').map(|one| phrase_of_list(one.trim())).collect::<Vec<_>>().join(", ")),
        Syntax::Words if value.is_ascii() => Ok(value.trim().to_owned()),
        Syntax::Words => Err(ValueError::Ascii),
    }
}

/// `name: value` and CRLF, folded before blanks so that lines have 78 octets where they can, and 998 where they must.
///
/// # Errors
/// There is a word that no line has room for.
pub fn folded(name: &str, value: &str) -> Result<String, ValueError> {
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
        // A field whose first line is empty is read by all, and liked by few.
        if column + length > if first { MAX_LINE } else { WANTED_LINE } {
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

/// Mailboxes with commas between.
pub fn mailboxes<'m>(list: impl IntoIterator<Item = &'m NamedMailbox>) -> String {
    let list = list.into_iter().map(|one| mailbox(one.name.as_deref(), &one.mailbox.to_string()));
    list.collect::<Vec<_>>().join(", ")
}

/// `"Name" <address>`, or `<address>`.
pub fn mailbox(name: Option<&str>, address: &str) -> String {
    match name.filter(|name| !name.trim().is_empty()) {
        Some(name) => format!("{} <{address}>", phrase(name)),
        None => format!("<{address}>"),
    }
}

/// A display name, quoted; in encoded words where it is not ASCII, or would be taken for such.
fn phrase(name: &str) -> String {
    if !name.is_ascii() || looks_encoded(name) || name.split(' ').any(|word| word.len() > MAX_WORD) {
        return encoded_words(name);
    }
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// A phrase as it is written without quotes where it can be.
fn phrase_of_list(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" !#$%&'*+-/=?^_`{|}~".contains(&byte);
    if text.bytes().all(is_plain) && !looks_encoded(text) { text.to_owned() } else { phrase(text) }
}

/// The value of an unstructured field. Its words stand as they are; those that would not arrive so become encoded words
/// (RFC 2047 §5).
fn unstructured(text: &str) -> String {
    let mut value = String::with_capacity(text.len() + 16);
    // Blanks and words behind an encoded word, which another one right after them would swallow (RFC 2047 §6.2).
    let mut encoding = String::new();
    let mut blanks = String::new();
    // A reader that is generous joins what blanks part, so one word alone does not tell.
    let protect = looks_encoded(text);
    for token in text.split_inclusive([' ', '\t']) {
        let (word, blank) = match token.strip_suffix([' ', '\t']) {
            Some(word) => (word, token.get(word.len()..).unwrap_or_default()),
            None => (token, ""),
        };
        if !word.is_ascii() || word.len() > MAX_WORD || (protect && (word.contains("=?") || word.contains("?="))) {
            if encoding.is_empty() {
                value.push_str(&blanks);
            } else {
                encoding.push_str(&blanks);
            }
            blanks.clear();
            encoding.push_str(word);
        } else if !word.is_empty() {
            value.push_str(&encoded_words(&std::mem::take(&mut encoding)));
            value.push_str(&std::mem::take(&mut blanks));
            value.push_str(word);
        }
        blanks.push_str(blank);
    }
    value.push_str(&encoded_words(&encoding));
    value
}

/// Whether a reader may find an encoded word in a text.
fn looks_encoded(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("=?") else { return false };
    // Charset and encoding have their own question marks before the end.
    rest.rfind("?=").and_then(|end| rest.get(..end)).is_some_and(|inner| inner.matches('?').count() >= 2)
}

/// RFC 2047 §2; nothing for nothing.
pub fn encoded_words(text: &str) -> String {
    /// Octets that fit an encoded word of 75 characters.
    const FIT: usize = 45;
    let mut words = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.floor_char_boundary(FIT));
        let separator = if words.is_empty() { "" } else { " " };
        words.extend([separator, "=?utf-8?B?", &BASE64.encode(now), "?="]);
        rest = later;
    }
    words
}

/// The Message-IDs of a field, in angle brackets, which one alone may lack.
///
/// # Errors
/// One of them is none.
pub fn message_ids(value: &str) -> Result<Vec<String>, ValueError> {
    let mut ids = Vec::new();
    let mut rest = value.trim();
    let is_between = |c: char| c.is_whitespace() || c == ',';
    while !rest.is_empty() {
        let (id, behind) = match rest.strip_prefix('<') {
            Some(inner) => inner.split_once('>').ok_or(ValueError::MessageIds)?,
            None => rest.split_at(rest.find(|c: char| is_between(c) || c == '<').unwrap_or(rest.len())),
        };
        let bare = !rest.starts_with('<');
        let fits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>".contains(&byte));
        if !fits || (bare && !id.contains('@') && id.len() < rest.len()) {
            return Err(ValueError::MessageIds);
        }
        ids.push(format!("<{id}>"));
        rest = behind.trim_start_matches(is_between);
    }
    if ids.is_empty() { Err(ValueError::MessageIds) } else { Ok(ids) }
}

/// URIs with commas between, each in angle brackets (RFC 2369 §2); comments stay.
fn uris(name: &str, value: &str) -> Result<String, ValueError> {
    let value = value.trim();
    if name.eq_ignore_ascii_case("List-Post") && value.eq_ignore_ascii_case("NO") {
        return Ok("NO".to_owned());
    }
    if !value.contains('<') {
        // A comma may belong to the one URI, or stand between two.
        let apart: Option<Vec<String>> = value.split(',').map(|one| uri(one.trim())).collect();
        let list = apart.or_else(|| uri(value).map(|one| vec![one])).ok_or(ValueError::Uris)?;
        return Ok(list.iter().map(|one| format!("<{one}>")).collect::<Vec<_>>().join(", "));
    }
    let mut list = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (given, behind) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or(ValueError::Uris)?;
        let mut item = format!("<{}>", uri(given).ok_or(ValueError::Uris)?);
        let mut behind = behind.trim_start();
        if let Some(comment) = behind.strip_prefix('(') {
            let (comment, after) = comment.split_once(')').ok_or(ValueError::Uris)?;
            if !comment.contains(['(', '\\']) && comment.is_ascii() {
                item.push_str(&format!(" ({comment})"));
            }
            behind = after.trim_start();
        }
        list.push(item);
        rest = match behind.strip_prefix(',') {
            Some(behind) => behind.trim_start(),
            None if behind.is_empty() => "",
            None => return Err(ValueError::Uris),
        };
    }
    Ok(list.join(", "))
}

/// What a URI must not hold as it is (RFC 3986 §2); what is percent-encoded already stays.
const UNSAFE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// A URI in ASCII: its host as A-labels, the rest percent-encoded (RFC 3987 §3.1). Blanks are those of folding.
fn uri(text: &str) -> Option<String> {
    let text: Cow<'_, str> = if text.contains(char::is_whitespace) {
        text.split_whitespace().collect::<String>().into()
    } else {
        text.into()
    };
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !is_scheme || rest.is_empty() {
        return None;
    }
    let (before, host, after) = host_of(scheme, rest)?;
    let host = if host.is_ascii() { host.to_owned() } else { Domain::parse(host).ok()?.to_string() };
    let encode = |text| utf8_percent_encode(text, UNSAFE).to_string();
    Some(format!("{scheme}:{}{}{}", encode(before), encode(&host), encode(after)))
}

/// The host of a URI behind its scheme, and what stands before and after it.
fn host_of<'u>(scheme: &str, rest: &'u str) -> Option<(&'u str, &'u str, &'u str)> {
    let (start, end) = if let Some(authority) = rest.strip_prefix("//") {
        let end = 2 + authority.find(['/', '?', '#']).unwrap_or(authority.len());
        let start = rest.get(..end)?.rfind('@').map_or(2, |at| at + 1);
        let port = rest
            .get(start..end)?
            .rfind(':')
            .filter(|_| !rest.get(start..end).is_some_and(|host| host.starts_with('[')));
        let end = port.map_or(end, |port| start + port);
        if start == end {
            return None;
        }
        (start, end)
    } else if scheme.eq_ignore_ascii_case("mailto") {
        let end = rest.find(['?', ',']).unwrap_or(rest.len());
        let start = rest.get(..end)?.rfind('@')? + 1;
        (start, end)
    } else if ["http", "https", "ftp"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    } else {
        (0, 0)
    };
    Some((rest.get(..start)?, rest.get(start..end)?, rest.get(end..)?))
}

/// `"Phrase" <list.example>` (RFC 2919 §3); the id may lack its brackets.
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
            assert_eq!(written(name, value).unwrap(), wanted, "{name}: {value}");
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
            ("Importance", "höchste", ValueError::Ascii),
        ] {
            assert_eq!(written(name, value), Err(wanted), "{name}: {value}");
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
