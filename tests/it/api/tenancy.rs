//! Isolation of accounts: on every endpoint of the router's table and for every credential, another account's resources
//! do not exist, and only credentials of the endpoint's class are accepted.

use mailkite::testing::id::{AccountRowId, DomainRowId};
use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::http::endpoint::{Class, Endpoint};
use mailkite::testing::http::table;
use mailkite::testing::secrets::{self, Secrets, token_hash};
use mailkite::testing::store::Result;
use mailkite::testing::store::accounts::sessions::{self, NewSession};
use mailkite::testing::store::accounts::{self, NewAccount};
use mailkite::testing::store::accounts::{domains, keys};
use rusqlite::Connection;
use serde_json::json;

use crate::support::api::{Answer, Api};
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;

/// An account with one domain and every kind of credential.
struct Tenant {
    session: Api,
    key: Api,
    scoped: Api,
}

impl Tenant {
    fn all(&self) -> [(&'static str, &Api); 3] {
        [("session", &self.session), ("account key", &self.key), ("scoped key", &self.scoped)]
    }
}

fn new_key(
    tx: &Connection,
    secrets: &Secrets,
    account: AccountRowId,
    domain: Option<DomainRowId>,
    now: Timestamp,
) -> Result<String> {
    let key = secrets::new_api_key();
    let (hash, sealed) = (token_hash(&key), secrets.seal(keys::PURPOSE, key.as_bytes()));
    match domain {
        Some(domain) => drop(keys::insert_scoped(tx, account, domain, "scoped", &hash, &sealed, now)?),
        None => keys::insert(tx, account, &hash, &sealed, now)?,
    }
    Ok(key)
}

async fn tenant(server: &Server, email: &'static str, domain: &'static str) -> Tenant {
    let (session, key, scoped) = server
        .write(move |tx, secrets, now| {
            let account = match accounts::find_by_email(tx, email)? {
                Some(account) => account,
                None => {
                    let new = NewAccount { email: email.to_owned(), email_verified: true, ..NewAccount::default() };
                    accounts::insert(tx, new, now)?
                }
            };
            let domain = match domains::find_of_account(tx, account.id, domain)? {
                Some(domain) => domain,
                None => domains::insert(tx, account.id, domain, true, now)?,
            };
            let tokens = mailkite::testing::secrets::session_tokens::Tokens::new(&secrets.session_key());
            let (token, claims) = tokens.issue(&account.public_id, now);
            let session = NewSession {
                jti: claims.jti,
                account: account.id,
                client_address: "192.0.2.1".to_owned(),
                user_agent: String::new(),
                expires_at: Timestamp::from_millis(claims.exp * 1000),
            };
            sessions::insert(tx, &session, 0, now)?;
            let key = new_key(tx, secrets, account.id, None, now)?;
            let scoped = new_key(tx, secrets, account.id, Some(domain.id), now)?;
            Ok((token, key, scoped))
        })
        .await;
    let api = server.anonymous();
    Tenant { session: api.with(session), key: api.with(key), scoped: api.with(scoped) }
}

/// The owner's resources that paths can name.
struct Things {
    domain: String,
    route: String,
    message: String,
    delivery: String,
    scoped_key: String,
    template: String,
    scheduled: String,
    session: String,
}

impl Things {
    /// Fills the path of an endpoint with an id that exists, and with one of the same form that does not.
    fn paths(&self, endpoint: &Endpoint) -> Option<(String, String)> {
        if !endpoint.path.contains("{id}") {
            return None;
        }
        let (id, unknown) = if endpoint.path.starts_with("/api/domains/") {
            (&self.domain, "dom_0000000000000000")
        } else if endpoint.path.starts_with("/api/routes/") {
            (&self.route, "rte_0000000000000000")
        } else if endpoint.path.starts_with("/api/messages/") {
            (&self.message, "msg_0000000000000000")
        } else if endpoint.path.starts_with("/api/deliveries/") {
            (&self.delivery, "dlv_0000000000000000")
        } else if endpoint.path.starts_with("/api/keys/scoped/") {
            (&self.scoped_key, "key_0000000000000000")
        } else if endpoint.path.starts_with("/api/templates/") {
            (&self.template, "tpl_0000000000000000")
        } else if endpoint.path.starts_with("/v1/scheduled/") {
            (&self.scheduled, "ssnd_0000000000000000")
        } else if endpoint.path.starts_with("/api/auth/sessions/") {
            (&self.session, "0000000000000000000000")
        } else {
            return None;
        };
        Some((endpoint.path.replace("{id}", id), endpoint.path.replace("{id}", unknown)))
    }
}

async fn call(api: &Api, endpoint: &Endpoint, path: &str) -> Answer {
    let method = endpoint.method.as_str();
    let body = matches!(method, "POST" | "PUT" | "PATCH").then_some(b"{}".as_slice());
    api.send(method, path, &[], body).await
}

fn api_endpoints() -> Vec<Endpoint> {
    table().into_iter().filter(|one| ["/api/", "/v1/"].iter().any(|family| one.path.starts_with(family))).collect()
}

async fn owned(server: &mut Server, receiver: &Receiver) -> (Tenant, Things) {
    let hook = server.webhook(&receiver.url()).await;
    let owner = tenant(server, "owner@inbox.invalid", "inbox.test").await;
    let message = server.accepted("a@inbox.test", "private").await;
    server.next_attempt().await;
    let detail = owner.key.get(&format!("/api/messages/{message}")).await.expect(200);
    let domains = owner.key.get("/api/domains").await.expect(200);
    let keys = owner.key.get("/api/keys/scoped").await.expect(200);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let template = owner.key.post("/api/templates", json!({"name": "private"})).await.expect(201);
    let later =
        json!({"from": "a@inbox.test", "to": "b@c.example", "subject": "s", "text": "t", "scheduledAt": "tomorrow"});
    let scheduled = owner.key.post("/v1/send", later).await.expect(202);
    let logins = owner.session.get("/api/auth/sessions").await.expect(200);
    let things = Things {
        domain: text(&domains[0]["id"]),
        route: hook.route.to_string(),
        message,
        delivery: text(&detail["deliveries"][0]["id"]),
        scoped_key: text(&keys[0]["id"]),
        template: text(&template["id"]),
        scheduled: text(&scheduled["id"]),
        session: text(&logins["sessions"][0]["id"]),
    };
    (owner, things)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_accounts_thing_is_an_unknown_thing_on_every_endpoint() {
    let mut server = Server::start().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let (owner, things) = owned(&mut server, &receiver).await;
    let stranger = tenant(&server, "eve@example.org", "eve.test").await;
    let mut walked = 0;
    for endpoint in api_endpoints() {
        let Some((path, unknown)) = things.paths(&endpoint) else {
            assert!(
                // An address in a path names nobody's thing: taking what is not there off a list is done at once.
                !endpoint.path.replace("{email}", "").contains('{'),
                "{} names a kind of thing that this test does not know",
                endpoint.path
            );
            continue;
        };
        for (what, credential) in stranger.all() {
            let foreign = call(credential, &endpoint, &path).await;
            let nothing = call(credential, &endpoint, &unknown).await;
            let wants_session = endpoint.class == Class::Session && what != "session";
            let refusal = if wants_session { (403, "session_required") } else { (404, "not_found") };
            assert_eq!((foreign.status, foreign.code()), refusal, "{} {path} by {what}", endpoint.method);
            assert_eq!(foreign.body, nothing.body, "{} {path} by {what}", endpoint.method);
            let heads = |answer: &Answer| {
                let mut headers = answer.headers.clone();
                headers.remove("x-request-id");
                headers.remove("date");
                headers
            };
            assert_eq!(heads(&foreign), heads(&nothing), "{} {path} by {what}", endpoint.method);
            walked += 1;
        }
    }
    assert!(walked >= 60, "only {walked} calls");
    // Nothing of it happened.
    assert_eq!(owner.key.get(&format!("/api/messages/{}", things.message)).await.status, 200);
    assert_eq!(owner.key.get(&format!("/api/domains/{}", things.domain)).await.status, 200);
    assert_eq!(owner.key.get("/api/keys/scoped").await.expect(200).as_array().unwrap().len(), 1);
    assert_eq!(owner.session.get("/api/auth/sessions").await.status, 200);
    server.stop_with_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_in_bodies_and_queries_reach_no_further_than_paths() {
    let mut server = Server::start().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let (_, things) = owned(&mut server, &receiver).await;
    let stranger = tenant(&server, "eve@example.org", "eve.test").await;
    for (_, eve) in stranger.all() {
        let retried = eve
            .post(
                "/api/deliveries/retry",
                json!({"deliveryIds": [things.delivery], "messageIds": [things.message], "threadIds": ["<x@example.com>"]}),
            )
            .await
            .expect(200);
        for result in retried["results"].as_array().unwrap() {
            assert_eq!(result["reason"], "not_found", "{result}");
        }
        eve.post("/v1/route", json!({"from": "a@b.example", "routeId": things.route}))
            .await
            .expect_error(404, "not_found");
        let there = json!({"from": "a@b.example", "address": "a@inbox.test"});
        eve.post("/v1/route", there).await.expect_error(404, "not_found");
        for query in ["domain=inbox.test", &format!("domain={}", things.domain), "search=private", "limit=200"] {
            assert_eq!(eve.get(&format!("/api/messages?{query}")).await.expect(200), json!([]), "{query}");
        }
        let route = json!({"match": "x@inbox.test", "action": "store"});
        eve.post("/api/routes", route).await.expect_error(404, "domain_not_owned");
    }
    for domain in [things.domain.as_str(), "inbox.test"] {
        let key = json!({"domainId": domain, "name": "x"});
        stranger.key.post("/api/keys/scoped", key).await.expect_error(404, "domain_not_owned");
    }
    stranger.key.post("/api/domains", json!({"domain": "inbox.test"})).await.expect_error(409, "domain_taken");
    stranger.key.post("/api/domains", json!({"domain": "sub.inbox.test"})).await.expect_error(409, "domain_taken");
    server.stop_with_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_takes_the_credentials_of_its_class_alone() {
    // Its clock is moved on, so that failed credentials do not become too many.
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let mut server = Server::start_with(clock, |_| {}).await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let (owner, things) = owned(&mut server, &receiver).await;
    let anonymous = server.anonymous();
    for endpoint in api_endpoints() {
        let path = things.paths(&endpoint).map_or_else(|| endpoint.path.to_owned(), |(path, _)| path);
        let name = format!("{} {path}", endpoint.method);
        if endpoint.class == Class::Public {
            continue;
        }
        server.clock.advance(Duration::from_secs(61));
        let refused = call(&anonymous, &endpoint, &path).await;
        assert_eq!((refused.status, refused.code()), (401, "unauthorized"), "{name}");
        let forged =
            call(&anonymous.with("mk_live_0000000000000000000000000000000000000000"), &endpoint, &path).await;
        assert_eq!((forged.status, forged.code()), (401, "bad_key"), "{name}");
        match endpoint.class {
            Class::Account => {
                let refused = call(&owner.scoped, &endpoint, &path).await;
                assert_eq!((refused.status, refused.code()), (403, "key_scope"), "{name}");
            }
            Class::Session => {
                for key in [&owner.key, &owner.scoped] {
                    let refused = call(key, &endpoint, &path).await;
                    assert_eq!((refused.status, refused.code()), (403, "session_required"), "{name}");
                }
            }
            Class::Public | Class::Any | Class::Stream => {}
        }
    }
    server.stop_with_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_body_and_of_the_id_come_before_the_class() {
    let server = Server::start().await;
    let owner = tenant(&server, "owner@inbox.invalid", "inbox.test").await;
    let scoped = &owner.scoped;
    let refused = async |method: &str, path: &str, body: &'static [u8]| {
        let answer = scoped.send(method, path, &[], Some(body)).await;
        (answer.status, answer.code().to_owned())
    };
    let expected = |status: u16, code: &str| (status, code.to_owned());
    for path in ["/api/domains", "/api/keys/scoped", "/api/blocked-senders", "/api/templates"] {
        assert_eq!(refused("POST", path, b"[").await, expected(400, "bad_json"), "{path}");
        assert_eq!(refused("POST", path, b"{}").await, expected(403, "key_scope"), "{path}");
    }
    assert_eq!(refused("POST", "/api/auth/password", b"[").await, expected(400, "bad_json"));
    let unknown = "/api/templates/tpl_0000000000000000";
    assert_eq!(refused("PUT", unknown, b"[").await, expected(400, "bad_json"));
    assert_eq!(refused("PUT", unknown, b"{}").await, expected(404, "not_found"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scoped_key_sees_one_domain_of_its_account() {
    let mut server = Server::start().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let (owner, things) = owned(&mut server, &receiver).await;
    let elsewhere = tenant(&server, "owner@inbox.invalid", "second.test").await;
    // Templates are the account's, whatever the domain.
    let within = |one: &&Endpoint| one.class == Class::Any && !one.path.starts_with("/api/templates/");
    for endpoint in api_endpoints().iter().filter(within) {
        let Some((path, unknown)) = things.paths(endpoint) else { continue };
        let beyond = call(&elsewhere.scoped, endpoint, &path).await;
        assert_eq!((beyond.status, beyond.code()), (403, "key_scope"), "{} {path}", endpoint.method);
        let nothing = call(&elsewhere.scoped, endpoint, &unknown).await;
        assert_eq!((nothing.status, nothing.code()), (404, "not_found"), "{} {unknown}", endpoint.method);
    }
    let beyond = json!({"from": "a@b.example", "address": "a@inbox.test"});
    elsewhere.scoped.post("/v1/route", beyond).await.expect_error(403, "key_scope");
    let names = |answer: serde_json::Value| -> Vec<String> {
        answer.as_array().unwrap().iter().map(|row| row["domain"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(elsewhere.scoped.get("/api/domains").await.expect(200)), ["second.test"]);
    assert_eq!(names(owner.scoped.get("/api/domains").await.expect(200)), ["inbox.test"]);
    assert_eq!(elsewhere.scoped.get("/api/messages").await.expect(200), json!([]));
    assert_eq!(owner.scoped.get("/api/messages").await.expect(200).as_array().unwrap().len(), 2);
    assert_eq!(elsewhere.scoped.get("/api/routes").await.expect(200), json!([]));
    assert_eq!(elsewhere.scoped.get("/v1/me").await.expect(200)["sendingDomains"], json!(["second.test"]));
    server.stop_with_jobs(1).await;
}
