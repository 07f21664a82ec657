//! A connection of outgoing HTTP, plain or inside TLS, as hyper's client wants it.
//!
//! One that takes nothing for longer than any exchange lasts is at its end: hyper would wait for it, however long ago the
//! request was given up.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::client::TlsStream;

const LONGEST_STALL: Duration = Duration::from_secs(20);

/// A connection, since when it takes nothing, and what passed over it.
pub(crate) struct Stream {
    wire: Wire,
    stall: Option<Pin<Box<Sleep>>>,
    traffic: Arc<Traffic>,
}

/// What passed over a connection, as far as it tells whether the peer answered.
#[derive(Default)]
pub(crate) struct Traffic {
    /// Whether the peer ever sent anything.
    heard: AtomicBool,
    /// Whether it has sent nothing since the last that was written.
    unanswered: AtomicBool,
}

impl Traffic {
    /// Whether the peer, which had answered before, sent nothing since the last that was written.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.heard.load(Ordering::Relaxed) && self.unanswered.load(Ordering::Relaxed)
    }

    fn note_written(&self) {
        self.unanswered.store(true, Ordering::Relaxed);
    }

    fn note_read(&self) {
        self.heard.store(true, Ordering::Relaxed);
        self.unanswered.store(false, Ordering::Relaxed);
    }
}

/// Plain or TLS; the latter is boxed because its state is large.
enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self { wire: Wire::Plain(tcp), stall: None, traffic: Arc::default() }
    }

    pub(crate) fn tls(tls: TlsStream<TcpStream>) -> Self {
        Self { wire: Wire::Tls(Box::new(tls)), stall: None, traffic: Arc::default() }
    }

    /// Does something that waits for the peer to read.
    fn patiently<T>(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Wire, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let done = act(&mut self.wire, cx);
        if done.is_ready() {
            self.stall = None;
            return done;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(LONGEST_STALL)));
        stall.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(Arc::clone(&self.traffic));
        match &self.wire {
            Wire::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => connected.negotiated_h2(),
            Wire::Tls(_) | Wire::Plain(_) => connected,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let done = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            this.traffic.note_read();
        }
        done
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.traffic.note_written();
        self.get_mut().patiently(cx, |wire, cx| match wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.traffic.note_written();
        self.get_mut().patiently(cx, |wire, cx| match wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        })
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().patiently(cx, |wire, cx| match wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().patiently(cx, |wire, cx| match wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        })
    }
}
