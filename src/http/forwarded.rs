//! The origin of a request behind proxies: which forwarding fields are trusted (contract 1.12).
//!
//! Only `http.trusted_proxies` are trusted. A loopback or private address that is not among them and names a client is
//! most likely a proxy that the operator forgot to configure, with all clients behind it: the log warns once, and
//! limits that could lock everybody out also count by the claimed client. A claim is used for nothing else.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::HeaderMap;
use axum::http::header::FORWARDED;
use ipnet::IpNet;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_REAL_IP: &str = "x-real-ip";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The peer, or the right-most entry of X-Forwarded-For that is not a trusted proxy.
    pub(crate) address: IpAddr,
    /// The client that `address` claims to forward for, if it could be a proxy.
    pub(crate) claimed: Option<IpAddr>,
}

/// Determines the origin of a request of this peer.
pub(crate) fn trace(trusted: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> Origin {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let fields = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let mut entries: Vec<&str> = fields.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut address = peer;
    while is_trusted(&address) {
        let Some(next) = entries.pop().and_then(parse_address) else {
            return Origin { address, claimed: None };
        };
        address = next;
    }
    let claimed = Kind::of(address).and_then(|_| {
        let claimed = entries.last().and_then(|entry| parse_address(entry));
        claimed.or_else(|| if address == peer { other_claim(headers) } else { None })
    });
    Origin { address, claimed }
}

/// Returns the client named by the other fields that proxies send.
fn other_claim(headers: &HeaderMap) -> Option<IpAddr> {
    let last = |name: &str| headers.get_all(name).iter().next_back().and_then(|value| value.to_str().ok());
    // RFC 7239 §4: the last element was added by the nearest proxy.
    let forwarded = || {
        let element = last(FORWARDED.as_str())?.rsplit(',').next()?;
        let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
        let (_, node) = pairs.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
        parse_address(node.trim_matches('"'))
    };
    last(X_REAL_IP).and_then(|value| parse_address(value.trim())).or_else(forwarded)
}

/// Parses an address with an optional port.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.split(']').next()).unwrap_or(entry);
    let parsed = bare.parse::<IpAddr>().ok();
    parsed.or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip())).map(|ip| ip.to_canonical())
}

/// Networks in which the operator's own proxy could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Loopback,
    Private,
}

impl Kind {
    fn of(address: IpAddr) -> Option<Self> {
        let is_private = match address {
            _ if address.is_loopback() => return Some(Self::Loopback),
            // RFC 6598: shared addresses of providers and overlay networks.
            IpAddr::V4(v4) => {
                v4.is_private()
                    || v4.is_link_local()
                    || matches!(v4.octets(), [100, second, ..] if second & 0xc0 == 64)
            }
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
        };
        is_private.then_some(Self::Private)
    }
}

/// Warns in the log that forwarded addresses are ignored, once per kind of address.
#[derive(Debug, Default)]
pub(crate) struct UntrustedProxies {
    loopback: AtomicBool,
    private: AtomicBool,
}

impl UntrustedProxies {
    /// Warns if an untrusted address names the client it forwards for.
    pub(crate) fn note(&self, trusted: &[IpNet], peer: IpAddr, headers: &HeaderMap) {
        if ![X_FORWARDED_FOR, X_REAL_IP, FORWARDED.as_str()].iter().any(|name| headers.contains_key(*name)) {
            return;
        }
        let Origin { address, claimed } = trace(trusted, peer, headers);
        // Clients behind a trusted proxy may send any X-Forwarded-For.
        if address != peer && claimed.is_none() {
            return;
        }
        if trusted.iter().any(|network| network.contains(&address)) {
            return;
        }
        let warned = match Kind::of(address) {
            Some(Kind::Loopback) => &self.loopback,
            Some(Kind::Private) => &self.private,
            None => return,
        };
        if !warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                peer = %address,
                "an untrusted proxy forwards requests: its forwarding fields are ignored and all its clients count as \
                 one; if it is yours, add its address to http.trusted_proxies"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use axum::http::HeaderValue;
    use axum::http::header::HeaderName;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn traced(peer: &str, fields: &[(&'static str, &'static str)]) -> (String, Option<String>) {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let Origin { address, claimed } = trace(&trusted, peer.parse().unwrap(), &headers(fields));
        (address.to_string(), claimed.map(|claimed| claimed.to_string()))
    }

    #[test]
    fn the_client_is_the_right_most_entry_that_no_trusted_proxy_stands_behind() {
        let address = |peer: &str, list: &'static str| traced(peer, &[("x-forwarded-for", list)]).0;
        assert_eq!(address("192.0.2.9", "203.0.113.1"), "192.0.2.9", "not from a proxy of ours");
        assert_eq!(address("10.0.0.1", "203.0.113.1"), "203.0.113.1");
        assert_eq!(
            address("10.0.0.1", "6.6.6.6, 203.0.113.1, 10.0.0.2"),
            "203.0.113.1",
            "what is left of it is a claim"
        );
        assert_eq!(address("10.0.0.1", "rubbish"), "10.0.0.1");
        assert_eq!(address("10.0.0.1", "[2001:db8::1]:443"), "2001:db8::1");
        assert_eq!(address("10.0.0.1", "203.0.113.1:99"), "203.0.113.1");
    }

    #[test]
    fn a_claim_is_what_a_near_address_that_is_not_trusted_says_last() {
        let near = |fields| traced("127.0.0.1", fields);
        let claimed = |claim: &str| ("127.0.0.1".to_owned(), Some(claim.to_owned()));
        assert_eq!(near(&[]), ("127.0.0.1".to_owned(), None));
        assert_eq!(near(&[("x-forwarded-for", "6.6.6.6, 203.0.113.1")]), claimed("203.0.113.1"));
        assert_eq!(
            near(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.1")]),
            claimed("203.0.113.1")
        );
        assert_eq!(near(&[("x-real-ip", "203.0.113.1")]), claimed("203.0.113.1"));
        assert_eq!(
            near(&[("forwarded", "for=6.6.6.6, proto=https;For=\"[2001:db8::1]:9\"")]),
            claimed("2001:db8::1")
        );
        assert_eq!(near(&[("x-forwarded-for", "unknown")]), ("127.0.0.1".to_owned(), None));
        for peer in ["::1", "172.18.0.2", "192.168.1.9", "100.64.0.1", "169.254.0.1", "fd00::1", "fe80::1"] {
            assert_eq!(
                traced(peer, &[("x-real-ip", "203.0.113.1")]),
                (peer.to_owned(), Some("203.0.113.1".to_owned()))
            );
        }
        for peer in ["192.0.2.9", "100.128.0.1", "2001:db8::9"] {
            assert_eq!(traced(peer, &[("x-real-ip", "203.0.113.1")]), (peer.to_owned(), None), "a stranger's word");
        }
        let chain = [("x-forwarded-for", "203.0.113.1, 172.18.0.2")];
        assert_eq!(traced("10.0.0.1", &chain), ("172.18.0.2".to_owned(), Some("203.0.113.1".to_owned())));
        let trusted = [("x-forwarded-for", "192.168.1.9"), ("x-real-ip", "203.0.113.1")];
        assert_eq!(traced("10.0.0.1", &trusted), ("192.168.1.9".to_owned(), None), "a client's own word");
    }
}
