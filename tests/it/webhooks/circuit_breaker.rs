//! The pause of a failing endpoint: one probe at a time, and a slow start once it recovers (contract 9.5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};

use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;

const WAITING: &str = "SELECT count(*) FROM job WHERE lease_until IS NULL";

/// A manual clock in 2026: no pause ends by itself.
fn standing() -> Clock {
    Clock::manual(Timestamp::from_millis(1_785_196_800_000))
}

/// Answers `/hook` with 503 while it fails, and everything else with 200.
async fn failing() -> (Receiver, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&fails);
    let receiver = Receiver::start(move |request| {
        let fails = request.path == "/hook" && asked.load(Ordering::SeqCst);
        Reply::status(if fails { 503 } else { 200 })
    });
    (receiver.await, fails)
}

/// Sends five mails whose first attempts fail, one after the other.
async fn open(server: &mut Server) {
    for number in 0..5 {
        server.accepted("a@inbox.test", &format!("Fails {number}")).await;
        assert_eq!(server.next_attempt().await.attempt, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_endpoint_is_probed_once_a_pause_and_its_deliveries_keep_their_attempts() {
    let (receiver, fails) = failing().await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    server.other_account("victim.test", &receiver.url().replace("/hook", "/victim")).await;
    open(&mut server).await;
    for number in 0..20 {
        server.accepted("a@inbox.test", &format!("Waits {number}")).await;
    }
    server.until(WAITING, 25_i64).await;
    assert_eq!(receiver.requests().len(), 5, "it pauses");
    assert_eq!(server.webhooks.jobs.figures().paused, 1);
    let (_, list) = server.api("/api/deliveries").await;
    let now = server.clock.now().as_millis();
    for delivery in list["deliveries"].as_array().unwrap() {
        let next = delivery["next_attempt_at"].as_i64().unwrap();
        let until = delivery["paused_until"].as_i64().unwrap();
        assert!(until > now && next >= until, "{delivery}");
    }
    let path = format!("/api/messages/{}", list["deliveries"][0]["message_id"].as_str().unwrap());
    let (_, detail) = server.api(&path).await;
    assert_eq!(detail["deliveries"][0]["paused_until"], list["deliveries"][0]["paused_until"]);
    let (_, routes) = server.api("/api/routes").await;
    assert_eq!(routes[0]["paused_until"], list["deliveries"][0]["paused_until"]);
    let (_, overview) = server.api("/api/overview").await;
    assert_eq!(overview["endpoints"][0]["pausedUntil"], routes[0]["paused_until"]);
    assert!(overview["attention"][0]["detail"].as_str().unwrap().contains("one at a time tries it"), "{overview}");
    // Another account's endpoint of the same origin does not pause with it.
    server.accepted("a@victim.test", "Honest").await;
    assert_eq!(server.next_attempt().await.status, "delivered");

    // The first pause is one second and up to a quarter more, the second two.
    for (seconds, requests) in [(2, 7), (3, 8)] {
        server.advance(Duration::from_secs(seconds), &hook.url);
        assert_eq!(server.next_attempt().await.status, "pending");
        server.until(WAITING, 25_i64).await;
        assert_eq!(receiver.requests().len(), requests, "one probe");
    }
    fails.store(false, Ordering::SeqCst);
    server.advance(Duration::from_secs(3600), &hook.url);
    for _ in 0..25 {
        assert_eq!(server.next_attempt().await.status, "delivered");
    }
    assert_eq!(server.webhooks.jobs.figures().paused, 0);
    let first: i64 = server.query("SELECT count(*) FROM delivery WHERE attempts = 1 AND account_id = 1").await;
    let later: i64 = server.query("SELECT count(*) FROM delivery WHERE attempts = 2").await;
    assert_eq!((first, later), (18, 7), "waiting was no attempt");
    let (_, routes) = server.api("/api/routes").await;
    assert_eq!(routes[0]["paused_until"], serde_json::Value::Null);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_attempt_is_made_at_once_and_its_success_ends_the_pause() {
    let (receiver, fails) = failing().await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    server.webhook(&receiver.url()).await;
    open(&mut server).await;
    server.accepted("a@inbox.test", "Waits").await;
    server.until(WAITING, 6_i64).await;
    fails.store(false, Ordering::SeqCst);
    let id: String = server.query("SELECT public_id FROM delivery ORDER BY id LIMIT 1").await;
    let answer = server.owner().await.post_nothing(&format!("/api/deliveries/{id}/retry")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(server.next_attempt().await.status, "delivered", "the person's");
    let probe = server.next_attempt().await;
    assert_eq!((probe.status, probe.attempt), ("delivered", 1), "the one that was never attempted");
    server.until(WAITING, 4_i64).await;
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_longer_than_its_schedule_lasts_is_given_up_without_an_attempt() {
    let (receiver, _) = failing().await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    open(&mut server).await;
    for number in 0..10 {
        server.accepted("a@inbox.test", &format!("Waits {number}")).await;
    }
    server.until(WAITING, 15_i64).await;
    server.advance(Duration::from_secs(90 * 3600), &hook.url);
    for _ in 0..3 {
        server.advance(Duration::from_secs(61), &hook.url);
        server.until("SELECT count(*) FROM job WHERE lease_until IS NOT NULL", 0_i64).await;
    }
    server.until("SELECT count(*) FROM delivery WHERE status = 'pending'", 0_i64).await;
    let unattempted: i64 = server
        .query("SELECT count(*) FROM delivery WHERE status = 'failed' AND last_error = 'endpoint_failing'")
        .await;
    assert!(unattempted >= 10, "{unattempted}");
    assert!(receiver.requests().len() <= 5 + 5, "{} posts", receiver.requests().len());
    server.stop_with_any_jobs().await;
}
