//! Accepts HTTP and HTTPS on the same port, caps connections, bounds what slow clients cost, drains at a stop.
//!
//! The first octet tells the two apart: a TLS record of a handshake begins with 22 (RFC 8446 §5.1), which no HTTP
//! request and no HTTP/2 preface does. What a request asks for is the router's business.

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
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::connections::{Connections, Place, Work};
use super::drain_on_close::{Lingering, Unread};
use super::write_timeout::Stalling;
use super::{OverLoopback, PeerAddress, paths};

/// How long a client may take to open: its first octet and, over TLS, the handshake; and then for a request's header.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a client may read nothing of an answer that is larger than what buffers hold.
const READ_PATIENCE: Duration = Duration::from_secs(60);
/// Idle HTTP/2 clients are asked after this time whether they still live, and given up after as long again.
const HTTP2_PING: Duration = Duration::from_secs(30);
/// The largest request header, and what is read ahead of a body.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 32;
/// What an HTTP/2 client may send, on a stream and in all, before it is read; and what of an answer waits for it.
const WINDOW: u32 = 64 * 1024;
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// The content type of a TLS record that opens a connection.
const HANDSHAKE: u8 = 22;

/// Whether a request came over TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secure(pub(crate) bool);

/// Ends the connection that a request came by, whatever is still being written to it.
#[derive(Clone, Debug)]
pub(super) struct Hangup(CancellationToken);

impl Hangup {
    /// For an answer that its client does not read: to end its body would have to wait for the client.
    pub(super) fn now(&self) {
        self.0.cancel();
    }
}

/// What every connection of a listener is served with.
struct Door {
    server: auto::Builder<TokioExecutor>,
    router: Router,
    tls: TlsAcceptor,
    stop: CancellationToken,
    /// See [`PATIENCE`].
    patience: Duration,
    /// See [`READ_PATIENCE`].
    read_patience: Duration,
}

/// Accepts until `stop`; requests that run then have `grace` to finish.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    tls: TlsAcceptor,
    connections: Arc<Connections>,
    stop: CancellationToken,
    grace: Duration,
) {
    let door =
        Arc::new(Door { server: server(), router, tls, stop, patience: PATIENCE, read_patience: READ_PATIENCE });
    let graceful = GracefulShutdown::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.stop.cancelled() => break,
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
        // Over the cap of its address the connection is closed unanswered.
        let Some(place) = connections.admit(address.ip()) else { continue };
        drop(stream.set_nodelay(true));
        let (door, watcher) = (Arc::clone(&door), graceful.watcher());
        tokio::spawn(async move {
            tokio::select! {
                () = begin(&door, stream, address, &place, watcher) => {}
                () = place.connection.displaced() => {}
            }
        });
    }
    // Who connects now is refused rather than left waiting.
    drop(listener);
    if timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("HTTP requests were cut off by the shutdown");
    }
}

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MAX_HEADER_BYTES as usize);
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

/// The body of an answer, whose request is at work until it is written.
struct AtWork {
    body: Body,
    _work: Work,
}

impl HttpBody for AtWork {
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

/// Finds out what the client speaks, then speaks it.
async fn begin(door: &Door, stream: TcpStream, address: SocketAddr, place: &Place, watcher: Watcher) {
    // The client's own address says less: it may have come to this machine by another way.
    let over_loopback = OverLoopback(stream.local_addr().is_ok_and(|own| own.ip().to_canonical().is_loopback()));
    let client = (address, over_loopback);
    let opened = tokio::select! {
        opened = timeout(door.patience, open(door, stream)) => opened,
        () = door.stop.cancelled() => return,
    };
    // A client that breaks off or dawdles is nothing to speak of.
    match opened {
        Ok(Some(Opened::Plain(stream))) => talk(door, stream, client, Secure(false), place, watcher).await,
        Ok(Some(Opened::Tls(stream))) => talk(door, *stream, client, Secure(true), place, watcher).await,
        Ok(None) | Err(_) => {}
    }
}

enum Opened {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// `None` when the client went away or its handshake failed.
async fn open(door: &Door, stream: TcpStream) -> Option<Opened> {
    let mut first = [0];
    match (stream.peek(&mut first).await, first) {
        (Ok(1), [HANDSHAKE]) => Some(Opened::Tls(Box::new(door.tls.accept(stream).await.ok()?))),
        (Ok(1), _) => Some(Opened::Plain(stream)),
        _ => None,
    }
}

async fn talk<S>(
    door: &Door,
    stream: S,
    client: (SocketAddr, OverLoopback),
    secure: Secure,
    place: &Place,
    watcher: Watcher,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let of_requests = place.connection.clone();
    let unread = Unread::default();
    let stream = Lingering::new(stream, unread.clone());
    let hangup = Hangup(CancellationToken::new());
    let cut_off = hangup.0.clone();
    let router = door.router.clone();
    let service = tower::service_fn(move |mut request: Request<Incoming>| {
        let work = of_requests.begin();
        request.extensions_mut().insert(of_requests.clone());
        request.extensions_mut().insert(PeerAddress(client.0));
        request.extensions_mut().insert(client.1);
        request.extensions_mut().insert(secure);
        request.extensions_mut().insert(hangup.clone());
        paths::respell(request.uri_mut());
        // HTTP/2 ends a stream without the connection.
        let is_http1 = request.version() < Version::HTTP_2;
        let request = request.map(axum::body::Body::new);
        let request = if is_http1 { request.map(|body| unread.watch(body)) } else { request };
        let answering = router.clone().oneshot(request);
        async move { Ok::<_, Infallible>(answering.await?.map(|body| Body::new(AtWork { body, _work: work }))) }
    });
    let stream = TokioIo::new(Stalling::new(stream, door.read_patience));
    let connection = door.server.serve_connection(stream, TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(watcher.watch(connection.into_owned()));
    // The deadlines of hyper begin once it knows the version, which a client may keep from it, or with a request.
    let talking = async {
        let first = timeout(door.patience, &mut connection).await;
        if first.is_err() && place.connection.has_asked() {
            drop(connection.await);
        }
    };
    tokio::select! {
        () = talking => {}
        () = cut_off.cancelled() => {}
    }
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

    /// A client whose connection is served with little patience, and the serving.
    async fn client() -> (TcpStream, tokio::task::JoinHandle<()>) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().into(), hostname: "mx.example.com".into(), ..Config::default() };
        let door = Door {
            server: server(),
            router: Router::new()
                .route("/", get(|| async { "here" }))
                .route("/large", get(|| async { vec![0; 64 << 20] })),
            tls: TlsAcceptor::from(ServerTls::open(&config).unwrap().https_config()),
            stop: CancellationToken::new(),
            patience: Duration::from_millis(100),
            read_patience: Duration::from_millis(300),
        };
        let listener = crate::process::host::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        let caps = ConnectionLimits { connections: 16, of_address: 16, proxies: Vec::new() };
        let place = Arc::new(Connections::new(caps)).admit(address.ip()).unwrap();
        let serving =
            tokio::spawn(
                async move { begin(&door, stream, address, &place, GracefulShutdown::new().watcher()).await },
            );
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
        let asked = tokio::time::Instant::now();
        let mut answer = vec![0; 1024];
        while asked.elapsed() < Duration::from_millis(300) {
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
