//! A URL that outgoing HTTP accepts, parsed once (contract 9.1).
//!
//! Pure. The WHATWG parser determines the host, so decimal, octal, hexadecimal, full-width and percent-encoded
//! spellings of an address all become that address before anything is checked.

use hyper::Uri;
use url::{Host, Url};

use super::guard::Policy;

/// The longest URL, in characters (contract 1.9).
const MAX_URL_CHARS: usize = 2048;

/// Ports of other protocols: the bad ports of the Fetch standard.
const BAD_PORTS: [u16; 83] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
    531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
    5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
];

/// A checked URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    uri: Uri,
    origin: String,
}

/// The reasons to refuse a URL; the API answers all of them with 400 `bad_url`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// More than 2,048 characters.
    #[error("the URL is longer than 2,048 characters")]
    TooLong,
    /// Not a URL, or with white space or control characters.
    #[error("this is not a valid URL")]
    Malformed,
    /// Neither `https`, nor `http` where that is allowed.
    #[error("the URL must begin with https://")]
    Scheme,
    /// A user name or password.
    #[error("the URL must not contain a user name or password")]
    UserInfo,
    /// A port of another protocol.
    #[error("the URL names a port that is not used for HTTP")]
    Port,
}

impl Target {
    /// Parses a URL and checks its form; its addresses are checked at each connection.
    ///
    /// `http` is accepted for the hosts that `allow_localhost` allows, and for an IP address inside `allow_networks`:
    /// an operator who allows a network by its addresses also decides that it needs no TLS. The fragment is dropped,
    /// the query kept.
    pub fn parse(text: &str, policy: &Policy) -> Result<Self, BadUrl> {
        if text.chars().count() > MAX_URL_CHARS {
            return Err(BadUrl::TooLong);
        }
        // The WHATWG parser would silently remove these.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(BadUrl::Malformed);
        }
        let mut url = Url::parse(text).map_err(|_| BadUrl::Malformed)?;
        let plain_allowed = || match url.host() {
            Some(Host::Ipv4(ip)) if policy.allows(ip.into()) => true,
            Some(Host::Ipv6(ip)) if policy.allows(ip.into()) => true,
            _ => url.host_str().is_some_and(|host| policy.allows_localhost(host)),
        };
        match url.scheme() {
            "https" => {}
            "http" if plain_allowed() => {}
            _ => return Err(BadUrl::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadUrl::UserInfo);
        }
        let host = url.host_str().ok_or(BadUrl::Malformed)?;
        let port = url.port_or_known_default().ok_or(BadUrl::Port)?;
        if BAD_PORTS.contains(&port) {
            return Err(BadUrl::Port);
        }
        let origin = format!("{}://{host}:{port}", url.scheme());
        url.set_fragment(None);
        let uri = Uri::try_from(url.as_str()).map_err(|_| BadUrl::Malformed)?;
        Ok(Self { uri, origin })
    }

    /// Returns the lane of a URL: its origin, whatever the policy says at the moment.
    pub fn lane_of(text: &str) -> String {
        let origin = Url::parse(text)
            .ok()
            .and_then(|url| Some(format!("{}://{}:{}", url.scheme(), url.host_str()?, url.port_or_known_default()?)));
        origin.unwrap_or_else(|| text.to_owned())
    }

    /// Returns a hash of the path, without the query, to tell the endpoints of an origin apart.
    pub(crate) fn endpoint_of(text: &str) -> i64 {
        let url = Url::parse(text).ok();
        let path = url.as_ref().map_or(text, Url::path);
        let hash = ring::digest::digest(&ring::digest::SHA256, path.as_bytes());
        hash.as_ref().iter().take(4).fold(0, |number, byte| (number << 8) | i64::from(*byte))
    }

    /// Returns `https://host:port`, always with the port: endpoints of one origin fail together.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the URL to request, without its fragment.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;

    fn parse(url: &str) -> Result<Target, BadUrl> {
        Target::parse(url, &Policy::default())
    }

    #[test]
    fn https_urls_keep_their_query_and_lose_their_fragment() {
        for (url, requested, origin) in [
            (
                "https://app.acme.dev/hook?a=1&b=%20#top",
                "https://app.acme.dev/hook?a=1&b=%20",
                "https://app.acme.dev:443",
            ),
            ("HTTPS://App.ACME.dev:443", "https://app.acme.dev/", "https://app.acme.dev:443"),
            ("https://app.acme.dev:8443/", "https://app.acme.dev:8443/", "https://app.acme.dev:8443"),
            ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC", "https://xn--bcher-kva.example:443"),
            ("https://[2606:4700::1]/", "https://[2606:4700::1]/", "https://[2606:4700::1]:443"),
            ("https://a.dev/x|y^z{}\"<>`?'q'", "https://a.dev/x|y^z%7B%7D%22%3C%3E%60?%27q%27", "https://a.dev:443"),
        ] {
            let target = parse(url).unwrap();
            assert_eq!((target.uri().to_string().as_str(), target.origin()), (requested, origin), "{url}");
        }
    }

    #[test]
    fn every_spelling_of_an_address_becomes_that_address() {
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7f.1/",
            "https://017700000001/",
            "https://0177.0.0.01/",
            "https://127.0.0.1./",
            "https://%31%32%37.0.0.1/",
            "https://１２７.０.０.１/",
            "https://①②⑦.0.0.1/",
            "https://127。0。0。1/",
        ] {
            assert_eq!(parse(url).unwrap().origin(), "https://127.0.0.1:443", "{url}");
        }
        assert_eq!(parse("https://[::ffff:127.0.0.1]/").unwrap().origin(), "https://[::ffff:7f00:1]:443");
        assert_eq!(parse("https://[0:0::0:1]/").unwrap().origin(), "https://[::1]:443");
    }

    #[test]
    fn what_is_no_https_url_is_refused_with_its_reason() {
        let long = format!("https://a.dev/{}", "x".repeat(2035));
        for (url, reason) in [
            ("", BadUrl::Malformed),
            ("app.acme.dev/hook", BadUrl::Malformed),
            ("/hook", BadUrl::Malformed),
            ("https://", BadUrl::Malformed),
            ("https:///", BadUrl::Malformed),
            ("https://:443/", BadUrl::Malformed),
            (" https://a.dev/", BadUrl::Malformed),
            ("https://a.dev/\n", BadUrl::Malformed),
            ("https://a.d\tev/", BadUrl::Malformed),
            ("https://a b/", BadUrl::Malformed),
            ("https://a.dev/\0", BadUrl::Malformed),
            ("https://a.dev:65536/", BadUrl::Malformed),
            ("https://a.dev:x/", BadUrl::Malformed),
            ("https://256.256.256.256/", BadUrl::Malformed),
            ("https://[::1/", BadUrl::Malformed),
            ("https://a%2fb/", BadUrl::Malformed),
            ("http://a.dev/", BadUrl::Scheme),
            ("http://localhost/", BadUrl::Scheme),
            ("ftp://a.dev/", BadUrl::Scheme),
            ("file:///etc/passwd", BadUrl::Scheme),
            ("gopher://a.dev/", BadUrl::Scheme),
            ("javascript:alert(1)", BadUrl::Scheme),
            ("https://user@a.dev/", BadUrl::UserInfo),
            ("https://user:secret@a.dev/", BadUrl::UserInfo),
            ("https://:secret@a.dev/", BadUrl::UserInfo),
            ("https://a.dev:0/", BadUrl::Port),
            ("https://a.dev:25/", BadUrl::Port),
            ("https://a.dev:22/", BadUrl::Port),
            (long.as_str(), BadUrl::TooLong),
        ] {
            assert_eq!(parse(url).err(), Some(reason), "{url:?}");
        }
        assert!(long.get(..2048).map(parse).unwrap().is_ok());
    }

    #[test]
    fn http_needs_a_host_that_the_operator_opened() {
        let localhost = Policy { allow_localhost: true, ..Policy::default() };
        for url in
            ["http://localhost:3000/", "http://127.0.0.1/", "http://[::1]:9/a", "http://LOCALHOST/", "http://127.1/"]
        {
            let parsed = Target::parse(url, &localhost);
            assert_eq!(parsed.err(), url.contains(":9/").then_some(BadUrl::Port), "{url}");
        }
        for url in
            ["http://localhost./", "http://127.0.0.2/", "http://a.localhost/", "http://a.dev/", "http://10.0.0.1/"]
        {
            assert_eq!(Target::parse(url, &localhost), Err(BadUrl::Scheme), "{url}");
        }
        let network = Policy { allow_networks: vec!["10.0.0.0/8".parse().unwrap()], ..Policy::default() };
        assert_eq!(Target::parse("http://10.0.0.1:8000/", &network).unwrap().origin(), "http://10.0.0.1:8000");
        assert_eq!(Target::parse("http://11.0.0.1/", &network), Err(BadUrl::Scheme));
        assert_eq!(Target::parse("http://ten.internal/", &network), Err(BadUrl::Scheme));
    }
}
