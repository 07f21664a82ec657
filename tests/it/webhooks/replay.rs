//! Many deliveries or messages at once: bulk retries, replays and their candidates (contract 6.3, 6.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mailkite::testing::clock::Timestamp;
use mailkite::testing::id::{DeliveryId, DomainRowId, MessageId, RouteId, RowId};
use mailkite::testing::inbound::route::Pattern;
use mailkite::testing::store::messages::replay_candidates::{self, Candidates, SCAN_MAX};
use mailkite::testing::store::webhooks::routes;
use mailkite::testing::store::webhooks::routes::AckMode;
use mailkite::testing::store::{messages, search};
use mailkite::testing::webhook::manual::replay::{BulkError, BulkResult, Item, Scope};
use mailkite::testing::webhook::manual::retry_now::Manual;

use super::manual_attempts::{DELIVERY, JOB, OK, delete, is_signed_with, row_of, set_active, standing, switched};
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::{Server, Webhook, message};

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

pub(super) async fn fill(server: &Server) {
    server.db.write(|tx| search::fill(tx, 10_000)).await.unwrap();
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
    let other = server.route("b@inbox.test", AckMode::Lenient, &second.url()).await;
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
    server.route("a@inbox.test", AckMode::Lenient, &receiver.url()).await;
    let stopped = server.route("b@inbox.test", AckMode::Lenient, &receiver.url()).await;
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
    let hook = server.route("ada@inbox.test", AckMode::Lenient, &receiver.url()).await;
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
