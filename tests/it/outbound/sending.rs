//! Sending from the request to the remote host and back: the message on the wire, its outcome, events and notices.

use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::dns::DnsServer;
use crate::support::outbound::deliver_to_loopback;
use crate::support::receiver::{Receiver, Reply};
use crate::support::remote_host::{HostAction, ReceivedMail, RemoteHost};
use crate::support::sending_server::SendingServer;
use crate::support::server::{Server, message};
use crate::support::smtp::{SmtpClient, data};

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

impl SendingServer {
    async fn send(&self, body: Value) -> String {
        let answer = self.owner.post("/v1/send", body).await.expect(202);
        assert_eq!(answer["status"], "queued", "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// The message as the API shows it.
    async fn message(&self, id: &str) -> Value {
        self.owner.get(&format!("/api/messages/{id}")).await.expect(200)
    }
}

fn hello(to: &str) -> Value {
    json!({"from": "Acme <hi@inbox.test>", "to": to, "subject": "Hi", "text": "It branches."})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_out_signed_and_its_recipient_is_settled() {
    let mut setup = SendingServer::start(Clock::manual(NOW), RemoteHost::start().await).await;
    let id = setup
        .send(json!({"from": "Acme <hi@inbox.test>", "to": "Ada Lovelace <Ada@remote.test>", "cc": ["bob@remote.test"],
            "bcc": "secret@remote.test", "subject": "Grüße", "text": "It branches.\n.\n", "html": "<p>It branches.</p>",
            "replyTo": "answers@inbox.test", "headers": {"X-Order": "1017"}, "metadata": {"order": 1017, "vip": true}}))
        .await;
    let mut transactions = Vec::new();
    for _ in 0..3 {
        transactions.push(setup.remote.next_mail().await);
    }
    transactions.sort_by_key(ReceivedMail::recipients);
    let recipients: Vec<Vec<String>> = transactions.iter().map(ReceivedMail::recipients).collect();
    assert_eq!(recipients, [["Ada@remote.test"], ["bob@remote.test"], ["secret@remote.test"]], "each its own");
    assert!(transactions.iter().all(|other| other.data() == transactions[0].data()), "the same octets");
    let taken = transactions.swap_remove(0);
    assert!(taken.sender().starts_with("bounce+") && taken.sender().ends_with("@inbox.test"), "{}", taken.sender());
    let text = String::from_utf8(taken.data()).unwrap();
    assert!(!text.contains("secret@remote.test") && !text.to_lowercase().contains("\nbcc:"), "{text}");
    assert!(text.starts_with("DKIM-Signature: v=1; a=rsa-sha256;") && text.contains("d=inbox.test;"), "{text}");
    let suffix = id.strip_prefix("msg_").unwrap();
    for line in [
        format!("\r\nMessage-ID: <{suffix}@inbox.test>\r\n"),
        "\r\nDate: Tue, 28 Jul 2026 00:00:00 +0000\r\n".to_owned(),
        "\r\nX-Order: 1017\r\n".to_owned(),
        "\r\nReply-To: <answers@inbox.test>\r\n".to_owned(),
    ] {
        assert!(text.contains(&line), "{line:?} in {text}");
    }
    for _ in 0..3 {
        assert_eq!(setup.server.next_recipient().await.1, "sent");
    }
    let shown = setup.message(&id).await;
    let message = &shown["message"];
    for (key, wanted) in [
        ("direction", json!("outbound")),
        ("status", json!("sent")),
        ("send_status", json!("sent")),
        ("from_addr", json!("hi@inbox.test")),
        ("to_addr", json!("Ada@remote.test, bob@remote.test")),
        ("to", json!([{"address": "Ada@remote.test", "name": "Ada Lovelace"}, {"address": "bob@remote.test"}])),
        ("subject", json!("Grüße")),
        ("metadata", json!({"order": 1017, "vip": true})),
        ("mail_from", json!(taken.sender())),
        ("message_id_header", json!(format!("<{suffix}@inbox.test>"))),
        ("html_body", json!("<p>It branches.</p>")),
        ("spf", json!(null)),
        ("route_id", json!(null)),
    ] {
        assert_eq!(message[key], wanted, "{key}");
    }
    let addresses: Vec<&str> =
        shown["recipients"].as_array().unwrap().iter().map(|one| one["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["Ada@remote.test", "bob@remote.test", "secret@remote.test"]);
    assert_eq!(
        shown["recipients"][0],
        json!({"address": "Ada@remote.test", "status": "sent", "smtpCode": 250, "diagnostic": "250 2.0.0 taken",
            "updatedAt": NOW.as_millis()})
    );
    let raw = setup.owner.get(&format!("/api/messages/{id}/raw")).await;
    assert_eq!((raw.status, raw.body.as_slice()), (200, taken.data().as_slice()), "as queued");
    let listed = setup.owner.get("/api/messages?direction=outbound&status=sent").await.expect(200);
    assert_eq!(listed[0]["id"], json!(id));
    assert_eq!(setup.owner.get("/api/messages?direction=inbound").await.expect(200), json!([]));
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_bounces_and_a_dead_mailbox_is_suppressed() {
    let script = |command: &str, _: usize| match command {
        "RCPT TO:<gone@remote.test>" => Some(HostAction::Send("550 5.1.1 no such user\r\n".to_owned())),
        "RCPT TO:<policy@remote.test>" => Some(HostAction::Send("550 5.7.1 we do not like you\r\n".to_owned())),
        _ => None,
    };
    let mut setup = SendingServer::start(Clock::System, RemoteHost::scripted(script).await).await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let tracking = json!({"url": receiver.url()});
    setup.owner.put("/api/domains/inbox.test/tracking-webhook", tracking).await.expect(200);
    let mut body = hello("gone@remote.test");
    body["cc"] = json!(["policy@remote.test", "ada@remote.test"]);
    let id = setup.send(body).await;
    setup.remote.next_mail().await;
    let mut events = Vec::new();
    for _ in 0..3 {
        let request = receiver.next_request().await;
        assert!(!request.header("x-mailkite-signature").is_empty());
        events.push(request.json());
    }
    events.sort_by_key(|event| event["data"]["to"].as_str().unwrap().to_owned());
    let told: Vec<(&str, &str)> = events
        .iter()
        .map(|event| (event["type"].as_str().unwrap(), event["data"]["bounce"]["diagnostic"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        told,
        [
            ("email.sent", ""),
            ("email.bounced", "550 5.1.1 no such user"),
            ("email.bounced", "550 5.7.1 we do not like you")
        ]
    );
    assert_eq!(events[0]["data"]["messageId"], json!(id));
    assert_eq!(events[1]["data"]["bounce"]["type"], "hard");
    assert_eq!(setup.message(&id).await["message"]["send_status"], "bounced");
    let suppressed = setup.owner.get("/api/contacts/suppressions").await.expect(200);
    assert_eq!(suppressed["suppressions"].as_array().unwrap().len(), 1, "{suppressed}");
    assert_eq!(suppressed["suppressions"][0]["email"], "gone@remote.test");
    assert_eq!(suppressed["suppressions"][0]["reason"], "bounce");
    // Alone it is refused, among others it is left out.
    setup.owner.post("/v1/send", hello("Gone@remote.test")).await.expect_error(409, "recipient_suppressed");
    let mut both = hello("gone@remote.test");
    both["bcc"] = json!("bob@remote.test");
    let answer = setup.owner.post("/v1/send", both).await.expect(202);
    assert_eq!(answer["suppressed"], json!(["gone@remote.test"]));
    assert_eq!(setup.remote.next_mail().await.recipients(), ["bob@remote.test"]);
    receiver.next_request().await;
    setup.server.until("SELECT count(*) FROM job", 0_i64).await;
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_attempts_of_a_sending_event_show_the_event() {
    let mut setup = SendingServer::start(Clock::System, RemoteHost::start().await).await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let tracking = json!({"url": receiver.url()});
    setup.owner.put("/api/domains/inbox.test/tracking-webhook", tracking).await.expect(200);
    let id = setup.send(hello("ada@remote.test")).await;
    setup.remote.next_mail().await;
    let posted = receiver.next_request().await;
    setup.server.until("SELECT status FROM delivery", "delivered".to_owned()).await;
    let delivery = setup.message(&id).await["deliveries"][0]["id"].as_str().unwrap().to_owned();
    setup.owner.post_nothing(&format!("/api/deliveries/{delivery}/retry")).await.expect(200);
    let again = receiver.next_request().await;
    let attempts = setup.owner.get(&format!("/api/deliveries/{delivery}/attempts")).await.expect(200);
    let bodies: Vec<_> = attempts.as_array().unwrap().iter().map(|one| one["request_body"].as_str()).collect();
    let text = std::str::from_utf8(&posted.body).unwrap();
    assert_eq!(bodies, [Some(text), Some(text)]);
    assert_eq!(again.body, posted.body);
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deferred_is_tried_for_three_days() {
    let script = |command: &str, _: usize| {
        command.starts_with("RCPT").then(|| HostAction::Send("451 4.7.1 greylisted\r\n".to_owned()))
    };
    let mut setup = SendingServer::start(Clock::manual(NOW), RemoteHost::scripted(script).await).await;
    let id = setup.send(hello("ada@remote.test")).await;
    let mut attempts = 0;
    let last = loop {
        let (_, status, diagnostic) = setup.server.next_recipient().await;
        attempts += 1;
        if status == "bounced" {
            break diagnostic;
        }
        assert_eq!((status, diagnostic.as_str()), ("deferred", "451 4.7.1 greylisted"));
        assert_eq!(setup.message(&id).await["message"]["send_status"], "deferred");
        setup.owner.delete(&format!("/api/messages/{id}")).await.expect_error(409, "message_in_queue");
        let next = setup.server.query::<i64>("SELECT run_at FROM job").await;
        let wait = next - setup.server.clock.now().as_millis();
        assert!(wait > 0 && wait <= 4 * 3_600_000 * 11 / 10, "{wait}");
        setup.server.advance_mail(Duration::from_millis(u64::try_from(wait).unwrap()), "remote.test");
    };
    assert_eq!(last, "5.4.7 not delivered in time; the last answer was: 451 4.7.1 greylisted");
    assert_eq!(setup.server.clock.now().since(NOW), Duration::from_secs(72 * 3_600), "to the minute");
    assert!((20..40).contains(&attempts), "{attempts}");
    let shown = setup.message(&id).await;
    assert_eq!(shown["message"]["send_status"], "bounced");
    assert_eq!(shown["recipients"][0]["status"], "bounced");
    let transcript: String = setup.server.query("SELECT transcript FROM dispatch").await;
    assert!(transcript.contains("S: 451 4.7.1 greylisted"), "{transcript}");
    setup.owner.delete(&format!("/api/messages/{id}")).await.expect(200);
    assert_eq!(setup.server.query::<i64>("SELECT count(*) FROM dispatch").await, 0);
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_deferred_once_goes_out_later() {
    let script = |command: &str, connection: usize| {
        let refused = command.starts_with("MAIL") && connection == 1;
        refused.then(|| HostAction::SendAndClose("421 4.3.2 not now\r\n".to_owned()))
    };
    let mut setup = SendingServer::start(Clock::manual(NOW), RemoteHost::scripted(script).await).await;
    let id = setup.send(hello("ada@remote.test")).await;
    assert_eq!(setup.server.next_recipient().await.1, "deferred");
    setup.server.advance_mail(Duration::from_secs(70), "remote.test");
    setup.remote.next_mail().await;
    assert_eq!(setup.server.next_recipient().await.1, "sent");
    assert_eq!(setup.message(&id).await["message"]["send_status"], "sent");
    setup.server.stop().await;
}

/// A report to a bounce address, as a remote host sends it.
fn report(kind: &str, part: &str, to: &str) -> String {
    format!(
        "From: MAILER-DAEMON@remote.test\r\nTo: {to}\r\nSubject: Report\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type={kind}; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
         Sorry.\r\n--b\r\n{part}\r\n--b--\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_comes_back_settles_its_recipient() {
    let mut setup = SendingServer::start(Clock::System, RemoteHost::start().await).await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let hook = json!({"url": receiver.url()});
    setup.owner.put("/api/domains/inbox.test/webhook", hook).await.expect(200);
    let opt_in = json!({"events": ["email.bounced", "email.complained"]});
    setup.owner.put("/api/domains/inbox.test/webhook-events", opt_in).await.expect(200);
    let id = setup.send(hello("ada@remote.test")).await;
    let bounce = setup.remote.next_mail().await.sender();
    assert_eq!(setup.server.next_recipient().await.1, "sent");
    let dsn = report(
        "delivery-status",
        "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.remote.test\r\n\r\n\
         Final-Recipient: rfc822; ADA@remote.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
        &bounce,
    );
    // A stranger who does not know the tag gets nowhere with it.
    let forged = bounce.replace(|c: char| c.is_ascii_digit(), "v");
    for (to, settles) in [(forged.as_str(), false), (bounce.as_str(), true), (bounce.as_str(), false)] {
        let mut client = SmtpClient::connect_and_greet(setup.server.smtp).await;
        let reply = client.mail("", &[to], &dsn).await;
        assert_eq!(reply.code, 250, "{reply:?}");
        if settles {
            let event = receiver.next_request().await.json();
            assert_eq!(event["type"], "email.bounced");
            assert_eq!(event["data"]["bounce"]["diagnostic"], "550 5.1.1 no such user");
            assert_eq!(event["data"]["to"], "ada@remote.test");
        } else if to == forged {
            // It is mail like any other, and says so by its own event.
            assert_eq!(receiver.next_request().await.json()["type"], "email.received");
        }
    }
    let shown = setup.message(&id).await;
    assert_eq!(shown["message"]["send_status"], "bounced");
    assert_eq!(shown["recipients"][0]["smtpCode"], 550);
    let complaint = report(
        "feedback-report",
        "Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n\
         Original-Rcpt-To: <bob@remote.test>\r\n",
        "x",
    );
    let second = setup.send(hello("bob@remote.test")).await;
    let bounce = setup.remote.next_mail().await.sender();
    assert_eq!(setup.server.next_recipient().await.1, "sent");
    SmtpClient::connect_and_greet(setup.server.smtp).await.mail("fbl@remote.test", &[&bounce], &complaint).await;
    let event = receiver.next_request().await.json();
    assert_eq!((event["type"].as_str(), &event["data"]["messageId"]), (Some("email.complained"), &json!(second)));
    assert_eq!(event["data"]["complaint"], json!({"feedbackType": "abuse"}));
    let suppressed = setup.owner.get("/api/contacts/suppressions").await.expect(200);
    let reasons: Vec<&str> =
        suppressed["suppressions"].as_array().unwrap().iter().map(|row| row["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["complaint", "bounce"], "newest first");
    // The same report again says nothing new, and one that says the opposite is no complaint.
    for (kind, to) in [("abuse", &bounce), ("not-spam", &bounce)] {
        let again = complaint.replace("Feedback-Type: abuse", &format!("Feedback-Type: {kind}"));
        assert_eq!(
            SmtpClient::connect_and_greet(setup.server.smtp).await.mail("fbl@remote.test", &[to], &again).await.code,
            250
        );
    }
    // Reports are consumed: only the two sent messages and the forged one are stored.
    assert_eq!(setup.server.query::<i64>("SELECT count(*) FROM message").await, 3);
    let complaints = "SELECT count(*) FROM delivery WHERE event_type = 'email.complained'";
    assert_eq!(setup.server.query::<i64>(complaints).await, 1);
    setup.server.until("SELECT count(*) FROM job", 0_i64).await;
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_settles_the_recipient_whose_bounce_address_it_came_to_and_no_other() {
    let mut setup = SendingServer::start(Clock::System, RemoteHost::start().await).await;
    let mut body = hello("ada@remote.test");
    body["cc"] = json!("bob@remote.test");
    body["bcc"] = json!("cy@remote.test");
    let id = setup.send(body).await;
    let mut bounces = std::collections::BTreeMap::new();
    for sent in 1..=3 {
        let taken = setup.remote.next_mail().await;
        let [recipient] = taken.recipients().try_into().expect("each has an envelope of its own");
        bounces.insert(recipient, taken.sender());
        assert_eq!(bounces.len(), sent);
    }
    setup.server.until("SELECT count(*) FROM job", 0_i64).await;
    let distinct: std::collections::BTreeSet<&String> = bounces.values().collect();
    assert_eq!(distinct.len(), 3, "{bounces:?}");
    let failed =
        |recipient: &str| format!("\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n");
    let (ada, bob, cy) = (failed("ada@remote.test"), failed("bob@remote.test"), failed("cy@remote.test"));
    let stranger = failed("somebody@else.test");
    let own = &bounces["ada@remote.test"];
    let complaint = "Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n\
                     Original-Rcpt-To: <bob@remote.test>\r\n";
    for (from, told, settled) in [
        ("", bob.clone(), vec![]),
        ("", cy.clone(), vec![]),
        ("", format!("{bob}{cy}"), vec![]),
        ("", format!("{stranger}{bob}"), vec![]),
        ("ada@remote.test", ada.clone(), vec![]),
        ("", format!("{bob}{ada}{cy}"), vec!["ada@remote.test"]),
    ] {
        let part =
            format!("Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.remote.test\r\n{told}");
        let dsn = report("delivery-status", &part, own);
        assert_eq!(SmtpClient::connect_and_greet(setup.server.smtp).await.mail(from, &[own], &dsn).await.code, 250);
        let shown = setup.message(&id).await;
        let bounced: Vec<&str> = shown["recipients"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["status"] == "bounced")
            .map(|one| one["address"].as_str().unwrap())
            .collect();
        assert_eq!(bounced, settled, "{from:?} {told}");
        let suppressed = setup.owner.get("/api/contacts/suppressions").await.expect(200);
        let suppressed: Vec<&str> =
            suppressed["suppressions"].as_array().unwrap().iter().map(|row| row["email"].as_str().unwrap()).collect();
        assert_eq!(suppressed, settled, "{from:?} {told}");
    }
    // A complaint counts for whose address it came to, whomever it names; a DSN of a rewritten address does.
    let arf = report("feedback-report", complaint, own);
    assert_eq!(
        SmtpClient::connect_and_greet(setup.server.smtp).await.mail("fbl@remote.test", &[own], &arf).await.code,
        250
    );
    let part = format!("Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x.test\r\n{stranger}");
    let (cys, dsn) = (&bounces["cy@remote.test"], report("delivery-status", &part, "x"));
    assert_eq!(SmtpClient::connect_and_greet(setup.server.smtp).await.mail("", &[cys], &dsn).await.code, 250);
    let suppressed = setup.owner.get("/api/contacts/suppressions").await.expect(200);
    let mut suppressed: Vec<&str> =
        suppressed["suppressions"].as_array().unwrap().iter().map(|row| row["email"].as_str().unwrap()).collect();
    suppressed.sort_unstable();
    assert_eq!(suppressed, ["ada@remote.test", "cy@remote.test"]);
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_says_nothing_leaves_the_judgement_to_the_reply() {
    let mut setup = SendingServer::start(Clock::System, RemoteHost::start().await).await;
    for (to, status, reply, dead) in [
        ("gone@remote.test", "5.0.0", "550 5.1.1 no such user", true),
        ("bare@remote.test", "5.0.0", "550 no such user", false),
        ("full@remote.test", "5.2.1", "550 5.2.1 mailbox disabled", false),
        ("spam@remote.test", "5.0.0", "550 5.7.1 spam", false),
        ("rule@remote.test", "5.7.1", "550 5.1.1 no such user", false),
    ] {
        setup.send(hello(to)).await;
        let bounce = setup.remote.next_mail().await.sender();
        assert_eq!(setup.server.next_recipient().await.1, "sent");
        let part = format!(
            "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.remote.test\r\n\r\n\
             Final-Recipient: rfc822; {to}\r\nAction: failed\r\nStatus: {status}\r\nDiagnostic-Code: smtp; {reply}\r\n"
        );
        let report = report("delivery-status", &part, &bounce);
        assert_eq!(
            SmtpClient::connect_and_greet(setup.server.smtp).await.mail("", &[&bounce], &report).await.code,
            250
        );
        let suppressed = setup.owner.get("/api/contacts/suppressions").await.expect(200);
        let is_dead = suppressed["suppressions"].as_array().unwrap().iter().any(|row| row["email"] == to);
        assert_eq!(is_dead, dead, "{to}");
    }
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_message_waits_and_may_be_canceled() {
    let mut setup = SendingServer::start(Clock::manual(NOW), RemoteHost::start().await).await;
    let mut body = hello("ada@remote.test");
    body["scheduledAt"] = json!("in 2 hours");
    let answer = setup.owner.post("/v1/send", body.clone()).await.expect(202);
    let at = NOW.as_millis() + 7_200_000;
    assert_eq!((&answer["status"], &answer["scheduledAt"]), (&json!("scheduled"), &json!(at)));
    let (scheduled, id) = (answer["id"].as_str().unwrap(), answer["messageId"].as_str().unwrap());
    assert!(scheduled.starts_with("ssnd_"));
    let shown = setup.message(id).await;
    assert_eq!(shown["message"]["send_status"], "scheduled");
    assert_eq!(shown["message"]["scheduled_id"], json!(scheduled));
    assert_eq!(shown["message"]["scheduled_at"], json!(at));
    assert_eq!(shown["recipients"][0]["status"], "scheduled");
    let second = setup.owner.post("/v1/send", body.clone()).await.expect(202);
    let path = format!("/v1/scheduled/{}", second["id"].as_str().unwrap());
    for _ in 0..2 {
        let canceled = setup.owner.delete(&path).await.expect(200);
        assert_eq!(canceled, json!({"ok": true, "id": second["id"], "status": "canceled"}));
    }
    assert_eq!(setup.message(second["messageId"].as_str().unwrap()).await["message"]["send_status"], "canceled");
    setup.owner.delete("/v1/scheduled/ssnd_0000000000000000").await.expect_error(404, "not_found");
    setup.server.advance_mail(Duration::from_secs(7_200), "nobody");
    setup.server.wake_scheduled_sends();
    let taken = setup.remote.next_mail().await;
    assert_eq!(taken.recipients(), ["ada@remote.test"]);
    // Its reader sorts it by when it came, not by when somebody asked for it.
    assert!(String::from_utf8_lossy(&taken.wire).contains("\r\nDate: Tue, 28 Jul 2026 02:00:00 +0000\r\n"));
    assert_eq!(setup.server.next_recipient().await.1, "sent");
    assert_eq!(setup.message(id).await["message"]["send_status"], "sent");
    setup.owner.delete(&format!("/v1/scheduled/{scheduled}")).await.expect_error(409, "already_sent");
    // What is suppressed meanwhile is not sent.
    let third = setup.owner.post("/v1/send", body).await.expect(202);
    let suppression = json!({"email": "ADA@remote.test"});
    setup.owner.post("/api/contacts/suppressions", suppression).await.expect(201);
    setup.server.advance_mail(Duration::from_secs(7_200), "nobody");
    setup.server.wake_scheduled_sends();
    setup.server.until("SELECT count(*) FROM job", 0_i64).await;
    let shown = setup.message(third["messageId"].as_str().unwrap()).await;
    assert_eq!(shown["message"]["send_status"], "failed");
    assert_eq!(shown["recipients"][0]["diagnostic"], "the recipient is suppressed");
    assert!(setup.remote.is_drained());
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_sends_once() {
    let mut setup = SendingServer::start(Clock::System, RemoteHost::start().await).await;
    let body = hello("ada@remote.test").to_string();
    let key = [("idempotency-key", "order-1017")];
    let first = setup.owner.send("POST", "/v1/send", &key, Some(body.as_bytes())).await;
    let again = setup.owner.send("POST", "/v1/send", &key, Some(body.as_bytes())).await;
    assert_eq!((again.status, &again.json), (202, &first.json));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.header("idempotent-replayed"), None);
    let other = body.replace("Hi", "Ho");
    setup
        .owner
        .send("POST", "/v1/send", &key, Some(other.as_bytes()))
        .await
        .expect_error(409, "idempotency_conflict");
    let bad = [("idempotency-key", "a b")];
    setup.owner.send("POST", "/v1/send", &bad, Some(body.as_bytes())).await.expect_error(400, "bad_request");
    // A request that was refused leaves its key free.
    let key = [("idempotency-key", "second")];
    setup.owner.send("POST", "/v1/send", &key, Some(b"{}")).await.expect_error(400, "bad_address");
    assert_eq!(setup.owner.send("POST", "/v1/send", &key, Some(body.as_bytes())).await.status, 202);
    setup.remote.next_mail().await;
    setup.remote.next_mail().await;
    setup.server.until("SELECT count(*) FROM job", 0_i64).await;
    assert!(setup.remote.is_drained());
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sends_to_each_and_fails_for_those_alone() {
    let mut setup = SendingServer::start(Clock::System, RemoteHost::start().await).await;
    setup.owner.post("/api/contacts/suppressions", json!({"email": "no@remote.test"})).await.expect(201);
    let too_many: serde_json::Map<String, Value> = (0..49).map(|n| (format!("X-{n}"), json!("x"))).collect();
    let answer = setup
        .owner
        .post(
            "/v1/send/batch",
            json!({"from": "hi@inbox.test", "subject": "Hi {{name}}", "text": "{{greeting}}, {{name}}",
                "templateData": {"greeting": "Hello", "name": "you"}, "headers": {"X-A": "1", "X-B": "1"},
                "attachments": [{"filename": "a.txt", "content": "eA=="}],
                "recipients": [
                    {"to": "Ada <ada@remote.test>", "templateData": {"name": "Ada"}, "headers": {"x-b": "2"}},
                    {"to": "nobody"},
                    {"to": "no@remote.test"},
                    {"to": "bob@remote.test", "templateData": {"name": []}},
                    {"to": "cy@remote.test", "headers": {"Bcc": "x@y.test"}},
                    {"to": "eve@remote.test", "headers": too_many},
                    {"to": "dee@remote.test"}]}),
        )
        .await
        .expect(200);
    let told: Vec<(&str, &str, &str)> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["to"].as_str().unwrap(), one["status"].as_str().unwrap(), one["code"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        told,
        [
            ("ada@remote.test", "sent", ""),
            ("nobody", "failed", "bad_address"),
            ("no@remote.test", "failed", "recipient_suppressed"),
            ("bob@remote.test", "failed", "bad_template_data"),
            ("cy@remote.test", "failed", "bad_header"),
            ("eve@remote.test", "failed", "bad_header"),
            ("dee@remote.test", "sent", ""),
        ]
    );
    assert_eq!((&answer["sent"], &answer["scheduled"], &answer["failed"]), (&json!(2), &json!(0), &json!(5)));
    let mut texts = Vec::new();
    for _ in 0..2 {
        texts.push(String::from_utf8(setup.remote.next_mail().await.data()).unwrap());
    }
    texts.sort_by_key(|text| !text.contains("Subject: Hi Ada\r\n"));
    assert!(texts[0].contains("Hello, Ada") && texts[0].contains("x-b: 2\r\n") && !texts[0].contains("X-B: 1"));
    assert!(texts[1].contains("Subject: Hi you\r\n") && texts[1].contains("X-B: 1\r\n"), "{}", texts[1]);
    assert!(texts.iter().all(|text| text.contains("filename=\"a.txt\"")), "both have the file");
    let batch =
        |recipients: Value| json!({"from": "hi@inbox.test", "subject": "s", "text": "t", "recipients": recipients});
    setup.owner.post("/v1/send/batch", batch(json!([]))).await.expect_error(400, "no_recipients");
    let many: Vec<Value> = (0..51).map(|n| json!({"to": format!("a{n}@remote.test")})).collect();
    setup.owner.post("/v1/send/batch", batch(json!(many))).await.expect_error(400, "too_many_recipients");
    let foreign = json!({"from": "hi@other.test", "subject": "s", "text": "t", "recipients": [{"to": "a@b.test"}]});
    setup.owner.post("/v1/send/batch", foreign).await.expect_error(404, "domain_not_owned");
    setup.server.until("SELECT count(*) FROM job", 0_i64).await;
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_to_a_domain_that_is_received_here_comes_in_at_once() {
    let mut setup = SendingServer::start(Clock::System, RemoteHost::start().await).await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    setup.server.webhook(&receiver.url()).await;
    let mut body = hello("support@inbox.test");
    body["bcc"] = json!("ada@remote.test");
    let id = setup.send(body).await;
    let event = receiver.next_request().await.json();
    assert_eq!((event["type"].as_str(), event["subject"].as_str()), (Some("email.received"), Some("Hi")));
    assert_eq!(event["to"][0]["address"], "support@inbox.test");
    setup.remote.next_mail().await;
    setup.server.until("SELECT count(*) FROM job", 0_i64).await;
    let shown = setup.message(&id).await;
    assert_eq!(shown["message"]["send_status"], "sent");
    let inbound = setup.owner.get("/api/messages?direction=inbound").await.expect(200);
    assert_eq!(inbound.as_array().unwrap().len(), 1);
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_route_sends_mail_on_with_its_sender_rewritten() {
    let mut setup = SendingServer::start(Clock::System, RemoteHost::start().await).await;
    let route = setup
        .owner
        .post(
            "/api/routes",
            json!({"match": "sales@inbox.test", "action": "forward", "destination": "ada@remote.test"}),
        )
        .await
        .expect(201);
    let route = route["id"].as_str().unwrap().to_owned();
    let forged = "Authentication-Results: mx.mailkite.test; dkim=pass header.d=bank.example\r\n";
    setup.server.mail("sales@inbox.test", &format!("{forged}{}", message("Forward me"))).await;
    let taken = setup.remote.next_mail().await;
    assert_eq!(taken.recipients(), ["ada@remote.test"]);
    assert!(taken.sender().starts_with("SRS0=") && taken.sender().ends_with("=example.com=ada@mx.mailkite.test"));
    let text = String::from_utf8(taken.data()).unwrap();
    assert!(text.starts_with(&format!("X-Mailkite-Forwarded: {route}\r\n")), "{text}");
    assert!(!text.contains("bank.example"), "nobody else writes results in our name: {text}");
    assert!(
        text.contains("\r\nReceived: from ") && text.contains("From: Ada Lovelace <ada@example.com>\r\n"),
        "{text}"
    );
    setup.server.until("SELECT count(*) FROM job", 0_i64).await;
    let shown = setup.owner.get("/api/routes").await.expect(200);
    assert_eq!((&shown[0]["last_status"], &shown[0]["last_status_code"]), (&json!("sent"), &json!(250)));
    // What comes round again stays.
    let reply = setup.server.mail("sales@inbox.test", &text).await;
    assert_eq!(reply.code, 250);
    setup.server.until("SELECT count(*) FROM message WHERE direction = 'inbound'", 2_i64).await;
    setup.server.until("SELECT count(*) FROM job", 0_i64).await;
    assert!(setup.remote.is_drained());
    let inbound = setup.owner.get("/api/messages").await.expect(200);
    assert_eq!(inbound.as_array().unwrap().len(), 2, "a forward is no message of its own");
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_hears_of_an_endpoint_that_fails_for_good_once_a_day() {
    let dns = DnsServer::start().await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    let mut remote = RemoteHost::start().await;
    let port = remote.address.port();
    let server = Server::start_with(Clock::manual(NOW), |config| {
        deliver_to_loopback(config, &dns, port);
        config.webhook.retry = Vec::new();
    })
    .await;
    server.write(|tx, _, _| Ok(tx.execute("UPDATE account SET email = 'owner@remote.test'", [])?)).await;
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    server.webhook(&receiver.url()).await;
    // Nobody is mailed at an address that is not proven.
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    client.envelope("ada@example.com", &["a@inbox.test"]).await;
    server.write(|tx, _, _| Ok(tx.execute("UPDATE account SET email_verified = 0", [])?)).await;
    client.expect("DATA", 354).await;
    client.send(data(message("None").as_bytes())).await;
    assert_eq!(client.reply().await.code, 250);
    server.until("SELECT count(*) FROM delivery WHERE status = 'failed'", 1_i64).await;
    server.write(|tx, _, _| Ok(tx.execute("UPDATE account SET email_verified = 1", [])?)).await;
    server.accepted("a@inbox.test", "One").await;
    let taken = remote.next_mail().await;
    assert_eq!((taken.sender().as_str(), taken.recipients()), ("", vec!["owner@remote.test".to_owned()]));
    let text = String::from_utf8(taken.data()).unwrap();
    assert!(text.contains("From: \"mailkite\" <postmaster@mx.mailkite.test>\r\n"), "{text}");
    assert!(text.contains("was tried=\r\n once: it answered"), "{text}");
    assert!(text.contains("Auto-Submitted: auto-generated\r\n") && text.contains("HTTP status 500"), "{text}");
    server.until("SELECT count(*) FROM job", 0_i64).await;
    server.accepted("a@inbox.test", "Two").await;
    server.until("SELECT count(*) FROM delivery WHERE status = 'failed'", 3_i64).await;
    server.until("SELECT count(*) FROM job", 0_i64).await;
    assert!(remote.is_drained(), "once a day");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complaint_at_the_address_of_a_feedback_loop_has_to_prove_which_copy_it_is_about() {
    let mut setup = SendingServer::start(Clock::System, RemoteHost::start().await).await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let tracking = json!({"url": receiver.url()});
    setup.owner.put("/api/domains/inbox.test/tracking-webhook", tracking).await.expect(200);
    setup.send(hello("ada@remote.test")).await;
    let taken = setup.remote.next_mail().await;
    let (bounce, header) = (taken.sender(), String::from_utf8(taken.data()).unwrap());
    assert_eq!(receiver.next_request().await.json()["type"], "email.sent");
    let complaint = |original: &str, return_path: &str| {
        format!(
            "From: staff@isp.test\r\nTo: fbl@inbox.test\r\nSubject: complaint\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=feedback-report; boundary=BB\r\n\r\n--BB\r\n\r\nx\r\n--BB\r\n\
             Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: x\r\nVersion: 1\r\n\
             {original}\r\n--BB\r\nContent-Type: message/rfc822\r\n\r\n{return_path}{header}\r\n--BB--\r\n"
        )
    };
    let forged = bounce.replace(|c: char| c.is_ascii_digit(), "v");
    let named = |path: &str| complaint(&format!("Original-Mail-From: <{path}>\r\n"), "");
    // Who got a copy knows the Message-ID; a tag that does not prove itself is nobody's.
    for (mail, counts) in [
        (complaint("", ""), false),
        (named(&forged), false),
        (complaint("", &format!("Return-Path: <{bounce}>\r\n")), true),
        (named(&bounce), false),
    ] {
        let reply = SmtpClient::connect_and_greet(setup.server.smtp)
            .await
            .mail("fbl@isp.test", &["fbl@inbox.test"], &mail)
            .await;
        assert_eq!(reply.code, 250, "{reply:?}");
        if counts {
            let told = receiver.next_request().await.json();
            assert_eq!((&told["type"], &told["data"]["to"]), (&json!("email.complained"), &json!("ada@remote.test")));
        }
        // Settled before the 250 was said.
        let settled: i64 = setup.server.query("SELECT count(*) FROM suppression WHERE reason = 'complaint'").await;
        assert_eq!(settled, i64::from(counts || mail == named(&bounce)), "{mail}");
    }
    let suppressed = setup.owner.get("/api/contacts/suppressions").await.expect(200);
    assert_eq!(suppressed["suppressions"][0]["reason"], "complaint", "{suppressed}");
}
