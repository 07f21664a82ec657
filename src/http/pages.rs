//! Pages: that the server runs and where the API is, and the outcome of a verification link. Embedded from `assets`.

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, REFERRER_POLICY,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use super::App;
use super::error::ApiError;
use super::extract::Path;
use crate::hex;

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Everything under `assets`, in the binary.
#[derive(RustEmbed)]
#[folder = "assets/"]
struct Assets;

/// The page at `/`.
pub async fn landing(State(app): State<App>) -> Response {
    let url = app.config.public_url.trim_end_matches('/');
    page(StatusCode::OK, "landing.html", &[("{{public_url}}", url)])
}

/// A page of the assets, with texts in place of their marks.
pub fn page(status: StatusCode, name: &str, texts: &[(&str, &str)]) -> Response {
    let Some(file) = Assets::get(name) else { return ApiError::not_found().into_response() };
    let mut html = String::from_utf8_lossy(&file.data).into_owned();
    for (mark, text) in texts {
        html = html.replace(mark, &escape(text));
    }
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (OPENER_POLICY, "same-origin"),
    ];
    (status, headers, html).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// Styles and other files that pages name; pages themselves have their own paths.
pub async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    let kind = match name.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        Some((_, "woff2")) => "font/woff2",
        _ => return Err(ApiError::not_found()),
    };
    let file = Assets::get(&name).ok_or_else(ApiError::not_found)?;
    let tag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()));
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let fields = [(CONTENT_TYPE, kind.to_owned()), (CACHE_CONTROL, "no-cache".to_owned()), (ETAG, tag)];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, fields).into_response());
    }
    Ok((fields, file.data.into_owned()).into_response())
}
