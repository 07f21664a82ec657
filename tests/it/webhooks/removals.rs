//! Deliveries that end early because their message or route is removed (contract 4.4, 5.5).

use std::sync::Arc;
use std::time::Duration;

use mailkite::testing::clock::Timestamp;
use mailkite::testing::id::{MessageRowId, RowId};
use mailkite::testing::store::search;
use mailkite::testing::store::webhooks::deliveries;
use mailkite::testing::store::webhooks::routes::AckMode;
use mailkite::testing::webhook::manual::retry_now::Refused;

use super::manual_attempts::{DELIVERY, OK, delete, row_of, set_active, standing, switched};
use super::replay::fill;
use crate::support::database::orphaned_objects;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::{Server, message};

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
    let running = tokio::spawn(async move {
        loop {
            // The engine records its attempt a moment before it lets go of the delivery.
            match Arc::clone(&webhooks).retry(RowId::new(delivery), now).await {
                Err(Refused::AttemptInProgress) => tokio::task::yield_now().await,
                done => break done,
            }
        }
    });
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
    let other = server.route("*@inbox.test", AckMode::Lenient, &other_url).await;
    let lame = server.route("last@inbox.test", AckMode::Lenient, &slow.url()).await;
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
