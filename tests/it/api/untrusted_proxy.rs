//! A reverse proxy on this machine that `http.trusted_proxies` does not name (contract 1.12): it is not trusted, and no
//! client behind it can lock out the others.

use std::path::Path;

use mailkite::testing::clock::Clock;
use mailkite::testing::config::Signup;
use serde_json::json;

use crate::support::api::{Answer, Api};
use crate::support::serve_process::ServeProcess;
use crate::support::server::Server;

const NOW: mailkite::testing::clock::Timestamp = mailkite::testing::clock::Timestamp::from_millis(1_785_196_800_000);
const PASSWORD: &str = "correct horse battery";

async fn open() -> (Server, Api) {
    let server = Server::start_with(Clock::manual(NOW), |config| config.auth.signup = Signup::Open).await;
    let api = server.anonymous();
    api.post("/api/auth/signup", json!({"email": "ada@acme.test", "password": PASSWORD})).await.expect(201);
    (server, api)
}

async fn log_in(api: &Api, field: (&str, &str), email: &str, password: &str) -> Answer {
    let body = json!({"email": email, "password": password}).to_string();
    let headers = [field, ("Content-Type", "application/json")];
    api.send("POST", "/api/auth/login", &headers, Some(body.as_bytes())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_behind_it_shuts_out_only_itself() {
    let (server, api) = open().await;
    for field in ["X-Forwarded-For", "X-Real-IP", "Forwarded"] {
        let element =
            |address: &str| if field == "Forwarded" { format!("for={address}") } else { address.to_owned() };
        let (stranger, owner) = (element("198.51.100.66"), element("203.0.113.9"));
        for guess in 0..50 {
            let email = format!("nobody{guess}@example.com");
            log_in(&api, (field, &stranger), &email, "wrong password").await.expect_error(401, "bad_login");
        }
        let refused = log_in(&api, (field, &stranger), "nobody@example.com", "wrong password").await;
        refused.expect_error(429, "rate_limited");
        log_in(&api, (field, &owner), "ada@acme.test", PASSWORD).await.expect(200);
        server.clock.advance(std::time::Duration::from_secs(900));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_can_choose_the_claimed_address_has_no_more_guesses_for_it() {
    let (server, api) = open().await;
    let guess = async |number: usize, email: &str| {
        log_in(&api, ("X-Forwarded-For", &format!("198.51.100.{number}")), email, "wrong password").await
    };
    for number in 0..20 {
        guess(number, "ada@acme.test").await.expect_error(401, "bad_login");
    }
    guess(20, "ada@acme.test").await.expect_error(429, "rate_limited");
    guess(21, "bob@acme.test").await.expect_error(401, "bad_login");
    // Who comes without the proxy is another, and nobody's claim.
    api.post("/api/auth/login", json!({"email": "ada@acme.test", "password": PASSWORD})).await.expect(200);

    let sign_up = async |number: usize, body: serde_json::Value| {
        let claim = format!("2001:db8:0:{number:x}::1");
        let headers = [("X-Forwarded-For", claim.as_str()), ("Content-Type", "application/json")];
        api.send("POST", "/api/auth/signup", &headers, Some(body.to_string().as_bytes())).await
    };
    for number in 0..100 {
        sign_up(number / 10, json!({})).await.expect_error(400, "bad_address");
    }
    sign_up(100, json!({})).await.expect_error(429, "rate_limited");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_can_choose_the_claimed_address_has_no_endless_guesses_either() {
    let (server, api) = open().await;
    let guess = async |number: usize| {
        let claim = format!("198.51.{}.{}", 100 + number / 200, number % 200);
        let email = format!("nobody{number}@example.com");
        log_in(&api, ("X-Forwarded-For", &claim), &email, "wrong password").await
    };
    for number in 0..250 {
        guess(number).await.expect_error(401, "bad_login");
    }
    guess(250).await.expect_error(429, "rate_limited");
    guess(251).await.expect_error(429, "rate_limited");
    // Nobody's claim is another client; and a claim that says so is of the proxy still.
    api.post("/api/auth/login", json!({"email": "ada@acme.test", "password": PASSWORD})).await.expect(200);
    let own = log_in(&api, ("X-Forwarded-For", "127.0.0.1"), "ada@acme.test", PASSWORD).await;
    own.expect_error(429, "rate_limited");
    server.clock.advance(std::time::Duration::from_secs(900));
    log_in(&api, ("X-Forwarded-For", "203.0.113.9"), "ada@acme.test", PASSWORD).await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_claims_is_believed_in_nothing_else() {
    let (server, api) = open().await;
    let signed_in = log_in(&api, ("X-Forwarded-For", "203.0.113.9"), "ada@acme.test", PASSWORD).await.expect(200);
    let ada = api.with(signed_in["token"].as_str().unwrap());
    let sessions = ada.get("/api/auth/sessions").await.expect(200);
    let addresses: Vec<&str> =
        sessions["sessions"].as_array().unwrap().iter().map(|one| one["ip"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["127.0.0.1", "127.0.0.1"]);
    // Failing credentials count by the proxy: valid ones still work.
    let bad = api.with("mk_live_0000000000000000000000000000000000000000");
    for number in 0..61 {
        let answer = bad.send("GET", "/v1/me", &[("X-Forwarded-For", &format!("198.51.100.{number}"))], None).await;
        assert_eq!(answer.status, if number < 60 { 401 } else { 429 });
    }
    ada.get("/v1/me").await.expect(200);
    server.stop().await;
}

/// Makes requests through the proxy and stops the server; returns the warnings about proxies.
async fn warnings(folder: &Path, sections: &str, fields: &[&[(&str, &str)]]) -> Vec<String> {
    let served = ServeProcess::start_with(folder, sections).await;
    let api = Api::anonymous(served.http);
    for headers in fields {
        api.exchange("GET", "/api/health", headers, None).await;
    }
    served.signal(rustix::process::Signal::TERM);
    let (mut child, log) = served.into_child_and_log();
    child.wait().await.unwrap();
    let log = log.lock().unwrap();
    log.iter().filter(|line| line.contains("http.trusted_proxies")).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_warns_of_it_once_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let forwarded: &[&[(&str, &str)]] = &[
        &[],
        &[("X-Forwarded-For", "203.0.113.9")],
        &[("X-Forwarded-For", "203.0.113.10"), ("X-Forwarded-Proto", "https")],
        &[("Forwarded", "for=203.0.113.9")],
        &[("X-Real-IP", "203.0.113.9")],
    ];
    let said = warnings(folder.path(), "", forwarded).await;
    assert_eq!(said.len(), 1, "{said:?}");
    let line: serde_json::Value = serde_json::from_str(&said[0]).unwrap();
    assert_eq!((&line["level"], &line["peer"]), (&json!("WARN"), &json!("127.0.0.1")), "{line}");
    assert!(!said[0].contains("203.0.113"), "no client's address: {line}");
    for field in &forwarded[2..] {
        assert_eq!(warnings(folder.path(), "", &[field]).await.len(), 1, "{field:?}");
    }
    assert_eq!(warnings(folder.path(), "", &[&[]]).await, Vec::<String>::new());
    let trusted = "[http]\nlisten = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    assert_eq!(warnings(folder.path(), trusted, forwarded).await, Vec::<String>::new());
}
