//! What every answer has: request id, no caching, CORS; and the rule that HTTPS is required (contract 1.1, 1.10).

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, HOST, HeaderName};
use axum::http::{HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument as _;

use super::error::{ApiError, Code, is_not_supported};
use super::listener::Secure;
use super::memory::RequestMemory;
use super::{App, PeerAddress};
use crate::id::random_base62;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// Wraps a request.
pub async fn apply(State(app): State<App>, mut request: Request, next: Next) -> Response {
    // It ends with the answer, whoever has a clone.
    let memory = RequestMemory::new(app.memory.clone());
    request.extensions_mut().insert(memory.clone());
    let id = random_base62(16);
    // What is logged on the way says which request it was.
    let span = tracing::info_span!("request", %id, method = %request.method());
    let path = request.uri().path();
    let is_api = matches!(path.split('/').nth(1), Some("v1" | "api" | "att"));
    let mut response = if !names_one_host(&request) {
        ApiError::new(Code::BadRequest, "a request has exactly one Host field").into_response()
    } else if is_api && request.method() == Method::OPTIONS {
        preflight()
    } else if is_api && !is_secure(&app, &request) {
        ApiError::from(Code::HttpsRequired).into_response()
    } else if is_not_supported(path) {
        // Before the router, where some of these paths look like an id.
        ApiError::from(Code::NotSupported).into_response()
    } else {
        next.run(request).instrument(span).await
    };
    drop(memory);
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(&id).ok().map(|id| (REQUEST_ID, id)));
    headers.entry(NOSNIFF).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if is_api {
        headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
        let exposed = HeaderValue::from_static("Retry-After, Idempotent-Replayed, X-Request-Id");
        headers.insert("access-control-expose-headers", exposed);
    }
    response
}

/// RFC 9112 §3.2: of a request that names no host, or several, each reader on the way may make something else.
fn names_one_host(request: &Request) -> bool {
    request.version() != Version::HTTP_11 || request.headers().get_all(HOST).iter().count() == 1
}

fn preflight() -> Response {
    let headers = [
        ("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE"),
        ("access-control-allow-headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID"),
        ("access-control-max-age", "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Plain HTTP is for loopback and for trusted proxies that say it was HTTPS.
fn is_secure(app: &App, request: &Request) -> bool {
    if request.extensions().get::<Secure>().is_some_and(|Secure(over_tls)| *over_tls) {
        return true;
    }
    let Some(PeerAddress(peer)) = request.extensions().get::<PeerAddress>() else { return false };
    let address = peer.ip().to_canonical();
    if address.is_loopback() {
        return true;
    }
    let trusted = app.config.http.trusted_proxies.iter().any(|network| network.contains(&address));
    trusted && request.headers().get("x-forwarded-proto").is_some_and(|proto| proto == "https")
}
