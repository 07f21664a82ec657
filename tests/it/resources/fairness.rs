//! Fair queueing: the backlog of one account in a lane delays no other account.

use mailkite::testing::id::RowId;
use std::time::Duration;

use mailkite::testing::clock::Clock;
use mailkite::testing::memory_budget::Consumer;
use mailkite::testing::store;
use mailkite::testing::store::jobs::JobSubject;
use serde_json::json;

use crate::support::dns::DnsServer;
use crate::support::outbound::deliver_to_loopback;
use crate::support::receiver::{Receiver, Reply};
use crate::support::remote_host::RemoteHost;
use crate::support::server::Server;
use crate::support::smtp::SmtpClient;
use crate::support::wait::until;

/// Inserts due deliveries of the owner to `url` with their jobs.
async fn backlog(server: &Server, url: &str, count: i64) {
    let flow = mailkite::testing::webhook::flow_of(url, server.inbox.account_id);
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
                store::jobs::insert(tx, &flow, JobSubject::Webhook(RowId::new(id)), due)?;
            }
            Ok(())
        })
        .await;
}

/// Makes a new key of an account.
async fn key_of(server: &Server, email: &'static str) -> String {
    let made = server.write(move |tx, secrets, now| {
        let account = store::accounts::find_by_email(tx, email)?.unwrap();
        let key = mailkite::testing::secrets::new_api_key();
        let sealed = secrets.seal(store::accounts::keys::PURPOSE, key.as_bytes());
        store::accounts::keys::insert(tx, account.id, &mailkite::testing::secrets::token_hash(&key), &sealed, now)?;
        Ok(key)
    });
    made.await
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
        let place = async || {
            let requests = receiver.requests();
            let mut victims = (0..requests.len()).filter(|place| requests[*place].path == "/victim");
            victims.nth(number)
        };
        until(async || place().await.is_some()).await;
        let place = place().await.unwrap();
        assert!(place - before < 150, "mail {number} came {} requests later", place - before);
    }
    server.until("SELECT count(*) > 200 FROM delivery WHERE status = 'pending'", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_mail_of_one_account_to_a_domain_is_nobody_elses_wait() {
    let dns = DnsServer::start().await;
    let mut remote = RemoteHost::start().await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    let port = remote.address.port();
    let server = Server::start_with(Clock::System, |config| {
        deliver_to_loopback(config, &dns, port);
        config.outbound.lane_width = 1;
        // A message each half second: the backlog stays one.
        config.outbound.domain_rate_per_minute = 120;
    })
    .await;
    let owner = server.owner().await;
    let honest = server.other_account("honest.test", "https://hooks.example/").await;
    drop(honest);
    let honest = server.anonymous().with(key_of(&server, "owner@honest.test").await);
    for batch in 0..4 {
        let recipients: Vec<_> = (0..50).map(|n| json!({"to": format!("m{batch}.{n}@remote.test")})).collect();
        let body = json!({"from": "hi@inbox.test", "subject": "Bulk", "text": "x", "recipients": recipients});
        owner.post("/v1/send/batch", body).await.expect(200);
    }
    remote.next_mail().await;
    let body = json!({"from": "hi@honest.test", "to": "ada@remote.test", "subject": "Hi", "text": "It branches."});
    honest.post("/v1/send", body).await.expect(202);
    let mut place = 0;
    while remote.next_mail().await.recipients() != ["ada@remote.test"] {
        place += 1;
        assert!(place < 10, "the 200 others go first");
    }
}

/// A figure of `/metrics`.
async fn figure(server: &Server, name: &str) -> usize {
    let answer = server.anonymous().with(TOKEN).get("/metrics").await;
    let text = String::from_utf8(answer.body).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

const TOKEN: &str = "0123456789abcdef0123";

#[tokio::test(flavor = "multi_thread")]
async fn large_mail_of_one_account_is_nobody_elses_wait() {
    const PILE: usize = 10;
    let server = Server::start_with(Clock::System, |config| {
        // One of the mails at a time fits into what is kept for parsing.
        config.limits.memory_bytes = 32 << 20;
        config.metrics.token = Some(TOKEN.to_owned());
    })
    .await;
    server.other_account("victim.test", "https://hooks.example/").await;
    let line = format!("{}\r\n", "x".repeat(76));
    let mail = format!("From: a@example.com\r\nSubject: Large\r\n\r\n{}", line.repeat(3 * (1 << 20) / line.len()));
    let parsing = server.webhooks.memory.reserve(Consumer::Parsing, RowId::new(0), usize::MAX).await;
    let mut sent = Vec::new();
    for (number, to) in
        [("a@inbox.test", PILE), ("a@victim.test", 1)].iter().flat_map(|(to, n)| vec![*to; *n]).enumerate()
    {
        let (address, mail) = (server.smtp, mail.clone());
        sent.push(tokio::spawn(async move {
            let mut client = SmtpClient::connect_and_greet(address).await;
            assert_eq!(client.mail("a@example.com", &[to], &mail).await.code, 250);
        }));
        // Each waits before the next one comes.
        until(async || figure(&server, "mailkite_memory_waiting{door=\"parsing\"}").await > number).await;
    }
    drop(parsing);
    for one in sent {
        one.await.unwrap();
    }
    let before: i64 = server
        .query("SELECT count(*) FROM message WHERE id < (SELECT id FROM message WHERE to_addr = 'a@victim.test')")
        .await;
    assert!(before <= 3, "{before} of the pile went first");
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_found_at_once_however_much_of_others_waits_to_be_indexed() {
    let server = Server::start().await;
    server.other_account("victim.test", "https://hooks.example/").await;
    for number in 0..50 {
        server.accepted("a@inbox.test", &format!("Pile {number}")).await;
    }
    server.accepted("a@victim.test", "Needle").await;
    let key = key_of(&server, "owner@victim.test").await;
    let found = server.anonymous().with(key).get("/api/messages?search=needle").await.expect(200);
    assert_eq!(found.as_array().unwrap().len(), 1);
    server.stop_with_any_jobs().await;
}
