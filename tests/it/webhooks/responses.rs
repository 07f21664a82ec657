//! Incomplete responses, connections closed without one, and webhooks that are removed and set again
//!  (contract 3.6, 9.4).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::body::Bytes;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::net::dns::Resolver;
use mailkite::testing::net::egress::{Body, Egress, EgressError, Guard, Limits, Policy, Target};
use mailkite::testing::store::webhooks::routes::AckMode;
use rustls::RootCertStore;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::api::Api;
use crate::support::receiver::{Receiver, Reply, client_config, raw_peer};
use crate::support::server::Server;

const HOOK: &str = "/api/domains/inbox.test/webhook";
const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned()
}

/// The one delivery of a message.
async fn delivery(owner: &Api, message: &str) -> Value {
    let detail = owner.get(&format!("/api/messages/{message}")).await.expect(200);
    assert_eq!(detail["deliveries"].as_array().map(Vec::len), Some(1), "{detail}");
    detail["deliveries"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_2xx_counts_whatever_becomes_of_its_body_unless_the_mode_needs_it() {
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok".as_slice();
    let cut = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n".as_slice();
    let broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n".as_slice();
    let proof = b"HTTP/1.1 200 OK\r\nX-Mailkite-Ack: ok\r\nContent-Length: 100\r\n\r\nno".as_slice();
    let ack = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"status\":\"ok\"}".as_slice();
    let drop = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"status\":\"drop\"}".as_slice();
    let failed = b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\nno".as_slice();
    let gone = b"HTTP/1.1 410 Gone\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nno".as_slice();
    for (mode, answer, status, code, error) in [
        (AckMode::Lenient, short, "delivered", Some(200), None),
        (AckMode::Lenient, cut, "delivered", Some(202), None),
        (AckMode::Lenient, broken, "delivered", Some(200), None),
        (AckMode::Control, drop, "delivered", Some(200), None),
        (AckMode::Ack, proof, "delivered", Some(200), None),
        (AckMode::Ack, ack, "pending", None, Some("bad_response")),
        (AckMode::Ack, cut, "pending", None, Some("bad_response")),
        (AckMode::Lenient, failed, "pending", Some(503), Some("http_status")),
        (AckMode::Ack, gone, "failed", Some(410), Some("gone")),
    ] {
        let peer = raw_peer(answer).await;
        let mut server = Server::start_with(Clock::manual(NOW), |_| {}).await;
        server.route("*@inbox.test", mode, &format!("http://{peer}/hook")).await;
        let message = server.accepted("a@inbox.test", "Half").await;
        let attempted = server.next_attempt().await;
        let shown = String::from_utf8_lossy(answer);
        assert_eq!(
            (attempted.status, attempted.status_code, attempted.error),
            (status, code, error),
            "{mode:?}: {shown}"
        );
        let owner = server.owner().await;
        let detail = owner.get(&format!("/api/messages/{message}")).await.expect(200);
        assert_ne!(detail["message"]["status"], "dropped", "half an instruction is none");
        server.stop_with_any_jobs().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_2xx_counts_though_its_head_is_odd_but_not_where_its_length_is_none() {
    let many = |count: usize| (0..count).map(|number| format!("X-{number}: y\r\n")).collect::<String>();
    for (fields, error) in [
        ("X-Long: a\r\n  b\r\n".to_owned(), None),
        ("X-Long:\r\n\tb\r\n \r\n".to_owned(), None),
        ("X-Long: a\n b\n".to_owned(), None),
        (" begins: with a fold\r\n".to_owned(), None),
        ("X-A : b\r\n".to_owned(), None),
        ("X A: b\r\n folded\r\n".to_owned(), None),
        ("no field at all\r\n: without a name\r\nX-B: \u{1}\r\nX-\u{e4}: b\r\n".to_owned(), None),
        (many(99), None),
        (many(100), None),
        (many(2_000), None),
        (many(20_000), Some("bad_response")),
        (format!("X-Long: {}\r\n", "x".repeat(300_000)), Some("bad_response")),
        // Equal ones are one (RFC 9112 §6.3).
        ("Content-Length: 2\r\n".to_owned(), None),
        ("Content-Length: 3\r\n".to_owned(), Some("bad_response")),
        ("Content-Length: abc\r\n".to_owned(), Some("bad_response")),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\nX-Mailkite-Ack: ok\r\n\r\nok");
        let peer = raw_peer(answer.into_bytes()).await;
        let mut server = Server::start_with(Clock::manual(NOW), |_| {}).await;
        server.route("*@inbox.test", AckMode::Ack, &format!("http://{peer}/hook")).await;
        server.accepted("a@inbox.test", "Odd").await;
        let attempted = server.next_attempt().await;
        let status = if error.is_none() { "delivered" } else { "pending" };
        let shown: String = fields.chars().take(60).collect();
        assert_eq!((attempted.status, attempted.error), (status, error), "{shown:?}");
        server.stop_with_any_jobs().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_2xx_whose_body_takes_too_long_counts_when_the_attempt_is_over() {
    let egress = egress();
    let target = |url: &str| Target::parse(url, &localhost()).unwrap();
    let brief = Limits { timeout: Duration::from_millis(400), ..Limits::default() };
    let slow = Receiver::start(|_| Reply::dribble(Duration::from_millis(20))).await;
    let answer = egress.post_for_status(&target(&slow.url()), HeaderMap::new(), Bytes::new(), brief).await.unwrap();
    assert_eq!((answer.status, answer.broken, answer.truncated), (200, Some(EgressError::Timeout), true));
    let strict = egress.post(&target(&slow.url()), HeaderMap::new(), Bytes::new(), brief).await;
    assert_eq!(strict, Err(EgressError::Timeout));
    let hanging = Receiver::start(|_| Reply::hang()).await;
    let answer = egress.post_for_status(&target(&hanging.url()), HeaderMap::new(), Bytes::new(), brief).await;
    assert_eq!(answer, Err(EgressError::Timeout), "no head, no answer");
}

fn localhost() -> Policy {
    Policy { allow_localhost: true, ..Policy::default() }
}

fn egress() -> Egress {
    let guard = Guard { policy: localhost(), ..Guard::default() };
    Egress::new(guard, &client_config(RootCertStore::empty()), Arc::new(Resolver::new(&[]).unwrap()))
}

/// The connection that a request came on, from 0, and its body.
type Seen = (usize, Vec<u8>);

/// Answers of each connection, by its number from 0; after the last it closes at the next request.
struct Closing {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Closing {
    async fn start(answers: impl Fn(usize) -> usize + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        tokio::spawn(async move {
            for number in 0.. {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let (left, noted) = (answers(number), Arc::clone(&noted));
                tokio::spawn(async move {
                    for _ in 0..left {
                        let Some(body) = read_request(&mut tcp).await else { return };
                        noted.lock().unwrap().push((number, body));
                        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                    }
                    if let Some(body) = read_request(&mut tcp).await {
                        noted.lock().unwrap().push((number, body));
                    }
                });
            }
        });
        Self { url, seen }
    }

    fn connections(&self) -> Vec<usize> {
        self.seen.lock().unwrap().iter().map(|(connection, _)| *connection).collect()
    }
}

/// The body of the next request.
async fn read_request(tcp: &mut TcpStream) -> Option<Vec<u8>> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if read.len() >= end + 4 + length {
                return Some(read.split_off(end + 4));
            }
        }
        if tcp.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_closes_instead_of_answering_costs_no_attempt() {
    // Each connection answers once.
    let peer = Closing::start(|_| 1).await;
    let mut server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    server.webhook(&peer.url).await;
    let owner = server.owner().await;
    for subject in ["One", "Two", "Three"] {
        let message = server.accepted("a@inbox.test", subject).await;
        let attempted = server.next_attempt().await;
        assert_eq!((attempted.attempt, attempted.status, attempted.error), (1, "delivered", None), "{subject}");
        assert_eq!(delivery(&owner, &message).await["attempts"], 1);
    }
    // The second closes the first connection; what came in its place was not kept, so the third opens one more.
    assert_eq!(peer.connections(), [0, 0, 1, 2]);
    let seen = peer.seen.lock().unwrap().clone();
    assert_eq!(seen[1].1, seen[2].1, "the same event, signed alike");
    server.stop().await;
}

#[tokio::test]
async fn a_request_is_made_once_more_at_most_and_never_after_an_answer_began() {
    let target = |url: &str| Target::parse(url, &localhost()).unwrap();
    let post = async |egress: &Egress, url: &str, body: Body| {
        let answer = egress.post_for_status(&target(url), HeaderMap::new(), body, Limits::default()).await;
        answer.map(|answer| answer.status)
    };
    let small = || Body::from(Bytes::from_static(b"{}"));

    // The new connection closes as well.
    let peer = Closing::start(|number| usize::from(number == 0)).await;
    let egress = egress();
    assert_eq!(post(&egress, &peer.url, small()).await, Ok(200));
    assert_eq!(post(&egress, &peer.url, small()).await, Err(EgressError::BadResponse));
    assert_eq!(peer.connections(), [0, 0, 1]);
    // A new connection that closes is a failure at once.
    assert_eq!(post(&egress, &peer.url, small()).await, Err(EgressError::BadResponse));
    assert_eq!(peer.connections(), [0, 0, 1, 2]);

    // A body in pieces is made anew, if it can be.
    let pieces = || (0..40_u8).map(|number| Bytes::from(vec![number; 10_000]));
    let peer = Closing::start(|_| 1).await;
    assert_eq!(post(&egress, &peer.url, small()).await, Ok(200));
    assert_eq!(post(&egress, &peer.url, Body::repeatable(400_000, pieces)).await, Ok(200));
    let whole: Vec<u8> = pieces().flatten().collect();
    assert_eq!(peer.seen.lock().unwrap().last(), Some(&(1, whole)));
    let peer = Closing::start(|_| 1).await;
    assert_eq!(post(&egress, &peer.url, small()).await, Ok(200));
    assert_eq!(post(&egress, &peer.url, Body::pieces(400_000, pieces())).await, Err(EgressError::BadResponse));

    // Half of a head is an answer that breaks off.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let talking = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        read_request(&mut tcp).await.unwrap();
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        read_request(&mut tcp).await.unwrap();
        tcp.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        drop(tcp);
        listener
    });
    assert_eq!(post(&egress, &url, small()).await, Ok(200));
    assert_eq!(post(&egress, &url, small()).await, Err(EgressError::BadResponse));
    drop(talking.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_the_domains_though_its_webhook_is_removed_and_set_again() {
    let failing = Receiver::start(|_| Reply::status(500)).await;
    let mut working = Receiver::start(|_| Reply::status(200)).await;
    let mut server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    let put = async |url: String| owner.put(HOOK, json!({"url": url})).await.expect(200);
    let first = put(failing.url()).await;
    let message = server.accepted("a@inbox.test", "Tied").await;
    server.next_attempt().await;
    let id = text(&delivery(&owner, &message).await["id"]);
    let retry = format!("/api/deliveries/{id}/retry");

    for round in 0..3 {
        // Alternately by the domain and by the route's id.
        let route = text(&owner.get("/api/routes").await.expect(200)[0]["id"]);
        let path = if round == 1 { format!("/api/routes/{route}") } else { HOOK.to_owned() };
        owner.delete(&path).await.expect(200);
        assert_eq!(
            delivery(&owner, &message).await["last_error"],
            if round == 0 { "route_gone" } else { "http_status" }
        );
        owner.post_nothing(&retry).await.expect_error(409, "route_gone");
        let set = put(failing.url()).await;
        assert_eq!(set["routeId"], first["routeId"], "the domain's webhook keeps its id");
        assert_ne!(set["signingSecret"], first["signingSecret"], "but not its secret");
        assert_eq!(owner.post_nothing(&retry).await.expect(200), json!({"ok": false, "status": 500}));
    }

    // A removed one whose place an existing route takes: the deliveries go to that.
    owner.delete(HOOK).await.expect(200);
    let other = json!({"match": "*@inbox.test", "destination": working.url()});
    let other = owner.post("/api/routes", other).await.expect(201);
    owner.post_nothing(&retry).await.expect_error(409, "route_gone");
    assert_eq!(put(working.url()).await["routeId"], other["id"], "adopted");
    let answer = owner.post("/api/deliveries/retry", json!({"messageIds": [message]})).await.expect(200);
    assert_eq!(answer["results"], json!([{"id": message, "deliveryId": id, "ok": true, "status": 200}]));
    let posted = working.next_request().await;
    assert_eq!((posted.json()["id"].as_str(), posted.header("x-mailkite-attempt")), (Some(message.as_str()), "5"));
    assert_eq!(delivery(&owner, &message).await["status"], "delivered");

    // And though it goes and comes under another id, still.
    owner.delete(HOOK).await.expect(200);
    put(failing.url()).await;
    assert_eq!(owner.post_nothing(&retry).await.expect(200), json!({"ok": false, "status": 500}));

    // A route of somebody's own is a row, and gone when it is removed.
    let plain = json!({"match": "b@inbox.test", "destination": failing.url()});
    let plain = text(&owner.post("/api/routes", plain).await.expect(201)["id"]);
    let message = server.accepted("b@inbox.test", "Own").await;
    let detail = owner.get(&format!("/api/messages/{message}")).await.expect(200);
    let own = detail["deliveries"].as_array().unwrap().iter().find(|one| one["route_id"] == plain.as_str()).unwrap();
    let retry = format!("/api/deliveries/{}/retry", text(&own["id"]));
    owner.delete(&format!("/api/routes/{plain}")).await.expect(200);
    owner.post_nothing(&retry).await.expect_error(409, "route_gone");
    // Only the newest ids of a domain are kept.
    assert!(server.query::<i64>("SELECT count(*) FROM former_webhook").await <= 20);
    server.stop_with_any_jobs().await;
}
