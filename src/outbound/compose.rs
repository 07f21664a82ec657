//! A submission becomes mail data (RFC 5322): 7-bit, CRLF, no line over 998 octets, one of each field, no Bcc.
//!
//! mail-builder folds, encodes words and parameters and chooses transfer encodings; which fields there are is decided
//! here.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::{Address, EmailAddress};
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::mime::{BodyPart, MimePart};

use crate::clock::Timestamp;
use crate::mail::mailbox_list::NamedMailbox;

/// Fields that are written here, or by hosts on the way (contract 8.1); and all that begin with `Content-`.
const RESERVED: &[&str] = &[
    "From",
    "To",
    "Cc",
    "Bcc",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "DKIM-Signature",
    "Received",
    "Return-Path",
];
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// A file that goes with a message.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// As the recipient sees it.
    pub filename: String,
    /// Media type; one that is none counts as unknown.
    pub content_type: Option<String>,
    /// Its octets, which arrive unchanged.
    pub content: Bytes,
}

/// What a message says.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The one author.
    pub from: NamedMailbox,
    /// To; at least one.
    pub to: Vec<NamedMailbox>,
    /// Cc.
    pub cc: Vec<NamedMailbox>,
    /// Where answers go.
    pub reply_to: Vec<NamedMailbox>,
    /// Subject.
    pub subject: String,
    /// Plain text body.
    pub text: Option<String>,
    /// HTML body; with both the recipient's program chooses.
    pub html: Option<String>,
    /// What it answers: sets In-Reply-To and References; with angle brackets.
    pub in_reply_to: Option<String>,
    /// Fields of the caller's own, which replace those for threading.
    pub headers: Vec<(String, String)>,
    /// Files.
    pub attachments: Vec<Attachment>,
    /// With angle brackets.
    pub message_id: String,
    /// When it was written.
    pub date: Timestamp,
}

/// Something does not go into a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// A field's name is none (RFC 5322 §3.6.8).
    #[error("that is no header name")]
    Name,
    /// A field that the server writes itself.
    #[error("the server writes this header itself")]
    Reserved,
    /// CR, LF, NUL or another control character.
    #[error("a header must not hold control characters")]
    ControlCharacter,
    /// No Message-ID.
    #[error("that is no Message-ID")]
    MessageId,
    /// Writing failed.
    #[error("the message could not be written")]
    Write,
}

/// Whether a field of the caller's own may stand in a message (contract 8.1).
///
/// # Errors
/// Its name or value may not.
pub fn check_header(name: &str, value: &str) -> Result<(), ComposeError> {
    let named = !name.is_empty() && name.bytes().all(|byte| (33..=126).contains(&byte) && byte != b':');
    if !named {
        return Err(ComposeError::Name);
    }
    let content = name.get(..8).is_some_and(|head| head.eq_ignore_ascii_case("Content-"));
    if content || RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        return Err(ComposeError::Reserved);
    }
    if value.chars().any(char::is_control) { Err(ComposeError::ControlCharacter) } else { Ok(()) }
}

/// A Message-ID as it stands in In-Reply-To; missing angle brackets are added.
///
/// # Errors
/// It holds control characters, blanks within, or nothing.
pub fn thread_header(text: &str) -> Result<String, ComposeError> {
    if text.chars().any(char::is_control) {
        return Err(ComposeError::ControlCharacter);
    }
    let inner = text.trim().trim_start_matches('<').trim_end_matches('>');
    let fits = !inner.is_empty() && inner.len() <= 900 && inner.is_ascii() && !inner.contains([' ', '<', '>']);
    if fits { Ok(format!("<{inner}>")) } else { Err(ComposeError::MessageId) }
}

/// The mail data of a letter.
///
/// # Errors
/// A field of the caller's own may not stand in a message.
pub fn compose(letter: &Letter) -> Result<Vec<u8>, ComposeError> {
    let own = |name: &str| letter.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut message = MessageBuilder::new().header("From", address(&letter.from)).header("To", addresses(&letter.to));
    if !letter.cc.is_empty() {
        message = message.header("Cc", addresses(&letter.cc));
    }
    if !letter.reply_to.is_empty() && !own("Reply-To") {
        message = message.header("Reply-To", addresses(&letter.reply_to));
    }
    message = message
        .header("Subject", unstructured(&letter.subject))
        .header("Date", Date::new(letter.date.as_secs()))
        .header("Message-ID", Raw::new(letter.message_id.as_str()));
    if let Some(answered) = &letter.in_reply_to {
        for name in ["In-Reply-To", "References"].into_iter().filter(|name| !own(name)) {
            message = message.header(name, Raw::new(answered.as_str()));
        }
    }
    for (name, value) in &letter.headers {
        check_header(name, value)?;
        message = message.header(name.as_str(), unstructured(value));
    }
    message = message.header("MIME-Version", Raw::new("1.0"));
    // Fails only where writing to memory fails.
    message.body(body(letter)).write_to_vec().map_err(|_| ComposeError::Write)
}

/// The value of an unstructured field. Plain text that looks like an encoded word would be decoded, so it is made one.
fn unstructured(text: &str) -> HeaderType<'_> {
    /// Octets that fit an encoded word of 75 characters (RFC 2047 §2).
    const FIT: usize = 45;
    if !text.contains("=?") || !text.is_ascii() {
        return Text::new(text).into();
    }
    let words = text.as_bytes().chunks(FIT).map(|chunk| format!("=?utf-8?B?{}?=", BASE64.encode(chunk)));
    Raw::new(words.collect::<Vec<_>>().join(" ")).into()
}

fn address(one: &NamedMailbox) -> Address<'_> {
    let email = Cow::Owned(one.mailbox.to_string());
    Address::Address(EmailAddress { name: one.name.as_deref().map(Cow::Borrowed), email })
}

fn addresses(list: &[NamedMailbox]) -> Address<'_> {
    Address::List(list.iter().map(address).collect())
}

/// text, html, or both as alternatives; with files, all of it in a multipart/mixed.
fn body(letter: &Letter) -> MimePart<'_> {
    let text = letter.text.as_deref().map(|text| MimePart::new("text/plain", lines(text)));
    let html = letter.html.as_deref().map(|html| MimePart::new("text/html", lines(html)));
    let shown = match (text, html) {
        (Some(text), Some(html)) => MimePart::new("multipart/alternative", vec![text, html]),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => MimePart::new("text/plain", ""),
    };
    if letter.attachments.is_empty() {
        return shown;
    }
    let files = letter.attachments.iter().map(|file| {
        let content = BodyPart::Binary(Cow::Borrowed(&file.content));
        MimePart::new(media_type(file.content_type.as_deref()), content).attachment(file.filename.as_str())
    });
    MimePart::new("multipart/mixed", std::iter::once(shown).chain(files).collect::<Vec<_>>())
}

/// One kind of line break, so that each becomes a CRLF.
fn lines(text: &str) -> Cow<'_, str> {
    if text.contains('\r') { Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")) } else { Cow::Borrowed(text) }
}

/// `type/subtype` and its parameters, if it is one (RFC 2045 §5.1). A multipart or message type is not ours to vouch for.
fn media_type(given: Option<&str>) -> ContentType<'_> {
    let unknown = || ContentType::new(UNKNOWN_TYPE);
    let Some(given) = given else { return unknown() };
    let mut parts = given.split(';');
    let essence = parts.next().unwrap_or_default().trim();
    let Some((kind, subkind)) = essence.split_once('/') else { return unknown() };
    let composite = ["multipart", "message"].iter().any(|one| one.eq_ignore_ascii_case(kind));
    if !is_token(kind) || !is_token(subkind) || composite || essence.len() > 127 {
        return unknown();
    }
    let mut found = ContentType::new(essence);
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        if is_token(name) && !value.is_empty() && !value.chars().any(char::is_control) {
            found = found.attribute(name, value);
        }
    }
    found
}

/// RFC 2045 §5.1.
fn is_token(text: &str) -> bool {
    let special = |byte| b"()<>@,;:\\\"/[]?=".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !special(byte))
}

#[cfg(test)]
mod tests;
