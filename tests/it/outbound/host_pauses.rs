//! Pauses of a failing mail host with one probe, its share of connections, and the choice among its
//! addresses (RFC 5321 §4.5.4.1, RFC 8305).

use mailkite::testing::id::RowId;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::config::Outbound;
use mailkite::testing::jobs::Flow;
use mailkite::testing::mail::address::{Domain, Mailbox};
use mailkite::testing::net::dns::Resolver;
use mailkite::testing::net::egress::{Guard, Policy};
use mailkite::testing::outbound::client::Timeouts;
use mailkite::testing::outbound::transport::Transport;
use mailkite::testing::outbound::transport::mx::MxResolver;
use mailkite::testing::outbound::transport::tls::ClientTls;
use mailkite::testing::outbound::{DeliveryRequest, DeliveryResult, Destination, Verdict};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::dns::DnsServer;
use crate::support::outbound::{SENT, WAITING, any_port, busy, send, sending};
use crate::support::remote_host::{HostAction, HostConfig, RemoteHost};

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_refuses_sessions_is_left_alone_by_all_domains_and_loses_nothing() {
    const DOMAINS: usize = 60;
    for (stage, reply) in
        [("GREETING", "421 4.3.2 too many connections"), ("MAIL", "421 4.7.0 [TSS04] temporarily deferred")]
    {
        let dns = DnsServer::start().await;
        let (mut remote, is_busy) = busy(any_port([127, 0, 0, 1]), stage, reply).await;
        dns.address("mx.provider.test", "127.0.0.1");
        for number in 0..DOMAINS {
            dns.mx(&format!("c{number}.test"), 10, "mx.provider.test");
        }
        let clock = Clock::manual(NOW);
        let server = sending(clock, &dns, remote.address.port(), |_| {}).await;
        let owner = server.owner().await;
        let first = send(&owner, "a@c0.test").await;
        server.until("SELECT count(*) FROM recipient WHERE status = 'deferred'", 1_i64).await;
        let mut last = String::new();
        for number in 1..DOMAINS {
            last = send(&owner, &format!("a@c{number}.test")).await;
        }
        let jobs = i64::try_from(DOMAINS).unwrap();
        server.until(WAITING, jobs).await;
        assert_eq!(remote.connections(), 1, "the host pauses for every domain that it serves");
        let unattempted: i64 = server.query("SELECT count(*) FROM dispatch WHERE attempts = 0").await;
        assert_eq!(unattempted, jobs - 1, "waiting is no attempt");

        // Whoever looks is told that it pauses, why, and until when.
        let transmissions = owner.get(&format!("/api/messages/{last}/transmissions")).await.expect(200);
        assert!(transmissions[0]["pauseReason"].as_str().unwrap().contains(reply), "{transmissions}");
        let until = transmissions[0]["pausedUntil"].as_i64().unwrap();
        assert!((1_000..=1_300).contains(&(until - NOW.as_millis())), "{until}");
        let transmissions = owner.get(&format!("/api/messages/{first}/transmissions")).await.expect(200);
        assert_eq!(transmissions[0]["attempts"], 1, "{transmissions}");

        // One probe for each pause, whoever waits.
        for (probes, pause) in [(2, 2), (3, 3), (4, 6)] {
            server.clock.advance(Duration::from_secs(pause));
            for number in 1..DOMAINS {
                server.webhooks.jobs.wake(
                    &mailkite::testing::jobs::mail_flow(&format!("c{number}.test"), RowId::new(1)),
                    server.clock.now(),
                );
            }
            let attempts = "SELECT sum(attempts) FROM dispatch";
            server.until(attempts, probes).await;
            server.until(WAITING, jobs).await;
            assert_eq!(i64::try_from(remote.connections()).unwrap(), probes, "one probe");
        }

        is_busy.store(false, Ordering::SeqCst);
        server.clock.advance(Duration::from_secs(3600));
        for number in 0..DOMAINS {
            server.webhooks.jobs.wake(
                &mailkite::testing::jobs::mail_flow(&format!("c{number}.test"), RowId::new(1)),
                server.clock.now(),
            );
        }
        for _ in 0..DOMAINS {
            remote.next_mail().await;
        }
        server.until(SENT, jobs).await;
        let paused: i64 = server.query("SELECT count(*) FROM lane_pause WHERE until > 1785200000000").await;
        assert_eq!(paused, 0, "nothing pauses any more");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_tells_of_a_pause_until_the_host_takes_mail_again() {
    let dns = DnsServer::start().await;
    let (mut remote, is_busy) = busy(any_port([127, 0, 0, 1]), "GREETING", "421 4.3.2 too many connections").await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    let server = sending(Clock::manual(Clock::System.now()), &dns, remote.address.port(), |_| {}).await;
    let owner = server.owner().await;
    for number in 0..3 {
        send(&owner, &format!("a{number}@remote.test")).await;
    }
    server.until("SELECT count(*) FROM lane_pause", 1_i64).await;
    server.until(WAITING, 3_i64).await;
    // The command reads the system's clock, which goes on.
    server
        .write(|tx, _, now| {
            tx.execute("UPDATE lane_pause SET until = ?1", [now.plus(Duration::from_secs(600)).as_millis()])?;
            Ok(())
        })
        .await;
    let data_dir = server.data_dir().to_owned();
    let queue = async |arguments: &'static [&'static str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
        command.arg("queue").args(arguments).arg("--data-dir").arg(&data_dir);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let list = queue(&["list"]).await;
    assert!(
        list.contains("paused") && list.contains("paused for") && list.contains("mx.remote.test refused"),
        "{list}"
    );
    let json = queue(&["list", "--json"]).await;
    assert!(json.contains("\"pausedUntil\":1") && json.contains("\"pauseReason\":\"4.3.2 mx.remote.test"), "{json}");
    is_busy.store(false, Ordering::SeqCst);
    server.advance_mail(Duration::from_secs(3600), "remote.test");
    for _ in 0..3 {
        remote.next_mail().await;
    }
    server.until(SENT, 3_i64).await;
    server.until("SELECT count(*) FROM lane_pause", 0_i64).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_domains_of_a_host_share_its_connections_and_wait_in_no_slot() {
    let dns = DnsServer::start().await;
    let silent = HostConfig { script: Arc::new(|_, _| Some(HostAction::Hang)), ..HostConfig::default() };
    let remote = RemoteHost::at(any_port([127, 0, 0, 1]), silent).await;
    dns.address("mx.provider.test", "127.0.0.1");
    for number in 0..30 {
        dns.mx(&format!("c{number}.test"), 10, "mx.provider.test");
    }
    let server =
        sending(Clock::manual(NOW), &dns, remote.address.port(), |config| config.outbound.host_width = 3).await;
    let owner = server.owner().await;
    for number in 0..30 {
        send(&owner, &format!("a@c{number}.test")).await;
    }
    server.until(WAITING, 27_i64).await;
    assert_eq!((remote.connections(), server.webhooks.jobs.figures().running), (3, 3));
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_domains_and_names_of_one_host_all_have_their_turn() {
    let dns = DnsServer::start().await;
    let mut remote = RemoteHost::start().await;
    for number in 0..40 {
        // Half of them name the host by one name, the others each by its own.
        let name = if number % 2 == 0 { "mx.provider.test".to_owned() } else { format!("mx{number}.provider.test") };
        dns.mx(&format!("c{number}.test"), 10, &name);
        if number == 0 || number % 2 == 1 {
            dns.address(&name, "127.0.0.1");
        }
    }
    let server = sending(Clock::System, &dns, remote.address.port(), |config| config.outbound.host_width = 2).await;
    let owner = server.owner().await;
    for number in 0..40 {
        send(&owner, &format!("a@c{number}.test")).await;
    }
    for _ in 0..40 {
        remote.next_mail().await;
    }
    server.until(SENT, 40_i64).await;
    let attempts: i64 = server.query("SELECT sum(attempts) FROM dispatch").await;
    assert_eq!(attempts, 40);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_host_is_asked_while_one_pauses() {
    let dns = DnsServer::start().await;
    let (first, _busy) = busy(any_port([127, 0, 0, 1]), "GREETING", "421 4.3.2 busy").await;
    let second = SocketAddr::from(([127, 0, 0, 2], first.address.port()));
    let mut second = RemoteHost::at(second, HostConfig::default()).await;
    dns.mx("remote.test", 10, "mx1.remote.test").address("mx1.remote.test", "127.0.0.1");
    dns.mx("remote.test", 20, "mx2.remote.test").address("mx2.remote.test", "127.0.0.2");
    let server = sending(Clock::manual(NOW), &dns, first.address.port(), |_| {}).await;
    let owner = server.owner().await;
    for number in 0..10 {
        send(&owner, &format!("a{number}@remote.test")).await;
        assert_eq!(second.next_mail().await.recipients(), [format!("a{number}@remote.test")]);
        server.until(SENT, number + 1).await;
    }
    assert_eq!(first.connections(), 1);
    server.stop().await;
}

/// Deliveries to remote.test, without a server.
pub(super) struct Rig {
    pub(super) dns: DnsServer,
    pub(super) transport: Transport,
}

impl Rig {
    pub(super) async fn new(port: u16, adjust: impl FnOnce(&mut Outbound)) -> Self {
        Self::within(port, Timeouts::default(), adjust).await
    }

    pub(super) async fn within(port: u16, timeouts: Timeouts, adjust: impl FnOnce(&mut Outbound)) -> Self {
        let dns = DnsServer::start().await;
        let mut config = Outbound { port, ..Outbound::default() };
        adjust(&mut config);
        let resolver = Arc::new(Resolver::uncached(&[dns.address]).unwrap());
        let allow_networks = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let guard = Guard { policy: Policy { allow_localhost: false, allow_networks }, own_listeners: Vec::new() };
        let hosts = MxResolver::new(&config, "mail.acme.test", resolver, guard, None);
        let tls = ClientTls::new(&mailkite::testing::net::tls::client_config(None).unwrap());
        let transport = Transport::new("mail.acme.test".to_owned(), timeouts, tls, hosts);
        dns.mx("remote.test", 10, "mx.remote.test");
        Self { dns, transport }
    }

    pub(super) async fn send(&self) -> DeliveryResult {
        let request = DeliveryRequest {
            reverse_path: Some(Mailbox::parse("bounce@acme.test").unwrap()),
            recipients: vec![Mailbox::parse("ada@remote.test").unwrap()],
            data: "Subject: Hi\r\n\r\nHi\r\n".into(),
            ascii: None,
        };
        let destination = Destination::Domain(Domain::parse("remote.test").unwrap());
        self.transport.transmit(&Flow::new("smtp:remote.test", RowId::new(1)), &destination, request, NOW).await
    }
}

pub(super) fn verdict(done: &DeliveryResult) -> Verdict {
    done.outcomes[0].verdict
}

/// Makes a listener that answers no SYN because its queue is full; keep both results alive.
async fn deaf(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut fill = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        fill.push(stream.unwrap());
    }
    (listener, fill)
}

/// Sends further messages, which have to use the session with `good` without trying the address that does not answer.
async fn passes_by(rig: &Rig, good: &RemoteHost) {
    for _ in 0..5 {
        let done = rig.send().await;
        assert_eq!(verdict(&done), Verdict::Sent);
        assert!(!done.record.transcript.contains("127.0.0.2"), "{}", done.record.transcript);
    }
    assert_eq!(good.connections(), 1);
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_passed_by_and_remembered() {
    let mut good = RemoteHost::at(any_port([127, 0, 0, 3]), HostConfig::default()).await;
    let dead = SocketAddr::from(([127, 0, 0, 2], good.address.port()));
    let _deaf = deaf(dead).await;
    let rig = Rig::new(good.address.port(), |_| {}).await;
    rig.dns.address("mx.remote.test", "127.0.0.2").address("mx.remote.test", "127.0.0.3");
    let done = rig.send().await;
    assert_eq!((verdict(&done), done.record.address), (Verdict::Sent, Some(good.address)));
    good.next_mail().await;
    passes_by(&rig, &good).await;
}

#[tokio::test]
async fn a_preferred_host_that_does_not_answer_is_not_waited_for_by_every_message() {
    let mut good = RemoteHost::at(any_port([127, 0, 0, 3]), HostConfig::default()).await;
    let _deaf = deaf(SocketAddr::from(([127, 0, 0, 2], good.address.port()))).await;
    let timeouts = Timeouts { connect: Duration::from_secs(2), ..Timeouts::default() };
    let rig = Rig::within(good.address.port(), timeouts, |_| {}).await;
    rig.dns.mx("remote.test", 5, "first.remote.test").address("first.remote.test", "127.0.0.2");
    rig.dns.address("mx.remote.test", "127.0.0.3");
    let done = rig.send().await;
    assert_eq!((verdict(&done), done.record.address), (Verdict::Sent, Some(good.address)));
    assert!(done.record.transcript.contains("127.0.0.2"), "{}", done.record.transcript);
    good.next_mail().await;
    passes_by(&rig, &good).await;
}

#[tokio::test]
async fn a_host_that_does_not_greet_is_left_for_another() {
    let mut good = RemoteHost::at(any_port([127, 0, 0, 3]), HostConfig::default()).await;
    let mute = HostConfig { script: Arc::new(|_, _| Some(HostAction::Hang)), ..HostConfig::default() };
    let mute = RemoteHost::at(SocketAddr::from(([127, 0, 0, 2], good.address.port())), mute).await;
    let timeouts = Timeouts { greeting: Duration::from_secs(1), ..Timeouts::default() };
    let rig = Rig::within(good.address.port(), timeouts, |_| {}).await;
    rig.dns.address("mx.remote.test", "127.0.0.2").address("mx.remote.test", "127.0.0.3");
    for _ in 0..4 {
        assert_eq!(verdict(&rig.send().await), Verdict::Sent);
        good.next_mail().await;
    }
    assert!(mute.connections() <= 1, "{}", mute.connections());
}

#[tokio::test]
async fn a_refused_message_costs_no_connection() {
    for stage in ["MAIL", "RCPT", "DATA", "END"] {
        let script = move |command: &str, _: usize| {
            command.starts_with(stage).then(|| HostAction::Send("550 5.7.1 not this one\r\n".to_owned()))
        };
        for extensions in [vec!["PIPELINING"], Vec::new()] {
            let manner = HostConfig { extensions, script: Arc::new(script), ..HostConfig::default() };
            let remote = RemoteHost::at(any_port([127, 0, 0, 3]), manner).await;
            let rig = Rig::new(remote.address.port(), |_| {}).await;
            rig.dns.address("mx.remote.test", "127.0.0.3");
            for _ in 0..3 {
                let done = rig.send().await;
                assert_eq!(verdict(&done), Verdict::Bounced, "{stage}: {}", done.record.transcript);
            }
            assert_eq!(remote.connections(), 1, "{stage}");
        }
    }
}

#[tokio::test]
async fn a_session_that_waits_is_used_before_another_address_is_tried() {
    let good = RemoteHost::at(any_port([127, 0, 0, 3]), HostConfig::default()).await;
    let rig = Rig::new(good.address.port(), |_| {}).await;
    rig.dns.address("mx.remote.test", "127.0.0.2").address("mx.remote.test", "127.0.0.3");
    assert_eq!(verdict(&rig.send().await), Verdict::Sent);
    let late = RemoteHost::at(SocketAddr::from(([127, 0, 0, 2], good.address.port())), HostConfig::default()).await;
    for _ in 0..5 {
        assert_eq!(verdict(&rig.send().await), Verdict::Sent);
    }
    assert_eq!((good.connections(), late.connections()), (1, 0));
}

#[tokio::test]
async fn what_this_machine_cannot_do_is_held_against_no_host() {
    let four = RemoteHost::at(any_port([127, 0, 0, 1]), HostConfig::default()).await;
    let nowhere = |config: &mut Outbound| config.source_addresses = vec!["192.0.2.77".parse().unwrap()];
    let rig = Rig::new(four.address.port(), nowhere).await;
    rig.dns.address("mx.remote.test", "127.0.0.1");
    for _ in 0..3 {
        let done = rig.send().await;
        assert_eq!((verdict(&done), &done.wait), (Verdict::Deferred, &None), "it does not pause");
        let said = &done.outcomes[0].diagnostic;
        assert!(said.starts_with("4.3.0 mx.remote.test was not asked, for a reason of our own: "), "{said}");
    }
    assert_eq!(four.connections(), 0);
}

#[tokio::test]
async fn an_address_that_this_machine_has_no_way_to_is_no_attempt_while_the_others_pause() {
    let (four, _busy) = busy(any_port([127, 0, 0, 1]), "GREETING", "421 4.3.2 too many connections").await;
    let nowhere = |config: &mut Outbound| config.source_addresses = vec!["2001:db8::77".parse().unwrap()];
    let rig = Rig::new(four.address.port(), nowhere).await;
    rig.dns.address("mx.remote.test", "::1").address("mx.remote.test", "127.0.0.1");
    let done = rig.send().await;
    assert!(done.outcomes[0].diagnostic.contains("421 4.3.2 too many"), "{}", done.outcomes[0].diagnostic);
    let pause = rig.send().await.wait.and_then(|wait| wait.pause);
    assert!(pause.is_some_and(|pause| pause.reason.contains("421 4.3.2 too many")), "nothing was attempted");
    assert_eq!(four.connections(), 1);
}
