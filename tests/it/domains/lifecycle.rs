//! Domains through the API: added, proven, removed (contract 3.1–3.5); checks are in `dns_checks`, competing
//! proofs in `contested`.

use std::time::Duration;

use hickory_resolver::proto::rr::RecordType;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::config::{Config, Signup};
use mailkite::testing::domain::recheck;
use mailkite::testing::secrets::{new_api_key, token_hash};
use mailkite::testing::store::accounts::{self, keys};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::dns::DnsServer;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::{HOSTNAME, Server};
use crate::support::smtp::SmtpClient;

pub(crate) const NOW: i64 = 1_785_196_800_000;
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// The address of the host, as DNS has it.
pub(crate) const ADDRESS: &str = "192.0.2.25";

/// A server, its owner, and its DNS server.
pub(crate) struct Bench {
    pub dns: DnsServer,
    pub server: Server,
    pub owner: Api,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
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
    pub(crate) async fn account(&self, email: &str) -> Api {
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
    pub(crate) async fn scoped(&self, api: &Api, domain: &str) -> Api {
        let made = api.post("/api/keys/scoped", json!({"domainId": domain, "name": "one"})).await.expect(201);
        api.with(made["key"].as_str().unwrap())
    }

    /// Adds a domain and publishes the records of the answer.
    pub(crate) async fn published(&self, api: &Api, name: &str) -> Value {
        let added = add(api, name).await;
        self.publish(&added);
        added
    }

    /// Publishes the records of an answer.
    pub(crate) fn publish(&self, answer: &Value) {
        for record in answer["dns"].as_array().unwrap() {
            let (name, value) = (record["name"].as_str().unwrap(), record["value"].as_str().unwrap());
            match record["priority"].as_u64() {
                Some(priority) => self.dns.mx(name, priority.try_into().unwrap(), value),
                None => self.dns.txt(name, value),
            };
        }
    }

    /// Adds, publishes and verifies.
    pub(crate) async fn verified(&self, api: &Api, name: &str) -> Value {
        let added = self.published(api, name).await;
        assert_eq!(verify(api, name).await["status"], "verified");
        added
    }

    /// Replaces the TXT records of a name.
    pub(crate) fn texts(&self, name: &str, texts: &[&str]) {
        self.dns.without(name, RecordType::TXT);
        for text in texts {
            self.dns.txt(name, text);
        }
    }

    /// The code of the reply to RCPT.
    pub(crate) async fn rcpt(&self, to: &str) -> u16 {
        let mut client = SmtpClient::connect_and_greet(self.server.smtp).await;
        client.expect("MAIL FROM:<ada@example.com>", 250).await;
        client.command(&format!("RCPT TO:<{to}>")).await.code
    }

    pub(crate) async fn recheck(&self) -> usize {
        recheck::round(&self.server.domains, self.server.clock.now()).await.unwrap()
    }
}

pub(crate) async fn add(api: &Api, name: &str) -> Value {
    api.post("/api/domains", json!({"domain": name})).await.expect(201)
}

pub(crate) async fn verify(api: &Api, name: &str) -> Value {
    api.post_nothing(&format!("/api/domains/{name}/verify")).await.expect(200)
}

pub(crate) async fn row(api: &Api, name: &str) -> Value {
    api.get(&format!("/api/domains/{name}")).await.expect(200)["domain"].clone()
}

pub(crate) fn flags(row: &Value) -> [bool; 4] {
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
async fn names_are_normalised_and_what_is_none_is_refused() {
    let bench = Bench::new().await;
    let name = |answer: Value| answer["domain"]["domain"].as_str().unwrap().to_owned();
    assert_eq!(name(add(&bench.owner, "B\u{dc}cher.example.").await), "xn--bcher-kva.example");
    assert_eq!(name(add(&bench.owner, " \u{440}ay.dev ").await), "xn--ay-kmc.dev");
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
        "acme\u{0}.dev",
        "mx.mailkite.test",
        "MX.Mailkite.Test.",
        &format!("{}.dev", "a".repeat(64)),
        &"a.".repeat(200),
    ] {
        let answer = bench.owner.post("/api/domains", json!({"domain": bad})).await;
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
    assert_eq!(message["message"]["subject"], "Kept");
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
async fn an_open_dev_server_asks_other_domains_for_the_accounts_own_key_too() {
    let bench = Bench::with(|config| (config.dev, config.auth.signup) = (true, Signup::Open)).await;
    let added = bench.published(&bench.owner, "shop.dev").await;
    let name = added["dns"][2]["name"].as_str().unwrap();
    bench.dns.remove(name);
    assert_eq!(verify(&bench.owner, "shop.dev").await["status"], "pending");
    bench.dns.txt(name, added["dns"][2]["value"].as_str().unwrap());
    assert_eq!(verify(&bench.owner, "shop.dev").await["status"], "verified");
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
