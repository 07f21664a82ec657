//! Signing in with Google over HTTP (contract 2.4): which account it is, who may have one, what can go wrong.

use mailkite::testing::id::RowId;
use std::sync::{Arc, Mutex};

use mailkite::testing::clock::Clock;
use mailkite::testing::config::{Config, Signup};
use serde_json::{Value, json};

use crate::support::api::{Answer, Api};
use crate::support::google::{NOW, OTHER_KEY, SIGNING_KEY, claims, header, key_set, rs256, settings, token_reply};
use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::server::Server;

const PATH: &str = "/api/auth/google";
const PICTURE: &str = "https://lh3.googleusercontent.com/a/ada=s96-c";

/// The next answer of the token endpoint.
type Next = Arc<Mutex<Reply>>;

/// Starts the stand-in for Google; returns it with the settings of a server.
async fn google() -> (Receiver, Next) {
    let next: Next = Arc::new(Mutex::new(Reply::status(500)));
    let said = Arc::clone(&next);
    let script = move |request: &Received| match request.path.as_str() {
        "/token" => said.lock().unwrap().clone(),
        _ => key_set(&["one"]),
    };
    (Receiver::start(script).await, next)
}

fn with(receiver: &Receiver, signup: Signup) -> impl FnOnce(&mut Config) {
    let google = settings(receiver);
    move |config| {
        config.auth.signup = signup;
        config.auth.google = google;
    }
}

/// Signs in with the Google subject `subject` and the address `email`.
async fn sign_in(api: &Api, next: &Next, subject: &str, email: &str, extra: Value) -> Answer {
    let mut said = claims();
    said["sub"] = json!(subject);
    said["email"] = json!(email);
    *next.lock().unwrap() = token_reply(&rs256(SIGNING_KEY, &header(), &said));
    let mut body = json!({"code": "4/code"});
    body.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    api.post(PATH, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_account_may_come_from_google_with_the_setup_token() {
    let (receiver, next) = google().await;
    let server = Server::start_unowned(Clock::manual(NOW), with(&receiver, Signup::First)).await;
    let api = server.anonymous();
    let token = server.accounts.setup_token().await.unwrap().unwrap();
    for wrong in [json!({}), json!({"setupToken": null}), json!({"setupToken": "0".repeat(32)})] {
        sign_in(&api, &next, "1", "ada@acme.dev", wrong).await.expect_error(403, "setup_token");
    }
    let made = sign_in(&api, &next, "1", "Ada@Acme.dev", json!({ "setupToken": token })).await.expect(200);
    let id = made["user"]["id"].clone();
    let user =
        json!({"id": id, "email": "ada@acme.dev", "isAdmin": true, "emailVerified": true, "avatarUrl": PICTURE});
    assert_eq!(made["user"], user);
    assert_eq!(server.accounts.setup_token().await.unwrap(), None);
    let session = api.with(made["token"].as_str().unwrap());
    assert_eq!(session.get("/v1/me").await.expect(200)["id"], id);
    session.get("/api/keys").await.expect(200);

    // Known by the subject, whatever the address is now.
    let again = sign_in(&api, &next, "1", "lovelace@acme.dev", json!({})).await.expect(200);
    assert_eq!((&again["user"]["id"], &again["user"]["email"]), (&id, &json!("ada@acme.dev")));
    sign_in(&api, &next, "2", "bob@acme.dev", json!({})).await.expect_error(403, "signup_closed");
    // No password opens it.
    let login = json!({"email": "ada@acme.dev", "password": ""});
    api.post("/api/auth/login", login).await.expect_error(401, "bad_login");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_proves_an_address_gets_the_account_without_what_was_set_up_before() {
    let (receiver, next) = google().await;
    let server = Server::start_with(Clock::manual(NOW), with(&receiver, Signup::Open)).await;
    let api = server.anonymous();
    let login = json!({"email": "ada@acme.dev", "password": "correct horse battery"});
    let made = api.post("/api/auth/signup", login.clone()).await.expect(201);
    let squatter = api.with(made["token"].as_str().unwrap());
    let second = api.post("/api/auth/login", login.clone()).await.expect(200);
    let key = api.with(squatter.get("/api/keys").await.expect(200)["key"].as_str().unwrap());
    let secret = squatter.get("/api/webhooks/secret").await.expect(200)["secret"].clone();
    let account: i64 = server.query("SELECT max(id) FROM account").await;
    server
        .write(move |tx, _, now| {
            mailkite::testing::bootstrap::verified_domain(tx, RowId::new(account), "acme.dev", now)
        })
        .await;
    let scoped = json!({"domainId": "acme.dev", "name": "blog"});
    let scoped = squatter.post("/api/keys/scoped", scoped).await.expect(201);
    let scoped = api.with(scoped["key"].as_str().unwrap());
    for (matching, action, destination) in [
        ("/.*/", "webhook", json!("https://squatter.example/in")),
        ("*@acme.dev", "webhook", json!("https://squatter.example/in")),
        ("ada@acme.dev", "drop", json!(null)),
    ] {
        let route = json!({"match": matching, "action": action, "destination": destination});
        squatter.post("/api/routes", route).await.expect(201);
    }
    let tracking = json!({"url": "https://squatter.example/sent"});
    squatter.put("/api/domains/acme.dev/tracking-webhook", tracking).await.expect(200);
    squatter.put("/api/domains/acme.dev/retention", json!({"zeroRetention": true})).await.expect(200);

    let signed_in = sign_in(&api, &next, "1", "ada@acme.dev", json!({})).await.expect(200);
    assert_eq!(signed_in["user"]["id"], made["user"]["id"]);
    assert_eq!(signed_in["user"]["emailVerified"], true);
    squatter.get("/v1/me").await.expect_error(401, "session_expired");
    api.with(second["token"].as_str().unwrap()).get("/v1/me").await.expect_error(401, "session_expired");
    key.get("/v1/me").await.expect_error(401, "bad_key");
    scoped.get("/v1/me").await.expect_error(401, "bad_key");
    api.post("/api/auth/login", login).await.expect_error(401, "bad_login");
    let ada = api.with(signed_in["token"].as_str().unwrap());
    assert_ne!(ada.get("/api/webhooks/secret").await.expect(200)["secret"], secret);
    assert!(ada.get("/api/keys").await.expect(200)["key"].is_string());
    let routes = ada.get("/api/routes").await.expect(200);
    let routes = routes.as_array().unwrap();
    assert_eq!(routes.len(), 3);
    assert!(routes.iter().all(|route| route["active"] == false), "{routes:?}");
    let domain = &ada.get("/api/domains/acme.dev").await.expect(200)["domain"];
    assert_eq!((&domain["trackingWebhookUrl"], &domain["zero_retention"]), (&json!(null), &json!(false)));
    let id = server.accepted("ada@acme.dev", "nobody drops it").await;
    assert_eq!(ada.get(&format!("/api/messages/{id}")).await.expect(200)["deliveries"], json!([]));
    // A first password needs none before it.
    ada.post("/api/auth/password", json!({"newPassword": "staple battery horse"})).await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_a_proven_address_keeps_what_it_has() {
    let (receiver, next) = google().await;
    let server = Server::start_with(Clock::manual(NOW), with(&receiver, Signup::Open)).await;
    let api = server.anonymous();
    let made = api.post("/api/auth/signup", json!({"email": "ada@acme.dev", "password": "correct horse battery"}));
    let made = made.await.expect(201);
    let id = made["user"]["id"].clone();
    let session = api.with(made["token"].as_str().unwrap());
    server.write(|tx, _, _| Ok(tx.execute("UPDATE account SET email_verified = 1", [])?)).await;
    let found = sign_in(&api, &next, "1", "ADA@acme.dev", json!({})).await.expect(200);
    assert_eq!((&found["user"]["id"], &found["user"]["avatarUrl"]), (&id, &json!(PICTURE)));
    session.get("/v1/me").await.expect(200);
    // From now on by its subject, and still by its password.
    let found = sign_in(&api, &next, "1", "other@acme.dev", json!({})).await.expect(200);
    assert_eq!(found["user"]["id"], id);
    api.post("/api/auth/login", json!({"email": "ada@acme.dev", "password": "correct horse battery"}))
        .await
        .expect(200);
    let bob = sign_in(&api, &next, "2", "bob@acme.dev", json!({})).await.expect(200);
    assert_eq!((&bob["user"]["isAdmin"], &bob["user"]["emailVerified"]), (&json!(false), &json!(true)));
    assert_eq!(server.query::<i64>("SELECT count(*) FROM account").await, 3);
    server.stop().await;

    let (receiver, next) = google().await;
    let server = Server::start_with(Clock::manual(NOW), with(&receiver, Signup::Closed)).await;
    sign_in(&server.anonymous(), &next, "1", "ada@acme.dev", json!({})).await.expect_error(403, "signup_closed");
    sign_in(&server.anonymous(), &next, "1", "owner@inbox.invalid", json!({})).await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_has_its_own_answer() {
    let (mut receiver, next) = google().await;
    let server = Server::start_with(Clock::manual(NOW), with(&receiver, Signup::Open)).await;
    let api = server.anonymous();
    for body in [json!({}), json!({"code": null}), json!({"code": ""}), json!({"code": 5})] {
        api.post(PATH, body).await.expect_field(400, "bad_request", "code");
    }
    api.post(PATH, json!({"code": "4/c", "redirectUri": 5})).await.expect_field(400, "bad_request", "redirectUri");
    assert_eq!(receiver.connections(), 0);

    let say = |reply: Reply| *next.lock().unwrap() = reply;
    let ask = async || api.post(PATH, json!({"code": "4/c", "redirectUri": "https://app.acme.dev/mine"})).await;
    let mut unproven = claims();
    unproven["email_verified"] = json!(false);
    for refused in [
        Reply::status(400).body(r#"{"error": "invalid_grant"}"#),
        token_reply(&rs256(OTHER_KEY, &header(), &claims())),
        token_reply(&rs256(SIGNING_KEY, &header(), &unproven)),
        token_reply("rubbish"),
    ] {
        say(refused);
        let answer = ask().await;
        answer.expect_error(401, "google_rejected");
        assert!(!answer.json["error"].as_str().unwrap().contains("invalid_grant"), "what Google says stays here");
    }
    let form = String::from_utf8(receiver.next_request().await.body.to_vec()).unwrap();
    assert!(form.ends_with("&redirect_uri=https%3A%2F%2Fapp.acme.dev%2Fmine"), "{form}");
    for trouble in [Reply::status(500), Reply::close_before_headers(), Reply::status(200).body("<html>")] {
        say(trouble);
        ask().await.expect_error(502, "google_unreachable");
    }
    drop(receiver);
    ask().await.expect_error(502, "google_unreachable");
    server.stop().await;

    let server = Server::start_with(Clock::manual(NOW), |config| config.auth.signup = Signup::Open).await;
    for _ in 0..55 {
        let answer = server.anonymous().post(PATH, json!({"code": "4/c"})).await;
        answer.expect_error(409, "google_not_configured");
    }
    server.stop().await;
}
