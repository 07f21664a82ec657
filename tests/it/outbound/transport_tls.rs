//! TLS with remote hosts and smarthosts: opportunistic, or with a certificate that must be right.

use std::sync::Arc;
use std::time::Duration;

use mailkite::testing::config::{Outbound, Smarthost, SmarthostSecurity};
use mailkite::testing::net::dns::Resolver;
use mailkite::testing::net::egress::Guard;
use mailkite::testing::outbound::client::Timeouts;
use mailkite::testing::outbound::transport::Transport;
use mailkite::testing::outbound::transport::mx::MxResolver;
use mailkite::testing::outbound::transport::tls::ClientTls;
use mailkite::testing::outbound::{Destination, Verdict};

use super::transport::{ADA, MAIL, NOW, Rig, flow, only, patient, request, verdicts};
use crate::support::dns::DnsServer;
use crate::support::remote_host::{HostAction, HostConfig, RemoteHost, self_signed, self_signed_with};

#[tokio::test]
async fn tls_is_used_when_it_is_offered_and_done_without_when_it_fails() {
    let (acceptor, _) = self_signed("another.name.test");
    let mut remote = RemoteHost::with(HostConfig { tls: Some(acceptor.clone()), ..HostConfig::default() }).await;
    let rig = Rig::to(&remote, patient()).await;
    let done = rig.send(ADA, MAIL).await;
    assert_eq!(only(&done).0, Verdict::Sent);
    assert!(remote.next_mail().await.tls);
    assert_eq!(done.record.tls.as_deref(), Some("TLSv1.3"));
    // Refused, and answered with rubbish: in plain text then.
    for said in ["454 4.7.0 not now\r\n", "220 go\r\nrubbish instead of TLS\r\n"] {
        let script =
            move |command: &str, _: usize| (command == "STARTTLS").then(|| HostAction::SendAndClose(said.to_owned()));
        let refuse = move |command: &str, _: usize| {
            (command == "STARTTLS" && said.starts_with("454")).then(|| HostAction::Send(said.to_owned()))
        };
        let script: crate::support::remote_host::Script =
            if said.starts_with("454") { Arc::new(refuse) } else { Arc::new(script) };
        let mut remote =
            RemoteHost::with(HostConfig { tls: Some(acceptor.clone()), script, ..HostConfig::default() }).await;
        let rig = Rig::to(&remote, patient()).await;
        let done = rig.send(ADA, MAIL).await;
        assert_eq!(only(&done).0, Verdict::Sent, "{}", done.record.transcript);
        assert!(!remote.next_mail().await.tls);
        assert_eq!(done.record.tls, None);
    }
}

#[tokio::test]
async fn tls_that_hangs_or_is_lost_at_once_is_done_without() {
    let (acceptor, _) = self_signed("mx.remote.test");
    let stalls = |command: &str, connection: usize| {
        (command == "STARTTLS" && connection == 1).then(|| HostAction::SendAndHang("220 go\r\n".to_owned()))
    };
    let greetings = std::sync::atomic::AtomicUsize::new(0);
    let lost = move |command: &str, connection: usize| {
        let second = connection == 1
            && command.starts_with("EHLO")
            && greetings.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= 2;
        (second || (connection == 2 && command == "STARTTLS")).then(|| match command {
            "STARTTLS" => HostAction::Send("454 4.7.0 not again\r\n".to_owned()),
            _ => HostAction::SendAndClose(String::new()),
        })
    };
    let scripts: [crate::support::remote_host::Script; 2] = [Arc::new(stalls), Arc::new(lost)];
    for script in scripts {
        let mut remote =
            RemoteHost::with(HostConfig { tls: Some(acceptor.clone()), script, ..HostConfig::default() }).await;
        let timeouts = Timeouts { command: Duration::from_secs(1), ..patient() };
        let rig = Rig::to(&remote, timeouts).await;
        let done = rig.send(ADA, MAIL).await;
        assert_eq!(only(&done).0, Verdict::Sent, "{}", done.record.transcript);
        let taken = remote.next_mail().await;
        assert!(!taken.tls && taken.connection == 2);
    }
}

#[tokio::test]
async fn a_smarthost_takes_all_with_a_password_and_its_certificate_counts() {
    let (acceptor, certificate) = self_signed("127.0.0.1");
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pem(&certificate)).unwrap();
    for (mechanism, said) in [("AUTH PLAIN LOGIN", "235 2.7.0 ok\r\n"), ("AUTH LOGIN", "334 VXNlcm5hbWU6\r\n")] {
        let script = move |command: &str, _: usize| {
            let auth = command.starts_with("AUTH").then(|| HostAction::Send(said.to_owned()));
            auth.or((command == "dXNlcg==").then(|| HostAction::Send("334 UGFzc3dvcmQ6\r\n".to_owned())))
                .or((command == "c2VjcmV0").then(|| HostAction::Send("235 2.7.0 ok\r\n".to_owned())))
        };
        let manner = HostConfig {
            extensions: vec!["PIPELINING", mechanism],
            tls: Some(acceptor.clone()),
            script: Arc::new(script),
            ..HostConfig::default()
        };
        for implicit_tls in [false, true] {
            let mut remote = RemoteHost::with(HostConfig { implicit_tls, ..manner.clone() }).await;
            let relay = Arc::new(Smarthost {
                host: "127.0.0.1".to_owned(),
                port: remote.address.port(),
                security: if implicit_tls { SmarthostSecurity::Tls } else { SmarthostSecurity::StartTls },
                username: Some("user".to_owned()),
                password: Some("secret".to_owned()),
                fallback: false,
            });
            let dns = DnsServer::start().await;
            let resolver = Arc::new(Resolver::new(&[dns.address]).unwrap());
            let hosts = MxResolver::new(&Outbound::default(), "mail.acme.test", resolver, Guard::default(), None);
            for (ca_file, verdict) in [(Some(ca.as_path()), Verdict::Sent), (None, Verdict::Deferred)] {
                let tls = ClientTls::new(&mailkite::testing::net::tls::client_config(ca_file).unwrap());
                let transport = Transport::new("mail.acme.test".to_owned(), patient(), tls, hosts.clone());
                let everywhere = request(&["a@one.test", "b@two.test"], MAIL);
                let done =
                    transport.transmit(&flow(), &Destination::Smarthost(Arc::clone(&relay)), everywhere, NOW).await;
                assert_eq!(verdicts(&done), [verdict, verdict], "{}", done.record.transcript);
                assert!(!done.record.transcript.contains("c2VjcmV0") && !done.record.transcript.contains("secret"));
                if verdict == Verdict::Sent {
                    let taken = remote.next_mail().await;
                    assert_eq!((taken.tls, taken.recipients().len()), (true, 2));
                    assert_eq!(done.record.tls.as_deref(), Some("TLSv1.3 (verified)"));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_do_is_reported_by_its_name_date_or_issuer() {
    let named = |name: &str| rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let mut expired = named("127.0.0.1");
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = named("127.0.0.1");
    early.not_before = rcgen::date_time_ymd(2200, 1, 1);
    early.not_after = rcgen::date_time_ymd(2201, 1, 1);
    for (params, trusted, why) in [
        (named("mx.other.test"), true, "the certificate is for mx.other.test, not for 127.0.0.1"),
        (expired, true, "the certificate expired at 2020-01-01T00:00:00.000Z"),
        (early, true, "the certificate is not valid before 2200-01-01T00:00:00.000Z"),
        (named("127.0.0.1"), false, "the certificate is self-signed"),
    ] {
        let (acceptor, certificate) = self_signed_with(params);
        let remote = RemoteHost::with(HostConfig { tls: Some(acceptor), ..HostConfig::default() }).await;
        let relay = Smarthost {
            host: "127.0.0.1".to_owned(),
            port: remote.address.port(),
            security: SmarthostSecurity::StartTls,
            username: None,
            password: None,
            fallback: false,
        };
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, pem(&certificate)).unwrap();
        let tls =
            ClientTls::new(&mailkite::testing::net::tls::client_config(trusted.then_some(ca.as_path())).unwrap());
        let dns = DnsServer::start().await;
        let resolver = Arc::new(Resolver::new(&[dns.address]).unwrap());
        let hosts = MxResolver::new(&Outbound::default(), "mail.acme.test", resolver, Guard::default(), None);
        let transport = Transport::new("mail.acme.test".to_owned(), patient(), tls, hosts);
        let smarthost = Destination::Smarthost(Arc::new(relay));
        let done = transport.transmit(&flow(), &smarthost, request(&["a@one.test"], MAIL), NOW).await;
        let said = format!("4.7.5 127.0.0.1: TLS failed: {why} (the smarthost has to show a valid certificate)");
        assert_eq!(only(&done), (Verdict::Deferred, None, said.as_str()));
        assert!(done.record.transcript.contains(why), "{}", done.record.transcript);
    }
}

fn pem(certificate: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
