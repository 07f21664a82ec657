//! Mail data to fields: what the store, the webhook and the routes want to know of a message.
//!
//! [`parse`] borrows, never fails and never panics: hostile input yields what could be read and sets
//! [`Mail::truncated`]. The walk (`walk`) finds header blocks and parts within [`Limits`]; only then are texts decoded,
//! each once, and attachments measured, not copied: a [`Part`] is a slice of the raw message that a [`Decoder`] turns
//! into the file when its link is called.

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

pub(crate) use author::{has_international_author as has_international_author, sole_author as sole_author};
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

/// Octets of a subject or of a display name that are kept beside the header.
const MAX_DISPLAY_TEXT: usize = 4096;

/// What is read of a message at most; beyond it the message is stored all the same and flagged.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Parts, multiparts included.
    pub(crate) max_parts: usize,
    /// Multiparts inside one another.
    pub(crate) max_depth: usize,
    /// Bytes of one header block.
    pub(crate) max_header_bytes: usize,
    /// Fields of one header block.
    pub(crate) max_header_fields: usize,
    /// Mailboxes of one address list.
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

/// A mailbox with its display name, as an address list gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedAddress {
    /// `local@domain`: the local part as written, the domain as A-labels in lower case.
    pub address: String,
    /// The display name, or the comment that stands for one; never empty.
    pub name: Option<String>,
}

/// What the sender wants done with a part (RFC 2183).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// To be offered as a file; also every word that is not known (RFC 2183 §2.8).
    Attachment,
    /// To be shown in the message.
    Inline,
}

impl Disposition {
    /// The contract's word (section 5.4).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attachment => "attachment",
            Self::Inline => "inline",
        }
    }

    /// The disposition that a stored word names.
    pub(crate) fn parse(word: &str) -> Self {
        if word == "inline" { Self::Inline } else { Self::Attachment }
    }
}

/// An attachment: what it is called and where it stands in the raw message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Safe to offer for download: no path, no control or bidirectional character, at most 255 bytes.
    pub filename: Option<String>,
    /// `type/subtype` in lower case, if the part has a valid one.
    pub content_type: Option<String>,
    /// The charset parameter of a text, in lower case.
    pub(crate) charset: Option<String>,
    /// Content-ID without its angle brackets.
    pub content_id: Option<String>,
    /// Content-Disposition, if the part has one.
    pub disposition: Option<Disposition>,
    /// Bytes after decoding: exactly what [`Decoder`] yields.
    pub size: u64,
    /// Offset of the encoded body in the raw message.
    pub offset: u64,
    /// Length of the encoded body.
    pub length: u64,
    /// How the body is encoded.
    pub encoding: Encoding,
    /// Where the file stands in the decoded body, if it is one of those in a winmail.dat; else it is all of it.
    pub inner_offset: Option<u64>,
}

/// What a message says (contract 5.2, 5.4, 9.6).
///
/// Of a field that occurs twice the first counts; only From collects all, since two that differ mean that none is
/// believed. Header texts hold no line break and no control character.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// All mailboxes that all From fields name.
    pub header_from: Vec<NamedAddress>,
    /// How many From fields there are; RFC 5322 §3.6 allows one.
    pub(crate) from_fields: usize,
    /// Whether From fields name others than the first does.
    pub(crate) from_fields_differ: bool,
    /// The address that every reader finds in the one From field; none where they may differ, and what only some of them
    /// read must not pass for authenticated.
    pub(crate) author: Option<String>,
    /// The mailboxes of To.
    pub header_to: Vec<NamedAddress>,
    /// The mailboxes of Cc.
    pub header_cc: Vec<NamedAddress>,
    /// Subject, decoded.
    pub subject: Option<String>,
    /// Message-ID with its angle brackets.
    pub message_id: Option<String>,
    /// The id in In-Reply-To, with its angle brackets: the first, or with prose around it the last.
    pub in_reply_to: Option<String>,
    /// All text/plain parts that are shown, in order, each on a line of its own. Line breaks are `\n`, and there is none
    /// at the end. `None` if there is no such part.
    pub text: Option<String>,
    /// The same of text/html parts. Neither is made from the other.
    pub html: Option<String>,
    /// Everything else, in order: files, inline images, nested messages, calendars; what a winmail.dat holds behind it.
    pub attachments: Vec<Part>,
    /// Number of Received fields.
    pub(crate) received_count: usize,
    /// Whether the message says that no person sent it (RFC 3834 §5).
    pub auto_submitted: bool,
    /// Whether a mailing list or a bulk sender sent it (RFC 2919, RFC 2369, `Precedence`).
    pub(crate) bulk: bool,
    /// Where the header begins: behind the line that separates it from others in an mbox file, if there is one.
    pub(crate) header_offset: usize,
    /// Where the body begins.
    pub(crate) body_offset: usize,
    /// Whether the header of the message itself went past a limit.
    pub(crate) header_truncated: bool,
    /// Whether something in that header is no field; for other readers it may end there.
    pub(crate) has_stray_lines: bool,
    /// Whether something was left out because of a limit.
    pub truncated: bool,
}

impl Mail {
    /// The address the message is from (contract 5.2): that of the From field if it names exactly one, and every other From
    /// field the same; else the envelope sender, else `MAILER-DAEMON@hostname`.
    pub fn sender_address(&self, mail_from: &str, hostname: &str) -> String {
        match self.header_from.as_slice() {
            [only] if !self.from_fields_differ => only.address.clone(),
            _ if mail_from.is_empty() => format!("MAILER-DAEMON@{hostname}"),
            _ => mail_from.to_owned(),
        }
    }

    /// The domain of [`Mail::author`].
    pub(crate) fn author_domain(&self) -> Option<&str> {
        self.author.as_deref()?.rsplit_once('@').map(|(_, domain)| domain)
    }

    /// First id of In-Reply-To, else the own Message-ID (contract 5.2).
    pub fn thread_id(&self) -> Option<&str> {
        self.in_reply_to.as_deref().or(self.message_id.as_deref())
    }
}

/// The display name that a list gives for `address`, compared without regard to case.
pub fn display_name<'n>(list: &'n [NamedAddress], address: &str) -> Option<&'n str> {
    let mut same = list.iter().filter(|named| named.address.eq_ignore_ascii_case(address));
    same.find_map(|named| named.name.as_deref())
}

/// Reads a message within the default limits.
pub fn parse(raw: &[u8]) -> Mail {
    parse_within(raw, &Limits::default())
}

/// Reads a message within `limits`.
pub(crate) fn parse_within(raw: &[u8], limits: &Limits) -> Mail {
    // Nothing below is meant to panic; but were it to, a mail must not be lost by it.
    catch_unwind(AssertUnwindSafe(|| read(raw, limits, TextMode::Decode))).unwrap_or_else(|_| unparsable())
}

/// As [`parse`] for whoever does not want the texts, whose decoding is most of the work: they are empty where there are any,
/// and [`Mail::truncated`] does not tell whether they would be cut.
pub(crate) fn parse_without_bodies(raw: &[u8]) -> Mail {
    catch_unwind(AssertUnwindSafe(|| read(raw, &Limits::default(), TextMode::Skip))).unwrap_or_else(|_| unparsable())
}

/// A message whose texts are decoded later, and not held whole.
#[derive(Debug, Default)]
pub struct StreamedMail {
    /// As [`parse`] reads it, apart from the texts.
    pub mail: Mail,
    /// What [`Mail::text`] would be.
    pub text: Option<LocatedText>,
    /// What [`Mail::html`] would be.
    pub html: Option<LocatedText>,
}

/// As [`parse`], which it agrees with in everything, for a message whose texts may be large.
pub fn parse_streaming(raw: &Bytes) -> StreamedMail {
    let read = || {
        let mut placed = LocatedTexts::default();
        let mut mail = read(raw, &Limits::default(), TextMode::Locate(raw, &mut placed));
        (mail.text, mail.html) = (None, None);
        StreamedMail { mail, text: placed.text, html: placed.html }
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| StreamedMail { mail: unparsable(), ..StreamedMail::default() })
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

/// Takes what is wanted of a field of the header, whose value in UTF-8 `value` gives.
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
            // As the field stands: not every reader knows what set it is in.
            mail.author = match mail.header_from.as_slice() {
                [only] if mail.from_fields == 1 => author::sole_author(field.value).filter(|sole| *sole == only.address),
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

/// A subject or name as lists show it: hundreds of them stand side by side. All of it is among the header fields.
fn cut_for_display(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_DISPLAY_TEXT));
    text
}

#[cfg(test)]
mod tests;
