//! Signing up over HTTP (contract 2): the first owner, open sign-up, limits, dev mode.

use std::time::Duration;

use mailkite::testing::config::{Config, Signup};
use serde_json::{Value, json};

use crate::support::server::Server;

use super::{HOUR, PASSWORD, clock, locally, log_in, open, sign_up, text, unowned};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_account_proves_itself_by_the_setup_token_and_owns_the_server() {
    let server = unowned(Signup::First).await;
    let api = server.anonymous();
    let token = server.accounts.setup_token().await.unwrap().unwrap();
    assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()));
    assert_eq!(server.accounts.setup_token().await.unwrap().as_ref(), Some(&token), "it stays until it is spent");

    let ask =
        |setup_token: Value| json!({"email": " Ada@Acme.DEV ", "password": PASSWORD, "setupToken": setup_token});
    for wrong in
        [json!(null), json!(""), json!("0".repeat(32)), json!(token.to_uppercase()), json!(format!("{token} "))]
    {
        api.post("/api/auth/signup", ask(wrong)).await.expect_error(403, "setup_token");
    }
    sign_up(&api, "ada@acme.dev").await.expect_error(403, "setup_token");
    assert_eq!(server.query::<i64>("SELECT count(*) FROM account").await, 0);

    let signed_up = api.post("/api/auth/signup", ask(json!(token))).await.expect(201);
    let id = text(&signed_up["user"]["id"]);
    let user = json!({"id": id, "email": "ada@acme.dev", "isAdmin": true, "emailVerified": true, "avatarUrl": null});
    assert_eq!(signed_up["user"], user);
    assert!(id.starts_with("usr_") && id.len() == 20, "{id}");
    assert_eq!(server.query::<i64>("SELECT count(*) FROM notice").await, 0, "the owner has nothing to prove");
    assert_eq!(server.accounts.setup_token().await.unwrap(), None, "it is spent");
    assert_eq!(server.query::<i64>("SELECT count(*) FROM setup_token").await, 0);

    for email in ["bob@acme.dev", "ada@acme.dev"] {
        let again = json!({"email": email, "password": PASSWORD, "setupToken": token});
        api.post("/api/auth/signup", again).await.expect_error(403, "signup_closed");
    }
    let session = api.with(text(&signed_up["token"]));
    assert_eq!(session.get("/v1/me").await.expect(200)["isAdmin"], true);
    let key = text(&session.get("/api/keys").await.expect(200)["key"]);
    assert!(key.starts_with("mk_live_") && key.len() == 48, "{key}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_ups_at_the_same_time_make_one_owner() {
    let server = unowned(Signup::First).await;
    let token = server.accounts.setup_token().await.unwrap().unwrap();
    let api = server.anonymous();
    let all = (0..6).map(|n| {
        let (api, body) =
            (api.clone(), json!({"email": format!("a{n}@acme.dev"), "password": PASSWORD, "setupToken": token}));
        async move { api.post("/api/auth/signup", body).await.status }
    });
    let mut statuses = futures_util::future::join_all(all).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 403, 403, 403, 403, 403]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_is_a_proof_without_any_sign_of_somebody_else() {
    let server = Server::start_unowned(clock(), locally).await;
    let api = server.anonymous();
    let body = json!({"email": "ada@acme.dev", "password": PASSWORD}).to_string();
    let port = server.http.port();
    for spoiled in [
        ("Origin", "http://127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Anything", ""),
        ("X-Real-IP", "127.0.0.1"),
        ("Via", "1.1 here"),
        ("Host", "mx.mailkite.test"),
    ] {
        // Each from an address of its own would be kinder to the limit of sign-ups.
        server.clock.advance(HOUR);
        let refused = api.send("POST", "/api/auth/signup", &[spoiled], Some(body.as_bytes())).await;
        refused.expect_error(403, "setup_token");
    }
    // What is not even an own name, or no origin of one, is refused before that.
    for (name, value, code) in [
        ("Origin", "null", "foreign_origin"),
        ("Host", "mail.acme.dev", "foreign_host"),
        ("Host", "localhost.acme.dev", "foreign_host"),
        ("Host", "127.0.0.1.acme.dev:80", "foreign_host"),
        ("Host", "localhost:80x", "foreign_host"),
        ("Host", "user@localhost", "foreign_host"),
    ] {
        let refused = api.send("POST", "/api/auth/signup", &[(name, value)], Some(body.as_bytes())).await;
        refused.expect_error(403, code);
    }
    server.clock.advance(HOUR);
    let host = format!("LocalHost:{port}");
    let made = api.send("POST", "/api/auth/signup", &[("Host", &host)], Some(body.as_bytes())).await.expect(201);
    assert_eq!((&made["user"]["isAdmin"], &made["user"]["emailVerified"]), (&json!(true), &json!(true)));
    assert_eq!(server.accounts.setup_token().await.unwrap(), None);
    server.stop().await;

    // Behind a public URL plain loopback may be a proxy on this machine.
    let server = unowned(Signup::First).await;
    let refused =
        server.anonymous().send("POST", "/api/auth/signup", &[("Host", &host)], Some(body.as_bytes())).await;
    refused.expect_error(403, "setup_token");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_one_account_however_many_ask() {
    let server = open().await;
    let api = server.anonymous();
    // RFC 5321 §4.1.2: quotes that nothing needs say nothing.
    let spellings =
        ["ada@acme.dev", "ADA@acme.dev", " ada@ACME.dev", "Ada@Acme.Dev", "\"ada\"@acme.dev", "\"A\\da\"@acme.dev"];
    let answers = futures_util::future::join_all(spellings.map(|email| sign_up(&api, email))).await;
    let mut codes: Vec<(u16, &str)> = answers.iter().map(|answer| (answer.status, answer.code())).collect();
    codes.sort_unstable();
    let exists = (409, "account_exists");
    assert_eq!(codes, [(201, ""), exists, exists, exists, exists, exists]);
    for email in spellings {
        assert_eq!(log_in(&api, email, PASSWORD).await.expect(200)["user"]["email"], "ada@acme.dev", "{email}");
    }
    assert_eq!(server.query::<i64>("SELECT count(*) FROM account").await, 2);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM api_key").await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_server_has_members_and_its_owner_is_who_proves_it() {
    let server = unowned(Signup::Open).await;
    let api = server.anonymous();
    let token = server.accounts.setup_token().await.unwrap().unwrap();
    let ada = sign_up(&api, "ada@acme.dev").await.expect(201);
    assert_eq!((&ada["user"]["isAdmin"], &ada["user"]["emailVerified"]), (&json!(false), &json!(false)));
    for same in ["ada@acme.dev", "  ADA@acme.DEV\t"] {
        sign_up(&api, same).await.expect_error(409, "account_exists");
    }
    // A wrong token is no proof, and no proof is needed.
    let bob = json!({"email": "bob@acme.dev", "password": PASSWORD, "setupToken": "wrong", "isAdmin": true,
        "emailVerified": true, "is_admin": 1, "id": "usr_0000000000000000", "account_id": 1});
    let bob = api.post("/api/auth/signup", bob).await.expect(201);
    assert_eq!((&bob["user"]["isAdmin"], &bob["user"]["emailVerified"]), (&json!(false), &json!(false)));
    assert_ne!(bob["user"]["id"], "usr_0000000000000000");
    assert!(server.accounts.setup_token().await.unwrap().is_some(), "not spent");

    let owner = |email: &str| json!({"email": email, "password": PASSWORD, "setupToken": token});
    let cleo = api.post("/api/auth/signup", owner("cleo@acme.dev")).await.expect(201);
    assert_eq!((&cleo["user"]["isAdmin"], &cleo["user"]["emailVerified"]), (&json!(true), &json!(true)));
    let dan = api.post("/api/auth/signup", owner("dan@acme.dev")).await.expect(201);
    assert_eq!((&dan["user"]["isAdmin"], &dan["user"]["emailVerified"]), (&json!(false), &json!(false)));
    assert_eq!(server.query::<i64>("SELECT count(*) FROM account WHERE is_admin = 1").await, 1);
    server.stop().await;

    let server = unowned(Signup::Closed).await;
    let token = server.accounts.setup_token().await.unwrap().unwrap();
    let body = json!({"email": "ada@acme.dev", "password": PASSWORD, "setupToken": token});
    server.anonymous().post("/api/auth/signup", body).await.expect_error(403, "signup_closed");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_addresses_and_weak_passwords_are_refused_before_anything_else() {
    let server = unowned(Signup::Closed).await;
    let api = server.anonymous();
    let refused = async |body: Value, code: &str, field: &str| {
        server.clock.advance(HOUR / 5);
        api.post("/api/auth/signup", body).await.expect_field(400, code, field);
    };
    let long = format!("{}@{}.dev", "a".repeat(64), "b.".repeat(100));
    for email in [
        json!(null),
        json!(5),
        json!(["ada@acme.dev"]),
        json!(""),
        json!("ada"),
        json!("@acme.dev"),
        json!("ada@"),
        json!("ada@acme.dev, bob@acme.dev"),
        json!("Ada <ada@acme.dev>"),
        json!("ada@acme.dev\r\nBcc: bob@acme.dev"),
        json!("ada\u{0}@acme.dev"),
        json!("ada\u{202e}@acme.dev"),
        json!("a\u{200b}da@acme.dev"),
        json!("\"a\u{ad}da\"@acme.dev"),
        json!("ada@[192.0.2.1]"),
        json!("a b@acme.dev"),
        json!(long),
    ] {
        refused(json!({"email": email, "password": PASSWORD}), "bad_address", "email").await;
    }
    for password in [
        json!(null),
        json!(1_234_567_890_123_i64),
        json!(""),
        json!("ninechars"),
        json!("\u{e9}".repeat(9)),
        json!("x".repeat(1025)),
        json!("Ada.Lovelace@ACME.dev"),
        json!("ADA.lovelace"),
    ] {
        let body = json!({"email": " ada.lovelace@acme.dev ", "password": password});
        refused(body, "weak_password", "password").await;
    }
    refused(json!({"email": "x", "password": "x"}), "bad_address", "email").await;
    refused(json!({"email": "ada@acme.dev", "password": PASSWORD, "setupToken": 5}), "bad_request", "setupToken")
        .await;
    server.clock.advance(HOUR);
    for password in ["\u{e9}".repeat(10), "x".repeat(1024)] {
        let body = json!({"email": "ada@acme.dev", "password": password});
        api.post("/api/auth/signup", body).await.expect_error(403, "signup_closed");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_may_ask_for_ten_accounts_an_hour() {
    let server = unowned(Signup::Closed).await;
    let api = server.anonymous();
    for _ in 0..10 {
        api.post_nothing("/api/auth/signup").await.expect_error(400, "bad_address");
    }
    let refused = sign_up(&api, "ada@acme.dev").await;
    refused.expect_error(429, "rate_limited");
    assert_eq!(refused.headers["retry-after"], "3600");
    server.clock.advance(HOUR - Duration::from_millis(1));
    sign_up(&api, "ada@acme.dev").await.expect_error(429, "rate_limited");
    server.clock.advance(Duration::from_millis(1));
    sign_up(&api, "ada@acme.dev").await.expect_error(403, "signup_closed");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_dev_mode_every_account_is_verified() {
    let adjust = |config: &mut Config| {
        config.auth.signup = Signup::Open;
        config.dev = true;
    };
    let server = Server::start_with(clock(), adjust).await;
    let made = sign_up(&server.anonymous(), "ada@acme.dev").await.expect(201);
    assert_eq!((&made["user"]["isAdmin"], &made["user"]["emailVerified"]), (&json!(false), &json!(true)));
    assert_eq!(server.query::<i64>("SELECT count(*) FROM notice").await, 0);
    server.stop().await;
}
