//! Logging in over HTTP (contract 2): throttling, session tokens, passwords.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use super::{MINUTE, NOW, PASSWORD, claims, log_in, member, open, sign_up, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_login_says_nothing_of_who_has_an_account() {
    let server = open().await;
    let api = server.anonymous();
    let made = sign_up(&api, "ada@acme.dev").await.expect(201);
    let good = log_in(&api, "  Ada@ACME.dev ", PASSWORD).await.expect(200);
    assert_eq!(good["user"], made["user"]);
    assert_ne!(good["token"], made["token"]);
    let long = "x".repeat(5000);
    let mut bodies = Vec::new();
    // A wrong password, no account, an account without a password, what can be no password or address.
    for (email, password) in [
        ("ada@acme.dev", "correct horse batterY"),
        ("ada@acme.dev", ""),
        ("ada@acme.dev", &long),
        ("nobody@acme.dev", PASSWORD),
        ("owner@inbox.invalid", ""),
        ("owner@inbox.invalid", PASSWORD),
        ("", PASSWORD),
        ("' OR 1=1 --", PASSWORD),
    ] {
        let refused = log_in(&api, email, password).await;
        refused.expect_error(401, "bad_login");
        assert_eq!(refused.json["error"], "invalid email or password");
        let mut names: Vec<String> = refused.headers.keys().cloned().collect();
        names.sort();
        bodies.push((refused.body, names));
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    for (body, field) in [
        (json!({}), "email"),
        (json!({"email": "ada@acme.dev"}), "password"),
        (json!({"email": null, "password": PASSWORD}), "email"),
        (json!({"email": ["ada@acme.dev"], "password": PASSWORD}), "email"),
        (json!({"email": "ada@acme.dev", "password": {"$ne": ""}}), "password"),
    ] {
        api.post("/api/auth/login", body).await.expect_field(400, "bad_request", field);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_passwords_close_a_pair_for_a_quarter_of_an_hour() {
    let server = open().await;
    let api = server.anonymous();
    sign_up(&api, "ada@acme.dev").await.expect(201);
    sign_up(&api, "bob@acme.dev").await.expect(201);
    for _ in 0..2 {
        for _ in 0..4 {
            log_in(&api, "ada@acme.dev", "wrong").await.expect_error(401, "bad_login");
        }
        log_in(&api, "ada@acme.dev", PASSWORD).await.expect(200);
    }
    for spelling in ["ada@acme.dev", "ADA@acme.dev", " ada@acme.dev", "ada@acme.dev", "ada@acme.dev"] {
        log_in(&api, spelling, "wrong").await.expect_error(401, "bad_login");
    }
    let closed = log_in(&api, "ada@acme.dev", PASSWORD).await;
    closed.expect_error(429, "rate_limited");
    assert_eq!(closed.headers["retry-after"], "900");
    log_in(&api, "bob@acme.dev", PASSWORD).await.expect(200);
    server.clock.advance(15 * MINUTE - Duration::from_secs(1));
    let closed = log_in(&api, "Ada@acme.dev", PASSWORD).await;
    closed.expect_error(429, "rate_limited");
    assert_eq!(closed.headers["retry-after"], "1");
    server.clock.advance(Duration::from_secs(1));
    log_in(&api, "ada@acme.dev", PASSWORD).await.expect(200);

    // Guesses made at the same time are not more.
    let guesses = (0..12).map(|_| log_in(&api, "bob@acme.dev", "wrong"));
    let statuses = futures_util::future::join_all(guesses).await;
    assert_eq!(statuses.iter().filter(|answer| answer.status == 401).count(), 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn right_passwords_at_the_same_time_are_no_failures() {
    let server = open().await;
    let api = server.anonymous();
    sign_up(&api, "ada@acme.dev").await.expect(201);
    log_in(&api, "ada@acme.dev", "wrong").await.expect_error(401, "bad_login");
    for answer in futures_util::future::join_all((0..12).map(|_| log_in(&api, "ada@acme.dev", PASSWORD))).await {
        answer.expect(200);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_failures_close_an_address() {
    let server = open().await;
    let api = server.anonymous();
    sign_up(&api, "ada@acme.dev").await.expect(201);
    let guesses = (0..60).map(|n| {
        let (api, email) = (api.clone(), format!("nobody{n}@acme.dev"));
        async move { log_in(&api, &email, "wrong").await.status }
    });
    let statuses = futures_util::future::join_all(guesses).await;
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 50, "{statuses:?}");
    log_in(&api, "ada@acme.dev", PASSWORD).await.expect_error(429, "rate_limited");
    server.clock.advance(15 * MINUTE);
    log_in(&api, "ada@acme.dev", PASSWORD).await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_token_is_a_jwt_that_names_a_live_session() {
    let server = open().await;
    let signed_up = sign_up(&server.anonymous(), "ada@acme.dev").await.expect(201);
    let token = text(&signed_up["token"]);
    let header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!(header, json!({"typ": "JWT", "alg": "HS256"}));
    let said = claims(&token);
    assert_eq!(said["sub"], signed_up["user"]["id"]);
    assert_eq!((said["iat"].as_i64(), said["exp"].as_i64()), (Some(NOW.as_secs()), Some(NOW.as_secs() + 604_800)));
    assert!(said["jti"].as_str().is_some_and(|jti| jti.len() >= 16));
    assert_eq!(said.as_object().unwrap().len(), 4);

    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = |header: Value, claims: &Value, key: &[u8]| {
        let text = format!("{}.{}", part(&header), part(claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let hs256 = || json!({"typ": "JWT", "alg": "HS256"});
    let key = server.secrets.session_key();
    let with = |name: &str, value: Value| {
        let mut claims = said.clone();
        claims[name] = value;
        claims
    };
    let bob = sign_up(&server.anonymous(), "bob@acme.dev").await.expect(201);
    let (head, tag) = token.rsplit_once('.').unwrap();
    let (first, _) = head.split_once('.').unwrap();
    for (what, forged) in [
        ("another key", signed(hs256(), &said, &[0; 32])),
        ("an empty key", signed(hs256(), &said, b"")),
        ("alg none", format!("{}.{}.", part(&json!({"typ": "JWT", "alg": "none"})), part(&said))),
        ("alg none with a tag", format!("{}.{}.{tag}", part(&json!({"alg": "none"})), part(&said))),
        ("HS512 in the header", signed(json!({"alg": "HS512"}), &said, &key)),
        ("no tag", format!("{head}.")),
        ("longer", format!("{first}.{}.{tag}", part(&with("exp", json!(NOW.as_secs() + 9_999_999))))),
        ("another session", signed(hs256(), &with("jti", json!("0".repeat(22))), &key)),
        ("somebody else", signed(hs256(), &with("sub", bob["user"]["id"].clone()), &key)),
        ("over", signed(hs256(), &with("exp", json!(NOW.as_secs())), &key)),
    ] {
        let refused = server.anonymous().with(forged).get("/v1/me").await;
        assert_eq!((refused.status, refused.code()), (401, "session_expired"), "{what}");
    }
    for garbage in ["x", "a.b", "....", "mk", "Bearer"] {
        server.anonymous().with(garbage).get("/v1/me").await.expect_error(401, "unauthorized");
    }
    let session = server.anonymous().with(&token);
    server.clock.advance(Duration::from_millis(604_799_999));
    session.get("/v1/me").await.expect(200);
    server.clock.advance(Duration::from_millis(1));
    session.get("/v1/me").await.expect_error(401, "session_expired");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_ends_this_session_alone() {
    let server = open().await;
    let first = member(&server, "ada@acme.dev").await;
    let second = server.anonymous().with(text(&log_in(&first, "ada@acme.dev", PASSWORD).await.expect(200)["token"]));
    assert_eq!(first.post_nothing("/api/auth/logout").await.expect(200), json!({"ok": true}));
    first.get("/v1/me").await.expect_error(401, "session_expired");
    first.post_nothing("/api/auth/logout").await.expect_error(401, "session_expired");
    second.get("/v1/me").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_ends_every_earlier_session_and_no_key() {
    let server = open().await;
    let first = member(&server, "ada@acme.dev").await;
    let key = first.with(text(&first.get("/api/keys").await.expect(200)["key"]));
    let second = first.with(text(&log_in(&first, "ada@acme.dev", PASSWORD).await.expect(200)["token"]));
    let bob = member(&server, "bob@acme.dev").await;
    const NEW: &str = "staple battery horse";
    let change = |current: Value, new: Value| json!({"currentPassword": current, "newPassword": new});
    let path = "/api/auth/password";
    first.post(path, change(json!("wrong"), json!(NEW))).await.expect_error(403, "wrong_password");
    for weak in [json!("short"), json!(null), json!(5), json!("ADA@acme.dev"), json!("x".repeat(1025))] {
        first.post(path, change(json!(PASSWORD), weak)).await.expect_field(400, "weak_password", "newPassword");
    }
    first.post(path, change(json!(null), json!(NEW))).await.expect_field(400, "bad_request", "currentPassword");
    first.post(path, change(json!(7), json!(NEW))).await.expect_field(400, "bad_request", "currentPassword");
    first.get("/v1/me").await.expect(200);
    key.post(path, change(json!(PASSWORD), json!(NEW))).await.expect_error(403, "session_required");

    let changed = first.post(path, change(json!(PASSWORD), json!(NEW))).await.expect(200);
    assert_eq!((&changed["ok"], changed.as_object().unwrap().len()), (&json!(true), 2));
    for ended in [&first, &second] {
        ended.get("/v1/me").await.expect_error(401, "session_expired");
    }
    let third = first.with(text(&changed["token"]));
    for alive in [&third, &key, &bob] {
        alive.get("/v1/me").await.expect(200);
    }
    log_in(&bob, "ada@acme.dev", PASSWORD).await.expect_error(401, "bad_login");
    log_in(&bob, "ada@acme.dev", NEW).await.expect(200);

    // Guessing the present password is a login's guessing.
    for _ in 0..5 {
        third.post(path, change(json!("wrong"), json!(PASSWORD))).await.expect_error(403, "wrong_password");
    }
    third.post(path, change(json!(NEW), json!(PASSWORD))).await.expect_error(429, "rate_limited");
    log_in(&bob, "ada@acme.dev", NEW).await.expect_error(429, "rate_limited");
    server.clock.advance(15 * MINUTE);
    third.post(path, change(json!(NEW), json!(PASSWORD))).await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_a_password_sets_its_first_one() {
    let server = open().await;
    let ada = member(&server, "ada@acme.dev").await;
    server.write(|tx, _, _| Ok(tx.execute("UPDATE account SET password_hash = NULL", [])?)).await;
    log_in(&ada, "ada@acme.dev", PASSWORD).await.expect_error(401, "bad_login");
    ada.post("/api/auth/password", json!({"newPassword": PASSWORD})).await.expect(200);
    log_in(&ada, "ada@acme.dev", PASSWORD).await.expect(200);
    server.stop().await;
}
