//! What a session reads and writes: lines in, replies out, TLS between, and the end of the connection.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::{End, MAX_IDLE_SESSION, READ_FIRST, READ_LARGE, Session};
use crate::mail::envelope::{Peer, TlsInfo};
use crate::mail::reply::Reply;
use crate::smtp_server::phase::Phase;

/// The longest command line: 512 octets (RFC 5321 §4.5.3.1.4) and the parameters of extensions.
const MAX_COMMAND: usize = 2048;
const TLS_DEADLINE: Duration = Duration::from_secs(30);
/// A stalled reader of replies holds its session no longer than this.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// What a client that was told to go may still send …
const LINGER_BYTES: usize = 8 * 1024 * 1024;
/// … and for how long.
const LINGER: Duration = Duration::from_secs(2);
const READ_SMALL: usize = 4 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// The next line without its CRLF, within the deadline of a command.
    pub(super) async fn read_line(&mut self) -> Result<BytesMut, End> {
        if self.shared.stop.is_cancelled() {
            return self.close_with(&Reply::SHUTTING_DOWN);
        }
        let deadline = (Instant::now() + self.shared.command_timeout).min(self.useful_at + MAX_IDLE_SESSION);
        let mut searched = 0;
        loop {
            // A TLS ClientHello: record type handshake, major version 3.
            if self.input.starts_with(&[0x16, 0x03]) {
                return self.close_with(&Reply::NOT_SMTP);
            }
            let fresh = self.input.get(searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', fresh) {
                let mut line = self.input.split_to(searched + end + 1);
                line.truncate(line.len() - 1);
                if line.last() != Some(&b'\r') {
                    // What a client sends that ends lines its own way cannot be told apart from data.
                    self.close_with(&Reply::BARE_NEWLINE_IN_COMMAND)?;
                }
                line.truncate(line.len().saturating_sub(1));
                if line.len() > MAX_COMMAND {
                    self.close_with(&Reply::LINE_TOO_LONG)?;
                }
                return Ok(line);
            }
            searched = self.input.len();
            if searched > MAX_COMMAND {
                self.close_with(&Reply::LINE_TOO_LONG)?;
            }
            self.flush().await?;
            let stop = self.shared.stop.clone();
            self.input.reserve(if self.had_data { READ_SMALL } else { READ_FIRST });
            tokio::select! {
                biased;
                () = stop.cancelled() => self.close_with(&Reply::SHUTTING_DOWN)?,
                read = timeout_at(deadline, self.stream.read_buf(&mut self.input)) => match read {
                    Ok(Ok(1..)) => {}
                    Ok(Ok(0) | Err(_)) => return Err(End::Disconnected),
                    Err(_) => self.close_with(&Reply::TIMEOUT)?,
                },
            }
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let written = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(WRITE_DEADLINE, written).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(End::Disconnected),
        }
        self.output.clear();
        if self.output.capacity() > READ_LARGE {
            self.output = Vec::new();
        }
        Ok(())
    }

    pub(super) async fn handshake(&mut self, acceptor: &TlsAcceptor) -> Result<(), End> {
        let handshake = self.stream.start_tls(acceptor);
        let (version, cipher) = match tokio::time::timeout(TLS_DEADLINE, handshake).await {
            Ok(Ok(agreed)) => agreed,
            Ok(Err(_)) | Err(_) => return Err(End::Disconnected),
        };
        self.peer = Peer {
            address: self.peer.address,
            helo: String::new(),
            esmtp: false,
            tls: Some(TlsInfo { version, cipher }),
        };
        self.phase = Phase::Connected;
        self.caller = None;
        Ok(())
    }

    /// Reads and forgets what the client still sends: to close on unread input resets the connection, and on many
    /// systems the reset destroys the last reply before the client has read it.
    pub(super) async fn linger(&mut self) {
        let stop = self.shared.stop.clone();
        let forget = async {
            let mut left = LINGER_BYTES;
            while left > 0 {
                self.input.clear();
                self.input.reserve(READ_LARGE);
                match self.stream.read_buf(&mut self.input).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => left = left.saturating_sub(read),
                }
            }
        };
        tokio::select! {
            () = forget => {}
            () = tokio::time::sleep(LINGER) => {}
            () = stop.cancelled() => {}
        }
    }
}
