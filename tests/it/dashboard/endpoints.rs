//! Endpoints of the dashboard beyond the contract: the overview, all deliveries, sessions, matching routes, the server.

use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::store::webhooks::routes::AckMode;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;

/// Half past the hour, so that an hourly bucket begins before and ends after.
const NOW: Timestamp = Timestamp::from_millis(1_785_198_600_000);
const PASSWORD: &str = "correct horse battery";

async fn session(server: &Server) -> Api {
    let owner = server.write(|tx, _, _| mailkite::testing::store::accounts::find_owner(tx)).await.unwrap();
    let ticket = server.accounts.tickets.issue(owner);
    let signed_in = server.anonymous().post("/api/auth/login", json!({"ticket": ticket})).await.expect(200);
    server.anonymous().with(signed_in["token"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_counts_what_came_and_how_webhooks_fared() {
    let clock = Clock::manual(NOW);
    let server = Server::start_with(clock.clone(), |config| config.webhook.retry = Vec::new()).await;
    let good = Receiver::start(|_| Reply::status(200)).await;
    let bad = Receiver::start(|_| Reply::status(500)).await;
    server.route("good@inbox.test", AckMode::Lenient, &good.url()).await;
    server.route("bad@inbox.test", AckMode::Lenient, &bad.url()).await;
    server
        .write(|tx, _, now| {
            let account = mailkite::testing::store::accounts::find_owner(tx)?.unwrap();
            tx.execute(
                "INSERT INTO domain (public_id, account_id, name, status, created_at)
                 VALUES ('dom_0000000000000000', ?1, 'late.test', 'pending', ?2)",
                (account.id, now.as_millis()),
            )?;
            Ok(())
        })
        .await;
    let owner = server.owner().await;
    let empty = owner.get("/api/overview").await.expect(200);
    assert_eq!((&empty["totals"]["received"], &empty["successRate"]), (&json!(0), &json!(null)));
    assert_eq!(empty["latencyMs"], json!({"p50": null, "p99": null}));
    clock.advance(Duration::from_secs(3));
    for number in 0..3 {
        server.accepted("good@inbox.test", &format!("g{number}")).await;
    }
    for number in 0..2 {
        server.accepted("bad@inbox.test", &format!("b{number}")).await;
    }
    server.until("SELECT count(*) FROM delivery WHERE status = 'pending'", 0_i64).await;
    for (range, count, bucket_ms) in [("hour", 60, 60_000), ("day", 24, 3_600_000), ("week", 28, 21_600_000)] {
        let view = owner.get(&format!("/api/overview?range={range}")).await.expect(200);
        assert_eq!((&view["range"], &view["bucketMs"]), (&json!(range), &json!(bucket_ms)));
        let buckets = view["buckets"].as_array().unwrap();
        assert_eq!(buckets.len(), count, "{range}");
        let last = &buckets[count - 1];
        assert_eq!(
            (&last["received"], &last["sent"], &last["delivered"], &last["failed"]),
            (&json!(5), &json!(0), &json!(3), &json!(2)),
            "{range}"
        );
        assert!(last["at"].as_i64().unwrap() <= NOW.as_millis() + 3_000);
        assert_eq!(last["at"].as_i64().unwrap() % bucket_ms, 0, "{range}");
        assert_eq!(view["totals"], json!({"received": 5, "sent": 0, "delivered": 3, "failed": 2}), "{range}");
        assert_eq!(view["successRate"], json!(0.6));
        assert!(view["latencyMs"]["p50"].is_i64() && view["latencyMs"]["p99"].is_i64());
        assert_eq!(view["queue"], json!({"webhooks": 0, "outbound": 0, "oldestAt": null}));
        let worst = &view["endpoints"][0];
        assert_eq!(
            (&worst["url"], &worst["failed"], &worst["lastStatusCode"], &worst["domain"]),
            (&json!(bad.url()), &json!(2), &json!(500), &json!("inbox.test"))
        );
        assert_eq!(view["endpoints"][1]["delivered"], 3);
        let kinds: Vec<&str> =
            view["attention"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
        for kind in ["endpoint_failing", "deliveries_failed", "domain_unverified"] {
            assert!(kinds.contains(&kind), "{kinds:?}");
        }
    }
    // An answer serves for two seconds.
    server.accepted("nobody@inbox.test", "more").await;
    assert_eq!(owner.get("/api/overview").await.expect(200)["totals"]["received"], 5);
    clock.advance(Duration::from_secs(2));
    assert_eq!(owner.get("/api/overview").await.expect(200)["totals"]["received"], 6);
    owner.get("/api/overview?range=year").await.expect_field(400, "bad_query", "range");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_listed_by_state_domain_route_and_time() {
    let clock = Clock::manual(NOW);
    let server = Server::start_with(clock.clone(), |config| config.webhook.retry = Vec::new()).await;
    let receiver =
        Receiver::start(|request| Reply::status(if request.json()["subject"] == "bad" { 500 } else { 200 })).await;
    server.add_domain("shop.test").await;
    let first = server.route("*@inbox.test", AckMode::Lenient, &receiver.url()).await;
    server.route("*@shop.test", AckMode::Lenient, &receiver.url()).await;
    let mut times = Vec::new();
    for (to, subject) in [("a@inbox.test", "1"), ("a@shop.test", "2"), ("a@inbox.test", "bad"), ("a@shop.test", "4")]
    {
        clock.advance(Duration::from_secs(10));
        times.push(clock.now().as_millis());
        server.accepted(to, subject).await;
    }
    server.until("SELECT count(*) FROM delivery WHERE status = 'pending'", 0_i64).await;
    let owner = server.owner().await;
    let listed = async |api: &Api, query: &str| -> Vec<String> {
        let page = api.get(&format!("/api/deliveries?{query}")).await.expect(200);
        let subjects =
            page["deliveries"].as_array().unwrap().iter().map(|row| row["subject"].as_str().unwrap().to_owned());
        subjects.collect()
    };
    for (query, wanted) in [
        (String::new(), vec!["4", "bad", "2", "1"]),
        ("status=failed".to_owned(), vec!["bad"]),
        ("status=delivered".to_owned(), vec!["4", "2", "1"]),
        ("status=pending".to_owned(), vec![]),
        ("domain=shop.test".to_owned(), vec!["4", "2"]),
        ("domain=other.test".to_owned(), vec![]),
        (format!("routeId={}", first.route), vec!["bad", "1"]),
        (format!("since={}&until={}", times[1], times[3]), vec!["bad", "2"]),
        ("status=delivered&domain=inbox.test".to_owned(), vec!["1"]),
    ] {
        assert_eq!(listed(&owner, &query).await, wanted, "{query}");
    }
    let page = owner.get("/api/deliveries?limit=3").await.expect(200);
    let row = &page["deliveries"][1];
    for (key, wanted) in [
        ("status", json!("failed")),
        ("last_status_code", json!(500)),
        ("from_addr", json!("ada@example.com")),
        ("to_addr", json!("a@inbox.test")),
        ("domain", json!("inbox.test")),
        ("route_id", json!(first.route.as_str())),
    ] {
        assert_eq!(row[key], wanted, "{key}");
    }
    let next = page["nextCursor"].as_str().unwrap();
    let rest = owner.get(&format!("/api/deliveries?limit=3&before={next}")).await.expect(200);
    assert_eq!((&rest["deliveries"][0]["subject"], &rest["nextCursor"]), (&json!("1"), &Value::Null));
    assert_eq!(rest["deliveries"].as_array().unwrap().len(), 1);
    let domains = owner.get("/api/domains").await.expect(200);
    let shop = domains.as_array().unwrap().iter().find(|one| one["domain"] == "shop.test").unwrap()["id"].clone();
    let scoped = owner.post("/api/keys/scoped", json!({"domainId": shop, "name": "shop"})).await.expect(201);
    let limited = owner.with(scoped["key"].as_str().unwrap());
    assert_eq!(listed(&limited, "").await, ["4", "2"]);
    assert!(listed(&limited, "domain=inbox.test").await.is_empty());
    owner.get("/api/deliveries?status=lost").await.expect_field(400, "bad_query", "status");
    owner.get("/api/deliveries?before=dlv_0000000000000000").await.expect_field(400, "bad_query", "before");
    limited.get("/api/overview").await.expect_error(403, "key_scope");
    limited.get("/api/server").await.expect_error(403, "key_scope");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_and_ended_one_by_one() {
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let (one, two) = (session(&server).await, session(&server).await);
    let all = one.get("/api/auth/sessions").await.expect(200);
    let all = all["sessions"].as_array().unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all.iter().filter(|login| login["current"] == true).count(), 1);
    assert_eq!((&all[1]["current"], &all[1]["ip"]), (&json!(true), &json!("127.0.0.1")));
    assert_eq!(all[0]["createdAt"], NOW.as_millis());
    let other = format!("/api/auth/sessions/{}", all[0]["id"].as_str().unwrap());
    one.delete(&other).await.expect(200);
    one.delete(&other).await.expect_error(404, "not_found");
    two.get("/v1/me").await.expect_error(401, "session_expired");
    one.get("/v1/me").await.expect(200);
    server.owner().await.get("/api/auth/sessions").await.expect_error(403, "session_required");
    // Another account's sessions are unknown sessions.
    let body = json!({"email": "bob@acme.dev", "password": PASSWORD});
    let open =
        Server::start_with(Clock::manual(NOW), |config| config.auth.signup = mailkite::testing::config::Signup::Open)
            .await;
    let bob = open.anonymous().post("/api/auth/signup", body).await.expect(201);
    let bob = open.anonymous().with(bob["token"].as_str().unwrap());
    let owner = session(&open).await;
    let theirs = bob.get("/api/auth/sessions").await.expect(200);
    let path = format!("/api/auth/sessions/{}", theirs["sessions"][0]["id"].as_str().unwrap());
    owner.delete(&path).await.expect_error(404, "not_found");
    bob.get("/v1/me").await.expect(200);
    open.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_names_the_routes_that_it_reaches() {
    let server = Server::start().await;
    server.route("support@inbox.test", AckMode::Lenient, "https://a.test/hook").await;
    server.route("*@inbox.test", AckMode::Lenient, "https://b.test/hook").await;
    let owner = server.owner().await;
    owner.post("/api/routes", json!({"match": "spam@inbox.test", "action": "drop"})).await.expect(201);
    let paused = owner.post("/api/routes", json!({"match": "/^support/", "action": "store"})).await.expect(201);
    let path = format!("/api/routes/{}", paused["id"].as_str().unwrap());
    owner.patch(&path, json!({"active": false})).await.expect(200);
    let found = owner.get("/api/routes/match?address=Support@INBOX.test").await.expect(200);
    let matches: Vec<&str> = found["matches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| route["match"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(matches.len(), 2, "{found}");
    assert_eq!(
        (&found["address"], &found["known"], &found["drop"]),
        (&json!("support@inbox.test"), &json!(true), &json!(false))
    );
    let found = owner.get("/api/routes/match?address=spam@inbox.test").await.expect(200);
    assert_eq!(found["drop"], true);
    let found = owner.get("/api/routes/match?address=a@elsewhere.test").await.expect(200);
    assert_eq!((&found["known"], &found["matches"]), (&json!(false), &json!([])));
    owner.get("/api/routes/match?address=nobody").await.expect_field(400, "bad_query", "address");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_what_it_is() {
    let clock = Clock::manual(NOW);
    let server =
        Server::start_with(clock.clone(), |config| config.auth.signup = mailkite::testing::config::Signup::Open)
            .await;
    clock.advance(Duration::from_secs(90));
    let owner = server.owner().await;
    let facts = owner.get("/api/server").await.expect(200);
    for (key, wanted) in [
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("hostname", json!("mx.mailkite.test")),
        ("startedAt", json!(NOW.as_millis())),
        ("uptimeSeconds", json!(90)),
        ("dev", json!(false)),
        ("queue", json!({"webhooks": 0, "outbound": 0, "oldestAt": null})),
    ] {
        assert_eq!(facts[key], wanted, "{key}");
    }
    assert_eq!(
        (&facts["certificate"]["subject"], &facts["certificate"]["selfSigned"]),
        (&json!("mx.mailkite.test"), &json!(true))
    );
    assert!(facts["certificate"]["notAfter"].as_i64().unwrap() > 0);
    assert!(facts["disk"]["freeBytes"].as_u64().unwrap() > 0 && facts["disk"]["databaseBytes"].as_u64().unwrap() > 0);
    assert!(facts["sizes"]["databaseBytes"].as_u64().unwrap() > 0, "{facts}");
    assert_eq!((&facts["sizes"]["mailBytes"], &facts["lastBackupAt"]), (&json!(0), &Value::Null));
    assert_eq!(facts["smtp"].as_array().unwrap().len(), 1);
    let body = json!({"email": "bob@acme.dev", "password": PASSWORD});
    let bob = server.anonymous().post("/api/auth/signup", body).await.expect(201);
    let facts = owner.with(bob["token"].as_str().unwrap()).get("/api/server").await.expect(200);
    assert_eq!((&facts["disk"], &facts["certificate"]), (&Value::Null, &Value::Null));
    assert_eq!(facts["sizes"], Value::Null);
    server.stop().await;
}
