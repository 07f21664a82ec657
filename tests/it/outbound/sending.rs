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

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

impl SendingServer {
    pub(super) async fn send(&self, body: Value) -> String {
        let answer = self.owner.post("/v1/send", body).await.expect(202);
        assert_eq!(answer["status"], "queued", "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// The message as the API shows it.
    pub(super) async fn message(&self, id: &str) -> Value {
        self.owner.get(&format!("/api/messages/{id}")).await.expect(200)
    }
}

pub(super) fn hello(to: &str) -> Value {
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
    let types: Vec<(&str, &str)> = events
        .iter()
        .map(|event| (event["type"].as_str().unwrap(), event["data"]["bounce"]["diagnostic"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        types,
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
