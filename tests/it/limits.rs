//! What one account may have (contract 1.9): the limit holds for requests side by side, and what goes makes room.

use futures_util::future::join_all;
use mailkite::clock::Clock;
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::receiver::{Receiver, Reply};
use super::support::server::Server;

const URL: &str = "https://app.example/hook";

/// Posts so many bodies at the same time; how many were made, and that all others met the limit.
async fn made_side_by_side(api: &Api, path: &str, count: usize, body: impl Fn(usize) -> Value) -> usize {
    let answers = join_all((0..count).map(|n| api.post(path, body(n)))).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        answer.expect_error(409, "limit_reached");
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_side_by_side_cannot_pass_a_limit_together() {
    let server = Server::start_with(Clock::System, |config| {
        let limits = &mut config.limits;
        (limits.routes, limits.regex_routes, limits.templates, limits.scoped_keys) = (9, 2, 3, 4);
        (limits.blocked_senders, limits.suppressions) = (5, 6);
    })
    .await;
    let owner = server.owner().await;
    let regex = |n: usize| json!({"match": format!("/a{n}/"), "action": "store"});
    assert_eq!(made_side_by_side(&owner, "/api/routes", 12, regex).await, 2);
    let route = |n: usize| json!({"match": format!("a{n}@inbox.test"), "action": "store"});
    assert_eq!(made_side_by_side(&owner, "/api/routes", 30, route).await, 7, "two of nine are regexes");
    let template = |n: usize| json!({"name": format!("T{n}")});
    assert_eq!(made_side_by_side(&owner, "/api/templates", 20, template).await, 3);
    let key = |n: usize| json!({"domainId": "inbox.test", "name": format!("k{n}")});
    assert_eq!(made_side_by_side(&owner, "/api/keys/scoped", 20, key).await, 4);
    let address = |n: usize| json!({"email": format!("a{n}@example.com")});
    assert_eq!(made_side_by_side(&owner, "/api/blocked-senders", 20, address).await, 5);
    assert_eq!(made_side_by_side(&owner, "/api/contacts/suppressions", 20, address).await, 6);
    for (sql, count) in [
        ("SELECT count(*) FROM route", 9),
        ("SELECT count(*) FROM template", 3),
        ("SELECT count(*) FROM api_key WHERE public_id IS NOT NULL", 4),
        ("SELECT count(*) FROM blocked_sender", 5),
        ("SELECT count(*) FROM suppression", 6),
    ] {
        assert_eq!(server.query::<i64>(sql).await, count, "{sql}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_makes_room_for_as_much_and_what_is_there_may_be_said_again() {
    let server = Server::start_with(Clock::System, |config| {
        let limits = &mut config.limits;
        (limits.routes, limits.regex_routes, limits.suppressions, limits.blocked_senders) = (2, 1, 1, 1);
        (limits.templates, limits.uploads) = (1, 1);
    })
    .await;
    let owner = server.owner().await;
    for (path, first, second) in [
        ("/api/contacts/suppressions", json!({"email": "a@example.com"}), json!({"email": "b@example.com"})),
        ("/api/blocked-senders", json!({"email": "a@example.com"}), json!({"email": "b@example.com"})),
    ] {
        owner.post(path, first.clone()).await.expect(201);
        owner.post(path, first).await.expect(200);
        owner.post(path, second.clone()).await.expect_error(409, "limit_reached");
        owner.delete(&format!("{path}/a@example.com")).await.expect(200);
        owner.post(path, second).await.expect(201);
    }
    let template = owner.post("/api/templates", json!({"name": "A"})).await.expect(201);
    owner.post("/api/templates", json!({"name": "B"})).await.expect_error(409, "limit_reached");
    owner.delete(&format!("/api/templates/{}", template["id"].as_str().unwrap())).await.expect(200);
    owner.post("/api/templates", json!({"name": "B"})).await.expect(201);

    let file = json!({"content": "aGVsbG8=", "filename": "a.txt"});
    owner.post("/v1/attachments", file.clone()).await.expect(201);
    owner.post("/v1/attachments", file).await.expect_error(409, "limit_reached");

    // The domain's webhook is a route like others; an adopted one adds none.
    let hook = json!({"url": URL});
    let regex = owner.post("/api/routes", json!({"match": "/a/", "destination": URL})).await.expect(201);
    owner.post("/api/routes", json!({"match": "*@inbox.test", "destination": URL})).await.expect(201);
    owner.put("/api/domains/inbox.test/webhook", hook.clone()).await.expect(200);
    owner.delete("/api/domains/inbox.test/webhook").await.expect(200);
    let plain = json!({"match": "a@inbox.test", "destination": URL});
    let plain = owner.post("/api/routes", plain).await.expect(201);
    owner.put("/api/domains/inbox.test/webhook", hook.clone()).await.expect_error(409, "limit_reached");
    // A route that becomes a regex is one more of them.
    let path = format!("/api/routes/{}", plain["id"].as_str().unwrap());
    owner.patch(&path, json!({"match": "/b/"})).await.expect_error(409, "limit_reached");
    owner.delete(&format!("/api/routes/{}", regex["id"].as_str().unwrap())).await.expect(200);
    owner.patch(&path, json!({"match": "/b/"})).await.expect(200);
    owner.put("/api/domains/inbox.test/webhook", hook).await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_messages_and_remembered_answers_are_limited_and_refused_ones_leave_nothing() {
    let server = Server::start_with(Clock::System, |config| {
        (config.limits.scheduled, config.limits.idempotency_keys) = (2, 1);
    })
    .await;
    server.write(|tx, _, _| Ok(tx.execute("UPDATE domain SET spf_verified = 1, dkim_verified = 1", [])?)).await;
    let owner = server.owner().await;
    let mail = json!({"from": "a@inbox.test", "to": "b@example.com", "subject": "s", "text": "t",
        "scheduledAt": "in 2 days"});
    let first = owner.post("/v1/send", mail.clone()).await.expect(202);
    let batch = json!({"from": "a@inbox.test", "subject": "s", "text": "t", "scheduledAt": "in 2 days",
        "recipients": [{"to": "b@example.com"}, {"to": "c@example.com"}]});
    owner.post("/v1/send/batch", batch).await.expect_error(409, "limit_reached");
    owner.post("/v1/send", mail.clone()).await.expect(202);
    owner.post("/v1/send", mail.clone()).await.expect_error(409, "limit_reached");
    owner.delete(&format!("/v1/scheduled/{}", first["id"].as_str().unwrap())).await.expect(200);
    let keyed = async |key: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        owner.send("POST", "/v1/send", &headers, Some(mail.to_string().as_bytes())).await
    };
    let answer = keyed("one").await;
    answer.clone().expect(202);
    assert_eq!(keyed("one").await.body, answer.body, "a repeat is answered whatever the limits");
    keyed("two").await.expect_error(409, "limit_reached");
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message WHERE status = 'scheduled'").await, 2);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, 3);
    server.stop_with_jobs(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_login_ends_the_oldest() {
    let server = Server::start_with(Clock::System, |config| {
        config.auth.signup = mailkite::config::Signup::Open;
        config.limits.sessions = 3;
    })
    .await;
    let api = server.anonymous();
    let person = json!({"email": "ada@example.com", "password": "correct horse battery"});
    let mut sessions = vec![api.post("/api/auth/signup", person.clone()).await.expect(201)];
    for _ in 0..3 {
        sessions.push(api.post("/api/auth/login", person.clone()).await.expect(200));
    }
    for (place, session) in sessions.iter().enumerate() {
        let answer = api.with(session["token"].as_str().unwrap()).get("/v1/me").await;
        assert_eq!(answer.status, if place == 0 { 401 } else { 200 }, "session {place}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_answer_blocks_no_more_senders_than_may_be() {
    let mut server = Server::start_with(Clock::System, |config| config.limits.blocked_senders = 1).await;
    let control = r#"{"status":"ok","actions":[{"type":"block-sender"}]}"#;
    let receiver = Receiver::start(move |_| Reply::status(200).body(control)).await;
    server.route("*@inbox.test", "control", &receiver.url()).await;
    for from in ["one@example.com", "two@example.com"] {
        let message = format!("From: {from}\r\nSubject: {from}\r\n\r\nHello.\r\n");
        assert_eq!(server.mail("a@inbox.test", &message).await.code, 250);
        assert_eq!(server.attempted().await.status, "delivered");
    }
    assert_eq!(server.query::<String>("SELECT group_concat(email) FROM blocked_sender").await, "one@example.com");
    server.stop().await;
}
