//! The storage limit of an account: what counts, and what happens when it is full.

use std::time::Duration;

use futures_util::future::join_all;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::config::Signup;
use mailkite::testing::retention::Retention;
use mailkite::testing::store::blobs::objects::Objects;
use serde_json::{Value, json};

use super::limits::{file, other, route};
use crate::support::api::Api;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::{Server, message};
use crate::support::smtp::SmtpClient;

async fn used(api: &Api) -> u64 {
    api.get("/v1/me").await.expect(200)["storage"]["used"].as_u64().unwrap()
}

/// Bytes that all recorded attempts count for.
async fn captured(server: &Server) -> u64 {
    server
        .query::<u64>(
            "SELECT coalesce(sum(300 + octet_length(request_url) + octet_length(request_headers)
                                 + octet_length(response_headers) + octet_length(response_body)), 0) FROM attempt",
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_full_stores_nothing_more_until_something_goes() {
    let server = Server::start_with(Clock::System, |config| {
        (config.auth.signup, config.limits.storage_bytes) = (Signup::Open, 300_000);
    })
    .await;
    let (ada, _) = other(&server, true).await;
    assert_eq!(used(&ada).await, 0);
    let uploads = join_all((0..8).map(|_| ada.post("/v1/attachments", file(90_000)))).await;
    let made = uploads.iter().filter(|answer| answer.status == 201).count();
    uploads.iter().filter(|answer| answer.status != 201).for_each(|answer| answer.expect_error(409, "limit_reached"));
    assert_eq!((made, used(&ada).await), (3, 270_000));
    // A mail may be larger than what is left; after it nothing comes in.
    let large = message("large") + &format!("{}\r\n", "x".repeat(70)).repeat(700);
    let reply = server.mail("a@other.test", &large).await;
    assert_eq!(reply.code, 250, "{reply:?}");
    let full = used(&ada).await;
    assert!(full > 300_000, "{full}");
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    client.expect("MAIL FROM:<ada@example.com>", 250).await;
    assert!(client.command("RCPT TO:<a@other.test>").await.text().starts_with("452 4.2.2 "));
    client.expect("RCPT TO:<a@inbox.test>", 250).await;
    for (path, body) in [
        ("/v1/attachments", file(1)),
        ("/api/templates", json!({"name": "T", "html": "<b>"})),
        ("/v1/send", json!({"from": "a@other.test", "to": "b@example.com", "subject": "s", "text": "t"})),
    ] {
        ada.post(path, body).await.expect_error(409, "limit_reached");
    }
    let usage = ada.get("/api/billing/usage").await.expect(200);
    assert_eq!(usage["storage"], json!({"used": full, "limit": 300_000}));
    let owner = server.owner().await.get("/v1/me").await.expect(200);
    assert_eq!(owner["storage"]["limit"], Value::Null, "the owner knows the disk");
    let listed = ada.get("/api/messages").await.expect(200);
    ada.delete(&format!("/api/messages/{}", listed[0]["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(used(&ada).await, 270_000);
    assert_eq!(server.mail("a@other.test", &message("again")).await.code, 250);
    assert_eq!(used(&ada).await, 270_000 + 2048 + message("again").len() as u64);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_counted_exactly_and_all_of_it_given_back() {
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let mut server = Server::start_with(clock, |config| config.auth.signup = Signup::Open).await;
    let (ada, id) = other(&server, true).await;
    // A key, because a session does not outlive what happens to the clock below.
    let key = ada.get("/api/keys").await.expect(200)["key"].as_str().unwrap().to_owned();
    let ada = ada.with(key);
    let receiver = Receiver::start(|_| Reply::status(200).body("x".repeat(50_000))).await;
    ada.put("/api/domains/other.test/webhook", json!({"url": receiver.url()})).await.expect(200);
    let template = ada.post("/api/templates", json!({"name": "T", "html": "x".repeat(3000)})).await.expect(201);
    let path = format!("/api/templates/{}", template["id"].as_str().unwrap());
    assert_eq!(used(&ada).await, 3500);
    ada.put(&path, json!({"name": "T", "html": "x".repeat(1000)})).await.expect(200);
    assert_eq!(used(&ada).await, 1500);
    let mut wanted = 1500;
    for subject in ["one", "two", "three"] {
        assert_eq!(server.mail("a@other.test", &message(subject)).await.code, 250);
        assert_eq!(server.next_attempt().await.status, "delivered");
        wanted += 2048 + message(subject).len() as u64;
        server.until("SELECT count(*) FROM job WHERE kind <> 'notice'", 0).await;
        assert_eq!(used(&ada).await, wanted + captured(&server).await, "{subject}");
    }
    assert!(captured(&server).await > 150_000);
    // The clock goes back by a day: what comes then is not the latest, and is counted, with both of its deliveries.
    ada.post("/api/routes", route("a@other.test", "webhook", &receiver.url())).await.expect(201);
    server.clock.set(Timestamp::from_millis(1_785_196_800_000 - 86_400_000));
    assert_eq!(server.mail("a@other.test", &message("back")).await.code, 250);
    for _ in 0..2 {
        assert_eq!(server.next_attempt().await.status, "delivered");
    }
    server.until("SELECT count(*) FROM job WHERE kind <> 'notice'", 0).await;
    wanted += 2 * 2048 + message("back").len() as u64;
    assert_eq!(used(&ada).await, wanted + captured(&server).await);
    // A week later the raw copies are condensed, and 45 days later all is gone.
    let retention = Retention {
        db: server.db.clone(),
        objects: Objects::open(server.data_dir()).unwrap(),
        clock: server.clock.clone(),
        default_days: 30,
    };
    let days = |days: u64| Timestamp::from_millis(1_785_196_800_000).plus(Duration::from_secs(days * 86_400));
    retention.sweep(days(8)).await.unwrap();
    let bodies = server
        .write(move |tx, _, _| {
            let sql = "SELECT sum(octet_length(body)) FROM message WHERE account_id = ?1 AND mail_data_id IS NULL";
            Ok(tx.query_row(sql, [id], |row| row.get::<_, u64>(0))?)
        })
        .await;
    assert_eq!(used(&ada).await, 1500 + 5 * 2048 + bodies + captured(&server).await);
    let listed = ada.get("/api/messages").await.expect(200);
    ada.delete(&format!("/api/messages/{}", listed[0]["id"].as_str().unwrap())).await.expect(200);
    retention.sweep(days(60)).await.unwrap();
    ada.delete(&path).await.expect(200);
    assert_eq!(used(&ada).await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_count_the_newest_200_are_kept_and_a_full_account_asks_for_none() {
    const MOST: u64 = 3_500_000;
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let mut server = Server::start_with(clock, |config| {
        (config.auth.signup, config.http.rate_limit) = (Signup::Open, 0);
        (config.limits.storage_bytes, config.limits.requests_per_second) = (MOST, 0);
    })
    .await;
    let (ada, _) = other(&server, true).await;
    let receiver = Receiver::start(|_| {
        let reply = Reply::status(503).body("x".repeat(4_000));
        (0..40).fold(reply, |reply, _| reply.header("x-filler", &"y".repeat(900)))
    })
    .await;
    ada.put("/api/domains/other.test/webhook", json!({"url": receiver.url()})).await.expect(200);
    assert_eq!(server.mail("a@other.test", &message("one")).await.code, 250);
    assert_eq!(server.next_attempt().await.status, "pending");
    let (without, first) = (used(&ada).await - captured(&server).await, captured(&server).await);
    assert!((12_000..16_000).contains(&first), "{first}");
    let delivery = server.query::<String>("SELECT public_id FROM delivery").await;
    let path = format!("/api/deliveries/{delivery}/retry");
    let again = async || {
        for _ in 0..1_000 {
            let answer = ada.post_nothing(&path).await;
            if answer.status != 409 {
                return assert_eq!(answer.expect(200)["status"], 503);
            }
            // The engine may hold the delivery at this moment.
            answer.expect_error(409, "attempt_in_progress");
        }
        panic!("it is held for ever");
    };
    for _ in 0..205 {
        again().await;
    }
    let attempts = "SELECT count(*) || ' ' || min(attempt) || ' ' || max(attempt) FROM attempt";
    assert_eq!(server.query::<String>(attempts).await, "200 7 206");
    assert_eq!(used(&ada).await, without + captured(&server).await);
    let attempts = ada.get(&format!("/api/deliveries/{delivery}/attempts")).await.expect(200);
    let filler = attempts[0]["response_headers"]["x-filler"].as_str().unwrap();
    assert!((7_000..8_192).contains(&filler.len()), "{}", filler.len());

    let left = usize::try_from(MOST - used(&ada).await).unwrap();
    ada.post("/v1/attachments", file(left)).await.expect(201);
    assert_eq!(used(&ada).await, MOST);
    let asked = receiver.requests().len();
    ada.post_nothing(&path).await.expect_error(409, "limit_reached");
    ada.post("/api/deliveries/retry", json!({"deliveryIds": [delivery]})).await.expect_error(409, "limit_reached");
    let route =
        server.query::<String>("SELECT public_id FROM route WHERE action = 'webhook' AND account_id > 1").await;
    let message = server.query::<String>("SELECT public_id FROM message").await;
    let deliver = json!({"messageIds": [message]});
    ada.post(&format!("/api/routes/{route}/deliver"), deliver).await.expect_error(409, "limit_reached");
    assert_eq!((receiver.requests().len(), used(&ada).await), (asked, MOST));
    // What goes makes room for the next.
    server.write(|tx, _, _| Ok(tx.execute("DELETE FROM upload", [])?)).await;
    again().await;
    let message = server.query::<String>("SELECT public_id FROM message").await;
    ada.delete(&format!("/api/messages/{message}")).await.expect(200);
    server.write(|tx, _, _| Ok(tx.execute("DELETE FROM delivery", [])?)).await;
    assert_eq!(used(&ada).await, 0, "they go with their delivery");
    server.stop_with_any_jobs().await;
}
