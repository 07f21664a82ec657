//! Accounts over HTTP (contract 2): signing up and in, sessions, passwords, keys, the proof of an address.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::config::{Config, Signup};
use mailkite::testing::store::accounts::notices::PURPOSE as NOTICE_PURPOSE;
use ring::hmac;
use serde_json::{Value, json};

use crate::support::api::{Answer, Api};
use crate::support::server::Server;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const PASSWORD: &str = "correct horse battery";

fn clock() -> Clock {
    Clock::manual(NOW)
}

/// A server without an account, whose sign-up is `signup`; reached under a name of the internet's.
async fn unowned(signup: Signup) -> Server {
    Server::start_unowned(clock(), |config| config.auth.signup = signup).await
}

/// A server that has an owner and lets anybody sign up.
async fn open() -> Server {
    Server::start_with(clock(), |config| config.auth.signup = Signup::Open).await
}

fn locally(config: &mut Config) {
    config.public_url = "http://127.0.0.1:8080".to_owned();
}

async fn sign_up(api: &Api, email: &str) -> Answer {
    api.post("/api/auth/signup", json!({"email": email, "password": PASSWORD})).await
}

async fn log_in(api: &Api, email: &str, password: &str) -> Answer {
    api.post("/api/auth/login", json!({"email": email, "password": password})).await
}

/// A new account, signed in.
async fn member(server: &Server, email: &str) -> Api {
    let signed_up = sign_up(&server.anonymous(), email).await.expect(201);
    server.anonymous().with(text(&signed_up["token"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The token of the newest verification link that waits to be mailed.
async fn mailed_token(server: &Server) -> String {
    let sealed: Vec<u8> = server.query("SELECT text_sealed FROM notice ORDER BY id DESC LIMIT 1").await;
    let mail = server.secrets.open_text(NOTICE_PURPOSE, &sealed).unwrap();
    let (_, rest) = mail.split_once("https://mail.mailkite.test/api/auth/verify?token=").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

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
