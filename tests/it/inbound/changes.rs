//! Changes of domains, routes and blocked senders through the API count for the next mail: none is routed by a state
//! that was in memory before.

use serde_json::{Value, json};

use crate::support::server::{Server, message};
use crate::support::smtp::SmtpClient;

/// Sends a mail to `a@inbox.test`; returns the URLs that it is posted to, and its status.
async fn routed(server: &Server, subject: &str) -> (u16, String) {
    let code = server.mail("a@inbox.test", &message(subject)).await.code;
    let urls = "SELECT coalesce(group_concat(url, ' '), '') FROM (
                  SELECT url FROM delivery WHERE message_id = (SELECT max(id) FROM message) ORDER BY url)";
    (code, server.query::<String>(urls).await)
}

/// The code of the reply to a recipient.
async fn rcpt(server: &Server, to: &str) -> u16 {
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    client.expect("MAIL FROM:<ada@example.com>", 250).await;
    client.command(&format!("RCPT TO:<{to}>")).await.code
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_counts_for_the_next_mail() {
    const HOOK: &str = "/api/domains/inbox.test/webhook";
    let (first, second, third) =
        ("https://one.example/hook", "https://two.example/hook", "https://three.example/hook");
    let server = Server::start().await;
    let owner = server.owner().await;
    let taken = |urls: &[&str]| (250, urls.join(" "));
    assert_eq!(routed(&server, "none").await, taken(&[]));

    let made = owner.post("/api/routes", json!({"match": "a@inbox.test", "destination": first})).await.expect(201);
    let path = format!("/api/routes/{}", made["id"].as_str().unwrap());
    assert_eq!(routed(&server, "made").await, taken(&[first]));
    owner.patch(&path, json!({"destination": second})).await.expect(200);
    assert_eq!(routed(&server, "elsewhere").await, taken(&[second]));
    owner.patch(&path, json!({"active": false})).await.expect(200);
    assert_eq!(routed(&server, "paused").await, taken(&[]));
    owner.patch(&path, json!({"active": true, "match": "b@inbox.test"})).await.expect(200);
    assert_eq!(routed(&server, "other").await, taken(&[]));
    owner.patch(&path, json!({"match": "*@inbox.test"})).await.expect(200);
    assert_eq!(routed(&server, "matched").await, taken(&[second]));

    owner.put(HOOK, json!({"url": third})).await.expect(200);
    assert_eq!(routed(&server, "webhook").await, taken(&[third, second]));
    owner.post("/api/blocked-senders", json!({"email": "ada@example.com"})).await.expect(201);
    assert_eq!(routed(&server, "blocked").await, taken(&[]));
    owner.delete("/api/blocked-senders/ada%40example.com").await.expect(200);
    assert_eq!(routed(&server, "unblocked").await, taken(&[third, second]));
    owner.delete(HOOK).await.expect(200);
    assert_eq!(routed(&server, "no webhook").await, taken(&[second]));
    owner.delete(&path).await.expect(200);
    assert_eq!(routed(&server, "no route").await, taken(&[]));

    let stored = "SELECT count(*) FROM message";
    let before = server.query::<i64>(stored).await;
    owner.put("/api/domains/inbox.test/retention", json!({"zeroRetention": true})).await.expect(200);
    assert_eq!(routed(&server, "zero retention").await.0, 250);
    assert_eq!(server.query::<i64>(stored).await, before);
    owner.delete("/api/domains/inbox.test").await.expect(200);
    assert_eq!(rcpt(&server, "a@inbox.test").await, 550);
    assert_eq!(rcpt(&server, "a@later.test").await, 550, "and this is known from now on");
    server.add_domain("later.test").await;
    assert_eq!(rcpt(&server, "a@later.test").await, 250);
    let routes: Value = owner.get("/api/routes").await.expect(200);
    assert_eq!(routes, json!([]));
    server.stop_with_any_jobs().await;
}
