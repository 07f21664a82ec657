//! The event stream through its door (contract 10).

use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::api::Api;
use crate::support::dns::DnsServer;
use crate::support::outbound::deliver_to_loopback;
use crate::support::receiver::{Receiver, Reply};
use crate::support::remote_host::{HostAction, RemoteHost};
use crate::support::server::Server;
use crate::support::smtp::SmtpClient;

const DEADLINE: Duration = Duration::from_secs(30);
const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

/// A frame: its lines up to an empty one.
#[derive(Debug, Default, PartialEq)]
struct Frame {
    id: Option<String>,
    event: Option<String>,
    data: Value,
    lines: Vec<String>,
}

/// An open stream.
struct Events {
    head: String,
    lines: BufReader<TcpStream>,
}

impl Events {
    /// Requests a stream and reads the head of the answer.
    async fn ask(api: &Api, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        let mut request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n", api.address);
        if let Some(credential) = &api.credential {
            request.push_str(&format!("Authorization: Bearer {credential}\r\n"));
        }
        headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self { head: String::new(), lines: BufReader::new(stream) };
        while let Some(line) = events.line().await.filter(|line| !line.is_empty()) {
            events.head.push_str(&line.to_lowercase());
            events.head.push('\n');
        }
        events
    }

    /// Opens a stream and reads its first line.
    async fn open(api: &Api, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut events = Self::ask(api, path, headers).await;
        assert!(events.head.starts_with("http/1.0 200"), "{}", events.head);
        for field in ["content-type: text/event-stream\n", "cache-control: no-store\n", "x-accel-buffering: no\n"] {
            assert!(events.head.contains(field), "{}", events.head);
        }
        assert_eq!(events.frame().await.lines, ["retry: 3000"]);
        events
    }

    /// Reads a line; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(DEADLINE, self.lines.read_line(&mut line)).await.expect("a line in time").unwrap_or(0);
        (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    async fn frame(&mut self) -> Frame {
        self.frame_or_end().await.expect("the stream ended")
    }

    async fn frame_or_end(&mut self) -> Option<Frame> {
        let mut frame = Frame::default();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(frame);
            }
            match line.split_once(": ") {
                Some(("id", id)) => frame.id = Some(id.to_owned()),
                Some(("event", event)) => frame.event = Some(event.to_owned()),
                Some(("data", data)) => frame.data = serde_json::from_str(data).unwrap(),
                _ => {}
            }
            frame.lines.push(line);
        }
    }

    /// The next event of this type.
    async fn event(&mut self, event: &str) -> Frame {
        let frame = self.any_event().await;
        assert_eq!(frame.event.as_deref(), Some(event), "{frame:?}");
        frame
    }

    /// The next event.
    async fn any_event(&mut self) -> Frame {
        let frame = self.frame().await;
        assert_eq!(frame.id.as_deref(), frame.data["id"].as_str(), "{frame:?}");
        assert_eq!(frame.data["type"].as_str(), frame.event.as_deref(), "{frame:?}");
        assert_eq!(frame.lines.len(), 3, "{frame:?}");
        frame
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_and_its_deliveries_are_published_as_webhooks_have_them() {
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    server.webhook(&receiver.url()).await;
    let owner = server.owner().await;
    let mut events = Events::open(&owner, "/v1/realtime", &[]).await;
    let id = server.accepted("a@inbox.test", "Hi").await;
    let received = events.event("email.received").await;
    let posted = receiver.next_request().await;
    assert_eq!(received.lines[2], format!("data: {}", String::from_utf8(posted.body.to_vec()).unwrap()));
    assert_eq!(received.id.as_deref(), Some(id.as_str()));
    let updated = events.event("delivery.updated").await;
    let delivery: String = server.query("SELECT public_id FROM delivery").await;
    let route: String = server.query("SELECT public_id FROM route").await;
    assert!(updated.id.as_deref().is_some_and(|id| id.starts_with("evt_")));
    assert_eq!(
        updated.data,
        json!({"id": updated.id, "type": "delivery.updated", "createdAt": updated.data["createdAt"],
            "createdAtIso": updated.data["createdAtIso"], "data": {"deliveryId": delivery, "messageId": id,
            "routeId": route, "status": "delivered", "attempts": 1, "lastStatusCode": 200,
            "pausedUntil": null}})
    );
    drop(events);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_published_without_any_opt_in() {
    let script = |command: &str, _: usize| {
        (command == "RCPT TO:<gone@remote.test>").then(|| HostAction::Send("550 5.1.1 no such user\r\n".to_owned()))
    };
    let remote = RemoteHost::scripted(script).await;
    let dns = DnsServer::start().await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    let port = remote.address.port();
    let server = Server::start_with(Clock::System, |config| {
        deliver_to_loopback(config, &dns, port);
    })
    .await;
    let owner = server.owner().await;
    let mut events = Events::open(&owner, "/v1/realtime?domain=inbox.test", &[]).await;
    let body =
        json!({"from": "hi@inbox.test", "to": ["ada@remote.test", "gone@remote.test"], "subject": "Hi", "text": "x"});
    let id = owner.post("/v1/send", body).await.expect(202)["id"].clone();
    // Each recipient goes its own way, so either may be first.
    let (one, other) = (events.any_event().await, events.any_event().await);
    let (sent, bounced) = if one.event.as_deref() == Some("email.sent") { (one, other) } else { (other, one) };
    assert_eq!((sent.event.as_deref(), bounced.event.as_deref()), (Some("email.sent"), Some("email.bounced")));
    assert_eq!((&sent.data["data"]["messageId"], &sent.data["data"]["to"]), (&id, &json!("ada@remote.test")));
    assert_eq!(bounced.data["data"]["bounce"], json!({"type": "hard", "diagnostic": "550 5.1.1 no such user"}));
    drop(events);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_it_ended() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let first = server.accepted("a@inbox.test", "1").await;
    let second = server.accepted("a@inbox.test", "2").await;
    let mut events = Events::open(&owner, "/v1/realtime", &[("Last-Event-ID", &first)]).await;
    assert_eq!(events.event("email.received").await.id, Some(second.clone()));
    let third = server.accepted("a@inbox.test", "3").await;
    assert_eq!(events.event("email.received").await.id, Some(third));
    let mut lost = Events::open(&owner, "/v1/realtime", &[("Last-Event-ID", "msg_0000000000000000")]).await;
    let gap = lost.frame().await;
    assert_eq!((gap.id, gap.event.as_deref()), (None, Some("stream.gap")));
    assert_eq!(gap.data, json!({"lastEventId": "msg_0000000000000000"}));
    let fourth = server.accepted("a@inbox.test", "4").await;
    assert_eq!(lost.event("email.received").await.id, Some(fourth));
    // A stop ends streams at once.
    server.begin_stop();
    assert_eq!(lost.frame_or_end().await, None);
    drop((events, lost));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_holds_what_its_credential_may_see() {
    let server = Server::start().await;
    let owner = server.owner().await;
    server.add_domain("shop.test").await;
    let domains = owner.get("/api/domains").await.expect(200);
    let shop = domains.as_array().unwrap().iter().find(|one| one["domain"] == "shop.test").unwrap()["id"].clone();
    let scoped = owner.post("/api/keys/scoped", json!({"domainId": shop, "name": "shop"})).await.expect(201);
    let limited = owner.with(scoped["key"].as_str().unwrap());
    let (shop_path, inbox_path) = ("/v1/realtime?domain=shop.test", "/v1/realtime?domain=inbox.test");
    let mut streams = vec![
        Events::open(&limited, "/v1/realtime", &[]).await,
        Events::open(&limited, shop_path, &[]).await,
        Events::open(&owner, &format!("/v1/realtime?domain={}", shop.as_str().unwrap()), &[]).await,
    ];
    server.accepted("a@inbox.test", "not theirs").await;
    let id = server.accepted("a@shop.test", "theirs").await;
    for events in &mut streams {
        assert_eq!(events.event("email.received").await.id.as_ref(), Some(&id));
    }
    limited.exchange("GET", inbox_path, &[], None).await.expect_error(403, "key_scope");
    owner.exchange("GET", "/v1/realtime?domain=other.test", &[], None).await.expect_error(404, "not_found");
    owner.with("mk_live_no").exchange("GET", "/v1/realtime", &[], None).await.expect_error(401, "bad_key");
    // Revoked, a key's streams end.
    let key = scoped["id"].as_str().unwrap();
    owner.delete(&format!("/api/keys/scoped/{key}")).await.expect(200);
    assert_eq!(streams[0].frame_or_end().await, None);
    drop(streams);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_goes_out_once_the_revocation_of_its_credential_is_answered() {
    let server = Server::start().await;
    let mut owner = server.owner().await;
    let session = async || server.anonymous().with(server.owner_session().await);
    let ended = async |mut events: Events, what: &str| {
        server.accepted("a@inbox.test", what).await;
        assert_eq!(events.frame_or_end().await, None, "{what}");
    };
    let one = session().await;
    let events = Events::open(&one, "/v1/realtime", &[]).await;
    one.post_nothing("/api/auth/logout").await.expect(200);
    ended(events, "logout").await;
    let (one, other) = (session().await, session().await);
    let events = Events::open(&one, "/v1/realtime", &[]).await;
    let list = other.get("/api/auth/sessions").await.expect(200)["sessions"].clone();
    for row in list.as_array().unwrap().iter().filter(|row| row["current"] == json!(false)) {
        other.delete(&format!("/api/auth/sessions/{}", row["id"].as_str().unwrap())).await.expect(200);
    }
    ended(events, "an ended session").await;
    let events = Events::open(&other, "/v1/realtime", &[]).await;
    let waiting = other.post_nothing("/v1/realtime/token").await.expect(200)["token"].clone();
    let path = format!("/v1/realtime?token={}", waiting.as_str().unwrap());
    let by_token = Events::open(&server.anonymous(), &path, &[]).await;
    let password = json!({"newPassword": "correct horse battery staple"});
    other.post("/api/auth/password", password).await.expect(200);
    ended(events, "a new password").await;
    ended(by_token, "a new password, by a token").await;
    let scoped = json!({"domainId": "inbox.test", "name": "one"});
    let scoped = owner.post("/api/keys/scoped", scoped).await.expect(201);
    let events = Events::open(&owner.with(scoped["key"].as_str().unwrap()), "/v1/realtime", &[]).await;
    owner.delete(&format!("/api/keys/scoped/{}", scoped["id"].as_str().unwrap())).await.expect(200);
    ended(events, "a removed key").await;
    let events = Events::open(&owner, "/v1/realtime", &[]).await;
    let rotated = session().await.post_nothing("/api/keys/rotate").await.expect(200);
    ended(events, "a rotated key").await;
    owner = owner.with(rotated["key"].as_str().unwrap());
    let mut events = Events::open(&owner, "/v1/realtime", &[]).await;
    let id = server.accepted("a@inbox.test", "heard").await;
    assert_eq!(events.event("email.received").await.id.as_ref(), Some(&id));
    drop(events);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_one_stream_within_five_minutes() {
    let clock = Clock::manual(NOW);
    let server = Server::start_with(clock.clone(), |_| {}).await;
    let owner = server.owner().await;
    let issued = owner.post_nothing("/v1/realtime/token").await.expect(200);
    let token = issued["token"].as_str().unwrap();
    let random = token.strip_prefix("mkrt_").unwrap();
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    assert!(random.len() == 43 && random.bytes().all(is_base64url), "{issued}");
    assert_eq!(issued["expiresAt"], NOW.as_millis() + 300_000);
    let anonymous = server.anonymous();
    let path = format!("/v1/realtime?token={token}");
    let mut events = Events::open(&anonymous, &path, &[]).await;
    let id = server.accepted("a@inbox.test", "Hi").await;
    assert_eq!(events.event("email.received").await.id, Some(id));
    anonymous.exchange("GET", &path, &[], None).await.expect_error(401, "unauthorized");
    let late = owner.post_nothing("/v1/realtime/token").await.expect(200);
    clock.advance(Duration::from_secs(300));
    let path = format!("/v1/realtime?token={}", late["token"].as_str().unwrap());
    anonymous.exchange("GET", &path, &[], None).await.expect_error(401, "unauthorized");
    let key = owner.credential.clone().unwrap();
    let path = format!("/v1/realtime?token={key}");
    anonymous.exchange("GET", &path, &[], None).await.expect_error(401, "unauthorized");
    drop(events);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_twenty_streams() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Events::open(&owner, "/v1/realtime", &[]).await);
    }
    owner.exchange("GET", "/v1/realtime", &[], None).await.expect_error(429, "rate_limited");
    // A thousand mails later all of them have had all events.
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    for number in 0..100 {
        let mail = crate::support::server::message(&format!("{number}"));
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], mail).await.code, 250);
    }
    for events in &mut streams {
        for number in 0..100 {
            assert_eq!(events.event("email.received").await.data["subject"], number.to_string());
        }
    }
    drop(streams);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_accounts_mail_in_the_row_of_a_removed_one_is_not_published() {
    let server = Server::start().await;
    server.other_account("other.test", "http://127.0.0.1:3999/").await;
    let owner = server.owner().await;
    let first = server.accepted("a@inbox.test", "1").await;
    let removed = server.accepted("a@inbox.test", "2").await;
    owner.delete(&format!("/api/messages/{removed}")).await.expect(200);
    server.accepted("a@other.test", "not theirs").await;
    let mut events = Events::open(&owner, "/v1/realtime", &[("Last-Event-ID", &first)]).await;
    let last = server.accepted("a@inbox.test", "3").await;
    assert_eq!(events.event("email.received").await.id, Some(last));
    drop(events);
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_client_reads_nothing_is_let_go_when_it_is_far_behind() {
    let server = Server::start().await;
    server.add_domain("shop.test").await;
    let owner = server.owner().await;
    let stalled = Events::open(&owner, "/v1/realtime", &[]).await;
    let mut others = Vec::new();
    for _ in 0..19 {
        others.push(Events::open(&owner, "/v1/realtime?domain=shop.test", &[]).await);
    }
    owner.exchange("GET", "/v1/realtime", &[], None).await.expect_error(429, "rate_limited");
    // More than the sockets between the two hold, and more than a thousand events.
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    let text = "A line of a mail that nobody reads.\r\n".repeat(400);
    for number in 0..1_500 {
        if number % 100 == 0 {
            client = SmtpClient::connect_and_greet(server.smtp).await;
        }
        let mail = format!("{}{text}", crate::support::server::message(&format!("{number}")));
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], mail).await.code, 250);
    }
    let opened = timeout(DEADLINE, async {
        loop {
            let asked = Events::ask(&owner, "/v1/realtime", &[]).await;
            if asked.head.starts_with("http/1.0 200") {
                return asked;
            }
        }
    });
    let opened = opened.await.expect("the place of the stalled stream");
    drop((stalled, others, opened));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_published_with_its_attempt_and_what_is_given_up_meanwhile_once() {
    let receiver = Receiver::start(|_| Reply::status(503)).await;
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    let mut events = Events::open(&server.owner().await, "/v1/realtime", &[]).await;
    for number in 1..=5 {
        server.accepted("a@inbox.test", &format!("Fails {number}")).await;
        events.event("email.received").await;
        let update = events.event("delivery.updated").await.data["data"].clone();
        assert_eq!((&update["status"], &update["attempts"]), (&json!("pending"), &json!(1)));
        let until = update["pausedUntil"].as_i64();
        assert_eq!(until.is_some_and(|until| until > NOW.as_millis()), number == 5, "{update}");
    }
    for number in 0..10 {
        server.accepted("a@inbox.test", &format!("Waits {number}")).await;
        // No other event comes in between.
        events.event("email.received").await;
    }
    server.until("SELECT count(*) FROM job WHERE lease_until IS NULL", 15_i64).await;
    server.advance(Duration::from_secs(90 * 3600), &hook.url);
    let mut given_up = Vec::new();
    while given_up.len() < 15 {
        server.advance(Duration::from_secs(61), &hook.url);
        server.until("SELECT count(*) FROM job WHERE lease_until IS NOT NULL AND kind = 'webhook'", 0_i64).await;
        let ended: i64 = server.query("SELECT count(*) FROM delivery WHERE status = 'failed'").await;
        while given_up.len() < usize::try_from(ended).unwrap() {
            let update = events.event("delivery.updated").await.data["data"].clone();
            if update["status"] == "failed" {
                given_up.push(update["deliveryId"].to_string());
            }
        }
    }
    given_up.sort();
    given_up.dedup();
    assert_eq!(given_up.len(), 15, "each once");
    let unattempted: i64 = server.query("SELECT count(*) FROM delivery WHERE last_error = 'endpoint_failing'").await;
    assert!(unattempted > 0, "some of them had no attempt");
    drop(events);
    server.stop_with_any_jobs().await;
}
