//! Delivery to scripted remote hosts: the dialog octet for octet, and the verdict for each recipient.

use mailkite::testing::id::RowId;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mailkite::testing::clock::Timestamp;
use mailkite::testing::config::{Outbound, Smarthost, SmarthostSecurity};
use mailkite::testing::jobs::Flow;
use mailkite::testing::mail::address::Mailbox;
use mailkite::testing::net::dns::Resolver;
use mailkite::testing::net::egress::{Guard, Policy};
use mailkite::testing::outbound::client::{MAX_TRANSCRIPT, Timeouts};
use mailkite::testing::outbound::transport::Transport;
use mailkite::testing::outbound::transport::mx::MxResolver;
use mailkite::testing::outbound::transport::tls::ClientTls;
use mailkite::testing::outbound::{DeliveryRequest, DeliveryResult, Destination, Verdict};

use crate::support::dns::DnsServer;
use crate::support::remote_host::{HostAction, HostConfig, RemoteHost};

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

/// Deadlines short enough for a test to wait for, and long enough that a busy machine does not reach them by chance.
pub(super) fn patient() -> Timeouts {
    Timeouts { total: Duration::from_secs(60), ..Timeouts::default() }
}

fn hasty() -> Timeouts {
    let short = Duration::from_millis(300);
    Timeouts {
        connect: short,
        greeting: short,
        command: short,
        data: short,
        end_of_data: short,
        total: Duration::from_secs(3),
    }
}

pub(super) struct Rig {
    pub(super) dns: DnsServer,
    pub(super) transport: Transport,
}

impl Rig {
    /// Mail for remote.test goes to `remote`, found through DNS.
    pub(super) async fn to(remote: &RemoteHost, timeouts: Timeouts) -> Self {
        let dns = DnsServer::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        let config = Outbound { port: remote.address.port(), ..Outbound::default() };
        Self::with(dns, config, timeouts)
    }

    pub(super) fn with(dns: DnsServer, config: Outbound, timeouts: Timeouts) -> Self {
        let resolver = Arc::new(Resolver::new(&[dns.address]).unwrap());
        let policy = Policy { allow_localhost: false, allow_networks: vec!["127.0.0.0/8".parse().unwrap()] };
        let guard = Guard { policy, own_listeners: Vec::new() };
        let hosts = MxResolver::new(&config, "mail.acme.test", resolver, guard, None);
        let tls = ClientTls::new(&mailkite::testing::net::tls::client_config(None).unwrap());
        Self { dns, transport: Transport::new("mail.acme.test".to_owned(), timeouts, tls, hosts) }
    }

    pub(super) async fn send(&self, recipients: &[&str], data: &[u8]) -> DeliveryResult {
        let destination = Destination::Domain("remote.test".parse_domain());
        self.transport.transmit(&flow(), &destination, request(recipients, data), NOW).await
    }
}

/// The flow of the sending account.
pub(super) fn flow() -> Flow {
    Flow::new("smtp:remote.test", RowId::new(1))
}

pub(super) trait ParseDomain {
    fn parse_domain(&self) -> mailkite::testing::mail::address::Domain;
}

impl ParseDomain for str {
    fn parse_domain(&self) -> mailkite::testing::mail::address::Domain {
        mailkite::testing::mail::address::Domain::parse(self).unwrap()
    }
}

pub(super) fn request(recipients: &[&str], data: &[u8]) -> DeliveryRequest {
    DeliveryRequest {
        reverse_path: Some(Mailbox::parse("bounce@acme.test").unwrap()),
        recipients: recipients.iter().map(|one| Mailbox::parse(one).unwrap()).collect(),
        data: data.to_vec().into(),
        ascii: None,
    }
}

pub(super) const MAIL: &[u8] = b"Subject: Hi\r\n\r\nHi.\r\n";
pub(super) const ADA: &[&str] = &["ada@remote.test"];

pub(super) fn verdicts(done: &DeliveryResult) -> Vec<Verdict> {
    done.outcomes.iter().map(|outcome| outcome.verdict).collect()
}

/// The only outcome: verdict, code, diagnostic.
pub(super) fn only(done: &DeliveryResult) -> (Verdict, Option<u16>, &str) {
    assert_eq!(done.outcomes.len(), 1);
    (done.outcomes[0].verdict, done.outcomes[0].code, &done.outcomes[0].diagnostic)
}

#[tokio::test]
async fn dots_are_stuffed_and_nothing_else_is_changed() {
    let mut remote = RemoteHost::start().await;
    let rig = Rig::to(&remote, patient()).await;
    let long = [b"x".repeat(200_000), b"\r\n".to_vec()].concat();
    for data in [
        MAIL.to_vec(),
        b".\r\n..\r\n.x\r\nmiddle.\r\n.\r\n".to_vec(),
        b"no line end".to_vec(),
        b"".to_vec(),
        [b"Subject: long\r\n\r\n".to_vec(), long.repeat(3), b".end\r\n".to_vec()].concat(),
    ] {
        let done = rig.send(ADA, &data).await;
        assert_eq!(only(&done), (Verdict::Sent, Some(250), "250 2.0.0 taken"), "{}", done.record.transcript);
        let taken = remote.next_mail().await;
        let mut wanted = data.clone();
        if !wanted.is_empty() && !wanted.ends_with(b"\r\n") {
            wanted.extend_from_slice(b"\r\n");
        }
        assert_eq!(taken.data(), wanted);
        let lone = taken.wire.split(|byte| *byte == b'\n').any(|line| line == b".\r");
        assert!(!lone, "no line of the data is a dot alone");
    }
    assert_eq!(remote.connections(), 1, "one session took them all");
}

#[tokio::test]
async fn the_dialog_is_kept_with_its_host_and_without_the_mail() {
    let mut remote = RemoteHost::start().await;
    let rig = Rig::to(&remote, patient()).await;
    let done = rig.send(ADA, b"Subject: secret words\r\n\r\n").await;
    remote.next_mail().await;
    assert_eq!(done.record.host.as_deref(), Some("mx.remote.test"));
    assert_eq!(done.record.address, Some(remote.address));
    assert_eq!(done.record.tls, None);
    let text = done.record.transcript;
    for line in [
        "S: 220 mx.remote.test ESMTP\n",
        "C: EHLO mail.acme.test\n",
        "S: 250-PIPELINING\n",
        "C: MAIL FROM:<bounce@acme.test> SIZE=25\n",
        "C: RCPT TO:<ada@remote.test>\n",
        "C: DATA\n",
        "C: <25 octets of mail data>\n",
        "S: 250 2.0.0 taken\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert!(!text.contains("secret"), "{text}");
    let done = rig.send(ADA, MAIL).await;
    assert!(done.record.transcript.contains("a session that was kept"), "{}", done.record.transcript);
}

#[tokio::test]
async fn each_recipient_has_a_verdict_of_its_own() {
    for extensions in [vec!["PIPELINING"], vec![]] {
        let script = |command: &str, _: usize| {
            let say = |text: &str| Some(HostAction::Send(format!("{text}\r\n")));
            match command {
                "RCPT TO:<gone@remote.test>" => say("550-5.1.1 no such\r\n550 5.1.1 user"),
                "RCPT TO:<later@remote.test>" => say("450 4.2.0 greylisted"),
                "RCPT TO:<many@remote.test>" => say("452 4.5.3 too many recipients"),
                _ => None,
            }
        };
        let mut remote =
            RemoteHost::with(HostConfig { extensions, script: Arc::new(script), ..HostConfig::default() }).await;
        let rig = Rig::to(&remote, patient()).await;
        let all = ["ada@remote.test", "gone@remote.test", "later@remote.test", "bob@remote.test", "many@remote.test"];
        let done = rig.send(&all, MAIL).await;
        let [sent, bounced, deferred] = [Verdict::Sent, Verdict::Bounced, Verdict::Deferred];
        assert_eq!(verdicts(&done), [sent, bounced, deferred, sent, deferred], "{}", done.record.transcript);
        assert_eq!(done.outcomes[1].diagnostic, "550 5.1.1 no such user");
        assert_eq!(remote.next_mail().await.recipients(), ["ada@remote.test", "bob@remote.test"]);
        // Nobody left: no data goes out.
        let done = rig.send(&["gone@remote.test", "later@remote.test"], MAIL).await;
        assert_eq!(verdicts(&done), [bounced, deferred]);
        assert!(remote.is_drained());
    }
}

#[tokio::test]
async fn many_recipients_go_by_the_hundred_over_one_session() {
    let mut remote = RemoteHost::start().await;
    let rig = Rig::to(&remote, patient()).await;
    let all: Vec<String> = (0..250).map(|number| format!("ada{number}@remote.test")).collect();
    let done = rig.send(&all.iter().map(String::as_str).collect::<Vec<_>>(), MAIL).await;
    assert!(verdicts(&done).iter().all(|verdict| *verdict == Verdict::Sent), "{}", done.record.transcript);
    let mut taken = Vec::new();
    for count in [100, 100, 50] {
        let one = remote.next_mail().await;
        assert_eq!((one.rcpt.len(), one.connection), (count, 1));
        taken.extend(one.recipients());
    }
    assert_eq!(taken, all);
}

#[tokio::test]
async fn refusals_of_the_message_are_final_and_of_the_session_are_not() {
    let say = |text: &'static str| HostAction::Send(format!("{text}\r\n"));
    let leave = |text: &'static str| HostAction::SendAndClose(text.to_owned());
    for (at, act, verdict, diagnostic) in [
        (
            "GREETING",
            say("554 5.7.1 go away"),
            Verdict::Deferred,
            "4.3.2 mx.remote.test refused the session: 554 5.7.1 go away",
        ),
        (
            "GREETING",
            say("421 4.3.2 busy"),
            Verdict::Deferred,
            "4.3.2 mx.remote.test refused the session: 421 4.3.2 busy",
        ),
        ("GREETING", leave(""), Verdict::Deferred, "4.4.1 mx.remote.test: the connection was closed"),
        (
            "GREETING",
            say("HTTP/1.1 400 Bad Request"),
            Verdict::Deferred,
            "4.5.0 mx.remote.test: it does not speak SMTP",
        ),
        ("GREETING", say("999 what"), Verdict::Deferred, "4.5.0 mx.remote.test: it does not speak SMTP"),
        ("EHLO", say("554 5.7.1 no"), Verdict::Deferred, "4.3.2 mx.remote.test refused the session: 554 5.7.1 no"),
        ("MAIL", say("550 5.7.1 spam"), Verdict::Bounced, "550 5.7.1 spam"),
        ("MAIL", say("451 4.3.0 later"), Verdict::Deferred, "451 4.3.0 later"),
        (
            "MAIL",
            say("421 4.3.2 busy"),
            Verdict::Deferred,
            "4.3.2 mx.remote.test refused the session: 421 4.3.2 busy",
        ),
        ("MAIL", say("550 \u{0}\u{1b}[2Jx"), Verdict::Bounced, "550 \u{fffd}\u{fffd}[2Jx"),
        ("RCPT", leave("550 5.1.1 no"), Verdict::Deferred, "4.4.1 mx.remote.test: the connection was closed"),
        ("DATA", say("554 5.7.1 no"), Verdict::Bounced, "554 5.7.1 no"),
        ("DATA", say("451 4.3.0 later"), Verdict::Deferred, "451 4.3.0 later"),
        ("DATA", say("250 strange"), Verdict::Deferred, "4.3.2 mx.remote.test refused the session: 250 strange"),
        ("END", say("550 5.7.1 content"), Verdict::Bounced, "550 5.7.1 content"),
        ("END", say("451 4.3.0 later"), Verdict::Deferred, "451 4.3.0 later"),
        ("END", say("354 more"), Verdict::Deferred, "354 more"),
        ("MAIL", leave("554 5.7.1 no\r\n"), Verdict::Bounced, "554 5.7.1 no"),
        ("RCPT", leave("554 5.7.1 no\r\n"), Verdict::Bounced, "554 5.7.1 no"),
        (
            "DATA",
            say("354 go\r\n250 2.0.0 before its time"),
            Verdict::Deferred,
            "4.5.0 mx.remote.test: it answers what was not said",
        ),
        ("DATA", say("354 go\r\n554 5.7.1 no"), Verdict::Bounced, "554 5.7.1 no"),
        ("DATA", say("354 go\r\n451-4.3.0 later\r\n451 4.3.0 please"), Verdict::Deferred, "451 4.3.0 later please"),
        (
            "DATA",
            say("354 go\r\n421 4.3.2 busy"),
            Verdict::Deferred,
            "4.3.2 mx.remote.test refused the session: 421 4.3.2 busy",
        ),
        ("END", leave(""), Verdict::Deferred, "4.4.1 mx.remote.test: the connection was closed"),
        ("END", say("421 4.3.2 stop"), Verdict::Deferred, "4.3.2 mx.remote.test refused the session: 421 4.3.2 stop"),
    ] {
        for extensions in [vec!["PIPELINING"], vec![]] {
            let (act, wanted) = (act.clone(), at);
            let script = move |command: &str, _: usize| command.starts_with(wanted).then(|| act.clone());
            let remote =
                RemoteHost::with(HostConfig { extensions, script: Arc::new(script), ..HostConfig::default() }).await;
            let rig = Rig::to(&remote, patient()).await;
            let done = rig.send(ADA, MAIL).await;
            let (found, _, said) = only(&done);
            assert_eq!((found, said), (verdict, diagnostic), "{at}: {}", done.record.transcript);
        }
    }
}

#[tokio::test]
async fn after_a_refusal_that_did_not_wait_for_the_data_the_connection_is_not_used_again() {
    let mut remote = RemoteHost::scripted(|command, connection| {
        let early = command == "DATA" && connection == 1;
        early.then(|| HostAction::Send("354 go\r\n554 5.7.1 no\r\n".to_owned()))
    })
    .await;
    let rig = Rig::to(&remote, patient()).await;
    assert_eq!(only(&rig.send(ADA, MAIL).await), (Verdict::Bounced, Some(554), "554 5.7.1 no"));
    assert_eq!(only(&rig.send(ADA, MAIL).await).0, Verdict::Sent);
    assert_eq!(remote.next_mail().await.connection, 2);
    assert!(remote.is_drained());
}

#[tokio::test]
async fn a_host_that_hangs_or_talks_without_end_costs_bounded_time_and_memory() {
    for (at, act, diagnostic) in [
        ("GREETING", HostAction::Hang, "4.4.2 mx.remote.test: timed out waiting for the greeting"),
        ("EHLO", HostAction::Hang, "4.4.2 mx.remote.test: timed out waiting for EHLO"),
        ("MAIL", HostAction::Hang, "4.4.2 mx.remote.test: timed out waiting for MAIL"),
        ("DATA", HostAction::Hang, "4.4.2 mx.remote.test: timed out waiting for DATA"),
        ("END", HostAction::Hang, "4.4.2 mx.remote.test: timed out waiting for the reply to the final dot"),
        (
            "GREETING",
            HostAction::SendForever("x".repeat(4096)),
            "4.5.0 mx.remote.test: a line of its reply does not end",
        ),
        (
            "GREETING",
            HostAction::SendForever("220-hello\r\n".repeat(99)),
            "4.5.0 mx.remote.test: its reply does not end",
        ),
    ] {
        let wanted = at;
        let remote = RemoteHost::scripted(move |command, _| command.starts_with(wanted).then(|| act.clone())).await;
        let rig = Rig::to(&remote, hasty()).await;
        let done = rig.send(ADA, MAIL).await;
        let (verdict, _, said) = only(&done);
        assert_eq!((verdict, said), (Verdict::Deferred, diagnostic), "{at}: {}", done.record.transcript);
        assert!(done.record.transcript.len() <= MAX_TRANSCRIPT);
    }
}

#[tokio::test]
async fn when_the_time_of_a_delivery_is_over_its_dialog_is_kept() {
    for at in ["GREETING", "EHLO", "END"] {
        let remote =
            RemoteHost::scripted(move |command, _| command.starts_with(at).then_some(HostAction::Hang)).await;
        let timeouts = Timeouts { total: Duration::from_millis(500), ..Timeouts::default() };
        let done = Rig::to(&remote, timeouts).await.send(ADA, MAIL).await;
        let (verdict, _, said) = only(&done);
        assert_eq!(verdict, Verdict::Deferred);
        assert!(said.starts_with("4.4.2 mx.remote.test: timed out waiting for "), "{said}");
        assert_eq!(done.record.host.as_deref(), Some("mx.remote.test"));
        assert!(done.record.transcript.contains("-- mx.remote.test ["), "{}", done.record.transcript);
    }
}

#[tokio::test]
async fn the_next_host_is_asked_when_one_cannot_be_reached() {
    let mut remote = RemoteHost::start().await;
    let busy =
        |command: &str, _: usize| (command == "GREETING").then(|| HostAction::Send("421 4.3.2 busy\r\n".to_owned()));
    let first = RemoteHost::at(
        SocketAddr::from(([127, 0, 0, 2], remote.address.port())),
        HostConfig { script: Arc::new(busy), ..HostConfig::default() },
    )
    .await;
    let dns = DnsServer::start().await;
    dns.mx("remote.test", 20, "b.remote.test").address("b.remote.test", "127.0.0.1");
    dns.mx("remote.test", 10, "a.remote.test").address("a.remote.test", "127.0.0.2");
    dns.mx("remote.test", 5, "none.remote.test");
    let config = Outbound { port: remote.address.port(), ..Outbound::default() };
    let rig = Rig::with(dns, config, patient());
    let done = rig.send(ADA, MAIL).await;
    assert_eq!(only(&done).0, Verdict::Sent, "{}", done.record.transcript);
    assert_eq!(done.record.host.as_deref(), Some("b.remote.test"));
    remote.next_mail().await;
    assert_eq!(first.connections(), 1);
    assert!(done.record.transcript.contains("S: 421 4.3.2 busy"), "{}", done.record.transcript);
}

#[tokio::test]
async fn a_session_that_the_host_closed_meanwhile_costs_no_verdict() {
    let script = |command: &str, connection: usize| {
        // The first session ends after its message.
        (command == "END" && connection == 1)
            .then(|| HostAction::SendAndClose("250 2.0.0 taken, and bye\r\n".to_owned()))
    };
    let mut remote = RemoteHost::scripted(script).await;
    let rig = Rig::to(&remote, patient()).await;
    assert_eq!(only(&rig.send(ADA, MAIL).await).0, Verdict::Sent);
    assert_eq!(only(&rig.send(ADA, MAIL).await).0, Verdict::Sent);
    assert_eq!(remote.next_mail().await.connection, 2);
}

#[tokio::test]
async fn a_smarthost_that_cannot_be_reached_may_be_gone_round() {
    let mut remote = RemoteHost::start().await;
    let mut rig = Rig::to(&remote, patient()).await;
    rig.dns.mx("other.test", 10, "mx.remote.test");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut relay = Smarthost {
        host: "127.0.0.1".to_owned(),
        port: gone.port(),
        security: SmarthostSecurity::None,
        username: None,
        password: None,
        fallback: true,
    };
    let both = || request(&["ada@remote.test", "bob@other.test"], MAIL);
    let done = rig.transport.transmit(&flow(), &Destination::Smarthost(Arc::new(relay.clone())), both(), NOW).await;
    assert_eq!(verdicts(&done), [Verdict::Sent, Verdict::Sent], "{}", done.record.transcript);
    let mut taken = [remote.next_mail().await.recipients(), remote.next_mail().await.recipients()];
    taken.sort();
    assert_eq!(taken, [["ada@remote.test"], ["bob@other.test"]]);
    relay.fallback = false;
    rig = Rig::to(&remote, patient()).await;
    let done = rig.transport.transmit(&flow(), &Destination::Smarthost(Arc::new(relay)), both(), NOW).await;
    assert_eq!(verdicts(&done), [Verdict::Deferred, Verdict::Deferred]);
}

#[tokio::test]
async fn where_there_is_no_host_there_is_a_reason() {
    let dns = DnsServer::start().await;
    dns.mx("null.test", 0, ".");
    dns.mx("ours.test", 10, "mail.acme.test").mx("ours.test", 20, "b.ours.test").address("b.ours.test", "127.0.0.1");
    dns.mx("private.test", 10, "mx.private.test").address("mx.private.test", "10.1.2.3");
    dns.mx("nowhere.test", 10, "gone.nowhere.test");
    dns.mx("literal.test", 10, "8.8.8.8").address("bare.test", "10.0.0.1");
    dns.fail("broken.test");
    let rig = Rig::with(dns, Outbound::default(), patient());
    for (domain, verdict, diagnostic) in [
        ("null.test", Verdict::Bounced, "5.1.10 the domain null.test takes no mail (null MX)"),
        ("missing.test", Verdict::Bounced, "5.1.2 the domain missing.test does not exist"),
        (
            "ours.test",
            Verdict::Bounced,
            "5.4.6 the mail hosts of this domain lead back here, but it is not received here",
        ),
        ("private.test", Verdict::Bounced, "5.4.4 the mail host mx.private.test has no public address"),
        ("bare.test", Verdict::Bounced, "5.4.4 the mail host bare.test has no public address"),
        ("literal.test", Verdict::Bounced, "5.4.4 the mail host 8.8.8.8 is an address, not a name"),
        ("nowhere.test", Verdict::Bounced, "5.4.4 the mail host gone.nowhere.test has no address"),
    ] {
        let to = format!("ada@{domain}");
        let destination = Destination::Domain(domain.parse_domain());
        let done = rig.transport.transmit(&flow(), &destination, request(&[&to], MAIL), NOW).await;
        let (found, _, said) = only(&done);
        assert_eq!((found, said), (verdict, diagnostic));
    }
    let done = rig
        .transport
        .transmit(&flow(), &Destination::Domain("broken.test".parse_domain()), request(&["a@broken.test"], MAIL), NOW)
        .await;
    let (found, _, said) = only(&done);
    assert_eq!(found, Verdict::Deferred);
    assert!(said.starts_with("4.4.3 "), "{said}");
}
