//! The one form of errors (contract 1.6).

use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::store;

/// An error as the client sees it; what caused it is logged, never sent.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    code: &'a str,
}

impl ApiError {
    /// An error with its status, code and sentence.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// 404 for an unknown or foreign thing.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "not found")
    }

    /// 401 with the code of contract 1.6.
    pub fn unauthorized(code: &'static str, message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    /// 400 for a query parameter.
    pub fn bad_query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_query", message)
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match &error {
            store::Error::Full(_) | store::Error::Busy | store::Error::Stopped => {
                tracing::warn!(%error, "a request found storage unavailable");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "storage is unavailable at the moment")
            }
            store::Error::Conflict(_)
            | store::Error::Io { .. }
            | store::Error::Sqlite(_)
            | store::Error::Corrupt(_) => {
                tracing::error!(%error, "a request failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error")
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body { error: &self.message, code: self.code };
        let mut response = (self.status, serde_json::to_vec(&body).unwrap_or_default()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert("retry-after", HeaderValue::from_static("5"));
        }
        response
    }
}

/// Whether this server will never have a path (contract 12).
fn is_not_supported(path: &str) -> bool {
    const EXACT: &[&str] = &[
        "/api/lists",
        "/api/contacts",
        "/api/broadcasts",
        "/v1/events",
        "/v1/sequences",
        "/v1/agent",
        "/api/domains/register",
        "/api/domains/subdomain",
        "/api/v1/provision",
        "/.well-known/oauth-authorization-server",
        "/api/app-passwords",
        "/api/auth/signin-link",
        "/api/auth/signin",
        "/api/auth/github",
        "/api/auth/password/forgot",
        "/api/auth/password/reset",
        "/api/ingest",
        "/api/relay",
    ];
    const BELOW: &[&str] = &[
        "/api/lists/",
        "/api/broadcasts/",
        "/v1/events/",
        "/v1/sequences/",
        "/v1/triggers/",
        "/v1/enrollments/",
        "/api/domains/subdomain/",
        "/oauth/",
        "/api/app-passwords/",
        "/api/mailbox/",
        "/api/mx/",
        "/api/smtp/",
        "/api/imap/",
    ];
    let contacts = path.starts_with("/api/contacts/") && !path.starts_with("/api/contacts/suppressions");
    contacts || EXACT.contains(&path) || BELOW.iter().any(|prefix| path.starts_with(prefix))
}

/// An unknown path, or a method that a known path does not have.
pub async fn unknown_path(uri: Uri) -> ApiError {
    if is_not_supported(uri.path()) {
        return ApiError::new(StatusCode::NOT_FOUND, "not_supported", "not supported by this server");
    }
    ApiError::not_found()
}
