//! Accepts HTTP and HTTPS on the same port, caps connections, times slow clients out, and drains on shutdown.
//!
//! The first octet distinguishes the two: a TLS handshake record begins with 22 (RFC 8446 §5.1), which no HTTP request
//! and no HTTP/2 preface does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Version;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutWriter;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::connections::{ConnectionSlot, Connections, RequestGuard};
use super::drain_on_close::{DrainOnClose, UnreadBody};
use super::{OverLoopback, PeerAddress, paths};

/// Timeout of the first octet and the TLS handshake, and of each request's header.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Timeout of a client that reads nothing of a response larger than the buffers.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that a new connection gets for its first request at a stop.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// HTTP/2 keep-alive interval, and the timeout of its ping.
const HTTP2_PING: Duration = Duration::from_secs(30);
/// The largest request header, and the read-ahead of a body.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Concurrent streams per HTTP/2 connection.
const MAX_STREAMS: u32 = 32;
/// HTTP/2 flow-control window per stream and connection, and send buffer of a response.
const WINDOW: u32 = 64 * 1024;
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Content type of a TLS handshake record.
const HANDSHAKE: u8 = 22;

/// True for requests over TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secure(pub(crate) bool);

/// Closes the connection of a request, whatever is still being written to it.
#[derive(Clone, Debug)]
pub(super) struct Hangup(CancellationToken);

impl Hangup {
    /// Closes at once, for a response that its client does not read: ending the body would wait for the client.
    pub(super) fn now(&self) {
        self.0.cancel();
    }
}

/// State shared by the connections of a listener.
struct Shared {
    server: auto::Builder<TokioExecutor>,
    router: Router,
    tls: TlsAcceptor,
    stop: CancellationToken,
    /// See [`OPEN_TIMEOUT`].
    open_timeout: Duration,
    /// See [`WRITE_TIMEOUT`].
    write_timeout: Duration,
}

/// Accepts until `stop`; requests in progress then get `grace` to finish.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    tls: TlsAcceptor,
    connections: Arc<Connections>,
    stop: CancellationToken,
    grace: Duration,
) {
    let shared = Arc::new(Shared {
        server: server(),
        router,
        tls,
        stop,
        open_timeout: OPEN_TIMEOUT,
        write_timeout: WRITE_TIMEOUT,
    });
    let open = TaskTracker::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "HTTP connections cannot be accepted");
                }
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        failing = false;
        // Over the cap of its address the connection is closed without an answer.
        let Some(slot) = connections.admit(address.ip()) else { continue };
        drop(stream.set_nodelay(true));
        let shared = Arc::clone(&shared);
        open.spawn(async move {
            tokio::select! {
                () = begin(&shared, stream, address, &slot) => {}
                () = slot.connection.displaced() => {}
            }
        });
    }
    // New connections are refused from now on, not left waiting.
    drop(listener);
    open.close();
    if timeout(grace, open.wait()).await.is_err() {
        tracing::warn!("HTTP requests were cut off by the shutdown");
    }
}

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(OPEN_TIMEOUT).max_buf_size(MAX_HEADER_BYTES as usize);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(WINDOW as usize)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    server
}

/// A response body that keeps its request marked as in progress until it is written.
struct TrackedBody {
    body: Body,
    _guard: RequestGuard,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Detects the client's protocol and serves it.
async fn begin(shared: &Shared, stream: TcpStream, address: SocketAddr, slot: &ConnectionSlot) {
    // The peer's address would say less: it may have reached this machine by another interface.
    let over_loopback = OverLoopback(stream.local_addr().is_ok_and(|own| own.ip().to_canonical().is_loopback()));
    let client = (address, over_loopback);
    let opened = tokio::select! {
        opened = timeout(shared.open_timeout, open(shared, stream)) => opened,
        () = patience_ends(shared) => return,
    };
    // Clients that disconnect or are slow are not logged.
    match opened {
        Ok(Some(Opened::Plain(stream))) => serve_connection(shared, stream, client, Secure(false), slot).await,
        Ok(Some(Opened::Tls(stream))) => serve_connection(shared, *stream, client, Secure(true), slot).await,
        Ok(None) | Err(_) => {}
    }
}

enum Opened {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// `None` if the client disconnected or its handshake failed.
async fn open(shared: &Shared, stream: TcpStream) -> Option<Opened> {
    let mut first = [0];
    match (stream.peek(&mut first).await, first) {
        (Ok(1), [HANDSHAKE]) => Some(Opened::Tls(Box::new(shared.tls.accept(stream).await.ok()?))),
        (Ok(1), _) => Some(Opened::Plain(stream)),
        _ => None,
    }
}

async fn serve_connection<S>(
    shared: &Shared,
    stream: S,
    client: (SocketAddr, OverLoopback),
    secure: Secure,
    slot: &ConnectionSlot,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let of_requests = slot.connection.clone();
    let unread = UnreadBody::default();
    let stream = DrainOnClose::new(stream, unread.clone());
    let hangup = Hangup(CancellationToken::new());
    let cut_off = hangup.0.clone();
    let router = shared.router.clone();
    let service = tower::service_fn(move |mut request: Request<Incoming>| {
        let guard = of_requests.begin();
        request.extensions_mut().insert(of_requests.clone());
        request.extensions_mut().insert(PeerAddress(client.0));
        request.extensions_mut().insert(client.1);
        request.extensions_mut().insert(secure);
        request.extensions_mut().insert(hangup.clone());
        paths::respell(request.uri_mut());
        // HTTP/2 closes a stream without the connection.
        let is_http1 = request.version() < Version::HTTP_2;
        let request = request.map(axum::body::Body::new);
        let request = if is_http1 { request.map(|body| unread.watch(body)) } else { request };
        let answering = router.clone().oneshot(request);
        async move { Ok::<_, Infallible>(answering.await?.map(|body| Body::new(TrackedBody { body, _guard: guard }))) }
    });
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(shared.write_timeout));
    let stream = TokioIo::new(Box::pin(stream));
    let connection = shared.server.serve_connection(stream, TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection.into_owned());
    // hyper's timeouts start once the version is known, which a client can delay, or with a request.
    let mut until_first = std::pin::pin!(async {
        tokio::time::sleep(shared.open_timeout).await;
        if slot.connection.has_requests() {
            std::future::pending::<()>().await;
        }
    });
    let mut stopping = std::pin::pin!(async {
        shared.stop.cancelled().await;
        if !slot.connection.has_requests() {
            tokio::time::sleep(STOP_PATIENCE).await;
        }
    });
    let mut stops = false;
    loop {
        tokio::select! {
            _ = &mut connection => return,
            () = &mut until_first => return,
            () = cut_off.cancelled() => return,
            () = &mut stopping, if !stops => {
                stops = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Waits until a connection without a request has to end because the server stops.
async fn patience_ends(shared: &Shared) {
    shared.stop.cancelled().await;
    tokio::time::sleep(STOP_PATIENCE).await;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::connections::ConnectionLimits;
    use super::*;
    use crate::config::Config;
    use crate::net::tls::ServerTls;
    use crate::process::sockets::Sockets;

    /// A client whose connection is served with short timeouts, and the task that serves it.
    async fn client() -> (TcpStream, tokio::task::JoinHandle<()>) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().into(), hostname: "mx.example.com".into(), ..Config::default() };
        let shared = Shared {
            server: server(),
            router: Router::new()
                .route("/", get(|| async { "here" }))
                .route("/large", get(|| async { vec![0; 64 << 20] })),
            tls: TlsAcceptor::from(ServerTls::open(&config).unwrap().https_config()),
            stop: CancellationToken::new(),
            open_timeout: Duration::from_millis(100),
            write_timeout: Duration::from_millis(300),
        };
        let listener = Sockets::default().listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        let limits = ConnectionLimits { connections: 16, of_address: 16, proxies: Vec::new() };
        let slot = Arc::new(Connections::new(limits)).admit(address.ip()).unwrap();
        let serving = tokio::spawn(async move { begin(&shared, stream, address, &slot).await });
        (client, serving)
    }

    #[tokio::test]
    async fn whoever_sends_nothing_or_too_little_is_let_go() {
        for sent in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"GET / HT"] {
            let (mut client, _serving) = client().await;
            client.write_all(sent).await.unwrap();
            let mut answer = Vec::new();
            let ended = timeout(Duration::from_secs(10), client.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "still open after {sent:?}");
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{sent:?}");
        }
    }

    #[tokio::test]
    async fn whoever_has_asked_is_not_hurried() {
        let (mut client, _serving) = client().await;
        let started = tokio::time::Instant::now();
        let mut answer = vec![0; 1024];
        while started.elapsed() < Duration::from_millis(300) {
            client.write_all(b"GET / HTTP/1.1\r\nHost: mx.example.com\r\n\r\n").await.unwrap();
            let length = client.read(&mut answer).await.unwrap();
            assert!(answer.get(..length).unwrap().starts_with(b"HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn whoever_does_not_read_is_let_go() {
        let (mut client, serving) = client().await;
        client.write_all(b"GET /large HTTP/1.1\r\nHost: mx.example.com\r\n\r\n").await.unwrap();
        assert!(timeout(Duration::from_secs(10), serving).await.is_ok(), "still served");
        let (mut client, serving) = self::client().await;
        client.write_all(b"GET /large HTTP/1.1\r\nHost: mx.example.com\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.len() > 64 << 20, "whoever reads gets it all");
        serving.await.unwrap();
    }
}
