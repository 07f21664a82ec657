//! Mail authentication against a DNS server that answers, refuses, fails and stays silent.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;
use mail_auth::dkim::generate::DkimKeyPair;
use mailkite::testing::inbound::verify::{Verification, Verifier};
use mailkite::testing::mail::envelope::Peer;
use mailkite::testing::mail::mime;
use mailkite::testing::mail::trace::Verdict;
use mailkite::testing::net::dns::{DnsError, Resolver};

use crate::support::dns::DnsServer;

pub(crate) const MESSAGE: &str =
    "From: Ada <ada@example.com>\r\nTo: support@acme.dev\r\nSubject: Engine\r\n\r\nDoes it branch?\r\n";

pub(crate) struct Bench {
    pub dns: DnsServer,
    pub(super) verifier: Verifier,
    pub keys: DkimKeyPair,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with_budget(Duration::from_secs(10)).await
    }

    pub(super) async fn with_budget(budget: Duration) -> Self {
        let dns = DnsServer::start().await;
        let resolver = Resolver::new(&[dns.address]).unwrap();
        let keys = DkimKeyPair::generate_ed25519().unwrap();
        dns.txt("s1._domainkey.example.com", &format!("v=DKIM1; k=ed25519; p={}", keys.encoded_public_key()));
        dns.txt("example.com", "v=spf1 ip4:192.0.2.7 include:spf.example.com -all");
        dns.txt("spf.example.com", "v=spf1 a:out.example.com ?ip4:192.0.2.9 ~ip4:192.0.2.10");
        dns.address("out.example.com", "192.0.2.8").address("out.example.com", "2001:db8::8");
        dns.txt("_dmarc.example.com", "v=DMARC1; p=reject");
        let verifier = Verifier::new(resolver, "mx.acme.dev".into(), budget);
        Self { dns, verifier, keys }
    }

    pub(crate) fn sign(&self, message: &str, domain: &str, headers: &[&str]) -> String {
        self.sign_with(message, domain, headers, false)
    }

    pub(super) fn sign_with(&self, message: &str, domain: &str, headers: &[&str], body_length: bool) -> String {
        let key = Ed25519Key::from_pkcs8_maybe_unchecked_der(self.keys.private_key()).unwrap();
        let signer = DkimSigner::from_key(key).domain(domain).selector("s1").headers(headers.iter().copied());
        let signer = signer.body_length(body_length);
        format!("{}{message}", signer.sign(message.as_bytes()).unwrap().to_header())
    }

    pub(crate) async fn verify(&self, address: &str, mail_from: &str, raw: &str) -> Verification {
        self.verify_from(&peer(address, "out.example.com"), mail_from, raw).await
    }

    pub(super) async fn verify_from(&self, peer: &Peer, mail_from: &str, raw: &str) -> Verification {
        let mail = mime::parse(raw.as_bytes());
        self.verifier.verify(peer, mail_from, raw.as_bytes(), &mail).await
    }
}

fn peer(address: &str, helo: &str) -> Peer {
    Peer { address: address.parse().unwrap(), helo: helo.into(), esmtp: true, tls: None }
}

#[tokio::test]
async fn a_signed_message_from_a_permitted_host_passes_everything() {
    let bench = Bench::new().await;
    let raw = bench.sign(MESSAGE, "example.com", &["From", "Subject"]);
    let found = bench.verify("192.0.2.7", "bounce@example.com", &raw).await;
    assert_eq!(found.verdicts.spf, Some(Verdict::Pass));
    assert_eq!(found.verdicts.dkim, Some(Verdict::Pass));
    assert_eq!(found.verdicts.dmarc, Some(Verdict::Pass));
    assert_eq!(found.verdicts.arc, Some(Verdict::None));
    assert_eq!(
        found.authentication_results,
        "Authentication-Results: mx.acme.dev;\r\n\tspf=pass smtp.mailfrom=bounce@example.com;\r\n\
         \tdkim=pass header.d=example.com header.s=s1;\r\n\tdmarc=pass header.from=example.com\r\n"
    );
}

#[tokio::test]
async fn spf_gives_each_of_its_verdicts() {
    let bench = Bench::new().await;
    bench.dns.txt("broken.example", "v=spf1 ip4:nonsense -all").fail("failing.example");
    bench.dns.txt("mx.example", "v=spf1 mx -all").mx("mx.example", 10, "out.example.com.");
    bench.dns.txt("circle.example", "v=spf1 include:circle.example -all");
    for (address, sender, verdict) in [
        ("192.0.2.7", "a@example.com", Verdict::Pass),
        ("::ffff:192.0.2.7", "a@example.com", Verdict::Pass),
        ("192.0.2.8", "a@example.com", Verdict::Pass),
        ("2001:db8::8", "a@example.com", Verdict::Pass),
        ("192.0.2.1", "a@example.com", Verdict::Fail),
        ("192.0.2.10", "a@spf.example.com", Verdict::SoftFail),
        ("192.0.2.9", "a@spf.example.com", Verdict::Neutral),
        ("192.0.2.8", "a@mx.example", Verdict::Pass),
        ("192.0.2.7", "a@nowhere.example", Verdict::None),
        ("192.0.2.7", "a@broken.example", Verdict::PermError),
        ("192.0.2.7", "a@circle.example", Verdict::PermError),
        ("192.0.2.7", "a@failing.example", Verdict::TempError),
    ] {
        let found = bench.verify(address, sender, MESSAGE).await;
        assert_eq!(found.verdicts.spf, Some(verdict), "{address} {sender}");
    }
}

#[tokio::test]
async fn the_null_reverse_path_is_checked_by_its_helo_name() {
    let bench = Bench::new().await;
    let found = bench.verify_from(&peer("192.0.2.7", "example.com"), "", MESSAGE).await;
    assert_eq!(found.verdicts.spf, Some(Verdict::Pass));
    assert!(found.authentication_results.contains("spf=pass smtp.helo=example.com"));
    let found = bench.verify_from(&peer("192.0.2.7", "[192.0.2.7]"), "", MESSAGE).await;
    assert_eq!(found.verdicts.spf, Some(Verdict::None));
}

#[tokio::test]
async fn an_envelope_sender_without_a_domain_is_nobody_s() {
    let bench = Bench::new().await;
    for sender in ["scanner", "\"scanner@example.com\""] {
        let found = bench.verify_from(&peer("192.0.2.7", "example.com"), sender, MESSAGE).await;
        assert_eq!(found.verdicts.spf, Some(Verdict::None), "{sender}");
        assert_eq!(found.verdicts.dmarc, Some(Verdict::Fail), "{sender}");
        assert!(!found.authentication_results.contains("spf=none smtp"), "{}", found.authentication_results);
    }
    let long = format!("{}@example.com", "x".repeat(255));
    for sender in ["ilo.@example.com", "a..b@example.com", &long] {
        let found = bench.verify("192.0.2.7", sender, MESSAGE).await;
        assert_eq!(found.verdicts.spf, Some(Verdict::Pass), "{sender}");
        assert_eq!(found.verdicts.dmarc, Some(Verdict::Pass), "{sender}");
    }
}

#[tokio::test]
async fn a_changed_message_fails_and_so_does_its_policy() {
    let bench = Bench::new().await;
    let raw = bench.sign(MESSAGE, "example.com", &["From", "Subject"]);
    for changed in [raw.replace("branch", "loop"), raw.replace("Engine", "Motor")] {
        let found = bench.verify("192.0.2.1", "a@example.com", &changed).await;
        assert_eq!(found.verdicts.dkim, Some(Verdict::Fail));
        assert_eq!(found.verdicts.dmarc, Some(Verdict::Fail));
    }
    let found = bench.verify("192.0.2.1", "a@example.com", MESSAGE).await;
    assert_eq!((found.verdicts.dkim, found.verdicts.dmarc), (Some(Verdict::None), Some(Verdict::Fail)));
}

#[tokio::test]
async fn a_signature_must_cover_from_and_have_a_key() {
    let bench = Bench::new().await;
    let uncovered = bench.sign(MESSAGE, "example.com", &["Subject"]);
    let found = bench.verify("192.0.2.1", "a@example.com", &uncovered).await;
    assert_eq!(found.verdicts.dkim, Some(Verdict::PermError));
    let keyless = bench.sign(MESSAGE, "nokey.example", &["From"]);
    let found = bench.verify("192.0.2.1", "a@example.com", &keyless).await;
    assert_eq!(found.verdicts.dkim, Some(Verdict::PermError));
    bench.dns.fail("s1._domainkey.failing.example");
    let failing = bench.sign(MESSAGE, "failing.example", &["From"]);
    let found = bench.verify("192.0.2.1", "a@example.com", &failing).await;
    assert_eq!(found.verdicts.dkim, Some(Verdict::TempError));
}

#[tokio::test]
async fn a_signature_with_a_body_length_counts_when_it_covers_the_whole_body() {
    let bench = Bench::new().await;
    for message in [MESSAGE.to_owned(), format!("{MESSAGE}\r\n\r\n")] {
        let raw = bench.sign_with(&message, "example.com", &["From", "Subject"], true);
        assert!(raw.contains("l="), "{raw}");
        let found = bench.verify("192.0.2.1", "a@example.com", &raw).await;
        assert_eq!((found.verdicts.dkim, found.verdicts.dmarc), (Some(Verdict::Pass), Some(Verdict::Pass)));
        let found = bench.verify("192.0.2.1", "a@example.com", &format!("{raw}Pay to me\r\n")).await;
        assert_eq!((found.verdicts.dkim, found.verdicts.dmarc), (Some(Verdict::Fail), Some(Verdict::Fail)));
    }
}

#[tokio::test]
async fn spf_refuses_two_records_and_words_that_are_no_mechanism() {
    let bench = Bench::new().await;
    bench.dns.txt("two.example", "v=spf1 +all").txt("two.example", "v=spf1 -all");
    bench.dns.txt("word.example", "v=spf1 foo:bar +all");
    bench.dns.txt("other.example", "proof=1").txt("other.example", "v=spf1 +all");
    for (sender, verdict) in [
        ("a@two.example", Verdict::PermError),
        ("a@word.example", Verdict::PermError),
        ("a@other.example", Verdict::Pass),
    ] {
        let found = bench.verify("192.0.2.7", sender, MESSAGE).await;
        assert_eq!(found.verdicts.spf, Some(verdict), "{sender}");
    }
}

#[tokio::test]
async fn dmarc_wants_the_author_and_not_just_anybody_to_pass() {
    let bench = Bench::new().await;
    bench
        .dns
        .txt("s1._domainkey.thief.example", &format!("v=DKIM1; k=ed25519; p={}", bench.keys.encoded_public_key()));
    bench.dns.txt("thief.example", "v=spf1 +all");
    let raw = bench.sign(MESSAGE, "thief.example", &["From"]);
    let found = bench.verify("192.0.2.1", "a@thief.example", &raw).await;
    assert_eq!((found.verdicts.spf, found.verdicts.dkim), (Some(Verdict::Pass), Some(Verdict::Pass)));
    assert_eq!(found.verdicts.dmarc, Some(Verdict::Fail));
}

#[tokio::test]
async fn dmarc_follows_the_from_field_and_refuses_two_of_them() {
    let bench = Bench::new().await;
    bench.dns.fail("_dmarc.failing.example");
    for (from, verdict) in [
        ("From: ada@example.com\r\n", Verdict::Pass),
        ("From: ada@mail.example.com\r\n", Verdict::Pass),
        ("From: ada@nowhere.example\r\n", Verdict::None),
        ("From: ada@failing.example\r\n", Verdict::TempError),
        ("From: Lovelace, Ada <ada@example.com>\r\n", Verdict::Pass),
        ("From: Engines: all of them <ada@example.com>\r\n", Verdict::Pass),
        ("From: Ada (the first) <ada@example.com>\r\n", Verdict::Pass),
        ("From: Ada @ Engines <ada@example.com>\r\n", Verdict::Pass),
        ("From: \"ceo@bank.example\" <ada@example.com>\r\n", Verdict::Pass),
        ("From: ada@example.com <ada@example.com>\r\n", Verdict::Pass),
        ("From: Team: Ada <ada@example.com>;\r\n", Verdict::Pass),
        ("From: =?utf-8?Q?ceo=40bank.example,?= <ada@example.com>\r\n", Verdict::Pass),
        ("From: \"ada l\"@example.com\r\n", Verdict::Pass),
        ("From: ada@example.com, bob@example.com\r\n", Verdict::PermError),
        ("From: ada@example.com, bob@other.example\r\n", Verdict::PermError),
        ("From: ada@example.com\r\nFrom: bob@other.example\r\n", Verdict::PermError),
        ("From: =?utf-8?Q?ada=40example.com?=\r\n", Verdict::PermError),
        ("From: =?utf-8?Q?ada=40example.com?= (x)\r\n", Verdict::PermError),
        ("From: Team:;\r\n", Verdict::PermError),
        ("From: <>\r\n", Verdict::PermError),
        ("Subject: none\r\n", Verdict::PermError),
    ] {
        let found = bench.verify("192.0.2.7", "a@example.com", &format!("{from}\r\nbody\r\n")).await;
        assert_eq!(found.verdicts.dmarc, Some(verdict), "{from}");
    }
}

#[tokio::test]
async fn at_most_five_signatures_are_checked() {
    let bench = Bench::new().await;
    let mut raw = MESSAGE.to_owned();
    for number in 0..9 {
        raw = bench.sign(&raw, &format!("d{number}.example"), &["From"]);
    }
    bench.verify("192.0.2.7", "a@example.com", &raw).await;
    let keys = bench.dns.asked().into_iter().filter(|name| name.contains("_domainkey.d")).count();
    assert_eq!(keys, 5);
}

#[tokio::test]
async fn a_message_costs_a_bounded_number_of_questions() {
    let bench = Bench::new().await;
    // Each of its terms names ten hosts, and so does each policy that it includes.
    let terms: String = (0..9).map(|n| format!("mx:m{n}.greedy.example ")).collect();
    bench.dns.txt("greedy.example", &format!("v=spf1 {terms} -all"));
    for n in 0..9 {
        for host in 0..10 {
            let name = format!("h{host}.m{n}.greedy.example");
            bench.dns.mx(&format!("m{n}.greedy.example"), 10, &format!("{name}."));
            bench.dns.address(&name, "198.51.100.1");
        }
    }
    let mut header = String::new();
    for i in 1..=50 {
        let tags = format!("a=ed25519-sha256; d=seal{i}.example; s=s{i}; t=1; b=AAAA");
        header = format!(
            "ARC-Seal: i={i}; cv={}; {tags}\r\n\
             ARC-Message-Signature: i={i}; c=relaxed/relaxed; h=from; bh=AAAA; {tags}\r\n\
             ARC-Authentication-Results: i={i}; mx.seal{i}.example; spf=pass\r\n{header}",
            if i == 1 { "none" } else { "pass" },
        );
    }
    let asked = bench.dns.asked().len();
    let found = bench.verify("192.0.2.1", "a@greedy.example", &format!("{header}{MESSAGE}")).await;
    let asked = bench.dns.asked().len() - asked;
    assert_eq!((found.verdicts.spf, found.verdicts.arc), (Some(Verdict::PermError), Some(Verdict::PermError)));
    assert!(asked <= 50, "{asked} questions");
    assert_eq!(found.verdicts.dmarc, Some(Verdict::Fail), "the rest is judged as ever");
}

#[tokio::test]
async fn silence_is_temperror_within_the_budget() {
    let bench = Bench::with_budget(Duration::from_millis(300)).await;
    bench.dns.silence_all();
    let raw = bench.sign(MESSAGE, "example.com", &["From"]);
    let start = Instant::now();
    let found = bench.verify("192.0.2.7", "a@example.com", &raw).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let verdicts = [found.verdicts.spf, found.verdicts.dkim, found.verdicts.dmarc];
    assert_eq!(verdicts, [Some(Verdict::TempError); 3]);
    assert!(found.authentication_results.contains("dmarc=temperror"));
}

#[tokio::test]
async fn one_silent_name_costs_only_its_own_check() {
    let bench = Bench::with_budget(Duration::from_millis(500)).await;
    bench.dns.silence("example.com");
    let raw = bench.sign(MESSAGE, "example.com", &["From"]);
    let found = bench.verify("192.0.2.7", "a@example.com", &raw).await;
    assert_eq!((found.verdicts.spf, found.verdicts.dkim), (Some(Verdict::TempError), Some(Verdict::Pass)));
}

#[tokio::test]
async fn loopback_peers_and_dev_mode_are_not_checked_and_nothing_is_asked() {
    let bench = Bench::new().await;
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let found = bench.verify(address, "a@example.com", MESSAGE).await;
        assert_eq!(found.verdicts, Default::default());
        assert_eq!(found.authentication_results, "Authentication-Results: mx.acme.dev; none\r\n");
    }
    let skipping = Verifier::skip("mx.acme.dev".into());
    let mail = mime::parse(MESSAGE.as_bytes());
    let found = skipping.verify(&peer("192.0.2.7", "x"), "a@example.com", MESSAGE.as_bytes(), &mail).await;
    assert_eq!(found.verdicts, Default::default());
    assert!(bench.dns.asked().is_empty());
}

#[tokio::test]
async fn anything_can_be_verified_also_in_another_task() {
    let bench = Bench::new().await;
    for raw in
        ["", "\r\n", "no header at all", "DKIM-Signature: v=1; a=x; b=!!\r\n\r\n", "ARC-Seal: i=1; cv=none\r\n\r\n"]
    {
        let verifier = bench.verifier.clone();
        let found = tokio::spawn(async move {
            let mail = mime::parse(raw.as_bytes());
            verifier.verify(&peer("192.0.2.7", "x.example"), "a@example.com", raw.as_bytes(), &mail).await
        });
        assert_eq!(found.await.unwrap().verdicts.spf, Some(Verdict::Pass), "{raw}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_header_or_a_large_body_is_verified_in_bounded_time() {
    let bench = Bench::new().await;
    let names = "x:".repeat(100_000);
    let key = |h: &str| {
        format!(
            "DKIM-Signature: v=1; a=ed25519-sha256; d=example.com; s=s1; h={h}from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
        )
    };
    let many = format!("{}{MESSAGE}", key("").repeat(3000));
    let wide = format!("{}{}{MESSAGE}", key(&names), "X: y\r\n".repeat(900));
    let large = bench.sign(&format!("{MESSAGE}{}", "a line of text \r\n".repeat(500_000)), "example.com", &["From"]);
    for (raw, dkim) in [(many, Verdict::PermError), (wide, Verdict::PermError), (large, Verdict::Pass)] {
        let start = Instant::now();
        let found = bench.verify("192.0.2.7", "a@example.com", &raw).await;
        assert_eq!((found.verdicts.spf, found.verdicts.dkim), (Some(Verdict::Pass), Some(dkim)));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn addresses_come_from_hosts_literals_and_dns() {
    let bench = Bench::new().await;
    bench.dns.fail("failing.example").txt("textonly.example", "x");
    let resolver = Resolver::new(&[bench.dns.address]).unwrap();
    let mut found = resolver.addresses("out.example.com").await.unwrap();
    found.sort();
    assert_eq!(found, ["192.0.2.8".parse::<IpAddr>().unwrap(), "2001:db8::8".parse().unwrap()]);
    assert!(resolver.addresses("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
    assert_eq!(resolver.addresses("192.0.2.1").await.unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(resolver.addresses("nowhere.example").await, Err(DnsError::NoSuchName("nowhere.example".into())));
    assert_eq!(resolver.addresses("textonly.example").await, Err(DnsError::NoAddress("textonly.example".into())));
    assert!(resolver.addresses("failing.example").await.unwrap_err().is_transient());
    for name in ["", ".", "a b", "a..b"] {
        assert!(matches!(resolver.addresses(name).await, Err(DnsError::BadName(_))), "{name}");
    }
}
