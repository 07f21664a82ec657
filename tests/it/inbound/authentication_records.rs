//! TXT records that count: keys by their purpose, policies by their number and correctness.

use mail_auth::common::headers::HeaderWriter as _;
use mailkite::testing::mail::trace::Verdict;

use super::authentication::{Bench, MESSAGE};
use crate::support::forwarding_server::{ForwardingServer, GOOD, forward, from, text_of};

const KEY: &str = "s1._domainkey.example.com";

impl Bench {
    /// The verdict on a signature when the key's name has these records; `{key}` stands for the key.
    async fn dkim_with(&self, records: &[&str]) -> (Option<Verdict>, String) {
        // Every answer is remembered for as long as its record lives.
        let bench = Self::new().await;
        bench.dns.remove(KEY);
        for record in records {
            bench.dns.txt(KEY, &record.replace("{key}", &self.keys.encoded_public_key()));
        }
        let raw = self.sign(MESSAGE, "example.com", &["From", "Subject"]);
        let found = bench.verify("192.0.2.99", "a@elsewhere.example", &raw).await;
        (found.verdicts.dkim, found.authentication_results)
    }

    /// The DMARC verdict on an unsigned mail of example.com when its policy's name has these records.
    async fn dmarc_with(records: &[&str]) -> (Option<Verdict>, bool) {
        let bench = Self::new().await;
        bench.dns.remove("_dmarc.example.com");
        for record in records {
            bench.dns.txt("_dmarc.example.com", record);
        }
        let found = bench.verify("192.0.2.99", "a@elsewhere.example", MESSAGE).await;
        (found.verdicts.dmarc, found.enforced)
    }
}

#[tokio::test]
async fn a_key_verifies_what_it_is_for_and_nothing_else() {
    let bench = Bench::new().await;
    for (record, verdict) in [
        ("v=DKIM1; k=ed25519; p={key}", Verdict::Pass),
        ("v=DKIM1; k=ed25519; s=email; p={key}", Verdict::Pass),
        ("v=DKIM1; k=ed25519; s=tlsrpt:*; p={key}", Verdict::Pass),
        ("v=DKIM1; k=ed25519; h=sha1:sha256; p={key}", Verdict::Pass),
        ("v=DKIM1; k=ed25519; h=sha256; t=s; g=nobody; p={key}", Verdict::Pass),
        ("v=DKIM1; k=ed25519; s=tlsrpt; p={key}", Verdict::PermError),
        ("v=DKIM1; k=ed25519; s=other; p={key}", Verdict::PermError),
        ("v=DKIM1; k=ed25519; h=sha1; p={key}", Verdict::PermError),
        ("v=DKIM1; k=rsa; p={key}", Verdict::PermError),
        ("v=DKIM1; k=ed25519; k=ed25519; p={key}", Verdict::PermError),
        ("v=DKIM2; k=ed25519; p={key}", Verdict::PermError),
        ("v=DKIM1; k=ed25519; p=", Verdict::PermError),
    ] {
        let (found, results) = bench.dkim_with(&[record]).await;
        assert_eq!(found, Some(verdict), "{record}");
        assert!(results.contains("header.d=example.com header.s=s1"), "{results}");
    }
}

#[tokio::test]
async fn of_several_records_under_a_keys_name_the_one_that_fits_is_taken() {
    let bench = Bench::new().await;
    for others in [&["v=DKIM1; k=ed25519; s=tlsrpt; p={key}"][..], &["v=spf1 -all", "v=DKIM1; p="]] {
        let mut records = others.to_vec();
        records.push("v=DKIM1; k=ed25519; p={key}");
        assert_eq!(bench.dkim_with(&records).await.0, Some(Verdict::Pass), "{records:?}");
        records.reverse();
        assert_eq!(bench.dkim_with(&records).await.0, Some(Verdict::Pass), "{records:?}");
        assert_eq!(bench.dkim_with(others).await.0, Some(Verdict::PermError), "{others:?}");
    }
}

#[tokio::test]
async fn a_key_may_lie_behind_an_alias() {
    let bench = Bench::new().await;
    let key = format!("v=DKIM1; k=ed25519; p={}", bench.keys.encoded_public_key());
    bench.dns.remove(KEY).cname(KEY, "keys.esp.example.").txt("keys.esp.example", &key);
    bench.dns.remove("_dmarc.example.com").cname("_dmarc.example.com", "policy.esp.example.");
    bench.dns.txt("policy.esp.example", "v=DMARC1; p=reject");
    let raw = bench.sign(MESSAGE, "example.com", &["From", "Subject"]);
    let found = bench.verify("192.0.2.99", "a@elsewhere.example", &raw).await;
    assert_eq!((found.verdicts.dkim, found.verdicts.dmarc), (Some(Verdict::Pass), Some(Verdict::Pass)));
}

#[tokio::test]
async fn a_key_that_is_bound_to_its_domain_signs_for_no_subdomain() {
    use mail_auth::common::crypto::Ed25519Key;
    use mail_auth::dkim::DkimSigner;
    let bench = Bench::new().await;
    for (flags, verdict) in [("", Verdict::Pass), ("t=y; ", Verdict::Pass), ("t=y:s; ", Verdict::Fail)] {
        let other = Bench::new().await;
        let key = format!("v=DKIM1; k=ed25519; {flags}p={}", bench.keys.encoded_public_key());
        other.dns.remove(KEY).txt(KEY, &key);
        let key = Ed25519Key::from_pkcs8_maybe_unchecked_der(bench.keys.private_key()).unwrap();
        let signer = DkimSigner::from_key(key).domain("example.com").selector("s1").headers(["From"]);
        let signature = signer.agent_user_identifier("a@news.example.com").sign(MESSAGE.as_bytes()).unwrap();
        let raw = format!("{}{MESSAGE}", signature.to_header());
        let found = other.verify("192.0.2.99", "a@elsewhere.example", &raw).await;
        assert_eq!(found.verdicts.dkim, Some(verdict), "{flags}");
    }
}

#[tokio::test]
async fn several_policies_are_none_and_what_is_wrong_in_one_is_left_out() {
    for (records, verdict, enforced) in [
        (&["v=DMARC1; p=reject"][..], Verdict::Fail, true),
        (&["v=DMARC1; p=none", "v=DMARC1; p=reject"], Verdict::None, false),
        (&["v=DMARC1; p=reject", "v=DMARC1; p=reject"], Verdict::None, false),
        (&["some text", "v=DMARC1; p=reject"], Verdict::Fail, true),
        (&["v=DMARC2; p=none", "v=DMARC1;p=quarantine"], Verdict::Fail, true),
        (&["v=DMARC1; p=monitor; rua=mailto:d@example.com"], Verdict::Fail, false),
        (&["v=DMARC1; rua=mailto:d@example.com!10m"], Verdict::Fail, false),
        (&["v=DMARC1; p=reject; sp=x; rua=mailto:d@example.com"], Verdict::Fail, false),
        (&["v=DMARC1; p=monitor; rua=nobody"], Verdict::None, false),
        (&["v=DMARC1; p=monitor"], Verdict::None, false),
        (&["v=DMARC1"], Verdict::None, false),
        (&["v=DMARC1; p=reject; adkim=x; rua=nobody; fo=9; ruf="], Verdict::Fail, true),
        (&[" v = DMARC1 ; p = REJECT "], Verdict::Fail, true),
        (&["v=dmarc1; p=reject"], Verdict::None, false),
        (&["p=reject; v=DMARC1"], Verdict::None, false),
        (&[], Verdict::None, false),
    ] {
        assert_eq!(Bench::dmarc_with(records).await, (Some(verdict), enforced), "{records:?}");
    }
}

#[tokio::test]
async fn two_policies_of_a_subdomain_leave_it_to_the_domain_above() {
    let bench = Bench::new().await;
    bench.dns.txt("_dmarc.news.example.com", "v=DMARC1; p=none").txt("_dmarc.news.example.com", "v=DMARC1; p=none");
    bench.dns.address("news.example.com", "192.0.2.50");
    let raw = MESSAGE.replace("ada@example.com", "ada@news.example.com");
    let found = bench.verify("192.0.2.99", "a@elsewhere.example", &raw).await;
    assert_eq!((found.verdicts.dmarc, found.enforced), (Some(Verdict::Fail), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_needs_a_key_that_is_for_it() {
    let mut setup = ForwardingServer::start_with_policies().await;
    forward(&setup.owner, "*@inbox.test", "boss@remote.test").await;
    assert_eq!(setup.deliver(GOOD, "ada@good.test", "a@inbox.test", &from("ada@good.test", "Hi")).await, 250);
    let taken = setup.remote.next_mail().await;
    let name = "mailkite._domainkey.inbox.test";
    let key = setup.server.query::<String>("SELECT public_key FROM dkim_key WHERE algorithm = 'rsa'").await;
    for (tags, verdict) in [
        ("", Verdict::Pass),
        ("h=sha256; s=email; ", Verdict::Pass),
        ("s=tlsrpt; ", Verdict::PermError),
        ("h=sha1; ", Verdict::PermError),
    ] {
        setup.dns.remove(name).txt(name, &format!("v=DKIM1; k=rsa; {tags}p={key}"));
        let found = setup.verify(&taken.sender(), &text_of(&taken)).await;
        assert_eq!(found.verdicts.arc, Some(verdict), "{tags}");
    }
    setup.until_idle().await;
    setup.server.stop().await;
}
