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
    verifier: Verifier,
    pub keys: DkimKeyPair,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with_budget(Duration::from_secs(10)).await
    }

    async fn with_budget(budget: Duration) -> Self {
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

    fn sign_with(&self, message: &str, domain: &str, headers: &[&str], body_length: bool) -> String {
        let key = Ed25519Key::from_pkcs8_maybe_unchecked_der(self.keys.private_key()).unwrap();
        let signer = DkimSigner::from_key(key).domain(domain).selector("s1").headers(headers.iter().copied());
        let signer = signer.body_length(body_length);
        format!("{}{message}", signer.sign(message.as_bytes()).unwrap().to_header())
    }

    pub(crate) async fn verify(&self, address: &str, mail_from: &str, raw: &str) -> Verification {
        self.verify_from(&peer(address, "out.example.com"), mail_from, raw).await
    }

    async fn verify_from(&self, peer: &Peer, mail_from: &str, raw: &str) -> Verification {
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
async fn text_slipped_in_where_readers_disagree_about_the_header_is_not_vouched_for() {
    let bench = Bench::new().await;
    let raw = bench.sign(MESSAGE, "example.com", &["From", "Subject"]);
    for slipped in
        ["\r\nPay to me\r\n", "\r\nPay to: me\r\n\r\n", "\r\n: pay to me\r\n\r\n", "\r\nP\u{e4}y: me\r\n\r\n"]
    {
        let forged = raw.replacen("\r\n\r\n", slipped, 1);
        assert!(mime::parse(forged.as_bytes()).text.unwrap().contains("me"), "{slipped}");
        let found = bench.verify("192.0.2.1", "a@example.com", &forged).await;
        let verdicts = (found.verdicts.dkim, found.verdicts.dmarc);
        assert_eq!(verdicts, (Some(Verdict::PermError), Some(Verdict::Fail)), "{slipped}");
    }
}

#[tokio::test]
async fn a_field_put_on_top_of_a_signed_one_is_not_vouched_for() {
    let bench = Bench::new().await;
    let message = MESSAGE.replace(
        "\r\n\r\n",
        "\r\nMessage-ID: <1@example.com>\r\nIn-Reply-To: <0@example.com>\r\nReply-To: ada@example.com\r\n\
         Date: Tue, 28 Jul 2026 00:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\
         Content-Transfer-Encoding: 7bit\r\nContent-Disposition: inline\r\nCc: bob@example.com\r\n\
         References: <0@example.com>\r\nSender: ada@example.com\r\n\r\n",
    );
    let names = [
        "From",
        "To",
        "Subject",
        "Message-ID",
        "In-Reply-To",
        "Reply-To",
        "Date",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
        "Content-Disposition",
        "Cc",
        "References",
        "Sender",
    ];
    let raw = bench.sign(&message, "example.com", &names);
    let found = bench.verify("192.0.2.1", "a@example.com", &raw).await;
    assert_eq!((found.verdicts.dkim, found.verdicts.dmarc), (Some(Verdict::Pass), Some(Verdict::Pass)));
    for name in names {
        for on_top in [format!("{name}: x@y.test\r\n"), format!("{}: x@y.test\r\n", name.to_uppercase())] {
            let found = bench.verify("192.0.2.1", "a@example.com", &format!("{on_top}{raw}")).await;
            assert_ne!(found.verdicts.dkim, Some(Verdict::Pass), "{on_top}");
            assert_ne!(found.verdicts.dmarc, Some(Verdict::Pass), "{on_top}");
        }
        // Our reader takes a name with a blank behind it for that field; who signed once more than there is did not.
        let twice: Vec<&str> = names.into_iter().chain([name]).collect();
        let oversigned = bench.sign(&message, "example.com", &twice);
        for on_top in [format!("{name} : x@y.test\r\n"), format!("{name}: x@y.test\r\n")] {
            let found = bench.verify("192.0.2.1", "a@example.com", &format!("{on_top}{oversigned}")).await;
            assert_ne!(found.verdicts.dkim, Some(Verdict::Pass), "{on_top}");
        }
        let found = bench.verify("192.0.2.1", "a@example.com", &oversigned).await;
        assert_eq!(found.verdicts.dkim, Some(Verdict::Pass), "{name} signed once more than it stands there");
    }
    // Both are covered, as they are: nothing was put on top.
    let both = bench.sign(&format!("Subject: First\r\n{MESSAGE}"), "example.com", &["From", "Subject", "Subject"]);
    let found = bench.verify("192.0.2.1", "a@example.com", &both).await;
    assert_eq!(found.verdicts.dkim, Some(Verdict::Pass));
    // Fields that may stand often do.
    let found = bench.verify("192.0.2.1", "a@example.com", &format!("Received: x\r\nReceived: y\r\n{raw}")).await;
    assert_eq!(found.verdicts.dkim, Some(Verdict::Pass));
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
async fn a_from_that_readers_read_differently_passes_for_nobody() {
    let bench = Bench::new().await;
    let thief = format!("v=DKIM1; k=ed25519; p={}", bench.keys.encoded_public_key());
    for domain in ["evil.test", "bank.test.evil.test"] {
        bench.dns.txt(domain, "v=spf1 +all").txt(&format!("s1._domainkey.{domain}"), &thief);
    }
    bench.dns.txt("_dmarc.evil.test", "v=DMARC1; p=none").txt("_dmarc.bank.test", "v=DMARC1; p=reject");
    for author in [
        "ceo@bank.test\".evil.test",
        "ceo@bank.test>.evil.test",
        "ceo@bank.test).evil.test",
        "ceo@bank.test(.evil.test",
        "ceo@bank.test .evil.test",
        "<ceo@bank.test(x).evil.test>",
        "<ceo@bank.test\r\n .evil.test>",
        "\"CEO\" ceo@bank.test\".evil.test",
        "ceo@bank.test <x@evil.test>",
        "ceo@bank.test, x@evil.test",
        "<@bank.test:x@evil.test>",
        "<\"ceo@bank.test\"@evil.test>",
        "x@evil.test ceo@bank.test",
        "ceo@bank .test",
        "ceo@bank(x).test",
        "ceo@bank.\r\n test",
    ] {
        let mail = format!("From: {author}\r\nSubject: x\r\n\r\nPay to me.\r\n");
        let signed = bench.sign(&mail, "evil.test", &["From", "Subject"]);
        let found = bench.verify("192.0.2.66", "x@bank.test.evil.test", &signed).await;
        assert_eq!((found.verdicts.spf, found.verdicts.dkim), (Some(Verdict::Pass), Some(Verdict::Pass)), "{author}");
        let judged = found.verdicts.dmarc;
        assert!(matches!(judged, Some(Verdict::Fail | Verdict::PermError)), "{author}: {judged:?}");
        assert!(!found.aligned, "{author}");
    }
    // A domain is judged by its policy wherever its blanks stand.
    let found = bench.verify("192.0.2.66", "x@evil.test", "From: ceo@bank. test\r\n\r\nPay to me.\r\n").await;
    assert_eq!((found.verdicts.dmarc, found.enforced), (Some(Verdict::Fail), true));
}

#[tokio::test]
async fn a_line_of_an_mbox_file_on_top_hides_no_header() {
    let bench = Bench::new().await;
    let signed = bench.sign(MESSAGE, "example.com", &["From", "Subject"]);
    for line in
        ["From a", "From ", ">From a", ">From ", "From a@b.test Mon Nov 30 01:02:03 2026", ">From a@b.test Mon"]
    {
        let found = bench.verify("192.0.2.66", "x@evil.test", &format!("{line}\r\n{MESSAGE}")).await;
        let verdicts = (found.verdicts.dkim, found.verdicts.dmarc, found.enforced);
        assert_eq!(verdicts, (Some(Verdict::None), Some(Verdict::Fail), true), "{line}");
        let found = bench.verify("192.0.2.66", "x@evil.test", &format!("{line}\r\n{signed}")).await;
        let verdicts = (found.verdicts.dkim, found.verdicts.dmarc, found.aligned);
        assert_eq!(verdicts, (Some(Verdict::Pass), Some(Verdict::Pass), true), "{line}");
    }
    // Whatever else makes readers disagree about the header, nobody passes, whichever way the sender came.
    for line in ["junk", " x", ": x", "From\ta", ">>From a", "From a\r\nFrom b", "X\u{e9}: y", "FROM a", "Fr om: x"] {
        for raw in [
            format!("{line}\r\n{signed}"),
            signed.replacen("To: ", &format!("{line}\r\nTo: "), 1),
            signed.replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1),
        ] {
            // A line with a blank before it goes on from the one above.
            let is_plain = line == " x" && !raw.starts_with(line);
            let found = bench.verify("192.0.2.7", "a@example.com", &raw).await;
            let judged = found.verdicts.dmarc;
            assert!(is_plain || matches!(judged, Some(Verdict::PermError)), "{raw}: {judged:?}");
            assert!(is_plain || !found.aligned, "{raw}");
        }
    }
}

#[tokio::test]
async fn fields_behind_a_line_that_is_none_are_read_and_never_vouched_for() {
    let bench = Bench::new().await;
    let signed = bench.sign(MESSAGE, "example.com", &["From", "To", "Subject"]);
    let whole = bench.verify("192.0.2.7", "a@example.com", &signed).await;
    assert_eq!((whole.verdicts.dkim, whole.verdicts.dmarc), (Some(Verdict::Pass), Some(Verdict::Pass)));
    for line in ["junk", ": x", "X\u{e9}: y", "Fr om: x", "From a@b.test Mon Nov 30 01:02:03 2026", "\u{feff}"] {
        for field in ["Subject: Pay me", "From: ceo@bank.test", "Content-Type: text/html", "X-Any: y"] {
            for forged in [
                format!("{line}\r\n{field}\r\n{signed}"),
                format!("{field}\r\n{line}\r\n{signed}"),
                signed.replacen("To: ", &format!("{line}\r\n{field}\r\nTo: "), 1),
                signed.replacen("\r\n\r\n", &format!("\r\n{line}\r\n{field}\r\n\r\n"), 1),
            ] {
                // The separator of an mbox file on top is stepped over by everything, and its sender's host passes SPF.
                let on_top = forged.starts_with("From a@b.test");
                let (is_whole, by_spf) = (
                    on_top && (field == "X-Any: y" || field.starts_with("Content-Type")),
                    on_top && !field.starts_with("From"),
                );
                let found = bench.verify("192.0.2.7", "a@example.com", &forged).await;
                let text = mime::parse(forged.as_bytes()).text;
                assert!(field.contains("html") || text.unwrap().starts_with("Does"), "{forged}");
                assert!(is_whole || found.verdicts.dkim != Some(Verdict::Pass), "{forged}");
                assert!(by_spf || found.verdicts.dmarc != Some(Verdict::Pass), "{forged}");
                assert!(by_spf || !found.aligned, "{forged}");
            }
        }
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
