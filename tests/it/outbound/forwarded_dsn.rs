//! DSNs about forwarded mail: their recipients, contents and rate (contract 5.1).

use serde_json::json;

use crate::support::forwarding_server::{EVIL, ForwardingServer, GOOD, forward, from, text_of};
use crate::support::remote_host::ReceivedMail;

/// A report of a destination about a message with this Message-ID.
fn dsn(action: &str, id: &str) -> String {
    let spam = format!("{}\r\n", "BUY NOW ".repeat(1_000));
    format!(
        "From: MAILER-DAEMON@remote.test\r\nSubject: BUY NOW\r\nAuto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\n{spam}\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n\
         Reporting-MTA: dns; BUY\r\n\r\nFinal-Recipient: rfc822; boss@remote.test\r\nAction: {action}\r\n\
         Status: 5.2.2\r\nDiagnostic-Code: smtp; 552 BUY NOW\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\n\
         Content-Disposition: attachment; filename=BUY.exe\r\n\r\n{spam}\r\n--b\r\n\
         Content-Type: text/rfc822-headers\r\n\r\nSubject: BUY NOW\r\nMessage-ID: {id}\r\n\r\n--b--\r\n"
    )
}

fn original(author: &str, id: &str) -> String {
    from(author, "BUY NOW").replace("\r\n\r\n", &format!("\r\nMessage-ID: {id}\r\n\r\n"))
}

impl ForwardingServer {
    /// Starts one that delivers to the senders' domains too.
    async fn reachable() -> Self {
        let setup = Self::start_with_policies().await;
        for domain in ["good.test", "bank.test", "nospf.test"] {
            setup.dns.mx(domain, 10, "mx.remote.test");
        }
        setup
    }

    /// Delivers a message and returns it as it was forwarded.
    async fn passed_on(&mut self, host: &str, mail_from: &str, to: &str, mail: &str) -> ReceivedMail {
        assert_eq!(self.deliver(host, mail_from, to, mail).await, 250, "{mail_from} {to}");
        self.remote.next_mail().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_srs_address_takes_one_report_of_a_failure_about_what_went_out_with_it() {
    let mut setup = ForwardingServer::reachable().await;
    forward(&setup.owner, "*@inbox.test", "boss@remote.test").await;
    let mail = original("Ada <ada@good.test>", "<BUY@good.test>");
    let srs = setup.passed_on(GOOD, "ada@good.test", "a@inbox.test", &mail).await.sender();
    assert!(srs.starts_with("SRS0="), "{srs}");
    let head = "From: MAILER-DAEMON@remote.test\r\nSubject: BUY NOW\r\nAuto-Submitted: auto-replied\r\n";
    for (mail_from, mail) in [
        ("", format!("{head}\r\nBUY NOW\r\n")),
        ("", format!("{head}In-Reply-To: <BUY@good.test>\r\n\r\nI am away. BUY NOW\r\n")),
        ("", dsn("failed", "<2@good.test>")),
        ("", dsn("failed", "")),
        ("eve@remote.test", dsn("failed", "<BUY@good.test>")),
        ("", dsn("delayed", "<BUY@good.test>")),
        ("", dsn("delivered", "<BUY@good.test>")),
        ("", dsn("relayed", "<BUY@good.test>")),
        ("", dsn("expanded", "<BUY@good.test>")),
    ] {
        for _ in 0..2 {
            assert_eq!(setup.deliver(EVIL, mail_from, &srs, &mail).await, 550, "{mail:.300}");
        }
    }
    setup.until_idle().await;
    assert!(setup.remote.is_drained(), "nothing of it leaves");
    let taken = setup.passed_on(EVIL, "", &srs, &dsn("failed", "<BUY@good.test>")).await;
    assert_eq!((taken.sender().as_str(), taken.recipients()), ("", vec!["ada@good.test".to_owned()]));
    let text = text_of(&taken);
    assert!(text.contains("\r\nAction: failed\r\nStatus: 5.2.2\r\nDiagnostic-Code: smtp; 552 5.2.2\r\n"), "{text}");
    assert!(text.contains("\r\nFinal-Recipient: rfc822; a@inbox.test\r\n") && !text.contains("BUY"), "{text}");
    for _ in 0..3 {
        assert_eq!(setup.deliver(EVIL, "", &srs, &dsn("failed", "<BUY@good.test>")).await, 550, "once");
    }
    setup.until_idle().await;
    assert!(setup.remote.is_drained());
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_an_id_is_known_by_our_received_field() {
    let mut setup = ForwardingServer::reachable().await;
    forward(&setup.owner, "sales@inbox.test", "boss@remote.test").await;
    let mail = from("Ada <ada@good.test>", "Forward me");
    let forwarded = setup.passed_on(GOOD, "ada@good.test", "sales@inbox.test", &mail).await;
    let (end, enclosed) = ("Message-ID: \r\n\r\n--b--", text_of(&forwarded));
    let report = dsn("failed", "").replace(end, &format!("{enclosed}\r\n--b--"));
    assert!(report.contains(&enclosed));
    // Hosts on the way may change the case of a local part.
    let srs = forwarded.sender().to_ascii_lowercase();
    let taken = setup.passed_on(EVIL, "", &srs, &report).await;
    assert_eq!((taken.sender().as_str(), taken.recipients()), ("", vec!["ada@good.test".to_owned()]));
    let text = text_of(&taken);
    assert!(text.contains("\r\nFinal-Recipient: rfc822; sales@inbox.test\r\nAction: failed\r\n"), "{text}");
    assert!(!text.contains("BUY") && !text.contains("boss@remote.test"), "{text}");
    assert_eq!(setup.deliver(EVIL, "", &forwarded.sender(), &report).await, 550, "it was told");
    setup.until_idle().await;
    assert!(setup.remote.is_drained());
    assert_eq!(setup.server.query::<i64>("SELECT count(*) FROM message").await, 1);
    assert_eq!(
        setup.server.query::<i64>("SELECT count(*) FROM dispatch").await,
        1,
        "the forward alone is remembered"
    );
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_report_whose_address_anybody_could_have_put_on_the_envelope() {
    let mut setup = ForwardingServer::reachable().await;
    forward(&setup.owner, "*@inbox.test", "boss@remote.test").await;
    for (number, (author, mail_from)) in [
        // SPF fails, whoever the author is.
        ("x@calm.test", "victim@bank.test"),
        ("x@evil.test", "victim@bank.test"),
        // Nobody says who may send for it.
        ("x@calm.test", "victim@nospf.test"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("<{number}@evil.test>");
        let srs = setup.passed_on(EVIL, mail_from, "a@inbox.test", &original(author, &id)).await.sender();
        assert!(srs.starts_with("SRS0="), "{srs}");
        assert_eq!(setup.deliver(EVIL, "", &srs, &dsn("failed", &id)).await, 550, "{mail_from}");
    }
    setup.until_idle().await;
    assert!(setup.remote.is_drained());
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_carries_no_text_of_the_address_that_the_message_was_sent_to() {
    let mut setup = ForwardingServer::reachable().await;
    let matching = json!({"match": "/.*@inbox.test/", "action": "forward", "destination": "boss@remote.test"});
    setup.owner.post("/api/routes", matching).await.expect(201);
    for (number, to) in ["\"BUY NOW http://evil.test/1\"@inbox.test", "BUY/NOW@inbox.test"].into_iter().enumerate() {
        let id = format!("<{number}@good.test>");
        let srs = setup.passed_on(GOOD, "ada@good.test", to, &original("ada@good.test", &id)).await.sender();
        let text = text_of(&setup.passed_on(EVIL, "", &srs, &dsn("failed", &id)).await);
        assert!(text.contains("Final-Recipient: unknown; an address at inbox.test\r\n"), "{text}");
        assert!(!text.contains("BUY") && !text.contains(&id), "{text}");
    }
    setup.until_idle().await;
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sender_gets_ten_reports_an_hour() {
    let mut setup = ForwardingServer::reachable().await;
    forward(&setup.owner, "*@inbox.test", "boss@remote.test").await;
    let mut answers = Vec::new();
    for number in 0..12 {
        let id = format!("<{number}@good.test>");
        let mail_from = format!("Ada+{number}@good.test");
        let mail = original("ada@good.test", &id);
        let srs = setup.passed_on(GOOD, &mail_from, "a@inbox.test", &mail).await.sender();
        answers.push(setup.deliver(EVIL, "", &srs, &dsn("failed", &id)).await);
        if answers.last() == Some(&250) {
            assert_eq!(setup.remote.next_mail().await.recipients(), [mail_from]);
        }
    }
    assert_eq!(answers, [[250; 10].as_slice(), &[550; 2]].concat());
    setup.until_idle().await;
    assert!(setup.remote.is_drained());
    setup.server.stop().await;
}
