//! The texts of a message, decoded: whole into a string, or in pieces from where they stand in the mail data.
//!
//! Both ways go through [`decode_lines`], once to decode or once to measure; a [`TextReader`] then gives as much of the
//! same text as was measured, so that a text is the same bytes whichever way it is read.

use std::vec;

use bytes::Bytes;

use super::charset::{Charset, TextDecoder};
use super::decode::{self, Decoder, Encoding, PIECE};

/// How much decoded text a reader hands on at a time.
const CHUNK: usize = 8 * 1024;

/// A text that stands in the mail data and is decoded whenever it is read.
#[derive(Clone, Debug, Default)]
pub struct LocatedText {
    parts: Vec<TextPart>,
    /// Bytes of all of it, decoded.
    length: usize,
}

#[derive(Clone, Debug)]
struct TextPart {
    body: Bytes,
    encoding: Encoding,
    charset: Charset,
    /// Whether a line break parts it from what stands before it.
    on_new_line: bool,
    /// Bytes of it that are wanted, decoded.
    length: usize,
}

impl LocatedText {
    /// Adds a part on a line of its own; `false` if it has to be cut to the `budget`, which is lowered by its length.
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

    /// Bytes of the decoded text.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Bytes of the mail data that it is read from.
    pub(crate) fn encoded_len(&self) -> usize {
        self.parts.iter().map(|part| part.body.len()).sum()
    }

    /// Copies what it is read from, so that the rest of the mail data can go.
    pub(crate) fn detach(&mut self) {
        for part in &mut self.parts {
            part.body = Bytes::copy_from_slice(&part.body);
        }
    }
}

/// Reads a [`PlacedText`] from its beginning, once.
pub struct TextReader {
    parts: vec::IntoIter<TextPart>,
    current: Option<PartReader>,
}

impl TextReader {
    /// At the beginning of `text`.
    pub fn new(text: &LocatedText) -> Self {
        Self { parts: text.parts.clone().into_iter(), current: None }
    }

    /// Decodes the next few KiB to the end of `out`; `false` when nothing is left.
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

/// A part that is being read.
struct PartReader {
    rest: Bytes,
    /// None once the end was decoded.
    decoder: Option<Decoder>,
    text_decoder: TextDecoder,
    bytes: Vec<u8>,
    text: String,
    /// How much of `text` was handed on.
    consumed: usize,
    after_cr: bool,
    /// Bytes that are still wanted.
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

    /// As [`TextReader::read`].
    fn read(&mut self, out: &mut String) -> bool {
        if self.remaining == 0 || (self.consumed >= self.text.len() && !self.decode()) {
            return false;
        }
        let rest = self.text.get(self.consumed..).unwrap_or_default();
        let step = rest.get(..rest.floor_char_boundary(CHUNK)).unwrap_or_default();
        self.consumed += step.len();
        let left = &mut self.remaining;
        normalize_line_breaks(step, &mut self.after_cr, usize::MAX, |text| {
            // What was measured ends with a whole character.
            let wanted = text.get(..text.len().min(*left)).unwrap_or_default();
            out.push_str(wanted);
            *left -= wanted.len();
        });
        true
    }

    /// Decodes the next piece of the mail data to `text`; `false` when there is none.
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

/// Decodes a text with every line break as `\n` and hands it to `push`; `false` if it had to be cut to the `budget`, which
/// is lowered by its length.
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

/// Hands the decoded text on piece by piece; `false` if a piece was refused or the charset's decoder cut the text.
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

/// Hands on `piece` with every line break as `\n`, at most `room` bytes of it; `false` if it did not fit.
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
