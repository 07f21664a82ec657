//! Listeners on loopback and pages of other origins (contract 1.10), setup by a forwarder (2.2), ambiguous requests and
//! HSTS (1.1).

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use mailkite::testing::clock::Clock;
use mailkite::testing::config::{Config, Signup};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::api::{Answer, Api};
use crate::support::machine::own_address;
use crate::support::server::{DEADLINE, Server};
use crate::support::smtp::any_certificate;

const PASSWORD: &str = "correct horse battery";

/// The configuration of `mailkite dev`: open sign-up, and a public URL on this machine.
fn dev(config: &mut Config) {
    config.auth.signup = Signup::Open;
    config.public_url = "http://localhost:8080".to_owned();
}

/// Sends what a browser sends for a page of another origin, and expects the refusal.
const FOREIGN: [(&str, &str, &str); 12] = [
    ("Origin", "https://evil.example", "foreign_origin"),
    ("Origin", "http://localhost.evil.example:8080", "foreign_origin"),
    ("Origin", "null", "foreign_origin"),
    ("Origin", "file://", "foreign_origin"),
    ("Origin", "", "foreign_origin"),
    ("Sec-Fetch-Site", "cross-site", "foreign_origin"),
    ("Host", "evil.example", "foreign_host"),
    ("Host", "evil.example:8080", "foreign_host"),
    ("Host", "127.0.0.1.evil.example", "foreign_host"),
    ("Host", "localhost@evil.example", "foreign_host"),
    ("Host", "0.0.0.0:8080", "foreign_host"),
    ("Host", "", "foreign_host"),
];

fn assert_closed(what: &str, answer: &Answer, code: &str) {
    assert_eq!((answer.status, answer.code()), (403, code), "{what}: {answer:?}");
    let cors_fields: Vec<&String> =
        answer.headers.keys().filter(|name| name.starts_with("access-control-")).collect();
    assert!(cors_fields.is_empty(), "{what}: {cors_fields:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_elsewhere_reaches_nothing_over_loopback() {
    let server = Server::start_with(Clock::System, dev).await;
    let (api, owner) = (server.anonymous(), server.owner().await);
    let sign_up = json!({"email": "eve@evil.example", "password": PASSWORD}).to_string();
    let file = json!({"url": format!("http://{}/api/health", server.http)}).to_string();
    let before = server.query::<i64>("SELECT count(*) FROM account").await;
    for (name, value, code) in FOREIGN {
        let with = [(name, value), ("Content-Type", "text/plain")];
        for (method, path, body) in [
            ("POST", "/api/auth/signup", Some(sign_up.as_bytes())),
            ("POST", "/api/auth/login", Some(b"{}".as_slice())),
            ("POST", "/v1/attachments", Some(file.as_bytes())),
            ("POST", "/api/domains/inbox.test/webhook/test", None),
            ("POST", "/api/auth/verify?token=x", None),
            ("GET", "/api/health", None),
            ("GET", "/api/openapi.json", None),
            ("GET", "/api/keys", None),
            ("GET", "/att/2Hk9QpVn4tLdA1B2/0?exp=1&sig=x", None),
            ("GET", "/metrics", None),
            ("GET", "/v1/agent", None),
            ("GET", "/nothing", None),
            ("GET", "/", None),
        ] {
            let what = format!("{method} {path} {name}: {value}");
            assert_closed(&what, &owner.exchange(method, path, &with, body).await, code);
            assert_closed(&what, &api.exchange(method, path, &with, body).await, code);
        }
        let preflight = [(name, value), ("Access-Control-Request-Method", "POST")];
        let asked = api.exchange("OPTIONS", "/api/auth/signup", &preflight, None).await;
        assert_closed(&format!("OPTIONS {name}: {value}"), &asked, code);
    }
    assert_eq!(server.query::<i64>("SELECT count(*) FROM account").await, before);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM upload").await, 0);

    // The host that a request names otherwise.
    let absolute = "http://evil.example/api/health";
    assert_closed(absolute, &api.exchange("GET", absolute, &[("Host", "localhost")], None).await, "foreign_host");
    let absolute = format!("http://{}/api/health", server.http);
    api.exchange("GET", &absolute, &[("Host", "localhost")], None).await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_programs_of_this_machine_go_on() {
    let server = Server::start_with(Clock::System, dev).await;
    let owner = server.owner().await;
    let port = server.http.port();
    for host in
        [format!("localhost:{port}"), format!("127.0.0.1:{port}"), "[::1]".to_owned(), "app.localhost".to_owned()]
    {
        owner.exchange("GET", "/v1/me", &[("Host", &host)], None).await.expect(200);
    }
    let host = ("Host", "localhost:8080");
    for fields in [
        &[("Origin", "http://localhost:8080"), ("Sec-Fetch-Site", "same-origin")][..],
        &[("Origin", "http://localhost:3000"), ("Sec-Fetch-Site", "same-site")],
        &[("Origin", "http://127.0.0.1:3000")],
        &[("Origin", "null"), ("Sec-Fetch-Site", "same-origin")],
        &[("Sec-Fetch-Site", "none")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")],
    ] {
        let answer = owner.exchange("GET", "/v1/me", &[&[host], fields].concat(), None).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{fields:?}");
        answer.expect(200);
    }
    // A link is followed by reading; a form that a page of elsewhere posts is no link.
    let form =
        [host, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")];
    assert_closed("a form", &owner.exchange("POST", "/api/keys/rotate", &form, None).await, "foreign_origin");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_name_and_what_a_trusted_proxy_brings_go_on() {
    let server = Server::start_with(Clock::System, |config| {
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let owner = server.owner().await;
    let host = ("Host", "mail.mailkite.test");
    let own = [host, ("Origin", "https://mail.mailkite.test")];
    owner.exchange("GET", "/v1/me", &own, None).await.expect(200);
    owner.exchange("GET", "/v1/me", &[("Host", "mx.mailkite.test")], None).await.expect(200);
    let page = ("Origin", "https://app.example");
    assert_closed("unproxied", &owner.exchange("GET", "/v1/me", &[host, page], None).await, "foreign_origin");
    for said in [("X-Forwarded-For", "203.0.113.5"), ("X-Forwarded-Proto", "https")] {
        let answer = owner.exchange("GET", "/v1/me", &[host, page, said], None).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        answer.expect(200);
        let answer = owner.exchange("OPTIONS", "/v1/me", &[host, page, said], None).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("*")));
        let rebound = [("Host", "evil.example"), page, said];
        assert_closed("rebound", &owner.exchange("GET", "/v1/me", &rebound, None).await, "foreign_host");
    }
    server.stop().await;

    // Nobody trusts this proxy.
    let server = Server::start().await;
    let fields = [host, page, ("X-Forwarded-For", "203.0.113.5")];
    let answer = server.owner().await.exchange("GET", "/v1/me", &fields, None).await;
    assert_closed("untrusted", &answer, "foreign_origin");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_of_the_network_answer_every_page_as_before() {
    let Some(outer) = own_address() else { return };
    let server = Server::start_with(Clock::System, |config| {
        config.http.listen = vec![SocketAddr::new(outer, 0)];
        config.http.trusted_proxies = vec![outer.into()];
    })
    .await;
    let owner = server.owner().await;
    for (name, value, _) in FOREIGN {
        let answer = owner.exchange("GET", "/v1/me", &[(name, value), ("X-Forwarded-Proto", "https")], None).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{name}: {value}");
        answer.expect(200);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_of_the_metrics_is_no_open_door_either() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start_with(Clock::System, |config| config.metrics.listen = Some(free)).await;
    let metrics = Api::anonymous(free);
    for (name, value, code) in FOREIGN {
        let answer = metrics.exchange("GET", "/metrics", &[(name, value)], None).await;
        assert_closed(&format!("{name}: {value}"), &answer, code);
    }
    let metrics_answer = metrics.exchange("GET", "/metrics", &[], None).await;
    assert_eq!(metrics_answer.status, 200);
    assert!(String::from_utf8(metrics_answer.body).unwrap().contains("mailkite_"));
    server.stop().await;
}

/// Copies bytes both ways, as `ssh -L`, `socat` and balancers do.
async fn forwarder(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_forwarder_the_host_localhost_makes_nobody_the_owner() {
    let server = Server::start_unowned(Clock::System, |config| config.auth.signup = Signup::First).await;
    let (address, body) =
        (forwarder(server.http).await, json!({"email": "eve@evil.example", "password": PASSWORD}).to_string());
    for host in ["localhost", "127.0.0.1", "[::1]", "localhost:8443"] {
        // Plain, and over the TLS that this server itself ends.
        let api = Api::anonymous(address);
        let plain = api.exchange("POST", "/api/auth/signup", &[("Host", host)], Some(body.as_bytes())).await;
        plain.expect_error(403, "setup_token");
        let mut stream = https(address, &[]).await;
        let request = format!(
            "POST /api/auth/signup HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange(&mut stream, &request).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("setup_token"), "{host}: {answer}");
    }
    assert_eq!(server.query::<i64>("SELECT count(*) FROM account").await, 0);
    server.stop().await;
}

async fn https(address: SocketAddr, protocols: &[&str]) -> TlsStream<TcpStream> {
    let mut config = any_certificate();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("mail.mailkite.test").unwrap();
    timeout(DEADLINE, TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.unwrap().unwrap()
}

/// Sends a request that closes its connection; returns the whole answer.
async fn exchange(stream: &mut TlsStream<TcpStream>, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    drop(timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap());
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_the_authority_is_the_host() {
    let server = Server::start().await;
    let io = hyper_util::rt::TokioIo::new(https(server.http, &["h2"]).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let key = server.api_key().await;
    let bearer = format!("Bearer {key}");
    let fine = ("authorization", bearer.as_str());
    for (authority, fields, wanted) in [
        ("mail.mailkite.test", &[fine][..], (200, "")),
        ("localhost:8443", &[fine], (200, "")),
        ("evil.example", &[fine], (403, "foreign_host")),
        ("localhost", &[fine, ("host", "evil.example")], (400, "bad_request")),
        ("localhost", &[fine, ("host", "localhost")], (200, "")),
        ("localhost", &[fine, ("origin", "https://evil.example")], (403, "foreign_origin")),
        ("localhost", &[fine, fine], (400, "bad_request")),
        ("localhost", &[fine, ("authorization", "Bearer x")], (400, "bad_request")),
    ] {
        let request = hyper::Request::get(format!("https://{authority}/v1/me"));
        let request = fields.iter().fold(request, |built, (name, value)| built.header(*name, *value));
        let sent = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
        let answer = timeout(DEADLINE, sent).await.unwrap().unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, body["code"].as_str().unwrap_or_default()), wanted, "{authority} {fields:?}");
    }
    drop(sender);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_stands_twice_is_refused_whatever_is_in_it() {
    let server = Server::start().await;
    let (api, key) = (server.anonymous(), server.api_key().await);
    let (good, bad) = (format!("Bearer {key}"), "Bearer mk_live_x".to_owned());
    for path in ["/v1/me", "/api/health", "/metrics", "/"] {
        for pair in [[&good, &bad], [&bad, &good], [&good, &good]] {
            let twice = pair.map(|value| ("Authorization", value.as_str()));
            api.exchange("GET", path, &twice, None).await.expect_error(400, "bad_request");
            let joined = pair.map(String::as_str).join(", ");
            api.exchange("GET", path, &[("Authorization", &joined)], None).await.expect_error(400, "bad_request");
        }
        let mixed = format!("Basic YTpi,bearer {key}");
        api.exchange("GET", path, &[("authorization", &mixed)], None).await.expect_error(400, "bad_request");
    }
    let owner = api.with(&key);
    for (name, one, other) in [
        ("Content-Type", "application/json", "text/plain"),
        ("Idempotency-Key", "a", "b"),
        ("Range", "bytes=0-1", "bytes=1-2"),
        ("If-Range", "\"a\"", "\"b\""),
        ("Last-Event-ID", "1", "2"),
        ("Origin", "http://localhost", "http://localhost"),
    ] {
        let answer = owner.exchange("POST", "/api/keys/rotate", &[(name, one), (name, other)], None).await;
        answer.expect_error(400, "bad_request");
        assert!(answer.json["error"].as_str().unwrap().contains(&name.to_lowercase()), "{answer:?}");
    }
    owner.get("/v1/me").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_over_https_alone_tell_browsers_to_stay_with_it() {
    let hsts = "strict-transport-security: max-age=31536000\r\n";
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: mail.mailkite.test\r\nConnection: close\r\n\r\n");
    let server = Server::start_with(Clock::System, |config| {
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    for path in ["/", "/api/health", "/v1/me", "/nothing", "/att/x/0", "/metrics"] {
        let answer = exchange(&mut https(server.http, &[]).await, &get(path)).await;
        assert!(answer.contains(hsts), "{path}: {answer}");
        let has_hsts = |answer: &Answer| answer.headers.contains_key("strict-transport-security");
        let api = server.anonymous();
        assert!(!has_hsts(&api.exchange("GET", path, &[], None).await), "{path}");
        assert!(has_hsts(&api.exchange("GET", path, &[("X-Forwarded-Proto", "https")], None).await), "{path}");
        assert!(!has_hsts(&api.exchange("GET", path, &[("X-Forwarded-Proto", "http")], None).await), "{path}");
        // What the client itself claimed stands first.
        let both = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")];
        assert!(!has_hsts(&api.exchange("GET", path, &both, None).await), "{path}");
    }
    server.stop().await;
    for public_url in ["https://localhost:8443", "http://mail.mailkite.test"] {
        let server = Server::start_with(Clock::System, |config| config.public_url = public_url.to_owned()).await;
        let answer = exchange(&mut https(server.http, &[]).await, &get("/api/health").replace("mail.", "mx.")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("strict-transport"), "{public_url}: {answer}");
        server.stop().await;
    }
}
