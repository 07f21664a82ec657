//! One SMTP session as a client (RFC 5321): connect, greet, STARTTLS, AUTH, envelope, data.
//!
//! It owns the stream, its deadlines and the transcript, and knows nothing of jobs or the store. Errors are of two
//! kinds: a reply to MAIL, RCPT or DATA is about the message and becomes an outcome; everything else
//! ([`SessionError`]) is about the host, and another may be tried. A step of the session is changed in `handshake` or
//! `transaction`, what an extension requires in `extensions`.

mod extensions;
mod handshake;
mod lines;
mod reply;
mod transaction;
mod transcript;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::{Host, Outcome};
use crate::mail::status_code::EnhancedStatusCode;
use crate::net::egress::Guard;
use extensions::Extensions;
pub(crate) use reply::Reply;
pub(crate) use transaction::TransactionResult;
pub use transcript::MAX_TRANSCRIPT;
pub(crate) use transcript::Transcript;

/// The step that a host which does not greet times out at.
pub(crate) const GREETING: &str = "the greeting";

/// Deadlines of a session (RFC 5321 §4.5.3.2).
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the connection to be established.
    pub connect: Duration,
    /// For the greeting, where another address is left to try.
    pub greeting: Duration,
    /// For the greeting of the last address, a TLS handshake, and the replies to EHLO, AUTH, MAIL and RCPT.
    pub command: Duration,
    /// For the reply to DATA, and for each block of message data to be sent.
    pub data: Duration,
    /// For the reply to the final dot.
    pub end_of_data: Duration,
    /// For all hosts of a delivery request together.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            connect: Duration::from_secs(30),
            greeting: minutes(1),
            command: minutes(5),
            data: minutes(3),
            end_of_data: minutes(10),
            total: minutes(20),
        }
    }
}

/// Time for the reply to QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct ConnectOptions<'a> {
    /// The name of this host in EHLO.
    pub(crate) helo: &'a str,
    pub(crate) timeouts: Timeouts,
    /// The end of the whole session, whatever its timeouts.
    pub(crate) deadline: Instant,
    /// Timeout for the greeting.
    pub(crate) greeting: Duration,
    /// TLS from the first octet (RFC 8314 §3.3).
    pub(crate) implicit_tls: bool,
    /// Verifies the host's certificate; `None`: no STARTTLS.
    pub(crate) tls: Option<TlsConnector>,
    /// User and password.
    pub(crate) auth: Option<(&'a str, &'a str)>,
    /// Refuses a connection that turns out to lead back to this server; `None`: the operator chose the host.
    pub(crate) guard: Option<&'a Guard>,
}

/// Error of a session before or between transactions, or of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionError {
    /// This machine could not connect: no file descriptor, no such source address, no route, no permission.
    Local(String),
    /// The connection failed or was lost.
    Connection(String),
    /// The step that timed out.
    Timeout(&'static str),
    /// The host does not speak SMTP.
    Malformed(&'static str),
    /// TLS failed, or is not offered where it is required.
    Tls(String),
    /// The host refused the session.
    Refused(Reply),
    /// The host refused the credentials.
    Auth(Reply),
}

impl SessionError {
    /// Returns the outcome of a recipient for whom no other host is left: always a deferral.
    pub(crate) fn outcome(&self, host: &str) -> Outcome {
        Outcome::without_reply(self.status(), self.text(host))
    }

    /// Returns a sentence that begins with the status code.
    pub(crate) fn diagnostic(&self, host: &str) -> String {
        format!("{} {}", self.status(), self.text(host))
    }

    const fn status(&self) -> EnhancedStatusCode {
        match self {
            Self::Local(_) => EnhancedStatusCode::TRANSIENT_SYSTEM,
            Self::Connection(_) => EnhancedStatusCode::NO_ANSWER,
            Self::Timeout(_) => EnhancedStatusCode::BAD_CONNECTION,
            Self::Malformed(_) => EnhancedStatusCode::TRANSIENT_PROTOCOL,
            Self::Tls(_) => EnhancedStatusCode::TRANSIENT_CRYPTOGRAPHIC_FAILURE,
            Self::Refused(_) => EnhancedStatusCode::SYSTEM_NOT_ACCEPTING,
            Self::Auth(_) => EnhancedStatusCode::TRANSIENT_CREDENTIALS_INVALID,
        }
    }

    fn text(&self, host: &str) -> String {
        match self {
            Self::Local(reason) => format!("{host} was not asked, for a reason of our own: {reason}"),
            Self::Connection(reason) | Self::Tls(reason) => format!("{host}: {reason}"),
            Self::Timeout(step) => format!("{host}: timed out waiting for {step}"),
            Self::Malformed(reason) => format!("{host}: {reason}"),
            Self::Refused(reply) => format!("{host} refused the session: {}", reply.text()),
            Self::Auth(reply) => format!("{host} refused our credentials: {}", reply.text()),
        }
    }

    /// True if it says nothing about the host.
    pub(crate) const fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

/// Connects to one address of a host until `deadline`, from `source` if that is given.
///
/// # Errors
/// [`SessionError::Local`] if this machine is at fault, else [`SessionError::Connection`].
pub(crate) async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
    deadline: Instant,
) -> Result<TcpStream, SessionError> {
    let reason = |error: io::Error| format!("no connection to {address}: {error}");
    let local = |error| SessionError::Local(reason(error));
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }.map_err(local)?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0)).map_err(local)?;
    }
    let mut connecting = pin!(socket.connect(address));
    // An error at once comes from this system itself, except that an address of this machine refuses at once as well.
    // A router without a route answers the same a little later.
    match connecting.as_mut().now_or_never() {
        Some(Ok(stream)) => return Ok(stream),
        Some(Err(error)) => {
            let is_refused = matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset);
            return Err(if is_refused { SessionError::Connection(reason(error)) } else { local(error) });
        }
        None => {}
    }
    match timeout_at(deadline, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(SessionError::Connection(reason(error))),
        Err(_) => Err(SessionError::Connection(format!("no connection to {address} in time"))),
    }
}

/// An open session, ready for a transaction.
pub(crate) struct Session {
    wire: Box<dyn Wire>,
    input: BytesMut,
    extensions: Extensions,
    timeouts: Timeouts,
    /// The end of the request's time, whatever step the session is at.
    deadline: Instant,
    /// `TLSv1.3`; `None`: plain text.
    pub(crate) tls: Option<String>,
    /// The host offers STARTTLS, but refused the command.
    pub(crate) refuses_tls: bool,
    pub(crate) transcript: Transcript,
    /// Transactions so far.
    pub(crate) transactions: u32,
}

impl Session {
    /// Opens a session over a connection to one address of a host.
    ///
    /// # Errors
    /// The error, with the transcript up to it.
    pub(crate) async fn open(
        stream: TcpStream,
        host: &Host,
        address: SocketAddr,
        options: &ConnectOptions<'_>,
    ) -> Result<Self, (SessionError, Transcript)> {
        let mut transcript = Transcript::default();
        transcript.note(&format!("{} [{address}]", host.name));
        if let Some(guard) = options.guard
            && let Ok(local) = stream.local_addr()
            && let Err(blocked) = guard.permits_connection(local, address)
        {
            return Err((SessionError::Connection(blocked.to_string()), transcript));
        }
        // Commands are small, and each waits for its reply.
        let _ = stream.set_nodelay(true);
        let mut session = Self {
            wire: Box::new(stream),
            input: BytesMut::new(),
            extensions: Extensions::default(),
            timeouts: options.timeouts,
            deadline: options.deadline,
            tls: None,
            refuses_tls: false,
            transcript,
            transactions: 0,
        };
        match session.begin(host, options).await {
            Ok(()) => Ok(session),
            Err(error) => Err((error, session.transcript)),
        }
    }

    /// True if the host closed the idle session, or sent something unasked.
    pub(crate) fn is_stale(&mut self) -> bool {
        // A usable session has nothing to read.
        !self.input.is_empty() || self.wire.read_buf(&mut self.input).now_or_never().is_some()
    }

    /// Sends QUIT. Waits a moment for the host to reply and close (RFC 5321 §4.1.1.10), since it counts the connection
    /// until then.
    pub(crate) async fn quit(mut self) {
        let goodbye = async {
            self.wire.write_all(b"QUIT\r\n").await?;
            self.wire.flush().await?;
            while self.wire.read_buf(&mut self.input).await? > 0 {
                self.input.clear();
            }
            Ok::<_, io::Error>(())
        };
        let _ = timeout(QUIT_TIMEOUT, goodbye).await;
        let _ = timeout(QUIT_TIMEOUT, self.wire.shutdown()).await;
    }

    /// Returns the deadline of a step that may take `limit`.
    fn until(&self, limit: Duration) -> Instant {
        self.deadline.min(Instant::now() + limit)
    }
}
