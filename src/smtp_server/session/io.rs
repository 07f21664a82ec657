//! Session I/O: reads lines, writes replies, starts TLS, closes the connection.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::{End, MAX_IDLE_SESSION, READ_FIRST, READ_LARGE, Session};
use crate::mail::envelope::{Peer, TlsInfo};
use crate::mail::reply::Reply;
use crate::smtp_server::phase::Phase;

/// The longest command line: 512 octets (RFC 5321 §4.5.3.1.4) plus the parameters of extensions.
const MAX_COMMAND: usize = 2048;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which a client that does not read its replies is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that a client gets for each command at a stop while it has not handed over its first message: nobody is turned
/// away in the middle of a dialog.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// After we close, a client may still send this many octets …
const DRAIN_BYTES: usize = 8 * 1024 * 1024;
/// … for this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const READ_SMALL: usize = 4 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Reads the next line without its CRLF, within the deadline of a command.
    pub(super) async fn read_line(&mut self) -> Result<BytesMut, End> {
        let stop = self.shared.stop.clone();
        let in_dialog = !self.has_sent_data || self.phase.is_in_transaction();
        if stop.is_cancelled() && !in_dialog {
            return self.close_with(&Reply::SHUTTING_DOWN);
        }
        let deadline = (Instant::now() + self.shared.command_timeout).min(self.last_accepted_at + MAX_IDLE_SESSION);
        let mut searched = 0;
        loop {
            // A TLS ClientHello: record type handshake, major version 3.
            if self.input.starts_with(&[0x16, 0x03]) {
                return self.close_with(&Reply::NOT_SMTP);
            }
            let unsearched = self.input.get(searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unsearched) {
                let mut line = self.input.split_to(searched + end + 1);
                line.truncate(line.len() - 1);
                if line.last() != Some(&b'\r') {
                    // From a client with its own line endings, commands are indistinguishable from data.
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
            let stopping = async {
                stop.cancelled().await;
                if in_dialog {
                    tokio::time::sleep(STOP_PATIENCE).await;
                }
            };
            self.input.reserve(if self.has_sent_data { READ_SMALL } else { READ_FIRST });
            tokio::select! {
                biased;
                () = stopping => self.close_with(&Reply::SHUTTING_DOWN)?,
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
        match tokio::time::timeout(WRITE_TIMEOUT, written).await {
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
        let (version, cipher) = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
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

    /// Reads and discards what the client still sends: closing with unread input resets the connection, and on many
    /// systems the reset destroys the last reply before the client has read it.
    pub(super) async fn drain_on_close(&mut self) {
        let stop = self.shared.stop.clone();
        let discard = async {
            let mut left = DRAIN_BYTES;
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
            () = discard => {}
            () = tokio::time::sleep(DRAIN_TIMEOUT) => {}
            () = stop.cancelled() => {}
        }
    }
}
