//! Manual retries of single deliveries (contract 6.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::id::RowId;
use mailkite::testing::retention::delete_message;
use mailkite::testing::store::blobs::objects::Objects;
use mailkite::testing::store::webhooks::routes;
use mailkite::testing::store::webhooks::routes::AckMode;
use mailkite::testing::webhook::manual::retry_now::{Manual, Refused};

use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::server::{Server, Webhook};

pub(super) const OK: Result<Manual, &str> = Ok(Manual { ok: true, status: 200 });
pub(super) const DELIVERY: &str =
    "SELECT status || ' ' || attempts || ' ' || coalesce(last_status_code, '-') || ' ' ||
     coalesce(last_error, '-') || ' ' || coalesce(next_attempt_at, '-') FROM delivery ORDER BY id LIMIT 1";
pub(super) const JOB: &str = "SELECT coalesce((SELECT run_at || ' ' || failures || ' ' || claims || ' ' ||
     coalesce(lease_until, '-') FROM job ORDER BY id LIMIT 1), 'none')";

pub(super) fn standing() -> Clock {
    Clock::manual(Timestamp::from_millis(1_785_196_800_000))
}

/// A receiver that answers with the status that the test sets.
pub(super) async fn switched(status: u16) -> (Receiver, Arc<AtomicU16>) {
    let answer = Arc::new(AtomicU16::new(status));
    let asked = Arc::clone(&answer);
    (Receiver::start(move |_| Reply::status(asked.load(Ordering::SeqCst))).await, answer)
}

pub(super) async fn row_of(server: &Server, sql: &'static str) -> i64 {
    server.query::<i64>(sql).await
}

pub(super) async fn retry(server: &Server, delivery: i64) -> Result<Manual, Refused> {
    server.webhooks.retry(RowId::new(delivery), server.clock.now()).await
}

pub(super) async fn set_active(server: &Server, hook: &Webhook, active: bool) {
    let route = hook.route.clone();
    server.write(move |tx, _, now| routes::set_active(tx, &route, active, now)).await;
}

pub(super) async fn delete(server: &Server, message: i64) -> bool {
    let objects = Objects::open(server.data_dir()).unwrap();
    delete_message(&server.db, &objects, RowId::new(message), server.clock.now()).await.unwrap()
}

pub(super) fn is_signed_with(request: &Received, secret: &str) -> bool {
    let body = std::str::from_utf8(&request.body).unwrap();
    mailkite_sdk::verify_webhook_with_tolerance(request.header("x-mailkite-signature"), body, secret, 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_succeeds_delivers_and_ends_the_automatic_ones() {
    let (mut receiver, answer) = switched(500).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    let id = server.accepted("a@inbox.test", "Again").await;
    let first = receiver.next_request().await;
    assert_eq!(server.next_attempt().await.status, "pending");
    let delivery = row_of(&server, "SELECT id FROM delivery").await;

    answer.store(200, Ordering::SeqCst);
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(retry(&server, delivery).await.unwrap(), Manual { ok: true, status: 200 });
    let again = receiver.next_request().await;
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("x-mailkite-attempt"), "2");
    assert_eq!(again.header("webhook-id"), id);
    assert_eq!(again.header("x-mailkite-delivery"), first.header("x-mailkite-delivery"));
    assert_ne!(again.header("x-mailkite-signature"), first.header("x-mailkite-signature"));
    assert!(is_signed_with(&again, &hook.secret));
    let attempted = server.next_attempt().await;
    assert_eq!((attempted.attempt, attempted.status, attempted.next_attempt_at), (2, "delivered", None));

    assert_eq!(server.query::<String>(DELIVERY).await, "delivered 2 200 - -");
    assert_eq!(server.query::<String>(JOB).await, "none");
    let attempts = "SELECT group_concat(attempt || ':' || manual || ':' || status_code, ' ') FROM attempt";
    assert_eq!(server.query::<String>(attempts).await, "1:0:500 2:1:200");
    assert_eq!(server.query::<String>("SELECT last_status || last_status_code FROM route").await, "delivered200");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_fails_leaves_the_schedule_as_it_was() {
    let (receiver, answer) = switched(500).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Ladder").await;
    let planned = server.next_attempt().await.next_attempt_at.unwrap();
    let delivery = row_of(&server, "SELECT id FROM delivery").await;
    let job = server.query::<String>(JOB).await;
    assert_eq!(job, format!("{} 1 0 -", planned.as_millis()));

    // Even 410, which would end an automatic one.
    for (status, attempts) in [(503, 2), (410, 3)] {
        answer.store(status, Ordering::SeqCst);
        assert_eq!(retry(&server, delivery).await.unwrap(), Manual { ok: false, status });
        let attempted = server.next_attempt().await;
        assert_eq!((attempted.status, attempted.next_attempt_at), ("pending", Some(planned)));
        let word = if status == 410 { "gone" } else { "http_status" };
        let wanted = format!("pending {attempts} {status} {word} {}", planned.as_millis());
        assert_eq!(server.query::<String>(DELIVERY).await, wanted);
        assert_eq!(server.query::<String>(JOB).await, job);
    }
    // The next automatic one comes when it would have come, and counts on.
    answer.store(500, Ordering::SeqCst);
    server.advance(planned.since(server.clock.now()), &hook.url);
    let automatic = server.next_attempt().await;
    assert_eq!((automatic.attempt, automatic.status), (4, "pending"));
    let wait = automatic.next_attempt_at.unwrap().since(server.clock.now()).as_secs();
    assert!((300..=330).contains(&wait), "the second retry, not the fourth: {wait}");
    server.stop_with_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_delivery_that_fails_again_stays_failed_and_a_success_saves_it() {
    let (receiver, answer) = switched(410).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Saved").await;
    assert_eq!(server.next_attempt().await.status, "failed");
    let delivery = row_of(&server, "SELECT id FROM delivery").await;
    answer.store(500, Ordering::SeqCst);
    assert_eq!(retry(&server, delivery).await.unwrap(), Manual { ok: false, status: 500 });
    assert_eq!(server.query::<String>(DELIVERY).await, "failed 2 500 http_status -");
    answer.store(204, Ordering::SeqCst);
    assert_eq!(retry(&server, delivery).await.unwrap(), Manual { ok: true, status: 204 });
    assert_eq!(server.query::<String>(DELIVERY).await, "delivered 3 204 - -");
    // What was delivered can be sent again, and does not become undelivered.
    answer.store(500, Ordering::SeqCst);
    assert_eq!(retry(&server, delivery).await.unwrap(), Manual { ok: false, status: 500 });
    assert_eq!(server.query::<String>(DELIVERY).await, "delivered 4 500 http_status -");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_answer_is_a_failed_delivery_that_counts() {
    let (receiver, _) = switched(410).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Nobody").await;
    server.next_attempt().await;
    drop(receiver);
    let delivery = row_of(&server, "SELECT id FROM delivery").await;
    let Err(Refused::DeliveryFailed(error)) = retry(&server, delivery).await else { panic!("nobody was there") };
    assert_eq!(server.query::<String>(DELIVERY).await, format!("failed 2 410 {} -", error.as_str()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_delivery_is_attempted_by_one_at_a_time_and_a_crash_would_leave_its_job_as_it_was() {
    let slow = AtomicU32::new(0);
    let mut receiver = Receiver::start(move |_| match slow.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(500),
        _ => Reply::status(500).after(Duration::from_millis(1_500)),
    })
    .await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "One").await;
    receiver.next_request().await;
    let planned = server.next_attempt().await.next_attempt_at.unwrap();
    let (delivery, job) = (row_of(&server, "SELECT id FROM delivery").await, server.query::<String>(JOB).await);

    // A person's attempt runs: another person gets a conflict, the job engine waits and keeps its retry step.
    let (webhooks, now) = (Arc::clone(&server.webhooks), server.clock.now());
    let running = tokio::spawn(async move { webhooks.retry(RowId::new(delivery), now).await });
    receiver.next_request().await;
    assert_eq!(server.query::<String>(JOB).await, job, "nothing is written before the answer");
    assert!(matches!(retry(&server, delivery).await, Err(Refused::AttemptInProgress)));
    server.advance(planned.since(now), &hook.url);
    let put_off = "SELECT coalesce((SELECT failures || ' ' || claims FROM job WHERE lease_until IS NULL
         AND run_at > (SELECT next_attempt_at FROM delivery)), 'not yet')";
    server.until(put_off, "1 0".to_owned()).await;
    assert_eq!(receiver.requests().len(), 2);
    assert_eq!(running.await.unwrap().unwrap(), Manual { ok: false, status: 500 });
    assert_eq!(server.next_attempt().await.attempt, 2);

    // The engine's attempt runs: a person is told so.
    server.advance(Duration::from_secs(6), &hook.url);
    assert_eq!(receiver.next_request().await.header("x-mailkite-attempt"), "3");
    assert!(matches!(retry(&server, delivery).await, Err(Refused::AttemptInProgress)));
    assert_eq!(server.next_attempt().await.attempt, 3);
    server.until("SELECT failures FROM job", 2_i64).await;
    // Settled, it can be attempted again.
    assert_eq!(retry(&server, delivery).await.unwrap(), Manual { ok: false, status: 500 });
    server.stop_with_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_does_not_wait_behind_the_backlog_of_its_endpoint() {
    let mut receiver =
        Receiver::start(
            |request| {
                if request.json()["subject"] == "wanted" { Reply::status(200) } else { Reply::hang() }
            },
        )
        .await;
    let server = Server::start().await;
    server.webhook(&receiver.url()).await;
    for subject in ["1", "2", "3", "wanted", "4", "5", "6"] {
        server.accepted("a@inbox.test", subject).await;
    }
    for _ in 0..2 {
        assert_ne!(receiver.next_request().await.json()["subject"], "wanted");
    }
    let wanted = "SELECT delivery.id FROM delivery JOIN message ON message.id = message_id WHERE subject = 'wanted'";
    let delivery = row_of(&server, wanted).await;
    let started = std::time::Instant::now();
    assert_eq!(retry(&server, delivery).await.unwrap(), OK.unwrap());
    assert!(started.elapsed() < Duration::from_secs(5), "the endpoint's two slots hang for 15 s");
    assert_eq!(receiver.requests().len(), 3);
    assert_eq!(row_of(&server, "SELECT count(*) FROM job").await, 6);
    drop(receiver);
    server.stop_with_jobs(6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_caller_has_gone_is_recorded_all_the_same() {
    let answers = AtomicU32::new(0);
    let mut receiver = Receiver::start(move |_| match answers.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(410),
        _ => Reply::status(200).after(Duration::from_millis(300)),
    })
    .await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Hung up").await;
    receiver.next_request().await;
    server.next_attempt().await;
    let delivery = row_of(&server, "SELECT id FROM delivery").await;
    let (webhooks, now) = (Arc::clone(&server.webhooks), server.clock.now());
    let asked = tokio::spawn(async move { webhooks.retry(RowId::new(delivery), now).await });
    receiver.next_request().await;
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    assert_eq!(server.next_attempt().await.status, "delivered");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_uses_the_present_url_and_both_secrets_after_a_rotation() {
    let (old, _) = switched(410).await;
    let (mut new, _) = switched(500).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&old.url()).await;
    server.accepted("a@inbox.test", "Moved").await;
    server.next_attempt().await;
    let delivery = row_of(&server, "SELECT id FROM delivery").await;
    let (route, url) = (hook.route.clone(), new.url());
    server.write(move |tx, _, now| routes::set_destination(tx, &route, &url, now)).await;
    let new_secret = server.rotate(&hook).await;
    for (attempt, signer) in [(2, &hook.secret), (3, &new_secret)] {
        assert_eq!(retry(&server, delivery).await.unwrap(), Manual { ok: false, status: 500 });
        let request = new.next_request().await;
        assert_eq!(request.header("x-mailkite-attempt"), attempt.to_string());
        assert!(is_signed_with(&request, signer));
        assert_eq!(request.header("webhook-signature").split(' ').count(), 2);
    }
    server.clock.advance(Duration::from_secs(86_400));
    retry(&server, delivery).await.unwrap();
    let request = new.next_request().await;
    assert!(is_signed_with(&request, &new_secret));
    assert_eq!(request.header("webhook-signature").split(' ').count(), 1);
    assert_eq!(server.query::<String>("SELECT url FROM delivery").await, new.url());
    assert_eq!(old.requests().len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_route_or_message_nothing_is_attempted() {
    let (receiver, answer) = switched(410).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.route("*@inbox.test", AckMode::Control, &receiver.url()).await;
    for subject in ["one", "two"] {
        server.accepted("a@inbox.test", subject).await;
        server.next_attempt().await;
    }
    let delivery = row_of(&server, "SELECT min(id) FROM delivery").await;
    set_active(&server, &hook, false).await;
    assert!(matches!(retry(&server, delivery).await, Err(Refused::RouteGone)));
    set_active(&server, &hook, true).await;
    answer.store(200, Ordering::SeqCst);
    assert!(retry(&server, delivery).await.unwrap().ok);

    // Dropped by a receiver's word: the effects of control mode are those of an automatic attempt.
    let dropping = Receiver::start(|_| Reply::status(200).body(mailkite_sdk::reply_drop())).await;
    let (route, url) = (hook.route.clone(), dropping.url());
    server.write(move |tx, _, now| routes::set_destination(tx, &route, &url, now)).await;
    assert!(retry(&server, delivery).await.unwrap().ok);
    let message = "SELECT status || ' ' || (mail_data_id IS NULL) FROM message ORDER BY id LIMIT 1";
    assert_eq!(server.query::<String>(message).await, "dropped 1");
    assert!(matches!(retry(&server, delivery).await, Err(Refused::MessageExpired)));
    assert_eq!(dropping.requests().len(), 1);

    // Removed.
    let (other, gone) = (row_of(&server, "SELECT max(id) FROM delivery").await, "SELECT max(id) FROM message");
    assert!(delete(&server, server.query(gone).await).await);
    assert!(matches!(retry(&server, other).await, Err(Refused::MessageExpired)));
    assert_eq!(receiver.requests().len(), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_of_a_webhook_is_signed_and_leaves_nothing() {
    let (mut receiver, answer) = switched(200).await;
    let server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    let new_secret = server.rotate(&hook).await;
    let asked = hook.route.clone();
    let route = server.db.read(move |connection| routes::find(connection, &asked)).await.unwrap().unwrap();
    let now = server.clock.now();
    assert_eq!(server.webhooks.test_webhook(&route, "inbox.test", now).await.unwrap(), OK.unwrap());
    let request = receiver.next_request().await;
    let event = request.json();
    let id = event["id"].as_str().unwrap();
    assert!(id.starts_with("msg_test_") && id.len() == 25, "{id}");
    assert!(!event["subject"].as_str().unwrap().is_empty() && !event["text"].as_str().unwrap().is_empty());
    assert_eq!(event["from"], serde_json::json!({"address": "hello@example.com", "name": "mailkite test"}));
    assert_eq!(event["to"], serde_json::json!([{"address": "webhook-test@inbox.test"}]));
    assert_eq!(event["html"], serde_json::Value::Null);
    assert_eq!(event["threadId"], serde_json::Value::Null);
    assert_eq!(event["receivedAt"], now.as_millis());
    let auth = serde_json::json!({"spf": "pass", "dkim": "pass", "dmarc": "pass", "spam": "ham"});
    assert_eq!((&event["auth"], &event["attachments"]), (&auth, &serde_json::json!([])));
    assert_eq!(request.header("webhook-id"), id);
    assert!(request.header("x-mailkite-delivery").starts_with("dlv_test_"));
    assert_eq!(request.header("x-mailkite-attempt"), "1");
    assert!(is_signed_with(&request, &new_secret), "the current secret signs");
    assert_eq!(request.header("webhook-signature").split(' ').count(), 1);

    answer.store(500, Ordering::SeqCst);
    let failed = server.webhooks.test_webhook(&route, "inbox.test", now).await.unwrap();
    assert_eq!(failed, Manual { ok: false, status: 500 });
    drop(receiver);
    let refused = server.webhooks.test_webhook(&route, "inbox.test", now).await;
    assert!(matches!(refused, Err(Refused::DeliveryFailed(_))), "{refused:?}");
    let rows =
        "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM delivery) + (SELECT count(*) FROM attempt)
         + (SELECT count(*) FROM route WHERE last_status IS NOT NULL)";
    assert_eq!(row_of(&server, rows).await, 0);
    server.stop().await;
}
