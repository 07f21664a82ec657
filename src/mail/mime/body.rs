//! Selects the parts that are the text of a message; all others are attachments.
//!
//! A text/plain or text/html part is text unless its disposition is attachment, it follows the root of a
//! multipart/related, or it has a filename and is not the first text. All texts of a type are joined in order, as
//! mail programs display them one below the other. Everything else is an attachment; nothing is left out.

use std::ops::Range;

use bytes::Bytes;

use super::charset::Charset;
use super::decode::{Encoding, decode_part, decoded_size, in_pieces};
use super::params::{self, ParameterizedValue, is_token, is_type};
use super::text::{LocatedText, decode_lines};
use super::tnef::{self, Unpacked};
use super::walk::{Leaf, LeafKind, Parent};
use super::{Disposition, Mail, Part, base64_text, uuencode, words};

/// Decoded texts may have this many bytes in any message, and twice its size in a large one; so a message costs at
/// most three times its size even if each byte becomes a three-byte character.
const MIN_TEXT_BYTES: usize = 256 * 1024;
const UTF_8: Charset = Charset::Known(encoding_rs::UTF_8);
/// From this size on each text of a message gets its buffer up front, as large as the budget.
const LARGE_MESSAGE: usize = 1024 * 1024;

/// Encoded octets of a text inspected to find its kind and charset.
const MAX_HEAD: usize = 4 * 1024;

/// The handling of texts.
pub(crate) enum TextMode<'t> {
    /// Decode them.
    Decode,
    /// Report only their presence.
    Skip,
    /// As [`Self::Skip`], and record their locations in the mail data here.
    Locate(&'t Bytes, &'t mut LocatedTexts),
}

/// The located texts of a message.
#[derive(Debug, Default)]
pub(crate) struct LocatedTexts {
    pub(crate) text: Option<LocatedText>,
    pub(crate) html: Option<LocatedText>,
}

/// Adds the texts and attachments among `leaves` to `mail`. `header_charset` is the charset of non-ASCII octets in
/// part headers.
pub(crate) fn read(
    raw: &[u8],
    leaves: &[Leaf<'_>],
    header_charset: impl Fn() -> Charset,
    mut texts: TextMode<'_>,
    max_parts: usize,
    mail: &mut Mail,
) {
    let mut budget = (raw.len() * 2).max(MIN_TEXT_BYTES);
    // True for each kind with a text that is not blank; and the content of a winmail.dat.
    let mut has_content = [false; 2];
    let mut tnef_content: Option<Unpacked> = None;
    for leaf in leaves {
        let body = raw.get(leaf.body.clone()).unwrap_or_default();
        if leaf.kind == LeafKind::EmptyMultipart && body.trim_ascii().is_empty() {
            continue;
        }
        let part = PartInfo::of(leaf, body, &header_charset);
        let Some(kind) = part.text_kind(leaf, body, mail.text.is_none() && mail.html.is_none()) else {
            let body = part.data(body);
            push_attachment(part.into_attachment(leaf, body), body, (max_parts, budget), mail, &mut tnef_content);
            continue;
        };
        let charset = || part.charset(kind, body);
        let max_files = max_parts.saturating_sub(mail.attachments.len());
        for (at, encoding) in part.pieces(kind, body, max_files) {
            let piece = body.get(at.clone()).unwrap_or_default();
            // Unencoded text after encoded data was appended by other software.
            let charset = || if encoding == part.encoding { charset() } else { Charset::Unknown };
            if encoding == Encoding::Uuencode && part.encoding == Encoding::Identity {
                let file = uuencoded_attachment(leaf.body.start + at.start, piece, &header_charset);
                push_attachment(file, piece, (max_parts, budget), mail, &mut tnef_content);
                continue;
            }
            if let Some(seen) = has_content.get_mut(kind as usize) {
                *seen |= !piece.trim_ascii().is_empty();
            }
            let slot = if kind == TextKind::Plain { &mut mail.text } else { &mut mail.html };
            match &mut texts {
                TextMode::Skip => {
                    slot.get_or_insert_default();
                }
                TextMode::Decode => {
                    let text = slot.get_or_insert_with(|| match raw.len() {
                        0..LARGE_MESSAGE => String::new(),
                        _ => String::with_capacity(budget),
                    });
                    mail.truncated |= !append(piece, encoding, charset(), text, &mut budget);
                }
                TextMode::Locate(raw, located) => {
                    slot.get_or_insert_default();
                    let target = if kind == TextKind::Plain { &mut located.text } else { &mut located.html };
                    let (piece, target) = (raw.slice_ref(piece), target.get_or_insert_default());
                    mail.truncated |= !target.append(piece, encoding, charset(), &mut budget);
                }
            }
        }
    }
    // Mail programs that know TNEF display its body; here it replaces a missing one.
    let Unpacked { text, html, .. } = tnef_content.unwrap_or_default();
    for (kind, found) in [(TextKind::Plain, text), (TextKind::Html, html)] {
        if let Some(found) = found.filter(|_| has_content.get(kind as usize) == Some(&false)) {
            let slot = if kind == TextKind::Plain { &mut mail.text } else { &mut mail.html };
            match &mut texts {
                TextMode::Skip => *slot = Some(String::new()),
                TextMode::Decode => {
                    let text = slot.insert(String::new());
                    mail.truncated |= !append(found.as_bytes(), Encoding::Identity, UTF_8, text, &mut budget);
                }
                TextMode::Locate(_, located) => {
                    *slot = Some(String::new());
                    let target = if kind == TextKind::Plain { &mut located.text } else { &mut located.html };
                    let target = target.insert(LocatedText::default());
                    mail.truncated |= !target.append(found.into(), Encoding::Identity, UTF_8, &mut budget);
                }
            }
        }
    }
}

/// Adds an attachment, and its content if it is a winmail.dat.
fn push_attachment(
    part: Part,
    body: &[u8],
    (max_parts, budget): (usize, usize),
    mail: &mut Mail,
    tnef_content: &mut Option<Unpacked>,
) {
    let found = unpack_tnef(&part, body, max_parts.saturating_sub(mail.attachments.len() + 1), budget);
    let carrier = part.clone();
    mail.attachments.push(part);
    if let Some(mut found) = found {
        mail.truncated |= found.truncated;
        let files = std::mem::take(&mut found.files);
        mail.attachments.extend(files.into_iter().map(|file| carrier.embedded(file)));
        tnef_content.get_or_insert(found);
    }
}

/// Describes a uuencoded file in a text, at the offset `at` of the raw message.
fn uuencoded_attachment(at: usize, body: &[u8], header_charset: impl Fn() -> Charset) -> Part {
    let name = uuencode::filename(body).map(|name| words::decode_text(&words::to_utf_8(name, header_charset)));
    Part {
        filename: name.and_then(|name| params::safe_filename(&name)),
        charset: None,
        content_type: None,
        content_id: None,
        disposition: Some(Disposition::Attachment),
        size: decoded_size(Encoding::Uuencode, body),
        offset: at as u64,
        length: body.len() as u64,
        encoding: Encoding::Uuencode,
        inner_offset: None,
    }
}

/// Unpacks a part that is a winmail.dat, if whole and undamaged; its texts have at most `budget` octets each.
fn unpack_tnef(part: &Part, body: &[u8], max_files: usize, budget: usize) -> Option<Unpacked> {
    let named = || part.filename.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("winmail.dat"));
    let may_be = match part.content_type.as_deref() {
        Some("application/ms-tnef" | "application/vnd.ms-tnef") => true,
        Some("application/octet-stream") | None => named(),
        Some(_) => false,
    };
    may_be.then(|| tnef::unpack(&decode_part(part.encoding, body), max_files, budget))?
}

impl Part {
    /// Describes a file inside this part.
    fn embedded(&self, file: tnef::File) -> Self {
        Self {
            filename: file.filename,
            content_type: file.content_type,
            charset: file.charset,
            content_id: file.content_id,
            disposition: Some(if file.inline { Disposition::Inline } else { Disposition::Attachment }),
            size: file.range.len() as u64,
            inner_offset: Some(file.range.start as u64),
            ..*self
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TextKind {
    Plain,
    Html,
}

/// A part with its header parsed.
struct PartInfo {
    content_type: ParameterizedValue,
    /// `type/subtype`; `None` if absent or invalid.
    mime_type: Option<String>,
    disposition: Option<Disposition>,
    filename: Option<String>,
    encoding: Encoding,
}

impl PartInfo {
    fn of(leaf: &Leaf<'_>, body: &[u8], header_charset: impl Fn() -> Charset) -> Self {
        let parsed = |value: &[u8]| ParameterizedValue::parse(&words::to_utf_8(value, &header_charset));
        let content_type = leaf.header.content_type.map(parsed).unwrap_or_default();
        let disposition = leaf.header.disposition.map(parsed).unwrap_or_default();
        let mime_type = match (leaf.header.content_type, leaf.parent) {
            (None, Parent::Digest) => Some("message/rfc822".to_owned()),
            // RFC 2045 §5.2: a type without a subtype, still sent occasionally.
            _ if content_type.main == "text" => Some("text/plain".to_owned()),
            _ => Some(content_type.main.clone()).filter(|main| is_type(main)),
        };
        let is_text = mime_type.as_deref().is_none_or(|main| main.starts_with("text/"));
        let encoding = match leaf.header.encoding.map_or(Encoding::Identity, Encoding::of_field).of_body(body) {
            // The text around the file matters too.
            Encoding::Uuencode if is_text && !uuencode::is_only_file(body) => Encoding::Identity,
            encoding => encoding,
        };
        let inner_name = || {
            let name = (encoding == Encoding::Uuencode).then(|| uuencode::filename(body))??;
            params::safe_filename(&words::decode_text(&words::to_utf_8(name, &header_charset)))
        };
        Self {
            filename: params::filename(&disposition, &content_type).or_else(inner_name),
            disposition: match disposition.main.as_str() {
                "" => None,
                "inline" => Some(Disposition::Inline),
                _ => Some(Disposition::Attachment),
            },
            encoding,
            content_type,
            mime_type,
        }
    }

    /// Returns the kind of text, if the part is one. `first_text` is true if no text came before it.
    fn text_kind(&self, leaf: &Leaf<'_>, body: &[u8], first_text: bool) -> Option<TextKind> {
        if leaf.kind == LeafKind::EmptyMultipart {
            return Some(TextKind::Plain);
        }
        let kind = match self.mime_type.as_deref() {
            Some("text/plain") => TextKind::Plain,
            Some("text/html") => TextKind::Html,
            // RFC 2045 §5.2: a part without a (valid) type is plain text, but not if it is a named file.
            None if leaf.kind == LeafKind::Declared && self.filename.is_none() => TextKind::Plain,
            _ => return None,
        };
        let attached = self.disposition == Some(Disposition::Attachment)
            || (self.encoding == Encoding::Uuencode && is_binary(self.encoding, body))
            || (leaf.parent == Parent::Related && !leaf.first)
            || (self.filename.is_some() && !(first_text && leaf.first));
        (!attached).then_some(kind)
    }

    /// Returns `body` without the text that follows the encoded data.
    fn data<'x>(&self, body: &'x [u8]) -> &'x [u8] {
        match self.encoding {
            Encoding::Base64 => body.get(..base64_text::end_of_data(body)).unwrap_or(body),
            _ => body,
        }
    }

    /// Splits a text into pieces with their encodings: unencoded text may contain uuencoded files, and encoded text
    /// may be followed by unencoded.
    fn pieces(&self, kind: TextKind, body: &[u8], max_files: usize) -> Vec<(Range<usize>, Encoding)> {
        let end = self.data(body).len();
        let mut pieces = Vec::new();
        let mut at = 0;
        if kind == TextKind::Plain && self.encoding == Encoding::Identity {
            while pieces.len() < max_files * 2
                && let Some(file) = uuencode::find_file(body, at)
            {
                pieces.push((at..file.start, Encoding::Identity));
                at = file.end;
                pieces.push((file, Encoding::Uuencode));
            }
        }
        pieces.push((at..end, self.encoding));
        if kind == TextKind::Plain {
            pieces.push((end..body.len(), Encoding::Identity));
        }
        let has_text = |at: &Range<usize>| !body.get(at.clone()).unwrap_or_default().trim_ascii().is_empty();
        let mut number = 0;
        pieces.retain(|(at, _)| {
            number += 1;
            number == 1 || has_text(at)
        });
        pieces
    }

    /// Returns the charset of a text: the one in its header, else the one that HTML declares itself.
    fn charset(&self, kind: TextKind, body: &[u8]) -> Charset {
        let declared = Charset::for_label(&self.content_type.charset().unwrap_or_default());
        let in_html = || {
            let encoded = body.get(..MAX_HEAD).unwrap_or(body);
            Charset::of_html(&decode_part(self.encoding, encoded))
        };
        match (declared, kind) {
            (Charset::Utf7, TextKind::Html) => Charset::Utf7Markup,
            (Charset::Unknown, TextKind::Html) => in_html()
                .filter(|html| {
                    // ISO-2022-JP is ASCII with escape sequences.
                    let is_needed = || html.is_escaped() || !is_utf_8(self.encoding, body);
                    !html.is_utf_8() && is_needed()
                })
                .unwrap_or(declared),
            (declared, _) => declared,
        }
    }

    fn into_attachment(self, leaf: &Leaf<'_>, body: &[u8]) -> Part {
        let is_text = self.mime_type.as_deref().is_some_and(|main| main.starts_with("text/"));
        let charset = self.content_type.charset().and_then(|charset| String::from_utf8(charset).ok());
        let charset = charset.filter(|charset| is_text && is_token(charset));
        Part {
            filename: self.filename.or_else(|| default_filename(self.mime_type.as_deref()?)),
            charset: charset.map(|charset| charset.to_ascii_lowercase()),
            content_type: self.mime_type,
            content_id: leaf.header.content_id(),
            disposition: self.disposition,
            size: decoded_size(self.encoding, body),
            offset: leaf.body.start as u64,
            length: body.len() as u64,
            encoding: self.encoding,
            inner_offset: None,
        }
    }
}

/// Returns the charset of raw octets in the header: that of the first text that is not UTF-8, as UTF-8 headers need
/// no such help, and that is a superset of ASCII. Windows-1252 if there is none.
pub(crate) fn charset_of_texts(raw: &[u8], leaves: &[Leaf<'_>]) -> Charset {
    let of = |leaf: &Leaf<'_>| {
        let body = raw.get(leaf.body.clone()).unwrap_or_default();
        let part = PartInfo::of(leaf, body, || Charset::Unknown);
        let kind = part.text_kind(leaf, body, true)?;
        Some(part.charset(kind, body)).filter(|charset| !charset.is_utf_8() && charset.is_ascii_superset())
    };
    leaves.iter().find_map(of).unwrap_or(Charset::Unknown)
}

/// True if the beginning of a file is not text.
fn is_binary(encoding: Encoding, body: &[u8]) -> bool {
    decode_part(encoding, body.get(..MAX_HEAD).unwrap_or(body)).contains(&0)
}

/// True if the decoded text is valid UTF-8.
fn is_utf_8(encoding: Encoding, body: &[u8]) -> bool {
    if encoding == Encoding::Identity {
        return std::str::from_utf8(body).is_ok();
    }
    let mut pending: Vec<u8> = Vec::new();
    let mut valid = true;
    in_pieces(encoding, body, |piece| {
        pending.extend_from_slice(piece);
        let (checked, split) = match std::str::from_utf8(&pending) {
            Ok(_) => (pending.len(), true),
            // A character may continue in the next piece.
            Err(error) => (error.valid_up_to(), error.error_len().is_none()),
        };
        valid = split;
        pending.drain(..checked);
        valid
    });
    valid && pending.is_empty()
}

/// Returns the filename that mail programs display for types sent without one.
fn default_filename(mime_type: &str) -> Option<String> {
    let name = match mime_type {
        "message/rfc822" | "message/global" => "message.eml",
        "text/calendar" | "application/ics" => "invite.ics",
        "application/ms-tnef" | "application/vnd.ms-tnef" => "winmail.dat",
        "image/png" => "image.png",
        "image/jpeg" | "image/jpg" => "image.jpg",
        "image/gif" => "image.gif",
        "image/webp" => "image.webp",
        "image/svg+xml" => "image.svg",
        _ => return None,
    };
    Some(name.to_owned())
}

/// Appends a decoded text on a new line; returns false if it had to be cut.
fn append(body: &[u8], encoding: Encoding, charset: Charset, text: &mut String, budget: &mut usize) -> bool {
    text.reserve(body.len().min(*budget) + 1);
    if !text.is_empty() && !body.is_empty() {
        text.push('\n');
    }
    let start = text.len();
    let whole = decode_lines(body, encoding, charset, budget, |piece| text.push_str(piece));
    // The final line break belongs to the transport, in a multipart as in a simple message.
    while text.len() > start && text.ends_with('\n') {
        text.pop();
    }
    whole
}
