//! The body of a request: whole, or pieces of a known total length that are made while they are sent.
//!
//! A piece is made on a blocking thread, when the connection has room for it and not before; so a slow peer costs one
//! piece and no thread. A stalled connection keeps the body of an abandoned request, but its pieces are released.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::body::{Bytes, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

/// A request body.
pub struct Body(State);

enum State {
    Whole(Bytes),
    Pieces { left: u64, source: Arc<Source>, next: Option<JoinHandle<Option<Bytes>>>, restart: Option<Restart> },
}

type BoxedPieces = Box<dyn Iterator<Item = Bytes> + Send>;

/// Restarts the pieces of a body of this length.
#[derive(Clone)]
struct Restart(u64, Arc<dyn Fn() -> BoxedPieces + Send + Sync>);

/// The source of pieces, until there are no more or the request is abandoned.
struct Source(Mutex<SourceState>);

enum SourceState {
    Open(BoxedPieces),
    /// A piece is being made.
    Busy,
    Done,
}

/// Releases the pieces of request bodies on drop.
#[derive(Default)]
pub(crate) struct ReleaseOnDrop(Vec<Arc<Source>>);

impl Body {
    /// Creates a body of `length` bytes from `pieces`, none of them empty. Making a piece may block.
    pub fn pieces(length: u64, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        let source = Arc::new(Source(Mutex::new(SourceState::Open(Box::new(pieces)))));
        Self(State::Pieces { left: length, source, next: None, restart: None })
    }

    /// Creates a body as [`Body::pieces`] does, from pieces that can be made more than once.
    pub fn repeatable<I>(length: u64, begin: impl Fn() -> I + Send + Sync + 'static) -> Self
    where
        I: Iterator<Item = Bytes> + Send + 'static,
    {
        Restart(length, Arc::new(move || Box::new(begin()))).body()
    }

    /// Returns a function that makes the same body once more, if possible.
    pub(crate) fn restart(&self) -> Option<impl FnOnce() -> Self + use<>> {
        let (bytes, restart) = match &self.0 {
            State::Whole(bytes) => (bytes.clone(), None),
            State::Pieces { restart, .. } => (Bytes::new(), Some(restart.clone()?)),
        };
        Some(move || restart.map_or_else(|| bytes.into(), |restart| restart.body()))
    }
}

impl Restart {
    fn body(self) -> Body {
        let source = Arc::new(Source(Mutex::new(SourceState::Open((self.1)()))));
        Body(State::Pieces { left: self.0, source, next: None, restart: Some(self) })
    }
}

impl ReleaseOnDrop {
    /// Adds the source of a body; the caller keeps this value while it waits for the response.
    pub(crate) fn add(&mut self, body: &Body) {
        if let State::Pieces { source, .. } = &body.0 {
            self.0.push(Arc::clone(source));
        }
    }
}

impl Drop for ReleaseOnDrop {
    fn drop(&mut self) {
        self.0.iter().for_each(|source| drop(source.exchange(SourceState::Done)));
    }
}

impl Source {
    fn exchange(&self, state: SourceState) -> SourceState {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), state)
    }

    /// Makes the next piece. Blocks.
    fn next(&self) -> Option<Bytes> {
        let SourceState::Open(mut pieces) = self.exchange(SourceState::Busy) else {
            self.exchange(SourceState::Done);
            return None;
        };
        let piece = pieces.next();
        // Put it back unless the request was abandoned meanwhile.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, SourceState::Busy) {
            *state = SourceState::Open(pieces);
        }
        piece
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(State::Whole(bytes))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match &mut self.0 {
            State::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()).map(Ok),
            State::Pieces { left: 0, .. } => None,
            State::Pieces { left, source, next, .. } => {
                let running = next.get_or_insert_with(|| {
                    let source = Arc::clone(source);
                    spawn_blocking(move || source.next())
                });
                let made = ready!(Pin::new(running).poll(cx));
                *next = None;
                let piece = made.ok().flatten().filter(|piece| piece.len() as u64 <= *left);
                *left -= piece.as_ref().map_or(*left, |piece| piece.len() as u64);
                Some(piece.ok_or_else(|| io::Error::other("the pieces do not have the announced length")))
            }
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.0 {
            State::Whole(bytes) => bytes.len() as u64,
            State::Pieces { left, .. } => *left,
        })
    }
}
