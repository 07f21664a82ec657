//! Waiting for a mail host at its connection limit: which other hosts may be tried, and who goes first.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::config::{Smarthost, SmarthostSecurity};
use serde_json::json;
use tokio::time::Instant;

use crate::support::dns::DnsServer;
use crate::support::forwarding_server::{ForwardingServer, forward};
use crate::support::outbound::{SENT, WAITING, any_port, busy, send, sending};
use crate::support::remote_host::{HostAction, HostConfig, RemoteHost, Script};
use crate::support::wait::until;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

fn manner(script: impl Fn(&str, usize) -> Option<HostAction> + Send + Sync + 'static) -> HostConfig {
    let script: Script = Arc::new(script);
    HostConfig { script, ..HostConfig::default() }
}

/// Delays the reply to each message: a slow host.
fn slow(millis: u64) -> HostConfig {
    manner(move |command, _| {
        (command == "END")
            .then(|| HostAction::SendAfter(Duration::from_millis(millis), "250 2.0.0 taken\r\n".to_owned()))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_only_full_sends_nothing_to_the_hosts_behind_it() {
    const DOMAINS: usize = 40;
    let dns = DnsServer::start().await;
    let primary = RemoteHost::at(any_port([127, 0, 0, 1]), slow(200)).await;
    let second = SocketAddr::from(([127, 0, 0, 2], primary.address.port()));
    let (backup, _) = busy(second, "RCPT", "451 4.3.0 not while the first is up").await;
    dns.address("mx1.provider.test", "127.0.0.1").address("mx2.provider.test", "127.0.0.2");
    for number in 0..DOMAINS {
        let domain = format!("c{number}.test");
        dns.mx(&domain, 10, "mx1.provider.test").mx(&domain, 20, "mx2.provider.test");
    }
    let server = sending(Clock::System, &dns, primary.address.port(), |_| {}).await;
    let owner = server.owner().await;
    for number in 0..DOMAINS {
        send(&owner, &format!("a@c{number}.test")).await;
    }
    server.until(SENT, i64::try_from(DOMAINS).unwrap()).await;
    assert_eq!(backup.connections(), 0);
    let attempts: i64 = server.query("SELECT sum(attempts) FROM dispatch").await;
    assert_eq!(attempts, i64::try_from(DOMAINS).unwrap(), "waiting is no attempt");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_takes_up_room_at_its_host_until_the_host_has_ended_it() {
    const NAMES: usize = 6;
    const MESSAGES: usize = 4 * NAMES;
    let dns = DnsServer::start().await;
    let takes_leave_slowly = manner(|command, _| {
        (command == "QUIT").then(|| HostAction::SendAfter(Duration::from_millis(100), "221 2.0.0 bye\r\n".to_owned()))
    });
    let host = RemoteHost::at(any_port([127, 0, 0, 1]), takes_leave_slowly).await;
    for number in 0..NAMES {
        let name = format!("mx{number}.provider.test");
        dns.mx(&format!("c{number}.test"), 10, &name).address(&name, "127.0.0.1");
    }
    let server = sending(Clock::System, &dns, host.address.port(), |config| config.outbound.host_width = 2).await;
    let owner = server.owner().await;
    for number in 0..MESSAGES {
        send(&owner, &format!("a@c{}.test", number % NAMES)).await;
    }
    server.until(SENT, i64::try_from(MESSAGES).unwrap()).await;
    assert!(host.connections() > 2, "each name has its own sessions");
    assert_eq!(host.most_connections(), 2);
    server.stop().await;
}

fn relay(remote: &RemoteHost) -> Arc<Smarthost> {
    Arc::new(Smarthost {
        host: "127.0.0.1".to_owned(),
        port: remote.address.port(),
        security: SmarthostSecurity::None,
        username: None,
        password: None,
        fallback: true,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_full_or_probed_is_not_gone_round() {
    const MESSAGES: usize = 20;
    let dns = DnsServer::start().await;
    // It refuses the first session, and works from then on.
    let relays = manner(|command, connection| match command {
        "GREETING" if connection == 1 => Some(HostAction::SendAndClose("421 4.3.2 restarting\r\n".to_owned())),
        "END" => Some(HostAction::SendAfter(Duration::from_millis(100), "250 2.0.0 taken\r\n".to_owned())),
        _ => None,
    });
    let mut remote = RemoteHost::at(any_port([127, 0, 0, 1]), relays).await;
    let mut direct = RemoteHost::at(any_port([127, 0, 0, 2]), HostConfig::default()).await;
    dns.address("mx.provider.test", "127.0.0.2");
    for number in 0..=MESSAGES {
        dns.mx(&format!("c{number}.test"), 10, "mx.provider.test");
    }
    let smarthost = relay(&remote);
    let server = sending(Clock::manual(Clock::System.now()), &dns, direct.address.port(), |config| {
        config.outbound.smarthost = Some(smarthost);
    })
    .await;
    let owner = server.owner().await;
    send(&owner, &format!("a@c{MESSAGES}.test")).await;
    // It failed: that is what fallback is for.
    direct.next_mail().await;
    server.until(SENT, 1_i64).await;
    // Its pause is over.
    server.clock.advance(Duration::from_millis(1300));
    for number in 0..MESSAGES {
        send(&owner, &format!("a@c{number}.test")).await;
    }
    for _ in 0..MESSAGES {
        remote.next_mail().await;
    }
    server.until(SENT, i64::try_from(MESSAGES + 1).unwrap()).await;
    assert!(direct.is_drained(), "the relay takes mail");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_became_free_while_another_host_was_tried_is_taken_at_once() {
    let dns = DnsServer::start().await;
    let mut first = RemoteHost::at(any_port([127, 0, 0, 1]), slow(1000)).await;
    let refusing = manner(|command, _| {
        (command == "GREETING").then(|| {
            HostAction::SendAfter(Duration::from_millis(2500), "421 4.3.2 too many connections\r\n".to_owned())
        })
    });
    let second = RemoteHost::at(SocketAddr::from(([127, 0, 0, 2], first.address.port())), refusing).await;
    dns.mx("one.test", 10, "mx.one.test").address("mx.one.test", "127.0.0.1");
    dns.mx("both.test", 10, "mx.both.test");
    dns.address("mx.both.test", "127.0.0.1").address("mx.both.test", "127.0.0.2");
    let server = sending(Clock::System, &dns, first.address.port(), |config| config.outbound.host_width = 1).await;
    let owner = server.owner().await;
    let began = Instant::now();
    send(&owner, "ada@one.test").await;
    first.until_connections(1).await;
    send(&owner, "bob@both.test").await;
    first.next_mail().await;
    assert_eq!(first.next_mail().await.recipients(), ["bob@both.test"]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(second.connections(), 1);
    server.until(SENT, 2_i64).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_host_closed_costs_nobody_his_turn() {
    const DOMAINS: usize = 8;
    let dns = DnsServer::start().await;
    let asked_for = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked_for);
    let hasty = manner(move |command, connection| {
        if let Some(recipient) = command.strip_prefix("RCPT TO:") {
            let mut heard = heard.lock().unwrap();
            // A script is asked more than once.
            if !heard.iter().any(|one| one == recipient) {
                heard.push(recipient.to_owned());
            }
        }
        match command {
            "GREETING" if connection == 1 => {
                Some(HostAction::SendAfter(Duration::from_millis(2000), "220 mx.provider.test\r\n".to_owned()))
            }
            "END" => Some(HostAction::SendAndClose("250 2.0.0 taken, and bye\r\n".to_owned())),
            _ => None,
        }
    });
    let remote = RemoteHost::at(any_port([127, 0, 0, 1]), hasty).await;
    dns.address("mx.provider.test", "127.0.0.1");
    for number in 0..DOMAINS {
        dns.mx(&format!("c{number}.test"), 10, "mx.provider.test");
    }
    let server = sending(Clock::System, &dns, remote.address.port(), |config| config.outbound.host_width = 1).await;
    let owner = server.owner().await;
    for number in 0..DOMAINS {
        send(&owner, &format!("a@c{number}.test")).await;
        server.until(WAITING, i64::try_from(number).unwrap()).await;
        remote.until_connections(1).await;
    }
    server.until(SENT, i64::try_from(DOMAINS).unwrap()).await;
    let wanted: Vec<String> = (0..DOMAINS).map(|number| format!("<a@c{number}.test>")).collect();
    assert_eq!(*asked_for.lock().unwrap(), wanted);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_no_longer_when_the_clock_is_set_back() {
    let dns = DnsServer::start().await;
    let (mut remote, is_busy) = busy(any_port([127, 0, 0, 1]), "GREETING", "421 4.3.2 too many connections").await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    let server = sending(Clock::manual(NOW), &dns, remote.address.port(), |_| {}).await;
    let owner = server.owner().await;
    send(&owner, "ada@remote.test").await;
    server.until("SELECT count(*) FROM recipient WHERE status = 'deferred'", 1_i64).await;
    is_busy.store(false, Ordering::SeqCst);
    let due: i64 = server.query("SELECT run_at FROM job").await;
    server.clock.set(NOW.minus(Duration::from_secs(3600)));
    server.advance_mail(Duration::ZERO, "remote.test");
    // The job follows the clock, and its host with it.
    until(async || server.query::<i64>("SELECT run_at FROM job").await != due).await;
    server.advance_mail(Duration::from_secs(120), "remote.test");
    assert_eq!(remote.next_mail().await.recipients(), ["ada@remote.test"]);
    server.until(SENT, 1_i64).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_waits_to_be_forwarded_takes_nothing_of_the_rate() {
    let silent = manner(|command, _| command.starts_with("MAIL").then_some(HostAction::Hang));
    let remote = RemoteHost::at(any_port([127, 0, 0, 1]), silent).await;
    let setup = ForwardingServer::start_at(Clock::manual(NOW), remote, |config| {
        config.limits.requests_per_second = 2;
        config.outbound.host_width = 1;
    })
    .await;
    for number in 0..4 {
        setup.dns.mx(&format!("c{number}.test"), 10, "mx.remote.test");
        forward(&setup.owner, &format!("a{number}@inbox.test"), &format!("a@c{number}.test")).await;
    }
    // Four at once.
    setup.server.clock.advance(Duration::from_secs(10));
    for number in 0..4 {
        setup.server.accepted(&format!("a{number}@inbox.test"), "Waits").await;
        setup.remote.until_connections(1).await;
        setup.server.until(WAITING, number).await;
    }
    for _ in 0..3 {
        setup.owner.get("/v1/me").await.expect(200);
    }
    setup.owner.get("/v1/me").await.expect_error(429, "rate_limited");
    setup.server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_may_want_in_ascii_is_held_within_the_budget_in_both_forms() {
    const SIZE: usize = 1 << 20;
    let dns = DnsServer::start().await;
    let silent = manner(|command, _| command.starts_with("MAIL").then_some(HostAction::Hang));
    let remote = RemoteHost::at(any_port([127, 0, 0, 1]), silent).await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    let server = sending(Clock::manual(NOW), &dns, remote.address.port(), |config| {
        config.metrics.token = Some("a token of the metrics".to_owned());
    })
    .await;
    let owner = server.owner().await;
    let file = json!({"filename": "a.bin", "content": BASE64.encode(vec![b'x'; SIZE])});
    for reply_to in ["o@inbox.test", "ö@inbox.test"] {
        let body = json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "s", "text": "x",
            "replyTo": reply_to, "attachments": [file]});
        owner.post("/v1/send", body).await.expect(202);
    }
    remote.until_connections(2).await;
    let figures = server.anonymous().with("a token of the metrics").exchange("GET", "/metrics", &[], None).await;
    let figures = String::from_utf8(figures.body).unwrap();
    let held = figures.lines().find_map(|line| line.strip_prefix("mailkite_memory_held_bytes{door=\"sending\"} "));
    let held: usize = held.unwrap().parse().unwrap();
    // In base64 it is a third larger.
    let one = SIZE / 3 * 4;
    assert!((one * 3..one * 7 / 2).contains(&held), "one once, the other twice: {held}");
    server.stop_with_any_jobs().await;
}
