//! The list of messages over real sockets: order, cursor, search, errors, credentials.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::dev_process::{http_get, http_get_with};
use crate::support::server::Server;

async fn server_with_mail(count: usize) -> Server {
    let server = Server::start().await;
    for n in 0..count {
        server.accepted("a@inbox.test", &format!("number {n}")).await;
    }
    server
}

fn subjects(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|row| row["subject"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_newest_first_and_its_cursor_skips_nothing() {
    let server = server_with_mail(5).await;
    let (status, first) = server.api("/api/messages?limit=2").await;
    assert_eq!((status, subjects(&first)), (200, vec!["number 4", "number 3"]));
    let cursor = first[1]["received_at"].as_i64().unwrap();
    let (_, rest) = server.api(&format!("/api/messages?before={cursor}")).await;
    assert_eq!(subjects(&rest), ["number 2", "number 1", "number 0"]);
    let (_, newer) = server.api(&format!("/api/messages?after={cursor}")).await;
    assert_eq!(subjects(&newer), ["number 4"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_parts_of_sender_recipient_and_subject_whether_indexed_or_not() {
    let server = server_with_mail(3).await;
    for indexed in [false, true] {
        if indexed {
            server.write(|tx, _, _| mailkite::testing::store::search::fill(tx, 1_000)).await;
        }
        assert_eq!(subjects(&server.api("/api/messages?search=BER%201").await.1), ["number 1"]);
        assert_eq!(subjects(&server.api("/api/messages?search=2").await.1), ["number 2"]);
        assert_eq!(server.api("/api/messages?search=ada@example").await.1.as_array().unwrap().len(), 3);
        for nothing in ["%25", "_", "%22%20OR%20%22", "nu*", "\u{201c}"] {
            let (status, found) = server.api(&format!("/api/messages?search={nothing}")).await;
            assert_eq!((status, found), (200, Value::Array(Vec::new())), "{nothing}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_queries_are_refused_and_unknown_filters_are_empty() {
    let server = server_with_mail(1).await;
    for bad in ["limit=ten", "before=x", "after=1.5", "direction=up", "status=lost"] {
        let (status, error) = server.api(&format!("/api/messages?{bad}")).await;
        assert_eq!((status, &error["code"]), (400, &Value::from("bad_query")), "{bad}");
    }
    for empty in ["direction=outbound", "status=dropped", "domain=elsewhere.test"] {
        assert_eq!(server.api(&format!("/api/messages?{empty}")).await, (200, Value::Array(Vec::new())), "{empty}");
    }
    for one in [
        "limit=0",
        "limit=9999",
        "domain=inbox.test",
        "domain=INBOX.test",
        "domain=inbox.test.",
        "status=received",
        "unknown=1",
    ] {
        assert_eq!(server.api(&format!("/api/messages?{one}")).await.1.as_array().unwrap().len(), 1, "{one}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_key_there_is_nothing_to_see() {
    let server = Server::start().await;
    let base = format!("http://{}", server.http);
    let wrong = format!("Authorization: Bearer mk_live_{}\r\n", "x".repeat(40));
    let basic = "Authorization: Basic YTpi\r\n".to_owned();
    for (headers, code) in [(String::new(), "unauthorized"), (basic, "unauthorized"), (wrong, "bad_key")] {
        for path in ["/api/messages", "/v1/me", "/api/messages/msg_0000000000000000", "/api/deliveries/x/attempts"] {
            let (status, head, body) = http_get_with(&base, path, &headers).await;
            let error: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((status, error["code"].as_str().unwrap()), (401, code), "{path}");
            assert!(head.contains("www-authenticate: bearer"), "{head}");
        }
    }
    let lower = format!("authorization: bearer {}\r\n", server.api_key().await);
    assert_eq!(http_get_with(&base, "/v1/me", &lower).await.0, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_accounts_message_is_an_unknown_one() {
    let server = Server::start().await;
    server.other_account("other.test", "http://127.0.0.1:1/").await;
    let id = server.accepted("a@other.test", "secret").await;
    let unknown = server.api("/api/messages/msg_0000000000000000").await;
    assert_eq!(unknown.0, 404);
    assert_eq!(server.api(&format!("/api/messages/{id}")).await, unknown);
    assert_eq!(server.api(&format!("/api/messages/{id}/raw")).await, unknown);
    assert_eq!(server.api("/api/messages").await.1, Value::Array(Vec::new()));
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_keeps_the_conventions() {
    let server = Server::start().await;
    let base = format!("http://{}", server.http);
    for (path, status, code) in [
        ("/api/health", 200, None),
        ("/api/ready", 200, None),
        ("/api/nothing", 404, Some("not_found")),
        ("/api/messages/", 404, Some("not_found")),
        ("/api/lists/x", 404, Some("not_supported")),
        ("/v1/agent", 404, Some("not_supported")),
        ("/att/2Hk9QpVn4tLdA1B2/0", 403, Some("bad_signature")),
    ] {
        let (found, head, body) = http_get(&base, path).await;
        assert_eq!(found, status, "{path}");
        for header in ["x-request-id: ", "cache-control: no-store", "access-control-allow-origin: *"] {
            assert!(head.contains(header), "{path} lacks {header}: {head}");
        }
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"].as_str(), code, "{path}");
    }
    let (status, head, page) = http_get(&base, "/").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(!head.contains("unsafe"), "{head}");
    assert!(String::from_utf8_lossy(&page).contains("data-signup=\"closed\""));
    assert_eq!(http_get(&base, "/metrics").await.0, 404, "metrics need their token here");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_refused_body_to_its_end_reads_why() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let key = owner.credential.as_deref().unwrap();
    for (credential, path, size, status, code) in [
        (key, "/api/templates", 4, "413 ", "body_too_large"),
        (key, "/v1/attachments?filename=a", 30, "413 ", "body_too_large"),
        (key, "/v1/nothing", 8, "404 ", "not_found"),
        (key, "/v1/agent", 8, "404 ", "not_supported"),
        ("mk_live_0000000000000000000000000000000000000000", "/v1/send", 20, "401 ", "bad_key"),
    ] {
        let body = vec![b' '; size << 20];
        let mut tcp = TcpStream::connect(server.http).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {credential}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        tcp.write_all(head.as_bytes()).await.unwrap();
        tcp.write_all(&body).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code), "{path}: {answer}");
        // Who sends nothing more is told at once.
        let mut tcp = TcpStream::connect(server.http).await.unwrap();
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(10), tcp.read_to_string(&mut answer)).await;
        assert!(read.is_ok() && answer.contains(code), "{path}: {answer}");
    }
    server.stop().await;
}
