//! The client of a request: its address, and whether it is on this machine.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{FORWARDED, HOST, ORIGIN, USER_AGENT, VIA};
use axum::http::request::Parts;

use super::error::{ApiError, Code};
use super::forwarded::{Origin, trace};
use super::local::{OwnNames, is_loopback_name};
use super::{AppState, PeerAddress};
use crate::accounts;
use crate::rate_limit::address_key;

const X_FORWARDED: &str = "x-forwarded-";
/// User agents are stored with the session up to this length.
const MAX_AGENT_CHARS: usize = 200;

#[derive(Clone, Debug)]
pub(crate) struct ClientAddress {
    /// The TCP peer, or the client that trusted proxies forward for (contract 1.12).
    pub(crate) address: IpAddr,
    /// The client that `address` claims to forward for, which is not trusted.
    pub(crate) claimed: Option<IpAddr>,
    /// True for requests over loopback in the sense of contract 2.2.
    pub(crate) over_loopback: bool,
    /// Empty if the client sent none.
    pub(crate) user_agent: String,
}

impl ClientAddress {
    /// Returns the key for limits per client address.
    pub(crate) fn key(&self) -> String {
        address_key(self.address)
    }

    /// Returns the key for limits that must not affect other clients: an untrusted proxy carries many of them.
    pub(crate) fn narrow_key(&self) -> String {
        let key = self.key();
        self.claimed.map_or_else(|| key.clone(), |claimed| format!("{key} for {}", address_key(claimed)))
    }

    /// Returns the client as stored with a session.
    pub(crate) fn session(&self) -> accounts::ClientInfo {
        let (address, user_agent) = (self.address.to_string(), self.user_agent.clone());
        accounts::ClientInfo { address, user_agent, turn: self.narrow_key() }
    }
}

impl FromRequestParts<AppState> for ClientAddress {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        // Every connection has a peer.
        let peer = parts.extensions.get::<PeerAddress>().ok_or(Code::Internal)?.0.ip().to_canonical();
        let agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let Origin { address, claimed } = trace(&app.config.http.trusted_proxies, peer, &parts.headers);
        Ok(Self {
            address,
            claimed,
            over_loopback: is_over_loopback(&app.own_names, peer, host(parts), &parts.headers),
            user_agent: agent.chars().take(MAX_AGENT_CHARS).collect(),
        })
    }
}

/// Returns the origin of a request that is not authenticated yet.
pub(super) fn origin_of(app: &AppState, request: &Request) -> Option<Origin> {
    let peer = request.extensions().get::<PeerAddress>()?.0.ip().to_canonical();
    Some(trace(&app.config.http.trusted_proxies, peer, request.headers()))
}

/// Returns the host that a request names: the authority of HTTP/2 and absolute forms, else the only Host field
/// (RFC 9110 §7.2).
fn host(parts: &Parts) -> Option<&str> {
    let mut fields = parts.headers.get_all(HOST).iter();
    let field = fields.next().filter(|_| fields.next().is_none()).and_then(|host| host.to_str().ok());
    parts.uri.authority().map(|authority| authority.as_str()).or(field)
}

/// Contract 2.2: `public_url` is a loopback URL, the peer is loopback, no field hints at a proxy or a browser page, and
/// the host is a loopback name. On a public server a loopback peer proves nothing: a program that forwards connections
/// (ssh -L, socat, a balancer) brings anybody's, with any Host they choose.
fn is_over_loopback(names: &OwnNames, peer: IpAddr, host: Option<&str>, headers: &HeaderMap) -> bool {
    let is_relayed = headers.contains_key(ORIGIN)
        || headers.contains_key(FORWARDED)
        || headers.contains_key(VIA)
        || headers.contains_key("x-real-ip")
        || headers.keys().any(|name| name.as_str().starts_with(X_FORWARDED));
    names.is_private() && peer.is_loopback() && !is_relayed && host.is_some_and(is_loopback_name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use axum::http::HeaderValue;
    use axum::http::header::HeaderName;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn loopback_is_a_proof_only_without_any_sign_of_somebody_else() {
        let proof = |url: &str, peer: &str, host: &str, fields: &[(&'static str, &'static str)]| {
            is_over_loopback(&OwnNames::new(url, "mx.acme.dev"), peer.parse().unwrap(), Some(host), &headers(fields))
        };
        let (here, there) = ("http://127.0.0.1:8080", "https://mail.acme.dev");
        assert!(proof(here, "127.0.0.1", "127.0.0.1:8080", &[]));
        assert!(proof(here, "::1", "LocalHost", &[]));
        assert!(proof("https://app.localhost", "127.0.0.1", "localhost", &[]));
        for host in ["[::1]:443", "localhost", "127.0.0.1"] {
            assert!(!proof(there, "127.0.0.1", host, &[]), "behind a proxy or a forwarder on this machine");
        }
        assert!(!proof(here, "192.0.2.1", "localhost", &[]));
        assert!(!proof(here, "127.0.0.1", "localhost.evil.example", &[]));
        assert!(!proof(here, "127.0.0.1", "mail.acme.dev", &[]));
        assert!(!proof(here, "127.0.0.1", "", &[]));
        for name in ["origin", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"] {
            assert!(!proof(here, "127.0.0.1", "localhost", &[(name, "x")]), "{name}");
        }
    }

    #[test]
    fn the_host_is_the_one_that_the_request_names() {
        let named = |uri: &str, hosts: &[&'static str]| {
            let mut request = axum::http::Request::new(());
            *request.uri_mut() = uri.parse().unwrap();
            *request.headers_mut() = headers(&hosts.iter().map(|host| ("host", *host)).collect::<Vec<_>>());
            host(&request.into_parts().0).map(str::to_owned)
        };
        assert_eq!(named("/", &["localhost:1"]).as_deref(), Some("localhost:1"));
        assert_eq!(named("https://localhost:1/", &[]).as_deref(), Some("localhost:1"), "HTTP/2");
        assert_eq!(named("http://evil.example/", &["localhost"]).as_deref(), Some("evil.example"));
        assert_eq!(named("/", &[]), None);
    }
}
