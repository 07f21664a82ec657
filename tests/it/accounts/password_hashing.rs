//! The queue for password hashing: one turn per address, and a refusal at once when it is full (contract 1.12).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mailkite::testing::clock::Clock;
use serde_json::{Value, json};

use crate::support::api::{Answer, Api};
use crate::support::server::Server;

/// Starts a server with the account ada@acme.test that trusts the addresses of a proxy.
async fn open() -> (Server, Api) {
    let server = Server::start_with(Clock::System, |config| {
        config.auth.signup = mailkite::testing::config::Signup::Open;
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let api = server.anonymous();
    let body: Value = json!({"email": "ada@acme.test", "password": "correct horse battery"});
    api.post("/api/auth/signup", body).await.expect(201);
    (server, api)
}

async fn log_in(api: &Api, from: &str, email: &str) -> Answer {
    let body = json!({"email": email, "password": "correct horse battery"}).to_string();
    let headers = [("X-Forwarded-For", from), ("Content-Type", "application/json")];
    api.exchange("POST", "/api/auth/login", &headers, Some(body.as_bytes())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_addresses_shut_out_nobody_who_was_here_before() {
    const ADDRESSES: usize = 150;
    let (server, api) = open().await;
    log_in(&api, "203.0.113.7", "ada@acme.test").await.expect(200);

    let refused = Arc::new(AtomicUsize::new(0));
    let mut attack = Vec::new();
    for address in 0..ADDRESSES {
        let (api, refused) = (api.clone(), Arc::clone(&refused));
        attack.push(tokio::spawn(async move {
            let answer = log_in(&api, &format!("198.51.100.{address}"), "ada@acme.test").await;
            refused.fetch_add(usize::from(answer.status == 429), Ordering::SeqCst);
        }));
    }
    while refused.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    log_in(&api, "203.0.113.7", "ada@acme.test").await.expect(200);
    for one in attack {
        one.await.unwrap();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_waits_for_one_turn_of_each_other_address_and_not_for_their_piles() {
    const ADDRESSES: usize = 12;
    const EACH: usize = 10;
    let (server, api) = open().await;

    let judged = Arc::new(AtomicUsize::new(0));
    let refused = Arc::new(AtomicUsize::new(0));
    let mut attack = Vec::new();
    for address in 0..ADDRESSES {
        for guess in 0..EACH {
            let (api, judged, refused) = (api.clone(), Arc::clone(&judged), Arc::clone(&refused));
            attack.push(tokio::spawn(async move {
                let from = format!("198.51.100.{address}");
                let answer = log_in(&api, &from, &format!("guess{guess}@acme.test")).await;
                match (answer.status, answer.code()) {
                    (401, "bad_login") => judged.fetch_add(1, Ordering::SeqCst),
                    (429, "rate_limited") => {
                        assert!(answer.header("retry-after").is_some());
                        refused.fetch_add(1, Ordering::SeqCst)
                    }
                    other => panic!("{other:?}"),
                };
            }));
        }
    }
    while refused.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let before = judged.load(Ordering::SeqCst);
    log_in(&api, "203.0.113.7", "ada@acme.test").await.expect(200);
    let meanwhile = judged.load(Ordering::SeqCst) - before;
    // One of each address at most, two that ran, and what was answered while the answer was on its way.
    assert!(meanwhile <= ADDRESSES * 2 + 4, "{meanwhile} others had their turn first");
    for one in attack {
        one.await.unwrap();
    }
    let (judged, refused) = (judged.load(Ordering::SeqCst), refused.load(Ordering::SeqCst));
    assert_eq!(judged + refused, ADDRESSES * EACH);
    assert!(refused > 0 && judged > 0, "{judged} were looked at, {refused} were not");
    server.stop().await;
}
