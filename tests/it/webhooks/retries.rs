//! Automatic retries: the schedule, clocks that are set back, routes that change while a retry waits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mailkite::testing::clock::Clock;
use mailkite::testing::store;

use super::delivery::{is_signed_with, is_standard_signed_with, receiver, standing};
use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::server::{Server, message};

pub(super) const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_retried_through_the_whole_schedule_and_then_fails() {
    let mut receiver = receiver(503).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Persistent").await;
    let rungs = [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000, 86_400, 86_400];
    let mut first = None;
    for (index, secs) in rungs.into_iter().enumerate() {
        let request = receiver.next_request().await;
        let attempted = server.next_attempt().await;
        assert_eq!((attempted.attempt as usize, attempted.status), (index + 1, "pending"));
        let wait = attempted.next_attempt_at.unwrap().since(server.clock.now()).as_secs_f64();
        assert!((secs as f64..=secs as f64 * 1.1 + 1.0).contains(&wait), "retry {index}: {wait} s");
        assert_eq!(first.get_or_insert(request.body.clone()), &request.body);
        server.advance(Duration::from_secs_f64(wait + 0.001), &hook.url);
    }
    let last = server.next_attempt().await;
    assert_eq!((last.attempt, last.status, last.next_attempt_at), (10, "failed", None));
    let row: String = server.query("SELECT status || ' ' || attempts || ' ' || last_error FROM delivery").await;
    assert_eq!(row, "failed 10 http_status");
    server.stop().await;
}

/// Makes a first attempt that fails with the clock ten days ahead; returns the delay of the retry in milliseconds.
async fn failed_in_the_future(server: &mut Server) -> i64 {
    assert_eq!(server.mail("a@inbox.test", &message("Hi")).await.code, 250);
    let first = server.next_attempt().await;
    assert_eq!((first.attempt, first.status), (1, "pending"));
    first.next_attempt_at.unwrap().as_millis() - server.clock.now().as_millis()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_delays_no_retry() {
    let now = standing().now();
    let clock = Clock::manual(now.plus(10 * 24 * HOUR));
    let mut server = Server::start_with(clock.clone(), |_| {}).await;
    let tries = AtomicU32::new(0);
    let answer = move |_: &Received| Reply::status(if tries.fetch_add(1, Ordering::SeqCst) == 0 { 500 } else { 200 });
    let receiver = Receiver::start(answer).await;
    server.webhook(&receiver.url()).await;
    let wait = failed_in_the_future(&mut server).await;
    clock.set(now);
    server.advance(Duration::ZERO, &receiver.url());
    server.until("SELECT run_at < 1785196800000 + 6000 FROM job", true).await;
    let planned: i64 = server.query("SELECT next_attempt_at FROM delivery").await;
    // What passed meanwhile counts too.
    assert!(planned - now.as_millis() <= wait, "{}", planned - now.as_millis());
    server.advance(Duration::from_secs(6), &receiver.url());
    let second = server.next_attempt().await;
    assert_eq!((second.attempt, second.status), (2, "delivered"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_before_the_start_delays_no_retry() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let now = standing().now();
    let receiver = receiver(500).await;
    let ahead = Clock::manual(now.plus(10 * 24 * HOUR));
    let mut server = Server::start_with(ahead, |config| config.data_dir.clone_from(&data_dir)).await;
    server.webhook(&receiver.url()).await;
    failed_in_the_future(&mut server).await;
    server.stop_with_jobs(1).await;
    let mut server = Server::start_unowned(Clock::manual(now), |config| config.data_dir.clone_from(&data_dir)).await;
    assert_eq!(server.next_attempt().await.attempt, 2);
    server.stop_with_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_switched_off_ends_its_waiting_deliveries() {
    let receiver = receiver(500).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Stopped").await;
    server.next_attempt().await;
    let route = hook.route.clone();
    server.write(move |tx, _, now| store::webhooks::routes::set_active(tx, &route, false, now)).await;
    server.advance(HOUR, &hook.url);
    server.until("SELECT last_error FROM delivery", "route_gone".to_owned()).await;
    assert_eq!(receiver.requests().len(), 1);
    server.accepted("a@inbox.test", "Stored only").await;
    assert_eq!(server.query::<i64>("SELECT count(*) FROM delivery").await, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_retry_goes_to_the_new_url_and_both_secrets_sign_it() {
    let old = receiver(500).await;
    let answers = AtomicU32::new(0);
    let mut new =
        Receiver::start(move |_| Reply::status(if answers.fetch_add(1, Ordering::SeqCst) == 0 { 500 } else { 200 }))
            .await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&old.url()).await;
    server.accepted("a@inbox.test", "Moving").await;
    assert_eq!(server.next_attempt().await.url, old.url());

    let new_secret = server.rotate(&hook).await;
    let (route, url) = (hook.route.clone(), new.url());
    server.write(move |tx, _, now| store::webhooks::routes::set_destination(tx, &route, &url, now)).await;
    server.advance(Duration::from_secs(6), &hook.url);
    let second = new.next_request().await;
    assert_eq!(server.next_attempt().await.url, new.url());
    // Even attempts carry the old secret in the one-signature header, odd ones the new (contract 9.3).
    assert!(is_signed_with(&second, &hook.secret) && !is_signed_with(&second, &new_secret));
    assert!(is_standard_signed_with(&second, &hook.secret) && is_standard_signed_with(&second, &new_secret));
    assert_eq!(second.header("webhook-signature").split(' ').count(), 2);

    server.advance(Duration::from_secs(400), &hook.url);
    server.advance(Duration::ZERO, &new.url());
    let third = new.next_request().await;
    assert_eq!(server.next_attempt().await.status, "delivered");
    assert!(is_signed_with(&third, &new_secret) && !is_signed_with(&third, &hook.secret));
    assert!(is_standard_signed_with(&third, &hook.secret) && is_standard_signed_with(&third, &new_secret));
    assert_eq!(old.requests().len(), 1);

    // A day later the old secret is dead.
    server.clock.advance(25 * HOUR);
    server.accepted("a@inbox.test", "Settled").await;
    let fourth = new.next_request().await;
    server.next_attempt().await;
    assert!(is_signed_with(&fourth, &new_secret) && is_standard_signed_with(&fourth, &new_secret));
    assert!(!is_standard_signed_with(&fourth, &hook.secret));
    server.stop().await;
}
