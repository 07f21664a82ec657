//! A connection of outgoing HTTP, plain or TLS, for hyper's client.
//!
//! A connection that accepts no data for longer than any exchange lasts fails: hyper would wait for it however long
//! ago the request was abandoned.

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

/// A connection with its stall timer and traffic record.
pub(crate) struct Stream {
    transport: Transport,
    stall: Option<Pin<Box<Sleep>>>,
    traffic: Arc<Traffic>,
}

/// Records if the peer answered what was written.
#[derive(Default)]
pub(crate) struct Traffic {
    /// True if the peer ever sent anything.
    has_sent: AtomicBool,
    /// True if the peer sent nothing since the last write.
    unanswered: AtomicBool,
}

impl Traffic {
    /// Returns true if the peer, which had answered before, sent nothing since the last write.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.has_sent.load(Ordering::Relaxed) && self.unanswered.load(Ordering::Relaxed)
    }

    fn note_written(&self) {
        self.unanswered.store(true, Ordering::Relaxed);
    }

    fn note_read(&self) {
        self.has_sent.store(true, Ordering::Relaxed);
        self.unanswered.store(false, Ordering::Relaxed);
    }
}

/// Plain or TLS; boxed because the TLS state is large.
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self { transport: Transport::Plain(tcp), stall: None, traffic: Arc::default() }
    }

    pub(crate) fn tls(tls: TlsStream<TcpStream>) -> Self {
        Self { transport: Transport::Tls(Box::new(tls)), stall: None, traffic: Arc::default() }
    }

    /// Runs a write operation, with a timeout while the peer does not read.
    fn with_stall_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Transport, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let done = act(&mut self.transport, cx);
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
        match &self.transport {
            Transport::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => connected.negotiated_h2(),
            Transport::Tls(_) | Transport::Plain(_) => connected,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let done = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
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
        self.get_mut().with_stall_timeout(cx, |wire, cx| match wire {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.traffic.note_written();
        self.get_mut().with_stall_timeout(cx, |wire, cx| match wire {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        })
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().with_stall_timeout(cx, |wire, cx| match wire {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().with_stall_timeout(cx, |wire, cx| match wire {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        })
    }
}
