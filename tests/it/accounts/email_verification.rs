//! Proof of an e-mail address by a mailed link (contract 2): its lifetime and its limits.

use std::time::Duration;

use mailkite::testing::config::Signup;
use serde_json::json;

use crate::support::server::Server;

use super::{HOUR, PASSWORD, clock, mailed_token, member, open, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_mailed_link_proves_the_address_for_a_day() {
    let server = open().await;
    let ada = member(&server, "ada@acme.dev").await;
    let is_verified = async || ada.get("/v1/me").await.expect(200)["emailVerified"].as_bool().unwrap();
    let token = mailed_token(&server).await;
    let link = format!("/api/auth/verify?token={token}");
    let api = server.anonymous();
    for wrong in ["", "?token=", "?token=x", "?other=1", &format!("?token={}", token.to_lowercase()), "?token=%FF%00"]
    {
        for method in ["GET", "POST"] {
            let page = api.exchange(method, &format!("/api/auth/verify{wrong}"), &[], None).await;
            assert_eq!(
                (page.status, page.headers["content-type"].as_str()),
                (400, "text/html; charset=utf-8"),
                "{method} {wrong}"
            );
            assert!(page.headers["content-security-policy"].contains("default-src 'none'"));
            assert_eq!(page.headers["referrer-policy"], "no-referrer");
        }
    }
    // Programs that scan mail open links, more than once, and read what is there.
    for method in ["GET", "HEAD", "GET", "OPTIONS"] {
        api.exchange(method, &link, &[], None).await;
        assert!(!is_verified().await, "{method}");
    }
    let page = api.get(&link).await;
    assert_eq!((page.status, page.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.headers["content-security-policy"].contains("form-action 'self'"));
    assert_eq!(page.headers["referrer-policy"], "same-origin");
    let html = String::from_utf8(page.body).unwrap();
    assert!(html.contains("<form method=\"post\">") && html.contains("ada@acme.dev"), "{html}");
    assert!(!html.contains("<script"), "it needs none");
    let confirmed = api.exchange("POST", &link, &[("Content-Type", "application/x-www-form-urlencoded")], Some(b""));
    let confirmed = confirmed.await;
    assert_eq!((confirmed.status, confirmed.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    assert!(is_verified().await);
    let sent = ada.post_nothing("/api/auth/verify/send").await.expect(200);
    assert_eq!(sent, json!({"status": "verified"}));
    server.clock.advance(24 * HOUR - Duration::from_millis(1));
    assert_eq!((api.get(&link).await.status, api.post_nothing(&link).await.status), (200, 200), "a repeat");
    server.clock.advance(Duration::from_millis(1));
    assert_eq!(api.exchange("GET", &link, &[], None).await.status, 400);
    assert_eq!(api.exchange("POST", &link, &[], None).await.status, 400);
    assert!(is_verified().await, "what is proven stays so");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_can_be_asked_for_five_times_an_hour() {
    let server = open().await;
    let ada = member(&server, "ada@acme.dev").await;
    let key = ada.with(text(&ada.get("/api/keys").await.expect(200)["key"]));
    let mut tokens = vec![mailed_token(&server).await];
    for _ in 0..5 {
        let sent = key.post_nothing("/api/auth/verify/send").await.expect(200);
        assert_eq!(sent, json!({"status": "sent"}));
        tokens.push(mailed_token(&server).await);
    }
    ada.post_nothing("/api/auth/verify/send").await.expect_error(429, "rate_limited");
    let bob = member(&server, "bob@acme.dev").await;
    bob.post_nothing("/api/auth/verify/send").await.expect(200);
    server.clock.advance(HOUR);
    ada.post_nothing("/api/auth/verify/send").await.expect(200);
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 6);
    assert!(tokens.iter().all(|token| token.len() == 43));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_gets_few_proofs_of_addresses_whoever_asks_from_wherever() {
    let server = Server::start_with(clock(), |config| {
        config.auth.signup = Signup::Open;
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let api = server.anonymous();
    let mailed = async || -> i64 { server.query("SELECT count(*) FROM notice WHERE recipient LIKE 'vic%'").await };
    let sign_up = async |number: usize, email: &str| {
        let from = format!("192.0.2.{number}");
        let body = json!({"email": email, "password": PASSWORD}).to_string();
        let headers = [("X-Forwarded-For", from.as_str()), ("X-Forwarded-Proto", "https")];
        let made = api.send("POST", "/api/auth/signup", &headers, Some(body.as_bytes())).await.expect(201);
        assert_eq!(made["user"]["emailVerified"], false);
        server.anonymous().with(text(&made["token"]))
    };
    let mut last = None;
    for number in 0..12 {
        let email =
            if number % 2 == 0 { format!("Vic+{number}@third.test") } else { format!("\"vic+{number}\"@THIRD.test") };
        last = Some(sign_up(number, &email).await);
        assert_eq!(mailed().await, (number as i64 + 1).min(6), "{email}");
    }
    // Nobody is told, or they would learn that others asked for the same mailbox.
    let sent = last.unwrap().post_nothing("/api/auth/verify/send").await.expect(200);
    assert_eq!((sent, mailed().await), (json!({"status": "sent"}), 6));
    sign_up(50, "other@third.test").await;
    assert_eq!(server.query::<i64>("SELECT count(*) FROM notice").await, 7, "another mailbox is another's");
    for hour in 1..4 {
        server.clock.advance(HOUR);
        for number in 0..8 {
            sign_up(60 + number, &format!("vic+{hour}.{number}@third.test")).await;
        }
    }
    assert_eq!(mailed().await, 12, "twelve a day");
    server.stop_with_any_jobs().await;
}
