//! URIs in header fields and DNS records (RFC 3986).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::address::Domain;

/// Characters that a URI must not contain unencoded (RFC 3986 §2). `%` is absent, so that existing percent-encoding
/// stays.
const UNSAFE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// Converts a URI to ASCII: its host to A-labels, the rest percent-encoded (RFC 3987 §3.1). Whitespace comes from
/// folding and is dropped.
pub(crate) fn to_ascii(text: &str) -> Option<String> {
    let text: Cow<'_, str> = if text.contains(char::is_whitespace) {
        text.split_whitespace().collect::<String>().into()
    } else {
        text.into()
    };
    let (scheme, rest) = split_scheme(&text)?;
    let (before, host, after) = split_host(scheme, rest)?;
    let host = if host.is_ascii() { host.to_owned() } else { Domain::parse(host).ok()?.to_string() };
    let encode = |text| utf8_percent_encode(text, UNSAFE).to_string();
    Some(format!("{scheme}:{}{}{}", encode(before), encode(&host), encode(after)))
}

/// Splits a URI after its scheme (RFC 3986 §3.1); neither part is empty.
pub(crate) fn split_scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (is_scheme && !rest.is_empty()).then_some((scheme, rest))
}

/// Splits the part after the scheme before and after its host.
fn split_host<'u>(scheme: &str, rest: &'u str) -> Option<(&'u str, &'u str, &'u str)> {
    let (start, end) = if let Some(authority) = rest.strip_prefix("//") {
        let end = 2 + authority.find(['/', '?', '#']).unwrap_or(authority.len());
        let start = rest.get(..end)?.rfind('@').map_or(2, |at| at + 1);
        let port = rest
            .get(start..end)?
            .rfind(':')
            .filter(|_| !rest.get(start..end).is_some_and(|host| host.starts_with('[')));
        let end = port.map_or(end, |port| start + port);
        if start == end {
            return None;
        }
        (start, end)
    } else if scheme.eq_ignore_ascii_case("mailto") {
        let end = rest.find(['?', ',']).unwrap_or(rest.len());
        let start = rest.get(..end)?.rfind('@')? + 1;
        (start, end)
    } else if ["http", "https", "ftp"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    } else {
        (0, 0)
    };
    Some((rest.get(..start)?, rest.get(start..end)?, rest.get(end..)?))
}

#[cfg(test)]
mod tests {
    use super::{split_scheme, to_ascii};

    #[test]
    fn a_uri_has_a_scheme_and_a_host() {
        for (text, wanted) in [
            ("https://bücher.example:81/ü?q=ä b", Some("https://xn--bcher-kva.example:81/%C3%BC?q=%C3%A4b")),
            ("mailto:ü@bücher.example", Some("mailto:%C3%BC@xn--bcher-kva.example")),
            ("https:///x", None),
            ("https:x", None),
            ("mailto:x", None),
            ("1a:b", None),
            ("click here", None),
        ] {
            assert_eq!(to_ascii(text).as_deref(), wanted, "{text}");
        }
        assert_eq!(split_scheme("a+b:c:d"), Some(("a+b", "c:d")));
        assert_eq!(split_scheme("a:"), None);
    }
}
