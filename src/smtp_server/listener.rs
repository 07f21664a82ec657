//! Accepts connections, limits them per peer and in total, reads the PROXY header and spawns sessions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::session::{Role, Session, Shared};
use crate::mail::reply::Reply;
use crate::metrics::Counter;
use crate::rate_limit::address_network;

/// Time a load balancer has to send its header.
const PROXY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest PROXY header that is accepted: version 2 with its extensions.
const PROXY_MAX: usize = 2048;
/// The shortest header of version 1, `PROXY UNKNOWN` and CRLF; shorter than the fixed head of version 2.
const PROXY_MIN: usize = 15;
/// The longest header of version 1, with CRLF.
const PROXY_V1_MAX: usize = 107;
/// The signature that begins version 2.
const PROXY_V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed head of version 2; its last two octets are the length of the rest.
const PROXY_V2_HEAD: usize = 16;
/// Delay after a failed accept: it means out of descriptors, and others must close first.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Counts the open connections of each peer.
#[derive(Debug, Default)]
pub(crate) struct ConnectionTable {
    by_peer: Mutex<HashMap<IpAddr, usize>>,
}

/// One counted connection; released on drop.
struct ConnectionPermit {
    table: Arc<ConnectionTable>,
    peer: IpAddr,
}

#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimits {
    /// Sessions in total.
    pub(crate) max_sessions: usize,
    /// Sessions of one peer.
    pub(crate) max_sessions_per_address: usize,
    /// Peers that send a PROXY header.
    pub(crate) proxies: Vec<ipnet::IpNet>,
}

impl ConnectionLimits {
    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&address))
    }
}

impl ConnectionTable {
    /// Counts a connection and returns its permit, unless a limit is reached.
    fn admit(self: &Arc<Self>, address: IpAddr, limits: &ConnectionLimits, total: usize) -> Option<ConnectionPermit> {
        let peer = address_network(address);
        let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_peer.entry(peer).or_default();
        let admitted = *count < limits.max_sessions_per_address && total < limits.max_sessions;
        *count += usize::from(admitted);
        if *count == 0 {
            by_peer.remove(&peer);
        }
        admitted.then(|| ConnectionPermit { table: Arc::clone(self), peer })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut by_peer = self.table.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                by_peer.remove(&self.peer);
            }
        }
    }
}

/// Accepts connections until the server stops.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: Arc<ConnectionTable>,
    limits: Arc<ConnectionLimits>,
    sessions: TaskTracker,
    stop: CancellationToken,
) {
    let count_listener = || matches!(shared.role, Role::Mx).then(|| shared.metrics.open_listener());
    let (mut failing, mut open_listener) = (false, count_listener());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "connections cannot be accepted");
                    drop(open_listener.take());
                }
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        if std::mem::take(&mut failing) {
            open_listener = count_listener();
        }
        let address = address.ip().to_canonical();
        // A load balancer's connections count for the peers behind it, once those are known.
        let proxied = limits.is_proxy(address);
        let permit = if proxied { None } else { connections.admit(address, &limits, sessions.len()) };
        if permit.is_none() && (!proxied || sessions.len() >= limits.max_sessions) {
            refuse(&stream, &shared);
            continue;
        }
        // Replies are written whole; waiting to fill a segment would only delay them.
        drop(stream.set_nodelay(true));
        let (shared, connections, limits) = (Arc::clone(&shared), Arc::clone(&connections), Arc::clone(&limits));
        let total = sessions.len();
        sessions.spawn(async move {
            if proxied {
                serve_proxied(stream, address, shared, &connections, &limits, total).await;
            } else {
                run_session(stream, address, shared).await;
            }
            drop(permit);
        });
    }
}

async fn run_session(stream: TcpStream, address: IpAddr, shared: Arc<Shared>) {
    let _open = shared.metrics.open_session(shared.role.service());
    let abort = shared.abort.clone();
    let session = Session::new(shared, stream, address);
    // A session in DATA sends 421 itself; this timeout is for one that waits for storage or a handshake.
    tokio::select! {
        () = session.run() => {}
        () = async { abort.cancelled().await; tokio::time::sleep(Duration::from_secs(5)).await } => {}
    }
}

/// Reads the PROXY header that the load balancer must send, then serves the peer that it names.
async fn serve_proxied(
    mut stream: TcpStream,
    proxy: IpAddr,
    shared: Arc<Shared>,
    connections: &Arc<ConnectionTable>,
    limits: &ConnectionLimits,
    total: usize,
) {
    let header = tokio::time::timeout(PROXY_TIMEOUT, read_proxy_header(&mut stream)).await;
    let Ok(Some(header)) = header else {
        tracing::warn!(%proxy, "a connection from a configured proxy had no PROXY header and was closed");
        return;
    };
    let address = header.unwrap_or(proxy).to_canonical();
    match connections.admit(address, limits, total) {
        Some(permit) => {
            run_session(stream, address, shared).await;
            drop(permit);
        }
        None => refuse(&stream, &shared),
    }
}

/// Returns the address in the header; `Some(None)` when the header names none.
///
/// Reads no octet past the header: it may belong to a TLS handshake.
async fn read_proxy_header<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Option<IpAddr>> {
    let mut header = Vec::with_capacity(PROXY_V1_MAX);
    read_up_to(stream, &mut header, PROXY_MIN).await?;
    if header.starts_with(PROXY_V2_SIGNATURE) {
        read_up_to(stream, &mut header, PROXY_V2_HEAD).await?;
        let length = header.last_chunk().map(|length| usize::from(u16::from_be_bytes(*length)))?;
        if PROXY_V2_HEAD + length > PROXY_MAX {
            return None;
        }
        read_up_to(stream, &mut header, PROXY_V2_HEAD + length).await?;
    } else {
        while !header.ends_with(b"\r\n") {
            if header.len() >= PROXY_V1_MAX || !header.starts_with(b"PROXY ") {
                return None;
            }
            let next = header.len() + 1;
            read_up_to(stream, &mut header, next).await?;
        }
    }
    match ppp::HeaderResult::parse(&header) {
        ppp::HeaderResult::V1(Ok(header)) => Some(v1_address(&header.addresses)),
        ppp::HeaderResult::V2(Ok(header)) => Some(v2_address(&header)),
        _ => None,
    }
}

/// Reads until `header` has this length.
async fn read_up_to<S: AsyncRead + Unpin>(stream: &mut S, header: &mut Vec<u8>, length: usize) -> Option<()> {
    let start = header.len();
    header.resize(length, 0);
    stream.read_exact(header.get_mut(start..)?).await.ok().map(drop)
}

fn v1_address(addresses: &ppp::v1::Addresses) -> Option<IpAddr> {
    match addresses {
        ppp::v1::Addresses::Tcp4(tcp) => Some(tcp.source_address.into()),
        ppp::v1::Addresses::Tcp6(tcp) => Some(tcp.source_address.into()),
        ppp::v1::Addresses::Unknown => None,
    }
}

/// LOCAL is the balancer's own health check: the connection's own address counts.
fn v2_address(header: &ppp::v2::Header<'_>) -> Option<IpAddr> {
    if header.command == ppp::v2::Command::Local {
        return None;
    }
    match &header.addresses {
        ppp::v2::Addresses::IPv4(tcp) => Some(tcp.source_address.into()),
        ppp::v2::Addresses::IPv6(tcp) => Some(tcp.source_address.into()),
        ppp::v2::Addresses::Unix(_) | ppp::v2::Addresses::Unspecified => None,
    }
}

/// Sends the reason and closes without waiting: a flood of connections must not cost a task each.
fn refuse(stream: &TcpStream, shared: &Shared) {
    shared.metrics.add(Counter::SessionsRefused);
    let mut line = Vec::new();
    Reply::TOO_MANY_CONNECTIONS.write(&mut line);
    // A new socket has room for one line; if not, the peer only sees the close.
    drop(stream.try_write(&line));
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn a_peer_is_an_ipv4_address_or_an_ipv6_network() {
        let counted = |address: &str| address_network(address.parse().unwrap()).to_string();
        assert_eq!(counted("192.0.2.1"), "192.0.2.1");
        assert_eq!(counted("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[tokio::test]
    async fn what_stands_behind_a_proxy_header_is_left_alone() {
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec();
        v2.extend_from_slice(&[192, 0, 2, 8, 198, 51, 100, 1, 0x12, 0x67, 0, 25, 4, 0, 1, 0]);
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
        for (header, peer) in [
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n".to_vec(), Some("192.0.2.7")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 25\r\n".to_vec(), Some("2001:db8::1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v2, Some("192.0.2.8")),
            (local, None),
        ] {
            let wire = [header.as_slice(), b"\x16\x03\x01"].concat();
            let mut stream = wire.as_slice();
            let read = read_proxy_header(&mut stream).await;
            assert_eq!(read, Some(peer.map(|peer| peer.parse().unwrap())), "{header:?}");
            assert_eq!(stream, b"\x16\x03\x01");
        }
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(read_proxy_header(&mut endless.as_slice()).await, None);
    }

    #[test]
    fn a_connection_that_ends_makes_room_and_leaves_nothing_behind() {
        let open = Arc::new(ConnectionTable::default());
        let limits = ConnectionLimits { max_sessions: 3, max_sessions_per_address: 2, proxies: Vec::new() };
        let enter = |address: &str, total| open.admit(address.parse().unwrap(), &limits, total);
        let first = enter("2001:db8::1", 0).unwrap();
        let second = enter("2001:db8::2", 1).unwrap();
        assert!(enter("2001:db8::3", 2).is_none());
        assert!(enter("192.0.2.1", 3).is_none());
        assert_eq!(open.by_peer.lock().unwrap().len(), 1);
        drop(first);
        assert!(enter("2001:db8::3", 1).is_some());
        drop(second);
        assert!(open.by_peer.lock().unwrap().is_empty());
    }
}
