//! JSON responses with texts as large as a mail: each text is escaped piece by piece while it is sent, and its source
//! is held within the memory budget until then. Clients that take too long are cut off.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::listener::Hangup;
use crate::id::random_base62;
use crate::memory_budget::Reservation;
use crate::webhook::attempt::payload::escape;

/// Texts of at least this size are sent in pieces.
pub(crate) const LARGE: usize = 64 * 1024;
/// Approximate size of a piece.
const PIECE: usize = 64 * 1024;
/// Time for a client to read a response …
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// … plus a second per this many octets.
const SLOWEST: usize = 64 * 1024;

/// Pieces of a text, each UTF-8 by itself.
pub(crate) type Text = Box<dyn Iterator<Item = Bytes> + Send>;

/// A JSON document whose large texts are inserted while it is written.
#[derive(Default)]
pub(crate) struct StreamedJson {
    parts: VecDeque<Part>,
    /// Octets of the texts, before they are escaped.
    octets: usize,
    /// Memory of the texts and the timer that cuts the client off, kept until the last piece is read.
    held: Option<(Option<Reservation>, Option<DropGuard>)>,
}

enum Part {
    Json(Bytes),
    /// The content of a string.
    Text(Text),
}

/// Returns a placeholder for a text, at which the document is split.
pub(crate) fn marker() -> String {
    random_base62(32)
}

/// Splits a text into pieces.
pub(crate) fn pieces_of(text: String) -> Text {
    let mut at = 0;
    Box::new(std::iter::from_fn(move || {
        let end = text.floor_char_boundary(at + PIECE);
        let piece = text.get(at..end).filter(|piece| !piece.is_empty())?;
        at = end;
        Some(Bytes::copy_from_slice(piece.as_bytes()))
    }))
}

impl StreamedJson {
    /// Adds literal JSON.
    pub(crate) fn push(&mut self, json: &'static [u8]) {
        self.parts.push_back(Part::Json(Bytes::from_static(json)));
    }

    /// Adds a document in which markers stand for texts of these sizes, in the order of their occurrence.
    pub(crate) fn push_document(&mut self, document: &impl Serialize, texts: Vec<(String, usize, Text)>) {
        // Views always serialize.
        let mut json = Bytes::from(serde_json::to_vec(document).unwrap_or_default());
        for (marker, octets, text) in texts {
            let Some(at) = memchr::memmem::find(&json, marker.as_bytes()) else { continue };
            self.parts.push_back(Part::Json(json.split_to(at)));
            self.parts.push_back(Part::Text(text));
            self.octets += octets;
            drop(json.split_to(marker.len()));
        }
        self.parts.push_back(Part::Json(json));
    }

    /// Adds bytes that are in memory, and counts them.
    pub(crate) fn push_bytes(&mut self, bytes: Bytes) {
        self.octets += bytes.len();
        self.parts.push_back(Part::Json(bytes));
    }

    /// Builds the response, which holds `share` until it is read.
    pub(crate) fn answer(self, share: Option<Reservation>, hangup: &Hangup) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.body(share, hangup)).into_response()
    }

    /// Builds the body of the response.
    pub(crate) fn body(mut self, share: Option<Reservation>, hangup: &Hangup) -> Body {
        let timeout = SEND_TIMEOUT + Duration::from_secs((self.octets / SLOWEST) as u64);
        let (taken, hangup) = (CancellationToken::new(), hangup.clone());
        let guard = taken.clone().drop_guard();
        tokio::spawn(async move {
            tokio::select! {
                () = taken.cancelled() => {}
                () = tokio::time::sleep(timeout) => hangup.now(),
            }
        });
        self.held = Some((share, Some(guard)));
        Body::from_stream(stream::iter(self.map(Ok::<_, Infallible>)))
    }
}

impl Iterator for StreamedJson {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.parts.front_mut() {
                Some(Part::Text(text)) => match text.next() {
                    Some(piece) => {
                        let mut out = Vec::with_capacity(piece.len() + piece.len() / 8);
                        escape(str::from_utf8(&piece).unwrap_or_default(), &mut out);
                        return Some(out.into());
                    }
                    None => drop(self.parts.pop_front()),
                },
                Some(Part::Json(_)) => {
                    if let Some(Part::Json(json)) = self.parts.pop_front()
                        && !json.is_empty()
                    {
                        return Some(json);
                    }
                }
                None => {
                    self.held = None;
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_document_with_texts_left_out_is_the_document() {
        let long = "\"\u{1}ä\u{1f600}\\".repeat(PIECE / 3);
        let (one, other) = (marker(), marker());
        let document = json!({"a": one, "b": [1, "x"], "c": {"d": other}, "e": null});
        let mut streamed = StreamedJson::default();
        streamed.push(b"[");
        let texts = vec![(one, long.len(), pieces_of(long.clone())), (other, 0, pieces_of(String::new()))];
        streamed.push_document(&document, texts);
        streamed.push(b"]");
        let pieces: Vec<Bytes> = streamed.collect();
        assert!(pieces.iter().all(|piece| piece.len() <= 7 * PIECE) && pieces.len() > 5);
        let read: Value = serde_json::from_slice(&pieces.concat()).unwrap();
        assert_eq!(read, json!([{"a": long, "b": [1, "x"], "c": {"d": ""}, "e": null}]));
    }
}
