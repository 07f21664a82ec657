//! MTA-STS policies of domains: discovery, retrieval, caching (RFC 8461).

use std::sync::{Arc, Mutex};

use mailkite::testing::clock::Timestamp;
use mailkite::testing::config::Outbound;
use mailkite::testing::mail::address::Domain;
use mailkite::testing::net::dns::Resolver;
use mailkite::testing::net::egress::Egress;
use mailkite::testing::outbound::transport::mta_sts::MtaSts;
use mailkite::testing::outbound::transport::mx::MxResolver;
use mailkite::testing::outbound::{Host, TlsRule, Unroutable, Verdict};

use super::mx::{ALL, MINUTE, NOW, Rig, TLSA, dane, guard, names};
use crate::support::dns::DnsServer;
use crate::support::receiver::{Receiver, Reply, TestCertificate};

/// A domain with a policy that a test may change, and hosts that match it.
struct StsRig {
    rig: Rig,
    web: Receiver,
    reply: Arc<Mutex<Reply>>,
}

impl StsRig {
    async fn new() -> Self {
        Self::with(&TestCertificate::for_names(&["mta-sts.remote.test"]), &["127.0.0.0/8"]).await
    }

    async fn with(certificate: &TestCertificate, open: &[&str]) -> Self {
        let reply = Arc::new(Mutex::new(Reply::status(404)));
        let served = Arc::clone(&reply);
        let web = Receiver::start_tls(certificate, move |_| served.lock().unwrap().clone()).await;
        let dns = DnsServer::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "192.0.2.1");
        dns.mx("remote.test", 20, "mx.other.test").address("mx.other.test", "192.0.2.2");
        dns.txt("_mta-sts.remote.test", "v=STSv1; id=1;").address("mta-sts.remote.test", "127.0.0.1");
        let resolver = Arc::new(Resolver::uncached(&[dns.address]).unwrap());
        let mut guard = guard();
        for network in open {
            guard.policy.allow_networks.push(network.parse().unwrap());
        }
        let egress = Egress::new(guard.clone(), &certificate.client_config(), Arc::clone(&resolver));
        let port = web.address().port();
        let sts = MtaSts::new(Arc::clone(&resolver), egress, guard.policy.clone(), port);
        let hosts = MxResolver::new(&Outbound::default(), "mail.acme.test", resolver, guard, Some(sts));
        Self { rig: Rig { dns, hosts }, web, reply }
    }

    fn serve(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    fn publish(&self, mode: &str, hosts: &[&str], max_age: u32) {
        let hosts: String = hosts.iter().map(|host| format!("mx: {host}\r\n")).collect();
        let text = format!("version: STSv1\r\nmode: {mode}\r\n{hosts}max_age: {max_age}\r\n");
        self.serve(Reply::status(200).header("content-type", "text/plain; charset=utf-8").body(text));
    }

    fn set_id(&self, id: &str) {
        self.rig.dns.remove("_mta-sts.remote.test").txt("_mta-sts.remote.test", &format!("v=STSv1; id={id};"));
    }

    async fn at(&self, now: Timestamp) -> Result<Vec<Host>, Unroutable> {
        self.rig.hosts.resolve(&Domain::parse("remote.test").unwrap(), now).await
    }

    /// True when a policy is enforced.
    async fn enforces(&self, now: Timestamp) -> bool {
        self.at(now).await.unwrap()[0].tls == VERIFIED
    }
}

const VERIFIED: TlsRule = TlsRule::Verified { by: "MTA-STS" };

#[tokio::test]
async fn an_enforced_policy_names_the_hosts_and_wants_their_certificates() {
    let mut sts = StsRig::new().await;
    sts.publish("enforce", &["*.remote.test"], 604_800);
    let hosts = sts.at(NOW).await.unwrap();
    assert_eq!((names(&hosts), &hosts[0].tls), (vec!["mx.remote.test".to_owned()], &VERIFIED));
    let request = sts.web.next_request().await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/.well-known/mta-sts.txt"));

    let sts = StsRig::new().await;
    sts.publish("enforce", &["mx.third.test"], 604_800);
    let refusal = sts.at(NOW).await.unwrap_err();
    assert_eq!(refusal.verdict(), Verdict::Deferred);
    assert!(refusal.diagnostic().starts_with("4.7.5 the MTA-STS policy of remote.test "), "{}", refusal.diagnostic());
}

#[tokio::test]
async fn hosts_that_the_policy_forbids_do_not_crowd_out_those_it_allows() {
    let sts = StsRig::new().await;
    for number in 0..30 {
        let host = format!("mx{number}.crowd.test");
        sts.rig.dns.mx("remote.test", 1, &host).address(&host, "192.0.2.3");
    }
    sts.publish("enforce", &["mx.remote.test"], 604_800);
    assert_eq!(names(&sts.at(NOW).await.unwrap()), ["mx.remote.test"]);
}

#[tokio::test]
async fn a_policy_that_only_tests_changes_nothing() {
    for mode in ["testing", "none"] {
        let sts = StsRig::new().await;
        sts.publish(mode, &["mx.third.test"], 604_800);
        let hosts = sts.at(NOW).await.unwrap();
        assert_eq!(names(&hosts), ["mx.remote.test", "mx.other.test"]);
        assert!(hosts.iter().all(|host| host.tls == TlsRule::Opportunistic));
        assert_eq!(sts.web.requests().len(), 1);
    }
}

#[tokio::test]
async fn without_exactly_one_record_nothing_is_fetched() {
    for texts in [vec![], vec!["v=STSv1; id=1;", "v=STSv1; id=2;"], vec!["v=STSv2; id=1;"]] {
        let sts = StsRig::new().await;
        sts.publish("enforce", &["mx.remote.test"], 604_800);
        sts.rig.dns.remove("_mta-sts.remote.test");
        for text in texts {
            sts.rig.dns.txt("_mta-sts.remote.test", text);
        }
        assert!(!sts.enforces(NOW).await);
        assert_eq!(sts.web.connections(), 0);
    }
}

#[tokio::test]
async fn what_is_no_policy_is_not_enforced_and_not_asked_for_again_at_once() {
    const GOOD: &str = "version: STSv1\nmode: enforce\nmx: mx.remote.test\nmax_age: 604800\n";
    let text = |status: u16, kind: &str, body: String| Reply::status(status).header("content-type", kind).body(body);
    let elsewhere = Receiver::start(|_| Reply::status(200)).await;
    for reply in [
        text(404, "text/plain", GOOD.to_owned()),
        text(203, "text/plain", GOOD.to_owned()),
        text(200, "text/html", GOOD.to_owned()),
        text(200, "text/plainest", GOOD.to_owned()),
        Reply::status(200).body(GOOD),
        text(200, "text/plain", format!("{GOOD}{}", "x".repeat(64 * 1024))),
        text(200, "text/plain", GOOD.replace("STSv1", "STSv9")),
        Reply::redirect(301, &elsewhere.url()),
        Reply::close_before_headers(),
    ] {
        let sts = StsRig::new().await;
        sts.serve(reply);
        assert!(!sts.enforces(NOW).await);
        let connections = sts.web.connections();
        sts.publish("enforce", &["mx.remote.test"], 604_800);
        assert!(!sts.enforces(NOW.plus(9 * MINUTE)).await);
        assert_eq!(sts.web.connections(), connections);
        assert!(sts.enforces(NOW.plus(10 * MINUTE)).await);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_policy_comes_from_a_public_host_with_a_valid_certificate() {
    let wrong_name = TestCertificate::for_names(&["remote.test"]);
    let sts = StsRig::with(&wrong_name, &["127.0.0.0/8"]).await;
    sts.publish("enforce", &["mx.remote.test"], 604_800);
    assert!(!sts.enforces(NOW).await);
    assert_eq!(sts.web.requests().len(), 0);

    let sts = StsRig::with(&TestCertificate::for_names(&["mta-sts.remote.test"]), &[]).await;
    sts.publish("enforce", &["mx.remote.test"], 604_800);
    assert!(!sts.enforces(NOW).await);
    assert_eq!(sts.web.connections(), 0, "loopback is not open");
}

#[tokio::test]
async fn a_policy_is_remembered_while_its_id_stays() {
    let sts = StsRig::new().await;
    sts.publish("enforce", &["mx.remote.test"], 7_200);
    for minutes in [0, 5, 15, 60] {
        assert!(sts.enforces(NOW.plus(minutes * MINUTE)).await);
    }
    assert_eq!(sts.web.requests().len(), 1);
    sts.publish("testing", &["mx.remote.test"], 7_200);
    assert!(sts.enforces(NOW.plus(71 * MINUTE)).await, "nothing says that it has changed");
    sts.set_id("2");
    assert!(!sts.enforces(NOW.plus(82 * MINUTE)).await);
    assert_eq!(sts.web.requests().len(), 2);
}

#[tokio::test]
async fn who_blocks_the_fetch_does_not_switch_the_policy_off() {
    let sts = StsRig::new().await;
    sts.publish("enforce", &["mx.remote.test"], 7_200);
    assert!(sts.enforces(NOW).await);
    sts.serve(Reply::status(500));
    sts.set_id("2");
    assert!(sts.enforces(NOW.plus(11 * MINUTE)).await);
    assert_eq!(sts.web.requests().len(), 2);
    sts.rig.dns.remove("_mta-sts.remote.test");
    assert!(sts.enforces(NOW.plus(22 * MINUTE)).await);
    sts.rig.dns.fail("_mta-sts.remote.test");
    assert!(sts.enforces(NOW.plus(119 * MINUTE)).await);
    assert!(!sts.enforces(NOW.plus(120 * MINUTE)).await, "its time is over");
}

#[tokio::test]
async fn a_policy_of_a_minute_is_fetched_again_after_it() {
    let sts = StsRig::new().await;
    sts.publish("enforce", &["mx.remote.test"], 60);
    assert!(sts.enforces(NOW).await);
    assert!(sts.enforces(NOW.plus(MINUTE)).await);
    assert_eq!(sts.web.requests().len(), 2);
    sts.serve(Reply::status(500));
    assert!(!sts.enforces(NOW.plus(2 * MINUTE)).await);
    assert!(!sts.enforces(NOW.plus(3 * MINUTE)).await);
    assert_eq!(sts.web.requests().len(), 3, "a failed fetch is not repeated with every message");
}

#[tokio::test]
async fn dane_goes_before_mta_sts_unless_its_records_ask_for_less() {
    for (data, rule) in [(&[7; 32][..], dane(&[(3, 1, 1, &[7; 32])])), (&[7; 31][..], VERIFIED)] {
        let sts = StsRig::new().await;
        sts.publish("enforce", &["mx.remote.test"], 604_800);
        sts.rig.dns.tlsa(TLSA, 3, 1, 1, data);
        for name in ALL {
            sts.rig.dns.sign(name);
        }
        assert_eq!(sts.at(NOW).await.unwrap()[0].tls, rule);
    }
}
