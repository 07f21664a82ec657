//! Routes over HTTP (contract 4), their replay (6.4), and messages handed to them (4.5).

use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;

const URL: &str = "https://app.example/hook";
const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn create(api: &Api, body: Value) -> Value {
    api.post("/api/routes", body).await.expect(201)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_match_makes_a_route_and_is_kept_in_one_form() {
    let server = Server::start().await;
    let owner = server.owner().await;
    for (written, kept) in [
        ("support@inbox.test", "support@inbox.test"),
        (" Sales@INBOX.test ", "sales@inbox.test"),
        ("*@inbox.test", "*@inbox.test"),
        ("ticket+*@inbox.test", "ticket+*@inbox.test"),
        ("sales-*@inbox.test", "sales-*@inbox.test"),
        ("*-bot@inbox.test", "*-bot@inbox.test"),
        ("/^a.*@inbox\\.test$/", "/^a.*@inbox\\.test$/"),
        ("/B/i", "/B/i"),
    ] {
        let made = create(&owner, json!({"match": written, "destination": URL})).await;
        assert_eq!(made["match_pattern"], kept, "{written}");
        assert_eq!(
            (&made["action"], &made["ack_mode"], &made["active"]),
            (&json!("webhook"), &json!("lenient"), &json!(true))
        );
        assert!(text(&made["signing_secret"]).starts_with("whsec_"));
    }
    let listed = owner.get("/api/routes").await.expect(200);
    let matches: Vec<&str> =
        listed.as_array().unwrap().iter().map(|row| row["match_pattern"].as_str().unwrap()).collect();
    assert_eq!(matches.first(), Some(&"support@inbox.test"), "oldest first");
    assert_eq!(matches.len(), 8);
    let keys: Vec<&String> = listed[0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "id",
            "user_id",
            "match_pattern",
            "action",
            "destination",
            "ack_mode",
            "active",
            "is_domain_webhook",
            "agent_prompt",
            "agent_forward_to",
            "agent_context",
            "last_status",
            "last_status_code",
            "on_auth_fail",
            "destination_proven",
            "destination_asked_at",
            "destination_declined_at",
            "paused_until",
            "created_at",
            "updated_at"
        ]
    );
    for (match_pattern, code) in [
        (Value::Null, "match_required"),
        (json!(""), "match_required"),
        (json!("  "), "match_required"),
        (json!(5), "match_required"),
        (json!("nobody"), "bad_match"),
        (json!("@inbox.test"), "bad_match"),
        (json!("a*b*@inbox.test"), "bad_match"),
        (json!("a@*.test"), "bad_match"),
        (json!("a b@inbox.test"), "bad_match"),
        (json!("support\u{200d}@inbox.test"), "bad_match"),
        (json!("\u{202e}*@inbox.test"), "bad_match"),
        (json!("a\r\n@inbox.test"), "bad_match"),
        (json!("/(/"), "bad_match"),
        (json!("/(?=x)/"), "bad_match"),
        (json!("/a{1000}{1000}/"), "bad_match"),
        (json!("/x"), "bad_match"),
        (json!(format!("/{}/", "x".repeat(600))), "bad_match"),
    ] {
        let refused = owner.post("/api/routes", json!({"match": match_pattern, "destination": URL})).await;
        refused.expect_field(400, code, "match");
    }
    let foreign = owner.post("/api/routes", json!({"match": "a@example.org", "destination": URL})).await;
    foreign.expect_error(404, "domain_not_owned");
    assert!(foreign.json.get("field").is_none(), "only a 400 names a field");
    owner
        .post("/api/routes", json!({"match": "a@pending.test", "destination": URL}))
        .await
        .expect_error(409, "domain_not_verified");
    for same in ["support@inbox.test", "SUPPORT@inbox.test", "/b/i"] {
        owner.post("/api/routes", json!({"match": same, "destination": URL})).await.expect_error(409, "route_exists");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_says_what_its_destination_is() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let stored = create(&owner, json!({"match": "a@inbox.test", "action": "store", "destination": ""})).await;
    assert_eq!(
        (&stored["destination"], &stored["ack_mode"], &stored["signing_secret"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    create(&owner, json!({"match": "b@inbox.test", "action": "drop"})).await;
    let forward =
        create(&owner, json!({"match": "c@inbox.test", "action": "forward", "destination": "ada@example.com"})).await;
    assert_eq!(forward["destination"], "ada@example.com");
    let strict = create(&owner, json!({"match": "d@inbox.test", "destination": URL, "ackMode": "control"})).await;
    assert_eq!(strict["ack_mode"], "control");
    for (fields, code, field) in [
        (json!({"action": "agent"}), "agent_not_supported", "action"),
        (json!({"action": "teleport"}), "bad_request", "action"),
        (json!({"action": 7}), "bad_request", "action"),
        (json!({}), "bad_url", "destination"),
        (json!({"destination": "http://app.example/"}), "bad_url", "destination"),
        (json!({"destination": "https://user:pw@app.example/"}), "bad_url", "destination"),
        (json!({"destination": "ftp://app.example/"}), "bad_url", "destination"),
        (json!({"destination": 5}), "bad_url", "destination"),
        (json!({"action": "forward"}), "bad_address", "destination"),
        (json!({"action": "forward", "destination": "a@b, c@d"}), "bad_address", "destination"),
        (json!({"action": "forward", "destination": "a@b\r\nBcc: c@d"}), "bad_address", "destination"),
        (json!({"action": "store", "destination": URL}), "bad_request", "destination"),
        (json!({"action": "drop", "destination": "x"}), "bad_request", "destination"),
        (json!({"destination": URL, "ackMode": "maybe"}), "bad_request", "ackMode"),
    ] {
        let mut body = json!({"match": "z@inbox.test"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        owner.post("/api/routes", body.clone()).await.expect_field(400, code, field);
    }
    let rows = owner.get("/api/routes").await.expect(200);
    assert_eq!(rows.as_array().unwrap().len(), 4, "what was refused made nothing");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_changed_paused_resumed_and_removed() {
    let mut server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    let mut receiver = Receiver::start(|_| Reply::status(500)).await;
    let made = create(&owner, json!({"match": "a@inbox.test", "destination": receiver.url()})).await;
    let path = format!("/api/routes/{}", text(&made["id"]));
    server.accepted("a@inbox.test", "one").await;
    receiver.next_request().await;
    assert_eq!(server.next_attempt().await.status, "pending");
    let row = owner.get("/api/routes").await.expect(200)[0].clone();
    assert_eq!((&row["last_status"], &row["last_status_code"]), (&json!("failed"), &json!(500)));

    // Paused: what it owes ends, and mail is only stored.
    let paused = owner.patch(&path, json!({"active": false})).await.expect(200);
    assert_eq!((&paused["active"], &paused["destination"]), (&json!(false), &made["destination"]));
    server.until("SELECT count(*) FROM delivery WHERE status = 'failed' AND last_error = 'route_gone'", 1_i64).await;
    server.accepted("a@inbox.test", "two").await;
    assert_eq!(server.query::<i64>("SELECT count(*) FROM delivery").await, 1);
    assert_eq!(owner.patch(&path, json!({"active": true})).await.expect(200)["active"], true);

    let changed =
        owner.patch(&path, json!({"match": "B@inbox.test", "ackMode": "ack", "destination": URL})).await.expect(200);
    assert_eq!(
        (&changed["match_pattern"], &changed["ack_mode"], &changed["destination"]),
        (&json!("b@inbox.test"), &json!("ack"), &json!(URL))
    );
    create(&owner, json!({"match": "c@inbox.test", "destination": URL})).await;
    owner.patch(&path, json!({"match": "c@inbox.test"})).await.expect_error(409, "route_exists");
    owner.patch(&path, json!({"match": "x@pending.test"})).await.expect_error(409, "domain_not_verified");
    owner.patch(&path, json!({"match": "x@example.org"})).await.expect_error(404, "domain_not_owned");
    owner.patch(&path, json!({"destination": "nothing"})).await.expect_field(400, "bad_url", "destination");
    owner.patch(&path, json!({"active": "yes"})).await.expect_field(400, "bad_request", "active");
    owner.patch(&path, json!({"ackMode": "x"})).await.expect_field(400, "bad_request", "ackMode");
    assert_eq!(owner.patch(&path, json!({})).await.expect(200)["match_pattern"], "b@inbox.test");

    let rotated = owner.post_nothing(&format!("{path}/secret/rotate")).await.expect(200);
    assert_ne!(rotated["secret"], made["signing_secret"]);
    assert_eq!(rotated["previousValidUntil"], NOW.plus(Duration::from_secs(86_400)).as_millis());
    owner.delete(&path).await.expect(200);
    owner.delete(&path).await.expect_error(404, "not_found");

    let route = create(&owner, json!({"match": "s@inbox.test", "action": "store"})).await;
    let path = format!("/api/routes/{}", text(&route["id"]));
    owner.post_nothing(&format!("{path}/secret/rotate")).await.expect_error(400, "route_action");
    owner.get(&format!("{path}/candidates")).await.expect_error(400, "route_action");
    owner.post(&format!("{path}/deliver"), json!({"messageIds": ["msg_x"]})).await.expect_error(400, "route_action");
    owner.patch(&path, json!({"destination": URL})).await.expect_field(400, "bad_request", "destination");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_matching_route_runs_and_a_drop_beats_them_all() {
    let mut server = Server::start().await;
    let owner = server.owner().await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    for (match_pattern, path) in [("*@inbox.test", "all"), ("sales+*@inbox.test", "plus"), ("/^SALES/i", "regex")] {
        create(&owner, json!({"match": match_pattern, "destination": format!("{}{path}", receiver.url())})).await;
    }
    create(&owner, json!({"match": "noise@inbox.test", "action": "drop"})).await;
    server.accepted("Sales+eu@inbox.test", "fan out").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(receiver.next_request().await.json()["id"].clone());
        server.next_attempt().await;
    }
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "one event for all: {ids:?}");
    server.accepted("noise@inbox.test", "noise").await;
    let messages = owner.get("/api/messages").await.expect(200);
    assert_eq!(messages.as_array().unwrap().len(), 1, "nothing is kept of what is dropped");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_mail_is_found_for_a_new_route_and_posted_to_it() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(server.accepted("late@inbox.test", &format!("mail {number}")).await);
    }
    server.accepted("other@inbox.test", "not covered").await;
    let made = create(&owner, json!({"match": "late@inbox.test", "destination": receiver.url()})).await;
    let path = format!("/api/routes/{}", text(&made["id"]));
    let first = owner.get(&format!("{path}/candidates?limit=3")).await.expect(200);
    let listed: Vec<String> = first["messages"].as_array().unwrap().iter().map(|row| text(&row["id"])).collect();
    assert_eq!(listed, [ids[4].clone(), ids[3].clone(), ids[2].clone()]);
    assert_eq!(first["messages"][0]["delivered_here"], false);
    let next = owner.get(&format!("{path}/candidates?before={}", first["nextBefore"])).await.expect(200);
    assert_eq!((next["messages"].as_array().unwrap().len(), &next["nextBefore"]), (2, &Value::Null));
    owner.get(&format!("{path}/candidates?before=x")).await.expect_field(400, "bad_query", "before");

    let body = json!({"messageIds": [ids[4], "msg_0000000000000000", ids[0]]});
    let results = owner.post(&format!("{path}/deliver"), body).await.expect(200);
    let rows = results["results"].as_array().unwrap();
    assert_eq!((&rows[0]["id"], &rows[0]["ok"], &rows[0]["status"]), (&json!(ids[4]), &json!(true), &json!(200)));
    assert_eq!((&rows[1]["ok"], &rows[1]["reason"]), (&json!(false), &json!("not_found")));
    assert_eq!(rows[1].get("status"), None);
    assert_eq!(rows[2]["ok"], true);
    assert_eq!(receiver.requests().len(), 2);
    let again = owner.get(&format!("{path}/candidates")).await.expect(200);
    assert_eq!(again["messages"][0]["delivered_here"], true);
    for bad in [json!({}), json!({"messageIds": []}), json!({"messageIds": vec!["msg_x"; 51]})] {
        owner.post(&format!("{path}/deliver"), bad).await.expect_field(400, "bad_request", "messageIds");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_handed_to_a_route_as_if_it_had_arrived_by_mail() {
    let mut server = Server::start().await;
    let owner = server.owner().await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let made = create(&owner, json!({"match": "ticket+*@inbox.test", "destination": receiver.url()})).await;
    let handed = owner
        .post(
            "/v1/route",
            json!({"from": "Ada L\u{f6}ve <ada@example.com>", "routeId": made["id"], "subject": "Gr\u{fc}\u{df}e",
                "text": "Hallo\n.\nWelt", "html": "<p>Hallo \u{1f44b}</p>"}),
        )
        .await
        .expect(202);
    assert_eq!((&handed["routed"], &handed["action"]), (&json!(true), &json!("webhook")));
    let event = receiver.next_request().await.json();
    server.next_attempt().await;
    assert_eq!(event["id"], handed["id"]);
    assert_eq!(event["to"], json!([{"address": "ticket+route@inbox.test"}]));
    assert_eq!(event["from"], json!({"address": "ada@example.com", "name": "Ada L\u{f6}ve"}));
    assert_eq!(event["subject"], "Gr\u{fc}\u{df}e");
    assert_eq!(text(&event["text"]).replace("\r\n", "\n").trim_end(), "Hallo\n.\nWelt");
    assert_eq!(text(&event["html"]).trim_end(), "<p>Hallo \u{1f44b}</p>");
    assert_eq!(event["auth"], json!({"spf": null, "dkim": null, "dmarc": null, "spam": null}));

    let by_address =
        owner.post("/v1/route", json!({"from": "a@b.example", "address": "Ticket+7@inbox.test", "text": "x"})).await;
    by_address.expect(202);
    assert_eq!(receiver.next_request().await.json()["to"][0]["address"], "Ticket+7@inbox.test");
    server.next_attempt().await;

    let regex = create(&owner, json!({"match": "/^r/", "action": "store"})).await;
    owner.post("/v1/route", json!({"from": "a@b.example", "routeId": regex["id"]})).await.expect_field(
        400,
        "bad_request",
        "address",
    );
    let stored =
        owner.post("/v1/route", json!({"from": "a@b.example", "routeId": regex["id"], "address": "rex@inbox.test"}));
    let stored = stored.await.expect(202);
    assert_eq!(stored["routed"], false);
    // It belongs to its recipient's domain, although the route belongs to none.
    let listed = owner.get("/api/messages?domain=inbox.test&limit=1").await.expect(200);
    assert_eq!(listed[0]["id"], stored["id"]);
    let dropping = create(&owner, json!({"match": "drop@inbox.test", "action": "drop"})).await;
    let gone = owner.post("/v1/route", json!({"from": "a@b.example", "routeId": dropping["id"]})).await.expect(202);
    assert_eq!((&gone["routed"], &gone["action"]), (&json!(false), &json!("drop")));
    owner.get(&format!("/api/messages/{}", text(&gone["id"]))).await.expect_error(404, "not_found");

    for (body, field) in [
        (json!({"routeId": made["id"]}), "from"),
        (json!({"from": "nobody", "routeId": made["id"]}), "from"),
        (json!({"from": "a@b.example\r\nBcc: c@d.example", "routeId": made["id"]}), "from"),
        (json!({"from": "a@b.example"}), "routeId"),
        (json!({"from": "a@b.example", "address": "nobody"}), "address"),
        (json!({"from": "a@b.example", "routeId": made["id"], "subject": "a\r\nBcc: c@d.example"}), "subject"),
    ] {
        owner.post("/v1/route", body).await.expect_field(400, "bad_request", field);
    }
    for nowhere in ["x@inbox.test", "ticket@inbox.test", "ticket+1@example.org"] {
        let body = json!({"from": "a@b.example", "address": nowhere});
        owner.post("/v1/route", body).await.expect_error(404, "not_found");
    }
    // Only recipients on verified domains reach any route.
    server
        .write(|tx, _, _| Ok(tx.execute_batch("UPDATE domain SET status = 'pending' WHERE name = 'inbox.test'")?))
        .await;
    for unproven in [json!({"routeId": made["id"]}), json!({"address": "ticket+1@inbox.test"})] {
        let mut body = unproven;
        body["from"] = json!("a@b.example");
        owner.post("/v1/route", body).await.expect_error(404, "not_found");
    }
    server
        .write(|tx, _, _| Ok(tx.execute_batch("UPDATE domain SET status = 'verified' WHERE name = 'inbox.test'")?))
        .await;
    owner.patch(&format!("/api/routes/{}", text(&made["id"])), json!({"active": false})).await.expect(200);
    let paused = json!({"from": "a@b.example", "routeId": made["id"]});
    owner.post("/v1/route", paused).await.expect_error(404, "not_found");
    server.stop().await;
}
