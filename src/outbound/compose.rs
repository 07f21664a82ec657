//! A submission becomes mail data (RFC 5322): 7-bit, CRLF, no line over 998 octets, one of each field, no Bcc.
//!
//! mail-builder folds lines, writes addresses and parameters and chooses the transfer encoding of plain text; which fields
//! there are, what of them is encoded, and that files arrive octet for octet is decided here.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use mail_builder::MessageBuilder;
use mail_builder::headers::address::{Address, EmailAddress};
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};

use crate::clock::Timestamp;
use crate::mail::mailbox_list::{NamedMailbox, parse_one};
use crate::mail::mime;

/// Fields that are written here (contract 8.1); and those that [`is_of_hosts`].
const RESERVED: &[&str] = &["From", "To", "Cc", "Bcc", "Subject", "Date", "Message-ID", "MIME-Version"];
/// Fields that hosts on the way write, and that others believe for it.
const OF_HOSTS: &[&str] =
    &["Authentication-Results", "Delivered-To", "DomainKey-Signature", "Received", "Received-SPF", "Return-Path"];
/// The same, by what their names begin with: signatures, seals, who handed a message on, and our own marks of loops.
const OF_HOSTS_ALL: &[&str] = &["ARC-", "DKIM-", "Resent-", "X-Mailkite-"];
const UNKNOWN_TYPE: &str = "application/octet-stream";
/// RFC 6838 §4.2: type and subtype, 127 octets each.
const MAX_TYPE_LENGTH: usize = 255;

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
    /// Fields of the caller's own, which replace those for threading; a Date among them is one (`own_header`).
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
    /// A field that the server writes itself, or hosts on the way.
    #[error("mail servers write this header themselves")]
    Reserved,
    /// CR, LF, NUL or another control character.
    #[error("a header must not hold control characters")]
    ControlCharacter,
    /// Sender names no one mailbox.
    #[error("that is not exactly one mailbox")]
    Sender,
    /// No Message-ID.
    #[error("that is no Message-ID")]
    MessageId,
    /// Writing failed.
    #[error("the message could not be written")]
    Write,
}

/// Whether a field says what only hosts on the way may say: no author writes one.
pub(super) fn is_of_hosts(name: &str) -> bool {
    OF_HOSTS.iter().any(|known| known.eq_ignore_ascii_case(name))
        || OF_HOSTS_ALL.iter().any(|head| begins(name, head))
}

fn begins(name: &str, head: &str) -> bool {
    name.get(..head.len()).is_some_and(|found| found.eq_ignore_ascii_case(head))
}

/// The one mailbox of a Sender field of the caller's own, whose domain has to be one that the account may send from.
///
/// # Errors
/// It is not one mailbox.
pub fn sender_field(value: &str) -> Result<NamedMailbox, ComposeError> {
    let one = parse_one(value).map_err(|_| ComposeError::Sender)?;
    if one.mailbox.has_invisible_characters() { Err(ComposeError::Sender) } else { Ok(one) }
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
    let reserved = RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name));
    if reserved || is_of_hosts(name) || begins(name, "Content-") {
        return Err(ComposeError::Reserved);
    }
    if value.chars().any(char::is_control) {
        return Err(ComposeError::ControlCharacter);
    }
    if name.eq_ignore_ascii_case("Sender") { sender_field(value).map(|_| ()) } else { Ok(()) }
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
    let bodies = Bodies {
        text: letter.text.as_deref().map(|text| lines(text.into())),
        html: letter.html.as_deref().map(|html| lines(html.into())),
        files: letter.attachments.iter().map(|file| mime::base64_lines(&file.content)).collect(),
    };
    write(letter, bodies)
}

/// As [`compose`], of a letter whose texts and files nobody needs afterwards: each leaves it, and memory, as it is
/// made ready.
///
/// # Errors
/// A field of the caller's own may not stand in a message.
pub fn compose_last(letter: &mut Letter) -> Result<Vec<u8>, ComposeError> {
    let contents = letter.attachments.iter_mut().map(|file| std::mem::take(&mut file.content));
    let bodies = Bodies {
        text: letter.text.take().map(|text| lines(text.into())),
        html: letter.html.take().map(|html| lines(html.into())),
        files: contents.map(|content| mime::base64_lines(&content)).collect(),
    };
    write(letter, bodies)
}

/// What a letter says, made ready: texts with each line break as a CRLF, the contents of its files in base64.
struct Bodies<'l> {
    text: Option<Cow<'l, str>>,
    html: Option<Cow<'l, str>>,
    files: Vec<Vec<u8>>,
}

impl Bodies<'_> {
    /// How many octets of the message they become, more or less.
    fn length(&self) -> usize {
        let texts: usize = [&self.text, &self.html].into_iter().flatten().map(|text| text.len()).sum();
        let files: usize = self.files.iter().map(Vec::len).sum();
        texts + texts / 2 + files + files / 64
    }
}

/// The mail data of a letter.
fn write<'l>(letter: &'l Letter, bodies: Bodies<'l>) -> Result<Vec<u8>, ComposeError> {
    let sender = letter.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Sender"));
    let sender = sender.map(|(_, value)| sender_field(value)).transpose()?;
    let own_date = letter.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Date"));
    let date = own_date.map_or_else(|| Date::new(letter.date.as_secs()).to_rfc822(), |(_, date)| date.clone());
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
        .header("Date", Raw::new(date))
        .header("Message-ID", Raw::new(letter.message_id.as_str()));
    if let Some(answered) = &letter.in_reply_to {
        for name in ["In-Reply-To", "References"].into_iter().filter(|name| !own(name)) {
            message = message.header(name, Raw::new(answered.as_str()));
        }
    }
    for (name, value) in letter.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Date")) {
        check_header(name, value)?;
        if name.eq_ignore_ascii_case("Sender") {
            continue;
        }
        message = message.header(name.as_str(), unstructured(value));
    }
    if let Some(sender) = &sender {
        message = message.header("Sender", address(sender));
    }
    message = message.header("MIME-Version", Raw::new("1.0"));
    let mut mail = Vec::with_capacity(bodies.length());
    // Fails only where writing to memory fails.
    message.body(body(letter, bodies)).write_to(&mut mail).map_err(|_| ComposeError::Write)?;
    Ok(mail)
}

/// The value of an unstructured field. Its words stand as they are, so that structured fields of the caller's own stay
/// what they are; those that would not arrive so become encoded words (RFC 2047 §5).
fn unstructured(text: &str) -> Raw<'static> {
    let mut value = String::with_capacity(text.len() + 16);
    // Blanks and words behind an encoded word, which another one right after them would swallow (RFC 2047 §6.2).
    let mut encoding = String::new();
    let mut blanks = String::new();
    for token in text.split_inclusive([' ', '\t']) {
        let (word, blank) = match token.strip_suffix([' ', '\t']) {
            Some(word) => (word, token.get(word.len()..).unwrap_or_default()),
            None => (token, ""),
        };
        if needs_encoding(word) {
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
    Raw::new(value)
}

/// Whether a word has to be encoded: it is not ASCII, a reader would decode it, or no line is long enough for it.
fn needs_encoding(word: &str) -> bool {
    /// With a blank before it a line of 998 octets (RFC 5322 §2.1.1) has room for it.
    const MAX_WORD: usize = 900;
    !word.is_ascii() || word.contains("=?") || word.len() > MAX_WORD
}

/// RFC 2047 §2; nothing for nothing.
fn encoded_words(text: &str) -> String {
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

fn address(one: &NamedMailbox) -> Address<'_> {
    let email = Cow::Owned(one.mailbox.to_string());
    Address::Address(EmailAddress { name: one.name.as_deref().map(Cow::Borrowed), email })
}

fn addresses(list: &[NamedMailbox]) -> Address<'_> {
    Address::List(list.iter().map(address).collect())
}

/// text, html, or both as alternatives; with files, all of it in a multipart/mixed.
fn body<'l>(letter: &'l Letter, bodies: Bodies<'l>) -> MimePart<'l> {
    let text = bodies.text.map(|text| shown_part("text/plain", text));
    let html = bodies.html.map(|html| shown_part("text/html", html));
    let shown = match (text, html) {
        (Some(text), Some(html)) => MimePart::new("multipart/alternative", vec![text, html]),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => MimePart::new("text/plain", ""),
    };
    if letter.attachments.is_empty() {
        return shown;
    }
    let files = letter.attachments.iter().zip(bodies.files).map(|(file, lines)| {
        in_base64(media_type(file.content_type.as_deref()), lines).attachment(file.filename.as_str())
    });
    MimePart::new("multipart/mixed", std::iter::once(shown).chain(files).collect::<Vec<_>>())
}

/// A body. Control characters are nothing that every host lets pass, so they are not sent as they are.
fn shown_part<'l>(kind: &'static str, text: Cow<'l, str>) -> MimePart<'l> {
    let is_odd = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t');
    if text.as_bytes().iter().any(is_odd) {
        let lines = mime::base64_lines(text.as_bytes());
        return in_base64(ContentType::new(kind).attribute("charset", "utf-8"), lines);
    }
    MimePart::new(kind, text)
}

/// A part whose octets arrive as they are, whatever its type.
fn in_base64(kind: ContentType<'_>, lines: Vec<u8>) -> MimePart<'_> {
    MimePart::new(kind, BodyPart::Binary(Cow::Owned(lines))).transfer_encoding("base64")
}

/// Each line break as a CRLF, which a text has to have before base64 hides them (RFC 2045 §6.8).
fn lines(text: Cow<'_, str>) -> Cow<'_, str> {
    let breaks = memchr::memchr2_iter(b'\r', b'\n', text.as_bytes()).count();
    if breaks == 0 {
        return text;
    }
    let mut lines = String::with_capacity(text.len() + breaks);
    let mut rest = text.as_ref();
    while let Some((line, after)) = rest.split_once(['\r', '\n']) {
        lines.extend([line, "\r\n"]);
        // What was found is one octet, and a CRLF one break.
        let is_cr = rest.as_bytes().get(line.len()) == Some(&b'\r');
        rest = if is_cr { after.strip_prefix('\n').unwrap_or(after) } else { after };
    }
    lines.push_str(rest);
    Cow::Owned(lines)
}

/// `type/subtype` and its parameters, if it is one (RFC 2045 §5.1). A multipart or message type is not ours to vouch for.
fn media_type(given: Option<&str>) -> ContentType<'_> {
    let unknown = || ContentType::new(UNKNOWN_TYPE);
    let Some(given) = given else { return unknown() };
    let read = mime::Value::parse(given.as_bytes());
    let Some((kind, subkind)) = read.main.split_once('/') else { return unknown() };
    let composite = ["multipart", "message"].contains(&kind);
    if !is_token(kind) || !is_token(subkind) || composite || read.main.len() > MAX_TYPE_LENGTH {
        return unknown();
    }
    let mut found = ContentType::new(read.main.clone());
    for name in read.names() {
        let value = read.get(name).filter(|value| !value.is_empty() && !value.chars().any(char::is_control));
        if let Some(value) = value.filter(|_| is_token(name)) {
            found = found.attribute(name.to_owned(), value);
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
