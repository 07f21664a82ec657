//! The body of a request: held whole if small, otherwise generated in pieces, as often as needed, from the positions
//! of texts and files in the mail data. The bytes are the same either way.
//!
//! Pure. A large payload is generated twice: to sign it, because the signatures precede it, and to send it.

use std::sync::Arc;

use hyper::body::Bytes;
use serde::Serialize as _;
use serde_json::ser::Formatter;

use crate::content::Texts;
use crate::mail::mime::{Encoding, LocatedText, TextReader};
use crate::webhook::events::email_received::{Base64File, EmailReceived, Text};

/// Approximate size of a piece, in octets.
const PIECE: usize = 64 * 1024;
/// A payload up to this size is held whole.
pub(crate) const WHOLE_MAX: usize = 1024 * 1024;

/// The bytes of a request body.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// All bytes in memory.
    Whole(Bytes),
    /// Segments that the bytes are generated from.
    Written(Arc<[Segment]>),
}

/// A part of a payload.
#[derive(Clone, Debug)]
pub(crate) enum Segment {
    /// Literal JSON.
    Json(Bytes),
    /// The contents of a JSON string: a text.
    Text(LocatedText),
    /// The contents of a JSON string: a file, decoded and re-encoded as plain base64.
    File(Encoding, Bytes),
}

impl Payload {
    /// Builds the payload of `event`; `apart` holds the segments left out of it, in order.
    pub(crate) fn of(event: &EmailReceived<'_>, apart: Vec<Segment>) -> Self {
        if apart.is_empty() {
            return Self::Whole(event.to_json().into());
        }
        let mut apart = apart.into_iter();
        let mut segments = Vec::new();
        for json in event.split_at_placeholders() {
            segments.push(Segment::Json(json.into()));
            segments.extend(apart.next());
        }
        Self::Written(segments.into()).small_as_whole()
    }

    /// Converts a small payload to its whole form, so that the mail data, which may be large, can be freed.
    fn small_as_whole(self) -> Self {
        let mut whole = Vec::new();
        for piece in self.pieces() {
            if whole.len() + piece.len() > WHOLE_MAX {
                return self;
            }
            whole.extend_from_slice(&piece);
        }
        Self::Whole(whole.into())
    }

    /// Iterates over the payload from its beginning.
    pub(crate) fn pieces(&self) -> Pieces {
        let segments = match self {
            Self::Whole(bytes) => [Segment::Json(bytes.clone())].into(),
            Self::Written(segments) => Arc::clone(segments),
        };
        Pieces { segments, next: 0, open: None }
    }

    /// Returns the octets of memory it refers to; of mail data, only the ranges it reads.
    pub(crate) fn memory_size(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Written(segments) => segments.iter().map(Segment::held).sum(),
        }
    }

    /// Returns the whole payload in memory, for display.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Written(_) => {
                let length = self.memory_size();
                let mut whole = Vec::with_capacity(length + length / 8);
                self.pieces().for_each(|piece| whole.extend_from_slice(&piece));
                whole.into()
            }
        }
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl From<String> for Payload {
    fn from(json: String) -> Self {
        Self::Whole(json.into())
    }
}

/// Returns the text and HTML bodies of an event with these `texts`.
pub(crate) fn bodies(texts: &Texts) -> (Option<Text<'_>>, Option<Text<'_>>) {
    match texts {
        Texts::Decoded(readable) => {
            (readable.text.as_deref().map(Text::Whole), readable.html.as_deref().map(Text::Whole))
        }
        Texts::Placed(text, html) => (text.as_ref().map(|_| Text::Streamed), html.as_ref().map(|_| Text::Streamed)),
    }
}

/// Returns the segments that such an event leaves out of its bodies.
pub(crate) fn streamed_bodies(texts: &Texts) -> Vec<Segment> {
    match texts {
        Texts::Decoded(_) => Vec::new(),
        Texts::Placed(text, html) => text.iter().chain(html).cloned().map(Segment::Text).collect(),
    }
}

impl Segment {
    fn held(&self) -> usize {
        match self {
            Self::Json(bytes) | Self::File(_, bytes) => bytes.len(),
            Self::Text(text) => text.encoded_len(),
        }
    }
}

/// An iteration over a payload.
pub(crate) struct Pieces {
    segments: Arc<[Segment]>,
    next: usize,
    open: Option<Open>,
}

/// The segment being generated.
enum Open {
    Text(TextReader, String),
    File(Base64File, Bytes, String),
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.len() < PIECE && self.write(&mut out) {}
        (!out.is_empty()).then(|| out.into())
    }
}

impl Pieces {
    /// Appends the next piece to `out`; `false` when nothing is left.
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        if out.capacity() == 0 {
            out.reserve(2 * PIECE);
        }
        let more = match &mut self.open {
            None => return self.begin(out),
            Some(Open::Text(reader, text)) => {
                text.clear();
                let more = reader.read(text);
                escape(text, out);
                more
            }
            Some(Open::File(file, raw, plain)) => {
                plain.clear();
                let more = file.read(raw, plain);
                out.extend_from_slice(plain.as_bytes());
                more
            }
        };
        if !more {
            self.open = None;
        }
        true
    }

    fn begin(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(segment) = self.segments.get(self.next) else { return false };
        self.next += 1;
        match segment {
            Segment::Json(bytes) => out.extend_from_slice(bytes),
            Segment::Text(text) => self.open = Some(Open::Text(TextReader::new(text), String::new())),
            Segment::File(encoding, raw) => {
                self.open = Some(Open::File(Base64File::new(*encoding), raw.clone(), String::new()));
            }
        }
        true
    }
}

/// Appends `text` as the contents of a JSON string, escaped by the code that writes whole strings.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    // Writing a string into memory cannot fail.
    let written = text.serialize(&mut serde_json::Serializer::with_formatter(out, Inside));
    debug_assert!(written.is_ok());
}

/// Formats compact JSON, without the quotation marks of strings.
struct Inside;

impl Formatter for Inside {
    fn begin_string<W: std::io::Write + ?Sized>(&mut self, _: &mut W) -> std::io::Result<()> {
        Ok(())
    }

    fn end_string<W: std::io::Write + ?Sized>(&mut self, _: &mut W) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
