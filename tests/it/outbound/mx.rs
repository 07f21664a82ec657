//! The hosts of domains as DNS, MTA-STS and DANE tell them: which are tried, in which order, and what TLS has to prove.

use std::sync::Arc;
use std::time::Duration;

use mailkite::testing::clock::Timestamp;
use mailkite::testing::config::{Outbound, Smarthost, SmarthostSecurity};
use mailkite::testing::mail::address::{Domain, Mailbox};
use mailkite::testing::net::dns::Resolver;
use mailkite::testing::net::egress::{Guard, Policy};
use mailkite::testing::outbound::transport::dane::Tlsa;
use mailkite::testing::outbound::transport::mx::MxResolver;
use mailkite::testing::outbound::{Host, TlsRule, Unroutable, Verdict};

use crate::support::dns::DnsServer;

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// The documentation networks stand in for public ones; no connection is made to them.
pub(super) fn guard() -> Guard {
    let networks = ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"];
    let allow_networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    Guard {
        policy: Policy { allow_localhost: false, allow_networks },
        own_listeners: vec!["192.0.2.99:25".parse().unwrap()],
    }
}

pub(super) struct Rig {
    pub(super) dns: DnsServer,
    pub(super) hosts: MxResolver,
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::with(Outbound::default()).await
    }

    pub(super) async fn with(config: Outbound) -> Self {
        let dns = DnsServer::start().await;
        let resolver = Arc::new(Resolver::uncached(&[dns.address]).unwrap());
        let hosts = MxResolver::new(&config, "Mail.Acme.test", resolver, guard(), None);
        Self { dns, hosts }
    }

    pub(super) async fn of(&self, domain: &str) -> Result<Vec<Host>, Unroutable> {
        self.hosts.resolve(&Domain::parse(domain).unwrap(), NOW).await
    }

    pub(super) async fn names_of(&self, domain: &str) -> Vec<String> {
        names(&self.of(domain).await.unwrap())
    }

    /// The verdict and the diagnostic for a domain without hosts.
    pub(super) async fn refusal_of(&self, domain: &str) -> (Verdict, String) {
        let refusal = self.of(domain).await.unwrap_err();
        (refusal.verdict(), refusal.diagnostic())
    }

    pub(super) async fn rule_of(&self, domain: &str) -> TlsRule {
        let hosts = self.of(domain).await.unwrap();
        assert_eq!(hosts.len(), 1);
        hosts[0].tls.clone()
    }

    pub(super) fn was_asked(&self, question: &str) -> bool {
        self.dns.asked().iter().any(|asked| asked == question)
    }
}

pub(super) fn names(hosts: &[Host]) -> Vec<String> {
    hosts.iter().map(|host| host.name.clone()).collect()
}

fn addresses(host: &Host) -> Vec<String> {
    host.addresses.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn hosts_stand_by_preference_and_equal_ones_in_any_order() {
    let rig = Rig::new().await;
    rig.dns.mx("remote.test", 20, "Last.remote.test.").address("last.remote.test", "192.0.2.9");
    rig.dns.mx("remote.test", 5, "first.remote.test").address("first.remote.test", "192.0.2.8");
    let equal: Vec<String> = (0..6).map(|number| format!("mx{number}.remote.test")).collect();
    for name in &equal {
        rig.dns.mx("remote.test", 10, name).address(name, "192.0.2.1");
    }
    let mut orders = Vec::new();
    for _ in 0..20 {
        let found = rig.names_of("remote.test").await;
        assert_eq!((found[0].as_str(), found[7].as_str()), ("first.remote.test", "last.remote.test"));
        let mut middle = found[1..7].to_vec();
        orders.push(middle.clone());
        middle.sort();
        assert_eq!(middle, equal);
    }
    orders.sort();
    orders.dedup();
    assert!(orders.len() > 1, "twenty times the same order of 720");
}

#[tokio::test]
async fn a_hundred_mx_records_come_to_twenty_hosts_and_forty_addresses() {
    let rig = Rig::new().await;
    for number in 0..100 {
        let (few, many) = (format!("mx{number}.few.test"), format!("mx{number}.many.test"));
        rig.dns.mx("few.test", number, &few).address(&few, "192.0.2.1");
        rig.dns.mx("many.test", number, &many);
        for last in 1..=3 {
            rig.dns.address(&many, &format!("192.0.2.{last}"));
        }
    }
    for last in 1..=50 {
        rig.dns.address("one.test", &format!("192.0.2.{last}"));
    }
    let few = rig.of("few.test").await.unwrap();
    assert_eq!(names(&few), (0..20).map(|number| format!("mx{number}.few.test")).collect::<Vec<_>>());
    let many = rig.of("many.test").await.unwrap();
    assert_eq!(many.len(), 14);
    assert_eq!(many.iter().map(|host| host.addresses.len()).sum::<usize>(), 40);
    let one = rig.of("one.test").await.unwrap();
    assert_eq!((one.len(), one[0].addresses.len()), (1, 8));
}

#[tokio::test]
async fn without_mx_records_a_domain_is_its_own_host() {
    for dane in [true, false] {
        let rig = Rig::with(Outbound { dane, ..Outbound::default() }).await;
        rig.dns.address("bare.test", "192.0.2.1").txt("empty.test", "only words");
        rig.dns.cname("alias.test", "bare.test");
        rig.dns.mx("aliased.test", 10, "mx.aliased.test").cname("mx.aliased.test", "bare.test");
        let bare = rig.of("bare.test").await.unwrap();
        assert_eq!((names(&bare), addresses(&bare[0])), (vec!["bare.test".into()], vec!["192.0.2.1:25".into()]));
        assert_eq!(addresses(&rig.of("alias.test").await.unwrap()[0]), ["192.0.2.1:25"]);
        let aliased = rig.of("aliased.test").await.unwrap();
        assert_eq!(names(&aliased), ["mx.aliased.test"], "a host is called what its MX record calls it");
        assert_eq!(
            rig.refusal_of("empty.test").await,
            (Verdict::Bounced, "5.4.4 the mail host empty.test has no address".into())
        );
    }
}

#[tokio::test]
async fn what_will_never_have_a_host_bounces() {
    for dane in [true, false] {
        let rig = Rig::with(Outbound { dane, ..Outbound::default() }).await;
        rig.dns.mx("null.test", 0, ".");
        rig.dns.mx("half.test", 0, ".").mx("half.test", 10, "mx.half.test").address("mx.half.test", "192.0.2.1");
        rig.dns.mx("gone.test", 10, "a.gone.test").mx("gone.test", 20, "b.gone.test").txt("b.gone.test", "words");
        let bounced = |why: &str| (Verdict::Bounced, why.to_owned());
        assert_eq!(rig.refusal_of("null.test").await, bounced("5.1.10 the domain null.test takes no mail (null MX)"));
        assert_eq!(rig.names_of("half.test").await, ["mx.half.test"], "RFC 7505 §3: one among others means nothing");
        assert_eq!(rig.refusal_of("missing.test").await, bounced("5.1.2 the domain missing.test does not exist"));
        let (verdict, why) = rig.refusal_of("gone.test").await;
        assert!(verdict == Verdict::Bounced && why.starts_with("5.4.4 "), "{why}");
    }
}

#[tokio::test]
async fn an_address_literal_is_not_even_asked_for() {
    let rig = Rig::new().await;
    for literal in ["a@[192.0.2.1]", "a@[IPv6:2001:db8::1]"] {
        let mailbox = Mailbox::parse(literal).unwrap();
        let refusal = rig.hosts.resolve(mailbox.domain(), NOW).await.unwrap_err();
        assert_eq!(refusal.verdict(), Verdict::Bounced);
        assert!(refusal.diagnostic().starts_with("5.1.2 "), "{}", refusal.diagnostic());
    }
    assert_eq!(rig.dns.asked(), [""; 0]);
}

#[tokio::test]
async fn what_dns_cannot_say_now_is_asked_later() {
    for dane in [true, false] {
        let rig = Rig::with(Outbound { dane, ..Outbound::default() }).await;
        rig.dns.fail("broken.test");
        rig.dns.mx("hidden.test", 10, "a.hidden.test").fail("a.hidden.test");
        rig.dns.mx("hidden.test", 20, "b.hidden.test");
        rig.dns.mx("half.test", 10, "a.half.test").fail("a.half.test");
        rig.dns.mx("half.test", 20, "b.half.test").address("b.half.test", "192.0.2.1");
        rig.dns.cname("loop.test", "pool.test").cname("pool.test", "loop.test");
        rig.dns.mx("winding.test", 10, "loop.test");
        rig.dns.mx("cut.test", 10, "mx.half.test").break_off("cut.test");
        rig.dns.mx("limp.test", 10, "mx.limp.test").address("mx.limp.test", "192.0.2.1").break_off("mx.limp.test");
        for domain in ["broken.test", "hidden.test", "loop.test", "winding.test", "cut.test", "limp.test"] {
            let (verdict, why) = rig.refusal_of(domain).await;
            assert!(verdict == Verdict::Deferred && why.starts_with("4.4.3 "), "{domain}: {verdict:?} {why}");
        }
        assert_eq!(rig.names_of("half.test").await, ["b.half.test"], "one host is enough");
    }
}

#[tokio::test]
async fn silence_is_borne_for_a_bounded_time() {
    let rig = Rig::new().await;
    rig.dns.silence("silent.test");
    for number in 0..20 {
        let host = format!("mx{number}.mute.test");
        rig.dns.mx("mute.test", number, &host).silence(&host);
    }
    let both = async { tokio::join!(rig.refusal_of("silent.test"), rig.refusal_of("mute.test")) };
    // One host after the other would take two minutes.
    let (silent, mute) = tokio::time::timeout(MINUTE, both).await.unwrap();
    for (verdict, why) in [silent, mute] {
        assert!(verdict == Verdict::Deferred && why.starts_with("4.4.3 "), "{verdict:?} {why}");
    }
}

#[tokio::test]
async fn our_own_name_among_the_hosts_leaves_only_better_ones() {
    let rig = Rig::new().await;
    for domain in ["backup.test", "equal.test", "ours.test"] {
        rig.dns.mx(domain, 10, "MAIL.acme.TEST").mx(domain, 20, "worse.test");
    }
    rig.dns.mx("backup.test", 5, "better.test").mx("backup.test", 10, "same.test").mx("equal.test", 10, "same.test");
    for host in ["better.test", "same.test", "worse.test", "mail.acme.test"] {
        rig.dns.address(host, "192.0.2.1");
    }
    assert_eq!(rig.names_of("backup.test").await, ["better.test"]);
    for domain in ["equal.test", "ours.test", "mail.acme.test"] {
        let (verdict, why) = rig.refusal_of(domain).await;
        assert!(verdict == Verdict::Bounced && why.starts_with("5.4.6 "), "{domain}: {why}");
    }
}

#[tokio::test]
async fn only_permitted_addresses_are_left_and_ipv6_comes_first_by_turns() {
    let rig = Rig::new().await;
    rig.dns.mx("remote.test", 10, "inner.test").mx("remote.test", 20, "mixed.test");
    for address in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1", "192.0.2.99"] {
        rig.dns.address("inner.test", address).address("mixed.test", address);
    }
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"] {
        rig.dns.address("mixed.test", address);
    }
    rig.dns.mx("inside.test", 10, "inner.test");
    let hosts = rig.of("remote.test").await.unwrap();
    assert_eq!(names(&hosts), ["mixed.test"]);
    let mut found = addresses(&hosts[0]);
    let kinds: Vec<bool> = hosts[0].addresses.iter().map(std::net::SocketAddr::is_ipv6).collect();
    assert_eq!(kinds, [true, false, true, false, false]);
    found.sort();
    let wanted = ["192.0.2.1:25", "192.0.2.2:25", "192.0.2.3:25", "[2001:db8::1]:25", "[2001:db8::2]:25"];
    assert_eq!(found, wanted);
    assert_eq!(
        rig.refusal_of("inside.test").await,
        (Verdict::Bounced, "5.4.4 the mail host inner.test has no public address".into())
    );
}

#[tokio::test]
async fn a_smarthost_may_be_anywhere() {
    let rig = Rig::new().await;
    rig.dns.address("relay.test", "10.0.0.1").address("relay.test", "::1");
    let relay = |host: &str, security| Smarthost {
        host: host.to_owned(),
        port: 2525,
        security,
        username: None,
        password: None,
        fallback: false,
    };
    let verified = || TlsRule::Verified { by: "verified" };
    for (host, security, found, tls) in [
        ("relay.test", SmarthostSecurity::StartTls, vec!["[::1]:2525", "10.0.0.1:2525"], verified()),
        ("127.0.0.1", SmarthostSecurity::None, vec!["127.0.0.1:2525"], TlsRule::Never),
        ("::1", SmarthostSecurity::Tls, vec!["[::1]:2525"], verified()),
    ] {
        let hosts = rig.hosts.resolve_smarthost(&relay(host, security)).await.unwrap();
        assert_eq!((hosts.len(), hosts[0].name.as_str(), &hosts[0].tls), (1, host, &tls));
        assert_eq!(addresses(&hosts[0]), found);
    }
    for host in ["missing.test", "broken.test"] {
        rig.dns.fail("broken.test");
        let refusal = rig.hosts.resolve_smarthost(&relay(host, SmarthostSecurity::Tls)).await.unwrap_err();
        assert_eq!(refusal.verdict(), Verdict::Deferred, "its name may come back: {}", refusal.diagnostic());
    }
}

pub(super) const TLSA: &str = "_25._tcp.mx.remote.test";

/// remote.test with one host, and DNSSEC for the names in `signed`.
async fn signed(config: Outbound, signed: &[&str]) -> Rig {
    let rig = Rig::with(config).await;
    rig.dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "192.0.2.1");
    for name in signed {
        rig.dns.sign(name);
    }
    rig
}

pub(super) const ALL: [&str; 3] = ["remote.test", "mx.remote.test", TLSA];

pub(super) fn dane(records: &[(u8, u8, u8, &[u8])]) -> TlsRule {
    let record = |(usage, selector, matching, data): &(u8, u8, u8, &[u8])| Tlsa {
        usage: *usage,
        selector: *selector,
        matching: *matching,
        data: data.to_vec(),
    };
    TlsRule::Dane(records.iter().map(record).collect())
}

#[tokio::test]
async fn proven_tlsa_records_rule() {
    let rig = signed(Outbound::default(), &ALL).await;
    rig.dns.tlsa(TLSA, 3, 1, 1, &[7; 32]).tlsa(TLSA, 1, 1, 1, &[8; 32]).tlsa(TLSA, 2, 0, 2, &[9; 64]);
    assert_eq!(rig.rule_of("remote.test").await, dane(&[(3, 1, 1, &[7; 32]), (2, 0, 2, &[9; 64])]));
    // On another port there are other records; an IPv6 address proves as much.
    let rig = signed(Outbound { port: 2525, ..Outbound::default() }, &["remote.test", "mx.remote.test"]).await;
    rig.dns.remove("mx.remote.test").address("mx.remote.test", "2001:db8::1");
    rig.dns.tlsa("_2525._tcp.mx.remote.test", 3, 0, 1, &[7; 32]).sign("_2525._tcp.mx.remote.test");
    assert_eq!(rig.rule_of("remote.test").await, dane(&[(3, 0, 1, &[7; 32])]));
    // A domain that is its own host, and DNS proves that it has no MX records.
    let rig = Rig::new().await;
    rig.dns.address("bare.test", "192.0.2.1").sign("bare.test");
    rig.dns.tlsa("_25._tcp.bare.test", 3, 0, 1, &[7; 32]).sign("_25._tcp.bare.test");
    assert_eq!(rig.rule_of("bare.test").await, dane(&[(3, 0, 1, &[7; 32])]));
}

#[tokio::test]
async fn tlsa_records_that_nobody_can_obey_still_want_tls() {
    let rig = signed(Outbound::default(), &ALL).await;
    rig.dns.tlsa(TLSA, 0, 1, 1, &[7; 32]).tlsa(TLSA, 3, 1, 1, &[7; 31]).tlsa(TLSA, 3, 9, 1, &[7; 32]);
    assert_eq!(rig.rule_of("remote.test").await, dane(&[]));
}

#[tokio::test]
async fn without_a_proof_there_is_no_dane() {
    // Nothing signed, or not the MX records, or not the address: then nobody asks for TLSA records, which fail here.
    for names in [vec![], vec!["mx.remote.test", TLSA], vec!["remote.test", TLSA]] {
        let rig = signed(Outbound::default(), &names).await;
        rig.dns.fail(TLSA);
        assert_eq!(rig.rule_of("remote.test").await, TlsRule::Opportunistic, "{names:?}");
        assert!(!rig.was_asked(&format!("{TLSA} TLSA")), "{names:?}");
    }
    let rig = signed(Outbound { dane: false, ..Outbound::default() }, &ALL).await;
    rig.dns.tlsa(TLSA, 3, 1, 1, &[7; 32]);
    assert_eq!(rig.rule_of("remote.test").await, TlsRule::Opportunistic, "it is switched off");
    let rig = signed(Outbound::default(), &["remote.test", "mx.remote.test"]).await;
    rig.dns.tlsa(TLSA, 3, 1, 1, &[7; 32]);
    assert_eq!(rig.rule_of("remote.test").await, TlsRule::Opportunistic, "the records themselves are not proven");
    let rig = signed(Outbound::default(), &ALL).await;
    assert_eq!(rig.rule_of("remote.test").await, TlsRule::Opportunistic, "it is proven that there are none");
}

#[tokio::test]
async fn a_host_whose_tlsa_records_cannot_be_read_is_passed_over() {
    let rig = signed(Outbound::default(), &ALL).await;
    rig.dns.fail(TLSA);
    let (verdict, why) = rig.refusal_of("remote.test").await;
    assert!(verdict == Verdict::Deferred && why.starts_with("4.7.5 "), "{why}");
    rig.dns.mx("more.test", 10, "mx.remote.test").mx("more.test", 20, "mx.more.test").sign("more.test");
    rig.dns.address("mx.more.test", "192.0.2.2").sign("mx.more.test").sign("_25._tcp.mx.more.test");
    assert_eq!(rig.names_of("more.test").await, ["mx.more.test"]);
}
