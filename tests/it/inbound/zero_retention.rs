//! Domains that store nothing (contract 3.8): one attempt for each webhook, attachments inside, and no trace
//! afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::retention::Swept;
use mailkite::testing::store::webhooks::routes::AckMode;
use mailkite::testing::store::webhooks::routes::Action;

use crate::support::database::{open_database, orphaned_objects};
use crate::support::dev_process::DevProcess;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::{Server, message};
use crate::support::smtp::SmtpClient;

const ROWS: &str = "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM delivery)
    + (SELECT count(*) FROM attempt) + (SELECT count(*) FROM attachment) + (SELECT count(*) FROM dedup_fingerprint)
    + (SELECT count(*) FROM mail_data) + (SELECT count(*) FROM zero_retention_delivery) + (SELECT count(*) FROM job)";

/// Starts a server on a manual clock with zero retention for inbox.test.
async fn server() -> Server {
    let server = Server::start_with(Clock::manual(Timestamp::from_millis(1_785_196_800_000)), |_| {}).await;
    server
        .write(|tx, _, _| Ok(tx.execute("UPDATE domain SET zero_retention = 1 WHERE name = 'inbox.test'", [])?))
        .await;
    server
}

async fn receiver(status: u16) -> Receiver {
    Receiver::start(move |_| Reply::status(status)).await
}

/// Asserts that a mail left nothing behind; the job is removed with the row.
async fn assert_no_trace(server: &Server) {
    assert_eq!(server.query::<i64>(ROWS).await, 0);
    let objects = walk(&server.data_dir().join("objects"));
    assert!(objects.is_empty(), "{objects:?}");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn with_files(files: &[(&str, &str, &str)]) -> String {
    let head = "From: Ada <ada@example.com>\r\nTo: Support <support@inbox.test>\r\nSubject: Files\r\n\
        Message-ID: <one@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=cut\r\n\r\n\
        --cut\r\nContent-Type: text/plain\r\n\r\nSee the files.\r\n";
    let parts = files.iter().map(|(name, encoding, body)| {
        format!(
            "--cut\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: {encoding}\r\n\
             Content-Disposition: attachment; filename={name}\r\n\r\n{body}\r\n"
        )
    });
    format!("{head}{}--cut--\r\n", parts.collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_holds_the_attachments_and_nothing_stays() {
    let mut receiver = receiver(200).await;
    let mut server = server().await;
    let hook = server.webhook(&receiver.url()).await;
    server.plain_route("support@inbox.test", Action::Store).await;
    let mail = with_files(&[
        ("a.csv", "7bit", "a,b"),
        ("b.bin", "base64", "AP9h\r\nYg=="),
        ("c.txt", "quoted-printable", "caf=C3=A9"),
    ]);
    let reply = server.mail("support@inbox.test", &mail).await;
    assert_eq!(reply.code, 250);

    let request = receiver.next_request().await;
    let id = reply.text().rsplit(' ').next().unwrap().to_owned();
    let wanted = format!(
        r#"{{"id":"{id}","type":"email.received","from":{{"address":"ada@example.com","name":"Ada"}},"to":[{{"address":"support@inbox.test","name":"Support"}}],"subject":"Files","text":"See the files.","html":null,"threadId":"<one@example.com>","receivedAt":1785196800000,"receivedAtIso":"2026-07-28T00:00:00.000Z","auth":{{"spf":null,"dkim":null,"dmarc":null,"spam":null}},"attachments":[{{"filename":"a.csv","contentType":"application/octet-stream","size":3,"content":"YSxi"}},{{"filename":"b.bin","contentType":"application/octet-stream","size":4,"content":"AP9hYg=="}},{{"filename":"c.txt","contentType":"application/octet-stream","size":5,"content":"Y2Fmw6k="}}]}}"#
    );
    assert_eq!(std::str::from_utf8(&request.body).unwrap(), wanted);
    assert!(mailkite_sdk::verify_webhook_with_tolerance(
        request.header("x-mailkite-signature"),
        &wanted,
        &hook.secret,
        0
    ));
    assert!(request.header("x-mailkite-delivery").starts_with("dlv_"));
    assert_eq!((request.header("x-mailkite-attempt"), request.header("webhook-id")), ("1", id.as_str()));
    assert!(request.header("webhook-signature").starts_with("v1,"));

    assert_eq!(server.next_zero_retention_attempt().await, ("delivered", Some(200), None));
    assert_no_trace(&server).await;
    assert_eq!(server.api(&format!("/api/messages/{id}")).await.0, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_arrives_whole() {
    let mut receiver = receiver(200).await;
    let mut server = server().await;
    server.webhook(&receiver.url()).await;
    let file: Vec<u8> = (0..6_000_000_u32).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    let plain = BASE64.encode(&file);
    let lines: Vec<&str> = plain.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let mail = with_files(&[("large.bin", "base64", &lines.join("\r\n"))]);
    assert_eq!(server.mail("a@inbox.test", &mail).await.code, 250);
    let event = receiver.next_request().await.json();
    assert_eq!(event["attachments"][0]["size"], file.len());
    assert!(event["attachments"][0]["content"] == plain.as_str(), "the content differs");
    assert_eq!(server.next_zero_retention_attempt().await, ("delivered", Some(200), None));
    assert_no_trace(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_attempt_whatever_the_answer_and_a_repeat_is_a_new_mail() {
    let mut receiver = receiver(500).await;
    let mut server = server().await;
    server.webhook(&receiver.url()).await;
    for _ in 0..2 {
        assert_eq!(server.mail("a@inbox.test", &message("Refused")).await.code, 250);
        receiver.next_request().await;
        assert_eq!(server.next_zero_retention_attempt().await, ("failed", Some(500), Some("http_status")));
        assert_no_trace(&server).await;
    }
    let last: (String, i64) = (
        server.query("SELECT last_status FROM route").await,
        server.query("SELECT last_status_code FROM route").await,
    );
    assert_eq!(last, ("failed".to_owned(), 500));
    server.advance(Duration::from_secs(100 * 3600), &receiver.url());
    server.stop().await;
    assert_eq!(receiver.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_webhook_gets_its_own_and_the_mail_goes_with_the_last() {
    let mut quick = receiver(200).await;
    let mut slow = Receiver::start(|_| Reply::hang()).await;
    let mut server = server().await;
    server.webhook(&quick.url()).await;
    server.route("a@inbox.test", AckMode::Ack, &quick.url()).await;
    server.route("a@inbox.test", AckMode::Lenient, &slow.url()).await;
    assert_eq!(server.mail("a@inbox.test", &with_files(&[("a.csv", "7bit", "a,b")])).await.code, 250);
    let (first, second, third) = (quick.next_request().await, quick.next_request().await, slow.next_request().await);
    assert_eq!((&first.body, &second.body), (&second.body, &third.body));
    assert_ne!(first.header("x-mailkite-delivery"), second.header("x-mailkite-delivery"));
    let mut outcomes = [server.next_zero_retention_attempt().await, server.next_zero_retention_attempt().await];
    outcomes.sort_unstable();
    assert_eq!(outcomes, [("delivered", Some(200), None), ("failed", Some(200), Some("no_ack"))]);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM zero_retention_delivery JOIN mail_data ON mail_data.id = zero_retention_delivery.mail_data_id").await, 1);
    assert_eq!(walk(&server.data_dir().join("objects")).len(), 1, "the last one needs it");
    drop(slow);
    assert_eq!(server.next_zero_retention_attempt().await.0, "failed");
    assert_no_trace(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_on_an_ordinary_domain_are_stored_as_ever() {
    let mut receiver = receiver(200).await;
    let mut server = server().await;
    server.webhook(&receiver.url()).await;
    server.other_account("other.test", &receiver.url()).await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    let to = ["a@inbox.test", "b@other.test", "b@inbox.test"];
    let mail = with_files(&[("a.csv", "7bit", "a,b")]);
    assert_eq!(client.mail("ada@example.com", &to, &mail).await.code, 250);
    let mut seen = Vec::new();
    for _ in to {
        let event = receiver.next_request().await.json();
        let inside = event["attachments"][0].get("content").is_some();
        seen.push((event["to"][0]["address"].as_str().unwrap().to_owned(), inside));
    }
    seen.sort();
    assert_eq!(seen, [("a@inbox.test".into(), true), ("b@inbox.test".into(), true), ("b@other.test".into(), false)]);
    server.next_zero_retention_attempt().await;
    server.next_zero_retention_attempt().await;
    server.until("SELECT count(*) FROM job", 0_i64).await;
    assert_eq!(server.query::<String>("SELECT group_concat(to_addr) FROM message").await, "b@other.test");
    assert_eq!(
        server
            .query::<i64>("SELECT count(*) FROM mail_data JOIN message ON message.mail_data_id = mail_data.id")
            .await,
        1
    );
    assert_eq!(server.query::<i64>("SELECT count(*) FROM delivery").await, 1);
    assert_eq!(orphaned_objects(server.data_dir()), Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_webhook_matches_mail_is_taken_and_gone() {
    let server = server().await;
    server.plain_route("a@inbox.test", Action::Store).await;
    for to in ["a@inbox.test", "b@inbox.test"] {
        assert_eq!(server.mail(to, &with_files(&[("a.csv", "7bit", "a,b")])).await.code, 250);
        server.until(ROWS, 0_i64).await;
    }
    // The unused object goes behind the reply.
    let gone = async {
        while !walk(&server.data_dir().join("objects")).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_answer_can_block_the_sender_and_nothing_else() {
    let body = r#"{"status":"spam","actions":[{"type":"block-sender"}]}"#;
    let mut receiver = Receiver::start(move |_| Reply::status(200).body(body)).await;
    let mut server = server().await;
    server.route("*@inbox.test", AckMode::Control, &receiver.url()).await;
    assert_eq!(server.mail("a@inbox.test", &message("First")).await.code, 250);
    receiver.next_request().await;
    assert_eq!(server.next_zero_retention_attempt().await.0, "delivered");
    assert_eq!(server.query::<String>("SELECT email FROM blocked_sender").await, "ada@example.com");
    assert_eq!(server.mail("a@inbox.test", &message("Second")).await.code, 250);
    assert_no_trace(&server).await;
    server.stop().await;
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_leaves_mail_on_its_way_alone_for_seven_days() {
    let mut receiver = Receiver::start(|_| Reply::hang()).await;
    let server = server().await;
    server.webhook(&receiver.url()).await;
    assert_eq!(server.mail("a@inbox.test", &with_files(&[("a.csv", "7bit", "a,b")])).await.code, 250);
    receiver.next_request().await;
    let day = Duration::from_secs(86_400);
    server.clock.advance(6 * day);
    assert_eq!(server.sweep().await, Swept::default());
    assert_eq!(walk(&server.data_dir().join("objects")).len(), 1);
    server.clock.advance(2 * day);
    let swept = server.sweep().await;
    assert_eq!(swept, Swept { zero_retention: 1, ..Swept::default() });
    assert!(walk(&server.data_dir().join("objects")).is_empty());
    drop(receiver);
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_acceptance_and_attempt_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let answering = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&answering);
    let mut receiver =
        Receiver::start(move |_| if answers.load(Ordering::SeqCst) { Reply::status(200) } else { Reply::hang() })
            .await;
    DevProcess::start(&data_dir, &receiver.url()).await.terminate().await;
    open_database(&data_dir).execute("UPDATE domain SET zero_retention = 1", []).unwrap();

    let process = DevProcess::start(&data_dir, &receiver.url()).await;
    let mut client = SmtpClient::connect_and_greet(process.smtp).await;
    for number in 0..4 {
        let mail = with_files(&[("n.txt", "7bit", &number.to_string())]);
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], mail).await.code, 250);
    }
    // A lane starts with two at a time: two hang in their attempt, two were never attempted.
    for _ in 0..2 {
        receiver.next_request().await;
    }
    process.kill().await;
    let connection = open_database(&data_dir);
    assert_eq!(count(&connection, "SELECT count(*) FROM zero_retention_delivery"), 4);
    drop(connection);

    answering.store(true, Ordering::SeqCst);
    let process = DevProcess::start(&data_dir, &receiver.url()).await;
    let mut files = Vec::new();
    for _ in 0..4 {
        let event = receiver.next_request().await.json();
        files.push(event["attachments"][0]["content"].as_str().unwrap().to_owned());
    }
    files.sort();
    assert_eq!(files, ["MA==", "MQ==", "Mg==", "Mw=="]);
    process.terminate().await;
    assert_eq!(count(&open_database(&data_dir), ROWS), 0);
    assert_eq!(walk(&data_dir.join("objects")), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_gone_or_rests_takes_its_mail_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let mut receiver = Receiver::start(|_| Reply::hang()).await;
    DevProcess::start(&data_dir, &receiver.url()).await.terminate().await;
    open_database(&data_dir).execute("UPDATE domain SET zero_retention = 1", []).unwrap();
    for change in ["DELETE FROM route", "UPDATE route SET active = 0"] {
        let process = DevProcess::start(&data_dir, &receiver.url()).await;
        let mail = with_files(&[("n.txt", "7bit", change)]);
        let mut client = SmtpClient::connect_and_greet(process.smtp).await;
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], mail).await.code, 250);
        receiver.next_request().await;
        process.kill().await;
        open_database(&data_dir).execute(change, []).unwrap();

        let heard = receiver.requests().len();
        let process = DevProcess::start(&data_dir, &receiver.url()).await;
        let gone = async {
            let connection = open_database(&data_dir);
            while count(&connection, "SELECT count(*) FROM zero_retention_delivery") > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
        process.terminate().await;
        assert_eq!(receiver.requests().len(), heard, "after {change}");
        assert_eq!(count(&open_database(&data_dir), ROWS), 0, "after {change}");
        assert_eq!(walk(&data_dir.join("objects")), Vec::<std::path::PathBuf>::new(), "after {change}");
    }
}

fn count(connection: &rusqlite::Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}
