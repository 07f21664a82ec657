//! Checks of domains against a DNS server that answers, fails, is silent and changes its mind (contract 3.2, 3.5).

use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::RecordType;
use mailkite::testing::domain::check::Checker;
use mailkite::testing::domain::records::{PublicKey, Status, Wanted};
use mailkite::testing::net::dns::Resolver;
use serde_json::json;

use super::lifecycle::{ADDRESS, Bench, DAY, NOW, add, flags, row, verify};
use crate::support::api::Api;
use crate::support::dns::DnsServer;
use crate::support::server::HOSTNAME;

/// Checks one record: the name of the check, its status and the values found.
async fn looked(api: &Api, name: &str, check: &str) -> (bool, String, Vec<String>) {
    let checks = verify(api, name).await["checks"].clone();
    let index = ["mx", "spf", "dkim", "dmarc", "ed25519"].iter().position(|one| *one == check).unwrap();
    let record = api.get(&format!("/api/domains/{name}")).await.expect(200)["dns"][index].clone();
    let found = serde_json::from_value(record["found"].clone()).unwrap();
    (checks[check].as_bool().unwrap_or_default(), record["status"].as_str().unwrap().to_owned(), found)
}

#[tokio::test]
async fn the_spf_record_includes_what_the_operator_names() {
    let bench = Bench::with(|config| config.dns.spf_include = Some("spf.acme.dev".to_owned())).await;
    let added = bench.published(&bench.owner, "shop.dev").await;
    assert_eq!(added["dns"][1]["value"], "v=spf1 include:spf.acme.dev ~all");
    // The record that is included is the operator's affair.
    assert_eq!(verify(&bench.owner, "shop.dev").await["checks"]["spf"], true);
    bench.texts("shop.dev", &[&format!("v=spf1 a:{HOSTNAME} -all")]);
    assert!(looked(&bench.owner, "shop.dev", "spf").await.0, "it passes for the address all the same");
    bench.texts("shop.dev", &["v=spf1 include:other.dev -all"]);
    assert_eq!(looked(&bench.owner, "shop.dev", "spf").await.1, "mismatch");
}

#[tokio::test]
async fn each_missing_record_leaves_its_own_flag_down_and_only_mx_decides() {
    let bench = Bench::new().await;
    let added = bench.published(&bench.owner, "acme.dev").await;
    assert_eq!(bench.dns.asked(), [""; 0]);
    for (index, check) in ["mx", "spf", "dkim", "dmarc", "ed25519"].into_iter().enumerate() {
        let name = format!("d{index}.dev");
        let added = bench.published(&bench.owner, &name).await;
        let record = &added["dns"][index];
        let kind = if check == "mx" { RecordType::MX } else { RecordType::TXT };
        bench.dns.without(record["name"].as_str().unwrap(), kind);
        let (_, status, found) = looked(&bench.owner, &name, check).await;
        assert_eq!((status.as_str(), found), ("missing", Vec::new()), "{check}");
        let row = row(&bench.owner, &name).await;
        let mut wanted = [true; 4];
        if let Some(flag) = wanted.get_mut(index) {
            *flag = false;
        }
        assert_eq!(flags(&row), wanted, "{check}");
        assert_eq!(row["status"], if check == "mx" { "pending" } else { "verified" });
        assert_eq!(row["verified_at"].is_null(), check == "mx");
    }
    // Nothing at all is there: not even the name.
    for record in added["dns"].as_array().unwrap() {
        bench.dns.remove(record["name"].as_str().unwrap());
    }
    let checks = json!({"mx": false, "spf": false, "dkim": false, "dmarc": false});
    assert_eq!(
        verify(&bench.owner, "acme.dev").await,
        json!({"status": "pending", "checks": checks, "checkedAt": NOW})
    );
    let row = row(&bench.owner, "acme.dev").await;
    assert_eq!((flags(&row), &row["checked_at"]), ([false; 4], &json!(NOW)));
}

#[tokio::test]
async fn one_mx_has_to_name_the_host() {
    let bench = Bench::new().await;
    add(&bench.owner, "acme.dev").await;
    let ours = "MX.Mailkite.TEST.";
    for (hosts, holds, found) in [
        (vec![(10, ours)], true, vec!["10 mx.mailkite.test"]),
        (
            vec![(5, "a.example.net."), (20, ours), (0, "b.example.net.")],
            true,
            vec!["5 a.example.net", "20 mx.mailkite.test", "0 b.example.net"],
        ),
        (vec![(10, "mx.mailkite.test.example.net.")], false, vec!["10 mx.mailkite.test.example.net"]),
        (vec![(10, "mx.other.test.")], false, vec!["10 mx.other.test"]),
        (vec![(0, ".")], false, vec!["0 ."]),
    ] {
        bench.dns.remove("acme.dev");
        for (preference, host) in &hosts {
            bench.dns.mx("acme.dev", *preference, host);
        }
        let status = if holds { "ok" } else { "mismatch" };
        let mut seen = looked(&bench.owner, "acme.dev", "mx").await;
        let mut found: Vec<String> = found.into_iter().map(str::to_owned).collect();
        seen.2.sort();
        found.sort();
        assert_eq!(seen, (holds, status.to_owned(), found), "{hosts:?}");
    }
}

#[tokio::test]
async fn the_one_spf_record_names_the_host_or_passes_for_its_addresses() {
    let bench = Bench::new().await;
    bench.dns.address(HOSTNAME, "2001:db8::25");
    bench.dns.mx("relay.dev", 10, "mx.mailkite.test.");
    bench.dns.txt("pass.dev", "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all");
    bench.dns.txt("all.dev", "v=spf1 a:mx.mailkite.test ?all");
    bench.dns.fail("failing.dev");
    add(&bench.owner, "acme.dev").await;
    for (texts, holds) in [
        (vec!["v=spf1 a:mx.mailkite.test ~all"], true),
        (vec!["v=spf1 a:mx.mailkite.test -all"], true),
        (vec!["V=SPF1 mx include:pass.dev +A:MX.mailkite.test ip4:203.0.113.0/24 ?all"], true),
        (vec!["v=spf1 a:mx.mailkite.test"], true),
        (vec!["google-site-verification=1", "v=spf1 a:mx.mailkite.test ~all", "v=spf10 x"], true),
        (vec!["v=spf1 a:mx.mailkite.test. -all"], true),
        (vec!["v=spf1 ip4:192.0.2.25 ip6:2001:db8::25 -all"], true),
        (vec!["v=spf1 mx:relay.dev -all"], true),
        (vec!["v=spf1 include:pass.dev -all"], true),
        (vec!["v=spf1 include:all.dev -all"], true),
        (vec!["v=spf1 redirect=pass.dev"], true),
        (vec!["v=spf1 +all"], true),
        (vec!["v=spf1 ip4:192.0.2.25 -all"], false),
        (vec!["v=spf1 -a:mx.mailkite.test +all"], false),
        (vec!["v=spf1 ~a:mx.mailkite.test"], false),
        (vec!["v=spf1 a:mx.mailkite.test.evil.dev -all"], false),
        (vec!["v=spf1 -all"], false),
        (vec!["v=spf1 include:nobody.dev a -all"], false),
        (vec!["v=spf1 redirect=acme.dev"], false),
        (vec!["v=spf1 a:mx.mailkite.test ~all", "v=spf1 -all"], false),
        (vec!["v=spf1 a:mx.mailkite.test ~all", "v=spf1 a:mx.mailkite.test ~all"], false),
    ] {
        bench.texts("acme.dev", &texts);
        let (passed, status, found) = looked(&bench.owner, "acme.dev", "spf").await;
        assert_eq!((passed, status.as_str()), (holds, if holds { "ok" } else { "mismatch" }), "{texts:?}");
        assert!(found.iter().all(|text| text.to_lowercase().starts_with("v=spf1 ")), "{found:?}");
    }
    for texts in [vec!["google-site-verification=1"], vec!["spf2.0/pra a", "v=spf10 -all"]] {
        bench.texts("acme.dev", &texts);
        assert_eq!(looked(&bench.owner, "acme.dev", "spf").await, (false, "missing".to_owned(), Vec::new()));
    }
    bench.texts("acme.dev", &["v=spf1 include:failing.dev -all"]);
    let (_, status, found) = looked(&bench.owner, "acme.dev", "spf").await;
    assert_eq!((status.as_str(), found.len()), ("unchecked", 1), "what it includes gave no answer");
}

#[tokio::test]
async fn a_look_at_a_greedy_spf_record_costs_a_bounded_number_of_questions() {
    let bench = Bench::new().await;
    for n in 0..9 {
        bench.dns.address(HOSTNAME, &format!("192.0.2.{}", 30 + n));
        for host in 0..10 {
            let name = format!("h{host}.m{n}.greedy.dev");
            bench.dns.mx(&format!("m{n}.greedy.dev"), 10, &format!("{name}.")).address(&name, "198.51.100.1");
        }
    }
    let terms: String = (0..9).map(|n| format!("mx:m{n}.greedy.dev ")).collect();
    add(&bench.owner, "acme.dev").await;
    bench.texts("acme.dev", &[&format!("v=spf1 {terms} -all")]);
    let asked = bench.dns.asked().len();
    let (passed, status, _) = looked(&bench.owner, "acme.dev", "spf").await;
    assert_eq!((passed, status.as_str()), (false, "mismatch"));
    let asked = bench.dns.asked().len() - asked;
    assert!(asked <= 60, "{asked} questions");
}

#[tokio::test]
async fn the_key_in_dns_has_to_be_the_domains() {
    let bench = Bench::new().await;
    let added = add(&bench.owner, "acme.dev").await;
    let (rsa, ed25519) = (added["dns"][2]["value"].as_str().unwrap(), added["dns"][4]["value"].as_str().unwrap());
    let name = "mailkite._domainkey.acme.dev";
    let key = rsa.rsplit("p=").next().unwrap();
    let (first, second) = rsa.split_at(200);
    let check = async |what: &str, holds: bool, status: &str| {
        let (passed, seen, _) = looked(&bench.owner, "acme.dev", "dkim").await;
        assert_eq!((passed, seen.as_str()), (holds, status), "{what}");
    };
    let put = |text: &str| {
        bench.dns.remove(name).txt(name, text);
    };
    bench.dns.strings(name, &[first, second]);
    check("two strings", true, "ok").await;
    let chars: Vec<String> = rsa.chars().map(String::from).collect();
    bench.dns.remove(name).strings(name, &chars.iter().map(String::as_str).collect::<Vec<_>>());
    check("a string for each character", true, "ok").await;
    put(&format!("v=DKIM1;k=rsa;p={} {}\t {};", &key[..70], &key[70..140], &key[140..]));
    check("spaces inside the key", true, "ok").await;
    put(&format!("p={key}"));
    check("nothing but the key", true, "ok").await;
    bench.dns.remove(name).txt("keys.other.dev", rsa).cname(name, "keys.other.dev.");
    check("by way of a CNAME", true, "ok").await;
    bench.dns.remove(name).txt(name, "v=DKIM1; p=old").txt(name, rsa);
    check("beside another one", true, "ok").await;
    put(&rsa.replace("MIIB", "MIIC"));
    check("another key", false, "mismatch").await;
    put(&rsa[..300]);
    check("cut off", false, "mismatch").await;
    put("v=DKIM1; k=rsa; p=");
    check("revoked", false, "mismatch").await;
    put(&rsa.replace("p=", "P="));
    check("tags are case-sensitive", false, "mismatch").await;
    put(ed25519);
    check("the other key", false, "mismatch").await;
    bench.dns.remove(name).txt("*.acme.dev", "v=spf1 -all");
    check("a wildcard that says something else", false, "mismatch").await;
    bench.dns.remove("*.acme.dev");
    check("nothing", false, "missing").await;
    assert_eq!(looked(&bench.owner, "acme.dev", "ed25519").await.1, "missing");
    bench.dns.txt("mailkite-ed._domainkey.acme.dev", ed25519);
    assert_eq!(looked(&bench.owner, "acme.dev", "ed25519").await.1, "ok");
}

#[tokio::test]
async fn a_dmarc_record_needs_its_version_and_a_policy() {
    let bench = Bench::new().await;
    add(&bench.owner, "acme.dev").await;
    for (texts, holds) in [
        (vec!["v=DMARC1; p=none;"], true),
        (vec!["v=DMARC1;p=quarantine; rua=mailto:d@acme.dev"], true),
        (vec!["v = DMARC1 ; p = Reject"], true),
        (vec!["something", "v=DMARC1; p=reject"], true),
        (vec!["v=DMARC1"], false),
        (vec!["v=DMARC1; p=maybe"], false),
        (vec!["v=DMARC1; sp=none"], false),
        (vec!["v=dmarc1; p=none"], false),
        (vec!["v=DMARC12; p=none"], false),
        (vec!["p=none; v=DMARC1"], false),
        (vec!["v=DMARC1; p=none", "v=DMARC1; p=reject"], false),
    ] {
        bench.texts("_dmarc.acme.dev", &texts);
        let (passed, status, found) = looked(&bench.owner, "acme.dev", "dmarc").await;
        assert_eq!((passed, status.as_str()), (holds, if holds { "ok" } else { "mismatch" }), "{texts:?}");
        assert_eq!(found.len(), texts.len());
    }
}

#[tokio::test]
async fn a_hundred_records_come_over_tcp_and_are_not_all_shown() {
    let bench = Bench::new().await;
    bench.published(&bench.owner, "acme.dev").await;
    for number in 0..100 {
        bench.dns.txt("acme.dev", &format!("filler={number} {}", "x".repeat(200)));
        bench.dns.txt("_dmarc.acme.dev", &format!("filler={number} \u{1b}[31m<b>\u{0}{}", "y".repeat(3000)));
    }
    let (passed, status, found) = looked(&bench.owner, "acme.dev", "spf").await;
    assert_eq!((passed, status.as_str(), found.len()), (true, "ok", 1));
    assert!(bench.dns.asked_over_tcp().contains(&"acme.dev TXT".to_owned()), "{:?}", bench.dns.asked_over_tcp());
    bench.dns.remove("_dmarc.acme.dev");
    for number in 0..15 {
        bench.dns.txt("_dmarc.acme.dev", &format!("filler={number} \u{1b}[31m<b>\u{0}{}", "y".repeat(3000)));
    }
    let (_, _, found) = looked(&bench.owner, "acme.dev", "dmarc").await;
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|text| text.chars().count() <= 1000 && !text.chars().any(char::is_control)));
}

#[tokio::test]
async fn a_failing_server_is_no_result_and_every_question_is_asked_anew() {
    let bench = Bench::new().await;
    let added = bench.verified(&bench.owner, "acme.dev").await;
    bench.published(&bench.owner, "fresh.dev").await;
    for domain in ["acme.dev", "fresh.dev"] {
        for name in ["", "mailkite._domainkey.", "_dmarc.", "mailkite-ed._domainkey."] {
            bench.dns.fail(&format!("{name}{domain}"));
        }
    }
    bench.server.clock.advance(DAY);
    let at = NOW + 86_400_000;
    for (domain, known, status) in [("acme.dev", true, "verified"), ("fresh.dev", false, "pending")] {
        let checks = json!({"mx": known, "spf": known, "dkim": known, "dmarc": known});
        assert_eq!(verify(&bench.owner, domain).await, json!({"status": status, "checks": checks, "checkedAt": at}));
        let answer = bench.owner.get(&format!("/api/domains/{domain}")).await.expect(200);
        assert_eq!(flags(&answer["domain"]), [known; 4]);
        for record in answer["dns"].as_array().unwrap() {
            assert_eq!((&record["status"], &record["found"]), (&json!("unchecked"), &json!([])));
        }
    }
    for record in added["dns"].as_array().unwrap() {
        bench.dns.remove(record["name"].as_str().unwrap());
    }
    assert_eq!(verify(&bench.owner, "acme.dev").await["checks"]["mx"], false, "nothing was remembered");
    bench.publish(&added);
    assert_eq!(verify(&bench.owner, "acme.dev").await["checks"]["mx"], true, "not even that there was nothing");
}

#[tokio::test]
async fn silence_is_no_result_within_the_budget() {
    let dns = DnsServer::start().await;
    dns.mx("acme.dev", 10, "mx.mailkite.test.").txt("_dmarc.acme.dev", "v=DMARC1; p=none");
    dns.silence("mailkite._domainkey.acme.dev");
    dns.txt("acme.dev", "v=spf1 include:silent.dev -all").silence("silent.dev").address(HOSTNAME, ADDRESS);
    let checker = Checker::new(Resolver::uncached(&[dns.address]).unwrap(), Duration::from_millis(500));
    let key = |selector, value| PublicKey { selector, value };
    let (rsa, ed25519) = (key("mailkite", "AAAA"), key("mailkite-ed", "BBBB"));
    let wanted = Wanted { name: "acme.dev", hostname: HOSTNAME, spf_include: None, rsa, ed25519 };
    let start = Instant::now();
    let statuses = checker.check(&wanted).await.map(|finding| finding.status);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(
        statuses,
        [Status::Ok, Status::Unchecked, Status::Unchecked, Status::Ok, Status::Missing],
        "one silent name costs only its own record"
    );
}

#[tokio::test]
async fn a_silent_server_is_waited_for_ten_seconds_at_most() {
    let bench = Bench::new().await;
    bench.verified(&bench.owner, "acme.dev").await;
    bench.dns.silence_all();
    let start = Instant::now();
    let verified = verify(&bench.owner, "acme.dev").await;
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
    assert_eq!(verified["status"], "verified");
    assert_eq!(flags(&row(&bench.owner, "acme.dev").await), [true; 4]);
}

#[tokio::test]
async fn a_proof_falls_after_three_failed_days_and_rises_at_once() {
    let bench = Bench::new().await;
    let added = bench.verified(&bench.owner, "acme.dev").await;
    // The domains of the bench have no records and would be looked at too.
    bench.server.write(|tx, _, _| Ok(tx.execute("DELETE FROM domain WHERE name LIKE '%.test'", [])?)).await;
    assert_eq!(bench.recheck().await, 0, "it was just looked at");
    for record in added["dns"].as_array().unwrap() {
        bench.dns.remove(record["name"].as_str().unwrap());
    }
    for _ in 0..3 {
        bench.server.clock.advance(DAY);
        bench.server.clock.advance(Duration::from_millis(1));
        assert_eq!(bench.recheck().await, 1);
        assert_eq!(bench.recheck().await, 0, "once a day");
        let row = row(&bench.owner, "acme.dev").await;
        assert_eq!((flags(&row), row["status"].as_str()), ([true; 4], Some("verified")));
        assert_eq!(row["checked_at"], bench.server.clock.now().as_millis());
    }
    assert_eq!(bench.rcpt("a@acme.dev").await, 250);
    bench.server.clock.advance(DAY);
    // A manual check counts, and this one is the third at least 72 hours after the first.
    let fallen = verify(&bench.owner, "acme.dev").await;
    assert_eq!((&fallen["status"], &fallen["checks"]["mx"]), (&json!("pending"), &json!(false)));
    let fallen = row(&bench.owner, "acme.dev").await;
    assert_eq!((flags(&fallen), fallen["verified_at"].is_null()), ([false; 4], true));
    assert_eq!(bench.rcpt("a@acme.dev").await, 450);
    assert_eq!(bench.owner.get("/v1/me").await.expect(200)["sendingDomains"], json!([]));
    bench.server.clock.advance(DAY * 2);
    assert_eq!(bench.recheck().await, 0, "nothing is proven any more");
    bench.publish(&added);
    let now = bench.server.clock.now().as_millis();
    assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "verified");
    assert_eq!(row(&bench.owner, "acme.dev").await["verified_at"], now);
    assert_eq!(bench.rcpt("a@acme.dev").await, 250);
}

#[tokio::test]
async fn manual_checks_alone_cannot_make_a_proof_fall_early() {
    let bench = Bench::new().await;
    let added = bench.verified(&bench.owner, "acme.dev").await;
    bench.dns.without("acme.dev", RecordType::MX);
    for _ in 0..5 {
        assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "verified");
    }
    bench.server.clock.advance(Duration::from_secs(72 * 3600 - 1));
    assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "verified");
    // A pass in between begins anew; no answer does not.
    bench.dns.mx("acme.dev", 10, added["dns"][0]["value"].as_str().unwrap());
    verify(&bench.owner, "acme.dev").await;
    bench.dns.without("acme.dev", RecordType::MX);
    for hours in [1, 36, 35] {
        bench.server.clock.advance(Duration::from_secs(hours * 3600));
        assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "verified");
    }
    bench.dns.fail("acme.dev");
    bench.server.clock.advance(Duration::from_secs(3600));
    assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "verified", "no answer is no failure");
    bench.dns.without("acme.dev", RecordType::MX).txt("acme.dev", "v=spf1 -all");
    assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "pending");
    assert_eq!(flags(&row(&bench.owner, "acme.dev").await), [false, true, true, true]);
}
