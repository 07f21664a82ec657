//! DSNs and abuse reports that come back: which recipient they settle.

use mailkite::testing::clock::Clock;
use serde_json::json;

use super::sending::hello;
use crate::support::receiver::{Receiver, Reply};
use crate::support::remote_host::RemoteHost;
use crate::support::sending_server::SendingServer;
use crate::support::smtp::SmtpClient;

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
    for (from, status_fields, settled) in [
        ("", bob.clone(), vec![]),
        ("", cy.clone(), vec![]),
        ("", format!("{bob}{cy}"), vec![]),
        ("", format!("{stranger}{bob}"), vec![]),
        ("ada@remote.test", ada.clone(), vec![]),
        ("", format!("{bob}{ada}{cy}"), vec!["ada@remote.test"]),
    ] {
        let part = format!(
            "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.remote.test\r\n{status_fields}"
        );
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
        assert_eq!(bounced, settled, "{from:?} {status_fields}");
        let suppressed = setup.owner.get("/api/contacts/suppressions").await.expect(200);
        let suppressed: Vec<&str> =
            suppressed["suppressions"].as_array().unwrap().iter().map(|row| row["email"].as_str().unwrap()).collect();
        assert_eq!(suppressed, settled, "{from:?} {status_fields}");
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
            let event = receiver.next_request().await.json();
            assert_eq!(
                (&event["type"], &event["data"]["to"]),
                (&json!("email.complained"), &json!("ada@remote.test"))
            );
        }
        // Settled before the 250 was said.
        let settled: i64 = setup.server.query("SELECT count(*) FROM suppression WHERE reason = 'complaint'").await;
        assert_eq!(settled, i64::from(counts || mail == named(&bounce)), "{mail}");
    }
    let suppressed = setup.owner.get("/api/contacts/suppressions").await.expect(200);
    assert_eq!(suppressed["suppressions"][0]["reason"], "complaint", "{suppressed}");
}
