//! Parses mail data into the fields that the store, webhooks and routes need.
//!
//! [`parse`] borrows, never fails and never panics: of hostile input it returns what could be parsed and sets
//! [`Mail::truncated`]. First `walk` finds header blocks and parts within [`Limits`]; only then are texts decoded,
//! each once. Attachments are measured, not copied: a [`Part`] is a slice of the raw message that a [`Decoder`]
//! decodes when its link is requested.

mod address;
mod author;
mod base64_lines;
mod base64_text;
mod body;
mod charset;
mod decode;
mod edit;
mod header;
mod headers;
mod message_id;
mod params;
mod recode;
mod repair;
mod text;
mod tnef;
mod trace_fields;
mod uuencode;
mod walk;
mod words;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

pub(crate) use author::{has_international_author, sole_author};
pub(crate) use base64_lines::base64_lines;
use body::{LocatedTexts, TextMode};
pub use decode::Decoder;
pub(crate) use decode::Encoding;
pub use decode::decode_part;
pub(crate) use header::{Field, Fields, without_stray_lines};
pub use headers::Headers;
pub(crate) use params::{ParameterizedValue, is_token, safe_filename};
pub use recode::to_seven_bit;
pub(crate) use repair::{Irreparable, repaired, with_ascii_header};
pub(crate) use text::LocatedText;
pub use text::TextReader;
pub use trace_fields::field_values;
pub(crate) use trace_fields::{received_count_by, without_results_of};

/// Maximum octets of a subject or display name outside the stored header.
const MAX_DISPLAY_TEXT: usize = 4096;

/// Parser limits. A message beyond them is still stored, and flagged as truncated.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Parts, including multiparts.
    pub(crate) max_parts: usize,
    /// Nesting depth of multiparts.
    pub(crate) max_depth: usize,
    pub(crate) max_header_bytes: usize,
    pub(crate) max_header_fields: usize,
    pub(crate) max_addresses: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_parts: 1000,
            max_depth: 100,
            max_header_bytes: 256 * 1024,
            max_header_fields: 1000,
            max_addresses: 1000,
        }
    }
}

/// A mailbox of an address list, with its display name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedAddress {
    /// `local@domain`: the local part as written, the domain as A-labels in lower case.
    pub address: String,
    /// The display name, or the comment that serves as one; never empty.
    pub name: Option<String>,
}

/// The Content-Disposition of a part (RFC 2183).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Offered as a file; also the meaning of every unknown type (RFC 2183 §2.8).
    Attachment,
    /// Displayed in the message.
    Inline,
}

impl Disposition {
    /// Returns the name in contract 5.4.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attachment => "attachment",
            Self::Inline => "inline",
        }
    }

    /// Parses the stored name.
    pub(crate) fn parse(word: &str) -> Self {
        if word == "inline" { Self::Inline } else { Self::Attachment }
    }
}

/// An attachment: its metadata and its location in the raw message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Safe to offer for download: no path, no control or bidirectional character, at most 255 bytes.
    pub filename: Option<String>,
    /// `type/subtype` in lower case; `None` if absent or invalid.
    pub content_type: Option<String>,
    /// The charset parameter of a text part, in lower case.
    pub(crate) charset: Option<String>,
    /// Content-ID without its angle brackets.
    pub content_id: Option<String>,
    /// `None` without a Content-Disposition field.
    pub disposition: Option<Disposition>,
    /// Bytes after decoding: exactly as many as [`Decoder`] yields.
    pub size: u64,
    /// Offset of the encoded body in the raw message.
    pub offset: u64,
    /// Length of the encoded body in bytes.
    pub length: u64,
    /// The Content-Transfer-Encoding in effect, or [`Encoding::Uuencode`].
    pub encoding: Encoding,
    /// Offset of the file in the decoded body, if it comes from a winmail.dat; otherwise it is the whole body.
    pub inner_offset: Option<u64>,
}

/// A parsed message (contract 5.2, 5.4, 9.6).
///
/// The first of repeated fields counts. Only From collects all of them, since if two differ neither is trusted.
/// Header texts contain no line breaks and no control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// The mailboxes of all From fields.
    pub header_from: Vec<NamedAddress>,
    /// Number of From fields; RFC 5322 §3.6 allows one.
    pub(crate) from_fields: usize,
    /// True if a From field names other mailboxes than the first one does.
    pub(crate) from_fields_differ: bool,
    /// The address that every parser finds in the only From field; `None` where parsers may differ, since an address
    /// that only some of them see must not pass for authenticated.
    pub(crate) author: Option<String>,
    /// The mailboxes of To.
    pub header_to: Vec<NamedAddress>,
    /// The mailboxes of Cc.
    pub header_cc: Vec<NamedAddress>,
    /// Decoded.
    pub subject: Option<String>,
    /// Message-ID with its angle brackets.
    pub message_id: Option<String>,
    /// The id of In-Reply-To, with its angle brackets: the first one, or the last one if there is prose around it.
    pub in_reply_to: Option<String>,
    /// All displayed text/plain parts, in order, each starting on a new line. Line breaks are `\n`, with none at the
    /// end. `None` if there is no such part.
    pub text: Option<String>,
    /// The same for text/html parts. Neither is derived from the other.
    pub html: Option<String>,
    /// Everything else, in order: files, inline images, nested messages, calendars; the content of a winmail.dat
    /// follows it.
    pub attachments: Vec<Part>,
    /// Number of Received fields.
    pub(crate) received_count: usize,
    /// True if the message declares that no person sent it (RFC 3834 §5).
    pub auto_submitted: bool,
    /// True if a mailing list or bulk sender sent it (RFC 2919, RFC 2369, `Precedence`).
    pub(crate) bulk: bool,
    /// Offset of the header: after the separator line of an mbox file, if there is one.
    pub(crate) header_offset: usize,
    /// Offset of the body.
    pub(crate) body_offset: usize,
    /// True if the message's own header exceeded a limit.
    pub(crate) header_truncated: bool,
    /// True if that header has lines that are not fields; for other parsers it may end there.
    pub(crate) has_stray_lines: bool,
    /// True if something was left out because of a limit.
    pub truncated: bool,
}

impl Mail {
    /// Returns the sender's address (contract 5.2): that of the From field if it names exactly one and every other
    /// From field names the same; else the envelope sender, else `MAILER-DAEMON@hostname`.
    pub fn sender_address(&self, mail_from: &str, hostname: &str) -> String {
        match self.header_from.as_slice() {
            [only] if !self.from_fields_differ => only.address.clone(),
            _ if mail_from.is_empty() => format!("MAILER-DAEMON@{hostname}"),
            _ => mail_from.to_owned(),
        }
    }

    /// Returns the domain of [`Mail::author`].
    pub(crate) fn author_domain(&self) -> Option<&str> {
        self.author.as_deref()?.rsplit_once('@').map(|(_, domain)| domain)
    }

    /// Returns the id of In-Reply-To, else the message's own Message-ID (contract 5.2).
    pub fn thread_id(&self) -> Option<&str> {
        self.in_reply_to.as_deref().or(self.message_id.as_deref())
    }
}

/// Returns the display name that a list gives for `address`, ignoring case.
pub fn display_name<'n>(list: &'n [NamedAddress], address: &str) -> Option<&'n str> {
    let mut same = list.iter().filter(|named| named.address.eq_ignore_ascii_case(address));
    same.find_map(|named| named.name.as_deref())
}

/// Parses a message within the default limits.
pub fn parse(raw: &[u8]) -> Mail {
    parse_within(raw, &Limits::default())
}

/// Parses a message within `limits`.
pub(crate) fn parse_within(raw: &[u8], limits: &Limits) -> Mail {
    // The code below must not panic; but if it does, no mail may be lost.
    catch_unwind(AssertUnwindSafe(|| read(raw, limits, TextMode::Decode))).unwrap_or_else(|_| unparsable())
}

/// Parses a message without decoding its texts, which is most of the work: existing texts are empty, and
/// [`Mail::truncated`] does not say whether they would be cut.
pub(crate) fn parse_without_bodies(raw: &[u8]) -> Mail {
    catch_unwind(AssertUnwindSafe(|| read(raw, &Limits::default(), TextMode::Skip))).unwrap_or_else(|_| unparsable())
}

/// A parsed message whose texts are decoded later, and not held in memory as a whole.
#[derive(Debug, Default)]
pub struct StreamedMail {
    /// As [`parse`] returns it, apart from the texts.
    pub mail: Mail,
    /// Decodes to [`Mail::text`].
    pub text: Option<LocatedText>,
    /// Decodes to [`Mail::html`].
    pub html: Option<LocatedText>,
}

/// Parses a message whose texts may be large, with the same result as [`parse`].
pub fn parse_streaming(raw: &Bytes) -> StreamedMail {
    let read = || {
        let mut located = LocatedTexts::default();
        let mut mail = read(raw, &Limits::default(), TextMode::Locate(raw, &mut located));
        (mail.text, mail.html) = (None, None);
        StreamedMail { mail, text: located.text, html: located.html }
    };
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| StreamedMail { mail: unparsable(), ..StreamedMail::default() })
}

fn unparsable() -> Mail {
    Mail { truncated: true, ..Mail::default() }
}

fn read(raw: &[u8], limits: &Limits, texts: TextMode<'_>) -> Mail {
    let mut mail = Mail::default();
    let mut fields = Vec::with_capacity(32);
    let structure = walk::walk(raw, limits, |field| fields.push(*field));
    mail.truncated |= structure.truncated;
    mail.header_offset = structure.header_offset;
    mail.body_offset = structure.body_offset;
    mail.header_truncated = structure.header_truncated;
    mail.has_stray_lines = structure.has_stray_lines;
    let charset = OnceCell::new();
    let charset = || *charset.get_or_init(|| body::charset_of_texts(raw, &structure.leaves));
    for field in &fields {
        apply_field(&mut mail, field, || words::to_utf_8(field.value, charset), limits);
    }
    mail.in_reply_to = fields.iter().find(|field| field.is("In-Reply-To")).and_then(|field| {
        let is_person = |id: &str| {
            let people = mail.header_from.iter().chain(&mail.header_to).chain(&mail.header_cc);
            people.into_iter().any(|named| named.address.eq_ignore_ascii_case(id))
        };
        message_id::replied_to(&words::decode_text(field.value), is_person)
    });
    body::read(raw, &structure.leaves, charset, texts, limits.max_parts, &mut mail);
    mail
}

/// Applies a field of the message header; `value` converts its value to UTF-8.
fn apply_field<'x>(mail: &mut Mail, field: &Field<'x>, value: impl Fn() -> Cow<'x, [u8]>, limits: &Limits) {
    match field.name.to_ascii_lowercase().as_slice() {
        b"from" => {
            mail.from_fields += 1;
            let mut named = Vec::new();
            mail.truncated |= !address::parse(&value(), limits.max_addresses, &mut named);
            if mail.from_fields == 1 {
                mail.header_from = named;
            } else if named != mail.header_from {
                mail.from_fields_differ = true;
                mail.header_from.extend(named);
                mail.header_from.truncate(limits.max_addresses);
            }
            // Of the raw field: not every parser knows its charset.
            mail.author = match mail.header_from.as_slice() {
                [only] if mail.from_fields == 1 => {
                    author::sole_author(field.value).filter(|sole| *sole == only.address)
                }
                _ => None,
            };
        }
        b"to" => mail.truncated |= !address::parse(&value(), limits.max_addresses, &mut mail.header_to),
        b"cc" => mail.truncated |= !address::parse(&value(), limits.max_addresses, &mut mail.header_cc),
        b"subject" if mail.subject.is_none() => mail.subject = Some(cut_for_display(words::decode_text(&value()))),
        b"message-id" if mail.message_id.is_none() => {
            mail.message_id = message_id::of_field(&words::decode_text(&value()))
        }
        b"received" => mail.received_count += 1,
        b"auto-submitted" => {
            let word = field.value.trim_ascii();
            let word = word.split(|byte| matches!(byte, b';' | b' ' | b'(' | b'\t')).next().unwrap_or_default();
            mail.auto_submitted |= !word.eq_ignore_ascii_case(b"no");
        }
        b"list-id" | b"list-post" | b"list-unsubscribe" => mail.bulk = true,
        b"precedence" => {
            let word = field.value.trim_ascii();
            mail.bulk |= [b"bulk".as_slice(), b"junk", b"list"].iter().any(|bulk| word.eq_ignore_ascii_case(bulk));
        }
        _ => {}
    }
}

/// Truncates a subject or name for lists, which hold hundreds of them. The stored header has all of it.
fn cut_for_display(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_DISPLAY_TEXT));
    text
}

#[cfg(test)]
mod tests;
