//! Access over loopback (contract 1.10): allowed are programs of this machine, its pages, and pages of the server's own
//! names; no page of another origin in a local browser, whatever name its site resolves to 127.0.0.1.
//!
//! Pure. Browsers send Host, Origin and Fetch Metadata, which no page can forge; clients that send neither of the
//! latter two are not browsers.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Request};
use url::{Host, Url};

use super::error::Code;

const FETCH_SITE: &str = "sec-fetch-site";

/// The server's own names over loopback.
#[derive(Clone, Debug)]
pub(crate) struct OwnNames {
    /// Host of `public_url`.
    public: Option<Host<String>>,
    /// `hostname`, which the operator's DNS also points here.
    mail: Option<Host<String>>,
    is_https: bool,
}

impl OwnNames {
    /// Collects loopback names, the host of `public_url`, and `hostname`.
    pub(crate) fn new(public_url: &str, hostname: &str) -> Self {
        let url = Url::parse(public_url).ok();
        let is_https = url.as_ref().is_some_and(|url| url.scheme() == "https");
        let public = url.and_then(|url| url.host().map(|host| host.to_owned()));
        Self { public, mail: Host::parse(hostname).ok(), is_https }
    }

    /// Returns true if `public_url` names this machine only, as in dev mode.
    pub(super) fn is_private(&self) -> bool {
        self.public.as_ref().is_some_and(is_loopback)
    }

    /// Returns true if clients should be told to use HTTPS only.
    pub(super) fn want_https(&self) -> bool {
        self.is_https && !self.is_private()
    }

    /// Admits a request over loopback that names this server and comes from none but its own pages. A trusted proxy
    /// carries clients of the internet, whose pages may have any origin.
    ///
    /// # Errors
    /// `foreign_host` or `foreign_origin`.
    pub(crate) fn admit<B>(&self, request: &Request<B>, is_proxied: bool) -> Result<(), Code> {
        let headers = request.headers();
        let fields = headers.get_all(HOST).iter().map(|host| host.to_str().ok());
        let hosts = request.uri().authority().map(|authority| Some(authority.as_str())).into_iter().chain(fields);
        let mut local = true;
        for host in hosts {
            match host.and_then(named_host) {
                Some(host) if is_loopback(&host) => {}
                Some(host) if self.is_own_name(&host) => local = false,
                _ => return Err(Code::ForeignHost),
            }
        }
        if is_proxied || self.is_own_origin(request.method(), headers, local) {
            Ok(())
        } else {
            Err(Code::ForeignOrigin)
        }
    }

    /// `local`: the request names the server by a loopback name.
    fn is_own_origin(&self, method: &Method, headers: &HeaderMap, local: bool) -> bool {
        let sites: Vec<&[u8]> = headers.get_all(FETCH_SITE).iter().map(|site| site.as_bytes()).collect();
        let mut origins = headers.get_all(ORIGIN).iter().peekable();
        if origins.peek().is_some() {
            // A form's origin is `null` if the page sends no referrer; Sec-Fetch-Site still marks it as same-origin.
            // Other origins are checked by themselves.
            let is_hidden = |origin: &str| origin == "null" && sites == [b"same-origin"];
            return origins.all(|origin| origin.to_str().is_ok_and(|one| is_hidden(one) || self.is_own(one)));
        }
        sites.iter().all(|site| match *site {
            b"same-origin" | b"none" => true,
            // The site of localhost is this machine only; the site of public_url may include other hosts.
            b"same-site" => local,
            _ => is_followed_link(method, headers),
        })
    }

    fn is_own(&self, origin: &str) -> bool {
        let Ok(url) = Url::parse(origin) else { return false };
        let host = url.host().map(|host| without_final_dot(host.to_owned()));
        // Browsers send the canonical spelling of an origin.
        let is_web = matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == origin;
        is_web && host.is_some_and(|host| is_loopback(&host) || self.is_own_name(&host))
    }

    fn is_own_name(&self, host: &Host<String>) -> bool {
        [&self.public, &self.mail].into_iter().flatten().any(|own| own == host)
    }
}

/// Returns true for a top-level navigation: the page that has the link cannot read the response.
fn is_followed_link(method: &Method, headers: &HeaderMap) -> bool {
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|field| field == value);
    let reads = method == Method::GET || method == Method::HEAD;
    reads && has("sec-fetch-mode", "navigate") && has("sec-fetch-dest", "document")
}

/// Parses the host of a Host field or an authority.
fn named_host(authority: &str) -> Option<Host<String>> {
    let parsed: Authority = authority.parse().ok()?;
    // No user information, and only a numeric port.
    let port = authority.strip_prefix(parsed.host())?;
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    Host::parse(parsed.host()).ok().filter(|_| is_port).map(without_final_dot)
}

fn without_final_dot(host: Host<String>) -> Host<String> {
    match host {
        Host::Domain(name) => Host::Domain(name.strip_suffix('.').unwrap_or(&name).to_owned()),
        address => address,
    }
}

/// RFC 6761 §6.3: localhost and names below it, and loopback addresses.
fn is_loopback(host: &Host<String>) -> bool {
    match host {
        Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(*address).to_canonical().is_loopback(),
    }
}

/// Returns true if a Host field or an authority is a loopback name.
pub(super) fn is_loopback_name(authority: &str) -> bool {
    named_host(authority).is_some_and(|host| is_loopback(&host))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    fn ask(uri: &str, fields: &[(&str, &str)]) -> Result<(), Code> {
        let request =
            fields.iter().fold(Request::builder().uri(uri), |built, (name, value)| built.header(*name, *value));
        OwnNames::new("https://mail.acme.dev", "mx.acme.dev").admit(&request.body(()).unwrap(), false)
    }

    #[test]
    fn a_host_is_a_loopback_name_or_that_of_the_public_url() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.:80",
            "app.localhost:1",
            "127.0.0.1:8080",
            "127.9.8.7",
            "127.1",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
            "mail.acme.dev",
            "Mail.Acme.Dev.:443",
            "mx.acme.dev",
        ] {
            assert_eq!(ask("/", &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "",
            ":8080",
            "evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "localhost@evil.example",
            "localhost:80@evil.example",
            "x@localhost",
            "acme.dev",
            "x.mail.acme.dev",
            "0.0.0.0:8080",
            "[::]",
            "192.168.0.1",
            "localhost evil.example",
            "localhost,evil.example",
            "localhost/evil",
            "localhost:80x",
        ] {
            assert_eq!(ask("/", &[("host", host)]), Err(Code::ForeignHost), "{host}");
        }
        assert_eq!(ask("/", &[]), Ok(()), "HTTP/1.0");
        assert_eq!(ask("http://evil.example/", &[("host", "localhost")]), Err(Code::ForeignHost));
        assert_eq!(ask("http://localhost/", &[("host", "evil.example")]), Err(Code::ForeignHost));
        assert_eq!(ask("http://localhost/", &[]), Ok(()), "HTTP/2");
        assert_eq!(ask("http://evil.example/", &[]), Err(Code::ForeignHost), "HTTP/2");
    }

    #[test]
    fn an_origin_is_a_page_of_this_machine_or_of_the_public_url() {
        let local = ("host", "localhost:8080");
        for fields in [
            &[("origin", "http://localhost:3000")][..],
            &[("origin", "https://mail.acme.dev"), ("sec-fetch-site", "cross-site")],
            &[("origin", "http://[::1]:8080"), ("sec-fetch-site", "same-origin")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
        ] {
            assert_eq!(ask("/", &[&[local], fields].concat()), Ok(()), "{fields:?}");
        }
        for fields in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "http://localhost.evil.example:8080")],
            &[("origin", "http://127.0.0.1.evil.example")],
            &[("origin", "null")],
            &[("origin", "null"), ("sec-fetch-site", "cross-site")],
            &[("origin", "")],
            &[("origin", "file://")],
            &[("origin", "localhost")],
            &[("origin", "chrome-extension://localhost")],
            &[("origin", "http://localhost"), ("origin", "https://evil.example")],
            &[("origin", "https://evil.example"), ("sec-fetch-site", "none")],
            &[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
            &[("origin", "null"), ("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
            &[("origin", "NULL"), ("sec-fetch-site", "same-origin")],
            &[("origin", "http:/localhost")],
            &[("origin", "http:localhost")],
            &[("origin", "http:\\\\localhost")],
            &[("origin", "http://localhost/")],
            &[("origin", "http://localhost/evil")],
            &[("origin", "http://localhost#")],
            &[("origin", "http://evil@localhost")],
            &[("origin", "http://2130706433")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "Cross-Site")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "document")],
        ] {
            assert_eq!(ask("/", &[&[local], fields].concat()), Err(Code::ForeignOrigin), "{fields:?}");
        }
        let public = ("host", "mail.acme.dev");
        assert_eq!(ask("/", &[public, ("sec-fetch-site", "same-site")]), Err(Code::ForeignOrigin));
        assert_eq!(ask("/", &[public, ("sec-fetch-site", "same-origin")]), Ok(()));
    }

    #[test]
    fn a_link_is_followed_by_reading_alone() {
        let fields =
            [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let request = fields
            .iter()
            .fold(Request::post("/").header("host", "localhost"), |built, (name, value)| built.header(*name, *value));
        let names = OwnNames::new("http://localhost:8080", "mx.acme.dev");
        assert_eq!(names.admit(&request.body(()).unwrap(), false), Err(Code::ForeignOrigin));
    }

    #[test]
    fn a_trusted_proxy_brings_pages_of_the_internet_and_no_other_host() {
        let request = |host: &str| {
            let built = Request::builder().header("host", host).header("origin", "https://app.example");
            built.body(()).unwrap()
        };
        let names = OwnNames::new("https://mail.acme.dev", "mx.acme.dev");
        assert_eq!(names.admit(&request("mail.acme.dev"), true), Ok(()));
        assert_eq!(names.admit(&request("127.0.0.1:8080"), true), Ok(()), "what nginx sends unless it is told");
        assert_eq!(names.admit(&request("evil.example"), true), Err(Code::ForeignHost));
    }
}
