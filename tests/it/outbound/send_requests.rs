//! Send requests that are scheduled, repeated or made in a batch.

use std::time::Duration;

use mailkite::testing::clock::Clock;
use serde_json::{Value, json};

use super::sending::{NOW, hello};
use crate::support::remote_host::RemoteHost;
use crate::support::sending_server::SendingServer;

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
async fn a_batch_repeated_meanwhile_sends_once() {
    let mut setup = SendingServer::start(Clock::System, RemoteHost::start().await).await;
    // So many that the transaction takes longer than a look-up of its answer.
    let recipients: Vec<Value> = (0..50).map(|n| json!({"to": format!("a{n}@remote.test")})).collect();
    let body = json!({"from": "hi@inbox.test", "subject": "Hi", "text": "Hello", "recipients": recipients});
    let body = body.to_string();
    let key = [("idempotency-key", "newsletter-3")];
    let request = || setup.owner.send("POST", "/v1/send/batch", &key, Some(body.as_bytes()));
    let answers = futures_util::future::join_all((0..8).map(|_| request())).await;
    let replayed = answers.iter().filter(|answer| answer.header("idempotent-replayed") == Some("true")).count();
    assert_eq!(replayed, 7, "one is carried out, and the others wait for it");
    for answer in &answers {
        assert_eq!((answer.status, &answer.json), (200, &answers[0].json));
    }
    assert_eq!(answers[0].json["sent"], 50);
    for _ in 0..50 {
        setup.remote.next_mail().await;
    }
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
    let outcomes: Vec<(&str, &str, &str)> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["to"].as_str().unwrap(), one["status"].as_str().unwrap(), one["code"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        outcomes,
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
