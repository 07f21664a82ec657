//! Repairs a submitted message before it is signed (RFC 6409 §8): fields that are not ASCII, and lines longer than
//! any host must accept.

use std::cell::OnceCell;
use std::ops::Range;

use mail_builder::headers::Header as _;
use mail_builder::headers::content_type::ContentType;

use super::body::charset_of_texts;
use super::charset::Charset;
use super::edit::Edit;
use super::header::Fields;
use super::params::ParameterizedValue;
use super::recode::{Recoding, apply_if_equivalent, is_within, protected_ranges};
use super::walk::{Structure, walk};
use super::{Limits, NamedAddress, address, words};
use crate::mail::header_value::{self, Syntax, encoded_words, fold, mailbox, syntax_of};
use crate::mail::line::{has_long_line, is_seven_bit};
use crate::mail::message_id;

/// A message that can neither be sent nor repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Irreparable {
    /// A change would break a signature or encryption.
    #[error("a line of over 998 octets in a signed or encrypted part")]
    Protected,
    /// The line cannot be written differently.
    #[error("a line of over 998 octets that cannot be folded or encoded")]
    Line,
}

/// Returns the message in the form that every host accepts, as far as possible: fields in ASCII, lines of at most 998
/// octets, bodies in 7 bits. Everything that complies already stays octet for octet, and so does everything signed or
/// encrypted, and a message so malformed that it would be parsed differently afterwards.
///
/// # Errors
/// A line that is too long cannot be changed.
pub(crate) fn repaired(raw: Vec<u8>) -> Result<Vec<u8>, Irreparable> {
    if is_seven_bit(&raw) {
        return Ok(raw);
    }
    let structure = walk(&raw, &Limits::default(), |_| {});
    let mut recoding = Recoding::preserving_protected(nested_fields);
    let written = rewritten_fields(&raw, &structure, &protected_ranges(&structure), |field| !is_seven_bit(field));
    for (at, field) in written {
        recoding.fields.push(Edit::octets(at, field.ok_or(Irreparable::Line)?));
    }
    recoding.add_message(&raw, &structure, 0, 0);
    let protected = std::mem::take(&mut recoding.protected);
    let edits = recoding.finish(&raw);
    let is_protected_long = protected.iter().any(|range| has_long_line(raw.get(range.clone()).unwrap_or_default()));
    let done = apply_if_equivalent(&raw, &edits).unwrap_or(raw);
    match has_long_line(&done) {
        false => Ok(done),
        true if is_protected_long => Err(Irreparable::Protected),
        true => Err(Irreparable::Line),
    }
}

/// Rewrites only the overlong fields of a nested message: hosts accept its non-ASCII fields as content.
fn nested_fields(raw: &[u8], structure: &Structure<'_>, protected: &[Range<usize>]) -> Vec<Edit> {
    let written = rewritten_fields(raw, structure, protected, has_long_line).into_iter();
    written.filter_map(|(at, field)| Some(Edit::octets(at, field?))).collect()
}

/// Returns the fields for which `needs_rewrite` is true with their rewritten form, if there is one. Nothing protected
/// is touched.
fn rewritten_fields(
    raw: &[u8],
    structure: &Structure<'_>,
    protected: &[Range<usize>],
    needs_rewrite: fn(&[u8]) -> bool,
) -> Vec<(Range<usize>, Option<Vec<u8>>)> {
    let limits = Limits::default();
    let mut written = Vec::new();
    let charset = OnceCell::new();
    let charset = || *charset.get_or_init(|| charset_of_texts(raw, &structure.leaves));
    for (block, _) in &structure.headers {
        let header = raw.get(..block.end).unwrap_or_default();
        if is_within(protected, block.start) || !needs_rewrite(header.get(block.start..).unwrap_or_default()) {
            continue;
        }
        let mut fields = Fields::new(header, block.start, &limits);
        let mut start = block.start;
        while let Some(field) = fields.next(|_| false) {
            let at = start.max(fields.header_offset())..fields.body_offset();
            start = at.end;
            let (Some(whole), Ok(name)) = (header.get(at.clone()), std::str::from_utf8(field.name)) else { continue };
            if needs_rewrite(whole) {
                written.push((at, rewritten(name, &unfolded_text(field.value, charset)).map(String::into_bytes)));
            }
        }
    }
    written
}

/// Unfolds the value of a field and decodes it to UTF-8.
fn unfolded_text(value: &[u8], charset: impl FnOnce() -> Charset) -> String {
    let text = words::to_utf_8(value, charset);
    let unfolded = String::from_utf8_lossy(&text).replace("\r\n", "");
    unfolded.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// Rewrites a field. Empty if nothing of it can be kept, `None` if it does not fit a line.
fn rewritten(name: &str, text: &str) -> Option<String> {
    if name.eq_ignore_ascii_case("Content-Type") || name.eq_ignore_ascii_case("Content-Disposition") {
        return Some(parameters(name, text));
    }
    match syntax_of(name) {
        Syntax::Mailboxes => mailboxes(name, text),
        Syntax::MessageIds => message_ids(name, text),
        _ if text.is_ascii() && fold(name, text).is_ok() => fold(name, text).ok(),
        Syntax::Unstructured => header_value::text_field(name, &words::decode_text(text.as_bytes())).ok(),
        // Fields that only people read may be encoded if they violate their syntax.
        _ => header_value::field(name, text).or_else(|_| header_value::text_field(name, text)).ok(),
    }
}

fn mailboxes(name: &str, text: &str) -> Option<String> {
    let mut list = Vec::new();
    if !address::parse(text.as_bytes(), Limits::default().max_addresses, &mut list) {
        return None;
    }
    if list.is_empty() {
        // An empty group represents text that names nobody (RFC 6857 §3.1.8).
        return fold(name, &format!("{}:;", encoded_words(text.trim_end_matches([';', ':', ' '])))).ok();
    }
    let list = list.iter().map(|one| mailbox(one.name.as_deref(), &one.address));
    fold(name, &list.collect::<Vec<_>>().join(", ")).ok()
}

/// Downgrades the header of `raw`, which was signed here, to ASCII (RFC 6857 §3.1): signatures are dropped, and an
/// internationalized address becomes the name of an empty group. `None` if the header is ASCII already or cannot be
/// downgraded.
pub(crate) fn with_ascii_header(raw: &[u8]) -> Option<Vec<u8>> {
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
        let text = unfolded_text(text.as_bytes(), || Charset::Unknown);
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
        let group_name =
            one.name.iter().map(String::as_str).chain([one.address.as_str()]).collect::<Vec<_>>().join(" ");
        format!("{}:;", encoded_words(&group_name))
    };
    fold(name, &list.iter().map(one).collect::<Vec<_>>().join(", ")).ok()
}

/// Rewrites a field of Message-IDs, dropping everything else.
fn message_ids(name: &str, text: &str) -> Option<String> {
    let ids = text.split('<').skip(1).filter_map(|rest| rest.split_once('>'));
    let ids: Vec<String> = ids.filter_map(|(id, _)| message_id::bracketed(id)).collect();
    if ids.is_empty() { Some(String::new()) } else { fold(name, &ids.join(" ")).ok() }
}

/// Rewrites a field with parameters (RFC 2231); a name in Content-Type as encoded words, which old mail programs
/// expect.
fn parameters(name: &str, text: &str) -> String {
    let value = ParameterizedValue::parse(text.as_bytes());
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
        assert!(is_seven_bit(&out), "{}", String::from_utf8_lossy(&out));
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
        assert_eq!((after.header_to.len(), after.text), (90, before.text));
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
        assert_eq!(repaired(raw.clone().into_bytes()), Err(Irreparable::Protected));
        let short = raw.replace(&long, "é");
        let out = String::from_utf8(repaired(short.clone().into_bytes()).unwrap()).unwrap();
        assert_eq!(out.split_once("Content-Type").unwrap().1, short.split_once("Content-Type").unwrap().1);
        assert!(out.starts_with("Subject: =?utf-8?B?w7w=?=\r\n"), "{out}");
    }

    #[test]
    fn a_field_that_says_the_encoding_is_written_once() {
        let long = "x".repeat(1_200);
        for field in ["8bit; ü".to_owned(), format!("8bit ({long})")] {
            let raw = format!(
                "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: {field}\r\n\r\n--b\r\n\
                 Content-Transfer-Encoding: {field}\r\n\r\nGrüße\r\n--b--\r\n"
            );
            let out = text(raw.as_bytes());
            assert_eq!(mime::parse(out.as_bytes()).text.as_deref(), Some("Grüße"), "{out}");
            assert_eq!(out.matches("Content-Transfer-Encoding:").count(), 2, "{out}");
        }
    }

    #[test]
    fn of_a_message_inside_long_fields_are_folded_and_others_stay() {
        let ids = "<1@b.test> ".repeat(200);
        let inside = format!("Subject: Grüße\r\nReferences: {}\r\n\r\nx\r\n", ids.trim());
        let raw = format!("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{inside}");
        let out = String::from_utf8(repaired(raw.into_bytes()).unwrap()).unwrap();
        assert!(out.starts_with(
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: Grüße\r\n"
        ));
        assert!(!has_long_line(out.as_bytes()) && out.matches("<1@b.test>").count() == 200, "{out}");
    }

    #[test]
    fn what_cannot_be_read_whole_is_changed_in_its_header_alone() {
        let parts = "--b\r\n\r\nx\r\n".repeat(1_100);
        let raw =
            |line: &str| format!("Subject: ü\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n{line}{parts}");
        let out = text(raw("").as_bytes());
        assert!(out.starts_with("Subject: =?utf-8?B?w7w=?=\r\n") && out.ends_with(&parts));
        assert_eq!(repaired(raw(&format!("{}\r\n", "x".repeat(1_200))).into_bytes()), Err(Irreparable::Protected));
    }

    /// Parts, with true for those that have to arrive octet for octet.
    fn parts() -> Vec<(String, bool)> {
        let long = "x".repeat(1_200);
        let signed =
            "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nSchöne Grüße\r\n--s\r\n\r\nx\r\n--s--";
        vec![
            ("Content-Type: text/plain; charset=utf-8\r\n\r\nSchöne Grüße".to_owned(), false),
            (format!("Content-Type: text/html\r\nContent-Transfer-Encoding: 8BIT\r\n\r\n{long}"), false),
            (format!("Content-Type: text/x; name=\"ü\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{long}"), false),
            ("Content-Type: image/x\r\n\r\nplain".to_owned(), true),
            ("Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 ü\r\n#0V%T\r\n`\r\nend".to_owned(), true),
            ("Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: binary\r\n\r\nü".to_owned(), true),
            (signed.to_owned(), true),
            (format!("Content-Type: message/rfc822\r\n\r\nSubject: inside\r\n{signed}"), true),
            (format!("Content-Type: message/rfc822\r\n\r\nSubject: inside\r\n\r\n{long}"), false),
        ]
    }

    #[test]
    fn parts_are_repaired_each_by_itself() {
        let whole = |parts: &[&str]| {
            let parts: String = parts.iter().map(|part| format!("--b\r\n{part}\r\n")).collect();
            format!(
                "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{parts}--b--\r\n"
            )
        };
        for (first, first_stays) in parts() {
            for (second, second_stays) in parts() {
                let raw = whole(&[&first, &second]);
                let out = String::from_utf8(repaired(raw.clone().into_bytes()).unwrap()).unwrap();
                assert!(!has_long_line(out.as_bytes()), "{out}");
                for (part, _) in [(&first, first_stays), (&second, second_stays)].iter().filter(|(_, stays)| *stays) {
                    assert!(out.contains(&format!("\r\n--b\r\n{part}\r\n--b")), "{out}");
                }
                // A container labelled 7bit contains no other octets.
                let is_ascii = out.is_ascii();
                assert!(is_ascii || out.contains("boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n"), "{out}");
                let (before, after) = (mime::parse(raw.as_bytes()), mime::parse(out.as_bytes()));
                assert_eq!((&after.text, &after.html), (&before.text, &before.html), "{out}");
                let names = |mail: &mime::Mail| -> Vec<_> {
                    mail.attachments.iter().map(|part| (part.filename.clone(), part.content_type.clone())).collect()
                };
                assert_eq!(names(&after), names(&before), "{out}");
            }
        }
    }
}
