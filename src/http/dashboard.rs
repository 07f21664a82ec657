//! The dashboard's page, and the frame in which it shows HTML mail. The rest of the dashboard is static assets, and it
//! uses the public API.

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::AppState;
use super::body;
use super::error::{ApiError, Code};
use super::extract::Query;
use super::pages::{html, html_headers, matches_etag};
use crate::config::{Config, Signup};
use crate::store::accounts;
use data_encoding::HEXLOWER;

/// Scripts and styles come from this server only, and only one named Trusted Types policy may parse HTML.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types mail";
/// Mail runs no script, loads nothing remote, and opens links in a new window.
const MAIL_POLICY: &str = "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; \
    style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
/// The same, with remote images, which the reader asked for.
const REMOTE_MAIL_POLICY: &str = "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; \
    style-src 'unsafe-inline'; img-src data: https: http:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
/// The largest HTML shown, in octets.
const MAX_FRAME_BYTES: usize = 4 * 1_048_576;
/// The form's only field name, as `text/plain` encodes it.
const FIELD: &[u8] = b"html=";

/// `GET /`
pub(crate) async fn index(State(app): State<AppState>, headers: HeaderMap) -> Result<Response, ApiError> {
    let empty = app.db.read(|connection| Ok(!accounts::any(connection)?)).await?;
    let google = &app.config.auth.google;
    let page = html(
        "index.html",
        &[
            ("{{signup}}", sign_up(&app.config, empty)),
            ("{{google}}", google.client_id.as_deref().unwrap_or_default()),
            ("{{redirect}}", google.redirect_uri.as_deref().unwrap_or_default()),
            ("{{url}}", app.config.public_url.trim_end_matches('/')),
            ("{{hostname}}", &app.config.hostname),
            ("{{dev}}", if app.config.dev { "yes" } else { "" }),
        ],
    );
    let page = page.ok_or_else(ApiError::not_found)?;
    let tag = format!("\"{}\"", HEXLOWER.encode(digest(&SHA256, page.as_bytes()).as_ref()));
    let mut fields = HeaderMap::from_iter(html_headers(POLICY));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.extend(HeaderValue::from_str(&tag).ok().map(|tag| (ETAG, tag)));
    if matches_etag(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, fields).into_response());
    }
    Ok((fields, page).into_response())
}

/// Returns the sign-up form to show.
const fn sign_up(config: &Config, empty: bool) -> &'static str {
    match config.auth.signup {
        Signup::First if empty => "setup",
        Signup::Open => "open",
        Signup::First | Signup::Closed => "closed",
    }
}

#[derive(Deserialize)]
pub(crate) struct Frame {
    /// Present if remote images may be loaded.
    #[serde(default)]
    remote: Option<String>,
}

/// Returns HTML that the dashboard posts into a frame, under a content security policy of its own: a document written
/// by the page itself would inherit the page's, which forbids the styles of mail. Only a frame of the dashboard gets
/// it, so that nobody can show arbitrary HTML under this server's name.
pub(crate) async fn frame(
    State(app): State<AppState>,
    Query(frame): Query<Frame>,
    request: Request,
) -> Result<Response, ApiError> {
    if !is_own_frame(request.headers()) {
        return Err(ApiError::not_found());
    }
    let policy = if frame.remote.is_some() { REMOTE_MAIL_POLICY } else { MAIL_POLICY };
    let mut html = body::read_page(request, &app, MAX_FRAME_BYTES).await?;
    if !html.starts_with(FIELD) {
        return Err(Code::BadRequest.into());
    }
    html.drain(..FIELD.len());
    let mut fields = HeaderMap::from_iter(html_headers(policy));
    // Chromium resolves the host names of links in advance.
    fields.insert("x-dns-prefetch-control", HeaderValue::from_static("off"));
    Ok((fields, html).into_response())
}

/// Returns true for a frame in a page of this server, by Fetch Metadata; false for one in an attacker's page.
fn is_own_frame(headers: &HeaderMap) -> bool {
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|field| field == value);
    has("sec-fetch-site", "same-origin") && has("sec-fetch-dest", "iframe")
}
