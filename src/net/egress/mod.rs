//! Outgoing HTTP: checked addresses, no redirects, no proxies, no cookies, bounded responses. There is no other.
//!
//! `webhook::attempt::deliver` posts through it, [`fetch_file`] gets files that clients name. [`Target`] checks a
//! URL's form; at each connection the name is resolved, the [`Guard`] checks every address, and the connection goes
//! to a checked address, so a name cannot be rebound in between. A new rule on addresses goes to `guard`, on URLs to
//! `target`; `connector` opens connections, `stream` is one, `body` is a request's body, `fetch` gets files.

mod body;
mod connector;
mod fetch;
mod guard;
mod stream;
mod target;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

pub use body::Body;
use body::ReleaseOnDrop;
use connector::Connector;
pub use fetch::FILE_LIMITS;
pub use fetch::FetchError;
pub use fetch::Fetched;
pub use fetch::fetch_file;
pub(crate) use fetch::{Allowance, fetch_file_within};
pub use guard::Guard;
pub use guard::Policy;
use stream::Traffic;
pub use target::BadUrl;
pub use target::Target;

use super::dns::Resolver;

/// Shorter than the 5 s after which common servers close an idle connection, so that a request rarely meets a
/// connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
const MAX_IDLE_PER_ORIGIN: usize = 32;
/// Also the longest header section of a response.
const MAX_HTTP1_BUFFER_BYTES: usize = 64 * 1024;
const MAX_HTTP2_HEADER_BYTES: u32 = 64 * 1024;
/// The most that fits HTTP/2's limit, which counts 32 octets for each (RFC 9113 §6.5.2).
const MAX_HTTP1_FIELDS: usize = 2048;
const HTTP2_WINDOW_BYTES: u32 = 64 * 1024;
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(5);

/// The outgoing HTTP client; clones share its connections.
#[derive(Clone)]
pub struct Egress {
    client: Client<Connector, Body>,
    /// Opens a new connection for each request.
    unpooled: Client<Connector, Body>,
}

/// The limits of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time for all of it: name lookup, connection, request, response.
    pub timeout: Duration,
    /// Bytes of the response body that are read; the rest is discarded.
    pub max_answer_bytes: usize,
}

impl Default for Limits {
    /// The limits of a webhook attempt: 15 s and 64 KiB (contract 1.9).
    fn default() -> Self {
        Self { timeout: Duration::from_secs(15), max_answer_bytes: 64 * 1024 }
    }
}

/// A response of any status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Lower-case names and their values, in the order received; U+FFFD for invalid UTF-8.
    pub headers: Vec<(String, String)>,
    /// The first bytes of the body, as sent.
    pub body: Vec<u8>,
    /// True if the body was longer than the limit.
    pub truncated: bool,
    /// The reason for an incomplete body: it broke off or took too long. Only [`Egress::post_for_status`] accepts
    /// that.
    pub broken: Option<EgressError>,
}

/// The reasons for having no response; `as_str` gives the words of `last_error` (contract 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// The time ran out before the response was complete.
    #[error("no complete answer in time")]
    Timeout,
    /// The host's name has no addresses.
    #[error("the host's name could not be resolved")]
    Dns,
    /// No address accepts connections.
    #[error("no connection could be made")]
    Connect,
    /// The TLS handshake failed, or the certificate is not valid for the host.
    #[error("TLS failed")]
    Tls,
    /// The guard refuses all addresses.
    #[error("the address is not allowed")]
    BlockedAddress,
    /// The peer closed early or does not speak HTTP.
    #[error("the answer was no complete HTTP response")]
    BadResponse,
}

impl EgressError {
    /// Returns the word of `last_error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::BlockedAddress => "blocked_address",
            Self::BadResponse => "bad_response",
        }
    }
}

impl Egress {
    /// Creates a client that reaches what `guard` permits and trusts the roots of `tls`.
    pub fn new(guard: Guard, tls: &ClientConfig, resolver: Arc<Resolver>) -> Self {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let connector = Connector::new(guard, tls, resolver);
        let client = |idle| {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(idle)
                .http1_max_buf_size(MAX_HTTP1_BUFFER_BYTES)
                .http1_max_headers(MAX_HTTP1_FIELDS)
                // RFC 9112 §5.2: a user agent reads folded fields. Malformed fields must not invalidate the status
                // before them; they are skipped, and so are blanks before a colon (§5.1).
                .http1_allow_obsolete_multiline_headers_in_responses(true)
                .http1_allow_spaces_after_header_name_in_responses(true)
                .http1_ignore_invalid_headers_in_responses(true)
                .http2_max_header_list_size(MAX_HTTP2_HEADER_BYTES)
                .http2_initial_stream_window_size(HTTP2_WINDOW_BYTES)
                .http2_initial_connection_window_size(4 * HTTP2_WINDOW_BYTES)
                .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
                .http2_keep_alive_timeout(HTTP2_PING_INTERVAL)
                .build(connector.clone())
        };
        Self { client: client(MAX_IDLE_PER_ORIGIN), unpooled: client(0) }
    }

    /// Posts `body` once and reads the response, whatever its status; redirects are responses too.
    ///
    /// # Errors
    /// No complete response in time.
    pub async fn post(
        &self,
        target: &Target,
        headers: HeaderMap,
        body: impl Into<Body>,
        limits: Limits,
    ) -> Result<Answer, EgressError> {
        self.exchange(Method::POST, target, headers, body.into(), limits).await?.complete()
    }

    /// Posts as [`Egress::post`] does, but succeeds once the response head is there, whatever becomes of its body.
    ///
    /// # Errors
    /// No response head in time.
    pub async fn post_for_status(
        &self,
        target: &Target,
        headers: HeaderMap,
        body: impl Into<Body>,
        limits: Limits,
    ) -> Result<Answer, EgressError> {
        self.exchange(Method::POST, target, headers, body.into(), limits).await
    }

    /// Gets `target` once and reads the response as [`Egress::post`] does.
    ///
    /// # Errors
    /// No complete response in time.
    pub async fn get(&self, target: &Target, headers: HeaderMap, limits: Limits) -> Result<Answer, EgressError> {
        self.exchange(Method::GET, target, headers, Bytes::new().into(), limits).await?.complete()
    }

    async fn exchange(
        &self,
        method: Method,
        target: &Target,
        headers: HeaderMap,
        body: Body,
        limits: Limits,
    ) -> Result<Answer, EgressError> {
        let deadline = Instant::now() + limits.timeout;
        let mut release = ReleaseOnDrop::default();
        let opened = timeout_at(deadline, self.open(method, target, headers, body, &mut release)).await;
        let (parts, mut incoming) = opened.unwrap_or(Err(EgressError::Timeout))?.into_parts();
        let mut body = Vec::new();
        let read = read_body(&parts.headers, &mut incoming, limits.max_answer_bytes, &mut body);
        let read = timeout_at(deadline, read).await.unwrap_or(Err(EgressError::Timeout));
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())));
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: headers.collect(),
            body,
            truncated: read != Ok(true),
            broken: read.err(),
        })
    }

    /// Sends a request and returns the head of the response; keep `release` while the request's body is needed. Sets
    /// no deadline of its own.
    ///
    /// A server may close a kept-alive connection just as the next request is sent (RFC 9112 §9.3.1). If nothing else
    /// came back, the request is repeated once, on a new connection.
    async fn open(
        &self,
        method: Method,
        target: &Target,
        headers: HeaderMap,
        body: Body,
        release: &mut ReleaseOnDrop,
    ) -> Result<Response<Incoming>, EgressError> {
        let request = |body| {
            let mut request = Request::new(body);
            *request.method_mut() = method.clone();
            *request.uri_mut() = target.uri().clone();
            *request.headers_mut() = headers.clone();
            request
        };
        let restart = body.restart();
        release.add(&body);
        let mut opened = self.client.request(request(body)).await;
        if opened.as_ref().is_err_and(closed_unanswered)
            && let Some(again) = restart
        {
            let body = again();
            release.add(&body);
            opened = self.unpooled.request(request(body)).await;
        }
        opened.map_err(|error| {
            classify(&error).unwrap_or(if error.is_connect() {
                EgressError::Connect
            } else {
                EgressError::BadResponse
            })
        })
    }
}

impl Answer {
    /// Returns the response if its body is complete.
    fn complete(self) -> Result<Self, EgressError> {
        self.broken.map_or(Ok(self), Err)
    }
}

/// Returns true if a connection that had answered before was closed without an octet in response to this request.
fn closed_unanswered(error: &hyper_util::client::legacy::Error) -> bool {
    let Some(connected) = error.connect_info() else { return false };
    let mut extras = hyper::http::Extensions::new();
    connected.get_extras(&mut extras);
    let timed_out = classify(error) == Some(EgressError::Timeout);
    !timed_out && extras.get::<Arc<Traffic>>().is_some_and(|traffic| traffic.is_unanswered())
}

/// Appends up to `max_bytes` of a response body to `body`; returns true if that is all of it.
///
/// Dropping `incoming` with unread data closes its connection or stream.
async fn read_body(
    headers: &HeaderMap,
    incoming: &mut Incoming,
    max_bytes: usize,
    body: &mut Vec<u8>,
) -> Result<bool, EgressError> {
    while let Some(data) = next_data(headers, incoming).await? {
        let room = max_bytes.saturating_sub(body.len());
        body.extend(data.iter().take(room));
        if data.len() > room {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the next piece of a response body; `None` at the end.
async fn next_data(headers: &HeaderMap, incoming: &mut Incoming) -> Result<Option<Bytes>, EgressError> {
    let until_close = !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING);
    while let Some(frame) = incoming.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => return Ok(Some(data)),
            Ok(Err(_trailers)) => {}
            // Many servers end TLS without close_notify; a body that is delimited by the end of the connection is
            // complete even so.
            Err(error) if until_close && is_unexpected_eof(&error) => break,
            Err(error) => return Err(classify(&error).unwrap_or(EgressError::BadResponse)),
        }
    }
    Ok(None)
}

/// Returns the first specific error in the chain.
fn classify(error: &(dyn Error + 'static)) -> Option<EgressError> {
    find_in_chain(error, &|error| {
        if let Some(own) = error.downcast_ref::<EgressError>() {
            return Some(*own);
        }
        let timed_out = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout);
        if timed_out {
            return Some(EgressError::Timeout);
        }
        error.is::<rustls::Error>().then_some(EgressError::Tls)
    })
}

fn is_unexpected_eof(error: &(dyn Error + 'static)) -> bool {
    let is_eof = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    find_in_chain(error, &|error| error.downcast_ref().is_some_and(is_eof).then_some(())).is_some()
}

/// Calls `look` with each error of a chain; an error wrapped in an [`io::Error`] is not among that one's sources.
fn find_in_chain<T>(error: &(dyn Error + 'static), look: &dyn Fn(&(dyn Error + 'static)) -> Option<T>) -> Option<T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = look(error) {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
