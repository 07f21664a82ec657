//! What a submission server repairs of a message before it signs it (RFC 6409 §8): fields beyond ASCII, and lines that are
//! longer than any host has to take.

use std::ops::Range;

use mail_builder::headers::Header as _;
use mail_builder::headers::content_type::ContentType;

use super::charset::Charset;
use super::header::Fields;
use super::params::Value;
use super::recode::{is_plain, to_seven_bit};
use super::walk::{Structure, walk};
use super::{Limits, NamedAddress, address, words};
use crate::mail::header_value::{self, Syntax, encoded_words, folded, mailbox, message_ids, syntax_of};

/// What every reader takes octets for that are no UTF-8, and that nothing is said of.
const UNKNOWN_CHARSET: &[u8] = b"windows-1252";
/// Types whose parts are signed or encrypted as they stand (RFC 1847, RFC 8551).
const SEALED: &[&str] =
    &["multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"];

/// Why a message can neither be sent nor repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Irreparable {
    /// A change would break a signature or what is encrypted.
    #[error("a line of over 998 octets in a signed or encrypted part")]
    Sealed,
    /// There is no other way to write it.
    #[error("a line of over 998 octets that cannot be folded or encoded")]
    Line,
}

/// The message as any host takes it, as far as that can be: fields in ASCII, lines of at most 998 octets, bodies in 7 bits.
/// What is so already stays as it is, octet for octet.
///
/// # Errors
/// A line stays too long.
pub fn repaired(raw: Vec<u8>) -> Result<Vec<u8>, Irreparable> {
    if is_plain(&raw) {
        return Ok(raw);
    }
    let limits = Limits::default();
    let structure = walk(&raw, &limits, |_| {});
    let sealed = structure.headers.iter().find(|(_, kind)| kind.is_some_and(is_sealed));
    let sealed = sealed.map(|(header, _)| header.end);
    let edits = edits(&raw, &structure, sealed, &limits)?;
    let raw = if edits.is_empty() { raw } else { edited(&raw, &edits) };
    if sealed.is_some() {
        let long = raw.split(|byte| *byte == b'\n').any(|line| line.len() > header_value::MAX_LINE + 1);
        return if long { Err(Irreparable::Sealed) } else { Ok(raw) };
    }
    let recoded = if is_plain(&raw) { None } else { to_seven_bit(&raw) };
    let raw = recoded.unwrap_or(raw);
    let long = raw.split(|byte| *byte == b'\n').any(|line| line.len() > header_value::MAX_LINE + 1);
    if long { Err(Irreparable::Line) } else { Ok(raw) }
}

fn is_sealed(kind: &[u8]) -> bool {
    SEALED.contains(&Value::parse(kind).main.as_str())
}

/// The fields that are written anew, and how. Within what is sealed none is.
fn edits(
    raw: &[u8],
    structure: &Structure<'_>,
    sealed: Option<usize>,
    limits: &Limits,
) -> Result<Vec<(Range<usize>, String)>, Irreparable> {
    let mut edits = Vec::new();
    let charset = text_charset(structure);
    for (block, _) in &structure.headers {
        let header = raw.get(..block.end).unwrap_or_default();
        let inside = sealed.is_some_and(|sealed| block.start >= sealed);
        if inside || is_plain(header.get(block.start..).unwrap_or_default()) {
            continue;
        }
        let mut fields = Fields::new(header, block.start, limits);
        let mut start = block.start;
        while let Some(field) = fields.next(|_| false) {
            let at = start.max(fields.header_offset())..fields.body_offset();
            start = at.end;
            let (Some(whole), Ok(name)) = (header.get(at.clone()), std::str::from_utf8(field.name)) else { continue };
            if !is_plain(whole) {
                edits.push((at, rewritten(name, &text_of(field.value, charset)).ok_or(Irreparable::Line)?));
            }
        }
    }
    Ok(edits)
}

fn edited(raw: &[u8], edits: &[(Range<usize>, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + edits.iter().map(|(_, field)| field.len()).sum::<usize>());
    let mut done = 0;
    for (at, field) in edits {
        out.extend_from_slice(raw.get(done..at.start).unwrap_or_default());
        out.extend_from_slice(field.as_bytes());
        done = at.end;
    }
    out.extend_from_slice(raw.get(done..).unwrap_or_default());
    out
}

/// The charset of the first text of a message, for its fields.
fn text_charset(structure: &Structure<'_>) -> Charset {
    let declared = structure.headers.iter().filter_map(|(_, kind)| {
        let kind = Value::parse((*kind)?);
        if kind.main.starts_with("text/") { kind.bytes("charset") } else { None }
    });
    let charset = declared.map(|label| Charset::for_label(&label)).next();
    charset.filter(|charset| !charset.is_utf_8()).unwrap_or_else(|| Charset::for_label(UNKNOWN_CHARSET))
}

/// The value of a field on one line.
fn text_of(value: &[u8], charset: Charset) -> String {
    let text = match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => charset.decode(value),
    };
    let unfolded = text.replace("\r\n", "");
    unfolded.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// A field written anew; empty when nothing of it can be kept, none when no line has room for it.
fn rewritten(name: &str, text: &str) -> Option<String> {
    if name.eq_ignore_ascii_case("Content-Type") || name.eq_ignore_ascii_case("Content-Disposition") {
        return Some(parameters(name, text));
    }
    match syntax_of(name) {
        Syntax::Mailboxes => mailboxes(name, text),
        Syntax::MessageIds => ids(name, text),
        _ if text.is_ascii() && folded(name, text).is_ok() => folded(name, text).ok(),
        Syntax::Text => header_value::text_field(name, &words::decode_text(text.as_bytes())).ok(),
        // What only has to be readable for people may be encoded where its syntax is not kept.
        _ => header_value::field(name, text).or_else(|_| header_value::text_field(name, text)).ok(),
    }
}

fn mailboxes(name: &str, text: &str) -> Option<String> {
    let mut list = Vec::new();
    if !address::parse(text.as_bytes(), Limits::default().max_addresses, &mut list) {
        return None;
    }
    if list.is_empty() {
        // A group without members says what names nobody (RFC 6857 §3.1.8).
        return folded(name, &format!("{}:;", encoded_words(text.trim_end_matches([';', ':', ' '])))).ok();
    }
    let list = list.iter().map(|one| mailbox(one.name.as_deref(), &one.address));
    folded(name, &list.collect::<Vec<_>>().join(", ")).ok()
}

/// `raw`, which was signed here, for a host that takes ASCII headers alone (RFC 6857 §3.1): without its signatures, and with an
/// international address as the name of a group without members. None where the header is ASCII, or cannot be.
pub fn with_ascii_header(raw: &[u8]) -> Option<Vec<u8>> {
    let limits = Limits::default();
    let mut fields = Fields::new(raw, 0, &limits);
    let mut header = Vec::new();
    let mut is_changed = false;
    while let Some(field) = fields.next(|_| false) {
        let whole = raw.get(fields.field_offset()..fields.body_offset()).unwrap_or_default();
        if whole.is_ascii() {
            if !field.is("DKIM-Signature") {
                header.extend_from_slice(whole);
            }
            continue;
        }
        is_changed = true;
        let (name, text) = (std::str::from_utf8(field.name).ok()?, std::str::from_utf8(field.value).ok()?);
        let text = text_of(text.as_bytes(), Charset::for_label(b"utf-8"));
        let written = match syntax_of(name) {
            Syntax::Mailboxes => ascii_mailboxes(name, &text),
            _ => rewritten(name, &text).filter(|field| field.is_ascii()),
        };
        let written = written.or_else(|| header_value::text_field(name, &text).ok());
        header.extend_from_slice(written.filter(|field| field.is_ascii())?.as_bytes());
    }
    if !is_changed || fields.truncated {
        return None;
    }
    header.extend_from_slice(b"\r\n");
    header.extend_from_slice(raw.get(fields.body_offset()..).unwrap_or_default());
    Some(header)
}

fn ascii_mailboxes(name: &str, text: &str) -> Option<String> {
    let mut list = Vec::new();
    if !address::parse(text.as_bytes(), Limits::default().max_addresses, &mut list) || list.is_empty() {
        return None;
    }
    let one = |one: &NamedAddress| {
        if one.address.is_ascii() {
            return mailbox(one.name.as_deref(), &one.address);
        }
        let shown = one.name.iter().map(String::as_str).chain([one.address.as_str()]).collect::<Vec<_>>().join(" ");
        format!("{}:;", encoded_words(&shown))
    };
    folded(name, &list.iter().map(one).collect::<Vec<_>>().join(", ")).ok()
}

/// The Message-IDs of a field, without what is none.
fn ids(name: &str, text: &str) -> Option<String> {
    let ids = text.split('<').skip(1).filter_map(|rest| rest.split_once('>'));
    let ids: Vec<String> = ids.filter_map(|(id, _)| message_ids(&format!("<{id}>")).ok()).flatten().collect();
    if ids.is_empty() { Some(String::new()) } else { folded(name, &ids.join(" ")).ok() }
}

/// A field with parameters (RFC 2231); a name in Content-Type as encoded words, which is where old readers look.
fn parameters(name: &str, text: &str) -> String {
    let value = Value::parse(text.as_bytes());
    let mut written = ContentType::new(value.main.clone());
    for parameter in value.names() {
        let Some(text) = value.get(parameter) else { continue };
        let text = match parameter {
            "name" if !text.is_ascii() => encoded_words(&text),
            _ => text,
        };
        written = written.attribute(parameter.to_owned(), text);
    }
    let mut field = format!("{name}: ").into_bytes();
    let column = field.len();
    written.write_header(&mut field, column);
    String::from_utf8_lossy(&field).into_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;
    use crate::mail::mime;

    fn text(raw: &[u8]) -> String {
        let out = repaired(raw.to_vec()).unwrap();
        assert!(is_plain(&out), "{}", String::from_utf8_lossy(&out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_beyond_ascii_become_encoded_words_in_the_charset_of_the_text() {
        let body = "\r\nContent-Type: text/plain; charset=koi8-r\r\n\r\nx\r\n";
        for (raw, subject, name) in [
            (format!("Subject: Grüße\r\nFrom: Jörg <a@b.test>{body}").into_bytes(), "Grüße", "Jörg"),
            ([b"Subject: \xf0\xd2\xc9\r\nFrom: \xf0 <a@b.test>", body.as_bytes()].concat(), "При", "П"),
            (b"Subject: Gr\xfc\xdfe\r\nFrom: J\xf6rg <a@b.test>\r\n\r\nx\r\n".to_vec(), "Grüße", "Jörg"),
            (
                format!("Subject: =?utf-8?q?=C3=A4?= ü\r\nFrom: \"Jörg, M.\" <a@b.test>{body}").into(),
                "ä ü",
                "Jörg, M.",
            ),
        ] {
            let mail = mime::parse(text(&raw).as_bytes());
            assert_eq!(mail.subject.as_deref(), Some(subject));
            assert_eq!(mail.header_from.first().unwrap().name.as_deref(), Some(name));
        }
    }

    #[test]
    fn names_of_files_become_ascii_in_the_header_of_their_part() {
        let raw = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: application/pdf; name=\"Größe.pdf\"\r\n\
                   Content-Disposition: attachment; filename=\"Größe.pdf\"\r\n\r\nx\r\n--b--\r\n";
        let out = text(raw.as_bytes());
        assert!(out.contains("name=\"=?utf-8?B?R3LDtsOfZS5wZGY=?=\"") && out.contains("filename*="), "{out}");
        assert_eq!(mime::parse(out.as_bytes()).attachments.first().unwrap().filename.as_deref(), Some("Größe.pdf"));
    }

    #[test]
    fn only_what_is_too_long_is_written_anew() {
        let long = "x".repeat(1_200);
        let to: Vec<String> = (0..90).map(|number| format!("user{number}@r.test")).collect();
        let raw = format!(
            "From: a@b.test\r\nTo: {}\r\nReferences: {}\r\nX-Long: {long}\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
             --b\r\nX-Part: kept   as is\r\n\r\nshort\r\n--b\r\n\r\n{long}\r\n--b--\r\n",
            to.join(","),
            "<1@b.test>".repeat(120),
        );
        let out = text(raw.as_bytes());
        assert!(out.starts_with("From: a@b.test\r\nTo: <user0@r.test>, <user1@r.test>,"), "{out}");
        assert!(
            out.contains("--b\r\nX-Part: kept   as is\r\n\r\nshort\r\n--b\r\nContent-Transfer-Encoding: base64\r\n"),
            "{out}"
        );
        let (before, after) = (mime::parse(raw.as_bytes()), mime::parse(out.as_bytes()));
        assert_eq!((after.to_names.len(), after.text), (90, before.text));
        assert_eq!(out.matches("<1@b.test>").count(), 120);
    }

    #[test]
    fn a_line_of_998_octets_stays_as_it_is() {
        let mail = |length| format!("From: a@b.test\r\n\r\n{}\r\n", "x".repeat(length)).into_bytes();
        assert_eq!(repaired(mail(998)), Ok(mail(998)));
        assert!(text(&mail(999)).contains("Content-Transfer-Encoding: base64"));
        let name = format!("From: a@b.test\r\n{}: x\r\n\r\n", "X".repeat(1_000)).into_bytes();
        assert_eq!(repaired(name), Err(Irreparable::Line));
    }

    #[test]
    fn what_is_sealed_is_not_touched() {
        let long = "x".repeat(1_200);
        let raw = format!(
            "Subject: ü\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n{long}\r\n--b\r\n\
             Content-Type: application/pgp-signature\r\n\r\nx\r\n--b--\r\n"
        );
        assert_eq!(repaired(raw.clone().into_bytes()), Err(Irreparable::Sealed));
        let short = raw.replace(&long, "é");
        let out = String::from_utf8(repaired(short.clone().into_bytes()).unwrap()).unwrap();
        assert_eq!(out.split_once("Content-Type").unwrap().1, short.split_once("Content-Type").unwrap().1);
        assert!(out.starts_with("Subject: =?utf-8?B?w7w=?=\r\n"), "{out}");
    }
}
