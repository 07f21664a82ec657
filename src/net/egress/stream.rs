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
use tokio_io_timeout::TimeoutWriter;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

const LONGEST_STALL: Duration = Duration::from_secs(20);

type Transport = Either<TcpStream, TlsStream<TcpStream>>;

/// A connection with its write timeout and traffic record.
pub(crate) struct Stream {
    transport: Pin<Box<TimeoutWriter<Transport>>>,
    is_h2: bool,
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

impl Stream {
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self::new(Either::Left(tcp), false)
    }

    pub(crate) fn tls(tls: TlsStream<TcpStream>) -> Self {
        let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Self::new(Either::Right(tls), is_h2)
    }

    fn new(transport: Transport, is_h2: bool) -> Self {
        let mut transport = TimeoutWriter::new(transport);
        transport.set_timeout(Some(LONGEST_STALL));
        Self { transport: Box::pin(transport), is_h2, traffic: Arc::default() }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(Arc::clone(&self.traffic));
        if self.is_h2 { connected.negotiated_h2() } else { connected }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = self.transport.as_mut().poll_read(cx, buf);
        if buf.filled().len() > before {
            self.traffic.note_read();
        }
        done
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.traffic.note_written();
        self.transport.as_mut().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.traffic.note_written();
        self.transport.as_mut().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.as_mut().poll_shutdown(cx)
    }
}
