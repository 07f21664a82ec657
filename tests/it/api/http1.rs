//! Requests as octets of HTTP/1.1: oversize headers, smuggling, pipelining (RFC 9112).

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::conventions::{answers, talk};
use crate::support::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn oversize_headers_are_refused_and_the_server_lives() {
    let server = Server::start().await;
    let (address, owner) = (server.http, server.owner().await);
    let get = |rest: &str| format!("GET /api/health HTTP/1.1\r\nHost: localhost\r\n{rest}Connection: close\r\n\r\n");
    let many: String = (0..1000).map(|n| format!("X-{n}: y\r\n")).collect();
    for (what, request) in [
        ("a long field", get(&format!("X: {}\r\n", "y".repeat(70_000)))),
        ("many fields", get(&many)),
        ("a long name", get(&format!("{}: y\r\n", "X".repeat(70_000)))),
        ("a long path", format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "y".repeat(70_000))),
        ("a line that never ends", "G".repeat(100_000)),
        ("a field without colon", get("X y\r\n")),
        ("a space before the colon", get("X : y\r\n")),
        ("a folded field", get("X: a\r\n b\r\n")),
        ("a control character", get("X: a\u{0}b\r\n")),
        ("a bare CR", get("X: a\rb: c\r\n")),
        ("no host", "GET /api/health HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned()),
        ("two hosts", get("Host: y\r\n")),
        ("no version", "GET /api/health\r\n\r\n".to_owned()),
        ("another version", "GET /api/health HTTP/3.0\r\n\r\n".to_owned()),
        ("spaces in the path", "GET /api/health x HTTP/1.1\r\n\r\n".to_owned()),
        ("SMTP", "EHLO mx.example.com\r\n\r\n".to_owned()),
    ] {
        let answer = talk(address, request.as_bytes()).await;
        let status = answers(&answer);
        assert!(status.iter().all(|status| [400, 414, 431].contains(status)), "{what}: {answer}");
        assert!(status.len() <= 1, "{what}: {answer}");
    }
    owner.get("/v1/me").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_smuggles_a_request_behind_another() {
    let server = Server::start().await;
    let address = server.http;
    let hidden = "GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = |fields: &str, body: &str| {
        format!("POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}{hidden}").into_bytes()
    };
    for (what, request) in [
        ("two lengths", post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}")),
        ("a list of lengths", post("Content-Length: 2, 3\r\n", "{}")),
        ("a signed length", post("Content-Length: +2\r\n", "{}")),
        ("a negative length", post("Content-Length: -2\r\n", "{}")),
        ("a hexadecimal length", post("Content-Length: 0x2\r\n", "{}")),
        ("length, then chunks", post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n")),
        ("chunks, then length", post("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "2\r\n{}\r\n0\r\n\r\n")),
        ("another coding", post("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "{}")),
        ("chunks not last", post("Transfer-Encoding: chunked, gzip\r\n", "2\r\n{}\r\n0\r\n\r\n")),
        ("a coding in disguise", post("Transfer-Encoding: xchunked\r\nContent-Length: 2\r\n", "{}")),
        ("a vertical tab", post("Transfer-Encoding: \u{b}chunked\r\nContent-Length: 2\r\n", "{}")),
        ("a bad chunk", post("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n")),
        ("a huge chunk", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
    ] {
        let answer = talk(address, &request).await;
        assert!(!answer.contains("openapi"), "{what}: {answer}");
        assert!(answers(&answer).iter().all(|status| *status == 400), "{what}: {answer}");
    }
    let old = talk(address, b"POST /api/auth/login HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert_eq!(answers(&old), [400]);
    server.anonymous().get("/api/health").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_pipelined_requests_are_answered_in_order() {
    let server = Server::start().await;
    let address = server.http;
    let old = talk(address, b"GET /api/health HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200") && old.ends_with("{\"ok\":true}"), "{old}");
    let pipeline = "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}\
        GET /api/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n\
        HEAD /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n\
        GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(answers(&talk(address, pipeline.as_bytes()).await), [400, 404, 200, 200]);
    // A client that goes away in the middle harms nobody.
    for cut in [10, 60, pipeline.len() - 3] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(&pipeline.as_bytes()[..cut]).await.unwrap();
    }
    for (host, status) in [("localhost", 200), ("evil.test", 403)] {
        let absolute =
            format!("GET http://{host}/api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(answers(&talk(address, absolute.as_bytes()).await), [status], "{host}");
    }
    let body: Value = server.anonymous().get("/api/health").await.expect(200);
    assert_eq!(body, json!({"ok": true}));
    server.stop().await;
}
