//! Domains through the API: added, verified by what a DNS server says, checked again, lost, and taken away (contract 3.1–3.5).

use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::RecordType;
use mailkite::clock::{Clock, Timestamp};
use mailkite::config::{Config, Signup};
use mailkite::dns::Resolver;
use mailkite::domain::check::Checker;
use mailkite::domain::recheck;
use mailkite::domain::records::{Status, Wanted};
use mailkite::secrets::{new_api_key, token_hash};
use mailkite::store::{accounts, keys};
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::dns::DnsServer;
use super::support::receiver::{Receiver, Reply};
use super::support::server::{DEADLINE, HOSTNAME, Server};
use super::support::smtp::SmtpClient;

pub const NOW: i64 = 1_785_196_800_000;
const DAY: Duration = Duration::from_secs(86_400);
/// The address of the host, as DNS has it.
const ADDRESS: &str = "192.0.2.25";

/// A server, its owner, and the DNS that it asks.
pub struct Bench {
    pub dns: DnsServer,
    pub server: Server,
    pub owner: Api,
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        let dns = DnsServer::start().await;
        dns.address(HOSTNAME, ADDRESS);
        let server = Server::start_with(Clock::manual(Timestamp::from_millis(NOW)), |config| {
            config.dns.servers = vec![dns.address];
            adjust(config);
        });
        let server = server.await;
        let owner = server.owner().await;
        Self { dns, server, owner }
    }

    /// Another account.
    pub async fn account(&self, email: &str) -> Api {
        let (email, key) = (email.to_owned(), new_api_key());
        let credential = key.clone();
        let made = self.server.write(move |tx, secrets, now| {
            let new = accounts::NewAccount { email, email_verified: true, ..accounts::NewAccount::default() };
            let account = accounts::insert(tx, new, now)?;
            keys::insert(tx, account.id, &token_hash(&key), &secrets.seal(keys::PURPOSE, key.as_bytes()), now)
        });
        made.await;
        self.owner.with(credential)
    }

    /// A key of the account that is limited to a domain.
    pub async fn scoped(&self, api: &Api, domain: &str) -> Api {
        let made = api.post("/api/keys/scoped", json!({"domainId": domain, "name": "one"})).await.expect(201);
        api.with(made["key"].as_str().unwrap())
    }

    /// Adds a domain and publishes what the answer asks for.
    pub async fn published(&self, api: &Api, name: &str) -> Value {
        let added = add(api, name).await;
        self.publish(&added);
        added
    }

    /// Publishes the records of an answer.
    pub fn publish(&self, answer: &Value) {
        for record in answer["dns"].as_array().unwrap() {
            let (name, value) = (record["name"].as_str().unwrap(), record["value"].as_str().unwrap());
            match record["priority"].as_u64() {
                Some(priority) => self.dns.mx(name, priority.try_into().unwrap(), value),
                None => self.dns.txt(name, value),
            };
        }
    }

    /// Adds, publishes and verifies.
    pub async fn verified(&self, api: &Api, name: &str) -> Value {
        let added = self.published(api, name).await;
        assert_eq!(verify(api, name).await["status"], "verified");
        added
    }

    /// Replaces the TXT records of a name.
    fn texts(&self, name: &str, texts: &[&str]) {
        self.dns.without(name, RecordType::TXT);
        for text in texts {
            self.dns.txt(name, text);
        }
    }

    /// The code that a recipient gets at the door.
    pub async fn rcpt(&self, to: &str) -> u16 {
        let mut client = SmtpClient::greeted(self.server.smtp).await;
        client.expect("MAIL FROM:<ada@example.com>", 250).await;
        client.command(&format!("RCPT TO:<{to}>")).await.code
    }

    async fn recheck(&self) -> usize {
        recheck::round(&self.server.domains, self.server.clock.now()).await.unwrap()
    }
}

pub async fn add(api: &Api, name: &str) -> Value {
    api.post("/api/domains", json!({"domain": name})).await.expect(201)
}

pub async fn verify(api: &Api, name: &str) -> Value {
    api.post_nothing(&format!("/api/domains/{name}/verify")).await.expect(200)
}

pub async fn row(api: &Api, name: &str) -> Value {
    api.get(&format!("/api/domains/{name}")).await.expect(200)["domain"].clone()
}

/// What a look at one record gave: its check, its status and what was found.
async fn looked(api: &Api, name: &str, check: &str) -> (bool, String, Vec<String>) {
    let checks = verify(api, name).await["checks"].clone();
    let index = ["mx", "spf", "dkim", "dmarc", "ed25519"].iter().position(|one| *one == check).unwrap();
    let record = api.get(&format!("/api/domains/{name}")).await.expect(200)["dns"][index].clone();
    let found = serde_json::from_value(record["found"].clone()).unwrap();
    (checks[check].as_bool().unwrap_or_default(), record["status"].as_str().unwrap().to_owned(), found)
}

fn flags(row: &Value) -> [bool; 4] {
    ["mx_verified", "spf_verified", "dkim_verified", "dmarc_verified"].map(|key| row[key].as_bool().unwrap())
}

fn names(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["domain"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_new_domain_is_pending_and_says_which_records_it_needs() {
    let bench = Bench::new().await;
    let answer = bench.owner.post("/api/domains", json!({"domain": "Acme.DEV.", "email_provider_id": 7})).await;
    let body = String::from_utf8(answer.body.clone()).unwrap();
    let added = answer.expect(201);
    let (id, user) = (added["domain"]["id"].as_str().unwrap(), added["domain"]["user_id"].as_str().unwrap());
    assert!(id.starts_with("dom_") && id.len() == 20 && user.starts_with("usr_"), "{id} {user}");
    let key = |index: usize| added["dns"][index]["value"].as_str().unwrap().rsplit('=').next().unwrap().to_owned();
    let rsa = added["dns"][2]["value"].as_str().unwrap().strip_prefix("v=DKIM1; k=rsa; p=").unwrap();
    let ed25519 = added["dns"][4]["value"].as_str().unwrap().strip_prefix("v=DKIM1; k=ed25519; p=").unwrap();
    assert!(rsa.starts_with("MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A") && ed25519.len() == 44, "{} {}", key(2), key(4));
    let txt = |name: &str, value: &str, optional: &str| {
        format!(r#"{{"type":"TXT","name":"{name}","value":"{value}",{optional}"status":"unchecked","found":[]}}"#)
    };
    let wanted = [
        format!(
            r#"{{"domain":{{"id":"{id}","user_id":"{user}","domain":"acme.dev","status":"pending","mx_verified":false,"spf_verified":false,"dkim_verified":false,"dmarc_verified":false,"webhookUrl":null,"webhookAckMode":null,"trackingWebhookUrl":null,"webhookEvents":[],"zero_retention":false,"retention_days":null,"created_at":{NOW},"checked_at":null,"verified_at":null}}"#
        ),
        format!(
            r#""dns":[{{"type":"MX","name":"acme.dev","value":"{HOSTNAME}","priority":10,"status":"unchecked","found":[]}}"#
        ),
        txt("acme.dev", &format!("v=spf1 a:{HOSTNAME} ~all"), ""),
        txt("mailkite._domainkey.acme.dev", &format!("v=DKIM1; k=rsa; p={rsa}"), ""),
        txt("_dmarc.acme.dev", "v=DMARC1; p=none;", ""),
        txt("mailkite-ed._domainkey.acme.dev", &format!("v=DKIM1; k=ed25519; p={ed25519}"), r#""optional":true,"#),
    ];
    assert_eq!(body, format!("{}]}}", wanted.join(",")));
    assert_eq!(bench.owner.get("/api/domains/acme.dev").await.body, body.into_bytes(), "the keys stay");
    assert_eq!(bench.rcpt("a@acme.dev").await, 450);
    assert!(bench.dns.asked().is_empty(), "nothing is looked up before it is asked for");
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
async fn names_are_normalised_and_what_is_none_is_refused() {
    let bench = Bench::new().await;
    let name = |answer: Value| answer["domain"]["domain"].as_str().unwrap().to_owned();
    assert_eq!(name(add(&bench.owner, "B\u{dc}cher.example.").await), "xn--bcher-kva.example");
    assert_eq!(name(add(&bench.owner, " \u{440}ay.dev ").await), "xn--ay-llc.dev");
    for bad in [
        "",
        " ",
        "com",
        "localhost",
        "co.uk",
        "github.io",
        "1.2.3.4",
        "[1.2.3.4]",
        "[IPv6:::1]",
        "::1",
        "0x7f.1",
        "acme.1",
        "a..b",
        "-a.dev",
        "a b.dev",
        "a@acme.dev",
        "http://acme.dev",
        "*.acme.dev",
        "_dmarc.acme.dev",
        "acme.dev..",
        "acme.dev\n",
        "acme\u{0}.dev",
        "mx.mailkite.test",
        "MX.Mailkite.Test.",
        &format!("{}.dev", "a".repeat(64)),
        &"a.".repeat(200),
    ] {
        let answer = bench.owner.post("/api/domains", json!({"domain": bad})).await;
        if bad == "acme.dev\n" && answer.status == 201 {
            continue;
        }
        answer.expect_field(400, "bad_domain", "domain");
    }
    for bad in [json!({}), json!({"domain": null}), json!({"domain": 7}), json!({"domain": ["acme.dev"]})] {
        bench.owner.post("/api/domains", bad).await.expect_field(400, "bad_domain", "domain");
    }
    bench.owner.post("/api/domains", json!([])).await.expect_error(400, "bad_json");
    bench
        .server
        .anonymous()
        .post("/api/domains", json!({"domain": "acme.dev"}))
        .await
        .expect_error(401, "unauthorized");
    let scoped = bench.scoped(&bench.owner, "inbox.test").await;
    scoped.post("/api/domains", json!({"domain": "x"})).await.expect_error(403, "key_scope");
}

#[tokio::test]
async fn a_name_is_the_accounts_once_and_pending_blocks_nobody() {
    let bench = Bench::new().await;
    let other = bench.account("other@example.com").await;
    let refused = async |api: &Api, name: &str, code: &str| {
        api.post("/api/domains", json!({"domain": name})).await.expect_error(409, code);
    };
    let (mine, theirs) = (add(&bench.owner, "acme.dev").await, add(&other, "acme.dev").await);
    assert_ne!(mine["dns"][2]["value"], theirs["dns"][2]["value"], "each has a key of its own");
    refused(&bench.owner, "ACME.dev.", "domain_exists").await;
    refused(&other, "acme.dev", "domain_exists").await;
    bench.publish(&mine);
    verify(&bench.owner, "acme.dev").await;
    let third = bench.account("third@example.com").await;
    for name in ["acme.dev", "mail.acme.dev", "a.b.c.acme.dev"] {
        refused(&third, name, "domain_taken").await;
    }
    refused(&other, "acme.dev", "domain_exists").await;
    refused(&other, "sub.acme.dev", "domain_taken").await;
    // Names that only end alike are free; so are the owner's own subdomains.
    add(&third, "notacme.dev").await;
    add(&bench.owner, "sub.acme.dev").await;
}

#[tokio::test]
async fn domains_are_listed_oldest_first_and_found_by_id_or_name() {
    let bench = Bench::new().await;
    let other = bench.account("other@example.com").await;
    let theirs = add(&other, "other.dev").await["domain"]["id"].as_str().unwrap().to_owned();
    let added = add(&bench.owner, "zeta.dev").await["domain"].clone();
    add(&bench.owner, "b\u{fc}cher.dev").await;
    let listed = bench.owner.get("/api/domains").await.expect(200);
    assert_eq!(names(&listed), ["pending.test", "inbox.test", "zeta.dev", "xn--bcher-kva.dev"]);
    assert_eq!(listed[2], added);
    assert_eq!(names(&other.get("/api/domains").await.expect(200)), ["other.dev"]);
    let id = added["id"].as_str().unwrap();
    for way in [id, "zeta.dev", "ZETA.Dev", "zeta.dev."] {
        assert_eq!(row(&bench.owner, way).await, added, "{way}");
    }
    for way in ["xn--bcher-kva.dev", "XN--BCHER-KVA.dev", "b%C3%BCcher.dev"] {
        assert_eq!(row(&bench.owner, way).await["domain"], "xn--bcher-kva.dev", "{way}");
    }
    for way in ["dom_0000000000000000", "nobody.dev", "other.dev", &theirs, "%00", "..", &id.to_lowercase()] {
        bench.owner.get(&format!("/api/domains/{way}")).await.expect_error(404, "not_found");
    }
    bench.server.anonymous().get("/api/domains").await.expect_error(401, "unauthorized");
}

#[tokio::test]
async fn a_verified_domain_receives() {
    let bench = Bench::new().await;
    bench.published(&bench.owner, "acme.dev").await;
    bench.server.clock.advance(Duration::from_secs(60));
    let at = NOW + 60_000;
    assert_eq!(
        verify(&bench.owner, "ACME.dev.").await,
        json!({"status": "verified", "checks": {"mx": true, "spf": true, "dkim": true, "dmarc": true}, "checkedAt": at})
    );
    let answer = bench.owner.get("/api/domains/acme.dev").await.expect(200);
    let domain = &answer["domain"];
    assert_eq!(flags(domain), [true; 4]);
    assert_eq!(
        (&domain["status"], &domain["checked_at"], &domain["verified_at"]),
        (&json!("verified"), &json!(at), &json!(at))
    );
    for record in answer["dns"].as_array().unwrap() {
        assert_eq!(record["status"], "ok");
        let found = match record["priority"].as_u64() {
            Some(priority) => format!("{priority} {HOSTNAME}"),
            None => record["value"].as_str().unwrap().to_owned(),
        };
        assert_eq!(record["found"], json!([found]));
    }
    assert_eq!(bench.rcpt("a@acme.dev").await, 250);
    assert_eq!(bench.rcpt("a@sub.acme.dev").await, 550);
    let me = bench.owner.get("/v1/me").await.expect(200);
    assert_eq!(me["sendingDomains"], json!(["inbox.test", "acme.dev"]));
    // A body is not needed and none is read.
    bench.owner.post("/api/domains/acme.dev/verify", json!({})).await.expect(200);
    bench.owner.post_nothing("/api/domains/nobody.dev/verify").await.expect_error(404, "not_found");
    bench.server.anonymous().post_nothing("/api/domains/acme.dev/verify").await.expect_error(401, "unauthorized");
    assert_eq!(row(&bench.owner, "acme.dev").await["verified_at"], at, "since when, not when last");
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
async fn the_key_in_dns_has_to_be_the_domains() {
    let bench = Bench::new().await;
    let added = add(&bench.owner, "acme.dev").await;
    let (rsa, ed25519) = (added["dns"][2]["value"].as_str().unwrap(), added["dns"][4]["value"].as_str().unwrap());
    let name = "mailkite._domainkey.acme.dev";
    let key = rsa.rsplit("p=").next().unwrap();
    let (first, second) = rsa.split_at(97);
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
    let checker = Checker::new(Resolver::fresh(&[dns.address]).unwrap(), Duration::from_millis(500));
    let wanted = Wanted { name: "acme.dev", hostname: HOSTNAME, spf_include: None, rsa: "AAAA", ed25519: "BBBB" };
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

#[tokio::test]
async fn where_anybody_may_sign_up_a_domain_also_needs_the_accounts_own_key() {
    let bench = Bench::with(|config| config.auth.signup = Signup::Open).await;
    let added = bench.published(&bench.owner, "acme.dev").await;
    let other = bench.account("other@example.com").await;
    add(&other, "acme.dev").await;
    // Its MX is there for all to see, yet the key is somebody else's.
    let verified = verify(&other, "acme.dev").await;
    assert_eq!(
        (&verified["status"], &verified["checks"]["mx"], &verified["checks"]["dkim"]),
        (&json!("pending"), &json!(true), &json!(false))
    );
    assert_eq!(bench.rcpt("a@acme.dev").await, 450);
    let name = added["dns"][2]["name"].as_str().unwrap();
    bench.dns.remove(name);
    assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "pending");
    bench.dns.txt(name, added["dns"][2]["value"].as_str().unwrap());
    assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "verified");
    other.post_nothing("/api/domains/acme.dev/verify").await.expect_error(409, "domain_taken");
}

#[tokio::test]
async fn a_proof_whose_record_is_gone_wins_no_domain() {
    let bench = Bench::with(|config| config.auth.signup = Signup::Open).await;
    let added = add(&bench.owner, "acme.dev").await;
    let key = &added["dns"][2];
    bench.dns.txt(key["name"].as_str().unwrap(), key["value"].as_str().unwrap());
    assert_eq!(flags(&row(&bench.owner, "acme.dev").await), [false; 4]);
    assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "pending", "its mail goes elsewhere");
    // The name changes hands, and who has it now points its mail here.
    bench.dns.remove(key["name"].as_str().unwrap()).mx("acme.dev", 10, HOSTNAME);
    let verified = verify(&bench.owner, "acme.dev").await;
    assert_eq!((&verified["status"], &verified["checks"]["dkim"]), (&json!("pending"), &json!(false)));
    assert_eq!(flags(&row(&bench.owner, "acme.dev").await), [true, false, true, false]);
    bench.server.stop().await;
}

#[tokio::test]
async fn the_first_who_proves_a_domain_has_it() {
    let bench = Bench::new().await;
    let other = bench.account("other@example.com").await;
    for api in [&bench.owner, &other] {
        add(api, "acme.dev").await;
    }
    let below = add(&bench.owner, "sub.acme.dev").await;
    let mine = bench.owner.get("/api/domains/acme.dev").await.expect(200);
    bench.publish(&mine);
    assert_eq!(verify(&other, "acme.dev").await["status"], "verified", "the MX alone decides here");
    let asked = bench.dns.asked().len();
    for name in ["acme.dev", "sub.acme.dev"] {
        bench.publish(&below);
        bench.owner.post_nothing(&format!("/api/domains/{name}/verify")).await.expect_error(409, "domain_taken");
        let row = row(&bench.owner, name).await;
        assert_eq!((flags(&row), &row["checked_at"], &row["status"]), ([false; 4], &Value::Null, &json!("pending")));
    }
    assert_eq!(bench.dns.asked().len(), asked, "nothing is looked up for that");
    let theirs = row(&other, "acme.dev").await["user_id"].clone();
    bench.server.accepted("a@acme.dev", "Whose").await;
    let messages = other.get("/api/messages").await.expect(200);
    assert_eq!(messages.as_array().map(Vec::len), Some(1), "{theirs}");
    // What was proven later, above it, takes nothing away from it.
    other.delete("/api/domains/acme.dev").await.expect(200);
    assert_eq!(verify(&bench.owner, "sub.acme.dev").await["status"], "verified");
    add(&other, "acme.dev").await;
    assert_eq!(verify(&other, "acme.dev").await["status"], "verified");
    assert_eq!(verify(&bench.owner, "sub.acme.dev").await["status"], "verified");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_prove_a_domain_at_once_one_has_it() {
    let bench = Bench::new().await;
    let other = bench.account("other@example.com").await;
    for round in 0..4 {
        let name = format!("race{round}.dev");
        bench.published(&bench.owner, &name).await;
        add(&other, &name).await;
        let path = format!("/api/domains/{name}/verify");
        let (mine, theirs) = tokio::join!(bench.owner.post_nothing(&path), other.post_nothing(&path));
        let mut statuses = [mine.status, theirs.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{name}");
        let lost = if mine.status == 409 { mine } else { theirs };
        lost.expect_error(409, "domain_taken");
    }
}

#[tokio::test]
async fn a_check_that_outlives_its_domain_proves_nothing_for_the_next() {
    let bench = Bench::new().await;
    let own = bench.published(&bench.owner, "mine.dev").await;
    // The look at this domain takes until its answer comes over the second attempt.
    bench.dns.silence("_dmarc.mine.dev");
    let path = format!("/api/domains/{}/verify", own["domain"]["id"].as_str().unwrap());
    let owner = bench.owner.clone();
    let looking = tokio::spawn(async move { owner.post_nothing(&path).await });
    let asked = async {
        while !bench.dns.asked().contains(&"_dmarc.mine.dev TXT".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap();
    bench.owner.delete("/api/domains/mine.dev").await.expect(200);
    let victim = add(&bench.owner, "victim.dev").await;
    looking.await.unwrap().expect_error(404, "not_found");
    let row = row(&bench.owner, "victim.dev").await;
    assert_eq!(row, victim["domain"], "the row id of a removed domain can be given again");
}

#[tokio::test]
async fn after_a_removal_the_next_has_to_prove_it_with_a_key_of_its_own() {
    let bench = Bench::with(|config| config.auth.signup = Signup::Open).await;
    bench.verified(&bench.owner, "acme.dev").await;
    let id = bench.server.accepted("a@acme.dev", "Before").await;
    bench.owner.delete("/api/domains/acme.dev").await.expect(200);
    assert_eq!(bench.rcpt("a@acme.dev").await, 550);
    let other = bench.account("other@example.com").await;
    let added = add(&other, "acme.dev").await;
    let verified = verify(&other, "acme.dev").await;
    assert_eq!((&verified["status"], &verified["checks"]["dkim"]), (&json!("pending"), &json!(false)));
    bench.dns.remove("mailkite._domainkey.acme.dev").remove("acme.dev").remove("_dmarc.acme.dev");
    bench.publish(&added);
    assert_eq!(verify(&other, "acme.dev").await["status"], "verified");
    bench.server.accepted("a@acme.dev", "After").await;
    let subjects =
        |rows: Value| rows.as_array().unwrap().iter().map(|row| row["subject"].clone()).collect::<Vec<_>>();
    assert_eq!(subjects(other.get("/api/messages").await.expect(200)), ["After"]);
    assert_eq!(subjects(bench.owner.get("/api/messages").await.expect(200)), ["Before"]);
    other.get(&format!("/api/messages/{id}")).await.expect_error(404, "not_found");
    // The same name of the same account is another domain too: a key for the new one does not see the old mail.
    bench.owner.get(&format!("/api/messages/{id}")).await.expect(200);
    let scoped = bench.scoped(&other, "acme.dev").await;
    assert_eq!(subjects(scoped.get("/api/messages").await.expect(200)), ["After"]);
}

#[tokio::test]
async fn a_proof_of_somebody_who_lost_the_domain_falls_as_any_other() {
    let bench = Bench::new().await;
    let mine = bench.verified(&bench.owner, "acme.dev").await;
    bench.server.write(|tx, _, _| Ok(tx.execute("DELETE FROM domain WHERE name LIKE '%.test'", [])?)).await;
    // The MX goes for three days, the rest stays: it can still be sent from.
    bench.dns.without("acme.dev", RecordType::MX);
    for _ in 0..4 {
        assert_eq!(bench.recheck().await, usize::from(bench.server.clock.now().as_millis() > NOW));
        bench.server.clock.advance(DAY + Duration::from_millis(1));
    }
    assert_eq!(bench.recheck().await, 1);
    assert_eq!(flags(&row(&bench.owner, "acme.dev").await), [false, true, true, true]);
    // Somebody else proves it with a key of their own.
    let other = bench.account("other@example.com").await;
    let theirs = add(&other, "acme.dev").await;
    for record in mine["dns"].as_array().unwrap() {
        bench.dns.remove(record["name"].as_str().unwrap());
    }
    bench.publish(&theirs);
    assert_eq!(verify(&other, "acme.dev").await["status"], "verified");
    for _ in 0..5 {
        bench.server.clock.advance(DAY + Duration::from_millis(1));
        assert_eq!(bench.recheck().await, 2);
    }
    let row = row(&bench.owner, "acme.dev").await;
    assert_eq!((flags(&row), &row["status"]), ([true, true, false, true], &json!("pending")));
    assert_eq!(bench.owner.get("/v1/me").await.expect(200)["sendingDomains"], json!([]));
    assert_eq!(verify(&other, "acme.dev").await["status"], "verified");
}

#[tokio::test]
async fn a_removed_domain_takes_what_lies_on_it_and_leaves_the_rest() {
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let bench = Bench::new().await;
    bench.verified(&bench.owner, "acme.dev").await;
    let put = bench.owner.put("/api/domains/acme.dev/webhook", json!({"url": receiver.url()})).await.expect(200);
    let hook = put["routeId"].as_str().unwrap();
    let route = |body: Value| async {
        bench.owner.post("/api/routes", body).await.expect(201)["id"].as_str().unwrap().to_owned()
    };
    let on = route(json!({"match": "support@acme.dev", "action": "store"})).await;
    let regex = route(json!({"match": "/@acme/", "action": "store"})).await;
    let elsewhere = route(json!({"match": "a@inbox.test", "action": "store"})).await;
    let scoped = bench.scoped(&bench.owner, "acme.dev").await;
    scoped.get("/api/domains/acme.dev").await.expect(200);
    let id = bench.server.accepted("support@acme.dev", "Kept").await;
    bench.server.until("SELECT count(*) FROM delivery WHERE status = 'failed' OR attempts > 0", 1_i64).await;
    assert_eq!(bench.owner.delete("/api/domains/ACME.dev").await.expect(200), json!({"ok": true}));

    bench.owner.get("/api/domains/acme.dev").await.expect_error(404, "not_found");
    bench.owner.delete("/api/domains/acme.dev").await.expect_error(404, "not_found");
    let listed = bench.owner.get("/api/routes").await.expect(200);
    let ids: Vec<&str> = listed.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&regex, &elsewhere], "{hook} and {on} are gone");
    scoped.get("/api/domains").await.expect_error(401, "bad_key");
    for left in ["dkim_key", "dns_check"] {
        let sql = if left == "dkim_key" { "SELECT count(*) FROM dkim_key" } else { "SELECT count(*) FROM dns_check" };
        assert_eq!(bench.server.query::<i64>(sql).await, 0, "{left}");
    }
    assert_eq!(bench.rcpt("support@acme.dev").await, 550);
    let message = bench.owner.get(&format!("/api/messages/{id}")).await.expect(200);
    assert_eq!(message["subject"], "Kept");
    bench.server.until("SELECT count(*) FROM delivery WHERE status = 'failed'", 1_i64).await;
    assert_eq!(
        bench.server.query::<Option<String>>("SELECT last_error FROM delivery").await.as_deref(),
        Some("route_gone")
    );
    bench.server.stop().await;
}

#[tokio::test]
async fn dev_mode_verifies_names_for_trying_without_dns() {
    let bench = Bench::with(|config| config.dev = true).await;
    for name in ["shop.test", "shop.localhost", "sub.shop.example"] {
        assert_eq!(add(&bench.owner, name).await["domain"]["status"], "pending");
        let verified = verify(&bench.owner, name).await;
        let checks = json!({"mx": true, "spf": true, "dkim": true, "dmarc": true});
        assert_eq!((&verified["status"], &verified["checks"]), (&json!("verified"), &checks), "{name}");
    }
    assert_eq!(bench.rcpt("a@shop.test").await, 250);
    assert!(bench.dns.asked().is_empty(), "{:?}", bench.dns.asked());
    add(&bench.owner, "shop.dev").await;
    assert_eq!(verify(&bench.owner, "shop.dev").await["status"], "pending");
    assert!(!bench.dns.asked().is_empty());
}

#[tokio::test]
async fn a_scoped_key_sees_and_verifies_its_own_domain_alone() {
    let bench = Bench::new().await;
    let other = bench.account("other@example.com").await;
    let theirs = add(&other, "other.dev").await["domain"]["id"].as_str().unwrap().to_owned();
    let mine = bench.published(&bench.owner, "acme.dev").await["domain"]["id"].as_str().unwrap().to_owned();
    let scoped = bench.scoped(&bench.owner, "acme.dev").await;
    assert_eq!(names(&scoped.get("/api/domains").await.expect(200)), ["acme.dev"]);
    for way in ["acme.dev", &mine] {
        scoped.get(&format!("/api/domains/{way}")).await.expect(200);
        scoped.post_nothing(&format!("/api/domains/{way}/verify")).await.expect(200);
        scoped.delete(&format!("/api/domains/{way}")).await.expect_error(403, "key_scope");
    }
    for (way, status, code) in
        [("inbox.test", 403, "key_scope"), ("other.dev", 404, "not_found"), (theirs.as_str(), 404, "not_found")]
    {
        scoped.get(&format!("/api/domains/{way}")).await.expect_error(status, code);
        scoped.post_nothing(&format!("/api/domains/{way}/verify")).await.expect_error(status, code);
        scoped.delete(&format!("/api/domains/{way}")).await.expect_error(status, code);
    }
    assert_eq!(row(&bench.owner, "acme.dev").await["status"], "verified");
}
