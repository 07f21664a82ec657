//! Unpacks winmail.dat, into which Outlook packs files, the formatted body and attached messages ([MS-OXTNEF]).
//!
//! A file is a slice of the decoded part, even inside an attached message: its link reads it from there, and nothing
//! is stored twice. The body is decoded: HTML directly or out of RTF, and plain text.

mod code_page;
mod compressed_rtf;
mod cursor;
mod properties;
mod rtf;

use std::collections::VecDeque;
use std::ops::Range;

use self::cursor::Cursor;
use self::properties::{Properties, Property};
use super::params::{is_type, safe_filename};

/// The first octets of a stream.
const SIGNATURE: u32 = 0x223e_9f78;
/// Nesting depth of attached messages.
const MAX_DEPTH: usize = 8;
/// An attached message begins with the identifier of its interface, then comes its stream.
const INTERFACE_LEN: usize = 16;
const IID_MESSAGE: [u8; INTERFACE_LEN] = [0x07, 0x03, 0x02, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0x46];
const MAX_TYPE: usize = 255;
/// Maximum RTF octets in any stream; in a large one RTF may be as large as the mail.
const MIN_RTF: usize = 1024 * 1024;

/// A text in the code page of its stream (narrow) or in UTF-16 (wide).
#[derive(Clone, Copy)]
enum Text<'d> {
    Narrow(&'d [u8]),
    Wide(&'d [u8]),
}

/// The content of a stream.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// In order; those of attached messages come after the others.
    pub(crate) files: Vec<File>,
    pub(crate) text: Option<String>,
    pub(crate) html: Option<String>,
    /// True if files or part of a text were left out because of a limit.
    pub(crate) truncated: bool,
}

/// A file in a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Safe to offer for download.
    pub(crate) filename: Option<String>,
    /// `type/subtype`.
    pub(crate) content_type: Option<String>,
    /// Only for texts.
    pub(crate) charset: Option<String>,
    /// Content-ID without angle brackets.
    pub(crate) content_id: Option<String>,
    /// True if the HTML displays it.
    pub(crate) inline: bool,
    /// Its range in the decoded part.
    pub(crate) range: Range<usize>,
}

/// True if data begins like a stream.
pub(crate) fn is_tnef(data: &[u8]) -> bool {
    data.first_chunk::<4>().is_some_and(|head| u32::from_le_bytes(*head) == SIGNATURE)
}

/// Unpacks a stream: at most `max_files` files and `max_text` octets of each text. `None` if it is damaged or not a
/// stream.
pub(crate) fn unpack(data: &[u8], max_files: usize, max_text: usize) -> Option<Unpacked> {
    let mut unpacked = Unpacked::default();
    Stream::read(data, 0..data.len(), max_files)?.read_bodies(max_text, &mut unpacked);
    let mut waiting = VecDeque::from([(0..data.len(), 0)]);
    while let Some((range, depth)) = waiting.pop_front() {
        let Some(stream) = Stream::read(data, range, max_files) else { continue };
        unpacked.truncated |= stream.truncated;
        for attachment in &stream.attachments {
            let inner = attachment.message(data).filter(|_| depth < MAX_DEPTH);
            let inner = inner.and_then(|range| Stream::read(data, range, max_files));
            let file = match &inner {
                Some(message) => Some(message.as_file(attachment, stream.code_page)),
                None => attachment.as_file(stream.code_page),
            };
            if file.is_some() && unpacked.files.len() >= max_files {
                unpacked.truncated = true;
                return Some(unpacked);
            }
            unpacked.files.extend(file);
            waiting.extend(inner.map(|message| (message.range, depth + 1)));
        }
    }
    Some(unpacked)
}

/// The relevant attributes of one stream.
#[derive(Default)]
struct Stream<'d> {
    range: Range<usize>,
    code_page: u32,
    subject: Option<Text<'d>>,
    body: Option<&'d [u8]>,
    body_range: Range<usize>,
    properties: Properties<'d>,
    attachments: Vec<Attachment<'d>>,
    /// True if there are more attachments than the limit.
    truncated: bool,
}

#[derive(Default)]
struct Attachment<'d> {
    title: Option<Text<'d>>,
    transport_name: Option<Text<'d>>,
    data: Option<Range<usize>>,
    properties: Properties<'d>,
}

impl<'d> Stream<'d> {
    /// Reads the attributes within a range ([MS-OXTNEF] §2.1.3). `None` if one is truncated. Checksums are not
    /// verified: programs write wrong ones, and the files are as good as the winmail.dat offered with them.
    fn read(data: &'d [u8], range: Range<usize>, max_attachments: usize) -> Option<Self> {
        let mut cursor = Cursor::new(data, range.clone());
        if cursor.u32()? != SIGNATURE {
            return None;
        }
        cursor.u16()?;
        let mut stream = Self { range, ..Self::default() };
        // Data after the last attribute was added in transit.
        while let Some(level @ (1 | 2)) = cursor.u8() {
            let (id, length) = (cursor.u32()?, usize::try_from(cursor.u32()?).ok()?);
            let (value, range) = cursor.take(length)?;
            let checksum = cursor.u16();
            if checksum.is_none() && !cursor.is_at_end() {
                return None;
            }
            match (level, id & 0xffff) {
                (1, 0x9007) => stream.code_page = Cursor::new(value, 0..value.len()).u32().unwrap_or_default(),
                (1, 0x8004) => stream.subject = Some(Text::Narrow(value)),
                (1, 0x800c) => (stream.body, stream.body_range) = (Some(value), range),
                (1, 0x9003) => stream.properties = Properties::read(data, range),
                (2, _) if stream.truncated => {}
                (2, 0x9002) if stream.attachments.len() >= max_attachments => stream.truncated = true,
                (2, 0x9002) => stream.attachments.push(Attachment::default()),
                (2, attribute) => {
                    if stream.attachments.is_empty() {
                        stream.attachments.push(Attachment::default());
                    }
                    let Some(last) = stream.attachments.last_mut() else { continue };
                    match attribute {
                        0x8010 => last.title = Some(Text::Narrow(value)),
                        0x9001 => last.transport_name = Some(Text::Narrow(value)),
                        0x800f => last.data = Some(range),
                        0x9005 => last.properties = Properties::read(data, range),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Some(stream)
    }

    /// Returns the code page of bodies that do not use the one of the stream.
    fn internet_code_page(&self) -> u32 {
        self.properties.number(properties::INTERNET_CODE_PAGE).unwrap_or(self.code_page)
    }

    fn read_bodies(&self, max_text: usize, unpacked: &mut Unpacked) {
        let of = |id| self.properties.get(id);
        let mut is_cut = false;
        let mut cut = |text: String| {
            let fits = text.len() <= max_text;
            unpacked.truncated |= !fits;
            let mut text = text;
            text.truncate(text.floor_char_boundary(max_text));
            Some(text).filter(|text| !text.trim().is_empty())
        };
        let mut html = of(properties::HTML).and_then(|property| match property.text() {
            Some(text) => cut(self.decode(text)),
            None => cut(code_page::decode_markup(property.value, self.internet_code_page())),
        });
        let text = of(properties::BODY).and_then(Property::text).or(self.body.map(Text::Narrow));
        let mut text = text.and_then(|text| cut(self.decode(text)));
        if html.is_none() || text.is_none() {
            let packed = of(properties::RTF).map(|property| property.value).unwrap_or_default();
            let max_source = (max_text / 2).max(MIN_RTF);
            let source = compressed_rtf::unpack(packed, max_source);
            is_cut = source.as_ref().is_some_and(|source| source.len() >= max_source);
            match source.and_then(|source| rtf::read(&source, max_text)) {
                Some(rtf::RtfBody::Html(found)) => html = html.or_else(|| cut(found)),
                Some(rtf::RtfBody::Text(found)) => text = text.or_else(|| cut(found)),
                None => {}
            }
        }
        let lines = |text: String| text.replace("\r\n", "\n").replace('\r', "\n").trim_end_matches('\n').to_owned();
        (unpacked.text, unpacked.html) = (text.map(lines), html.map(lines));
        unpacked.truncated |= is_cut;
    }

    fn decode(&self, text: Text<'_>) -> String {
        text.decode(self.code_page)
    }

    /// Returns an attached message as a file: its body if that can be displayed as it is, else the whole stream.
    fn as_file(&self, attachment: &Attachment<'_>, code_page: u32) -> File {
        let name = attachment.properties.text(properties::DISPLAY_NAME).map(|name| name.decode(code_page));
        let subject = self.properties.text(properties::SUBJECT).or(self.subject);
        let name = name.filter(|name| !name.trim().is_empty()).or_else(|| subject.map(|text| self.decode(text)));
        let name = name.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "message".to_owned());
        let narrow = code_page::label(self.code_page);
        let (range, suffix, content_type, charset) = if let Some(html) = self.properties.get(properties::HTML) {
            let charset = match html.text() {
                Some(Text::Wide(_)) => "utf-16le",
                Some(Text::Narrow(_)) => narrow,
                None => code_page::label(self.internet_code_page()),
            };
            (html.range.clone(), "html", "text/html", Some(charset))
        } else if let Some(body) = self.properties.get(properties::BODY) {
            let charset = if matches!(body.text(), Some(Text::Wide(_))) { "utf-16le" } else { narrow };
            (body.range.clone(), "txt", "text/plain", Some(charset))
        } else if self.body.is_some() && self.properties.get(properties::RTF).is_none() {
            (self.body_range.clone(), "txt", "text/plain", Some(narrow))
        } else {
            (self.range.clone(), "tnef", "application/vnd.ms-tnef", None)
        };
        File {
            filename: safe_filename(&format!("{}.{suffix}", name.trim())),
            content_type: Some(content_type.to_owned()),
            charset: charset.map(str::to_owned),
            content_id: None,
            inline: false,
            range,
        }
    }
}

impl Attachment<'_> {
    /// Returns the range of the attached message's stream, if one is attached.
    fn message(&self, data: &[u8]) -> Option<Range<usize>> {
        let property = self.properties.get(properties::DATA)?;
        let (head, start) = (property.value.first_chunk::<INTERFACE_LEN>()?, property.range.start + INTERFACE_LEN);
        let range = start..property.range.end;
        let is_stream = *head == IID_MESSAGE && data.get(range.clone()).is_some_and(is_tnef);
        is_stream.then_some(range)
    }

    /// Returns the file; `None` if nothing is attached, or only a name.
    fn as_file(&self, code_page: u32) -> Option<File> {
        let of = |id| self.properties.text(id);
        let text = |text: Text<'_>| Some(text.decode(code_page)).filter(|text| !text.trim().is_empty());
        let object = self.properties.get(properties::DATA);
        let in_property = object.map(|property| {
            // An object of another program: the interface identifier before it is not part of it.
            let head = if property.is_object() { INTERFACE_LEN.min(property.value.len()) } else { 0 };
            property.range.start + head..property.range.end
        });
        let range = match (&self.data, in_property) {
            (Some(data), Some(object)) if data.is_empty() => object,
            (Some(data), _) => data.clone(),
            (None, object) => object?,
        };
        let names = [
            of(properties::LONG_FILE_NAME),
            self.title,
            of(properties::FILE_NAME),
            self.transport_name,
            of(properties::DISPLAY_NAME),
        ];
        let content_type = of(properties::MIME_TAG).and_then(text).map(|word| word.trim().to_ascii_lowercase());
        let content_id = of(properties::CONTENT_ID).and_then(text);
        let content_id = content_id.map(|id| id.trim().trim_matches(['<', '>']).to_owned());
        let is_shown = self.properties.number(properties::FLAGS).is_some_and(|flags| flags & 4 != 0)
            || self.properties.number(properties::HIDDEN).is_some_and(|hidden| hidden & 0xffff != 0);
        let fits = |id: &String| !id.is_empty() && id.len() <= 998 && id.chars().all(|c| c.is_ascii_graphic());
        let content_id = content_id.filter(fits);
        let filename = names.into_iter().flatten().filter_map(text).find_map(|name| safe_filename(&name));
        if range.is_empty() && filename.is_none() {
            return None;
        }
        Some(File {
            filename,
            content_type: content_type.filter(|word| word.len() <= MAX_TYPE && is_type(word)),
            charset: None,
            inline: content_id.is_some() && is_shown,
            content_id,
            range,
        })
    }
}

impl Text<'_> {
    fn decode(self, code_page: u32) -> String {
        match self {
            Self::Narrow(bytes) => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                code_page::charset(code_page).decode(bytes.get(..end).unwrap_or_default())
            }
            Self::Wide(bytes) => {
                let units = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
                let units = units.take_while(|unit| *unit != 0);
                char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
