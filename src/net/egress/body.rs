//! The body of a request: whole, or pieces of a known length in all that are made while they are sent.
//!
//! A piece is made on a thread that may block, when the connection has room for it and not before; so a peer that
//! dawdles costs one piece and no thread. A connection that is stuck keeps the body of a request that was given up; its
//! pieces go all the same.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::body::{Bytes, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

/// What is posted.
pub struct Body(State);

enum State {
    Whole(Bytes),
    Pieces { left: u64, source: Arc<Source>, making: Option<JoinHandle<Option<Bytes>>>, again: Option<Again> },
}

type BoxedPieces = Box<dyn Iterator<Item = Bytes> + Send>;

/// What begins the pieces of a body anew, and how long they are.
#[derive(Clone)]
struct Again(u64, Arc<dyn Fn() -> BoxedPieces + Send + Sync>);

/// Where pieces come from, until there are no more or nobody wants them.
struct Source(Mutex<Supply>);

enum Supply {
    Open(BoxedPieces),
    /// A piece is being made.
    Taken,
    Over,
}

/// Lets the pieces of bodies go when it is dropped.
#[derive(Default)]
pub(crate) struct Interest(Vec<Arc<Source>>);

impl Body {
    /// A body of `length` bytes that come in `pieces`, none of them empty. Making a piece may block.
    pub fn pieces(length: u64, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        let source = Arc::new(Source(Mutex::new(Supply::Open(Box::new(pieces)))));
        Self(State::Pieces { left: length, source, making: None, again: None })
    }

    /// As [`Body::pieces`], of pieces that can be begun more than once.
    pub fn repeatable<I>(length: u64, begin: impl Fn() -> I + Send + Sync + 'static) -> Self
    where
        I: Iterator<Item = Bytes> + Send + 'static,
    {
        Again(length, Arc::new(move || Box::new(begin()))).body()
    }

    /// What makes the same body once more, if it can be made.
    pub(crate) fn again(&self) -> Option<impl FnOnce() -> Self + use<>> {
        let (bytes, again) = match &self.0 {
            State::Whole(bytes) => (bytes.clone(), None),
            State::Pieces { again, .. } => (Bytes::new(), Some(again.clone()?)),
        };
        Some(move || again.map_or_else(|| bytes.into(), |again| again.body()))
    }
}

impl Again {
    fn body(self) -> Body {
        let source = Arc::new(Source(Mutex::new(Supply::Open((self.1)()))));
        Body(State::Pieces { left: self.0, source, making: None, again: Some(self) })
    }
}

impl Interest {
    /// Whoever waits for the answer holds the interest in its body.
    pub(crate) fn add(&mut self, body: &Body) {
        if let State::Pieces { source, .. } = &body.0 {
            self.0.push(Arc::clone(source));
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.iter().for_each(|source| drop(source.exchange(Supply::Over)));
    }
}

impl Source {
    fn exchange(&self, supply: Supply) -> Supply {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), supply)
    }

    /// Makes the next piece. Blocks.
    fn next(&self) -> Option<Bytes> {
        let Supply::Open(mut pieces) = self.exchange(Supply::Taken) else {
            self.exchange(Supply::Over);
            return None;
        };
        let piece = pieces.next();
        // Unless they were given up meanwhile.
        let mut supply = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*supply, Supply::Taken) {
            *supply = Supply::Open(pieces);
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
            State::Pieces { left, source, making, .. } => {
                let running = making.get_or_insert_with(|| {
                    let source = Arc::clone(source);
                    spawn_blocking(move || source.next())
                });
                let made = ready!(Pin::new(running).poll(cx));
                *making = None;
                let piece = made.ok().flatten().filter(|piece| piece.len() as u64 <= *left);
                *left -= piece.as_ref().map_or(*left, |piece| piece.len() as u64);
                Some(piece.ok_or_else(|| io::Error::other("the pieces are not as long as was said")))
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
