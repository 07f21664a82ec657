//! Consent of forward destinations: the proof, declining, limits on asking and on sending.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::json;

use crate::support::forwarding_server::{ForwardingServer, forward, route, text_of};
use crate::support::remote_host::{HostAction, RemoteHost};
use crate::support::server::message;

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_gets_mail_once_somebody_there_has_confirmed() {
    let mut setup = ForwardingServer::start().await;
    let eve = setup.tenant("eve.test", true).await;
    let made = forward(&eve, "*@eve.test", "victim@remote.test").await;
    assert_eq!(made["destination_proven"], false);
    let asked_at = made["destination_asked_at"].as_i64().unwrap();
    assert!(asked_at > 0 && made["destination_declined_at"].is_null());
    // Asked again within the week, nothing is mailed, and the route says so.
    let id = made["id"].as_str().unwrap();
    let again = json!({"destination": "victim@remote.test"});
    let again = eve.patch(&format!("/api/routes/{id}"), again).await.expect(200);
    assert_eq!((&again["destination_proven"], &again["destination_asked_at"]), (&json!(false), &json!(asked_at)));
    let (asked, token) = setup.next_confirmation().await;
    assert_eq!(asked, "victim@remote.test");
    for number in 0..12 {
        assert_eq!(setup.server.mail("a@eve.test", &message(&format!("Spam {number}"))).await.code, 250);
    }
    setup.until_idle().await;
    assert!(setup.remote.is_drained(), "nothing leaves before that");
    assert_eq!(route(&eve).await["last_status"], "unproven");
    let messages = eve.get("/api/messages").await.expect(200);
    assert_eq!(messages.as_array().unwrap().len(), 12, "it is stored all the same");
    let path = format!("/api/messages/{}/transmissions", messages[0]["id"].as_str().unwrap());
    let shown = eve.get(&path).await.expect(200);
    assert_eq!((&shown[0]["settled"], &shown[0]["recipients"][0]["status"]), (&json!(true), &json!("failed")));
    assert!(shown[0]["recipients"][0]["diagnostic"].as_str().unwrap().contains("has not confirmed"), "{shown}");
    // A program that follows links confirms nothing, and neither does somebody who guesses.
    let api = setup.server.anonymous();
    let link = format!("/api/forwards/confirm?token={token}");
    let page = api.get(&link).await;
    assert_eq!((page.status, page.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.headers["content-security-policy"].contains("form-action 'self'"));
    assert!(String::from_utf8_lossy(&page.body).contains("method=\"post\""));
    for wrong in ["", "?token=", "?token=x", &format!("?token={}", token.to_lowercase())] {
        for method in ["GET", "POST"] {
            let page = api.exchange(method, &format!("/api/forwards/confirm{wrong}"), &[], None).await;
            assert_eq!(page.status, 400, "{method} {wrong}");
        }
    }
    assert_eq!(route(&eve).await["destination_proven"], false);
    assert_eq!(api.exchange("POST", &link, &[], None).await.status, 200);
    assert_eq!(route(&eve).await["destination_proven"], true);
    setup.server.mail("a@eve.test", &message("Wanted")).await;
    assert_eq!(setup.remote.next_mail().await.recipients(), ["victim@remote.test"]);
    // Another destination proves itself anew; one on a domain of the account's own need not.
    let aim = async |to: &str| eve.patch(&format!("/api/routes/{id}"), json!({"destination": to})).await.expect(200);
    assert_eq!(aim("next@remote.test").await["destination_proven"], false);
    setup.server.mail("a@eve.test", &message("Next")).await;
    let (asked, token) = setup.next_confirmation().await;
    assert_eq!(asked, "next@remote.test");
    assert_eq!(aim("me@eve.test").await["destination_proven"], true);
    // Who declines is left alone, whoever asks.
    let decline = format!("/api/forwards/decline?token={token}");
    assert_eq!(api.exchange("POST", &decline, &[], None).await.status, 200);
    let mallory = setup.tenant("mallory.test", true).await;
    forward(&mallory, "*@mallory.test", "next+again@remote.test").await;
    let declined = aim("next@remote.test").await;
    assert!(declined["destination_declined_at"].as_i64().unwrap() >= asked_at, "{declined}");
    setup.until_idle().await;
    assert!(setup.remote.is_drained());
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_proof_says_nothing_in_a_local_part() {
    let mut setup = ForwardingServer::start().await;
    let eve = setup.tenant("eve.test", true).await;
    let text =
        "UPDATE account SET email = '\"win at http://evil.test/x now\"@eve.test' WHERE email = 'owner@eve.test'";
    setup.server.write(move |tx, _, _| Ok(tx.execute(text, [])?)).await;
    forward(&eve, "*@eve.test", "victim@remote.test").await;
    let text = text_of(&setup.remote.next_mail().await);
    assert!(text.contains("an address at eve.test wants to forward mail"), "{text}");
    assert!(!text.contains("evil.test"), "{text}");
    setup.until_idle().await;
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_declines_gets_nothing_of_what_waits_for_it() {
    let deferring = Arc::new(AtomicBool::new(false));
    let script = {
        let deferring = Arc::clone(&deferring);
        move |what: &str, _| {
            let defers = what.starts_with("RCPT ") && deferring.load(Ordering::SeqCst);
            defers.then(|| HostAction::Send("451 4.3.0 later\r\n".to_owned()))
        }
    };
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let mut setup = ForwardingServer::start_at(clock, RemoteHost::scripted(script).await, |_| {}).await;
    let eve = setup.tenant("eve.test", true).await;
    forward(&eve, "*@eve.test", "victim@remote.test").await;
    let (_, token) = setup.next_confirmation().await;
    let answer = async |answer: &str| {
        let link = format!("/api/forwards/{answer}?token={token}");
        assert_eq!(setup.server.anonymous().exchange("POST", &link, &[], None).await.status, 200);
    };
    answer("confirm").await;
    deferring.store(true, Ordering::SeqCst);
    setup.server.accepted("a@eve.test", "Waits").await;
    setup.server.until("SELECT last_status FROM route", "deferred".to_owned()).await;
    answer("decline").await;
    deferring.store(false, Ordering::SeqCst);
    setup.server.clock.advance(Duration::from_secs(24 * 3_600));
    setup.until_idle().await;
    assert!(setup.remote.is_drained());
    assert_eq!(route(&eve).await["last_status"], "unproven");
    let messages = eve.get("/api/messages").await.expect(200);
    let path = format!("/api/messages/{}/transmissions", messages[0]["id"].as_str().unwrap());
    let shown = eve.get(&path).await.expect(200);
    assert_eq!((&shown[0]["settled"], &shown[0]["recipients"][0]["status"]), (&json!(true), &json!("bounced")));
    assert!(shown[0]["recipients"][0]["diagnostic"].as_str().unwrap().contains("has not confirmed"), "{shown}");
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_a_proof_is_no_way_to_flood_anybody() {
    let mut setup = ForwardingServer::start().await;
    let eve = setup.tenant("eve.test", true).await;
    for number in 0..15 {
        forward(&eve, "*@eve.test", &format!("v{number}@remote.test")).await;
    }
    let mut asked = Vec::new();
    for _ in 0..10 {
        asked.push(setup.next_confirmation().await.0);
    }
    asked.sort();
    let wanted: Vec<String> = (0..10).map(|number| format!("v{number}@remote.test")).collect();
    assert_eq!(asked, wanted, "ten a day for one account");
    for domain in ["a.test", "b.test", "c.test", "d.test"] {
        let one = setup.tenant(domain, true).await;
        let id = forward(&one, &format!("*@{domain}"), "victim@remote.test").await["id"].clone();
        let path = format!("/api/routes/{}", id.as_str().unwrap());
        one.patch(&path, json!({"destination": "victim@remote.test"})).await.expect(200);
        one.patch(&path, json!({"destination": "Victim+x@remote.test"})).await.expect(200);
    }
    for _ in 0..3 {
        assert_eq!(
            setup.next_confirmation().await.0,
            "victim@remote.test",
            "once for an account, three times for all"
        );
    }
    setup.until_idle().await;
    assert!(setup.remote.is_drained());
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forwarded_counts_against_the_rate_of_its_account_and_leaves_later_beyond_it() {
    // It stands still, so what the rate allows at once is all it allows.
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let mut setup = ForwardingServer::start_with(clock, |config| config.limits.requests_per_second = 2).await;
    forward(&setup.owner, "*@inbox.test", "ada@remote.test").await;
    for number in 0..6 {
        setup.server.accepted("a@inbox.test", &format!("Number {number}")).await;
    }
    for _ in 0..3 {
        setup.remote.next_mail().await;
    }
    setup.server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 3_i64).await;
    setup.owner.get("/v1/me").await.expect_error(429, "rate_limited");
    assert!(setup.remote.is_drained(), "four at once, and one was the request that made the route");
    assert_eq!(setup.server.query::<i64>("SELECT count(*) FROM recipient WHERE status = 'queued'").await, 3);
    for (seconds, leave) in [(1, 2), (1, 1)] {
        setup.server.clock.advance(Duration::from_secs(seconds));
        for _ in 0..leave {
            assert_eq!(setup.remote.next_mail().await.recipients(), ["ada@remote.test"]);
        }
    }
    setup.until_idle().await;
    assert_eq!(setup.server.query::<i64>("SELECT count(*) FROM recipient WHERE status = 'sent'").await, 6);
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suppressed_destination_gets_nothing_forwarded() {
    let mut setup = ForwardingServer::start().await;
    forward(&setup.owner, "*@inbox.test", "Ada@remote.test").await;
    setup.owner.post("/api/contacts/suppressions", json!({"email": "ada@remote.test"})).await;
    setup.server.accepted("a@inbox.test", "Held").await;
    setup.until_idle().await;
    assert_eq!(route(&setup.owner).await["last_status"], "suppressed");
    assert!(setup.remote.is_drained());
    setup.owner.delete("/api/contacts/suppressions/ada@remote.test").await.expect(200);
    setup.server.accepted("a@inbox.test", "Free").await;
    assert_eq!(setup.remote.next_mail().await.recipients(), ["Ada@remote.test"]);
    setup.until_idle().await;
    setup.server.stop().await;
}
