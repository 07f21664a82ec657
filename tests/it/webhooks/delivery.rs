//! The main job end to end: a mail over SMTP becomes a signed webhook, tried until it is acknowledged (contract 9).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::store;
use mailkite::testing::store::webhooks::routes::AckMode;
use mailkite::testing::store::webhooks::routes::Action;
use ring::hmac;

use crate::support::dev_process::http_get;
use crate::support::machine::skip;
use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::server::{Server, message};

/// A manual clock in 2026.
pub(super) fn standing() -> Clock {
    Clock::manual(Timestamp::from_millis(1_785_196_800_000))
}

pub(super) async fn receiver(status: u16) -> Receiver {
    Receiver::start(move |_| Reply::status(status)).await
}

/// Checks the signature of the official clients with the official client.
pub(super) fn is_signed_with(request: &Received, secret: &str) -> bool {
    let body = std::str::from_utf8(&request.body).unwrap();
    mailkite_sdk::verify_webhook_with_tolerance(request.header("x-mailkite-signature"), body, secret, 0)
}

/// Checks the Standard Webhooks signature as its specification says.
pub(super) fn is_standard_signed_with(request: &Received, secret: &str) -> bool {
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
    for (mode, reply) in [(AckMode::Lenient, Reply::close_before_headers()), (AckMode::Ack, Reply::close_in_body())] {
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
async fn our_own_metrics_are_no_endpoint() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = Server::start_with(Clock::System, |config| config.metrics.listen = Some(free)).await;
    server.webhook(&format!("http://{free}/metrics")).await;
    assert_eq!(server.mail("a@inbox.test", &message("Hi")).await.code, 250);
    assert_eq!(server.next_attempt().await.error, Some("blocked_address"));
    server.stop_with_jobs(1).await;
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
                    ack_mode: Some(store::webhooks::routes::AckMode::Lenient),
                    is_domain_webhook: false,
                    secret_sealed: None,
                };
                mailkite::testing::bootstrap::webhook_route(tx, secrets, new, now)?;
            }
            Ok(())
        })
        .await;
    server.route("a@inbox.test", AckMode::Lenient, &healthy.url()).await;
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
