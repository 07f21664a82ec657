//! Accounts take turns: what one leaves in a lane is no wait of another's.

use std::time::Duration;

use mailkite::clock::Clock;
use mailkite::store;
use mailkite::store::jobs::Kind;
use serde_json::json;

use super::support::dns::DnsServer;
use super::support::receiver::{Receiver, Reply};
use super::support::remote::Remote;
use super::support::server::Server;

/// Deliveries of the owner to `url` with their jobs, due for a minute: they wait in the table.
async fn backlog(server: &Server, url: &str, count: i64) {
    let flow = mailkite::webhook::flow_of(url, server.inbox.account_id);
    server
        .write(move |tx, _, now| {
            let due = now.minus(Duration::from_secs(60));
            for n in 0..count {
                let id = 1_000_000 + n;
                tx.execute(
                    "INSERT INTO delivery (id, public_id, account_id, message_id, route_id, event_id, event_type, url,
                                           status, created_at, updated_at)
                     SELECT ?1, printf('dlv_%016d', ?1), account_id, message_id, route_id, event_id, event_type, url,
                            'pending', created_at, updated_at
                     FROM delivery ORDER BY id LIMIT 1",
                    [id],
                )?;
                store::jobs::insert(tx, &flow, Kind::Webhook, id, due)?;
            }
            Ok(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_one_account_at_an_origin_is_nobody_elses_wait() {
    let receiver = Receiver::start(|_| Reply::status(200).after(Duration::from_millis(20))).await;
    let server = Server::start_with(Clock::System, |config| config.webhook.lane_width = 2).await;
    let hook = server.webhook(&receiver.url()).await;
    let victim = receiver.url().replace("/hook", "/victim");
    server.other_account("victim.test", &victim).await;
    server.accepted("a@inbox.test", "First").await;
    server.until("SELECT count(*) FROM delivery WHERE status = 'delivered'", 1_i64).await;
    backlog(&server, &hook.url, 3_000).await;
    server.advance(Duration::ZERO, &hook.url);
    server.until("SELECT count(*) > 20 FROM delivery WHERE status = 'delivered'", true).await;

    for number in 0..5 {
        let before = receiver.requests().len();
        server.accepted("a@victim.test", &format!("Honest {number}")).await;
        let place = loop {
            let requests = receiver.requests();
            let victims: Vec<usize> =
                (0..requests.len()).filter(|place| requests[*place].path == "/victim").collect();
            if let Some(place) = victims.get(number) {
                break *place;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(place - before < 150, "mail {number} came {} requests later", place - before);
    }
    server.until("SELECT count(*) > 200 FROM delivery WHERE status = 'pending'", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_mail_of_one_account_to_a_domain_is_nobody_elses_wait() {
    let dns = DnsServer::start().await;
    let mut remote = Remote::start().await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    let port = remote.address.port();
    let server = Server::start_with(Clock::System, |config| {
        config.dns.servers = vec![dns.address];
        config.outbound.smarthost = None;
        config.outbound.port = port;
        config.outbound.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
        config.outbound.lane_width = 1;
        // A message each half second: the backlog stays one.
        config.outbound.domain_rate_per_minute = 120;
    })
    .await;
    let owner = server.owner().await;
    let honest = server.other_account("honest.test", "https://hooks.example/").await;
    drop(honest);
    let key = server
        .write(|tx, secrets, now| {
            let account = store::accounts::find_by_email(tx, "owner@honest.test")?.unwrap();
            let key = mailkite::secrets::new_api_key();
            let sealed = secrets.seal(store::keys::PURPOSE, key.as_bytes());
            store::keys::insert(tx, account.id, &mailkite::secrets::token_hash(&key), &sealed, now)?;
            Ok(key)
        })
        .await;
    let honest = server.anonymous().with(key);
    for batch in 0..4 {
        let recipients: Vec<_> = (0..50).map(|n| json!({"to": format!("m{batch}.{n}@remote.test")})).collect();
        let body = json!({"from": "hi@inbox.test", "subject": "Bulk", "text": "x", "recipients": recipients});
        owner.post("/v1/send/batch", body).await.expect(200);
    }
    remote.taken().await;
    let body = json!({"from": "hi@honest.test", "to": "ada@remote.test", "subject": "Hi", "text": "It branches."});
    honest.post("/v1/send", body).await.expect(202);
    let mut place = 0;
    while remote.taken().await.recipients() != ["ada@remote.test"] {
        place += 1;
        assert!(place < 10, "the 200 others go first");
    }
}
