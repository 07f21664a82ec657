//! The body of a request: whole, or pieces of a known length in all that are made while they are sent.
//!
//! A piece is made on a thread that may block, when the connection has room for it and not before; so a peer that
//! dawdles costs one piece and no thread, and a request that is given up makes no more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Bytes, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

/// What is posted.
pub struct Body(State);

type Source = Box<dyn Iterator<Item = Bytes> + Send>;

enum State {
    Whole(Bytes),
    Pieces { left: u64, making: Making },
}

enum Making {
    Idle(Option<Source>),
    Running(JoinHandle<(Source, Option<Bytes>)>),
}

impl Body {
    /// A body of `length` bytes that come in `pieces`, none of them empty. Making a piece may block.
    pub fn pieces(length: u64, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        Self(State::Pieces { left: length, making: Making::Idle(Some(Box::new(pieces))) })
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
            State::Pieces { left, making } => {
                let made = ready!(making.poll_next(cx));
                let fits = |piece: &Bytes| left.checked_sub(piece.len() as u64);
                let (piece, rest) = made.and_then(|piece| fits(&piece).map(|rest| (piece, rest))).unzip();
                *left = rest.unwrap_or(0);
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

impl Making {
    /// The next piece; `None` at the end, or when making it failed.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Self::Idle(source) = self {
            let Some(mut source) = source.take() else { return Poll::Ready(None) };
            *self = Self::Running(spawn_blocking(move || {
                let piece = source.next();
                (source, piece)
            }));
        }
        let Self::Running(making) = self else { return Poll::Ready(None) };
        let (source, piece) = ready!(Pin::new(making).poll(cx)).ok().unzip();
        *self = Self::Idle(source);
        Poll::Ready(piece.flatten())
    }
}
