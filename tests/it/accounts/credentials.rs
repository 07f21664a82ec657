//! Keys and secrets over HTTP (contract 1.5, 2.7–2.10), and none of them readable in a copy of the database.

use mailkite::testing::id::RowId;
use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::config::Signup;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::server::Server;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);
const PASSWORD: &str = "correct horse battery";

async fn server() -> Server {
    Server::start_with(Clock::manual(NOW), |config| config.auth.signup = Signup::Open).await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn member(server: &Server, email: &str) -> Api {
    let body = json!({"email": email, "password": PASSWORD});
    let signed_up = server.anonymous().post("/api/auth/signup", body).await.expect(201);
    server.anonymous().with(text(&signed_up["token"]))
}

/// A session of the owner.
async fn owner_session(server: &Server) -> Api {
    let owner = server.owner().await;
    let hash = server.accounts.passwords.hash(PASSWORD.to_owned(), "test").await.unwrap();
    let id = server.inbox.account_id;
    server.write(move |tx, _, _| mailkite::testing::store::accounts::set_password_hash(tx, id, &hash)).await;
    let body = json!({"email": "owner@inbox.invalid", "password": PASSWORD});
    owner.with(text(&owner.post("/api/auth/login", body).await.expect(200)["token"]))
}

async fn scoped(api: &Api, domain: &str, name: &str) -> Value {
    api.post("/api/keys/scoped", json!({"domainId": domain, "name": name})).await.expect(201)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_credential_says_whose_it_is() {
    let server = server().await;
    let (session, key) = (owner_session(&server).await, server.owner().await);
    let limited = key.with(text(&scoped(&key, "inbox.test", "blog").await["key"]));
    let id: String = server.query("SELECT public_id FROM account").await;
    for (what, api) in [("session", &session), ("account key", &key), ("scoped key", &limited)] {
        let me = api.get("/v1/me").await.expect(200);
        let expected = json!({"id": id, "email": "owner@inbox.invalid", "emailVerified": true, "plan": "self-hosted",
            "sendingDomains": me["sendingDomains"], "isAdmin": true, "storage": {"used": 0, "limit": null}});
        assert_eq!(me, expected, "{what}");
        assert!(me["sendingDomains"].is_array());
        let usage = api.get("/api/billing/usage").await.expect(200);
        let month = json!({"plan": "self-hosted", "included": null, "used": 0, "overage": false,
            "periodStart": 1_782_864_000_000_i64, "periodEnd": 1_785_542_400_000_i64,
            "storage": {"used": 0, "limit": null}});
        assert_eq!(usage, month, "{what}");
    }
    let bob = member(&server, "bob@acme.dev").await.get("/v1/me").await.expect(200);
    let unproven = (&json!("bob@acme.dev"), &json!(false), &json!(false), &json!([]));
    assert_eq!((&bob["email"], &bob["emailVerified"], &bob["isAdmin"], &bob["sendingDomains"]), unproven);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_class_of_endpoint_refuses_what_is_not_of_it() {
    let server = server().await;
    let (session, key) = (owner_session(&server).await, server.owner().await);
    let limited = key.with(text(&scoped(&key, "inbox.test", "blog").await["key"]));
    let document = key.document().await;
    let mut seen = (0, 0);
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let about = operation["description"].as_str().unwrap_or_default();
            let public = operation["security"] == json!([]) || path.contains("/att/");
            let path = path.replace("{id}", "unknown").replace("{mid}", "x").replace("{idx}", "0");
            let ask = async |api: &Api| api.exchange(&method.to_uppercase(), &path, &[], None).await;
            let answer = ask(&server.anonymous()).await;
            assert_eq!(answer.code() == "unauthorized", !public, "{method} {path}: {about}");
            // Sixty refused credentials a minute are enough for a client address.
            server.clock.advance(Duration::from_secs(2));
        }
    }
    for (method, path) in [("POST", "/api/auth/logout"), ("POST", "/api/auth/password")] {
        for api in [&key, &limited] {
            seen.0 += 1;
            api.send(method, path, &[], None).await.expect_error(403, "session_required");
        }
    }
    for (method, path) in [
        ("POST", "/api/auth/verify/send"),
        ("GET", "/api/keys"),
        ("POST", "/api/keys/rotate"),
        ("GET", "/api/keys/scoped"),
        ("POST", "/api/keys/scoped"),
        ("GET", "/api/webhooks/secret"),
        ("POST", "/api/webhooks/secret/rotate"),
    ] {
        seen.1 += 1;
        limited.send(method, path, &[], None).await.expect_error(403, "key_scope");
    }
    assert_eq!(seen, (4, 7));
    // The body is read before the class is looked at, an id before both.
    limited.send("POST", "/api/keys/scoped", &[], Some(b"{")).await.expect_error(400, "bad_json");
    limited.delete("/api/keys/scoped/key_0000000000000000").await.expect_error(404, "not_found");
    session.get("/v1/me").await.expect(200);
    key.get("/v1/me").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_dead_at_once() {
    let server = server().await;
    let ada = member(&server, "ada@acme.dev").await;
    let first = text(&ada.get("/api/keys").await.expect(200)["key"]);
    assert!(first.len() == 48 && first["mk_live_".len()..].bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_eq!(first, text(&ada.get("/api/keys").await.expect(200)["key"]));
    let old = ada.with(&first);
    let second = text(&old.post_nothing("/api/keys/rotate").await.expect(200)["key"]);
    assert_ne!(first, second);
    old.get("/v1/me").await.expect_error(401, "bad_key");
    old.get("/api/keys").await.expect_error(401, "bad_key");
    let new = ada.with(&second);
    assert_eq!(text(&new.get("/api/keys").await.expect(200)["key"]), second);
    ada.get("/v1/me").await.expect(200);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM api_key").await, 2, "the owner's and this one");

    // One that is missing is made.
    server.write(|tx, _, _| Ok(tx.execute("DELETE FROM api_key", [])?)).await;
    new.get("/v1/me").await.expect_error(401, "bad_key");
    let third = text(&ada.get("/api/keys").await.expect(200)["key"]);
    ada.with(&third).get("/v1/me").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_missing_is_made_once() {
    let server = server().await;
    let ada = member(&server, "ada@acme.dev").await;
    server.write(|tx, _, _| Ok(tx.execute("DELETE FROM api_key", [])?)).await;
    let answers = futures_util::future::join_all((0..8).map(|_| ada.get("/api/keys"))).await;
    let keys: Vec<String> = answers.into_iter().map(|answer| text(&answer.expect(200)["key"])).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    ada.with(&keys[0]).get("/v1/me").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scoped_key_is_shown_once_and_dies_at_once() {
    let server = server().await;
    let owner = server.owner().await;
    let domain = server.inbox.public_id.to_string();
    let made = scoped(&owner, "INBOX.test", "  blog  ").await;
    let (id, key) = (text(&made["id"]), text(&made["key"]));
    assert!(id.starts_with("key_") && id.len() == 20 && key.starts_with("mk_live_") && key.len() == 48);
    let row = json!({"id": id, "name": "blog", "domainId": domain, "domain": "inbox.test", "prefix": key[..12],
        "createdAt": NOW.as_millis(), "lastUsedAt": null});
    let mut with_key = row.clone();
    with_key["key"] = json!(key);
    assert_eq!(made, with_key);
    assert_eq!(owner.get("/api/keys/scoped").await.expect(200), json!([row]));

    server.clock.advance(Duration::from_secs(1));
    let limited = owner.with(&key);
    limited.get("/v1/me").await.expect(200);
    server
        .until(
            "SELECT last_used_at FROM api_key WHERE last_used_at IS NOT NULL AND domain_id IS NOT NULL",
            NOW.as_millis() + 1000,
        )
        .await;
    assert_eq!(owner.get("/api/keys/scoped").await.expect(200)[0]["lastUsedAt"], NOW.as_millis() + 1000);
    let second = scoped(&owner, &domain, &"\u{e9}".repeat(100)).await;
    let list = owner.get("/api/keys/scoped").await.expect(200);
    assert_eq!((&list[0]["id"], &list[1]["id"]), (&second["id"], &made["id"]), "newest first");

    for (body, field) in [
        (json!({"name": "n"}), "domainId"),
        (json!({"domainId": "", "name": "n"}), "domainId"),
        (json!({"domainId": "inbox.test", "name": 5}), "name"),
        (json!({"domainId": "inbox.test", "name": ["n"]}), "name"),
        (json!({"domainId": "inbox.test", "name": "a\nb"}), "name"),
        (json!({"domainId": "inbox.test", "name": "x".repeat(101)}), "name"),
        (json!({"domainId": "nowhere.test", "name": "a\nb"}), "name"),
    ] {
        owner.post("/api/keys/scoped", body).await.expect_field(400, "bad_request", field);
    }
    server.other_account("other.test", "http://127.0.0.1:1/").await;
    for foreign in ["other.test", "nowhere.test", " ", "dom_0000000000000000", "%", &domain.to_lowercase()] {
        let refused = owner.post("/api/keys/scoped", json!({"domainId": foreign, "name": "n"})).await;
        refused.expect_error(404, "domain_not_owned");
    }
    // A name counts in every spelling, as in paths.
    owner.post("/api/domains", json!({"domain": "b\u{fc}cher.test"})).await.expect(201);
    for spelling in ["B\u{dc}CHER.test", "xn--bcher-kva.test."] {
        let made = scoped(&owner, spelling, "n").await;
        assert_eq!(made["domain"], "xn--bcher-kva.test");
        owner.delete(&format!("/api/keys/scoped/{}", text(&made["id"]))).await.expect(200);
    }
    let bob = member(&server, "bob@acme.dev").await;
    assert_eq!(bob.get("/api/keys/scoped").await.expect(200), json!([]));
    for unknown in [id.as_str(), "key_0000000000000000", "rubbish"] {
        bob.delete(&format!("/api/keys/scoped/{unknown}")).await.expect_error(404, "not_found");
    }
    let path = format!("/api/keys/scoped/{id}");
    limited.delete(&path).await.expect_error(403, "key_scope");
    assert_eq!(owner.delete(&path).await.expect(200), json!({"ok": true}));
    limited.get("/v1/me").await.expect_error(401, "bad_key");
    owner.delete(&path).await.expect_error(404, "not_found");
    owner.with(text(&second["key"])).get("/v1/me").await.expect(200);
    // The account's key is another matter.
    owner.post_nothing("/api/keys/rotate").await.expect(200);
    owner.with(text(&second["key"])).get("/v1/me").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_secret_of_an_account_is_kept_until_it_is_rotated() {
    let server = server().await;
    let ada = member(&server, "ada@acme.dev").await;
    let first = ada.get("/api/webhooks/secret").await.expect(200);
    let secret = text(&first["secret"]);
    assert!(secret.starts_with("whsec_") && secret.len() == 50 && secret.ends_with('='), "{secret}");
    assert_eq!(ada.get("/api/webhooks/secret").await.expect(200), first);
    let second = ada.post_nothing("/api/webhooks/secret/rotate").await.expect(200);
    assert_ne!(second["secret"], first["secret"]);
    assert_eq!(second["previousValidUntil"], NOW.as_millis() + 86_400_000);
    assert_eq!(ada.get("/api/webhooks/secret").await.expect(200), json!({"secret": second["secret"]}));
    // The owner's account was made without one.
    let owner = server.owner().await;
    let made = owner.get("/api/webhooks/secret").await.expect(200);
    assert_eq!(owner.get("/api/webhooks/secret").await.expect(200), made);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_database_tells_no_key_token_secret_or_password() {
    let server = Server::start_unowned(Clock::manual(NOW), |config| config.auth.signup = Signup::Open).await;
    let setup = server.accounts.setup_token().await.unwrap().unwrap();
    let api = server.anonymous();
    let ada = member(&server, "ada@acme.dev").await;
    let mut disclosed = vec![setup.clone(), ada.credential.clone().unwrap(), PASSWORD.to_owned()];
    for path in ["/api/keys", "/api/keys/rotate"] {
        let method = if path.ends_with("rotate") { "POST" } else { "GET" };
        disclosed.push(text(&ada.send(method, path, &[], None).await.expect(200)["key"]));
    }
    disclosed.push(text(&ada.get("/api/webhooks/secret").await.expect(200)["secret"]));
    disclosed.push(text(&ada.post_nothing("/api/webhooks/secret/rotate").await.expect(200)["secret"]));
    let account: i64 = server.query("SELECT id FROM account").await;
    server
        .write(move |tx, _, now| {
            mailkite::testing::bootstrap::verified_domain(tx, RowId::new(account), "acme.dev", now)
        })
        .await;
    disclosed.push(text(&scoped(&ada, "acme.dev", "blog").await["key"]));
    let route = json!({"match": "*@acme.dev", "action": "webhook", "destination": "https://hooks.acme.dev/in"});
    disclosed.push(text(&ada.post("/api/routes", route).await.expect(201)["signing_secret"]));
    let sealed: Vec<u8> = server.query("SELECT text_sealed FROM notice").await;
    let mail = server.secrets.open_text(mailkite::testing::store::accounts::notices::PURPOSE, &sealed).unwrap();
    let link = mail.split("token=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert_eq!(api.post_nothing(&format!("/api/auth/verify?token={link}")).await.status, 200);
    disclosed.push(link);
    let change = json!({"currentPassword": PASSWORD, "newPassword": "staple battery horse"});
    disclosed.push(text(&ada.post("/api/auth/password", change).await.expect(200)["token"]));
    disclosed.push("staple battery horse".to_owned());

    let file = server.db.path().to_owned();
    let log = std::fs::read(file.with_file_name("mailkite.db-wal")).unwrap();
    let copy = [std::fs::read(&file).unwrap(), log].concat();
    let holds = |needle: &[u8]| memchr::memmem::find(&copy, needle).is_some();
    let mut found = Vec::new();
    for secret in &disclosed {
        // Without the public prefix of a key or secret; of a session token the signature alone.
        let known = ["mk_live_", "whsec_"].iter().find_map(|prefix| secret.strip_prefix(prefix));
        let bare = known.unwrap_or_else(|| secret.rsplit('.').next().unwrap());
        if holds(secret.as_bytes()) || holds(bare.as_bytes()) {
            found.push(secret.clone());
        }
    }
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(disclosed.len(), 12);
    assert!(holds(b"ada@acme.dev"), "this is where it would be");
    server.stop().await;
}
