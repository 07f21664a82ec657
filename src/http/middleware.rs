//! Applied to every request: request id, cache, CORS and HSTS fields; refuses ambiguous requests, plain HTTP from other
//! machines, and foreign pages over loopback (contract 1.1, 1.10).

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, IF_RANGE, ORIGIN, RANGE, STRICT_TRANSPORT_SECURITY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument as _;

use super::error::{ApiError, Code, is_not_supported};
use super::listener::Secure;
use super::memory::RequestMemory;
use super::{AppState, OverLoopback, PeerAddress};
use crate::id::random_base62;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
/// Fields that may occur only once: of two, each intermediary could read another.
const SINGLE: [HeaderName; 8] = [
    HOST,
    AUTHORIZATION,
    CONTENT_TYPE,
    RANGE,
    IF_RANGE,
    ORIGIN,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
];
/// Allowed over plain HTTP: it reveals nothing, and load balancers may check it without TLS (contract 1.1).
const HEALTH: &str = "/api/health";
/// One year, for this host only.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Middleware of the API.
pub(crate) async fn apply(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let (begun, method) = (Instant::now(), request.method().clone());
    let endpoint = request.extensions().get::<MatchedPath>().cloned();
    // The reservation ends with the response, whoever still has a clone.
    let memory = RequestMemory::new(app.memory.clone());
    request.extensions_mut().insert(memory.clone());
    let id = random_base62(16);
    // Log lines of this request carry its id.
    let span = tracing::info_span!("request", %id, method = %request.method());
    let path = request.uri().path();
    let is_api = matches!(path.split('/').nth(1), Some("v1" | "api" | "att"));
    if let Some(PeerAddress(peer)) = request.extensions().get::<PeerAddress>() {
        app.untrusted_proxies.note(&app.config.http.trusted_proxies, peer.ip().to_canonical(), request.headers());
    }
    let admitted = admit(&app, &request);
    let is_foreign = admitted.as_ref().is_err_and(|error| error.code().status() == 403);
    let hsts = wants_hsts(&app, &request);
    let mut response = if let Err(refusal) = admitted {
        refusal.into_response()
    } else if is_api && request.method() == Method::OPTIONS {
        preflight()
    } else if is_api && path != HEALTH && !is_secure(&app, &request) {
        ApiError::from(Code::HttpsRequired).into_response()
    } else if is_not_supported(path) {
        // Before the router, in which some of these paths would match an `{id}`.
        ApiError::from(Code::NotSupported).into_response()
    } else {
        next.run(request).instrument(span).await
    };
    drop(memory);
    let endpoint = endpoint.as_ref().map(MatchedPath::as_str);
    app.requests.count(endpoint, &method, response.status(), begun.elapsed());
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(&id).ok().map(|id| (REQUEST_ID, id)));
    headers.entry(NOSNIFF).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.extend(hsts.then_some((STRICT_TRANSPORT_SECURITY, HSTS)));
    if is_api && !is_foreign {
        headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
        let exposed = HeaderValue::from_static("Retry-After, Idempotent-Replayed, X-Request-Id");
        headers.insert("access-control-expose-headers", exposed);
    }
    response
}

/// Middleware of the metrics listener.
pub(crate) async fn apply_to_metrics(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let hsts = wants_hsts(&app, &request);
    let mut response = match admit(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    response.headers_mut().extend(hsts.then_some((STRICT_TRANSPORT_SECURITY, HSTS)));
    response
}

/// Refuses ambiguous requests, and foreign hosts and origins over loopback.
fn admit(app: &AppState, request: &Request) -> Result<(), ApiError> {
    if !names_one_host(request) {
        return Err(ApiError::new(Code::BadRequest, "a request has exactly one Host field"));
    }
    let headers = request.headers();
    if let Some(name) = SINGLE.iter().find(|name| headers.get_all(*name).iter().count() > 1) {
        return Err(ApiError::new(Code::BadRequest, format!("a request has one {name} field at most")));
    }
    if holds_two_credentials(headers) {
        return Err(ApiError::new(Code::BadRequest, "a request has one credential at most"));
    }
    if request.extensions().get::<OverLoopback>().is_some_and(|OverLoopback(over)| *over) {
        app.own_names.admit(request, is_proxied(app, request))?;
    }
    Ok(())
}

/// RFC 9112 §3.2 and RFC 9113 §8.3.1: intermediaries may disagree about the host of a request that names none, or
/// several.
fn names_one_host(request: &Request) -> bool {
    let mut fields = request.headers().get_all(HOST).iter();
    let (first, more) = (fields.next(), fields.next().is_some());
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    match (request.version(), first, authority) {
        (_, Some(_), _) if more => false,
        (Version::HTTP_11, field, _) => field.is_some(),
        (Version::HTTP_2, Some(field), Some(authority)) => field.as_bytes().eq_ignore_ascii_case(authority),
        _ => true,
    }
}

/// Detects two Authorization fields that an intermediary has joined into one.
fn holds_two_credentials(headers: &HeaderMap) -> bool {
    let field = headers.get(AUTHORIZATION).and_then(|field| field.to_str().ok()).unwrap_or_default();
    let is_bearer = |text: &str| text.trim_start().get(..7).is_some_and(|head| head.eq_ignore_ascii_case("bearer "));
    field.contains(',') && field.split(',').any(is_bearer)
}

/// Returns true for requests that a trusted proxy forwards.
fn is_proxied(app: &AppState, request: &Request) -> bool {
    let headers = request.headers();
    is_trusted_proxy(app, request)
        && (headers.contains_key("x-forwarded-for") || headers.contains_key("x-forwarded-proto"))
}

fn is_trusted_proxy(app: &AppState, request: &Request) -> bool {
    let Some(PeerAddress(peer)) = request.extensions().get::<PeerAddress>() else { return false };
    let address = peer.ip().to_canonical();
    app.config.http.trusted_proxies.iter().any(|network| network.contains(&address))
}

fn preflight() -> Response {
    let headers = [
        ("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE"),
        ("access-control-allow-headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID"),
        ("access-control-max-age", "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Plain HTTP is allowed from loopback and from trusted proxies that report HTTPS. A proxy that reports plain HTTP
/// forwards for a remote client, even if it runs on this machine.
fn is_secure(app: &AppState, request: &Request) -> bool {
    match forwarded_proto(app, request) {
        Some(proto) => is_https_word(proto),
        None => {
            let peer = request.extensions().get::<PeerAddress>();
            is_https(app, request) || peer.is_some_and(|PeerAddress(peer)| peer.ip().to_canonical().is_loopback())
        }
    }
}

/// Returns true if the client uses HTTPS to this server or to a trusted proxy.
fn is_https(app: &AppState, request: &Request) -> bool {
    request.extensions().get::<Secure>().is_some_and(|Secure(over_tls)| *over_tls)
        || forwarded_proto(app, request).is_some_and(is_https_word)
}

/// Returns the protocol of the client as reported by a trusted proxy.
fn forwarded_proto<'r>(app: &AppState, request: &'r Request) -> Option<&'r [u8]> {
    // The last value is the proxy's; earlier ones may be forged by the client.
    let values = request.headers().get_all("x-forwarded-proto").iter().next_back()?.as_bytes();
    let last = values.rsplit(|byte| *byte == b',').next()?.trim_ascii();
    is_trusted_proxy(app, request).then_some(last)
}

fn is_https_word(proto: &[u8]) -> bool {
    proto.eq_ignore_ascii_case(b"https")
}

/// RFC 6797 §7.1: over HTTPS only; not if the server's own name is localhost, which other servers share.
fn wants_hsts(app: &AppState, request: &Request) -> bool {
    app.own_names.want_https() && is_https(app, request)
}
