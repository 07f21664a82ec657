//! Opens connections for hyper: resolves the name, checks the addresses, connects to one of them, begins TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::EgressError;
use super::guard::{Blocked, Guard};
use super::stream::Stream;
use crate::net::dns::Resolver;

/// Bounds the connections that hyper keeps opening after their request found another one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// RFC 8305 §5: the delay before the next address is tried in parallel.
const NEXT_ADDRESS_DELAY: Duration = Duration::from_millis(250);
const MAX_ADDRESSES: usize = 8;

/// Opens connections for hyper: resolve, check, connect, TLS.
#[derive(Clone)]
pub(super) struct Connector {
    guard: Arc<Guard>,
    tls: TlsConnector,
    resolver: Arc<Resolver>,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = EgressError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            timeout(CONNECT_TIMEOUT, connector.open(&uri))
                .await
                .unwrap_or(Err(EgressError::Timeout))
                .map(TokioIo::new)
        })
    }
}

impl Connector {
    /// Creates a connector that reaches what `guard` permits.
    pub(super) fn new(guard: Guard, tls: ClientConfig, resolver: Arc<Resolver>) -> Self {
        Self { guard: Arc::new(guard), tls: TlsConnector::from(Arc::new(tls)), resolver }
    }

    async fn open(&self, uri: &Uri) -> Result<Stream, EgressError> {
        let host = uri.host().ok_or(EgressError::Connect)?;
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = connect(self.permitted_addresses(host, port).await?).await?;
        let ends = tcp.local_addr().and_then(|local| Ok((local, tcp.peer_addr()?)));
        let (local, peer) = ends.map_err(|_| EgressError::Connect)?;
        self.guard.permits_connection(local, peer).map_err(blocked)?;
        tcp.set_nodelay(true).map_err(|_| EgressError::Connect)?;
        if !secure {
            return Ok(Stream::plain(tcp));
        }
        let name = without_brackets(host).to_owned();
        let name = ServerName::try_from(name).map_err(|_| EgressError::Tls)?;
        let tls = self.tls.connect(name, tcp).await.map_err(|error| {
            tracing::debug!(host, %error, "TLS handshake failed");
            EgressError::Tls
        })?;
        Ok(Stream::tls(tls))
    }

    /// Returns the addresses of `host` that the guard permits, at least one.
    async fn permitted_addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, EgressError> {
        let ips = match without_brackets(host).parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            // RFC 6761 §6.3: this name is never looked up.
            Err(_) if host == "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Err(_) => self.resolver.addresses(host).await.map_err(|error| {
                tracing::debug!(host, %error, "host name could not be resolved");
                EgressError::Dns
            })?,
        };
        let mut refusal = EgressError::Dns;
        let mut permitted = Vec::with_capacity(ips.len());
        for ip in ips {
            let address = SocketAddr::new(ip, port);
            match self.guard.permits(host, address) {
                Ok(()) => permitted.push(address),
                Err(why) => refusal = blocked(why),
            }
        }
        permitted.truncate(MAX_ADDRESSES);
        if permitted.is_empty() { Err(refusal) } else { Ok(permitted) }
    }
}

fn blocked(why: Blocked) -> EgressError {
    tracing::debug!(address = %why.address, reason = why.reason, "address refused");
    EgressError::BlockedAddress
}

/// Strips the brackets of an IPv6 address.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Returns the first connection to succeed: each next address is tried when the previous one failed or is slow (RFC
/// 8305 §5).
async fn connect(addresses: Vec<SocketAddr>) -> Result<TcpStream, EgressError> {
    let mut waiting = addresses.into_iter();
    let mut racing = JoinSet::new();
    let mut last_error = EgressError::Connect;
    loop {
        if let Some(address) = waiting.next() {
            racing.spawn(TcpStream::connect(address));
        }
        let delay = if waiting.len() > 0 { NEXT_ADDRESS_DELAY } else { CONNECT_TIMEOUT };
        match timeout(delay, racing.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => last_error = connect_error(&error),
            Ok(Some(Err(_))) | Err(_) => {}
            Ok(None) => return Err(last_error),
        }
    }
}

fn connect_error(error: &io::Error) -> EgressError {
    if error.kind() == io::ErrorKind::TimedOut { EgressError::Timeout } else { EgressError::Connect }
}
