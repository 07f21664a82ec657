//! A webhook receiver on port 0 that records each request and answers by a script.
//!
//! It is a real HTTP server (HTTP/1.1 with keep-alive, and HTTP/2 inside TLS) that can also misbehave: wait, hang,
//! close early, dribble, never stop. Dropping it closes the port and all of its connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::stream::{self, Stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Limit for a request to arrive.
const DEADLINE: Duration = Duration::from_secs(20);

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub method: Method,
    /// With its query.
    pub path: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
    /// Number of its connection, from 1.
    pub connection: usize,
}

impl Received {
    /// The value of header `name`; empty when absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The answer of a script.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    delay: Duration,
    manner: Behavior,
}

#[derive(Clone, Debug)]
enum Behavior {
    Whole(Bytes),
    Hang,
    CloseBeforeHeaders,
    CloseInBody,
    Dribble(Duration),
    Endless,
}

impl Reply {
    /// An empty answer of this status.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), delay: Duration::ZERO, manner: Behavior::Whole(Bytes::new()) }
    }

    /// Takes the request and never answers.
    pub(crate) fn hang() -> Self {
        Self { manner: Behavior::Hang, ..Self::status(200) }
    }

    /// Closes the connection instead of answering.
    pub(crate) fn close_before_headers() -> Self {
        Self { manner: Behavior::CloseBeforeHeaders, ..Self::status(200) }
    }

    /// Closes the connection in the middle of the body.
    pub(crate) fn close_in_body() -> Self {
        Self { manner: Behavior::CloseInBody, ..Self::status(200) }
    }

    /// Sends one byte of body per `interval`, for ever: a slow endpoint.
    pub(crate) fn dribble(interval: Duration) -> Self {
        Self { manner: Behavior::Dribble(interval), ..Self::status(200) }
    }

    /// Sends body as fast as it is read, for ever.
    pub(crate) fn endless() -> Self {
        Self { manner: Behavior::Endless, ..Self::status(200) }
    }

    /// A redirect to `location`.
    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        Self::status(status).header(LOCATION.as_str(), location)
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Sets the body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.manner = Behavior::Whole(body.into());
        self
    }

    /// Delays the answer: a slow endpoint.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    async fn into_response(self) -> io::Result<Response<ReplyBody>> {
        tokio::time::sleep(self.delay).await;
        let body = match self.manner {
            Behavior::Whole(bytes) => Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync(),
            Behavior::Hang => std::future::pending().await,
            Behavior::CloseBeforeHeaders => return Err(io::ErrorKind::ConnectionAborted.into()),
            Behavior::CloseInBody => StreamBody::new(cut_off()).boxed_unsync(),
            Behavior::Dribble(interval) => StreamBody::new(chunks(Bytes::from_static(b"x"), interval)).boxed_unsync(),
            Behavior::Endless => StreamBody::new(chunks(vec![b'x'; 16 * 1024].into(), Duration::ZERO)).boxed_unsync(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
        for (name, value) in &self.headers {
            response.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        Ok(response)
    }
}

type ReplyBody = UnsyncBoxBody<Bytes, io::Error>;

fn chunks(chunk: Bytes, interval: Duration) -> impl Stream<Item = io::Result<Frame<Bytes>>> {
    stream::unfold(chunk, move |chunk| async move {
        tokio::time::sleep(interval).await;
        Some((Ok(Frame::data(chunk.clone())), chunk))
    })
}

fn cut_off() -> impl Stream<Item = io::Result<Frame<Bytes>>> {
    stream::unfold(0, |step| async move {
        let item = match step {
            0 => Ok(Frame::data(Bytes::from_static(b"the beginning"))),
            _ => {
                // Lets the beginning leave before the connection ends.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        };
        Some((item, step + 1))
    })
}

/// A certificate of its own that a client can be told to trust.
pub(crate) struct TestCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TestCertificate {
    /// A self-signed certificate for `names`, which may be IP addresses.
    pub(crate) fn for_names(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Self { chain: vec![made.cert.der().clone()], key }
    }

    /// A client's configuration that trusts this certificate alone.
    pub(crate) fn client_config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.chain.first().unwrap().clone()).unwrap();
        client_config(roots)
    }

    /// The server's side of TLS, offering the protocols `alpn` in this order.
    pub(crate) fn acceptor(&self, alpn: &[&[u8]]) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config =
            builder.with_no_client_auth().with_single_cert(self.chain.clone(), self.key.clone_key()).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A client's configuration that trusts `roots`.
pub(crate) fn client_config(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// The running receiver.
pub(crate) struct Receiver {
    address: SocketAddr,
    scheme: &'static str,
    log: Arc<Log>,
    arrivals: UnboundedReceiver<Received>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    requests: Mutex<Vec<Received>>,
    connections: AtomicUsize,
}

impl Receiver {
    /// A plain receiver on 127.0.0.1.
    pub(crate) async fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::launch(None, script).await
    }

    /// A receiver inside TLS that offers HTTP/2 and HTTP/1.1.
    pub(crate) async fn start_tls(
        certificate: &TestCertificate,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::launch(Some(certificate.acceptor(&[b"h2", b"http/1.1"])), script).await
    }

    async fn launch(tls: Option<TlsAcceptor>, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let log = Arc::new(Log::default());
        let (sender, arrivals) = unbounded_channel();
        let state = Arc::new(ReceiverState { log: log.clone(), sender, script });
        let server = tokio::spawn(async move {
            // Dropped, and with it every connection, when the receiver is.
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                connections.spawn(serve(tcp, tls.clone(), state.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, scheme, log, arrivals, server }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of it, with the address for a host.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}/hook", self.scheme, self.address)
    }

    /// A URL of it under another host name.
    pub(crate) fn url_with_host(&self, host: &str) -> String {
        format!("{}://{host}:{}/hook", self.scheme, self.address.port())
    }

    /// The next request that no call has returned yet; fails the test when none comes in time.
    pub(crate) async fn next_request(&mut self) -> Received {
        let Ok(request) = timeout(DEADLINE, self.arrivals.recv()).await else {
            panic!("no request reached the receiver within {DEADLINE:?}");
        };
        request.unwrap()
    }

    /// All requests so far, in the order in which their bodies were complete.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.log.requests.lock().unwrap().clone()
    }

    /// Number of connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct ReceiverState<S> {
    log: Arc<Log>,
    sender: UnboundedSender<Received>,
    script: S,
}

async fn serve<S>(tcp: TcpStream, tls: Option<TlsAcceptor>, state: Arc<ReceiverState<S>>)
where
    S: Fn(&Received) -> Reply + Send + Sync + 'static,
{
    let connection = state.log.connections.fetch_add(1, Ordering::SeqCst) + 1;
    tcp.set_nodelay(true).unwrap();
    match tls {
        None => serve_stream(tcp, connection, state).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(tcp).await {
                serve_stream(stream, connection, state).await;
            }
        }
    }
}

async fn serve_stream<IO, S>(stream: IO, connection: usize, state: Arc<ReceiverState<S>>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(&Received) -> Reply + Send + Sync + 'static,
{
    let service = service_fn(move |request| answer(request, connection, state.clone()));
    // An error here is a connection that a script or a client ended early.
    let _ended = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer<S>(
    request: Request<Incoming>,
    connection: usize,
    state: Arc<ReceiverState<S>>,
) -> Result<Response<ReplyBody>, Box<dyn std::error::Error + Send + Sync>>
where
    S: Fn(&Received) -> Reply + Send + Sync + 'static,
{
    let (parts, body) = request.into_parts();
    let received = Received {
        method: parts.method,
        path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        version: parts.version,
        headers: parts.headers,
        body: body.collect().await?.to_bytes(),
        at: Instant::now(),
        connection,
    };
    state.log.requests.lock().unwrap().push(received.clone());
    let reply = (state.script)(&received);
    let _listening = state.sender.send(received);
    Ok(reply.into_response().await?)
}

/// A peer that answers whatever it is asked with `bytes` as they are, and closes.
pub(crate) async fn raw_peer(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> SocketAddr {
    let bytes = Arc::new(bytes);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let bytes = Arc::clone(&bytes);
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                // One read takes a small request whole; a TLS client's first flight too.
                let _length = tcp.read(&mut request).await?;
                tcp.write_all(bytes.as_ref().as_ref()).await?;
                tcp.shutdown().await?;
                tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await
            });
        }
    });
    address
}
