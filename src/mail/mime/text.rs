//! Decodes the texts of a message: whole into a string, or in pieces from their location in the mail data.
//!
//! Both ways use [`decode_lines`], to decode or to measure; a [`TextReader`] then yields exactly the measured length,
//! so that the text is the same bytes either way.

use std::vec;

use bytes::Bytes;

use super::charset::{Charset, TextDecoder};
use super::decode::{self, Decoder, Encoding, PIECE};

/// Decoded bytes that a reader yields at a time.
const CHUNK: usize = 8 * 1024;

/// A text located in the mail data, decoded each time it is read.
#[derive(Clone, Debug, Default)]
pub struct LocatedText {
    parts: Vec<TextPart>,
    /// Total decoded bytes.
    length: usize,
}

#[derive(Clone, Debug)]
struct TextPart {
    body: Bytes,
    encoding: Encoding,
    charset: Charset,
    /// True if a line break precedes it.
    on_new_line: bool,
    /// Decoded bytes to yield.
    length: usize,
}

impl LocatedText {
    /// Adds a part on a new line; returns false if it had to be cut to the `budget`, which is reduced by its length.
    pub(super) fn append(&mut self, body: Bytes, encoding: Encoding, charset: Charset, budget: &mut usize) -> bool {
        let (mut length, mut breaks) = (0, 0);
        let whole = decode_lines(&body, encoding, charset, budget, |text| {
            length += text.len();
            let trimmed = text.trim_end_matches('\n').len();
            breaks = if trimmed == 0 { breaks + text.len() } else { text.len() - trimmed };
        });
        length -= breaks;
        let begins_line = self.length > 0 && !body.is_empty();
        self.length += usize::from(begins_line) + length;
        self.parts.push(TextPart { body, encoding, charset, on_new_line: begins_line, length });
        whole
    }

    /// Returns the decoded length in bytes.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Returns the number of bytes of mail data that it refers to.
    pub(crate) fn encoded_len(&self) -> usize {
        self.parts.iter().map(|part| part.body.len()).sum()
    }

    /// Copies its encoded parts, so that the rest of the mail data can be freed.
    pub(crate) fn detach(&mut self) {
        for part in &mut self.parts {
            part.body = Bytes::copy_from_slice(&part.body);
        }
    }
}

/// Reads a [`LocatedText`] once, from its beginning.
pub struct TextReader {
    parts: vec::IntoIter<TextPart>,
    current: Option<PartReader>,
}

impl TextReader {
    /// Starts at the beginning of `text`.
    pub fn new(text: &LocatedText) -> Self {
        Self { parts: text.parts.clone().into_iter(), current: None }
    }

    /// Appends the next few KiB to `out`; returns false at the end.
    pub fn read(&mut self, out: &mut String) -> bool {
        if let Some(open) = &mut self.current {
            if !open.read(out) {
                self.current = None;
            }
            return true;
        }
        let Some(part) = self.parts.next() else { return false };
        if part.on_new_line {
            out.push('\n');
        }
        self.current = Some(PartReader::new(part));
        true
    }
}

/// A reader of one part.
struct PartReader {
    rest: Bytes,
    /// `None` once the end is decoded.
    decoder: Option<Decoder>,
    text_decoder: TextDecoder,
    bytes: Vec<u8>,
    text: String,
    /// Bytes of `text` already yielded.
    consumed: usize,
    after_cr: bool,
    /// Bytes still to yield.
    remaining: usize,
}

impl PartReader {
    fn new(part: TextPart) -> Self {
        Self {
            rest: part.body,
            decoder: Some(Decoder::new(part.encoding)),
            text_decoder: TextDecoder::new(part.charset),
            bytes: Vec::new(),
            text: String::new(),
            consumed: 0,
            after_cr: false,
            remaining: part.length,
        }
    }

    /// Like [`TextReader::read`].
    fn read(&mut self, out: &mut String) -> bool {
        if self.remaining == 0 || (self.consumed >= self.text.len() && !self.decode()) {
            return false;
        }
        let rest = self.text.get(self.consumed..).unwrap_or_default();
        let step = rest.get(..rest.floor_char_boundary(CHUNK)).unwrap_or_default();
        self.consumed += step.len();
        let left = &mut self.remaining;
        normalize_line_breaks(step, &mut self.after_cr, usize::MAX, |text| {
            // The measured length ends at a character boundary.
            let wanted = text.get(..text.len().min(*left)).unwrap_or_default();
            out.push_str(wanted);
            *left -= wanted.len();
        });
        true
    }

    /// Decodes the next piece of mail data into `text`; returns false if there is none.
    fn decode(&mut self) -> bool {
        let Some(decoder) = &mut self.decoder else { return false };
        self.bytes.clear();
        self.text.clear();
        self.consumed = 0;
        if self.rest.is_empty() {
            self.decoder.take().into_iter().for_each(|decoder| decoder.finish(&mut self.bytes));
            self.text_decoder.feed(&self.bytes, &mut self.text);
            self.text_decoder.finish(&mut self.text);
        } else {
            let piece = self.rest.split_to(self.rest.len().min(PIECE));
            decoder.feed(&piece, &mut self.bytes);
            self.text_decoder.feed(&self.bytes, &mut self.text);
        }
        true
    }
}

/// Decodes a text, with every line break as `\n`, and passes it to `push`; returns false if it had to be cut to the
/// `budget`, which is reduced by its length.
pub(super) fn decode_lines(
    body: &[u8],
    encoding: Encoding,
    charset: Charset,
    budget: &mut usize,
    mut push: impl FnMut(&str),
) -> bool {
    let mut after_cr = false;
    let mut used = 0;
    let mut fits = true;
    let whole = each_piece(body, encoding, charset, |piece| {
        let room = *budget - used;
        fits = normalize_line_breaks(piece, &mut after_cr, room, |text| {
            used += text.len();
            push(text);
        });
        fits
    });
    *budget -= used;
    fits && whole
}

/// Decodes a text and passes it to `each` piece by piece; returns false if a piece was refused or the charset decoder
/// truncated the text.
fn each_piece(body: &[u8], encoding: Encoding, charset: Charset, mut each: impl FnMut(&str) -> bool) -> bool {
    if encoding == Encoding::Identity
        && charset.is_utf_8()
        && let Ok(text) = std::str::from_utf8(body)
    {
        return each(text.strip_prefix('\u{feff}').unwrap_or(text));
    }
    let mut decoder = TextDecoder::new(charset);
    let mut piece = String::new();
    let mut wanted = true;
    decode::in_pieces(encoding, body, |bytes| {
        piece.clear();
        decoder.feed(bytes, &mut piece);
        wanted = each(&piece);
        wanted
    });
    if wanted {
        piece.clear();
        decoder.finish(&mut piece);
        wanted = each(&piece);
    }
    wanted && !decoder.truncated
}

/// Passes on at most `room` bytes of `piece` with every line break as `\n`; returns false if it did not fit.
fn normalize_line_breaks(piece: &str, after_cr: &mut bool, room: usize, mut push: impl FnMut(&str)) -> bool {
    let end = piece.floor_char_boundary(room);
    let fits = end == piece.len();
    let mut rest = piece.get(..end).unwrap_or_default();
    if *after_cr && !rest.is_empty() {
        rest = rest.strip_prefix('\n').unwrap_or(rest);
        *after_cr = false;
    }
    while let Some((line, after)) = rest.split_once('\r') {
        push(line);
        push("\n");
        *after_cr = after.is_empty();
        rest = after.strip_prefix('\n').unwrap_or(after);
    }
    push(rest);
    fits
}
