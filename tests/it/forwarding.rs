//! Who may forward what to whom, and how it leaves (contract 4.6).

use mailkite::clock::Clock;
use mailkite::secrets::{self, token_hash};
use mailkite::setup;
use mailkite::store::accounts::{self, NewAccount};
use mailkite::store::keys;
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::dns::DnsServer;
use super::support::remote::Remote;
use super::support::server::{Server, message};

/// A server whose mail for remote.test goes to a remote host.
struct House {
    server: Server,
    remote: Remote,
    _dns: DnsServer,
    owner: Api,
}

impl House {
    async fn start() -> Self {
        let dns = DnsServer::start().await;
        let remote = Remote::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        let (servers, port) = (vec![dns.address], remote.address.port());
        let server = Server::start_with(Clock::System, |config| {
            config.dns.servers = servers;
            config.outbound.smarthost = None;
            config.outbound.port = port;
            config.outbound.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .await;
        let owner = server.owner().await;
        Self { server, remote, _dns: dns, owner }
    }

    /// Another account with a verified domain, by its key.
    async fn tenant(&self, domain: &'static str, email_verified: bool) -> Api {
        let key = self
            .server
            .write(move |tx, secrets, now| {
                let email = format!("owner@{domain}");
                let account = accounts::insert(tx, NewAccount { email, email_verified, ..Default::default() }, now)?;
                setup::verified_domain(tx, account.id, domain, now)?;
                let key = secrets::new_api_key();
                keys::insert(tx, account.id, &token_hash(&key), &secrets.seal(keys::PURPOSE, key.as_bytes()), now)?;
                Ok(key)
            })
            .await;
        self.server.anonymous().with(key)
    }

    /// The mail that comes next asks for a proof; the token of its links.
    async fn asked(&mut self) -> (String, String) {
        let taken = self.remote.taken().await;
        assert_eq!(taken.sender(), "", "nothing comes back of it");
        let text = String::from_utf8(taken.data()).unwrap().replace("=\r\n", "").replace("=3D", "=");
        let (_, rest) = text.split_once("/api/forwards/confirm?token=").unwrap_or_else(|| panic!("{text}"));
        let token = rest.split_whitespace().next().unwrap().to_owned();
        assert!(text.contains(&format!("/api/forwards/decline?token={token}")), "{text}");
        (taken.recipients().remove(0), token)
    }

    async fn settled(&self) {
        self.server.until("SELECT count(*) FROM job", 0_i64).await;
    }
}

async fn forward(api: &Api, matching: &str, to: &str) -> Value {
    api.post("/api/routes", json!({"match": matching, "action": "forward", "destination": to})).await.expect(201)
}

async fn route(api: &Api) -> Value {
    api.get("/api/routes").await.expect(200)[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_injected_message_leaves_only_with_a_from_that_the_account_may_send_from() {
    let mut house = House::start().await;
    let made = forward(&house.owner, "out@inbox.test", "victim@remote.test").await;
    assert_eq!((&made["destination_proven"], &made["on_auth_fail"]), (&json!(true), &json!("refuse")));
    let id = made["id"].clone();
    let inject = async |from: &str| {
        let body = json!({"from": from, "routeId": id, "subject": "Pay me", "text": "now"});
        house.owner.post("/v1/route", body).await
    };
    for number in 0..20 {
        inject(&format!("CEO <ceo{number}@bank.example>")).await.expect_error(404, "domain_not_owned");
    }
    inject("hi@pending.test").await.expect_error(403, "from_domain");
    assert_eq!(house.server.query::<i64>("SELECT count(*) FROM dispatch").await, 0);
    inject("Acme <hi@inbox.test>").await.expect(202);
    let taken = house.remote.taken().await;
    let text = String::from_utf8(taken.data()).unwrap();
    assert_eq!(taken.recipients(), ["victim@remote.test"]);
    assert!(text.contains("DKIM-Signature: v=1; a=rsa-sha256;") && text.contains("d=inbox.test;"), "{text}");
    house.settled().await;
    assert!(house.remote.is_drained());
    let kept = house.owner.get("/api/messages").await.expect(200);
    assert_eq!((&kept[0]["spf"], &kept[0]["dkim"], &kept[0]["dmarc"]), (&json!(null), &json!(null), &json!(null)));
    // What stays here may have any From.
    house.owner.post("/api/routes", json!({"match": "in@inbox.test", "action": "store"})).await.expect(201);
    let body = json!({"from": "ceo@bank.example", "address": "in@inbox.test", "subject": "x", "text": "y"});
    house.owner.post("/v1/route", body).await.expect(202);
    // An account whose e-mail is not proven sends nothing at all.
    let eve = house.tenant("eve.test", false).await;
    let id = forward(&eve, "out@eve.test", "victim@remote.test").await["id"].clone();
    let body = json!({"from": "eve@eve.test", "routeId": id, "subject": "x", "text": "y"});
    eve.post("/v1/route", body).await.expect_error(403, "email_not_verified");
    house.server.mail("out@eve.test", &message("By SMTP")).await;
    house.server.until("SELECT last_status FROM route ORDER BY id DESC", "unverified".to_owned()).await;
    house.settled().await;
    assert!(house.remote.is_drained(), "nor is anybody asked in its name");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_gets_mail_once_somebody_there_has_confirmed() {
    let mut house = House::start().await;
    let eve = house.tenant("eve.test", true).await;
    let made = forward(&eve, "*@eve.test", "victim@remote.test").await;
    assert_eq!(made["destination_proven"], false);
    let (asked, token) = house.asked().await;
    assert_eq!(asked, "victim@remote.test");
    for number in 0..12 {
        assert_eq!(house.server.mail("a@eve.test", &message(&format!("Spam {number}"))).await.code, 250);
    }
    house.settled().await;
    assert!(house.remote.is_drained(), "nothing leaves before that");
    assert_eq!(route(&eve).await["last_status"], "unproven");
    let kept = eve.get("/api/messages").await.expect(200);
    assert_eq!(kept.as_array().unwrap().len(), 12, "it is stored all the same");
    let path = format!("/api/messages/{}/transmissions", kept[0]["id"].as_str().unwrap());
    let shown = eve.get(&path).await.expect(200);
    assert_eq!((&shown[0]["settled"], &shown[0]["recipients"][0]["status"]), (&json!(true), &json!("failed")));
    assert!(shown[0]["recipients"][0]["diagnostic"].as_str().unwrap().contains("has not confirmed"), "{shown}");
    // A program that follows links confirms nothing, and neither does somebody who guesses.
    let api = house.server.anonymous();
    let link = format!("/api/forwards/confirm?token={token}");
    let page = api.get(&link).await;
    assert_eq!((page.status, page.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.headers["content-security-policy"].contains("form-action 'self'"));
    assert!(String::from_utf8_lossy(&page.body).contains("method=\"post\""));
    for wrong in ["", "?token=", "?token=x", &format!("?token={}", token.to_lowercase())] {
        for method in ["GET", "POST"] {
            let page = api.exchange(method, &format!("/api/forwards/confirm{wrong}"), &[], None).await;
            assert_eq!(page.status, 400, "{method} {wrong}");
        }
    }
    assert_eq!(route(&eve).await["destination_proven"], false);
    assert_eq!(api.exchange("POST", &link, &[], None).await.status, 200);
    assert_eq!(route(&eve).await["destination_proven"], true);
    house.server.mail("a@eve.test", &message("Wanted")).await;
    assert_eq!(house.remote.taken().await.recipients(), ["victim@remote.test"]);
    // Another destination proves itself anew; one on a domain of the account's own need not.
    let id = made["id"].as_str().unwrap();
    let aim = async |to: &str| eve.patch(&format!("/api/routes/{id}"), json!({"destination": to})).await.expect(200);
    assert_eq!(aim("next@remote.test").await["destination_proven"], false);
    house.server.mail("a@eve.test", &message("Next")).await;
    let (asked, token) = house.asked().await;
    assert_eq!(asked, "next@remote.test");
    assert_eq!(aim("me@eve.test").await["destination_proven"], true);
    // Who declines is left alone, whoever asks.
    let decline = format!("/api/forwards/decline?token={token}");
    assert_eq!(api.exchange("POST", &decline, &[], None).await.status, 200);
    let mallory = house.tenant("mallory.test", true).await;
    forward(&mallory, "*@mallory.test", "next+again@remote.test").await;
    aim("next@remote.test").await;
    house.settled().await;
    assert!(house.remote.is_drained());
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_a_proof_is_no_way_to_flood_anybody() {
    let mut house = House::start().await;
    let eve = house.tenant("eve.test", true).await;
    for number in 0..15 {
        forward(&eve, "*@eve.test", &format!("v{number}@remote.test")).await;
    }
    let mut asked = Vec::new();
    for _ in 0..10 {
        asked.push(house.asked().await.0);
    }
    asked.sort();
    let wanted: Vec<String> = (0..10).map(|number| format!("v{number}@remote.test")).collect();
    assert_eq!(asked, wanted, "ten a day for one account");
    for domain in ["a.test", "b.test", "c.test", "d.test"] {
        let one = house.tenant(domain, true).await;
        let id = forward(&one, &format!("*@{domain}"), "victim@remote.test").await["id"].clone();
        let path = format!("/api/routes/{}", id.as_str().unwrap());
        one.patch(&path, json!({"destination": "victim@remote.test"})).await.expect(200);
        one.patch(&path, json!({"destination": "Victim+x@remote.test"})).await.expect(200);
    }
    for _ in 0..3 {
        assert_eq!(house.asked().await.0, "victim@remote.test", "once for an account, three times for all");
    }
    house.settled().await;
    assert!(house.remote.is_drained());
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suppressed_destination_gets_nothing_forwarded() {
    let mut house = House::start().await;
    forward(&house.owner, "*@inbox.test", "Ada@remote.test").await;
    house.owner.post("/api/contacts/suppressions", json!({"email": "ada@remote.test"})).await;
    house.server.accepted("a@inbox.test", "Held").await;
    house.settled().await;
    assert_eq!(route(&house.owner).await["last_status"], "suppressed");
    assert!(house.remote.is_drained());
    house.owner.delete("/api/contacts/suppressions/ada@remote.test").await.expect(200);
    house.server.accepted("a@inbox.test", "Free").await;
    assert_eq!(house.remote.taken().await.recipients(), ["Ada@remote.test"]);
    house.settled().await;
    house.server.stop().await;
}
