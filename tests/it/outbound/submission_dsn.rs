//! DSNs to the submitter of a message that could not be delivered (contract 8.6).

use std::sync::Arc;

use mailkite::testing::bootstrap;
use mailkite::testing::clock::Clock;
use mailkite::testing::mail::mime;
use mailkite::testing::mail::report::{self, Report};
use mailkite::testing::secrets::Secrets;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::remote_host::{HostAction, HostConfig, RemoteHost};
use crate::support::sending_server::SendingServer;
use crate::support::smtp::{SmtpClient, data};

/// A server whose mail for remote.test goes to a host without the mailbox `gone`.
async fn start() -> SendingServer {
    refusing("550 5.1.1 no such user", HostConfig::default()).await
}

/// As [`start`], with this reply and these extensions of the host.
async fn refusing(reply: &str, manner: HostConfig) -> SendingServer {
    let reply = format!("{reply}\r\n");
    let script = move |command: &str, _| {
        let is_gone = command.starts_with("RCPT TO:<gone");
        is_gone.then(|| HostAction::Send(reply.clone()))
    };
    SendingServer::start(Clock::System, RemoteHost::with(HostConfig { script: Arc::new(script), ..manner }).await)
        .await
}

impl SendingServer {
    async fn inbound(&self) -> Vec<Value> {
        let listed = self.owner.get("/api/messages?direction=inbound").await.expect(200);
        listed.as_array().unwrap().clone()
    }
}

const MAIL: &str = "From: hi@inbox.test\r\nTo: gone@remote.test, ada@remote.test\r\nSubject: Engine\r\n\
    Message-ID: <own.1@inbox.test>\r\n\r\nDoes it branch?\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_reported_once_to_who_handed_the_message_in() {
    let mut setup = start().await;
    setup.submit("hi@inbox.test", &["gone@remote.test", "ada@remote.test"], MAIL).await;
    setup.remote.next_mail().await;
    setup.server.until("SELECT count(*) FROM message WHERE direction = 'inbound'", 1_i64).await;
    let reports = setup.inbound().await;
    let id = reports[0]["id"].as_str().unwrap();
    let shown = setup.owner.get(&format!("/api/messages/{id}")).await.expect(200);
    assert_eq!((&shown["message"]["mail_from"], &shown["message"]["to_addr"]), (&json!(""), &json!("hi@inbox.test")));
    let raw = setup.owner.get(&format!("/api/messages/{id}/raw")).await.body;
    let mail = mime::parse(&raw);
    assert!(mail.auto_submitted && mail.header_from[0].address.starts_with("MAILER-DAEMON@"), "{mail:?}");
    let Some(Report::Delivery(statuses)) = report::read(&raw) else { panic!("{}", String::from_utf8_lossy(&raw)) };
    assert_eq!(statuses.len(), 1, "{statuses:?}");
    assert_eq!(statuses[0].recipient.as_deref(), Some("gone@remote.test"));
    assert_eq!(
        (statuses[0].status.map(|code| code.to_string()).as_deref(), statuses[0].code),
        (Some("5.1.1"), Some(550))
    );
    let text = String::from_utf8(raw).unwrap();
    assert!(
        text.contains("Content-Type: text/rfc822-headers\r\n\r\n") && text.contains("<own.1@inbox.test>"),
        "{text}"
    );
    assert!(!text.contains("Does it branch?"), "{text}");
    setup.server.until("SELECT count(*) FROM job WHERE kind = 'dispatch'", 0_i64).await;
    assert_eq!(setup.inbound().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_a_report() {
    let setup = start().await;
    // The null reverse-path wants none; the API's callers have webhooks; another's address is not written to.
    setup.submit("", &["gone@remote.test"], &MAIL.replace("own.1", "own.2")).await;
    let body = json!({"from": "hi@inbox.test", "to": "gone2@remote.test", "subject": "s", "text": "x"});
    setup.owner.post("/v1/send", body).await.expect(202);
    setup.server.until("SELECT count(*) FROM recipient WHERE status = 'bounced'", 2_i64).await;
    setup.submit("victim@elsewhere.test", &["gone3@remote.test"], &MAIL.replace("own.1", "own.3")).await;
    setup.server.until("SELECT count(*) FROM message WHERE direction = 'inbound'", 1_i64).await;
    let received = setup.inbound().await;
    assert_eq!(received[0]["to"], json!([{"address": "hi@inbox.test"}]), "the author, whose domain it is");
    setup.server.until("SELECT count(*) FROM job WHERE kind = 'dispatch'", 0_i64).await;
    assert_eq!(setup.inbound().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_suppressed_is_reported_and_the_others_get_the_message() {
    let mut setup = start().await;
    for address in ["bob@remote.test", "eve@remote.test"] {
        setup.owner.post("/api/contacts/suppressions", json!({"email": address})).await.expect(201);
    }
    let to = ["ada@remote.test", "bob@remote.test", "\"eve\"@remote.test"];
    setup.submit("hi@inbox.test", &to, MAIL).await;
    assert_eq!(setup.remote.next_mail().await.recipients(), ["ada@remote.test"]);
    setup.server.until("SELECT count(*) FROM message WHERE direction = 'inbound'", 1_i64).await;
    let id = setup.inbound().await[0]["id"].as_str().unwrap().to_owned();
    let raw = setup.owner.get(&format!("/api/messages/{id}/raw")).await.body;
    let Some(Report::Delivery(statuses)) = report::read(&raw) else { panic!("{}", String::from_utf8_lossy(&raw)) };
    let failed: Vec<_> = statuses
        .iter()
        .map(|one| (one.recipient.as_deref(), one.status.map(|code| code.to_string()).unwrap_or_default()))
        .collect();
    assert_eq!(failed, [(Some(to[1]), "5.7.1".to_owned()), (Some(to[2]), "5.7.1".to_owned())]);
    setup.server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 1_i64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_later_is_reported_too() {
    let mut setup = start().await;
    setup.submit("hi@inbox.test", &["ada@remote.test"], MAIL).await;
    let bounce = setup.remote.next_mail().await.sender();
    setup.server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 1_i64).await;
    let returned = format!(
        "From: MAILER-DAEMON@mx.remote.test\r\nTo: {bounce}\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.remote.test\r\n\r\n\
         Final-Recipient: rfc822; ada@remote.test\r\nAction: failed\r\nStatus: 5.2.2\r\n\r\n--b--\r\n"
    );
    for _ in 0..2 {
        let reply = SmtpClient::connect_and_greet(setup.server.smtp).await.mail("", &[&bounce], &returned).await;
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    setup.server.until("SELECT count(*) FROM message WHERE direction = 'inbound'", 1_i64).await;
    let id = setup.inbound().await[0]["id"].as_str().unwrap().to_owned();
    let raw = setup.owner.get(&format!("/api/messages/{id}/raw")).await.body;
    let Some(Report::Delivery(statuses)) = report::read(&raw) else { panic!("{}", String::from_utf8_lossy(&raw)) };
    assert_eq!(statuses[0].status.map(|code| code.to_string()).as_deref(), Some("5.2.2"));
    setup.server.until("SELECT count(*) FROM job WHERE kind = 'dispatch'", 0_i64).await;
    assert_eq!(setup.inbound().await.len(), 1);
}

/// The DSN for a message to `to`, as a host without extensions receives it.
async fn dsn_for(setup: &mut SendingServer, to: &str, mail: &str) -> String {
    let account = setup.server.inbox.account_id;
    let prepare = move |tx: &Connection, _: &Secrets, now| {
        bootstrap::verified_domain(tx, account, "remote.test", now)?;
        // It sends from here, and its mail goes to a host of its own.
        tx.execute("UPDATE domain SET status = 'pending' WHERE name = 'remote.test'", [])?;
        Ok(())
    };
    setup.server.write(prepare).await;
    let mut client = setup.submission_session().await;
    client.expect("MAIL FROM:<hi@remote.test> SMTPUTF8", 250).await;
    client.expect(&format!("RCPT TO:<{to}>"), 250).await;
    client.expect("DATA", 354).await;
    client.send(data(mail.as_bytes())).await;
    assert_eq!(client.reply().await.code, 250);
    let taken = setup.remote.next_mail().await;
    assert_eq!((taken.sender().as_str(), taken.recipients()), ("", vec!["hi@remote.test".to_owned()]));
    let text = String::from_utf8(taken.data()).unwrap();
    assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 998), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_one_that_every_host_takes() {
    let refusal = format!("550 5.1.1 Boîte inexistante {}", "\u{1f4ea}".repeat(400));
    let mut setup = refusing(&refusal, HostConfig { extensions: vec!["PIPELINING"], ..HostConfig::default() }).await;
    let mail = format!(
        "From: hi@remote.test\r\nTo: gone@remote.test\r\nSubject: Zurück {}\r\nMessage-ID: <own.1@remote.test>\r\n\r\nHi\r\n",
        "ü".repeat(1_500)
    );
    let text = dsn_for(&mut setup, "gone@remote.test", &mail).await;
    let Some(Report::Delivery(statuses)) = report::read(text.as_bytes()) else { panic!("{text}") };
    assert_eq!(statuses[0].recipient.as_deref(), Some("gone@remote.test"));
    assert_eq!(
        (statuses[0].status.map(|code| code.to_string()).as_deref(), statuses[0].code),
        (Some("5.1.1"), Some(550))
    );
    assert!(text.contains("Content-Type: message/delivery-status\r\n"), "{text}");
    assert!(text.contains("Diagnostic-Code: smtp; 550 5.1.1 Bo?te inexistante"), "{text}");
    let said = mime::parse(text.as_bytes()).text.unwrap();
    assert!(said.contains("550 5.1.1 Boîte inexistante") && said.contains("Subject: Zurück üüü"), "{said}");
    assert_eq!(report::enclosed_ids(text.as_bytes()), ["<own.1@remote.test>"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_international_recipient_is_named_in_a_report_of_seven_bits() {
    let mut setup =
        refusing("550 5.1.1 x", HostConfig { extensions: vec!["PIPELINING"], ..HostConfig::default() }).await;
    let mail = "From: hi@remote.test\r\nTo: J <jörg+1@remote.test>\r\nMessage-ID: <own.2@remote.test>\r\n\r\nHi\r\n";
    let text = dsn_for(&mut setup, "jörg+1@remote.test", mail).await;
    assert!(text.contains("\r\nFinal-Recipient: utf-8; j\\x{F6}rg\\x{2B}1@remote.test\r\n"), "{text}");
    let Some(Report::Delivery(statuses)) = report::read(text.as_bytes()) else { panic!("{text}") };
    assert_eq!(statuses[0].recipient.as_deref(), Some("jörg+1@remote.test"));
    assert!(mime::parse(text.as_bytes()).text.unwrap().contains("jörg+1@remote.test"));
    // RFC 6533 §4: the header that it encloses is not ASCII.
    let header = mime::parse(text.as_bytes()).attachments.pop().unwrap();
    assert_eq!(header.content_type.as_deref(), Some("message/global-headers"));
    assert_eq!(report::enclosed_ids(text.as_bytes()), ["<own.2@remote.test>"]);
}
