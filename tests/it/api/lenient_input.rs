//! Lenient input (contract 1.1, 8.1): every spelling of a field that clients, plugins and forms send is read as the one
//! value meant, and that value is what is sent.

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::receiver::{Receiver, Reply};
use crate::support::remote_host::{ReceivedMail, RemoteHost};
use crate::support::sending_server::SendingServer;
use crate::support::server::Server;

/// 2026-07-28T00:00:00Z
const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

async fn start() -> SendingServer {
    SendingServer::start(Clock::manual(NOW), RemoteHost::start().await).await
}

impl SendingServer {
    /// Sends a valid request with these changes; returns its id and the message that the remote host received.
    async fn sent(&mut self, changes: Value) -> (String, String) {
        let answer = self.owner.post("/v1/send", with(&changes)).await;
        assert_eq!(answer.status, 202, "{changes}: {}", String::from_utf8_lossy(&answer.body));
        let id = answer.expect(202)["id"].as_str().unwrap().to_owned();
        (id, text(&self.remote.next_mail().await))
    }
}

fn with(changes: &Value) -> Value {
    let mut body = json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "Hi", "text": "It branches."});
    for (key, value) in changes.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn text(taken: &ReceivedMail) -> String {
    String::from_utf8(taken.data()).unwrap()
}

/// The values of a field, unfolded.
fn field<'m>(mail: &'m str, name: &'m str) -> Vec<String> {
    let header = mail.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ").replace("\r\n\t", " ");
    let named = |line: &str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    };
    header.split("\r\n").filter_map(named).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_how_a_message_is_made_is_made_anew_and_a_valid_date_and_id_are_kept() {
    let mut setup = start().await;
    // What plugins forward of a message that they once would have made.
    let (_, mail) = setup
        .sent(json!({"headers": {"mime-version": "9.9", "Content-Type": "text/html; charset=x", "x-mailer": "WP",
            "content-transfer-encoding": "8bit", "Content-Disposition": "inline", "date": "now", "Message-Id": "x"}}))
        .await;
    assert_eq!(field(&mail, "MIME-Version"), ["1.0"]);
    let kind = field(&mail, "Content-Type");
    assert!(kind.len() == 1 && kind[0].starts_with("text/plain"), "{kind:?}");
    assert_eq!(field(&mail, "Content-Transfer-Encoding").len(), 1);
    assert_eq!(field(&mail, "Content-Disposition"), [""; 0]);
    assert_eq!(field(&mail, "X-Mailer"), ["WP"]);
    assert_eq!(field(&mail, "Date"), ["Tue, 28 Jul 2026 00:00:00 +0000"]);
    let id = field(&mail, "Message-ID");
    assert!(id.len() == 1 && id[0].ends_with("@inbox.test>"), "{id:?}");

    let own = json!({"headers": {"date": "Mon, 27 Jul 2026 12:30:00 -0700", "MESSAGE-ID": "<order-1017@shop.test>"}});
    let (first, mail) = setup.sent(own.clone()).await;
    assert_eq!(field(&mail, "Date"), ["Mon, 27 Jul 2026 12:30:00 -0700"]);
    assert_eq!(field(&mail, "Message-ID"), ["<order-1017@shop.test>"]);
    let signature = field(&mail, "DKIM-Signature").concat().to_lowercase();
    assert!(signature.contains("message-id") && signature.contains("date"), "{signature}");

    // It is the message's everywhere; a second one with it is another message.
    let shown = setup.owner.get(&format!("/api/messages/{first}")).await.expect(200);
    assert_eq!(shown["message"]["message_id_header"], "<order-1017@shop.test>");
    assert_eq!(shown["message"]["thread_id"], "<order-1017@shop.test>");
    let (second, _) = setup.sent(own).await;
    assert_ne!(first, second);
    let (_, answer) = setup.sent(json!({"inReplyTo": first})).await;
    assert_eq!(field(&answer, "In-Reply-To"), ["<order-1017@shop.test>"]);
    setup.server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gives_each_message_its_own_id_and_merges_what_is_left_of_the_headers() {
    let mut setup = start().await;
    let batch = json!({"from": "hi@inbox.test", "subject": "Hi", "text": "x", "templateData": [], "replyTo": ["a@inbox.test", ""],
        "headers": {"Message-ID": "<shared@shop.test>", "X-Run": 7, "MIME-Version": "1.0"},
        "recipients": [{"to": "a@remote.test", "headers": []}, {"to": "Fuller, Jo <b@remote.test>", "templateData": "",
            "headers": {"Message-ID": "<own@shop.test>", "X-Run": true, "Content-Type": "a/b"}}]});
    let answer = setup.owner.post("/v1/send/batch", batch).await.expect(200);
    assert_eq!((&answer["sent"], &answer["failed"]), (&json!(2), &json!(0)), "{answer}");
    let mut mails = [text(&setup.remote.next_mail().await), text(&setup.remote.next_mail().await)];
    mails.sort_by_key(|mail| field(mail, "To"));
    let [jo, a] = mails;
    assert_eq!(field(&jo, "To"), ["\"Fuller, Jo\" <b@remote.test>"]);
    assert_eq!(
        (field(&jo, "Message-ID"), field(&jo, "X-Run")),
        (vec!["<own@shop.test>".into()], vec!["true".into()])
    );
    assert_eq!(field(&a, "X-Run"), ["7"]);
    assert!(field(&a, "Message-ID")[0].ends_with("@inbox.test>"), "an id is one message's");
    setup.server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_display_name_needs_no_quotes() {
    let mut setup = start().await;
    for (given, name) in [
        ("Acme, Inc. <hi@inbox.test>", "Acme, Inc."),
        ("a < b <hi@inbox.test>", "a < b"),
        ("a > b <hi@inbox.test>", "a > b"),
        ("I <3 Mail <hi@inbox.test>", "I <3 Mail"),
        ("Acme (EU <hi@inbox.test>", "Acme (EU"),
        ("5\" Pipes <hi@inbox.test>", "5\\\" Pipes"),
        ("Shop: Sales; EU <hi@inbox.test>", "Shop: Sales; EU"),
    ] {
        let (id, mail) =
            setup.sent(json!({"from": given, "replyTo": given, "to": given.replace("hi@inbox", "ada@remote")})).await;
        for (field_name, address) in
            [("From", "hi@inbox.test"), ("Reply-To", "hi@inbox.test"), ("To", "ada@remote.test")]
        {
            assert_eq!(field(&mail, field_name), [format!("\"{name}\" <{address}>")], "{given}");
        }
        let shown = setup.owner.get(&format!("/api/messages/{id}")).await.expect(200);
        assert_eq!(shown["message"]["from"], json!({"address": "hi@inbox.test", "name": name.replace('\\', "")}));
    }
    let (_, mail) = setup
        .sent(json!({"to": "Fuller, Jo <jo@remote.test>", "replyTo": ["Acme, Inc. <a@inbox.test>", "b@inbox.test, c@inbox.test"]}))
        .await;
    assert_eq!(field(&mail, "To"), ["\"Fuller, Jo\" <jo@remote.test>"]);
    assert_eq!(field(&mail, "Reply-To"), ["\"Acme, Inc.\" <a@inbox.test>, <b@inbox.test>, <c@inbox.test>"]);
    for (name, bad) in [
        ("from", "Ada <b@inbox.test> <hi@inbox.test>"),
        ("from", "hi@inbox.test, Inc. <hi@inbox.test>"),
        ("to", "Bob, ada@remote.test"),
        ("cc", "\"Bob, b@remote.test <c@remote.test>"),
        ("replyTo", "Acme, Inc."),
    ] {
        let mut changes = json!({});
        changes[name] = json!(bad);
        setup.owner.post("/v1/send", with(&changes)).await.expect_field(400, "bad_address", name);
    }
    setup.server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_text_and_an_empty_list_are_what_was_left_out() {
    let mut setup = start().await;
    let empty = json!({"cc": "", "bcc": [""], "html": "", "replyTo": "", "inReplyTo": "", "headers": [], "attachments": "",
        "templateId": "", "templateData": [], "scheduledAt": "", "metadata": [], "trackOpens": "", "trackClicks": ""});
    let (_, mail) = setup.sent(empty).await;
    assert_eq!((field(&mail, "Cc").len(), field(&mail, "Reply-To").len()), (0, 0));
    assert!(field(&mail, "Content-Type")[0].starts_with("text/plain"));
    let blank = json!({"templateId": " ", "scheduledAt": " ", "inReplyTo": " ", "replyTo": [" "], "headers": "", "metadata": ""});
    setup.sent(blank).await;
    let (_, mail) = setup
        .sent(json!({"replyTo": ["a@inbox.test", "B <b@inbox.test>"], "headers": {"X-Number": 17, "X-Part": 1.5, "X-Yes": true,
            "X-None": null, "X-Empty": "", "X-List": ["one"], "Content-Length": 5}}))
        .await;
    assert_eq!(field(&mail, "Reply-To"), ["<a@inbox.test>, \"B\" <b@inbox.test>"]);
    for (name, value) in [("X-Number", "17"), ("X-Part", "1.5"), ("X-Yes", "true"), ("X-List", "one")] {
        assert_eq!(field(&mail, name), [value]);
    }
    for name in ["X-None", "X-Empty", "Content-Length"] {
        assert!(field(&mail, name).is_empty(), "{name}");
    }
    // A number has its own digits, however many; nobody asked for others.
    let body = r#"{"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "{{total}}", "text": "x", "headers": {"X-Order":
        12345678901234567890123, "X-Price": 1.10, "X-Far": [-1E400], "X-Same": 0, "X-Same": 2}, "templateData": {"total": 10.00}}"#;
    let none = [("idempotency-key", "")];
    for _ in 0..2 {
        setup.owner.send("POST", "/v1/send", &none, Some(body.as_bytes())).await.expect(202);
        let mail = text(&setup.remote.next_mail().await);
        for (name, value) in [
            ("X-Order", "12345678901234567890123"),
            ("X-Price", "1.10"),
            ("X-Far", "-1E400"),
            ("X-Same", "2"),
            ("Subject", "10.00"),
        ] {
            assert_eq!(field(&mail, name), [value]);
        }
    }
    // What is required is missing still, and another list is no object.
    for (changes, code, name) in [
        (json!({"from": ""}), "bad_address", "from"),
        (json!({"to": ""}), "no_recipients", "to"),
        (json!({"to": [""]}), "no_recipients", "to"),
        (json!({"subject": ""}), "missing_content", "subject"),
        (json!({"text": "", "html": ""}), "missing_content", "text"),
        (json!({"metadata": [1]}), "bad_metadata", "metadata"),
        (json!({"templateData": ["a"]}), "bad_template_data", "templateData"),
        (json!({"templateData": {"a": [1]}}), "bad_template_data", "templateData"),
        (json!({"headers": ["a"]}), "bad_header", "headers"),
        (json!({"headers": 5}), "bad_header", "headers"),
        (json!({"headers": {"X-A": [[1]]}}), "bad_header", "headers"),
        (json!({"headers": {"X-A": [1, 2]}}), "bad_header", "headers"),
    ] {
        setup.owner.post("/v1/send", with(&changes)).await.expect_field(400, code, name);
    }
    setup.server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_text_is_absent_at_every_endpoint() {
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    let key = owner.post("/api/keys/scoped", json!({"domainId": "inbox.test", "name": ""})).await.expect(201);
    assert_eq!(key["name"], "inbox.test");
    let key = owner.post("/api/keys/scoped", json!({"domainId": "inbox.test"})).await.expect(201);
    assert_eq!(key["name"], "inbox.test", "what tells it apart if nobody calls it anything");
    let hook = json!({"url": "https://app.acme.dev/", "ackMode": ""});
    assert_eq!(owner.put("/api/domains/inbox.test/webhook", hook).await.expect(200)["ackMode"], "lenient");
    let store =
        json!({"match": "s@inbox.test", "action": "store", "destination": "", "ackMode": "", "onAuthFail": ""});
    let route = owner.post("/api/routes", store).await.expect(201);
    let path = format!("/api/routes/{}", route["id"].as_str().unwrap());
    let unchanged = json!({"active": "", "destination": "", "ackMode": "", "match": "", "onAuthFail": ""});
    assert_eq!(owner.patch(&path, unchanged).await.expect(200)["match_pattern"], "s@inbox.test");
    let test = json!({"to": "a@inbox.test", "from": "", "subject": "", "html": "", "text": "x"});
    owner.post("/api/templates/test", test).await.expect(202);
    let made = json!({"baseId": "base_welcome", "name": "", "subject": "", "html": "", "text": ""});
    let made = owner.post("/api/templates", made).await.expect(201);
    let base = owner.get("/api/templates/base_welcome").await.expect(200);
    assert_eq!((&made["name"], &made["html"], &made["text"]), (&base["name"], &base["html"], &base["text"]));
    // What is stored is emptied so.
    let path = format!("/api/templates/{}", made["id"].as_str().unwrap());
    let changed = owner.put(&path, json!({"text": "", "name": ""})).await.expect(200);
    assert_eq!((&changed["name"], &changed["text"]), (&base["name"], &json!("")));
    let suppression = json!({"email": "x@remote.test", "reason": "", "note": ""});
    let suppression = owner.post("/api/contacts/suppressions", suppression).await.expect(201);
    assert_eq!(
        (&suppression["suppression"]["reason"], &suppression["suppression"]["note"]),
        (&json!("manual"), &Value::Null)
    );
    let upload = json!({"url": "", "content": "eA==", "filename": "", "contentType": "", "retentionDays": ""});
    assert_eq!(owner.post("/v1/attachments", upload).await.expect(201)["filename"], "file");
    let retry = json!({"deliveryIds": "", "messageIds": ["msg_0000000000000000"], "threadIds": ""});
    owner.post("/api/deliveries/retry", retry).await.expect(200);
    for query in [
        "/api/messages?limit=&before=&search=&domain=&direction=&status=",
        "/api/contacts/suppressions?limit=&before=",
    ] {
        owner.get(query).await.expect(200);
    }
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_numbers_with_a_fraction_or_texts_of_digits_too() {
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    let at = NOW.as_millis() + 3_600_000;
    for given in [
        json!(at),
        json!(at as f64 + 0.75),
        json!(at.to_string()),
        json!(format!(" {at} ")),
        json!(format!("{at}.5")),
        json!("2026-07-28T01:00:00Z"),
        json!("2026-07-28T03:00:00+02:00"),
    ] {
        let answer = owner.post("/v1/send", with(&json!({"scheduledAt": given}))).await;
        assert_eq!(answer.status, 202, "{given}");
        assert_eq!(answer.expect(202)["scheduledAt"], at, "{given}");
    }
    let batch = json!({"from": "hi@inbox.test", "subject": "Hi", "text": "x", "scheduledAt": at.to_string(),
        "recipients": [{"to": "a@remote.test"}]});
    assert_eq!(owner.post("/v1/send/batch", batch).await.expect(200)["scheduled"], 1);
    for given in
        [json!("2026-12-30T10:00:00+25:00"), json!("2026-12-30T10:00:00-24:00"), json!("20260730"), json!(1e18)]
    {
        owner.post("/v1/send", with(&json!({"scheduledAt": given}))).await.expect_field(
            400,
            "bad_schedule",
            "scheduledAt",
        );
    }
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_with_a_byte_order_mark_or_half_a_character_is_read() {
    let mut setup = start().await;
    let body = "\u{feff}{\"from\":\"hi@inbox.test\",\"to\":\"ada@remote.test\",\"subject\":\"cut \\ud83d\",\"text\":\"a\\uDE00b\\ud83d\\ude00\"}";
    let sent = setup.owner.send("POST", "/v1/send", &[], Some(body.as_bytes())).await.expect(202);
    setup.remote.next_mail().await;
    let shown = setup.owner.get(&format!("/api/messages/{}", sent["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(shown["message"]["subject"], "cut \u{fffd}");
    assert_eq!(shown["message"]["text_body"].as_str().unwrap().trim_end(), "a\u{fffd}b\u{1f600}");
    setup.server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_may_be_empty_and_base64_has_many_spellings() {
    let mut setup = start().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let spellings = [
        ("padded", "+/8=", 2),
        ("unpadded", "+/8", 2),
        ("url", "-_8=", 2),
        ("url-unpadded", "-_8", 2),
        ("tabs", "\t+/\t8=\t", 2),
        ("blanks", " + / 8 = ", 2),
        ("lines", "+/\r\n8=\n", 2),
        ("data", "data:image/png;base64,+/8=", 2),
        ("empty", "", 0),
        ("blank", " \r\n", 0),
    ];
    let mut files: Vec<Value> = spellings
        .iter()
        .map(|(name, content, _)| json!({"filename": name, "content": content, "url": "", "contentType": ""}))
        .collect();
    files.push(json!({"filename": "fetched", "url": receiver.url(), "content": ""}));
    let (id, mail) = setup.sent(json!({"attachments": files})).await;
    let shown = setup.owner.get(&format!("/api/messages/{id}")).await.expect(200);
    let sizes: Vec<_> =
        shown["attachments"].as_array().unwrap().iter().map(|file| (&file["filename"], &file["size"])).collect();
    let names: Vec<Value> = spellings.iter().map(|(name, _, _)| json!(name)).chain([json!("fetched")]).collect();
    let wanted: Vec<Value> = spellings.iter().map(|(_, _, size)| json!(size)).chain([json!(0)]).collect();
    assert_eq!(sizes, names.iter().zip(&wanted).collect::<Vec<_>>());
    assert_eq!(mail.matches("+/8=\r\n").count(), 8, "{mail}");

    // Uploads likewise, by their links too.
    let empty = [("Content-Type", "text/plain"), ("Content-Length", "0")];
    let made = setup.owner.send("POST", "/v1/attachments?filename=none.txt", &empty, None).await.expect(201);
    assert_eq!((&made["size"], &made["filename"]), (&json!(0), &json!("none.txt")));
    let made = setup.owner.post("/v1/attachments", json!({"content": "", "filename": "none"})).await.expect(201);
    let (_, mail) = setup.sent(json!({"attachments": [{"filename": "again", "url": made["url"]}]})).await;
    assert!(mail.contains("again"));
    assert_eq!(
        setup.owner.post("/v1/attachments", json!({"content": "-_8", "filename": "u"})).await.expect(201)["size"],
        2
    );
    for bad in [
        json!({"content": ""}),
        json!({"content": "", "url": ""}),
        json!({"content": "+/8=="}),
        json!({"content": "%"}),
    ] {
        setup.owner.post("/v1/attachments", bad).await.expect_error(400, "bad_attachment");
    }
    setup.server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_reaches_the_route_that_says_most_of_it() {
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    // The broadest is the oldest.
    for (pattern, action) in
        [("*@inbox.test", "webhook"), ("/inbox/", "drop"), ("sales-*@inbox.test", "drop"), ("a@inbox.test", "store")]
    {
        let destination = if action == "webhook" { json!("https://app.acme.dev/") } else { Value::Null };
        let route = json!({"match": pattern, "action": action, "destination": destination});
        owner.post("/api/routes", route).await.expect(201);
    }
    let inject = async |address: &str| {
        let body = json!({"from": "Acme, Inc. <x@remote.test>", "address": address, "routeId": "", "subject": "", "text": "x"});
        owner.post("/v1/route", body).await.expect(202)["action"].clone()
    };
    assert_eq!(inject("a@inbox.test").await, "store");
    assert_eq!(inject("A@Inbox.test").await, "store");
    assert_eq!(inject("sales-eu@inbox.test").await, "drop");
    assert_eq!(inject("other@inbox.test").await, "drop", "a regex before all of the domain");
    server.stop_with_any_jobs().await;

    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    for (pattern, action) in [("*@inbox.test", "store"), ("*-bot@inbox.test", "drop")] {
        owner.post("/api/routes", json!({"match": pattern, "action": action})).await.expect(201);
    }
    for (address, action) in [("x@inbox.test", "store"), ("x-bot@inbox.test", "drop")] {
        let answer = owner.post("/v1/route", json!({"from": "x@remote.test", "address": address})).await.expect(202);
        assert_eq!(answer["action"], action, "{address}");
    }
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_url_of_this_machine_is_refused_with_the_setting_that_it_lacks() {
    let server = Server::start_with(Clock::manual(NOW), |config| config.webhook.allow_localhost = false).await;
    let owner = server.owner().await;
    let hook = "/api/domains/inbox.test/webhook";
    for url in ["http://localhost:3000/hook", "http://127.0.0.1/", "http://[::1]:8080/x?y", "HTTP://LOCALHOST"] {
        let calls = [
            owner.put(hook, json!({"url": url})).await,
            owner.put("/api/domains/inbox.test/tracking-webhook", json!({"url": url})).await,
            owner.post("/api/routes", json!({"match": "a@inbox.test", "destination": url})).await,
        ];
        for refused in calls {
            refused.expect_error(400, "bad_url");
            let sentence = refused.expect(400)["error"].as_str().unwrap().to_owned();
            assert!(sentence.starts_with("a valid https url is required"), "{sentence}");
            assert!(sentence.contains("webhook.allow_localhost"), "{url}: {sentence}");
        }
    }
    for url in [
        "http://app.acme.dev/",
        "http://10.0.0.1/",
        "http://localhost.acme.dev/",
        "http://user@localhost/",
        "ftp://localhost/",
    ] {
        let refused = owner.put(hook, json!({"url": url})).await;
        refused.expect_field(400, "bad_url", "url");
        assert_eq!(refused.expect(400)["error"], "a valid https url is required", "{url}: no setting helps");
    }
    server.stop_with_any_jobs().await;
    // Who opens a network by its numbers opens it to plain HTTP, loopback addresses too.
    let server = Server::start_with(Clock::manual(NOW), |config| {
        config.webhook.allow_localhost = false;
        config.webhook.allow_networks = vec!["127.0.0.2/32".parse().unwrap()];
    })
    .await;
    let owner = server.owner().await;
    owner.put(hook, json!({"url": "http://127.0.0.2:8000/"})).await.expect(200);
    for url in ["http://127.0.0.1:8000/", "http://localhost:8000/"] {
        owner.put(hook, json!({"url": url})).await.expect_field(400, "bad_url", "url");
    }
    server.stop_with_any_jobs().await;
}
