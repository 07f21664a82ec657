//! Lists of addresses: whom nothing is sent to, whose mail calls no webhook (contract 8.4).

use mailkite::clock::{Clock, Timestamp};
use serde_json::json;

use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

#[tokio::test(flavor = "multi_thread")]
async fn suppressions_are_added_replaced_listed_and_removed() {
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    let added = owner.post("/api/contacts/suppressions", json!({"email": " X@Example.com "})).await.expect(201);
    let row = json!({"email": "x@example.com", "reason": "manual", "note": null, "created_at": NOW.as_millis()});
    assert_eq!(added, json!({"ok": true, "suppression": row}));
    for n in 0..4 {
        let body = json!({"email": format!("a{n}@example.com"), "reason": "unsubscribe"});
        owner.post("/api/contacts/suppressions", body).await.expect(201);
    }
    server.clock.advance(std::time::Duration::from_secs(1));
    let again = json!({"email": "x@example.com", "reason": "whatever", "note": "asked by mail"});
    let again = owner.post("/api/contacts/suppressions", again).await.expect(200);
    assert_eq!(
        (&again["suppression"]["reason"], &again["suppression"]["note"]),
        (&json!("manual"), &json!("asked by mail"))
    );
    let mut seen = Vec::new();
    let mut before = String::new();
    loop {
        let page = owner.get(&format!("/api/contacts/suppressions?limit=2{before}")).await.expect(200);
        let rows = page["suppressions"].as_array().unwrap();
        if rows.is_empty() {
            break;
        }
        before = format!("&before={}", rows.last().unwrap()["created_at"]);
        seen.extend(rows.iter().map(|row| row["email"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen, ["x@example.com", "a3@example.com", "a2@example.com", "a1@example.com", "a0@example.com"]);
    for _ in 0..2 {
        let gone = owner.delete("/api/contacts/suppressions/X%40example.com").await.expect(200);
        assert_eq!(gone, json!({"ok": true}));
    }
    assert_eq!(
        owner.get("/api/contacts/suppressions").await.expect(200)["suppressions"].as_array().unwrap().len(),
        4
    );
    owner.post("/api/contacts/suppressions", json!({"email": "x@bücher.example"})).await.expect(201);
    owner.delete("/api/contacts/suppressions/x%40b%C3%BCcher.example").await.expect(200);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM suppression").await, 4, "in either spelling");
    for (body, code) in [
        (json!({}), "bad_address"),
        (json!({"email": "nobody"}), "bad_address"),
        (json!({"email": 5}), "bad_address"),
        (json!({"email": "a@b.test", "note": "x".repeat(501)}), "bad_request"),
    ] {
        owner.post("/api/contacts/suppressions", body).await.expect_error(400, code);
    }
    owner.get("/api/contacts/suppressions?limit=x").await.expect_error(400, "bad_query");
    owner.get("/api/contacts/somebody").await.expect_error(404, "not_supported");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_a_blocked_sender_calls_no_webhook_until_it_is_unblocked() {
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let mut server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    server.webhook(&receiver.url()).await;
    let owner = server.owner().await;
    let row = json!({"email": "ada@example.com", "created_at": NOW.as_millis()});
    assert_eq!(owner.post("/api/blocked-senders", json!({"email": "Ada@example.com"})).await.expect(201), row);
    assert_eq!(owner.post("/api/blocked-senders", json!({"email": "ada@example.com"})).await.expect(200), row);
    assert_eq!(owner.get("/api/blocked-senders").await.expect(200), json!([row]));
    owner.post("/api/blocked-senders", json!({"email": ""})).await.expect_error(400, "bad_address");
    let blocked = server.accepted("a@inbox.test", "Blocked").await;
    let shown = owner.get(&format!("/api/messages/{blocked}")).await.expect(200);
    assert_eq!((&shown["message"]["spam"], &shown["deliveries"]), (&json!("spam"), &json!([])));
    for _ in 0..2 {
        owner.delete("/api/blocked-senders/ada%40example.com").await.expect(200);
    }
    let heard = server.accepted("a@inbox.test", "Heard").await;
    assert_eq!(receiver.next_request().await.json()["id"], json!(heard));
    assert_eq!(server.attempted().await.status, "delivered");
    server.stop().await;
}
