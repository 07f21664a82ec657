//! The recipients and routes that a mail becomes messages and deliveries for.

use mailkite::testing::clock::Clock;
use mailkite::testing::store::webhooks::routes::AckMode;
use mailkite::testing::store::webhooks::routes::Action;

use super::delivery::{is_signed_with, receiver, standing};
use super::retries::HOUR;
use crate::support::server::{Server, message};
use crate::support::smtp::SmtpClient;

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
        let hook = server.route(matching, AckMode::Lenient, &format!("{}?{path}", receiver.url())).await;
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
        server.route("known@inbox.test", AckMode::Lenient, &receiver.url()).await;
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
