//! Composes a submission into mail data (RFC 5322): 7-bit, CRLF, no line over 998 octets, no duplicate fields, no
//! Bcc.
//!
//! [`header_value`] writes fields; mail-builder writes parts: parameters, and the transfer encoding of plain text.
//! The choice of fields, and that files arrive octet for octet, is decided here.

mod file;

use std::borrow::Cow;

use bytes::Bytes;
use mail_builder::headers::content_type::ContentType;
use mail_builder::mime::{BodyPart, MimePart};

use crate::clock::Timestamp;
use crate::mail::header_value::{self, ValueError};
use crate::mail::mailbox_list::{NamedMailbox, parse_one};
use crate::mail::{date, message_id, mime};

/// Fields that are written here (contract 8.1), and those that [`is_of_hosts`] lists.
const RESERVED: &[&str] = &["From", "To", "Cc", "Bcc", "Subject", "Date", "Message-ID", "MIME-Version"];
/// Fields that relaying hosts write and readers trust for that reason.
const OF_HOSTS: &[&str] =
    &["Authentication-Results", "Delivered-To", "DomainKey-Signature", "Received", "Received-SPF", "Return-Path"];
/// Name prefixes of such fields: signatures, seals, resending information, and our own loop marks.
const OF_HOSTS_ALL: &[&str] = &["ARC-", "DKIM-", "Resent-", "X-Mailkite-"];

/// A file attached to a message.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Name shown to the recipient.
    pub filename: String,
    /// Media type; an invalid one counts as unknown.
    pub content_type: Option<String>,
    /// Its octets, which arrive unchanged.
    pub content: Bytes,
}

/// The content of a message.
#[derive(Clone, Debug)]
pub struct Content {
    /// The single author.
    pub from: NamedMailbox,
    /// To; at least one.
    pub to: Vec<NamedMailbox>,
    /// Cc.
    pub cc: Vec<NamedMailbox>,
    /// Reply-To addresses.
    pub reply_to: Vec<NamedMailbox>,
    /// Subject.
    pub subject: String,
    /// Plain text body.
    pub text: Option<String>,
    /// HTML body; if there is a text body too, the recipient's mail client chooses.
    pub html: Option<String>,
    /// Message-ID it replies to, with angle brackets; sets In-Reply-To and References.
    pub in_reply_to: Option<String>,
    /// Custom header fields, which replace the threading fields; a Date among them is used (`own_header`).
    pub headers: Vec<(String, String)>,
    /// Attached files.
    pub attachments: Vec<Attachment>,
    /// Message-ID, with angle brackets.
    pub message_id: String,
    /// Date of the message.
    pub date: Timestamp,
}

/// A value that cannot be part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// An invalid field name (RFC 5322 §3.6.8).
    #[error("that is no header name")]
    Name,
    /// A field that only this server or relaying hosts may write.
    #[error("mail servers write this header themselves")]
    Reserved,
    /// CR, LF, NUL or another control character.
    #[error("a header must not hold control characters")]
    ControlCharacter,
    /// Sender is not exactly one mailbox.
    #[error("that is not exactly one mailbox")]
    Sender,
    /// Not a Message-ID.
    #[error("that is no Message-ID")]
    MessageId,
    /// A value that does not match the syntax of its field.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// Returns true for a field that only relaying hosts may write; authors never do.
pub(crate) fn is_of_hosts(name: &str) -> bool {
    OF_HOSTS.iter().any(|known| known.eq_ignore_ascii_case(name))
        || OF_HOSTS_ALL.iter().any(|head| begins(name, head))
}

fn begins(name: &str, head: &str) -> bool {
    name.get(..head.len()).is_some_and(|found| found.eq_ignore_ascii_case(head))
}

/// Parses the one mailbox of a custom Sender field, whose domain must be one that the account may send from.
///
/// # Errors
/// The value is not exactly one mailbox.
pub(crate) fn sender_field(value: &str) -> Result<NamedMailbox, ComposeError> {
    let one = parse_one(value).map_err(|_| ComposeError::Sender)?;
    if one.mailbox.has_invisible_characters() { Err(ComposeError::Sender) } else { Ok(one) }
}

/// Checks that a custom field is allowed in a message (contract 8.1).
///
/// # Errors
/// The name or value is not allowed.
pub(crate) fn check_header(name: &str, value: &str) -> Result<(), ComposeError> {
    let named = !name.is_empty() && name.bytes().all(|byte| (33..=126).contains(&byte) && byte != b':');
    if !named {
        return Err(ComposeError::Name);
    }
    let reserved = RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name));
    if reserved || is_of_hosts(name) || begins(name, "Content-") {
        return Err(ComposeError::Reserved);
    }
    if value.chars().any(char::is_control) {
        return Err(ComposeError::ControlCharacter);
    }
    if name.eq_ignore_ascii_case("Sender") {
        return sender_field(value).map(|_| ());
    }
    header_value::field(name, value)?;
    Ok(())
}

/// Returns a Message-ID in the form of In-Reply-To; missing angle brackets are added.
///
/// # Errors
/// The text is empty, or contains control characters or inner blanks.
pub(crate) fn thread_header(text: &str) -> Result<String, ComposeError> {
    if text.chars().any(char::is_control) {
        return Err(ComposeError::ControlCharacter);
    }
    let inner = text.trim().trim_start_matches('<').trim_end_matches('>');
    message_id::bracketed(inner).filter(|_| inner.len() <= 900).ok_or(ComposeError::MessageId)
}

/// Composes the mail data of a content.
///
/// # Errors
/// A custom field is not allowed in a message.
pub fn compose(content: &Content) -> Result<Vec<u8>, ComposeError> {
    let bodies = Bodies {
        text: content.text.as_deref().map(|text| lines(text.into())),
        html: content.html.as_deref().map(|html| lines(html.into())),
        files: content.attachments.iter().map(|file| mime::base64_lines(&file.content)).collect(),
    };
    write(content, bodies)
}

/// Does the same as [`compose`] for a content whose texts and files are not needed afterwards: each is taken out, and
/// its memory freed, as it is encoded.
///
/// # Errors
/// A custom field is not allowed in a message.
pub(crate) fn compose_last(content: &mut Content) -> Result<Vec<u8>, ComposeError> {
    let contents = content.attachments.iter_mut().map(|file| std::mem::take(&mut file.content));
    let bodies = Bodies {
        text: content.text.take().map(|text| lines(text.into())),
        html: content.html.take().map(|html| lines(html.into())),
        files: contents.map(|content| mime::base64_lines(&content)).collect(),
    };
    write(content, bodies)
}

/// A content's encoded bodies: texts with each line break as CRLF, files in base64.
struct Bodies<'l> {
    text: Option<Cow<'l, str>>,
    html: Option<Cow<'l, str>>,
    files: Vec<Vec<u8>>,
}

impl Bodies<'_> {
    /// Returns their approximate length in the message, in octets.
    fn length(&self) -> usize {
        let texts: usize = [&self.text, &self.html].into_iter().flatten().map(|text| text.len()).sum();
        let files: usize = self.files.iter().map(Vec::len).sum();
        texts + texts / 2 + files + files / 64
    }
}

/// Writes the mail data of a content.
fn write<'l>(content: &'l Content, bodies: Bodies<'l>) -> Result<Vec<u8>, ComposeError> {
    let sender = content.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Sender"));
    let sender = sender.map(|(_, value)| sender_field(value)).transpose()?;
    let own_date = content.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Date"));
    let date = own_date.map_or_else(|| date::format(content.date), |(_, date)| date.clone());
    let own = |name: &str| content.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut mail = Vec::with_capacity(bodies.length());
    let mut add = |field: String| mail.extend_from_slice(field.as_bytes());
    add(header_value::mailboxes_field("From", [&content.from])?);
    add(header_value::mailboxes_field("To", &content.to)?);
    if !content.cc.is_empty() {
        add(header_value::mailboxes_field("Cc", &content.cc)?);
    }
    if !content.reply_to.is_empty() && !own("Reply-To") {
        add(header_value::mailboxes_field("Reply-To", &content.reply_to)?);
    }
    add(header_value::text_field("Subject", &content.subject)?);
    add(format!("Date: {date}\r\nMessage-ID: {}\r\n", content.message_id));
    if let Some(answered) = &content.in_reply_to {
        for name in ["In-Reply-To", "References"].into_iter().filter(|name| !own(name)) {
            add(header_value::fold(name, answered)?);
        }
    }
    for (name, value) in content.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Date")) {
        check_header(name, value)?;
        if !name.eq_ignore_ascii_case("Sender") {
            add(header_value::field(name, value)?);
        }
    }
    if let Some(sender) = &sender {
        add(header_value::mailboxes_field("Sender", [sender])?);
    }
    add("MIME-Version: 1.0\r\n".to_owned());
    body(content, bodies).write_part(&mut mail);
    Ok(mail)
}

/// Builds the body: text, HTML, or both as alternatives; with files, all of it in a multipart/mixed.
fn body<'l>(content: &'l Content, bodies: Bodies<'l>) -> MimePart<'l> {
    let text = bodies.text.map(|text| shown_part("text/plain", text));
    let html = bodies.html.map(|html| shown_part("text/html", html));
    let shown = match (text, html) {
        (Some(text), Some(html)) => MimePart::new("multipart/alternative", vec![text, html]),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => MimePart::new("text/plain", ""),
    };
    if content.attachments.is_empty() {
        return shown;
    }
    let files = content.attachments.iter().zip(bodies.files).map(|(file, lines)| file::part(file, lines));
    MimePart::new("multipart/mixed", std::iter::once(shown).chain(files).collect::<Vec<_>>())
}

/// Builds a text part. Control characters are encoded, because not every host passes them on.
fn shown_part<'l>(kind: &'static str, text: Cow<'l, str>) -> MimePart<'l> {
    let is_odd = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t');
    if text.as_bytes().iter().any(is_odd) {
        let lines = mime::base64_lines(text.as_bytes());
        return in_base64(ContentType::new(kind).attribute("charset", "utf-8"), lines);
    }
    MimePart::new(kind, text)
}

/// Builds a part whose octets arrive unchanged, whatever its type.
fn in_base64(kind: ContentType<'_>, lines: Vec<u8>) -> MimePart<'_> {
    MimePart::new(kind, BodyPart::Binary(Cow::Owned(lines))).transfer_encoding("base64")
}

/// Converts each line break to CRLF, which a text needs before base64 encoding (RFC 2045 §6.8).
fn lines(text: Cow<'_, str>) -> Cow<'_, str> {
    let breaks = memchr::memchr2_iter(b'\r', b'\n', text.as_bytes()).count();
    if breaks == 0 {
        return text;
    }
    let mut lines = String::with_capacity(text.len() + breaks);
    let mut rest = text.as_ref();
    while let Some((line, after)) = rest.split_once(['\r', '\n']) {
        lines.extend([line, "\r\n"]);
        // The match is a single octet, and a CRLF is a single break.
        let is_cr = rest.as_bytes().get(line.len()) == Some(&b'\r');
        rest = if is_cr { after.strip_prefix('\n').unwrap_or(after) } else { after };
    }
    lines.push_str(rest);
    Cow::Owned(lines)
}

#[cfg(test)]
mod tests;
