//! Normalizes the path of a request for the router (contract 1.1).
//!
//! The router compares the raw path; unnecessary escapes are decoded here, so that `/v1/m%65` is `/v1/me`. All others
//! stay, including an encoded slash: segments are split before they are decoded.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// Normalizes the path of a request; a path with malformed escapes stays as it is.
pub(super) fn respell(uri: &mut Uri) {
    let Some(path) = unescaped(uri.path()) else { return };
    let whole = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(whole).ok();
    if let Ok(respelt) = Uri::from_parts(parts) {
        *uri = respelt;
    }
}

/// Returns the path with unreserved characters decoded (RFC 3986 §6.2.2.2); `None` if nothing changes.
fn unescaped(path: &str) -> Option<String> {
    let (head, rest) = path.split_once('%')?;
    let mut out = String::with_capacity(path.len());
    out.push_str(head);
    for piece in rest.split('%') {
        let (digits, text) = piece.split_at_checked(2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        match char::from(u8::from_str_radix(digits, 16).ok()?) {
            plain if is_unreserved(plain) => out.push(plain),
            _ => out.extend(['%'].into_iter().chain(digits.chars())),
        }
        out.push_str(text);
    }
    Some(out)
}

/// RFC 3986 §2.3.
const fn is_unreserved(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~')
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    fn respelt(uri: &str) -> String {
        let mut uri: Uri = uri.parse().unwrap();
        respell(&mut uri);
        uri.to_string()
    }

    #[test]
    fn only_escapes_that_need_none_are_undone() {
        for (uri, wanted) in [
            ("/v1/m%65?a=%65", "/v1/me?a=%65"),
            ("/api/%64omains/acme%2Edev", "/api/domains/acme.dev"),
            ("http://a.dev/%7e%5F%2d", "http://a.dev/~_-"),
            ("/a%2Fb%2fc", "/a%2Fb%2fc"),
            ("/a%2565", "/a%2565"),
            ("/%c3%bc%40%20", "/%c3%bc%40%20"),
            ("/%65%", "/%65%"),
            ("/%65%%366", "/%65%%366"),
            ("/%65%+5", "/%65%+5"),
            ("/plain", "/plain"),
        ] {
            assert_eq!(respelt(uri), wanted, "{uri}");
        }
    }
}
