//! Manual retries and replays, and deliveries that end early by a removal (contract 3.6, 5.5, 6.2 to 6.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::id::{DeliveryId, DomainRowId, MessageId, MessageRowId, RouteId, RowId};
use mailkite::testing::inbound::route::Pattern;
use mailkite::testing::retention::delete_message;
use mailkite::testing::store::blobs::objects::Objects;
use mailkite::testing::store::messages::replay_candidates::{self, Candidates, SCAN_MAX};
use mailkite::testing::store::webhooks::{deliveries, routes};
use mailkite::testing::store::{messages, search};
use mailkite::testing::webhook::manual::replay::{BulkError, BulkResult, Item, Scope};
use mailkite::testing::webhook::manual::retry_now::{Manual, Refused};

use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::server::{Server, Webhook, message, orphaned_objects};

const OK: Result<Manual, &str> = Ok(Manual { ok: true, status: 200 });
const DELIVERY: &str = "SELECT status || ' ' || attempts || ' ' || coalesce(last_status_code, '-') || ' ' ||
     coalesce(last_error, '-') || ' ' || coalesce(next_attempt_at, '-') FROM delivery ORDER BY id LIMIT 1";
const JOB: &str = "SELECT coalesce((SELECT run_at || ' ' || failures || ' ' || claims || ' ' ||
     coalesce(lease_until, '-') FROM job ORDER BY id LIMIT 1), 'none')";

fn standing() -> Clock {
    Clock::manual(Timestamp::from_millis(1_785_196_800_000))
}

/// A receiver that answers with the status that the test sets.
async fn switched(status: u16) -> (Receiver, Arc<AtomicU16>) {
    let answer = Arc::new(AtomicU16::new(status));
    let asked = Arc::clone(&answer);
    (Receiver::start(move |_| Reply::status(asked.load(Ordering::SeqCst))).await, answer)
}

async fn row_of(server: &Server, sql: &'static str) -> i64 {
    server.query::<i64>(sql).await
}

async fn retry(server: &Server, delivery: i64) -> Result<Manual, Refused> {
    server.webhooks.retry(RowId::new(delivery), server.clock.now()).await
}

fn scope(server: &Server) -> Scope {
    Scope { account: server.inbox.account_id, domain: None }
}

async fn bulk(server: &Server, items: Vec<Item>) -> Vec<BulkResult> {
    server.webhooks.retry_many(scope(server), items, server.clock.now()).await.unwrap()
}

async fn replay(server: &Server, hook: &Webhook, ids: &[&str]) -> Vec<BulkResult> {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    server.webhooks.deliver_route(scope(server), hook.route.clone(), ids, server.clock.now()).await.unwrap()
}

fn outcomes(results: &[BulkResult]) -> Vec<Result<Manual, &'static str>> {
    results.iter().map(|result| result.outcome).collect()
}

async fn set_active(server: &Server, hook: &Webhook, active: bool) {
    let route = hook.route.clone();
    server.write(move |tx, _, now| routes::set_active(tx, &route, active, now)).await;
}

async fn fill(server: &Server) {
    server.db.write(|tx| search::fill(tx, 10_000)).await.unwrap();
}

async fn delete(server: &Server, message: i64) -> bool {
    let objects = Objects::open(server.data_dir()).unwrap();
    delete_message(&server.db, &objects, RowId::new(message), server.clock.now()).await.unwrap()
}

fn is_signed_with(request: &Received, secret: &str) -> bool {
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
    let hook = server.route("*@inbox.test", "control", &receiver.url()).await;
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
async fn fifty_attempts_run_at_the_same_time_and_are_reported_in_the_order_asked() {
    const WAIT: Duration = Duration::from_millis(1_000);
    let slow = Arc::new(AtomicU16::new(0));
    let asked = Arc::clone(&slow);
    let receiver = Receiver::start(move |_| match asked.load(Ordering::SeqCst) {
        0 => Reply::status(410),
        _ => Reply::status(200).after(WAIT),
    })
    .await;
    let mut server = Server::start().await;
    server.webhook(&receiver.url()).await;
    let mut ids = Vec::new();
    for mail in 0..51 {
        ids.push(server.accepted("a@inbox.test", &format!("mail {mail}")).await);
        server.next_attempt().await;
    }
    slow.store(1, Ordering::SeqCst);
    let items = |count: usize| ids.iter().rev().take(count).cloned().map(Item::Message).collect::<Vec<_>>();
    let too_many = server.webhooks.retry_many(scope(&server), items(51), server.clock.now()).await;
    assert!(matches!(too_many, Err(BulkError::Count)));
    let started = std::time::Instant::now();
    let results = bulk(&server, items(50)).await;
    let took = started.elapsed();
    assert!(took < 10 * WAIT, "one after the other they take 50 s; {took:?}");
    assert_eq!(outcomes(&results), [OK; 50]);
    assert!(results.iter().map(|result| &result.id).eq(ids.iter().rev().take(50)));
    assert_eq!(receiver.requests().len(), 51 + 50);
    assert_eq!(row_of(&server, "SELECT count(*) FROM delivery WHERE status = 'delivered'").await, 50);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_every_kind_stand_for_their_deliveries_and_each_is_attempted_once() {
    let (receiver, answer) = switched(410).await;
    let (second, _) = switched(200).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    server.webhook(&receiver.url()).await;
    let other = server.route("b@inbox.test", "lenient", &second.url()).await;
    let foreign = server.other_account("other.test", &second.url()).await;
    let first = server.accepted("a@inbox.test", "Talk").await;
    server.next_attempt().await;
    fill(&server).await;
    let reply = message("Re: Talk").replace("Message-ID:", "In-Reply-To: <Talk@example.com>\r\nMessage-ID:");
    assert_eq!(server.mail("b@inbox.test", &reply).await.code, 250);
    let unheard = server.accepted("b@other.test", "Talk").await;
    for _ in 0..3 {
        server.next_attempt().await;
    }
    set_active(&server, &foreign, false).await;
    let silent = server.plain_route("c@inbox.test", routes::Action::Store).await;
    assert_ne!(silent, other.route);
    let delivery: String = server.query("SELECT public_id FROM delivery ORDER BY id LIMIT 1").await;
    answer.store(200, Ordering::SeqCst);

    let before = receiver.requests().len();
    let items = vec![
        Item::Thread("<Talk@example.com>".to_owned()),
        Item::Delivery(delivery.clone()),
        Item::Message(first.clone()),
        Item::Message(unheard),
        Item::Message("nonsense".to_owned()),
        Item::Delivery("dlv_0000000000000000".to_owned()),
        Item::Thread("<none@example.com>".to_owned()),
    ];
    let results = bulk(&server, items).await;
    let missing = Err("not_found");
    assert_eq!(outcomes(&results), [OK, OK, OK, OK, OK, missing, missing, missing, missing]);
    let ids: Vec<&str> = results.iter().map(|result| result.id.as_str()).collect();
    assert_eq!(
        ids[..5],
        ["<Talk@example.com>"; 3].into_iter().chain([delivery.as_str(), &first]).collect::<Vec<_>>()
    );
    assert_eq!(results[0].delivery, DeliveryId::parse(&delivery));
    assert_eq!((&results[3].delivery, &results[4].delivery), (&results[0].delivery, &results[0].delivery));
    assert_eq!(receiver.requests().len() - before, 2, "three ids stand for the first message's one delivery");
    assert_eq!(row_of(&server, "SELECT max(attempts) FROM delivery").await, 2);

    // The same when all of the thread is in the index, and for a key of another domain.
    fill(&server).await;
    let thread = vec![Item::Thread("<Talk@example.com>".to_owned())];
    assert_eq!(outcomes(&bulk(&server, thread.clone()).await), [OK; 3]);
    let elsewhere = Scope { domain: Some(RowId::new(server.inbox.id.get() + 1_000)), ..scope(&server) };
    let asked = [thread, vec![Item::Delivery(delivery), Item::Message(first)]].concat();
    let results = server.webhooks.retry_many(elsewhere, asked, server.clock.now()).await.unwrap();
    assert_eq!(outcomes(&results), [missing; 3]);
    let none = server.webhooks.retry_many(scope(&server), Vec::new(), server.clock.now()).await;
    assert!(matches!(none, Err(BulkError::Count)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_id_says_why_it_has_no_answer() {
    let (receiver, _) = switched(410).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    server.route("a@inbox.test", "lenient", &receiver.url()).await;
    let stopped = server.route("b@inbox.test", "lenient", &receiver.url()).await;
    let none = server.accepted("none@inbox.test", "No route").await;
    let tried = server.accepted("a@inbox.test", "Tried").await;
    let halted = server.accepted("b@inbox.test", "Halted").await;
    for _ in 0..2 {
        server.next_attempt().await;
    }
    set_active(&server, &stopped, false).await;
    let asked = MessageId::parse(&tried).unwrap();
    let row = server.db.read(move |c| messages::find(c, &asked)).await.unwrap().unwrap().id;
    let delivery: String = server.query("SELECT public_id FROM delivery ORDER BY id LIMIT 1").await;
    drop(receiver);
    let items = vec![Item::Message(none), Item::Message(tried), Item::Message(halted)];
    let results = bulk(&server, items).await;
    assert_eq!(outcomes(&results), [Err("no_delivery"), Err("delivery_failed"), Err("route_gone")]);
    assert!(results[0].delivery.is_none() && results[1].delivery.is_some());
    assert!(delete(&server, row.get()).await);
    assert_eq!(outcomes(&bulk(&server, vec![Item::Delivery(delivery)]).await), [Err("message_expired")]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_messages_are_posted_to_a_newer_route() {
    let (mut receiver, answer) = switched(500).await;
    let server = Server::start_with(standing(), |_| {}).await;
    let first = server.accepted("a@inbox.test", "Before").await;
    let second = server.accepted("b@inbox.test", "Also before").await;
    let hook = server.webhook(&receiver.url()).await;
    let results = replay(&server, &hook, &[&second, "msg_0000000000000000", &first]).await;
    let failed = Ok(Manual { ok: false, status: 500 });
    assert_eq!(outcomes(&results), [failed, Err("not_found"), failed]);
    let request = receiver.next_request().await;
    assert!(is_signed_with(&request, &hook.secret));
    assert_eq!(request.header("x-mailkite-attempt"), "1");
    // Nobody tries them again by itself, so they are not pending.
    assert_eq!(server.query::<String>(DELIVERY).await, "failed 1 500 http_status -");
    assert_eq!(server.query::<String>(JOB).await, "none");

    answer.store(200, Ordering::SeqCst);
    let again = replay(&server, &hook, &[&first, &second, &first]).await;
    assert_eq!(outcomes(&again), [OK; 3]);
    assert_eq!(again[0].delivery, results[2].delivery, "the delivery row is used again");
    assert_eq!(row_of(&server, "SELECT count(*) FROM delivery").await, 2);
    assert_eq!(row_of(&server, "SELECT count(*) FROM attempt WHERE manual = 1").await, 4);

    set_active(&server, &hook, false).await;
    assert_eq!(outcomes(&replay(&server, &hook, &[&first]).await), [Err("route_gone")]);
    let too_many = vec![first.clone(); 51];
    let asked = server.webhooks.deliver_route(scope(&server), hook.route.clone(), too_many, server.clock.now());
    assert!(matches!(asked.await, Err(BulkError::Count)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_a_pending_delivery_takes_it_off_the_schedule() {
    let (receiver, answer) = switched(500).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    let id = server.accepted("a@inbox.test", "Pending").await;
    server.next_attempt().await;
    answer.store(200, Ordering::SeqCst);
    assert_eq!(outcomes(&replay(&server, &hook, &[&id]).await), [OK]);
    assert_eq!(server.query::<String>(DELIVERY).await, "delivered 2 200 - -");
    server.stop().await;
}

async fn candidates(
    server: &Server,
    hook: &Webhook,
    matching: &'static str,
    query: replay_candidates::Query,
) -> Candidates {
    let query = replay_candidates::Query { account: server.inbox.account_id, route: hook.route.clone(), ..query };
    let listed = server.db.read(move |connection| {
        let pattern = Pattern::parse(matching).unwrap();
        replay_candidates::list(connection, &query, |address| pattern.matches(address))
    });
    listed.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_are_what_the_match_covers_newest_first_in_pages() {
    let (receiver, _) = switched(200).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    for (to, subject) in [("Ada@inbox.test", "1"), ("bob@inbox.test", "2"), ("ada@inbox.test", "3")] {
        server.accepted(to, subject).await;
    }
    server.accepted("postmaster@mx.mailkite.test", "of no domain").await;
    let hook = server.route("ada@inbox.test", "lenient", &receiver.url()).await;
    server.accepted("ada@inbox.test", "4").await;
    server.next_attempt().await;
    let page = |domain: Option<DomainRowId>, before, limit| replay_candidates::Query {
        account: RowId::new(0),
        domain,
        route: RouteId::new(Timestamp::from_millis(0)),
        before,
        limit,
    };
    for (matching, domain) in [("ada@inbox.test", Some(server.inbox.id)), ("/^ada@/", None)] {
        let mut before = None;
        let mut seen = Vec::new();
        loop {
            let step = candidates(&server, &hook, matching, page(domain, before, 2)).await;
            seen.extend(step.found.into_iter().map(|one| (one.message.subject.unwrap(), one.delivered_here)));
            before = step.next_before;
            if before.is_none() {
                break;
            }
        }
        let wanted = [("4", true), ("3", false), ("1", false)].map(|(subject, here)| (subject.to_owned(), here));
        assert_eq!(seen, wanted, "{matching}");
    }
    let all = candidates(&server, &hook, "/@/", page(None, None, 10)).await;
    assert_eq!(all.found.len(), 4, "mail to the host name itself belongs to no route");

    // A long way between two matches ends a page early.
    server
        .db
        .write(|tx| {
            tx.execute_batch(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2500)
                 INSERT INTO message (public_id, account_id, domain_id, direction, status, mail_from, from_addr, to_addr,
                                      trace, size, received_at)
                 SELECT printf('msg_%016d', n), account_id, domain_id, 'inbound', 'received', '', 'x@y.z',
                        'bob@inbox.test', '', 1, received_at + n
                 FROM n, (SELECT * FROM message ORDER BY id DESC LIMIT 1)",
            )?;
            Ok(())
        })
        .await
        .unwrap();
    let step = candidates(&server, &hook, "ada@inbox.test", page(Some(server.inbox.id), None, 10)).await;
    assert!(step.found.is_empty(), "{}", step.found.len());
    let newest = row_of(&server, "SELECT max(received_at) FROM message").await;
    assert_eq!(step.next_before.unwrap().as_millis(), newest - i64::from(SCAN_MAX) + 1);
    let step = candidates(&server, &hook, "ada@inbox.test", page(Some(server.inbox.id), step.next_before, 10)).await;
    assert_eq!((step.found.len(), step.next_before), (3, None));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_message_takes_everything_with_it_and_ends_what_is_pending() {
    let (receiver, _) = switched(500).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    server.webhook(&receiver.url()).await;
    let big = format!("{}{}", message("Large"), format!("{}\r\n", "x".repeat(70)).repeat(2_000));
    for to in ["a@inbox.test", "b@inbox.test"] {
        assert_eq!(server.mail(to, &big).await.code, 250);
        server.next_attempt().await;
    }
    fill(&server).await;
    assert!(delete(&server, 2).await);
    assert!(!delete(&server, 2).await, "there is nothing left to remove");
    assert_eq!(row_of(&server, "SELECT count(*) FROM message").await, 1);
    assert_eq!(row_of(&server, "SELECT count(*) FROM mail_data").await, 1);
    assert_eq!(row_of(&server, "SELECT count(*) FROM attempt").await, 1);
    assert_eq!(row_of(&server, "SELECT count(*) FROM job").await, 1);
    assert_eq!(row_of(&server, "SELECT count(*) FROM message_thread").await, 1);
    assert_eq!(orphaned_objects(server.data_dir()), Vec::<String>::new());
    let ended = "SELECT status || ' ' || last_error || ' ' || (message_id IS NULL) FROM delivery WHERE id = 2";
    assert_eq!(server.query::<String>(ended).await, "failed message_gone 1");

    // The next message gets a row id of its own.
    server.accepted("c@inbox.test", "Later").await;
    server.next_attempt().await;
    assert_eq!(row_of(&server, "SELECT max(id) FROM message").await, 3);
    fill(&server).await;
    assert_eq!(row_of(&server, "SELECT count(*) FROM message_thread").await, 2);
    let found =
        server.db.read(move |c| search::list_thread(c, RowId::new(1), "<Later@example.com>", None)).await.unwrap();
    assert_eq!(found, [MessageRowId::new(3)]);
    let found = server.api("/api/messages?search=later").await.1;
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    let parted = server.db.write(|tx| deliveries::delete_detached(tx, Timestamp::from_millis(i64::MAX), 10)).await;
    assert_eq!(parted.unwrap(), 1, "it goes when captures go");
    server.stop_with_jobs(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_during_an_attempt_is_harmless() {
    let mut receiver = Receiver::start(|_| Reply::status(200).after(Duration::from_millis(700))).await;
    let server = Server::start_with(standing(), |_| {}).await;
    server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "By the engine").await;
    receiver.next_request().await;
    assert!(delete(&server, 1).await);
    server.until("SELECT count(*) FROM job", 0_i64).await;
    server.accepted("a@inbox.test", "By hand").await;
    receiver.next_request().await;
    server.until("SELECT count(*) FROM delivery WHERE status = 'delivered'", 1_i64).await;
    let (webhooks, now) = (Arc::clone(&server.webhooks), server.clock.now());
    let delivery = row_of(&server, "SELECT max(id) FROM delivery").await;
    let running = tokio::spawn(async move { webhooks.retry(RowId::new(delivery), now).await });
    receiver.next_request().await;
    assert!(delete(&server, row_of(&server, "SELECT max(id) FROM message").await).await);
    assert_eq!(running.await.unwrap().unwrap(), OK.unwrap());
    assert_eq!(row_of(&server, "SELECT count(*) FROM attempt").await, 0);
    let states = "SELECT group_concat(status || ':' || coalesce(last_error, '-'), ' ') FROM delivery";
    assert_eq!(server.query::<String>(states).await, "failed:message_gone delivered:-");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_route_ends_what_is_pending_at_once_and_its_running_attempt_does_not_bring_it_back() {
    let (receiver, _) = switched(500).await;
    let mut slow = Receiver::start(|_| Reply::status(500).after(Duration::from_millis(700))).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    // Another endpoint of the same origin: neither fails so often in a row that it pauses.
    let other_url = receiver.url().replace("/hook", "/other");
    let other = server.route("*@inbox.test", "lenient", &other_url).await;
    let lame = server.route("last@inbox.test", "lenient", &slow.url()).await;
    for mail in 0..3 {
        server.accepted("a@inbox.test", &format!("{mail}")).await;
        server.next_attempt().await;
        server.next_attempt().await;
    }
    server.accepted("last@inbox.test", "running").await;
    slow.next_request().await;
    for _ in 0..2 {
        server.next_attempt().await;
    }
    for hook in [&hook, &lame] {
        set_active(&server, hook, false).await;
    }
    let routes = vec![hook.route.clone(), lame.route.clone()];
    assert_eq!(server.webhooks.end_routes(routes, server.clock.now()).await.unwrap(), 5);
    assert_eq!(server.next_attempt().await.url, lame.url);
    let states =
        "SELECT group_concat(state, ' ') FROM (SELECT route.id || ':' || delivery.status || ':' || last_error
         || ':' || count(*) AS state FROM delivery JOIN route ON route.public_id = route_id
         GROUP BY route.id, delivery.status, last_error ORDER BY 1)";
    assert_eq!(
        server.query::<String>(states).await,
        "1:failed:route_gone:4 2:pending:http_status:4 3:failed:route_gone:1"
    );
    // The job of the attempt that ran finds nothing to do when its time comes; the other route's go on.
    server.advance(Duration::from_secs(6), &slow.url());
    server.until("SELECT count(*) FROM job", 4_i64).await;
    assert_eq!((other.url, slow.requests().len()), (other_url, 1));
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_keeps_a_removed_route_from_ending_the_engine_ends_when_it_is_due() {
    let (receiver, _) = switched(500).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Owed").await;
    server.next_attempt().await;
    server
        .write(|tx, _, _| {
            tx.execute_batch("DELETE FROM route")?;
            Ok(())
        })
        .await;
    server.advance(Duration::from_secs(6), &hook.url);
    server.until(DELIVERY, "failed 1 500 route_gone -".to_owned()).await;
    assert_eq!(receiver.requests().len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pending_deliveries_of_a_route_end_in_steps() {
    let (receiver, _) = switched(500).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Many").await;
    server.next_attempt().await;
    server
        .db
        .write(|tx| {
            tx.execute_batch(
                "WITH RECURSIVE n (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < 1200)
                 INSERT INTO delivery (id, public_id, account_id, message_id, route_id, event_id, event_type, url,
                                       status, created_at, updated_at)
                 SELECT n, printf('dlv_%016d', n), account_id, message_id, route_id, event_id, event_type, url, status,
                        created_at, updated_at
                 FROM n, delivery;
                 INSERT INTO job (lane, kind, subject_id, run_at)
                 SELECT lane, 'webhook', delivery.id, run_at FROM job, delivery WHERE delivery.id > 1",
            )?;
            Ok(())
        })
        .await
        .unwrap();
    set_active(&server, &hook, false).await;
    let ended = server.webhooks.end_routes(vec![hook.route.clone()], server.clock.now()).await.unwrap();
    assert_eq!(ended, 1_200);
    assert_eq!(row_of(&server, "SELECT count(*) FROM delivery WHERE last_error = 'route_gone'").await, 1_200);
    server.stop().await;
}
