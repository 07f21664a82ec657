//! Lines about received mail and its webhooks.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::logged_process::{LoggedProcess, Settings, lines, only};
use crate::support::receiver::{Receiver, Reply};
use crate::support::smtp::SmtpClient;

/// Words that stand in the content of the mail alone.
const SECRETS: [&str; 4] = ["Quarterly", "TheBody", "X-Secret", "swordfish"];

fn mail(number: usize) -> String {
    format!(
        "From: Ada <ada@example.com>\r\nTo: hook@inbox.test\r\nX-Secret: swordfish\r\nDate: Tue, 28 Jul 2026 00:00:00 \
         +0000\r\nMessage-ID: <{number}@example.com>\r\nSubject: Quarterly {number}\r\n\r\nTheBody\r\n"
    )
}

fn id(reply: &str) -> String {
    reply.split_whitespace().find(|word| word.starts_with("msg_")).unwrap_or_else(|| panic!("{reply}")).to_owned()
}

async fn route(owner: &Api, route: Value) -> String {
    owner.post("/api/routes", route).await.expect(201)["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_received_mail_has_one_line_for_each_thing_that_happens_to_it() {
    let receiver = Receiver::start(|request| match request.path.as_str() {
        "/?token=s3cret-fails" => Reply::status(500),
        "/?token=s3cret-gone" => Reply::status(410),
        _ => Reply::status(200),
    })
    .await;
    let server = LoggedProcess::start("[webhook]\nallow_localhost = true\n").await;
    let url = format!("http://{}/?token=s3cret", receiver.address());
    let hook = |matching: &str, end: &str| json!({"match": matching, "action": "webhook", "destination": format!("{url}{end}")});
    let hooked = route(&server.owner, hook("hook@inbox.test", "")).await;
    let failing = route(&server.owner, hook("fails@inbox.test", "-fails")).await;
    let gone = route(&server.owner, hook("gone@inbox.test", "-gone")).await;
    let dropping = route(&server.owner, json!({"match": "drop@inbox.test", "action": "drop"})).await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await.starttls().await;
    client.expect("EHLO client.test", 250).await;
    let reply = client.mail("ada@example.com", &["hook@inbox.test", "store@inbox.test"], mail(1)).await.text();
    let first = id(&reply);
    let failed = id(&client.mail("ada@example.com", &["fails@inbox.test"], mail(2)).await.text());
    let ended = id(&client.mail("ada@example.com", &["gone@inbox.test"], mail(3)).await.text());
    let dropped = id(&client.mail("", &["drop@inbox.test"], mail(4)).await.text());
    assert_eq!(id(&client.mail("ada@example.com", &["hook@inbox.test"], mail(1)).await.text()), first);
    // Refused: a recipient, MAIL three times, mail with a bare line end, mail that breaks off.
    client.expect("MAIL FROM:<ada@example.com> SIZE=99999999999", 552).await;
    client.expect("MAIL FROM:<no address>", 501).await;
    client.expect("MAIL FROM:<ada@example.com> FUTURE=x", 555).await;
    client.expect("MAIL FROM:<ada@example.com>", 250).await;
    client.expect("RCPT TO:<bob@elsewhere.test>", 550).await;
    client.expect("RCPT TO:<hook@inbox.test\u{202e}>", 501).await;
    client.expect("RCPT TO:<hook@inbox.test>", 250).await;
    client.expect("DATA", 354).await;
    client.send(b"Subject: Quarterly\r\n\r\nTheBody\nx\r\n.\r\n").await;
    assert_eq!(client.reply().await.code, 554);
    let mut leaving = SmtpClient::connect_and_greet(server.smtp).await;
    leaving.envelope("leaving@example.com", &["hook@inbox.test"]).await;
    leaving.expect("DATA", 354).await;
    drop(leaving);
    for texts in [
        ["webhook delivered", &first],
        ["webhook failed", &failed],
        ["webhook given up", &ended],
        ["mail refused", "leaving@example.com"],
    ] {
        server.wait_for(&texts).await;
    }
    let key = server.owner.credential.clone().unwrap();
    let log = server.stop().await;

    let line = only(&log, "mail accepted", &json!({"to": "hook@inbox.test,store@inbox.test"}));
    assert_eq!((&line["level"], &line["target"]), (&json!("INFO"), &json!("mailkite::mail")));
    assert_eq!((&line["peer"], &line["via"]), (&json!("127.0.0.1"), &json!("mx")));
    assert_eq!((&line["from"], &line["helo"]), (&json!("ada@example.com"), &json!("client.test")));
    assert_eq!((&line["tls"], &line["reply"]), (&json!("TLSv1.3"), &json!(reply)));
    assert_eq!(line["size"], mail(1).len());
    assert!(line["session"].is_u64() && line["duration_ms"].is_u64(), "{line}");
    let ids = line["message_id"].as_str().unwrap();
    assert!(ids.starts_with(&format!("{first},msg_")) && ids.len() == 41, "{ids}");
    let session = &line["session"];
    // Two of its repetition: it is accepted as the first one, and known as such.
    assert_eq!(lines(&log, "mail accepted").len(), 5);
    only(&log, "mail accepted", &json!({"message_id": first, "session": session}));
    only(&log, "duplicate suppressed", &json!({"message_id": first, "to": "hook@inbox.test"}));
    let fields = json!({"message_id": dropped, "to": "drop@inbox.test", "from": "<>", "route": dropping});
    assert_eq!(only(&log, "mail dropped", &fields)["reason"], "drop_route");
    only(&log, "mail accepted", &json!({"message_id": dropped, "from": "<>"}));

    let origin = format!("http://{}", receiver.address());
    let line = only(&log, "webhook delivered", &json!({"message_id": first, "route": hooked, "reply": "200"}));
    assert_eq!((&line["host"], &line["attempt"]), (&json!(origin), &json!(1)));
    assert!(line["delivery"].as_str().unwrap().starts_with("dlv_") && line["duration_ms"].is_u64(), "{line}");
    let line = only(&log, "webhook failed", &json!({"message_id": failed, "route": failing, "reply": "500"}));
    assert_eq!(line["reason"], "http_status");
    assert!(line["next_attempt"].as_str().unwrap().ends_with('Z'), "{line}");
    let line = only(&log, "webhook given up", &json!({"message_id": ended, "route": gone, "reply": "410"}));
    assert_eq!((&line["reason"], &line["next_attempt"]), (&json!("gone"), &Value::Null));

    let refused = |reply: &str| json!({"session": session, "reply": reply});
    let line = only(&log, "recipient refused", &refused("550 5.7.1 Relaying denied"));
    assert_eq!((&line["from"], &line["to"]), (&json!("ada@example.com"), &json!("bob@elsewhere.test")));
    let line = only(&log, "recipient refused", &refused("501 5.5.2 Syntax error in arguments"));
    assert_eq!(line["to"], "TO:<hook@inbox.test\u{fffd}>");
    assert_eq!(lines(&log, "recipient refused").len(), 2);
    only(&log, "mail refused", &refused("552 5.3.4 Message too large"));
    let line = only(&log, "mail refused", &refused("501 5.5.2 Syntax error in arguments"));
    assert_eq!(line["from"], "FROM:<no address>");
    only(&log, "mail refused", &refused("555 5.5.4 Unknown MAIL or RCPT parameter"));
    let line = only(&log, "mail refused", &refused("554 5.6.0 Bare CR or LF in message data"));
    assert_eq!((&line["from"], &line["to"]), (&json!("ada@example.com"), &json!("hook@inbox.test")));
    let line = only(&log, "mail refused", &json!({"from": "leaving@example.com"}));
    assert_eq!(
        (&line["reason"], &line["tls"], &line["reply"]),
        (&json!("disconnected"), &json!("none"), &Value::Null)
    );
    assert_eq!(lines(&log, "mail refused").len(), 5);

    for secret in SECRETS.into_iter().chain(["s3cret", "token=", key.as_str()]) {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_wants_no_lines_about_mail_gets_none() {
    let settings = Settings { level: "info,mailkite::mail=warn", ..Settings::default() };
    let server = LoggedProcess::start_as(settings, "").await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    let reply = client.mail("ada@example.com", &["hook@inbox.test"], mail(1)).await;
    assert_eq!(reply.code, 250);
    let wrong = Api::anonymous(server.http).with("mk_live_wrong");
    wrong.get("/v1/me").await.expect_error(401, "bad_key");
    let log = server.stop().await;
    assert!(!log.contains("mail accepted"), "{log}");
    only(&log, "authentication failed", &json!({"reason": "bad_key"}));
}
