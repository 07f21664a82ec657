//! Files embedded in the binary: the dashboard's assets, and the plain pages behind mailed links.
//!
//! `build.rs` embeds each asset plain and compressed. Their path contains a hash of all assets, so a browser caches
//! them forever and never mixes two versions.

use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    IF_NONE_MATCH, REFERRER_POLICY, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::error::ApiError;
use super::extract::Path;
use data_encoding::HEXLOWER;

/// Path of the assets of this version.
const ASSETS_PATH: &str = concat!("/assets/", env!("MAILKITE_ASSETS"));
const VERSION: &str = env!("MAILKITE_ASSETS");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const NOTICE_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const QUESTION_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const FOR_EVER: &str = "public, max-age=31536000, immutable";

#[derive(RustEmbed)]
#[folder = "$OUT_DIR/assets"]
struct Assets;

/// Renders a page with `text` and a button that posts to the page's own URL, for mailed links that change something.
/// Opening a link changes nothing, since mail scanners open links too. The page needs no script.
pub(crate) fn confirmation_page(title: &str, text: &str, button: &str) -> Response {
    let texts = [("{{title}}", title), ("{{text}}", text), ("{{button}}", button)];
    let mut response = page(StatusCode::OK, "ask.html", QUESTION_POLICY, &texts);
    // With `no-referrer` browsers would post the form with the origin `null`.
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Renders a page that reports a result.
pub(crate) fn result_page(status: StatusCode, title: &str, text: &str) -> Response {
    page(status, "notice.html", NOTICE_POLICY, &[("{{title}}", title), ("{{text}}", text)])
}

fn page(status: StatusCode, name: &str, policy: &'static str, texts: &[(&str, &str)]) -> Response {
    let Some(html) = html(name, texts) else { return ApiError::not_found().into_response() };
    (status, html_headers(policy), html).into_response()
}

/// Returns the header fields of a page with this content security policy.
pub(super) fn html_headers(policy: &'static str) -> [(HeaderName, HeaderValue); 5] {
    [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (OPENER_POLICY, HeaderValue::from_static("same-origin")),
        (RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
    ]
}

/// Renders a page, with texts in place of their marks.
pub(super) fn html(name: &str, texts: &[(&str, &str)]) -> Option<String> {
    let file = Assets::get(name)?;
    let html = String::from_utf8_lossy(&file.data).replace("{{assets}}", ASSETS_PATH);
    Some(texts.iter().fold(html, |html, (mark, text)| html.replace(mark, &escape(text))))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// Returns true if the client has the version of this tag (RFC 9110 §13.1.2).
pub(super) fn matches_etag(headers: &HeaderMap, tag: &str) -> bool {
    let fields = headers.get_all(IF_NONE_MATCH).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(',')).any(|known| known.trim().trim_start_matches("W/") == tag)
}

/// Serves styles, modules and images; pages have their own paths.
pub(crate) async fn asset(
    Path((version, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let kind = match name.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => return Err(ApiError::not_found()),
    };
    if version != VERSION {
        return Err(ApiError::not_found());
    }
    let (encoding, file) = smallest(&name, &headers).ok_or_else(ApiError::not_found)?;
    let tag = format!("\"{}\"", HEXLOWER.encode(&file.metadata.sha256_hash()));
    let unchanged = matches_etag(&headers, &tag);
    let mut fields = HeaderMap::new();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static(FOR_EVER));
    fields.insert(VARY, HeaderValue::from_static("accept-encoding"));
    fields.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    fields.extend(HeaderValue::from_str(&tag).ok().map(|tag| (ETAG, tag)));
    fields.extend(encoding.map(|encoding| (CONTENT_ENCODING, HeaderValue::from_static(encoding))));
    if unchanged {
        return Ok((StatusCode::NOT_MODIFIED, fields).into_response());
    }
    Ok((fields, file.data).into_response())
}

/// Returns the smallest encoding of a file that the client accepts.
fn smallest(name: &str, headers: &HeaderMap) -> Option<(Option<&'static str>, EmbeddedFile)> {
    let accepted: Vec<&str> =
        headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).collect();
    for (encoding, ending) in [("br", "br"), ("gzip", "gz")] {
        if accepts_encoding(&accepted, encoding)
            && let Some(file) = Assets::get(&format!("{name}.{ending}"))
        {
            return Some((Some(encoding), file));
        }
    }
    Assets::get(name).map(|file| (None, file))
}

/// Returns true if an encoding is named and not refused by `q=0` (RFC 9110 §12.5.3).
fn accepts_encoding(accepted: &[&str], encoding: &str) -> bool {
    accepted.iter().flat_map(|value| value.split(',')).any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, "q=1"));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case(encoding) && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_taken_when_it_is_named_and_not_refused() {
        assert!(accepts_encoding(&["gzip, deflate, br;q=0.8"], "br"));
        assert!(accepts_encoding(&["deflate", "GZIP"], "gzip"));
        for refusal in ["br;q=0", "br; q=0.000", "gzip", "", "brotli"] {
            assert!(!accepts_encoding(&[refusal], "br"), "{refusal}");
        }
    }
}
