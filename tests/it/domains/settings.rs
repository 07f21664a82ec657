//! Settings of a domain through the API: webhook, tracked events, retention (contract 3.6–3.8).

use std::time::Duration;

use mailkite::testing::clock::Timestamp;
use serde_json::{Value, json};

use super::lifecycle::{Bench, NOW, add, row};
use crate::support::api::{Answer, Api};
use crate::support::receiver::{Receiver, Reply, raw_peer};
use crate::support::server::message;

const HOOK: &str = "/api/domains/inbox.test/webhook";
const SECRET: &str = "/api/domains/inbox.test/webhook/secret";
const ROTATE: &str = "/api/domains/inbox.test/webhook/secret/rotate";
const TEST: &str = "/api/domains/inbox.test/webhook/test";
const TRACKING: &str = "/api/domains/inbox.test/tracking-webhook";
const EVENTS: &str = "/api/domains/inbox.test/webhook-events";
const RETENTION: &str = "/api/domains/inbox.test/retention";

async fn put(api: &Api, body: Value) -> Value {
    api.put(HOOK, body).await.expect(200)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned()
}

#[tokio::test]
async fn the_webhook_is_set_replaced_and_removed_and_keeps_its_id_and_secret() {
    let bench = Bench::new().await;
    let first = put(&bench.owner, json!({"url": " https://app.acme.dev/hook?a=b ", "ackMode": "control"})).await;
    let (id, secret) = (text(&first["routeId"]), text(&first["signingSecret"]));
    assert!(id.starts_with("rte_") && secret.starts_with("whsec_"), "{id} {secret}");
    let wanted = |url: &str, mode: &str, domain: &Value| json!({"domain": domain, "webhookUrl": url, "ackMode": mode, "routeId": id, "signingSecret": secret});
    let domain = row(&bench.owner, "inbox.test").await;
    assert_eq!(first, wanted("https://app.acme.dev/hook?a=b", "control", &domain));
    assert_eq!((&domain["webhookUrl"], &domain["webhookAckMode"]), (&first["webhookUrl"], &json!("control")));

    bench.server.clock.advance(Duration::from_secs(1));
    let second = put(&bench.owner, json!({"url": "https://app.acme.dev/other"})).await;
    let domain = row(&bench.owner, "inbox.test").await;
    assert_eq!(
        second,
        wanted("https://app.acme.dev/other", "lenient", &domain),
        "an absent mode is the default again"
    );
    assert_eq!(bench.owner.get(SECRET).await.expect(200), json!({"secret": secret}));
    let routes = bench.owner.get("/api/routes").await.expect(200);
    assert_eq!(routes.as_array().map(Vec::len), Some(1));
    let route = &routes[0];
    assert_eq!((&route["id"], &route["match_pattern"]), (&json!(id), &json!("*@inbox.test")));
    assert_eq!(
        (&route["is_domain_webhook"], &route["action"], &route["active"]),
        (&json!(true), &json!("webhook"), &json!(true))
    );
    assert_eq!((&route["created_at"], &route["updated_at"]), (&json!(NOW), &json!(NOW + 1000)));

    assert_eq!(bench.owner.delete(HOOK).await.expect(200), json!({"ok": true}));
    assert_eq!(bench.owner.delete(HOOK).await.expect(200), json!({"ok": true}), "also when none is set");
    let domain = row(&bench.owner, "inbox.test").await;
    assert_eq!((&domain["webhookUrl"], &domain["webhookAckMode"]), (&Value::Null, &Value::Null));
    assert_eq!(bench.owner.get("/api/routes").await.expect(200), json!([]));
    bench.owner.get(SECRET).await.expect_error(404, "no_webhook");
    bench.owner.post_nothing(ROTATE).await.expect_error(404, "no_webhook");
    bench.owner.post_nothing(TEST).await.expect_error(409, "no_webhook");

    // By the id of its route it is removed as well.
    let third = put(&bench.owner, json!({"url": "https://app.acme.dev/hook", "ackMode": null})).await;
    assert_eq!(third["ackMode"], "lenient");
    assert_ne!((&third["routeId"], &third["signingSecret"]), (&json!(id), &json!(secret)));
    bench.owner.delete(&format!("/api/routes/{}", text(&third["routeId"]))).await.expect(200);
    assert_eq!(row(&bench.owner, "inbox.test").await["webhookUrl"], Value::Null);
    bench.owner.get(SECRET).await.expect_error(404, "no_webhook");
}

#[tokio::test]
async fn the_first_put_adopts_the_route_that_does_the_same() {
    let bench = Bench::new().await;
    let make = async |url: &str| {
        let body = json!({"match": "*@Inbox.Test", "destination": url, "ackMode": "ack"});
        bench.owner.post("/api/routes", body).await.expect(201)
    };
    let (same, other) = (make("https://a.acme.dev/").await, make("https://b.acme.dev/").await);
    let id = text(&same["id"]);
    bench.owner.patch(&format!("/api/routes/{id}"), json!({"active": false})).await.expect(200);
    assert_eq!(row(&bench.owner, "inbox.test").await["webhookUrl"], Value::Null, "no route becomes it by itself");
    let set = put(&bench.owner, json!({"url": "https://a.acme.dev/"})).await;
    assert_eq!((&set["routeId"], &set["signingSecret"]), (&same["id"], &same["signing_secret"]));
    let routes = bench.owner.get("/api/routes").await.expect(200);
    assert_eq!(routes.as_array().map(Vec::len), Some(2));
    assert_eq!((&routes[0]["active"], &routes[0]["ack_mode"]), (&json!(true), &json!("lenient")));
    // The second PUT replaces, even where another route has that URL.
    let set = put(&bench.owner, json!({"url": "https://b.acme.dev/"})).await;
    assert_eq!((&set["routeId"], &set["signingSecret"]), (&same["id"], &same["signing_secret"]));
    let routes = bench.owner.get("/api/routes").await.expect(200);
    assert_eq!((&routes[0]["is_domain_webhook"], &routes[1]["is_domain_webhook"]), (&json!(true), &json!(false)));
    assert_eq!(routes[1]["id"], other["id"]);
    bench
        .owner
        .patch(&format!("/api/routes/{id}"), json!({"match": "a@inbox.test"}))
        .await
        .expect_error(409, "domain_webhook_route");
    bench.owner.delete(HOOK).await.expect(200);
    let routes = bench.owner.get("/api/routes").await.expect(200);
    assert_eq!((routes.as_array().map(Vec::len), &routes[0]["id"]), (Some(1), &other["id"]));
}

#[tokio::test]
async fn a_webhook_has_a_good_url_and_a_verified_domain() {
    let bench = Bench::new().await;
    let long = format!("https://app.acme.dev/{}", "a".repeat(2048));
    for bad in [
        json!(""),
        json!("app.acme.dev/hook"),
        json!("http://app.acme.dev/hook"),
        json!("ftp://app.acme.dev/"),
        json!("https://"),
        json!("https://user:word@app.acme.dev/"),
        json!("https://user@app.acme.dev/"),
        json!(long),
        json!("javascript:alert(1)"),
        json!("https://app acme.dev/"),
        json!(7),
        json!(null),
        json!(["https://app.acme.dev/"]),
    ] {
        bench.owner.put(HOOK, json!({"url": bad})).await.expect_field(400, "bad_url", "url");
        bench.owner.put(TRACKING, json!({"url": bad})).await.expect_field(400, "bad_url", "url");
    }
    for path in [HOOK, TRACKING] {
        bench.owner.put(path, json!({})).await.expect_field(400, "bad_url", "url");
        bench.owner.put(path, json!("https://app.acme.dev/")).await.expect_error(400, "bad_json");
        bench.server.anonymous().put(path, json!({})).await.expect_error(401, "unauthorized");
    }
    for bad in [json!("strict"), json!(" "), json!("LENIENT"), json!(1)] {
        let body = json!({"url": "https://app.acme.dev/", "ackMode": bad});
        bench.owner.put(HOOK, body).await.expect_field(400, "bad_request", "ackMode");
    }
    assert_eq!(row(&bench.owner, "inbox.test").await["webhookUrl"], Value::Null);
    let pending = "/api/domains/pending.test/webhook";
    bench.owner.put(pending, json!({"url": "https://app.acme.dev/"})).await.expect_error(409, "domain_not_verified");
    bench.owner.put(pending, json!({"url": "x"})).await.expect_error(400, "bad_url");
    bench.owner.delete(pending).await.expect(200);
    bench.owner.get("/api/domains/pending.test/webhook/secret").await.expect_error(404, "no_webhook");
    bench.owner.post_nothing("/api/domains/pending.test/webhook/test").await.expect_error(409, "no_webhook");
}

#[tokio::test]
async fn its_secret_is_replaced_and_both_sign_for_a_day() {
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let bench = Bench::new().await;
    let old = text(&put(&bench.owner, json!({"url": receiver.url()})).await["signingSecret"]);
    let rotated = bench.owner.post_nothing(ROTATE).await.expect(200);
    let new = text(&rotated["secret"]);
    assert_eq!(rotated, json!({"secret": new, "previousValidUntil": NOW + 86_400_000}));
    assert_ne!(new, old);
    assert_eq!(bench.owner.get(SECRET).await.expect(200)["secret"], new.as_str());
    let saved = put(&bench.owner, json!({"url": receiver.url()})).await;
    assert_eq!(saved["signingSecret"], new.as_str());
    bench.server.accepted("a@inbox.test", "Both").await;
    assert_eq!(receiver.next_request().await.header("webhook-signature").split(' ').count(), 2);
    bench.owner.post_nothing(TEST).await.expect(200);
    let tested = receiver.next_request().await;
    assert_eq!(tested.header("webhook-signature").split(' ').count(), 1, "a test signs with the current one");
    assert!(signed_by(&tested, &new));
    bench.server.clock.advance(Duration::from_millis(86_400_001));
    bench.server.accepted("a@inbox.test", "One").await;
    assert_eq!(receiver.next_request().await.header("webhook-signature").split(' ').count(), 1);
}

/// True when the official client accepts the signature, whatever the time.
fn signed_by(request: &crate::support::receiver::Received, secret: &str) -> bool {
    let body = std::str::from_utf8(&request.body).unwrap();
    mailkite_sdk::verify_webhook_with_tolerance(request.header("x-mailkite-signature"), body, secret, 0)
}

#[tokio::test]
async fn a_test_posts_one_made_up_event_and_stores_nothing() {
    let mut receiver = Receiver::start(|_| Reply::status(204)).await;
    let bench = Bench::new().await;
    let set = put(&bench.owner, json!({"url": receiver.url()})).await;
    assert_eq!(bench.owner.post_nothing(TEST).await.expect(200), json!({"ok": true, "status": 204}));
    let request = receiver.next_request().await;
    assert!(signed_by(&request, &text(&set["signingSecret"])));
    let event = request.json();
    let id = text(&event["id"]);
    assert!(id.strip_prefix("msg_test_").is_some_and(|rest| rest.len() == 16), "{id}");
    assert!(
        ["subject", "text"].iter().all(|key| event[key].as_str().is_some_and(|text| !text.is_empty())),
        "{event}"
    );
    let wanted = json!({
        "id": id, "type": "email.received", "from": {"address": "hello@example.com", "name": "mailkite test"},
        "to": [{"address": "webhook-test@inbox.test"}], "subject": event["subject"], "text": event["text"],
        "html": null, "threadId": null, "receivedAt": NOW,
        "receivedAtIso": Timestamp::from_millis(NOW).iso(),
        "auth": {"spf": "pass", "dkim": "pass", "dmarc": "pass", "spam": "ham"}, "attachments": []
    });
    assert_eq!(event, wanted);
    for (header, value) in [
        ("content-type", "application/json"),
        ("x-mailkite-attempt", "1"),
        ("webhook-id", id.as_str()),
        ("webhook-timestamp", "1785196800"),
        ("user-agent", concat!("mailkite/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(request.header(header), value, "{header}");
    }
    let delivery = request.header("x-mailkite-delivery");
    assert!(delivery.strip_prefix("dlv_test_").is_some_and(|rest| rest.len() == 16), "{delivery}");
    assert_nothing_stored(&bench).await;
    assert_eq!(bench.owner.get("/api/routes").await.expect(200)[0]["last_status"], Value::Null);
    bench.server.stop().await;
    assert_eq!(receiver.requests().len(), 1);
}

async fn assert_nothing_stored(bench: &Bench) {
    let rows =
        "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM delivery) + (SELECT count(*) FROM attempt)
        + (SELECT count(*) FROM job) + (SELECT count(*) FROM zero_retention_delivery) + (SELECT count(*) FROM mail_data)";
    assert_eq!(bench.server.query::<i64>(rows).await, 0);
}

#[tokio::test]
async fn a_test_reports_what_the_endpoint_answered() {
    let receiver = Receiver::start(|request| match request.path.as_str() {
        "/ack" => Reply::status(200).body(r#"{"status":"ok"}"#),
        "/header" => Reply::status(200).header("x-mailkite-ack", "ok"),
        "/drop" => Reply::status(200).body(r#"{"actions":[{"type":"drop"}],"status":"drop"}"#),
        "/moved" => Reply::redirect(302, "https://app.acme.dev/"),
        "/close" => Reply::close_before_headers(),
        path => Reply::status(path.trim_start_matches('/').parse().unwrap_or(200)),
    });
    let receiver = receiver.await;
    let bench = Bench::new().await;
    let base = format!("http://{}", receiver.address());
    let test = async |url: String, mode: &str| -> Answer {
        put(&bench.owner, json!({"url": url, "ackMode": mode})).await;
        bench.owner.post_nothing(TEST).await
    };
    for (path, mode, ok, status) in [
        ("/500", "lenient", false, 500),
        ("/410", "lenient", false, 410),
        ("/moved", "lenient", false, 302),
        ("/201", "lenient", true, 201),
        ("/200", "ack", false, 200),
        ("/ack", "ack", true, 200),
        ("/header", "ack", true, 200),
        ("/drop", "control", true, 200),
        ("/404", "control", false, 404),
    ] {
        assert_eq!(
            test(format!("{base}{path}"), mode).await.expect(200),
            json!({"ok": ok, "status": status}),
            "{path} {mode}"
        );
    }
    test(format!("{base}/close"), "lenient").await.expect_error(502, "delivery_failed");
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let garbage = raw_peer(b"SSH-2.0-OpenSSH\r\n").await;
    for url in [
        format!("http://{nobody}/"),
        format!("http://{garbage}/"),
        format!("https://{garbage}/"),
        "https://nobody.dev/".to_owned(),
        "https://10.0.0.1/".to_owned(),
        "https://169.254.169.254/latest".to_owned(),
    ] {
        test(url, "lenient").await.expect_error(502, "delivery_failed");
    }
    assert_nothing_stored(&bench).await;
    bench.server.stop().await;
}

#[tokio::test]
async fn tracking_has_its_own_url_and_the_accounts_secret() {
    let bench = Bench::new().await;
    let secret = bench.owner.get("/api/webhooks/secret").await.expect(200)["secret"].clone();
    let scoped = bench.scoped(&bench.owner, "inbox.test").await;
    for (api, secret) in [(&bench.owner, secret), (&scoped, Value::Null)] {
        let set = api.put(TRACKING, json!({"url": " https://app.acme.dev/events "})).await.expect(200);
        let domain = row(&bench.owner, "inbox.test").await;
        let url = "https://app.acme.dev/events";
        assert_eq!(set, json!({"domain": domain, "trackingWebhookUrl": url, "signingSecret": secret}));
        assert_eq!((&domain["trackingWebhookUrl"], &domain["webhookUrl"]), (&json!(url), &Value::Null));
        for _ in 0..2 {
            assert_eq!(api.delete(TRACKING).await.expect(200), json!({"ok": true}));
        }
        assert_eq!(row(&bench.owner, "inbox.test").await["trackingWebhookUrl"], Value::Null);
    }
    // A domain that is not proven may have it: nothing is sent from it yet.
    let body = json!({"url": "https://app.acme.dev/events"});
    bench.owner.put("/api/domains/pending.test/tracking-webhook", body).await.expect(200);
}

#[tokio::test]
async fn sending_events_are_opted_in_by_name_or_all() {
    let bench = Bench::new().await;
    let all = ["email.sent", "email.bounced", "email.complained", "email.opened", "email.clicked"];
    for (given, kept) in [
        (json!("all"), json!("all")),
        (json!(all), json!(all)),
        (json!(["email.opened", "email.sent", "email.opened"]), json!(["email.opened", "email.sent"])),
        (json!(["email.clicked"]), json!(["email.clicked"])),
    ] {
        let set = bench.owner.put(EVENTS, json!({"events": given})).await.expect(200);
        let domain = row(&bench.owner, "inbox.test").await;
        assert_eq!(set, json!({"domain": domain, "events": kept}));
        assert_eq!(domain["webhookEvents"], kept);
    }
    for bad in [
        json!({}),
        json!({"events": null}),
        json!({"events": []}),
        json!({"events": "some"}),
        json!({"events": "ALL"}),
        json!({"events": "email.sent"}),
        json!({"events": ["all"]}),
        json!({"events": ["email.received"]}),
        json!({"events": ["email.sent", "email.scheduled"]}),
        json!({"events": [1]}),
        json!({"events": {"all": true}}),
        json!({"events": true}),
    ] {
        bench.owner.put(EVENTS, bad).await.expect_field(400, "bad_events", "events");
    }
    assert_eq!(row(&bench.owner, "inbox.test").await["webhookEvents"], json!(["email.clicked"]));
    for _ in 0..2 {
        assert_eq!(bench.owner.delete(EVENTS).await.expect(200), json!({"ok": true}));
        assert_eq!(row(&bench.owner, "inbox.test").await["webhookEvents"], json!([]));
    }
}

#[tokio::test]
async fn retention_is_set_field_by_field() {
    let bench = Bench::new().await;
    for (given, zero, days) in [
        (json!({"retentionDays": 1}), false, json!(1)),
        (json!({"retentionDays": 3650}), false, json!(3650)),
        (json!({"zeroRetention": true}), true, json!(3650)),
        (json!({"retentionDays": null}), true, json!(null)),
        (json!({"zeroRetention": null, "retentionDays": 7}), true, json!(7)),
        (json!({"zeroRetention": false, "retentionDays": 8}), false, json!(8)),
    ] {
        let set = bench.owner.put(RETENTION, given.clone()).await.expect(200);
        let domain = row(&bench.owner, "inbox.test").await;
        assert_eq!(set, json!({"domain": domain, "zeroRetention": zero, "retentionDays": days}), "{given}");
        assert_eq!((&domain["zero_retention"], &domain["retention_days"]), (&json!(zero), &days));
    }
    for (bad, field) in [
        (json!({}), "zeroRetention"),
        (json!({"zeroRetention": null}), "zeroRetention"),
        (json!({"zeroRetention": "yes"}), "zeroRetention"),
        (json!({"zeroRetention": 1, "retentionDays": 0}), "zeroRetention"),
        (json!({"retentionDays": 0}), "retentionDays"),
        (json!({"retentionDays": 3651}), "retentionDays"),
        (json!({"retentionDays": -1}), "retentionDays"),
        (json!({"retentionDays": 1.5}), "retentionDays"),
        (json!({"retentionDays": "7"}), "retentionDays"),
        (json!({"retentionDays": 4_294_967_297_u64}), "retentionDays"),
    ] {
        bench.owner.put(RETENTION, bad).await.expect_field(400, "bad_retention", field);
    }
    let domain = row(&bench.owner, "inbox.test").await;
    assert_eq!((&domain["zero_retention"], &domain["retention_days"]), (&json!(false), &json!(8)));
    // Two who set one field each do not undo one another.
    for round in 1..=5 {
        let zero = round % 2 == 1;
        let (one, other) = tokio::join!(
            bench.owner.put(RETENTION, json!({"zeroRetention": zero})),
            bench.owner.put(RETENTION, json!({"retentionDays": round})),
        );
        one.expect(200);
        other.expect(200);
        let domain = row(&bench.owner, "inbox.test").await;
        assert_eq!((&domain["zero_retention"], &domain["retention_days"]), (&json!(zero), &json!(round)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_retention_stores_nothing_from_the_next_mail_on() {
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let mut bench = Bench::new().await;
    put(&bench.owner, json!({"url": receiver.url()})).await;
    let count = "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM delivery)";
    let before = bench.server.accepted("a@inbox.test", "Before").await;
    assert_eq!(receiver.next_request().await.json()["id"], before.as_str());
    bench.server.until("SELECT count(*) FROM delivery WHERE status = 'delivered'", 1_i64).await;
    bench.owner.put(RETENTION, json!({"zeroRetention": true})).await.expect(200);
    let reply = bench.server.mail("a@inbox.test", &message("Passing")).await;
    assert_eq!(reply.code, 250);
    assert_eq!(receiver.next_request().await.json()["subject"], "Passing");
    assert_eq!(bench.server.next_zero_retention_attempt().await.0, "delivered");
    assert_eq!(bench.server.query::<i64>(count).await, 2, "what was stored before stays");
    bench.owner.get(&format!("/api/messages/{before}")).await.expect(200);
    bench.owner.put(RETENTION, json!({"zeroRetention": false})).await.expect(200);
    bench.server.accepted("a@inbox.test", "After").await;
    receiver.next_request().await;
    assert_eq!(bench.server.query::<i64>(count).await, 4);
    bench.server.until("SELECT count(*) FROM delivery WHERE status = 'delivered'", 2_i64).await;
    bench.server.stop().await;
}

#[tokio::test]
async fn a_scoped_key_may_set_all_of_its_own_domain_and_nothing_of_others() {
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let bench = Bench::new().await;
    let other = bench.account("other@example.com").await;
    add(&other, "other.dev").await;
    let scoped = bench.scoped(&bench.owner, "inbox.test").await;
    let all = async |domain: &str| {
        let path = |rest: &str| format!("/api/domains/{domain}/{rest}");
        let url = json!({"url": receiver.url()});
        [
            scoped.put(&path("webhook"), url.clone()).await,
            scoped.get(&path("webhook/secret")).await,
            scoped.post_nothing(&path("webhook/secret/rotate")).await,
            scoped.post_nothing(&path("webhook/test")).await,
            scoped.delete(&path("webhook")).await,
            scoped.put(&path("tracking-webhook"), url).await,
            scoped.delete(&path("tracking-webhook")).await,
            scoped.put(&path("webhook-events"), json!({"events": "all"})).await,
            scoped.delete(&path("webhook-events")).await,
            scoped.put(&path("retention"), json!({"retentionDays": 9})).await,
        ]
    };
    for answer in all("inbox.test").await {
        answer.expect(200);
    }
    for answer in all("pending.test").await {
        answer.expect_error(403, "key_scope");
    }
    for domain in ["other.dev", "nobody.dev", "dom_0000000000000000"] {
        for answer in all(domain).await {
            answer.expect_error(404, "not_found");
        }
    }
    // The scope comes before the fields.
    scoped.put("/api/domains/pending.test/webhook", json!({"url": 7})).await.expect_error(403, "key_scope");
    scoped.put("/api/domains/other.dev/retention", json!({})).await.expect_error(404, "not_found");
    assert_eq!(row(&bench.owner, "pending.test").await["retention_days"], Value::Null);
    assert_eq!(row(&other, "other.dev").await["retention_days"], Value::Null);
}
