//! Suppressed recipients and blocked senders (contract 8.4).

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::json;

use crate::support::forwarding_server::{ForwardingServer, forward, route};
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
    assert_eq!(owner.post("/api/blocked-senders", json!({"email": "\"A\\da\"@EXAMPLE.com"})).await.expect(200), row);
    owner.post("/api/blocked-senders", json!({"email": ""})).await.expect_error(400, "bad_address");
    let blocked = server.accepted("a@inbox.test", "Blocked").await;
    let shown = owner.get(&format!("/api/messages/{blocked}")).await.expect(200);
    assert_eq!((&shown["message"]["spam"], &shown["deliveries"]), (&json!("spam"), &json!([])));
    for spelled in ["%22ada%22%40example.com", "ada%40example.com"] {
        owner.delete(&format!("/api/blocked-senders/{spelled}")).await.expect(200);
        assert_eq!(owner.get("/api/blocked-senders").await.expect(200), json!([]));
    }
    let heard = server.accepted("a@inbox.test", "Heard").await;
    assert_eq!(receiver.next_request().await.json()["id"], json!(heard));
    assert_eq!(server.next_attempt().await.status, "delivered");
    server.stop().await;
}

/// One address, and how else it may be spelled.
const SPELLINGS: [&str; 5] = [
    "victim@bücher.test",
    "Victim@XN--BCHER-KVA.Test",
    "\"victim\"@bücher.test",
    "\"v\\ictim\"@bücher.test",
    "\"VIC\\tim\"@BÜCHER.test",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_suppressed_address_is_suppressed_however_it_is_spelled() {
    let mut setup = ForwardingServer::start_with(Clock::manual(NOW), |_| {}).await;
    setup.dns.mx("xn--bcher-kva.test", 10, "mx.remote.test");
    let owner = setup.owner.clone();
    let made = forward(&owner, "*@inbox.test", "boss@remote.test").await;
    let path = format!("/api/routes/{}", made["id"].as_str().unwrap());
    let send = |to: &str| json!({"from": "hi@inbox.test", "to": to, "subject": "x", "text": "y"});
    for (number, kept) in SPELLINGS.into_iter().enumerate() {
        let row = owner.post("/api/contacts/suppressions", json!({"email": kept})).await.expect(201);
        assert_eq!(row["suppression"]["email"], "victim@xn--bcher-kva.test");
        for to in SPELLINGS {
            owner.post("/v1/send", send(to)).await.expect_error(409, "recipient_suppressed");
            let shared = json!({"from": "hi@inbox.test", "recipients": [{"to": to}], "subject": "x", "text": "y"});
            let batch = owner.post("/v1/send/batch", shared).await.expect(200);
            assert_eq!(batch["results"][0]["code"], "recipient_suppressed", "{to}");
            owner.patch(&path, json!({"destination": to})).await.expect(200);
            setup.server.accepted("a@inbox.test", &format!("{number} {to}")).await;
            assert_eq!(route(&owner).await["last_status"], "suppressed", "{to}");
        }
        let other = SPELLINGS[(number + 1) % SPELLINGS.len()]
            .replace('"', "%22")
            .replace('\\', "%5C")
            .replace(['ü', 'Ü'], "%C3%BC");
        owner.delete(&format!("/api/contacts/suppressions/{other}")).await.expect(200);
        let list = owner.get("/api/contacts/suppressions").await.expect(200);
        assert_eq!(list["suppressions"], json!([]), "{other}");
    }
    // What waits is looked at again, and two spellings are one recipient.
    let mut later = send(SPELLINGS[3]);
    later["scheduledAt"] = json!("in 1 minute");
    owner.post("/v1/send", later).await.expect(202);
    owner.post("/api/contacts/suppressions", json!({"email": SPELLINGS[1]})).await.expect(201);
    setup.server.clock.advance(std::time::Duration::from_secs(61));
    setup.server.until("SELECT status FROM message WHERE direction = 'outbound'", "failed".to_owned()).await;
    owner.delete("/api/contacts/suppressions/victim@b%C3%BCcher.test").await.expect(200);
    owner.post("/v1/send", send(&SPELLINGS.join(", "))).await.expect(202);
    setup.remote.next_mail().await;
    setup.until_idle().await;
    assert!(setup.remote.is_drained(), "one message to one recipient");
    setup.server.stop().await;
}
