//! The main job end to end: a mail over SMTP becomes a signed webhook, tried until it is acknowledged (contract 9).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::store;
use mailkite::testing::store::webhooks::routes::Action;
use ring::hmac;

use crate::support::dev_process::http_get;
use crate::support::machine::skip;
use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::server::{Server, message};
use crate::support::smtp::SmtpClient;

const HOUR: Duration = Duration::from_secs(3600);

/// A manual clock in 2026.
fn standing() -> Clock {
    Clock::manual(Timestamp::from_millis(1_785_196_800_000))
}

async fn receiver(status: u16) -> Receiver {
    Receiver::start(move |_| Reply::status(status)).await
}

/// Checks the signature of the official clients with the official client.
fn is_signed_with(request: &Received, secret: &str) -> bool {
    let body = std::str::from_utf8(&request.body).unwrap();
    mailkite_sdk::verify_webhook_with_tolerance(request.header("x-mailkite-signature"), body, secret, 0)
}

/// Checks the Standard Webhooks signature as its specification says.
fn is_standard_signed_with(request: &Received, secret: &str) -> bool {
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut signed =
        format!("{}.{}.", request.header("webhook-id"), request.header("webhook-timestamp")).into_bytes();
    signed.extend_from_slice(&request.body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
    let wanted = format!("v1,{}", BASE64.encode(tag));
    request.header("webhook-signature").split(' ').any(|part| part == wanted)
}

fn signed_at(request: &Received) -> i64 {
    let header = request.header("x-mailkite-signature");
    header.strip_prefix("t=").unwrap().split_once(',').unwrap().0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_becomes_a_webhook_with_exactly_this_json_and_both_signatures() {
    let mut receiver = receiver(200).await;
    let server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    let id = server.accepted("Support@Inbox.Test", "Engine question").await;

    let request = receiver.next_request().await;
    let text = std::str::from_utf8(&request.body).unwrap();
    let wanted = format!(
        r#"{{"id":"{id}","type":"email.received","from":{{"address":"ada@example.com","name":"Ada Lovelace"}},"to":[{{"address":"Support@inbox.test","name":"Support"}}],"subject":"Engine question","text":"Does it branch?","html":null,"threadId":"<Engine.question@example.com>","receivedAt":1785196800000,"receivedAtIso":"2026-07-28T00:00:00.000Z","auth":{{"spf":null,"dkim":null,"dmarc":null,"spam":null}},"attachments":[]}}"#
    );
    assert_eq!(text, wanted);

    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook"));
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("user-agent"), concat!("mailkite/", env!("CARGO_PKG_VERSION")));
    assert!(request.header("x-mailkite-delivery").starts_with("dlv_"));
    assert_eq!(request.header("x-mailkite-attempt"), "1");
    assert_eq!(request.header("webhook-id"), id);
    assert_eq!(request.header("webhook-timestamp"), "1785196800");
    assert_eq!(request.header("accept-encoding"), "", "the answer is read as it is");
    assert_eq!(signed_at(&request), 1_785_196_800_000);
    assert!(is_signed_with(&request, &hook.secret) && is_standard_signed_with(&request, &hook.secret));
    assert!(!is_signed_with(&request, "whsec_other"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_text_is_the_same_bytes_on_every_attempt_and_where_it_is_shown() {
    let answers = AtomicU32::new(0);
    let mut receiver =
        Receiver::start(move |_| Reply::status(if answers.fetch_add(1, Ordering::SeqCst) == 0 { 500 } else { 200 }))
            .await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    let line = |text: &str| format!("{}\r\n", text.repeat(20)).repeat(10_000);
    let mail = format!(
        "Subject: Large\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\n{}",
        line("=E9\u{1}")
    );
    assert_eq!(server.mail("a@inbox.test", &mail).await.code, 250);

    let first = receiver.next_request().await;
    assert_eq!(first.header("content-length"), first.body.len().to_string());
    assert!(is_signed_with(&first, &hook.secret) && is_standard_signed_with(&first, &hook.secret));
    let text = line("\u{e9}\u{1}").replace("\r\n", "\n");
    assert!(first.json()["text"] == text.trim_end(), "the text differs");
    assert_eq!(server.next_attempt().await.status, "pending");
    let shown = server.api(&format!("/api/deliveries/{}/attempts", first.header("x-mailkite-delivery"))).await;
    assert_eq!(shown.0, 200);
    assert!(shown.1[0]["request_body"].as_str().unwrap().as_bytes() == first.body, "it is shown otherwise");

    server.advance(Duration::from_secs(6), &hook.url);
    let second = receiver.next_request().await;
    assert_eq!(server.next_attempt().await.status, "delivered");
    assert!(second.body == first.body, "the second attempt has other bytes");
    assert!(is_signed_with(&second, &hook.secret) && is_standard_signed_with(&second, &hook.secret));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_removed_while_its_first_attempt_waits_for_its_turn_is_not_posted() {
    let mut receiver = Receiver::start(|_| Reply::status(200).after(Duration::from_millis(150))).await;
    let mut server = Server::start_with(standing(), |config| config.webhook.lane_width = 1).await;
    server.webhook(&receiver.url()).await;
    let owner = server.owner().await;
    server.accepted("a@inbox.test", "First").await;
    receiver.next_request().await;
    let second = server.accepted("a@inbox.test", "Second").await;
    owner.delete(&format!("/api/messages/{second}")).await.expect(200);
    assert_eq!(server.next_attempt().await.status, "delivered");
    server.until("SELECT count(*) FROM job", 0).await;
    assert_eq!(receiver.requests().len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_delivery_is_repeated_with_the_same_id_and_bytes_and_a_new_signature() {
    let answers = AtomicU32::new(0);
    let mut receiver =
        Receiver::start(move |_| Reply::status(if answers.fetch_add(1, Ordering::SeqCst) == 0 { 500 } else { 200 }))
            .await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Twice").await;

    let first = receiver.next_request().await;
    let failed = server.next_attempt().await;
    assert_eq!((failed.attempt, failed.status, failed.status_code), (1, "pending", Some(500)));
    assert_eq!(failed.error, Some("http_status"));
    let wait = failed.next_attempt_at.unwrap().since(server.clock.now());
    assert!((5_000..=5_500).contains(&wait.as_millis()), "{wait:?}");

    server.advance(Duration::from_secs(6), &hook.url);
    let second = receiver.next_request().await;
    let delivered = server.next_attempt().await;
    assert_eq!((delivered.attempt, delivered.status, delivered.error), (2, "delivered", None));
    assert_eq!(second.body, first.body);
    assert_eq!(second.header("webhook-id"), first.header("webhook-id"));
    assert_eq!(second.header("x-mailkite-delivery"), first.header("x-mailkite-delivery"));
    assert_eq!(second.header("x-mailkite-attempt"), "2");
    assert_eq!(signed_at(&second) - signed_at(&first), 6_000);
    assert!(is_signed_with(&second, &hook.secret) && is_standard_signed_with(&second, &hook.secret));
    assert_ne!(second.header("x-mailkite-signature"), first.header("x-mailkite-signature"));

    let attempts: String = server
        .query("SELECT group_concat(attempt || ':' || status_code || ':' || coalesce(error, '-'), ' ') FROM attempt")
        .await;
    assert_eq!(attempts, "1:500:http_status 2:200:-");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_a_failure_and_is_never_followed() {
    let elsewhere = receiver(200).await;
    let target = elsewhere.url();
    let receiver = Receiver::start(move |_| Reply::redirect(307, &target)).await;
    let mut server = Server::start().await;
    server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Moved").await;
    let attempted = server.next_attempt().await;
    assert_eq!(
        (attempted.status, attempted.status_code, attempted.error),
        ("pending", Some(307), Some("http_status"))
    );
    assert_eq!(elsewhere.connections(), 0);
    server.stop_with_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_ends_a_delivery_at_once() {
    let receiver = receiver(410).await;
    let mut server = Server::start().await;
    server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Gone").await;
    let attempted = server.next_attempt().await;
    assert_eq!((attempted.status, attempted.error, attempted.next_attempt_at), ("failed", Some("gone"), None));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_lengthens_the_wait_and_is_clamped_to_a_day() {
    for (asked, at_least, at_most) in [("3600", 3_600, 3_601), ("99999999", 86_400, 86_401), ("1", 5, 6)] {
        let receiver = Receiver::start(move |_| Reply::status(429).header("retry-after", asked)).await;
        let mut server = Server::start_with(standing(), |_| {}).await;
        server.webhook(&receiver.url()).await;
        server.accepted("a@inbox.test", "Later").await;
        let attempted = server.next_attempt().await;
        let wait = attempted.next_attempt_at.unwrap().since(server.clock.now()).as_secs();
        assert!((at_least..=at_most).contains(&wait), "Retry-After: {asked} became {wait} s");
        server.stop_with_jobs(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_is_given_up_after_fifteen_seconds() {
    let receiver = Receiver::start(|_| Reply::hang()).await;
    let mut server = Server::start().await;
    server.webhook(&receiver.url()).await;
    let started = std::time::Instant::now();
    server.accepted("a@inbox.test", "Patience").await;
    let attempted = server.next_attempt().await;
    assert_eq!((attempted.status, attempted.status_code, attempted.error), ("pending", None, Some("timeout")));
    let took = started.elapsed().as_secs_f64();
    assert!((14.5..20.0).contains(&took), "{took}");
    server.stop_with_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_closes_instead_of_answering_has_failed() {
    // A body that breaks off is a failure where it has to prove something.
    for (mode, reply) in [("lenient", Reply::close_before_headers()), ("ack", Reply::close_in_body())] {
        let receiver = Receiver::start(move |_| reply.clone()).await;
        let mut server = Server::start().await;
        server.route("*@inbox.test", mode, &receiver.url()).await;
        server.accepted("a@inbox.test", "Cut").await;
        let attempted = server.next_attempt().await;
        assert_eq!((attempted.status, attempted.error), ("pending", Some("bad_response")));
        server.stop_with_jobs(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_nobody_serves_has_failed() {
    let url = receiver(200).await.url();
    let mut server = Server::start().await;
    server.webhook(&url).await;
    server.accepted("a@inbox.test", "Nobody").await;
    let attempted = server.next_attempt().await;
    assert_eq!((attempted.status, attempted.status_code, attempted.error), ("pending", None, Some("connect")));
    server.stop_with_jobs(1).await;
}

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
        server.route("*@inbox.test", "ack", &receiver.url()).await;
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
    server.route("*@inbox.test", "control", &receiver.url()).await;
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
    server.route("b@inbox.test", "control", &dropping.url()).await;
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
    server.route("a@inbox.test", "control", &dropping.url()).await;
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
    server.route("*@inbox.test", "control", &receiver.url()).await;
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
async fn our_own_metrics_are_no_endpoint() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = Server::start_with(Clock::System, |config| config.metrics.listen = Some(free)).await;
    server.webhook(&format!("http://{free}/metrics")).await;
    assert_eq!(server.mail("a@inbox.test", &message("Hi")).await.code, 250);
    assert_eq!(server.next_attempt().await.error, Some("blocked_address"));
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

#[tokio::test(flavor = "multi_thread")]
async fn every_matching_route_runs_and_each_signs_with_its_own_secret() {
    let mut receiver = receiver(200).await;
    let server = Server::start().await;
    let mut secrets = Vec::new();
    for (matching, path) in [
        ("*@inbox.test", "all"),
        ("ticket+*@inbox.test", "plus"),
        ("/^ticket\\+[0-9]+@INBOX/", "regex"),
        ("ticket+7@inbox.test", "exact"),
        ("ticket@inbox.test", "other"),
        ("*-bot@inbox.test", "bot"),
    ] {
        let hook = server.route(matching, "lenient", &format!("{}?{path}", receiver.url())).await;
        secrets.push((path, hook.secret));
    }
    server.accepted("Ticket+7@inbox.test", "Fan out").await;
    let mut called = Vec::new();
    for _ in 0..4 {
        let request = receiver.next_request().await;
        let path = request.path.strip_prefix("/hook?").unwrap().to_owned();
        let secret = &secrets.iter().find(|(name, _)| *name == path).unwrap().1;
        assert!(is_signed_with(&request, secret), "{path}");
        called.push(path);
    }
    called.sort();
    assert_eq!(called, ["all", "exact", "plus", "regex"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_route_discards_the_mail_for_that_recipient_alone() {
    let mut receiver = receiver(200).await;
    let server = Server::start().await;
    server.webhook(&receiver.url()).await;
    server.plain_route("noise@inbox.test", Action::Drop).await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    let reply = client.mail("ada@example.com", &["noise@inbox.test", "a@inbox.test"], message("Half")).await;
    assert_eq!(reply.code, 250);
    let reply = client.mail("ada@example.com", &["noise@inbox.test"], message("Nothing")).await;
    assert_eq!(reply.code, 250);
    assert_eq!(receiver.next_request().await.json()["to"][0]["address"], "a@inbox.test");
    let stored: String = server.query("SELECT group_concat(to_addr || ':' || subject, ' ') FROM message").await;
    assert_eq!(stored, "a@inbox.test:Half");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_within_a_day_is_acknowledged_and_not_stored_again() {
    let mut receiver = receiver(200).await;
    let mut server = Server::start_with(standing(), |_| {}).await;
    server.webhook(&receiver.url()).await;
    let first = server.accepted("a@inbox.test", "Once").await;
    receiver.next_request().await;
    server.next_attempt().await;
    server.clock.advance(23 * HOUR);
    assert_eq!(server.accepted("a@inbox.test", "Once").await, first);
    // Another recipient, another sender or another byte is another mail.
    server.accepted("b@inbox.test", "Once").await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    assert_eq!(client.mail("eve@example.com", &["a@inbox.test"], message("Once")).await.code, 250);
    server.accepted("a@inbox.test", "Once.").await;
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, 4);
    // The clock is moved when nothing is under way: a lease would end with it.
    for _ in 0..3 {
        server.next_attempt().await;
    }
    server.clock.advance(2 * HOUR);
    assert_ne!(server.accepted("a@inbox.test", "Once").await, first);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, 5);
    server.next_attempt().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_for_two_accounts_is_stored_for_each_alone() {
    let (mut ours, mut theirs) = (receiver(200).await, receiver(200).await);
    let server = Server::start().await;
    let hook = server.webhook(&ours.url()).await;
    let other = server.other_account("other.test", &theirs.url()).await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    let to = ["a@inbox.test", "b@other.test", "c@inbox.test", "A@INBOX.test"];
    let reply = client.mail("ada@example.com", &to, message("Both")).await;
    assert_eq!(reply.code, 250);
    let theirs_got = theirs.next_request().await;
    assert!(is_signed_with(&theirs_got, &other.secret));
    assert_eq!(theirs_got.json()["to"], serde_json::json!([{"address": "b@other.test"}]));
    assert!(!String::from_utf8_lossy(&theirs_got.body).contains("a@inbox.test"), "who else got it stays secret");
    let mut to = Vec::new();
    for _ in 0..2 {
        let request = ours.next_request().await;
        assert!(is_signed_with(&request, &hook.secret));
        to.push(request.json()["to"][0]["address"].as_str().unwrap().to_owned());
    }
    to.sort();
    assert_eq!(to, ["a@inbox.test", "c@inbox.test"]);
    let stored: String = server
        .query(
            "SELECT group_concat(row, ' ') FROM (SELECT account.email || ':' || count(*) AS row FROM message
             JOIN account ON account.id = account_id GROUP BY account.id ORDER BY account.id)",
        )
        .await;
    assert_eq!(stored, "owner@inbox.invalid:2 owner@other.test:1");
    assert_eq!(server.query::<i64>("SELECT count(*) FROM mail_data").await, 1, "its bytes are kept once");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_without_sender_and_mail_for_the_postmaster_are_taken() {
    let mut receiver = receiver(200).await;
    let server = Server::start().await;
    server.webhook(&receiver.url()).await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    let bounce = "Subject: Undelivered\r\n\r\nSorry.\r\n";
    assert_eq!(client.mail("", &["a@inbox.test"], bounce).await.code, 250);
    let event = receiver.next_request().await.json();
    assert_eq!(event["from"], serde_json::json!({"address": "MAILER-DAEMON@mx.mailkite.test"}));
    assert_eq!(event["threadId"], serde_json::Value::Null);
    for postmaster in ["postmaster", "Postmaster@mx.mailkite.test", "abuse@mx.mailkite.test"] {
        let reply = client.mail("eve@example.com", &[postmaster], message(postmaster)).await;
        assert_eq!(reply.code, 250, "{postmaster}");
    }
    let stored: i64 = server.query("SELECT count(*) FROM message WHERE domain_id IS NULL AND route_id IS NULL").await;
    assert_eq!(stored, 3, "stored for the operator; no route reaches them");
    assert_eq!(receiver.requests().len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_verified_domains_receive_and_the_operator_may_refuse_unknown_recipients() {
    let receiver = receiver(200).await;
    for (unknown, code) in [("accept", 250), ("reject", 550)] {
        let server = Server::start_with(Clock::System, |config| {
            if unknown == "reject" {
                config.smtp.unknown_recipients = mailkite::testing::config::UnknownRecipients::Reject;
            }
        })
        .await;
        server.route("known@inbox.test", "lenient", &receiver.url()).await;
        let mut client = SmtpClient::connect_and_greet(server.smtp).await;
        client.expect("MAIL FROM:<ada@example.com>", 250).await;
        client.expect("RCPT TO:<known@inbox.test>", 250).await;
        let reply = client.expect("RCPT TO:<nobody@inbox.test>", code).await;
        if code == 550 {
            assert!(reply.lines[0].starts_with("5.1.1 "), "{reply:?}");
        }
        let reply = client.expect("RCPT TO:<a@pending.test>", 450).await;
        assert!(reply.lines[0].starts_with("4."), "{reply:?}");
        for foreign in ["a@example.com", "a%inbox.test@example.com", "@inbox.test:a@example.com", "a@[127.0.0.1]"] {
            let reply = client.expect(&format!("RCPT TO:<{foreign}>"), 550).await;
            assert!(reply.lines[0].starts_with("5.7.1 "), "{foreign}: {reply:?}");
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_an_attachment_serves_its_bytes_until_it_ends() {
    let mut receiver = receiver(200).await;
    let server = Server::start_with(standing(), |_| {}).await;
    server.webhook(&receiver.url()).await;
    let bytes: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
    let encoded: String = BASE64
        .encode(&bytes)
        .as_bytes()
        .chunks(76)
        .map(|line| format!("{}\r\n", String::from_utf8_lossy(line)))
        .collect();
    let text = format!(
        "From: ada@example.com\r\nSubject: files\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee below.\r\n--b\r\n\
         Content-Type: application/pdf; name=\"../../po.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"../../po.pdf\"\r\n\r\n{encoded}--b--\r\n"
    );
    assert_eq!(server.mail("a@inbox.test", &text).await.code, 250);
    let event = receiver.next_request().await.json();
    assert_eq!(event["text"], "See below.");
    let attachment = &event["attachments"][0];
    assert_eq!(attachment["id"], format!("{}:0", event["id"].as_str().unwrap()));
    assert_eq!(attachment["contentType"], "application/pdf");
    assert_eq!(attachment["size"], 100_000);
    assert!(!attachment["filename"].as_str().unwrap().contains('/'), "{attachment}");
    let link = attachment["url"].as_str().unwrap();
    let path = link.strip_prefix("https://mail.mailkite.test").expect("links are built from public_url").to_owned();
    assert!(path.contains("?exp=1785801600&sig="), "{path}");

    let http = server.http.to_string();
    let (status, head, body) = http_get(&http, &path).await;
    assert_eq!(status, 200, "{head}");
    assert!(body == bytes, "the served bytes differ from those that were sent");
    for field in [
        "content-type: application/pdf",
        "content-disposition: attachment; filename=",
        "x-content-type-options: nosniff",
        "content-security-policy: sandbox; default-src 'none'",
    ] {
        assert!(head.contains(field), "{field} is missing in {head}");
    }
    let (head, last) = path.split_at(path.len() - 1);
    for forged in [
        format!("{head}{}", if last == "0" { '1' } else { '0' }),
        path.replace("/0?", "/1?"),
        path.replace("exp=1785801600", "exp=1785801601"),
        path.replace("exp=1785801600", "exp=01785801600"),
        path.split("&sig=").next().unwrap().to_owned(),
    ] {
        assert_eq!(http_get(&http, &forged).await.0, 403, "{forged}");
    }
    server.clock.advance(Duration::from_secs(604_801));
    assert_eq!(http_get(&http, &path).await.0, 410);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_hanging_endpoints_with_ten_thousand_deliveries_do_not_delay_a_healthy_one() {
    const ENDPOINTS: usize = 1_000;
    const MAILS: usize = 10;
    mailkite::testing::process::host::raise_file_limit();
    if mailkite::testing::process::host::file_limit() < 12_000 {
        skip("both ends of thousands of connections need 12,000 descriptors (ulimit -n)");
        return;
    }
    // Takes every connection, reads what comes, never answers.
    let hole = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = hole.local_addr().unwrap().port();
    let swallowing = tokio::spawn(async move {
        let mut held = tokio::task::JoinSet::new();
        while let Ok((mut tcp, _)) = hole.accept().await {
            held.spawn(async move { tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await });
        }
    });
    let mut healthy = receiver(200).await;
    let server = Server::start_with(Clock::System, |config| {
        config.webhook.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
        config.limits.fan_out = 0;
    })
    .await;
    let (account, domain) = (server.inbox.account_id, server.inbox.id);
    server
        .write(move |tx, secrets, now| {
            for endpoint in 0..ENDPOINTS {
                let new = store::webhooks::routes::NewRoute {
                    account_id: account,
                    domain_id: Some(domain),
                    match_pattern: "hang@inbox.test".to_owned(),
                    action: Action::Webhook,
                    destination: Some(format!("http://127.1.{}.{}:{port}/", endpoint / 250, endpoint % 250 + 1)),
                    ack_mode: Some("lenient".to_owned()),
                    is_domain_webhook: false,
                    secret_sealed: None,
                };
                mailkite::testing::bootstrap::webhook_route(tx, secrets, new, now)?;
            }
            Ok(())
        })
        .await;
    server.route("a@inbox.test", "lenient", &healthy.url()).await;
    for mail in 0..MAILS {
        server.accepted("hang@inbox.test", &format!("hang {mail}")).await;
    }
    assert_eq!(server.query::<i64>("SELECT count(*) FROM job").await, 10_000);
    let mut slowest = Duration::ZERO;
    for mail in 0..50 {
        server.accepted("a@inbox.test", &format!("well {mail}")).await;
        let accepted = std::time::Instant::now();
        healthy.next_request().await;
        slowest = slowest.max(accepted.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    swallowing.abort();
    // Whoever was connected meets the end of the connection now.
    drop(swallowing.await);
    server.stop_with_jobs(10_000).await;
}
