//! Limits of an account (contract 1.9): they hold for concurrent requests, and removals make room.

use mailkite::testing::id::{AccountRowId, RowId};

use std::time::Duration;

use futures_util::future::join_all;
use mailkite::testing::bootstrap;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::config::Signup;
use mailkite::testing::store;
use mailkite::testing::store::webhooks::routes::AckMode;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::{Server, message};
use crate::support::smtp::SmtpClient;

const URL: &str = "https://app.example/hook";

/// Posts this many bodies concurrently; returns how many were created and asserts that all others met the limit.
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
        (limits.blocked_senders, limits.suppressions, limits.domains) = (5, 6, 3);
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
    let domain = |n: usize| json!({"domain": format!("d{n}.test")});
    assert_eq!(made_side_by_side(&owner, "/api/domains", 6, domain).await, 1, "two are there");
    for (sql, count) in [
        ("SELECT count(*) FROM domain", 3),
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
        config.auth.signup = Signup::Open;
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
    server.route("*@inbox.test", AckMode::Control, &receiver.url()).await;
    for from in ["one@example.com", "two@example.com"] {
        let message = format!("From: {from}\r\nSubject: {from}\r\n\r\nHello.\r\n");
        assert_eq!(server.mail("a@inbox.test", &message).await.code, 250);
        assert_eq!(server.next_attempt().await.status, "delivered");
    }
    assert_eq!(server.query::<String>("SELECT group_concat(email) FROM blocked_sender").await, "one@example.com");
    server.stop().await;
}

pub(super) fn route(matching: &str, action: &str, destination: &str) -> Value {
    json!({"match": matching, "action": action, "destination": destination})
}

#[tokio::test(flavor = "multi_thread")]
async fn of_more_routes_than_may_run_the_oldest_do_and_drop_counts_all_the_same() {
    let server = Server::start_with(Clock::System, |config| {
        (config.limits.fan_out, config.metrics.token) = (3, Some("a token of sixteen".to_owned()));
    })
    .await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let owner = server.owner().await;
    for n in 0..5 {
        owner
            .post("/api/routes", route("*@inbox.test", "webhook", &format!("{}?{n}", receiver.url())))
            .await
            .expect(201);
    }
    assert_eq!(server.mail("a@inbox.test", &message("one")).await.code, 250);
    server.until("SELECT count(*) FROM job WHERE kind <> 'notice'", 0).await;
    let mut posted: Vec<String> = receiver.requests().into_iter().map(|request| request.path).collect();
    posted.sort_unstable();
    assert_eq!(posted, ["/hook?0", "/hook?1", "/hook?2"].map(|query| query.to_owned()), "{posted:?}");
    assert_eq!(server.query::<i64>("SELECT count(*) FROM delivery").await, 3);
    let metrics = server.anonymous().with("a token of sixteen").exchange("GET", "/metrics", &[], None).await;
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains("\nmailkite_limit_reached_total{limit=\"fan_out\"} 2\n"), "{text}");
    // The youngest of all drops, and so nothing is kept.
    owner.post("/api/routes", json!({"match": "*@inbox.test", "action": "drop"})).await.expect(201);
    assert_eq!(server.mail("a@inbox.test", &message("two")).await.code, 250);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_whose_routes_are_too_many_together_come_in_another_transaction() {
    let server = Server::start().await;
    let owner = server.owner().await;
    for n in 0..20 {
        owner.post("/api/routes", route("*@inbox.test", "webhook", &format!("{URL}?{n}"))).await.expect(201);
    }
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    client.expect("MAIL FROM:<ada@example.com>", 250).await;
    let mut codes = Vec::new();
    for n in 0..27 {
        codes.push(client.command(&format!("RCPT TO:<a{n}@inbox.test>")).await.text());
    }
    assert!(codes[..25].iter().all(|reply| reply.starts_with("250 ")), "{codes:?}");
    assert!(codes[25..].iter().all(|reply| reply.starts_with("452 4.5.3 ")), "{codes:?}");
    client.expect("RCPT TO:<a3@inbox.test>", 250).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_of_forward_routes_ends_by_its_width() {
    let server = Server::start_with(Clock::System, |config| config.limits.local_copies = 30).await;
    let owner = server.owner().await;
    for n in 0..10 {
        for (here, there) in [("a", "b"), ("b", "a")] {
            let matching = format!("{here}{}@inbox.test", "*".repeat(usize::from(n > 0)));
            let to = format!("{there}{n}@inbox.test");
            let made = owner.post("/api/routes", route(&matching, "forward", &to)).await;
            assert_eq!(made.status, 201, "{}", made.json);
        }
    }
    assert_eq!(server.mail("a1@inbox.test", &message("round")).await.code, 250);
    server.until("SELECT count(*) FROM job WHERE kind <> 'notice'", 0).await;
    // Nine routes match "a1"; each of their messages may become two more, and those none: 1 + 9 + 9 × 2.
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, 28);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regexes_of_an_account_fit_one_budget_and_its_changes_are_its_own() {
    let server = Server::start().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let other = server.other_account("other.test", &receiver.url()).await;
    let owner = server.owner().await;
    let mut refused = 0;
    for n in 0..40 {
        let matching = format!("/x.{{1,{}}}y{n}$/", 200 + n);
        let answer = owner.post("/api/routes", json!({"match": matching, "action": "store"})).await;
        if answer.status == 400 {
            answer.expect_field(400, "bad_match", "match");
            refused += 1;
        }
    }
    let stored = server.query::<i64>("SELECT count(*) FROM route WHERE domain_id IS NULL").await;
    assert!((1..40).contains(&stored) && stored + refused == 40, "{stored} of 40 fit");
    let big = "/(x.{1,400}){60}/";
    owner.post("/api/routes", json!({"match": big, "action": "store"})).await.expect_field(400, "bad_match", "match");
    // Small ones still do, also beside what was there.
    let small = owner.post("/api/routes", route("/^ad.$/i", "webhook", &receiver.url())).await;
    if small.status == 201 {
        owner.delete(&format!("/api/routes/{}", small.json["id"].as_str().unwrap())).await.expect(200);
    }
    let accounts: (i64, i64) = server
        .write(|tx, _, _| {
            let one = |sql: &str| tx.query_row(sql, [], |row| row.get(0));
            Ok((one("SELECT id FROM account WHERE is_admin = 1")?, one("SELECT id FROM account WHERE is_admin = 0")?))
        })
        .await;
    let versions =
        || (server.db.routes_version(RowId::new(accounts.0)), server.db.routes_version(RowId::new(accounts.1)));
    let before = versions();
    owner.post("/api/routes", json!({"match": "/z/", "action": "store"})).await;
    owner.post("/api/routes", json!({"match": "z@inbox.test", "action": "store"})).await.expect(201);
    let after = versions();
    assert!(after.0 > before.0 && after.1 == before.1, "{before:?} {after:?}");
    // Many at once for the account with the regexes, and one for the other: all are taken, each by its own routes.
    let heavy = join_all((0..8).map(|n| server.mail("xay3@inbox.test", HEAVY[n % 2])));
    let light = server.mail("a@other.test", HEAVY[0]);
    let (heavy, light) = tokio::join!(heavy, light);
    assert!(heavy.iter().all(|reply| reply.code == 250) && light.code == 250);
    server.until("SELECT count(*) FROM job WHERE kind <> 'notice'", 0).await;
    let posted: Vec<String> =
        receiver.requests().iter().map(|one| one.json()["to"][0]["address"].to_string()).collect();
    assert_eq!(posted, ["\"a@other.test\""], "{}", other.url);
    server.stop().await;
}

const HEAVY: [&str; 2] = [
    "From: a@example.com\r\nSubject: one\r\nMessage-ID: <1@example.com>\r\n\r\nHello.\r\n",
    "From: a@example.com\r\nSubject: two\r\nMessage-ID: <2@example.com>\r\n\r\nHello.\r\n",
];

/// Adds an account with the verified domain `other.test`, its e-mail proven or not; returns its client and row id.
pub(super) async fn other(server: &Server, proven: bool) -> (Api, AccountRowId) {
    let person = json!({"email": "ada@example.com", "password": "correct horse battery"});
    let made = server.anonymous().post("/api/auth/signup", person).await.expect(201);
    let id = server
        .write(move |tx, _, now| {
            let id = tx.query_row("SELECT id FROM account WHERE email = 'ada@example.com'", [], |row| row.get(0))?;
            tx.execute("UPDATE account SET email_verified = ?2 WHERE id = ?1", (id, proven))?;
            bootstrap::verified_domain(tx, id, "other.test", now)?;
            tx.execute("UPDATE domain SET spf_verified = 1, dkim_verified = 1 WHERE account_id = ?1", [id])?;
            Ok(id)
        })
        .await;
    (server.anonymous().with(made["token"].as_str().unwrap()), id)
}

pub(super) fn file(octets: usize) -> Value {
    json!({"content": data_encoding::BASE64.encode(&vec![b'x'; octets]), "filename": "a.txt"})
}

#[tokio::test(flavor = "multi_thread")]
async fn of_mail_that_is_dropped_the_one_id_that_was_answered_is_remembered() {
    let server = Server::start().await;
    server.plain_route("*@inbox.test", store::webhooks::routes::Action::Drop).await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    let to: Vec<String> = (0..50).map(|number| format!("<{number}@inbox.test>")).collect();
    let to: Vec<&str> = to.iter().map(|to| to.trim_matches(['<', '>'])).collect();
    let reply = client.mail("ada@example.com", &to, message("dropped")).await;
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(server.query::<i64>("SELECT count(*) FROM removal").await, 1);
    let id = reply.text().split_whitespace().find(|word| word.starts_with("msg_")).unwrap().to_owned();
    let data_dir = server.data_dir().to_owned();
    let said = crate::support::audit::assert_ledger(&data_dir, &id);
    assert!(said.contains("1 acknowledged"), "{said}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_email_is_not_proven_has_its_settings_only() {
    let server = Server::start_with(Clock::System, |config| config.auth.signup = Signup::Open).await;
    let (ada, id) = other(&server, false).await;
    ada.get("/v1/me").await.expect(200);
    let route = ada.post("/api/routes", json!({"match": "a@other.test", "destination": URL})).await.expect(201);
    for (path, body) in [
        ("/v1/attachments", file(1)),
        ("/api/templates", json!({"name": "T"})),
        ("/v1/route", json!({"from": "x@example.com", "routeId": route["id"]})),
        ("/v1/send", json!({"from": "a@other.test", "to": "b@example.com", "subject": "s", "text": "t"})),
    ] {
        ada.post(path, body).await.expect_error(403, "email_not_verified");
    }
    ada.put("/api/domains/other.test/webhook", json!({"url": URL})).await.expect(200);
    ada.post_nothing("/api/domains/other.test/webhook/test").await.expect_error(403, "email_not_verified");
    let rcpt = async || {
        let mut client = SmtpClient::connect_and_greet(server.smtp).await;
        client.expect("MAIL FROM:<ada@example.com>", 250).await;
        client.command("RCPT TO:<a@other.test>").await.code
    };
    assert_eq!(rcpt().await, 450);
    // The link in the mail proves the address, and mail is received at once.
    server
        .write(move |tx, _, now| {
            let token = mailkite::testing::secrets::token_hash("token-of-the-link");
            store::accounts::verifications::insert(tx, &token, id, now)
        })
        .await;
    assert_eq!(rcpt().await, 450);
    server.anonymous().exchange("POST", "/api/auth/verify?token=token-of-the-link", &[], Some(b"")).await;
    assert_eq!(rcpt().await, 250);
    ada.post("/api/templates", json!({"name": "T"})).await.expect(201);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_credentials_of_an_account_share_one_rate() {
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let server = Server::start_with(clock, |config| config.limits.requests_per_second = 5).await;
    let owner = server.owner().await;
    let made = owner.post("/api/keys/scoped", json!({"domainId": "inbox.test", "name": "n"})).await.expect(201);
    let scoped = owner.with(made["key"].as_str().unwrap());
    for _ in 0..4 {
        owner.get("/v1/me").await.expect(200);
        scoped.get("/v1/me").await.expect(200);
    }
    owner.get("/v1/me").await.expect(200);
    for api in [&owner, &scoped] {
        api.get("/v1/me").await.expect_error(429, "rate_limited");
    }
    server.clock.advance(Duration::from_secs(1));
    scoped.get("/v1/me").await.expect(200);
    server.stop().await;
}
