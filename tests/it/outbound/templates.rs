//! Templates: kept, changed, built in, filled and sent (contract 11).

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::server::Server;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);
const BASE: [&str; 5] =
    ["base_welcome", "base_verify_email", "base_password_reset", "base_receipt", "base_notification"];

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_made_shown_changed_and_removed() {
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    assert_eq!(owner.get("/api/templates").await.expect(200), json!([]));
    let made = owner
        .post(
            "/api/templates",
            json!({"name": "Welcome", "subject": "Hi {{name}}", "html": "<b>{{name}}</b>", "json": "{}"}),
        )
        .await
        .expect(201);
    let id = made["id"].as_str().unwrap();
    let me = owner.get("/v1/me").await.expect(200)["id"].clone();
    assert_eq!(
        made,
        json!({"id": id, "name": "Welcome", "category": null, "subject": "Hi {{name}}", "is_base": false,
            "updated_at": NOW.as_millis(), "html": "<b>{{name}}</b>", "text": null, "json": "{}", "theme": null,
            "user_id": me, "created_at": NOW.as_millis()})
    );
    let path = format!("/api/templates/{id}");
    assert_eq!(owner.get(&path).await.expect(200), made);
    let copy = json!({"baseId": id, "text": "Hi", "category": "only a change sets it"});
    let copy = owner.post("/api/templates", copy).await.expect(201);
    assert_eq!(copy["category"], Value::Null);
    assert_eq!((&copy["name"], &copy["html"], &copy["text"]), (&made["name"], &made["html"], &json!("Hi")));
    let list = owner.get("/api/templates").await.expect(200);
    assert_eq!((&list[0]["id"], &list[1]["id"]), (&copy["id"], &made["id"]), "newest first");
    assert_eq!(list[0].get("html"), None);
    server.clock.advance(std::time::Duration::from_secs(1));
    let changed = owner.put(&path, json!({"name": "Hello", "category": "x", "theme": "dark"})).await.expect(200);
    assert_eq!(
        (&changed["name"], &changed["subject"], &changed["category"]),
        (&json!("Hello"), &made["subject"], &json!("x"))
    );
    assert_eq!(changed["updated_at"], json!(NOW.as_millis() + 1000));
    assert_eq!(owner.delete(&path).await.expect(200), json!({"ok": true}));
    owner.get(&path).await.expect_error(404, "not_found");
    owner.delete(&path).await.expect_error(404, "not_found");
    for (body, code, field) in [
        (json!({}), "bad_request", "name"),
        (json!({"name": " "}), "bad_request", "name"),
        (json!({"name": "x".repeat(201)}), "bad_request", "name"),
        (json!({"name": "x", "subject": "s".repeat(999)}), "bad_request", "subject"),
    ] {
        owner.post("/api/templates", body).await.expect_field(400, code, field);
    }
    for missing in ["tpl_0000000000000000", "base_nothing"] {
        owner.post("/api/templates", json!({"baseId": missing})).await.expect_error(404, "template_not_found");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_are_built_in_and_stay_as_they_are() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let list = owner.get("/api/templates/base").await.expect(200);
    let ids: Vec<&str> = list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, BASE);
    for id in BASE {
        let path = format!("/api/templates/{id}");
        let full = owner.get(&path).await.expect(200);
        assert_eq!((&full["is_base"], &full["user_id"]), (&json!(true), &Value::Null));
        assert!(full["html"].as_str().unwrap().contains("{{") && full["text"].as_str().unwrap().contains("{{"));
        owner.put(&path, json!({"name": "x"})).await.expect_error(404, "not_found");
        owner.delete(&path).await.expect_error(404, "not_found");
    }
    let own = owner.post("/api/templates", json!({"baseId": "base_receipt"})).await.expect(201);
    assert_eq!((&own["name"], &own["is_base"]), (&json!("Receipt"), &json!(false)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_filled_and_given_values_win() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let template =
        json!({"name": "t", "subject": "Hi {{name}}", "html": "<b>{{name}}</b>", "text": "{{name}}: {{n}}"});
    let id = owner.post("/api/templates", template).await.expect(201)["id"].clone();
    let send = |mut body: Value| {
        let owner = owner.clone();
        body["from"] = json!("hi@inbox.test");
        body["to"] = json!("ada@remote.test");
        async move {
            let id = owner.post("/v1/send", body).await.expect(202)["id"].as_str().unwrap().to_owned();
            owner.get(&format!("/api/messages/{id}")).await.expect(200)["message"].clone()
        }
    };
    let data = json!({"name": "<Ada>", "n": 2});
    let sent = send(json!({"templateId": id, "templateData": data})).await;
    assert_eq!(
        (&sent["subject"], &sent["html_body"], &sent["text_body"]),
        (&json!("Hi <Ada>"), &json!("<b>&lt;Ada&gt;</b>"), &json!("<Ada>: 2"))
    );
    let sent = send(json!({"templateId": id, "subject": "Own {{name}}", "templateData": data})).await;
    assert_eq!(sent["subject"], "Own <Ada>");
    let sent = send(json!({"templateId": id})).await;
    assert_eq!((&sent["subject"], &sent["text_body"]), (&json!("Hi "), &json!(": ")), "missing is empty");
    let sent = send(json!({"subject": "{{x}}", "text": "{{name}}"})).await;
    assert_eq!(
        (&sent["subject"], &sent["text_body"]),
        (&json!("{{x}}"), &json!("{{name}}")),
        "verbatim without either"
    );
    let empty = owner.post("/api/templates", json!({"name": "empty"})).await.expect(201)["id"].clone();
    let body = json!({"from": "hi@inbox.test", "to": "a@b.test", "templateId": empty});
    owner.post("/v1/send", body).await.expect_error(400, "missing_content");
    assert_eq!(server.stop_with_any_jobs().await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_goes_to_one_mailbox_from_the_oldest_sending_domain() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let sent = owner.post("/api/templates/test", json!({"to": "ada@remote.test", "html": "<b>{{name}}</b>"})).await;
    let id = sent.expect(202)["id"].as_str().unwrap().to_owned();
    let message = owner.get(&format!("/api/messages/{id}")).await.expect(200)["message"].clone();
    assert_eq!(
        (&message["from_addr"], &message["html_body"]),
        (&json!("preview@inbox.test"), &json!("<b>{{name}}</b>"))
    );
    for (body, status, code) in [
        (json!({"html": "x"}), 400, "bad_address"),
        (json!({"to": "a@b.test, c@d.test", "html": "x"}), 400, "bad_address"),
        (json!({"to": "a@b.test"}), 400, "missing_content"),
        (json!({"to": "a@b.test", "text": "x", "from": "a@other.test"}), 404, "domain_not_owned"),
        (json!({"to": "a@b.test", "text": "x", "from": "a@pending.test"}), 403, "from_domain"),
    ] {
        owner.post("/api/templates/test", body).await.expect_error(status, code);
    }
    server.write(|tx, _, _| Ok(tx.execute("UPDATE domain SET dkim_verified = 0", [])?)).await;
    let body = json!({"to": "a@b.test", "text": "x"});
    owner.post("/api/templates/test", body).await.expect_error(409, "domain_not_verified");
    owner.post("/api/templates/test", json!({"text": "x"})).await.expect_error(400, "bad_address");
    assert_eq!(server.stop_with_any_jobs().await, 1);
}
