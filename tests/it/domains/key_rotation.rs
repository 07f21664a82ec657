//! DKIM keys that replace others (contract 3.9), seen by a remote host that verifies the mail it gets.

use std::process::Command;
use std::time::Duration;

use mailkite::testing::inbound::verify::Verifier;
use mailkite::testing::mail::envelope::Peer;
use mailkite::testing::mail::mime;
use mailkite::testing::net::dns::Resolver;
use serde_json::{Value, json};

use super::lifecycle::{Bench, DAY, NOW, verify};
use crate::support::remote_host::RemoteHost;

const OLD: [&str; 2] = ["mailkite", "mailkite-ed"];
const NEW: [&str; 2] = ["mailkite-20260728", "mailkite-ed-20260728"];
const WEEK: i64 = 7 * 86_400_000;

/// A server with acme.dev verified, and a host that takes mail for remote.test.
struct Setup {
    bench: Bench,
    remote: RemoteHost,
}

impl Setup {
    async fn new() -> Self {
        let remote = RemoteHost::start().await;
        let port = remote.address.port();
        let bench = Bench::with(|config| {
            config.outbound.smarthost = None;
            config.outbound.port = port;
            config.outbound.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
            config.outbound.mta_sts = false;
            config.outbound.dane = false;
        })
        .await;
        bench.dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        bench.verified(&bench.owner, "acme.dev").await;
        Self { bench, remote }
    }

    async fn rotate(&self) -> Value {
        self.bench.owner.post_nothing("/api/domains/acme.dev/dkim/rotate").await.expect(200)
    }

    async fn detail(&self) -> Value {
        self.bench.owner.get("/api/domains/acme.dev").await.expect(200)
    }

    async fn send(&self) {
        let mail = json!({"from": "hi@acme.dev", "to": "ada@remote.test", "subject": "Hi", "text": "Hello."});
        self.bench.owner.post("/v1/send", mail).await.expect(202);
    }

    async fn sent(&mut self) -> Vec<u8> {
        self.send().await;
        self.remote.next_mail().await.data()
    }

    /// The verdicts on the signatures of a mail, by what DNS has now.
    async fn verdicts(&self, raw: &[u8]) -> Vec<String> {
        let verifier = Verifier::new(
            Resolver::uncached(&[self.bench.dns.address]).unwrap(),
            "mx.remote.test".into(),
            Duration::from_secs(10),
        );
        let peer =
            Peer { address: "192.0.2.25".parse().unwrap(), helo: "mx.acme.dev".into(), esmtp: true, tls: None };
        let found = verifier.verify(&peer, "", raw, &mime::parse(raw)).await;
        let results = found.authentication_results.split("dkim=").skip(1);
        results.map(|result| result.split([' ', ';']).next().unwrap().to_owned()).collect()
    }

    async fn later(&self, by: Duration) {
        self.bench.server.clock.advance(by);
        assert!(self.bench.recheck().await > 0);
    }
}

/// The selectors that signed, RSA first.
fn selectors(raw: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(raw).into_owned();
    let tags = text.split("DKIM-Signature:").skip(1);
    let mut found: Vec<String> =
        tags.map(|one| one.split(" s=").nth(1).unwrap().split(';').next().unwrap().to_owned()).collect();
    found.reverse();
    found
}

/// Name without the domain, and part in the rotation, of the records of keys.
fn keys(answer: &Value) -> Vec<(String, String)> {
    let records = answer["dns"].as_array().unwrap().iter();
    let keys = records.filter(|record| record["name"].as_str().unwrap().contains("._domainkey."));
    keys.map(|record| {
        let name = record["name"].as_str().unwrap().split('.').next().unwrap().to_owned();
        (name, record["rotation"].as_str().unwrap_or("signing").to_owned())
    })
    .collect()
}

fn named(names: [&str; 2], part: &str) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), part.to_owned())).collect()
}

fn name(selector: &str) -> String {
    format!("{selector}._domainkey.acme.dev")
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_sign_once_they_are_found_and_the_old_ones_retire_a_week_later() {
    let mut setup = Setup::new().await;
    let before = setup.sent().await;
    assert_eq!((selectors(&before), setup.verdicts(&before).await), (OLD.map(str::to_owned).to_vec(), pass()));

    let rotated = setup.rotate().await;
    assert_eq!(keys(&rotated), [named(OLD, "signing"), named(NEW, "next")].concat());
    assert_eq!(setup.rotate().await["dns"], rotated["dns"], "asking again makes no other keys");
    assert_eq!(rotated["domain"]["dkim_verified"], true);

    // Without its record a new key changes nothing: neither what signs nor what the domain may.
    for record in rotated["dns"].as_array().unwrap() {
        if record["name"] == name(NEW[1]) {
            setup.bench.dns.txt(&name(NEW[1]), record["value"].as_str().unwrap());
        }
    }
    for _ in 0..4 {
        setup.later(DAY + Duration::from_secs(1)).await;
    }
    let waiting = verify(&setup.bench.owner, "acme.dev").await;
    assert_eq!((&waiting["status"], &waiting["checks"]["dkim"]), (&json!("verified"), &json!(true)));
    let dns = setup.detail().await["dns"].clone();
    assert_eq!((&dns[5]["status"], &dns[6]["status"]), (&json!("missing"), &json!("ok")));
    assert_eq!(selectors(&setup.sent().await), OLD);

    setup.bench.dns.txt(&name(NEW[0]), dns[5]["value"].as_str().unwrap());
    setup.later(DAY + Duration::from_secs(1)).await;
    let after = setup.sent().await;
    assert_eq!((selectors(&after), setup.verdicts(&after).await), (NEW.map(str::to_owned).to_vec(), pass()));
    assert_eq!(setup.verdicts(&before).await, pass(), "mail in transit is still verified");
    let switched = setup.bench.server.clock.now().as_millis();
    let detail = setup.detail().await;
    assert_eq!(keys(&detail), [named(NEW, "signing"), named(OLD, "retiring")].concat());
    assert_eq!(
        (&detail["dns"][5]["removable_at"], &detail["dns"][2]["status"]),
        (&json!(switched + WEEK), &json!("ok"))
    );
    assert_eq!(detail["domain"]["dkim_verified"], true);
    let again = setup.bench.owner.post_nothing("/api/domains/acme.dev/dkim/rotate").await;
    again.expect_error(409, "rotation_in_progress");

    setup.later(DAY * 7 - Duration::from_secs(1)).await;
    assert_eq!(keys(&setup.detail().await), [named(NEW, "signing"), named(OLD, "retiring")].concat());
    setup.bench.server.clock.advance(Duration::from_secs(1));
    verify(&setup.bench.owner, "acme.dev").await;
    let detail = setup.detail().await;
    assert_eq!(keys(&detail), [named(NEW, "signing"), named(OLD, "retired")].concat());
    assert_eq!((&detail["dns"][5]["optional"], &detail["dns"][5]["removable_at"]), (&json!(true), &Value::Null));
    let private = "SELECT count(private_sealed) FROM dkim_key JOIN domain ON domain.id = domain_id \
                   WHERE name = 'acme.dev'";
    assert_eq!(setup.bench.server.query::<i64>(private).await, 2, "the old private keys are gone");

    for selector in OLD {
        setup.bench.dns.remove(&name(selector));
    }
    verify(&setup.bench.owner, "acme.dev").await;
    assert_eq!(keys(&setup.detail().await), named(NEW, "signing"));
    let later = setup.rotate().await;
    assert_eq!(later["dns"][5]["name"], name("mailkite-20260809"));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_keys_stay_while_mail_that_they_signed_waits() {
    let mut setup = Setup::new().await;
    let at = NOW + 20 * 86_400_000;
    let mail = json!({"from": "hi@acme.dev", "to": "ada@remote.test", "subject": "Later", "text": "Hello.",
        "scheduledAt": at});
    setup.bench.owner.post("/v1/send", mail).await.expect(202);
    let rotated = setup.rotate().await;
    setup.bench.publish(&json!({"dns": [rotated["dns"][5], rotated["dns"][6]]}));
    verify(&setup.bench.owner, "acme.dev").await;
    assert_eq!(selectors(&setup.sent().await), NEW);
    for _ in 0..2 {
        setup.later(DAY * 9).await;
        let removable = setup.bench.server.clock.now().as_millis() + WEEK;
        assert_eq!(setup.detail().await["dns"][5]["removable_at"], removable, "as long as it waits");
    }
    setup.bench.server.clock.advance(DAY * 2);
    let late = setup.remote.next_mail().await.data();
    assert_eq!((selectors(&late), setup.verdicts(&late).await), (OLD.map(str::to_owned).to_vec(), pass()));
    setup.bench.server.until("SELECT count(*) FROM message WHERE status = 'sent'", 2_i64).await;
    setup.later(DAY * 5).await;
    assert_eq!(keys(&setup.detail().await), [named(NEW, "signing"), named(OLD, "retired")].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_one_domain_and_another_account_rotate_nothing() {
    let setup = Setup::new().await;
    let domain = setup.detail().await["domain"]["id"].as_str().unwrap().to_owned();
    let path = "/api/domains/acme.dev/dkim/rotate";
    setup.bench.scoped(&setup.bench.owner, &domain).await.post_nothing(path).await.expect_error(403, "key_scope");
    setup.bench.account("eve@e.dev").await.post_nothing(path).await.expect_error(404, "not_found");
    assert_eq!(keys(&setup.detail().await), named(OLD, "signing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_rotates_on_the_host_beside_the_server() {
    let setup = Setup::new().await;
    let data_dir = setup.bench.server.data_dir().to_owned();
    let run = move |domain: &'static str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
        command.args(["domain", "rotate-dkim", domain, "--data-dir"]).arg(&data_dir);
        tokio::task::spawn_blocking(move || {
            let output = command.output().unwrap();
            (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
        })
    };
    let (succeeded, said) = run("acme.dev").await.unwrap();
    assert!(succeeded, "{said}");
    let dns = setup.detail().await["dns"].clone();
    assert_eq!(keys(&json!({"dns": dns})), [named(OLD, "signing"), named(NEW, "next")].concat());
    for record in [&dns[5], &dns[6]] {
        let (name, value) = (record["name"].as_str().unwrap(), record["value"].as_str().unwrap());
        assert!(said.contains(&format!("  {name}\n    {value}\n")), "{said}");
    }
    let (succeeded, said) = run("nobody.dev").await.unwrap();
    assert!(!succeeded && said.contains("there is no domain nobody.dev here"), "{said}");
}

fn pass() -> Vec<String> {
    vec!["pass".to_owned(); 2]
}
