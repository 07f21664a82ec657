//! Everything that `POST /v1/send` refuses, in the contract's order, and that nothing of it is stored (contract 8.1).

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

fn good() -> Value {
    json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "Hi", "text": "It branches."})
}

/// A valid request with this change.
fn with(changes: &Value) -> Value {
    let mut body = good();
    for (key, value) in changes.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

async fn start() -> (Server, Api) {
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    (server, owner)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_has_its_error() {
    let (server, owner) = start().await;
    let many: Vec<String> = (0..51).map(|n| format!("a{n}@b.test")).collect();
    let headers: serde_json::Map<String, Value> = (0..51).map(|n| (format!("X-{n}"), json!("x"))).collect();
    let keys: serde_json::Map<String, Value> = (0..21).map(|n| (n.to_string(), json!(n))).collect();
    for (changes, code, field) in [
        (json!({"from": null}), "bad_address", "from"),
        (json!({"from": 5}), "bad_address", "from"),
        (json!({"from": "nobody"}), "bad_address", "from"),
        (json!({"from": "a@inbox.test, b@inbox.test"}), "bad_address", "from"),
        (json!({"from": "Acme <a\u{2066}b@inbox.test>"}), "bad_address", "from"),
        (json!({"from": "a\u{e0041}@inbox.test"}), "bad_address", "from"),
        (json!({"from": "A\r\nBcc: x@y.test <a@inbox.test>"}), "bad_header", "from"),
        (json!({"to": null}), "no_recipients", "to"),
        (json!({"to": []}), "no_recipients", "to"),
        (json!({"to": " "}), "no_recipients", "to"),
        (json!({"to": ["a@b.test", "nobody"]}), "bad_address", "to"),
        (json!({"to": {"a": 1}}), "bad_address", "to"),
        (json!({"to": "a@b.test\n"}), "bad_header", "to"),
        (json!({"to": many}), "too_many_recipients", "to"),
        (json!({"cc": many[..50]}), "too_many_recipients", "to"),
        (json!({"bcc": "x"}), "bad_address", "bcc"),
        (json!({"subject": null}), "missing_content", "subject"),
        (json!({"subject": ""}), "missing_content", "subject"),
        (json!({"subject": 5}), "bad_request", "subject"),
        (json!({"subject": "a\r\nBcc: x@y.test"}), "bad_header", "subject"),
        (json!({"subject": "x".repeat(999)}), "bad_request", "subject"),
        (json!({"text": null}), "missing_content", "text"),
        (json!({"text": " ", "html": ""}), "missing_content", "text"),
        (json!({"html": []}), "bad_request", "html"),
        (json!({"replyTo": "nobody"}), "bad_address", "replyTo"),
        (json!({"inReplyTo": "msg_0000000000000000"}), "bad_request", "inReplyTo"),
        (json!({"inReplyTo": "<a@b>\r\nX: y"}), "bad_header", "inReplyTo"),
        (json!({"headers": {"Bcc": "x@y.test"}}), "bad_header", "headers"),
        (json!({"headers": {"content-type": "text/html\nX: y"}}), "bad_header", "headers"),
        (json!({"headers": {"subject": "Hi"}}), "bad_header", "headers"),
        (json!({"headers": {"X-A": "a\nb"}}), "bad_header", "headers"),
        (json!({"headers": {"Authentication-Results": "mx.mailkite.test; dmarc=pass"}}), "bad_header", "headers"),
        (json!({"headers": {"ARC-Seal": "i=1"}}), "bad_header", "headers"),
        (json!({"headers": {"resent-from": "ceo@bank.test"}}), "bad_header", "headers"),
        (json!({"headers": {"Received-SPF": "pass"}}), "bad_header", "headers"),
        (json!({"headers": {"Sender": "ceo"}}), "bad_header", "headers"),
        (json!({"headers": {"X A": "a"}}), "bad_header", "headers"),
        (json!({"headers": {"X-A": {}}}), "bad_header", "headers"),
        (json!({"headers": {"X-A": ["1", "2"]}}), "bad_header", "headers"),
        (json!({"headers": {"X-A": [["1"]]}}), "bad_header", "headers"),
        (json!({"headers": {"X-A": "1", "x-a": "2"}}), "bad_header", "headers"),
        (json!({"headers": {"X-A": "x".repeat(4097)}}), "bad_header", "headers"),
        (json!({"headers": headers}), "bad_header", "headers"),
        (json!({"headers": ["X-A: 1"]}), "bad_header", "headers"),
        (json!({"templateData": {"a": []}}), "bad_template_data", "templateData"),
        (json!({"templateData": "x"}), "bad_template_data", "templateData"),
        (json!({"scheduledAt": "soon"}), "bad_schedule", "scheduledAt"),
        (json!({"scheduledAt": "1785196800"}), "bad_schedule", "scheduledAt"),
        (json!({"scheduledAt": "2026-12-30T10:00:00+25:00"}), "bad_schedule", "scheduledAt"),
        (json!({"scheduledAt": 1e300}), "bad_schedule", "scheduledAt"),
        (json!({"scheduledAt": "in 400 days"}), "bad_schedule", "scheduledAt"),
        (json!({"scheduledAt": true}), "bad_schedule", "scheduledAt"),
        (json!({"metadata": {"a": {}}}), "bad_metadata", "metadata"),
        (json!({"metadata": {"": 1}}), "bad_metadata", "metadata"),
        (json!({"metadata": {"a": "x".repeat(513)}}), "bad_metadata", "metadata"),
        (json!({"metadata": keys}), "bad_metadata", "metadata"),
        (json!({"trackOpens": "yes"}), "bad_request", "trackOpens"),
        (json!({"attachments": "x"}), "bad_attachment", "attachments"),
        (json!({"attachments": [{"content": "eA=="}]}), "bad_attachment", "attachments"),
        (json!({"attachments": [{"filename": "a"}]}), "bad_attachment", "attachments"),
        (
            json!({"attachments": [{"filename": "a", "content": "eA==", "url": "https://x.test"}]}),
            "bad_attachment",
            "attachments",
        ),
        (json!({"attachments": [{"filename": "a", "content": "?"}]}), "bad_attachment", "attachments"),
        (json!({"attachments": [{"filename": "a", "content": 5}]}), "bad_attachment", "attachments"),
        (json!({"attachments": [{"filename": "", "content": "eA=="}]}), "bad_attachment", "attachments"),
        (json!({"attachments": [{"filename": "a", "url": ""}]}), "bad_attachment", "attachments"),
        (json!({"attachments": [{"filename": "a\r\n", "content": "eA=="}]}), "bad_header", "attachments"),
        (
            json!({"attachments": [{"filename": "a", "content": "eA==", "contentType": "a/b\r\nX: y"}]}),
            "bad_header",
            "attachments",
        ),
        (json!({"attachments": [{"filename": "a", "url": "ftp://x.test/a"}]}), "bad_attachment", "attachments"),
        (
            json!({"attachments": [{"filename": "a", "url": "https://10.0.0.1/a"}]}),
            "attachment_fetch_failed",
            "attachments",
        ),
    ] {
        owner.post("/v1/send", with(&changes)).await.expect_field(400, code, field);
    }
    let large = "x".repeat(18 * 1024 * 1024);
    let two = json!([{"filename": "a", "content": large}, {"filename": "b", "content": large}]);
    let answer = owner.post("/v1/send", with(&json!({"attachments": two}))).await;
    assert!(matches!((answer.status, answer.code()), (400, "attachment_too_large") | (413, "body_too_large")));
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, 0);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM mail_data").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gates_stand_in_their_order() {
    let (server, owner) = start().await;
    // A bad field comes before every gate.
    server.write(|tx, _, _| Ok(tx.execute("UPDATE account SET email_verified = 0", [])?)).await;
    owner.post("/v1/send", with(&json!({"from": "a@other.test", "to": []}))).await.expect_error(400, "no_recipients");
    let no_url = json!({"from": "a@other.test", "attachments": [{"filename": "a", "url": "nonsense"}]});
    owner.post("/v1/send", with(&no_url)).await.expect_error(400, "bad_attachment");
    owner.post("/v1/send", with(&json!({"from": "a@other.test"}))).await.expect_error(403, "email_not_verified");
    server.write(|tx, _, _| Ok(tx.execute("UPDATE account SET email_verified = 1", [])?)).await;
    owner.post("/v1/send", with(&json!({"from": "a@other.test"}))).await.expect_error(404, "domain_not_owned");
    let missing = json!({"from": "a@pending.test", "templateId": "tpl_0000000000000000"});
    owner.post("/v1/send", with(&missing)).await.expect_error(403, "from_domain");
    let scoped = json!({"domainId": "pending.test", "name": "limited"});
    let scoped = owner.post("/api/keys/scoped", scoped).await.expect(201);
    let limited = owner.with(scoped["key"].as_str().unwrap());
    limited.post("/v1/send", good()).await.expect_error(403, "key_scope");
    limited.post("/v1/send", with(&json!({"from": "a@pending.test"}))).await.expect_error(403, "from_domain");
    owner.post("/api/contacts/suppressions", json!({"email": "ada@remote.test"})).await.expect(201);
    for id in ["tpl_0000000000000000", "base_nothing", "x"] {
        owner.post("/v1/send", with(&json!({"templateId": id}))).await.expect_error(404, "template_not_found");
    }
    owner.post("/v1/send", good()).await.expect_error(409, "recipient_suppressed");
    server.anonymous().post("/v1/send", good()).await.expect_error(401, "unauthorized");
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_come_from_the_request_from_a_url_and_from_this_server() {
    let receiver = Receiver::start(|_| Reply::status(200).header("content-type", "text/csv").body("a,b\r\n")).await;
    let (server, owner) = start().await;
    let upload = json!({"content": "eA==", "filename": "up.bin", "contentType": "application/x-up"});
    let upload = owner.post("/v1/attachments", upload).await.expect(201);
    let id = owner
        .post(
            "/v1/send",
            with(&json!({"attachments": [
                {"filename": "in.txt", "content": "eQ\r\n==\n", "contentType": "text/plain"},
                {"filename": "out.csv", "url": receiver.url()},
                {"filename": "own.bin", "url": upload["url"]},
            ]})),
        )
        .await
        .expect(202)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let shown = owner.get(&format!("/api/messages/{id}")).await.expect(200);
    let files: Vec<(&str, &str, i64)> = shown["attachments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (one["filename"].as_str().unwrap(), one["contentType"].as_str().unwrap(), one["size"].as_i64().unwrap())
        })
        .collect();
    assert_eq!(files, [("in.txt", "text/plain", 1), ("out.csv", "text/csv", 5), ("own.bin", "application/x-up", 1)]);
    let url = shown["attachments"][1]["url"].as_str().unwrap().strip_prefix("https://mail.mailkite.test").unwrap();
    assert_eq!(server.anonymous().get(url).await.body, b"a,b\r\n");
    assert_eq!(server.stop_with_any_jobs().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_belongs_to_its_conversation() {
    let (server, owner) = start().await;
    let first = server.accepted("a@inbox.test", "Question").await;
    let sent = |body: Value| {
        let owner = owner.clone();
        async move {
            let id = owner.post("/v1/send", body).await.expect(202)["id"].as_str().unwrap().to_owned();
            let raw = String::from_utf8(owner.get(&format!("/api/messages/{id}/raw")).await.body).unwrap();
            (owner.get(&format!("/api/messages/{id}")).await.expect(200)["message"].clone(), raw)
        }
    };
    let (message, raw) = sent(with(&json!({"inReplyTo": first}))).await;
    assert_eq!(message["thread_id"], "<Question@example.com>");
    assert!(raw.contains("In-Reply-To: <Question@example.com>\r\nReferences: <Question@example.com>\r\n"), "{raw}");
    let (message, raw) = sent(with(&json!({"inReplyTo": "x@y", "headers": {"References": "<a@b> <x@y>"}}))).await;
    assert_eq!(message["thread_id"], "<x@y>");
    assert!(raw.contains("In-Reply-To: <x@y>\r\n") && raw.contains("References: <a@b> <x@y>\r\n"), "{raw}");
    let (message, _) = sent(good()).await;
    assert_eq!(message["thread_id"], message["message_id_header"]);
    assert_eq!(server.stop_with_any_jobs().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_counts_once_in_the_first_field_that_names_it() {
    let (server, owner) = start().await;
    let body = with(&json!({"to": ["A@b.test", "Ada <a@B.test>"], "cc": "a@b.test, c@d.test", "bcc": ["C@d.test"]}));
    let id = owner.post("/v1/send", body).await.expect(202)["id"].as_str().unwrap().to_owned();
    let shown = owner.get(&format!("/api/messages/{id}")).await.expect(200);
    assert_eq!(shown["message"]["to_addr"], "A@b.test, c@d.test");
    let recipients: Vec<&Value> = shown["recipients"].as_array().unwrap().iter().map(|row| &row["address"]).collect();
    assert_eq!(recipients, ["A@b.test", "c@d.test"]);
    let raw = String::from_utf8(owner.get(&format!("/api/messages/{id}/raw")).await.body).unwrap();
    assert!(raw.contains("\r\nTo: <A@b.test>\r\nCc: <c@d.test>\r\n"), "{raw}");
    assert_eq!(server.stop_with_any_jobs().await, 2, "one for each recipient");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_field_is_of_a_domain_that_the_account_may_send_from() {
    let (server, owner) = start().await;
    let send = |sender: &str| {
        let headers = json!({"sender": sender});
        json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "x", "text": "y", "headers": headers})
    };
    for foreign in ["ceo@bank.test", "Desk <ceo@pending.test>", "ceo@[192.0.2.1]", "desk@sub.inbox.test"] {
        let mut shared = send(foreign);
        owner.post("/v1/send", shared.clone()).await.expect_field(400, "bad_header", "headers");
        shared["recipients"] = json!([{"to": "ada@remote.test"}]);
        owner.post("/v1/send/batch", shared.clone()).await.expect_field(400, "bad_header", "headers");
        let headers = shared["headers"].take();
        shared["headers"] = json!({});
        shared["recipients"] = json!([{"to": "ada@remote.test", "headers": headers}]);
        let batch = owner.post("/v1/send/batch", shared).await.expect(200);
        assert_eq!(batch["results"][0]["code"], "bad_header", "{foreign}");
    }
    let sent = owner.post("/v1/send", send("\"Desk, Grüße\" <desk@inbox.test>")).await.expect(202);
    let raw = owner.get(&format!("/api/messages/{}/raw", sent["id"].as_str().unwrap())).await.body;
    let text = String::from_utf8(raw).unwrap();
    assert_eq!(text.matches("\r\nSender: =?utf-8?").count(), 1, "{text}");
    assert!(text.contains("<desk@inbox.test>\r\n"), "{text}");
    server.stop_with_any_jobs().await;
}
