//! Lines about sent and forwarded mail.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::support::dns::DnsServer;
use crate::support::logged_process::{LoggedProcess, lines, only};
use crate::support::remote_host::{HostAction, RemoteHost};
use crate::support::serve_process::verify_domain;
use crate::support::smtp::SmtpClient;

/// Words that stand in the content of the mail alone.
const SECRETS: [&str; 3] = ["Quarterly", "TheBody", "contract.pdf"];

fn report(kind: &str, part: &str, to: &str) -> String {
    format!(
        "From: MAILER-DAEMON@remote.test\r\nTo: {to}\r\nSubject: Report\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type={kind}; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
         Sorry.\r\n--b\r\nContent-Type: message/{kind}\r\n\r\n{part}\r\n--b--\r\n"
    )
}

fn message(to: &Value) -> Value {
    json!({"from": "Acme <hi@acme.test>", "to": to, "subject": "Quarterly", "text": "TheBody",
        "attachments": [{"filename": "contract.pdf", "content": BASE64.encode("TheBody")}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sent_mail_has_one_line_for_each_thing_that_happens_to_it() {
    let dns = DnsServer::start().await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    dns.address("mx.mailkite.test", "192.0.2.1");
    let mut remote = RemoteHost::scripted(|command, _| {
        let refusal = match command {
            _ if command.starts_with("RCPT TO:<later@") => "451 4.7.1 try again\r\n",
            _ if command.starts_with("RCPT TO:<gone@") => "550 5.1.1 no such user\r\n",
            _ => return None,
        };
        Some(HostAction::Send(refusal.to_owned()))
    })
    .await;
    let sections = format!(
        "[dns]\nservers = [\"{}\"]\n[outbound]\nport = {}\nallow_networks = [\"127.0.0.0/8\"]\n",
        dns.address,
        remote.address.port()
    );
    let server = LoggedProcess::start(&sections).await;
    let owner = &server.owner;
    verify_domain(owner, &dns, "acme.test").await;
    let send = async |to: Value| {
        let sent = owner.post("/v1/send", message(&to)).await.expect(202);
        sent["id"].as_str().unwrap().to_owned()
    };
    let sent = send(json!("ada@remote.test")).await;
    let bounce = remote.next_mail().await.sender();
    let later = send(json!("later@remote.test")).await;
    let gone = send(json!(["gone@remote.test"])).await;
    server.wait_for(&["mail bounced", &gone]).await;
    // Now it is suppressed: left out, and then nobody is left.
    let some = send(json!(["gone@remote.test", "bob@remote.test"])).await;
    owner.post("/v1/send", message(&json!("gone@remote.test"))).await.expect_error(409, "recipient_suppressed");
    let mut batch = message(&json!(null));
    batch["recipients"] = json!([{"to": "c@remote.test"}, {"to": "d@remote.test"}]);
    let batch = owner.post("/v1/send/batch", batch).await.expect(200);
    // Submitted by a mail program; refused with a foreign author.
    let mut client = SmtpClient::connect_and_greet(server.submission).await.starttls().await;
    client.expect("EHLO laptop.test", 250).await;
    let key = owner.credential.clone().unwrap();
    client.expect(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0me\0{key}"))), 235).await;
    let mail = |from: &str| format!("From: {from}\r\nTo: e@remote.test\r\nSubject: Quarterly\r\n\r\nTheBody\r\n");
    let accepted = client.mail("hi@acme.test", &["e@remote.test"], mail("hi@acme.test")).await.text();
    let submitted = accepted.rsplit(' ').next().unwrap().to_owned();
    assert_eq!(client.mail("hi@acme.test", &["e@remote.test"], mail("boss@other.test")).await.code, 550);
    client.expect("MAIL FROM:<hi@acme.test>", 250).await;
    client.expect("RCPT TO:<postmaster>", 550).await;
    // Forwarded, and held back because the address is suppressed.
    let forward = async |matching: &str, to: &str| {
        let route = json!({"match": matching, "action": "forward", "destination": to});
        owner.post("/api/routes", route).await.expect(201)["id"].clone()
    };
    let (forwarding, holding) =
        (forward("f@inbox.test", "eve@remote.test").await, forward("h@inbox.test", "gone@remote.test").await);
    let mut stranger = SmtpClient::connect_and_greet(server.smtp).await;
    let mut receive = async |to: &str| {
        let mail = "From: x@example.com\r\nSubject: Quarterly\r\n\r\nTheBody\r\n";
        let taken = stranger.mail("x@example.com", &[to], mail).await.text();
        taken.rsplit(' ').next().unwrap().to_owned()
    };
    let (forwarded, held) = (receive("f@inbox.test").await, receive("h@inbox.test").await);
    // Injected, and sent to a domain that is received here.
    let injected = json!({"from": "x@example.com", "address": "s@inbox.test", "routeId": null, "text": "TheBody"});
    let store = json!({"match": "s@inbox.test", "action": "store"});
    let store = owner.post("/api/routes", store).await.expect(201)["id"].clone();
    let injected = owner.post("/v1/route", injected).await.expect(202)["id"].clone();
    let local = send(json!("s@inbox.test")).await;
    // It comes back after all, and somebody complains.
    server.wait_for(&["mail delivered", &sent]).await;
    let dsn = "Reporting-MTA: dns; mx.remote.test\r\n\r\nFinal-Recipient: rfc822; ada@remote.test\r\nAction: failed\r\n\
               Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n";
    assert_eq!(stranger.mail("", &[&bounce], report("delivery-status", dsn, &bounce)).await.code, 250);
    let arf = "Feedback-Type: abuse\r\nVersion: 1\r\nUser-Agent: x/1\r\n";
    assert_eq!(stranger.mail("fbl@remote.test", &[&bounce], report("feedback-report", arf, &bounce)).await.code, 250);
    assert_eq!(stranger.mail("x@example.com", &[&bounce], "Subject: Away\r\n\r\nTheBody\r\n").await.code, 250);
    for texts in [
        ["mail deferred", &later],
        ["mail delivered", &submitted],
        ["mail delivered", &forwarded],
        ["mail delivered", &local],
    ] {
        server.wait_for(&texts).await;
    }
    let (first, second) = (batch["results"][0]["id"].clone(), batch["results"][1]["id"].clone());
    for id in [&first, &second, &json!(some)] {
        server.wait_for(&["mail delivered", id.as_str().unwrap()]).await;
    }
    let log = server.stop().await;

    let line = only(&log, "mail accepted", &json!({"message_id": sent, "via": "api"}));
    assert_eq!((&line["from"], &line["to"]), (&json!("hi@acme.test"), &json!("ada@remote.test")));
    assert_eq!((&line["peer"], &line["reply"]), (&json!("127.0.0.1"), &json!("202")));
    assert!(line["size"].as_u64().unwrap() > 500 && line["duration_ms"].is_u64(), "{line}");
    let line = only(&log, "mail delivered", &json!({"message_id": sent}));
    assert_eq!((&line["to"], &line["host"]), (&json!("ada@remote.test"), &json!("mx.remote.test")));
    assert_eq!((&line["peer"], &line["tls"], &line["attempt"]), (&json!("127.0.0.1"), &json!("none"), &json!(1)));
    assert!(line["reply"].as_str().unwrap().starts_with("250 ") && line["duration_ms"].is_u64(), "{line}");
    assert_eq!(line["from"], bounce);
    let line = only(&log, "mail deferred", &json!({"message_id": later, "reply": "451 4.7.1 try again"}));
    assert!(line["next_attempt"].as_str().unwrap().ends_with('Z'), "{line}");
    only(&log, "mail bounced", &json!({"message_id": gone, "reply": "550 5.1.1 no such user", "attempt": 1}));
    let line = only(&log, "mail accepted", &json!({"message_id": some}));
    assert_eq!(line["to"], "gone@remote.test,bob@remote.test");
    only(&log, "recipient suppressed", &json!({"message_id": some, "to": "gone@remote.test"}));
    only(&log, "recipient suppressed", &json!({"message_id": null, "to": "gone@remote.test"}));
    for (id, to) in [(&first, "c@remote.test"), (&second, "d@remote.test")] {
        only(&log, "mail accepted", &json!({"message_id": id, "to": to, "reply": "200"}));
        only(&log, "mail delivered", &json!({"message_id": id, "to": to}));
    }
    let line = only(&log, "mail accepted", &json!({"message_id": submitted, "via": "submission"}));
    assert_eq!((&line["helo"], &line["tls"]), (&json!("laptop.test"), &json!("TLSv1.3")));
    assert_eq!(line["reply"], accepted);
    let line = only(&log, "mail refused", &json!({"via": "submission"}));
    let foreign = "550 5.7.1 From domain is not yours, or not verified for sending";
    assert_eq!((&line["reply"], &line["to"]), (&json!(foreign), &json!("e@remote.test")));
    let line = only(&log, "recipient refused", &json!({"via": "submission"}));
    assert_eq!((&line["from"], &line["to"]), (&json!("hi@acme.test"), &json!("postmaster")));
    let line = only(&log, "mail not forwarded", &json!({"message_id": held, "route": holding}));
    assert_eq!((&line["to"], &line["from"]), (&json!("gone@remote.test"), &json!("x@example.com")));
    assert_eq!(line["reason"], "suppressed");
    let line = only(&log, "mail delivered", &json!({"message_id": forwarded, "route": forwarding}));
    assert_eq!(line["to"], "eve@remote.test");
    let line = only(&log, "mail accepted", &json!({"message_id": injected, "via": "inject"}));
    assert_eq!((&line["route"], &line["to"]), (&store, &json!("s@inbox.test")));
    let line = only(&log, "mail delivered", &json!({"message_id": local}));
    let taken = line["reply"].as_str().unwrap().rsplit(' ').next().unwrap();
    only(&log, "mail accepted", &json!({"message_id": taken, "via": "local", "to": "s@inbox.test"}));
    let line = only(&log, "mail bounced", &json!({"message_id": sent}));
    assert_eq!((&line["to"], &line["attempt"]), (&json!("ada@remote.test"), &Value::Null));
    assert_eq!(line["reason"], "550 5.1.1 no such user");
    only(&log, "complaint received", &json!({"message_id": sent, "to": "ada@remote.test", "reason": "abuse"}));
    only(&log, "mail dropped", &json!({"message_id": sent, "from": "x@example.com", "reason": "no_report"}));
    assert_eq!(lines(&log, "mail delivered").len(), 7, "{log}");

    for secret in SECRETS.into_iter().chain([key.as_str(), "s3cret", BASE64.encode("TheBody").as_str()]) {
        assert!(!log.contains(secret), "{secret}");
    }
}
