//! One SMTP session as a client (RFC 5321): connect, greet, STARTTLS, AUTH, envelope, data.
//!
//! It owns the stream, its deadlines and the transcript. Trouble is told apart: a reply to MAIL, RCPT or DATA is about
//! the message; everything else ([`SessionError`]) is about the host, and another may be tried.

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

use super::Host;
use crate::net::egress::Guard;
use extensions::Extensions;
pub(crate) use reply::Reply;
pub(crate) use transaction::TransactionResult;
pub(crate) use transcript::Transcript;

/// What a host that does not greet is waited for.
pub(crate) const GREETING: &str = "the greeting";

/// Deadlines of a session (RFC 5321 §4.5.3.2).
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the greeting, where another address may be tried instead.
    pub greeting: Duration,
    /// For the greeting of the last one, a handshake, and the replies to EHLO, AUTH, MAIL and RCPT.
    pub command: Duration,
    /// For the reply to DATA, and for each piece of data to be taken.
    pub data: Duration,
    /// For the reply to the final dot.
    pub end_of_data: Duration,
    /// For all hosts of a parcel together.
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

/// How long a host has to answer QUIT.
const PARTING: Duration = Duration::from_secs(1);

/// How a session is opened.
pub(crate) struct ConnectOptions<'a> {
    /// What we call ourselves.
    pub(crate) helo: &'a str,
    /// Deadlines of each step.
    pub(crate) timeouts: Timeouts,
    /// When all of them end.
    pub(crate) deadline: Instant,
    /// For the greeting.
    pub(crate) greeting: Duration,
    /// TLS from the first octet.
    pub(crate) implicit_tls: bool,
    /// What TLS has to prove; none: STARTTLS is not asked for.
    pub(crate) tls: Option<TlsConnector>,
    /// User and password.
    pub(crate) auth: Option<(&'a str, &'a str)>,
    /// What refuses a connection that turns out to lead back to this server; none: the operator chose the host.
    pub(crate) guard: Option<&'a Guard>,
}

/// Trouble with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionError {
    /// This machine could not ask it: no file descriptor, no such source address, no route, no permission.
    Ours(String),
    /// No connection, or it was lost.
    Connection(String),
    /// Nothing came in time.
    Timeout(&'static str),
    /// It does not speak SMTP.
    Malformed(&'static str),
    /// TLS failed, or is missing where it has to be.
    Tls(String),
    /// It refused the session.
    Refused(Reply),
    /// It refused our credentials.
    Auth(Reply),
}

impl SessionError {
    /// A sentence that begins with an enhanced status code (RFC 3463, RFC 7672 §8.3 style for TLS).
    pub(crate) fn diagnostic(&self, host: &str) -> String {
        match self {
            Self::Ours(why) => format!("4.3.0 {host} was not asked, for a reason of our own: {why}"),
            Self::Connection(why) => format!("4.4.1 {host}: {why}"),
            Self::Timeout(what) => format!("4.4.2 {host}: timed out waiting for {what}"),
            Self::Malformed(why) => format!("4.5.0 {host}: {why}"),
            Self::Tls(why) => format!("4.7.5 {host}: {why}"),
            Self::Refused(reply) => format!("4.3.2 {host} refused the session: {}", reply.text()),
            Self::Auth(reply) => format!("4.7.8 {host} refused our credentials: {}", reply.text()),
        }
    }

    /// Whether it says nothing of the host.
    pub(crate) const fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

/// Connects to one address of a host until `deadline`, from `source` if that is given.
///
/// # Errors
/// There is no connection, and why: by this machine's fault or not.
pub(crate) async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
    deadline: Instant,
) -> Result<TcpStream, SessionError> {
    let why = |error: io::Error| format!("no connection to {address}: {error}");
    let ours = |error| SessionError::Ours(why(error));
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }.map_err(ours)?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0)).map_err(ours)?;
    }
    let mut connecting = pin!(socket.connect(address));
    // What the system says at once it says by itself, but that a host of this machine takes no connections. A router
    // that knows no way answers the same a little later.
    match connecting.as_mut().now_or_never() {
        Some(Ok(stream)) => return Ok(stream),
        Some(Err(error)) => {
            let is_refused = matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset);
            return Err(if is_refused { SessionError::Connection(why(error)) } else { ours(error) });
        }
        None => {}
    }
    match timeout_at(deadline, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(SessionError::Connection(why(error))),
        Err(_) => Err(SessionError::Connection(format!("no connection to {address} in time"))),
    }
}

/// A session that is ready for a transaction.
pub(crate) struct Session {
    wire: Box<dyn Wire>,
    input: BytesMut,
    offers: Extensions,
    timeouts: Timeouts,
    /// When the parcel's time is over, whatever step it is at.
    deadline: Instant,
    /// `TLSv1.3`; none: plain text.
    pub(crate) tls: Option<String>,
    /// Whether it offers STARTTLS, and then refused it.
    pub(crate) refuses_tls: bool,
    /// What was said so far.
    pub(crate) transcript: Transcript,
    /// Transactions that were made.
    pub(crate) transactions: u32,
}

impl Session {
    /// Greets one address of a host over a connection to it.
    ///
    /// # Errors
    /// The host's trouble, with what was said.
    pub(crate) async fn open(
        stream: TcpStream,
        host: &Host,
        address: SocketAddr,
        opening: &ConnectOptions<'_>,
    ) -> Result<Self, (SessionError, Transcript)> {
        let mut transcript = Transcript::default();
        transcript.note(&format!("{} [{address}]", host.name));
        if let Some(guard) = opening.guard
            && let Ok(local) = stream.local_addr()
            && let Err(blocked) = guard.permits_connection(local, address)
        {
            return Err((SessionError::Connection(blocked.to_string()), transcript));
        }
        // Commands are small and answered at once.
        let _ = stream.set_nodelay(true);
        let mut session = Self {
            wire: Box::new(stream),
            input: BytesMut::new(),
            offers: Extensions::default(),
            timeouts: opening.timeouts,
            deadline: opening.deadline,
            tls: None,
            refuses_tls: false,
            transcript,
            transactions: 0,
        };
        match session.begin(host, opening).await {
            Ok(()) => Ok(session),
            Err(fault) => Err((fault, session.transcript)),
        }
    }

    /// Whether the host closed the session, or said something unasked, while nobody looked.
    pub(crate) fn is_stale(&mut self) -> bool {
        // Nothing to read is the one healthy answer.
        !self.input.is_empty() || self.wire.read_buf(&mut self.input).now_or_never().is_some()
    }

    /// Says good-bye. The host counts the connection until it answers and ends it (RFC 5321 §4.1.1.10), which is waited
    /// for a moment.
    pub(crate) async fn quit(mut self) {
        let parting = async {
            self.wire.write_all(b"QUIT\r\n").await?;
            self.wire.flush().await?;
            while self.wire.read_buf(&mut self.input).await? > 0 {
                self.input.clear();
            }
            Ok::<_, io::Error>(())
        };
        let _ = timeout(PARTING, parting).await;
        let _ = timeout(PARTING, self.wire.shutdown()).await;
    }

    /// When a step ends that may take so long.
    fn until(&self, limit: Duration) -> Instant {
        self.deadline.min(Instant::now() + limit)
    }
}
