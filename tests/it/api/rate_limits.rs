//! Rate limits of credentials and of failed ones (contract 1.12).

use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::json;

use super::conventions::assert_conventions;
use crate::support::api::Api;
use crate::support::server::Server;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn each_credential_has_a_bucket_that_fills_again() {
    let clock = Clock::manual(NOW);
    let server = Server::start_with(clock, |config| config.http.rate_limit = 5).await;
    let owner = server.owner().await;
    let made = owner.post("/api/keys/scoped", json!({"domainId": "inbox.test", "name": "n"})).await.expect(201);
    let scoped = owner.with(made["key"].as_str().unwrap());
    for _ in 0..9 {
        owner.get("/v1/me").await.expect(200);
    }
    let refused = owner.get("/v1/me").await;
    refused.expect_error(429, "rate_limited");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_conventions("429", &refused);
    // The limit stands before the body and the class of the credential.
    owner.send("POST", "/api/keys/scoped", &[], Some(b"{")).await.expect_error(429, "rate_limited");
    owner.post_nothing("/api/auth/logout").await.expect_error(429, "rate_limited");
    owner.get("/api/nothing").await.expect_error(404, "not_found");
    scoped.get("/v1/me").await.expect(200);
    server.anonymous().get("/api/health").await.expect(200);
    server.clock.advance(SECOND);
    for _ in 0..5 {
        owner.get("/v1/me").await.expect(200);
    }
    owner.get("/v1/me").await.expect_error(429, "rate_limited");
    server.stop().await;

    let server = Server::start_with(Clock::manual(NOW), |config| config.http.rate_limit = 0).await;
    let owner = server.owner().await;
    for _ in 0..250 {
        assert_eq!(owner.exchange("GET", "/v1/me", &[], None).await.status, 200);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_failed_credentials_a_minute_are_enough_and_valid_ones_still_work() {
    let server = Server::start_with(Clock::manual(NOW), |config| {
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let owner = server.owner().await;
    let from =
        async |api: &Api, address: &str| api.exchange("GET", "/v1/me", &[("X-Forwarded-For", address)], None).await;
    let wrong = owner.with("mk_live_wrong");
    for n in 0..60 {
        // What a client claims to the left of what the proxy saw changes nothing.
        let claimed = format!("192.0.2.{n}, 203.0.113.5");
        from(&wrong, &claimed).await.expect_error(401, "bad_key");
    }
    for failing in [&wrong, &server.anonymous(), &owner.with("a.b.c")] {
        from(failing, "203.0.113.5").await.expect_error(429, "rate_limited");
    }
    from(&owner, "203.0.113.5").await.expect(200);
    from(&wrong, "203.0.113.6").await.expect_error(401, "bad_key");
    from(&wrong, "203.0.113.5, 127.0.0.1").await.expect_error(429, "rate_limited");
    from(&wrong, "203.0.113.5:8080").await.expect_error(429, "rate_limited");
    server.clock.advance(60 * SECOND);
    from(&wrong, "203.0.113.5").await.expect_error(401, "bad_key");

    for n in 0..60 {
        from(&wrong, &format!("2001:db8::{n:x}")).await.expect_error(401, "bad_key");
    }
    from(&wrong, "2001:db8::ffff:1").await.expect_error(429, "rate_limited");
    from(&wrong, "2001:db8:0:1::1").await.expect_error(401, "bad_key");
    server.stop().await;

    // Nobody trusts this proxy: whatever it says, it is the client.
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let wrong = server.anonymous().with("mk_live_wrong");
    for n in 0..60 {
        from(&wrong, &format!("192.0.2.{n}")).await.expect_error(401, "bad_key");
    }
    from(&wrong, "192.0.2.99").await.expect_error(429, "rate_limited");
    server.stop().await;
}
