//! Acknowledgement modes, and answers that mark, drop or block (contract 9.4).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::delivery::standing;
use super::retries::HOUR;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::{Server, message};
use crate::support::smtp::SmtpClient;
use mailkite::testing::store::webhooks::routes::AckMode;

#[tokio::test(flavor = "multi_thread")]
async fn ack_mode_wants_its_proof() {
    for (reply, delivered) in [
        (Reply::status(200), false),
        (Reply::status(200).body("ok"), false),
        (Reply::status(200).body(mailkite_sdk::reply_ok()), true),
        (Reply::status(204).header("x-mailkite-ack", "ok"), true),
        (Reply::status(500).body(mailkite_sdk::reply_ok()), false),
    ] {
        let said = format!("{reply:?}");
        let receiver = Receiver::start(move |_| reply.clone()).await;
        let mut server = Server::start().await;
        server.route("*@inbox.test", AckMode::Ack, &receiver.url()).await;
        server.accepted("a@inbox.test", "Proof").await;
        let attempted = server.next_attempt().await;
        assert_eq!(attempted.status == "delivered", delivered, "{said}");
        if !delivered && attempted.status_code == Some(200) {
            assert_eq!(attempted.error, Some("no_ack"), "{said}");
        }
        server.stop_with_jobs(i64::from(!delivered)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_answer_marks_the_message_as_spam_and_the_payload_does_not_change() {
    let receiver = Receiver::start(|_| Reply::status(200).body(mailkite_sdk::reply_spam())).await;
    let mut server = Server::start().await;
    server.route("*@inbox.test", AckMode::Control, &receiver.url()).await;
    server.accepted("a@inbox.test", "Cheap").await;
    assert_eq!(server.next_attempt().await.status, "delivered");
    let verdicts: String =
        server.query("SELECT coalesce(spam, '-') || ' ' || coalesce(spam_on_arrival, '-') FROM message").await;
    assert_eq!(verdicts, "spam -");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_answer_drops_the_content_and_ends_the_other_deliveries() {
    let failing = Receiver::start(|_| Reply::status(429).header("retry-after", "3600")).await;
    let answers = AtomicU32::new(0);
    let dropping = Receiver::start(move |_| match answers.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(500),
        _ => Reply::status(200).body(mailkite_sdk::reply_drop()),
    })
    .await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    server.webhook(&failing.url()).await;
    server.route("b@inbox.test", AckMode::Control, &dropping.url()).await;
    let big = format!("{}{}", message("Secret"), format!("{}\r\n", "x".repeat(70)).repeat(2_000));
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    for to in ["a@inbox.test", "b@inbox.test"] {
        assert_eq!(client.mail("ada@example.com", &[to], &big).await.code, 250);
    }
    for _ in 0..3 {
        assert_eq!(server.next_attempt().await.status, "pending");
    }
    server.advance(Duration::from_secs(6), &dropping.url());
    let dropped = server.next_attempt().await;
    assert_eq!((dropped.url, dropped.status), (dropping.url(), "delivered"));
    let rows: String = server
        .query(
            "SELECT group_concat(row, ' ') FROM (SELECT to_addr || '=' || status || ':' || (mail_data_id IS NULL) AS row
             FROM message ORDER BY id)",
        )
        .await;
    assert_eq!(rows, "a@inbox.test=received:0 b@inbox.test=dropped:1");
    let ended: String = server
        .query(
            "SELECT group_concat(row, ' ') FROM
               (SELECT to_addr || '=' || delivery.status || ':' || coalesce(last_error, '-') AS row
                FROM delivery JOIN message ON message.id = message_id ORDER BY delivery.id)",
        )
        .await;
    assert_eq!(ended, "a@inbox.test=pending:http_status b@inbox.test=failed:message_gone b@inbox.test=delivered:-");
    // The job of the ended delivery finds nothing to do when its time comes; the other message's goes on.
    server.advance(HOUR, &failing.url());
    assert_eq!(server.next_attempt().await.attempt, 2);
    server.until("SELECT count(*) FROM job", 1_i64).await;
    server.stop_with_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_under_way_when_its_message_is_dropped_does_not_bring_the_delivery_back() {
    let mut slow = Receiver::start(|_| Reply::status(500).after(Duration::from_millis(700))).await;
    let answers = AtomicU32::new(0);
    let dropping = Receiver::start(move |_| match answers.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(500),
        _ => Reply::status(200).body(mailkite_sdk::reply_drop()),
    })
    .await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&slow.url()).await;
    server.route("a@inbox.test", AckMode::Control, &dropping.url()).await;
    server.accepted("a@inbox.test", "Dropped").await;
    slow.next_request().await;
    assert_eq!(server.next_attempt().await.url, dropping.url());
    server.advance(Duration::from_secs(6), &dropping.url());
    assert_eq!(server.next_attempt().await.status, "delivered");
    assert_eq!(server.next_attempt().await.url, hook.url);
    let row = "SELECT status || ' ' || last_error || ' ' || attempts FROM delivery ORDER BY id LIMIT 1";
    assert_eq!(server.query::<String>(row).await, "failed message_gone 1");
    server.advance(Duration::from_secs(12), &hook.url);
    server.until("SELECT count(*) FROM job", 0_i64).await;
    assert_eq!(slow.requests().len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_sender_is_stored_as_spam_and_nobody_is_called() {
    let receiver = Receiver::start(|_| Reply::status(200).body(mailkite_sdk::reply_block_sender())).await;
    let mut server = Server::start().await;
    server.route("*@inbox.test", AckMode::Control, &receiver.url()).await;
    server.accepted("a@inbox.test", "One").await;
    assert_eq!(server.next_attempt().await.status, "delivered");
    server.accepted("a@inbox.test", "Two").await;
    let rows: String = server
        .query(
            "SELECT group_concat(row, ' ') FROM
               (SELECT subject || ':' || coalesce(spam, '-') || ':' ||
                       (SELECT count(*) FROM delivery WHERE message_id = message.id) AS row FROM message ORDER BY id)",
        )
        .await;
    assert_eq!(rows, "One:-:1 Two:spam:0");
    assert_eq!(receiver.requests().len(), 1);
    server.stop().await;
}
