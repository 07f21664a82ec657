//! What a request posts: whole where it is small, else written in pieces, as often as it is asked for, from where the
//! texts and files stand in the mail data. Either way it is the same bytes.
//!
//! Pure. A large payload is walked twice: to sign it, since the signatures go before it, and to send it.

use std::sync::Arc;

use hyper::body::Bytes;
use serde::Serialize as _;
use serde_json::ser::Formatter;

use crate::content::Texts;
use crate::mail::mime::{Encoding, LocatedText, TextReader};
use crate::webhook::events::email_received::{Base64File, EmailReceived, Text};

/// About how large a piece is.
const PIECE: usize = 64 * 1024;
/// A payload up to this size is held whole.
pub(crate) const WHOLE_MAX: usize = 1024 * 1024;

/// The bytes that are posted.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// All of them.
    Whole(Bytes),
    /// What they are made of.
    Written(Arc<[Segment]>),
}

/// A part of a payload.
#[derive(Clone, Debug)]
pub(crate) enum Segment {
    /// JSON as it stands.
    Json(Bytes),
    /// The inside of a JSON string: a text.
    Text(LocatedText),
    /// The inside of a JSON string: a file, decoded and then written in plain base64.
    File(Encoding, Bytes),
}

impl Payload {
    /// The payload of `event`; `apart` is what it leaves out, in order.
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

    /// Holds it whole if that is little: then the mail data, which may be much, can go.
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

    /// Walks over it from its beginning.
    pub(crate) fn pieces(&self) -> Pieces {
        let segments = match self {
            Self::Whole(bytes) => [Segment::Json(bytes.clone())].into(),
            Self::Written(segments) => Arc::clone(segments),
        };
        Pieces { segments, next: 0, open: None }
    }

    /// Bytes in memory that it is made of; of mail data those that it reads.
    pub(crate) fn memory_size(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Written(segments) => segments.iter().map(Segment::held).sum(),
        }
    }

    /// All of it in memory, for those who show it.
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

/// The text and the html of an event that tells `texts`.
pub(crate) fn bodies(texts: &Texts) -> (Option<Text<'_>>, Option<Text<'_>>) {
    match texts {
        Texts::Decoded(readable) => {
            (readable.text.as_deref().map(Text::Whole), readable.html.as_deref().map(Text::Whole))
        }
        Texts::Placed(text, html) => (text.as_ref().map(|_| Text::Streamed), html.as_ref().map(|_| Text::Streamed)),
    }
}

/// What such an event leaves out of its bodies.
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

/// A walk over a payload.
pub(crate) struct Pieces {
    segments: Arc<[Segment]>,
    next: usize,
    open: Option<Open>,
}

/// A segment that is being written.
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
    /// Adds the next step to `out`; `false` when nothing is left.
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

/// The inside of a JSON string, escaped by the code that writes whole strings.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    // Writing a string into memory has no error to report.
    let written = text.serialize(&mut serde_json::Serializer::with_formatter(out, Inside));
    debug_assert!(written.is_ok());
}

/// Compact JSON without the quotation marks of strings.
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
