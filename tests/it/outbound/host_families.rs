//! Hosts over IPv6 and IPv4: reverse DNS names, source addresses, networks that this machine lacks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mailkite::testing::clock::Clock;
use mailkite::testing::jobs::Jobs;
use mailkite::testing::outbound::Verdict;
use tokio::net::TcpListener;

use super::host_pauses::{NOW, Rig, verdict};
use crate::support::outbound::{any_port, busy};
use crate::support::remote_host::{HostAction, HostConfig, RemoteHost};

#[tokio::test]
async fn a_host_that_wants_a_name_for_our_ipv6_address_gets_the_mail_over_ipv4() {
    for (stage, reply) in [
        ("GREETING", "554 5.7.25 no PTR for your address"),
        ("MAIL", "550 5.7.25 The IP address sending this message does not have a PTR record"),
        ("RCPT", "450 4.7.25 cannot find your reverse hostname"),
        ("END", "550 5.7.1 this message does not meet IPv6 sending guidelines regarding PTR records"),
    ] {
        let mut four = RemoteHost::at(any_port([127, 0, 0, 1]), HostConfig::default()).await;
        let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], four.address.port()));
        let (six, _) = busy(six, stage, reply).await;
        let rig = Rig::new(four.address.port(), |_| {}).await;
        rig.dns.address("mx.remote.test", "::1").address("mx.remote.test", "127.0.0.1");
        let done = rig.send().await;
        assert_eq!(verdict(&done), Verdict::Sent, "{stage}: {}", done.record.transcript);
        assert!(done.record.transcript.contains(reply), "{}", done.record.transcript);
        assert_eq!(four.next_mail().await.recipients(), ["ada@remote.test"]);
        assert_eq!(verdict(&rig.send().await), Verdict::Sent);
        assert_eq!(six.connections(), 1, "{stage}: it is not asked again at once");
    }
}

#[tokio::test]
async fn a_name_is_no_reason_where_there_is_no_ipv4() {
    let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0));
    let (six, _) = busy(six, "MAIL", "550 5.7.25 no PTR record").await;
    let rig = Rig::new(six.address.port(), |_| {}).await;
    rig.dns.address("mx.remote.test", "::1");
    let done = rig.send().await;
    assert_eq!(done.outcomes[0].diagnostic, "550 5.7.25 no PTR record");
}

#[tokio::test]
async fn without_ipv6_only_ipv4_is_tried() {
    let four = RemoteHost::at(any_port([127, 0, 0, 1]), HostConfig::default()).await;
    let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], four.address.port()));
    let six = RemoteHost::at(six, HostConfig::default()).await;
    let rig = Rig::new(four.address.port(), |config| config.ipv6 = false).await;
    rig.dns.address("mx.remote.test", "::1").address("mx.remote.test", "127.0.0.1");
    assert_eq!(verdict(&rig.send().await), Verdict::Sent);
    assert_eq!((six.connections(), four.connections()), (0, 1));
    let rig = Rig::new(four.address.port(), |config| config.ipv6 = false).await;
    rig.dns.address("mx.remote.test", "::1");
    let done = rig.send().await;
    assert_eq!(verdict(&done), Verdict::Deferred);
    assert!(done.outcomes[0].diagnostic.contains("ipv6 is off"), "{}", done.outcomes[0].diagnostic);
}

#[tokio::test]
async fn mail_leaves_from_the_address_of_its_family_that_is_configured() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sources = vec!["127.0.0.9".parse().unwrap(), "::1".parse().unwrap()];
    let rig = Rig::new(port, |config| config.source_addresses = sources).await;
    rig.dns.address("mx.remote.test", "127.0.0.1");
    let peer = async {
        let (stream, peer) = listener.accept().await.unwrap();
        drop(stream);
        peer.ip().to_string()
    };
    let (_, peer) = tokio::join!(rig.send(), peer);
    assert_eq!(peer, "127.0.0.9");
}

#[tokio::test]
async fn a_refusal_for_want_of_a_name_is_held_against_the_address_that_gave_it() {
    // Its sessions end with each message, so that addresses are chosen anew.
    let once = |command: &str, _: usize| {
        (command == "END").then(|| HostAction::SendAndClose("250 2.0.0 taken, and bye\r\n".to_owned()))
    };
    let four =
        RemoteHost::at(any_port([127, 0, 0, 1]), HostConfig { script: Arc::new(once), ..HostConfig::default() })
            .await;
    let port = four.address.port();
    let other = RemoteHost::at(SocketAddr::from(([127, 0, 0, 2], port)), HostConfig::default()).await;
    let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port));
    let (six, _busy) = busy(six, "MAIL", "550 5.7.25 no PTR record").await;
    let clock = Clock::manual(NOW);
    let Rig { dns, transport } = Rig::new(port, |_| {}).await;
    let rig = Rig { dns, transport: transport.waking(Jobs::default(), clock.clone()) };
    for address in ["::1", "127.0.0.1", "127.0.0.2"] {
        rig.dns.address("mx.remote.test", address);
    }
    for (asked, passed) in [(1, 61), (2, 61), (2, 61), (3, 0)] {
        let done = rig.send().await;
        assert_eq!(verdict(&done), Verdict::Sent, "{}", done.record.transcript);
        assert_eq!(six.connections(), asked, "for longer each time");
        clock.advance(Duration::from_secs(passed));
    }
    assert_eq!((four.connections(), other.connections()), (4, 0), "the address that takes mail is as good as ever");
}
