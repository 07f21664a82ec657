//! A server that forwards mail to a remote host, and domains with SPF and DMARC policies around it.

use std::time::Duration;

use mailkite::testing::bootstrap;
use mailkite::testing::clock::Clock;
use mailkite::testing::config::Config;
use mailkite::testing::inbound::verify::{Verification, Verifier};
use mailkite::testing::mail::envelope::Peer;
use mailkite::testing::mail::mime;
use mailkite::testing::net::dns::Resolver;
use mailkite::testing::secrets::{self, token_hash};
use mailkite::testing::store::accounts::keys;
use mailkite::testing::store::accounts::{self, NewAccount};
use serde_json::{Value, json};

use super::api::Api;
use super::dns::DnsServer;
use super::outbound::deliver_to_loopback;
use super::remote_host::{ReceivedMail, RemoteHost};
use super::server::Server;
use super::smtp::SmtpClient;

/// A server whose mail for remote.test goes to a remote host.
pub(crate) struct ForwardingServer {
    pub server: Server,
    pub remote: RemoteHost,
    pub dns: DnsServer,
    pub owner: Api,
}

/// The host that the mail of good.test comes from.
pub(crate) const GOOD: &str = "192.0.2.7";
/// A host of another operator.
pub(crate) const EVIL: &str = "192.0.2.66";

impl ForwardingServer {
    pub(crate) async fn start() -> Self {
        Self::start_behind(Vec::new()).await
    }

    /// Starts one whose SMTP clients name their address by the PROXY protocol, with policies of several domains in DNS.
    pub(crate) async fn start_with_policies() -> Self {
        let setup = Self::start_behind(vec!["127.0.0.0/8".parse().unwrap()]).await;
        let dns = &setup.dns;
        dns.txt("good.test", "v=spf1 ip4:192.0.2.7 -all").txt("_dmarc.good.test", "v=DMARC1; p=reject");
        dns.txt("bank.test", "v=spf1 -all").txt("_dmarc.bank.test", "v=DMARC1; p=reject");
        dns.txt("calm.test", "v=spf1 -all").txt("_dmarc.calm.test", "v=DMARC1; p=none");
        dns.txt("evil.test", "v=spf1 +all").fail("_dmarc.broken.test");
        dns.txt("mx.mailkite.test", "v=spf1 ip4:198.51.100.1 -all");
        setup.server.domains.ensure_keys(setup.server.inbox.id, setup.server.clock.now()).await.unwrap();
        let key = setup.server.query::<String>("SELECT public_key FROM dkim_key WHERE algorithm = 'rsa'").await;
        setup.dns.txt("mailkite._domainkey.inbox.test", &format!("v=DKIM1; k=rsa; p={key}"));
        setup.dns.txt("_dmarc.inbox.test", "v=DMARC1; p=reject").txt("inbox.test", "v=spf1 -all");
        setup
    }

    /// Delivers one mail from a host with this address; returns the code of the last reply.
    pub(crate) async fn deliver(&self, host: &str, mail_from: &str, to: &str, mail: &str) -> u16 {
        let mut client = SmtpClient::open(self.server.smtp).await;
        client.send(format!("PROXY TCP4 {host} 198.51.100.1 4711 25\r\n")).await;
        assert_eq!(client.reply().await.code, 220);
        client.expect("EHLO client.test", 250).await;
        client.mail(mail_from, &[to], mail).await.code
    }

    /// Verifies a mail as the destination does that gets it from our host.
    pub(crate) async fn verify(&self, mail_from: &str, mail: &str) -> Verification {
        let resolver = Resolver::new(&[self.dns.address]).unwrap();
        let verifier = Verifier::new(resolver, "mx.remote.test".into(), Duration::from_secs(10));
        let address = "198.51.100.1".parse().unwrap();
        let peer = Peer { address, helo: "mx.mailkite.test".into(), esmtp: true, tls: None };
        verifier.verify(&peer, mail_from, mail.as_bytes(), &mime::parse(mail.as_bytes())).await
    }

    async fn start_behind(proxies: Vec<ipnet::IpNet>) -> Self {
        Self::start_with(Clock::System, |config| config.smtp.proxy_protocol_from = proxies).await
    }

    pub(crate) async fn start_with(clock: Clock, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(clock, RemoteHost::start().await, adjust).await
    }

    /// Starts one whose destinations are at this host.
    pub(crate) async fn start_at(clock: Clock, remote: RemoteHost, adjust: impl FnOnce(&mut Config)) -> Self {
        let dns = DnsServer::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        let port = remote.address.port();
        let server = Server::start_with(clock, |config| {
            deliver_to_loopback(config, &dns, port);
            adjust(config);
        })
        .await;
        let owner = server.owner().await;
        Self { server, remote, dns, owner }
    }

    /// Adds an account with a verified domain; returns a client with its key.
    pub(crate) async fn tenant(&self, domain: &'static str, email_verified: bool) -> Api {
        let key = self
            .server
            .write(move |tx, secrets, now| {
                let email = format!("owner@{domain}");
                let account = accounts::insert(tx, NewAccount { email, email_verified, ..Default::default() }, now)?;
                bootstrap::verified_domain(tx, account.id, domain, now)?;
                let key = secrets::new_api_key();
                keys::insert(tx, account.id, &token_hash(&key), &secrets.seal(keys::PURPOSE, key.as_bytes()), now)?;
                Ok(key)
            })
            .await;
        self.server.anonymous().with(key)
    }

    /// Takes the next mail, which asks for a confirmation; returns its recipient and the token of its links.
    pub(crate) async fn next_confirmation(&mut self) -> (String, String) {
        let taken = self.remote.next_mail().await;
        assert_eq!(taken.sender(), "", "nothing comes back of it");
        let text = String::from_utf8(taken.data()).unwrap().replace("=\r\n", "").replace("=3D", "=");
        let (_, rest) = text.split_once("/api/forwards/confirm?token=").unwrap_or_else(|| panic!("{text}"));
        let token = rest.split_whitespace().next().unwrap().to_owned();
        assert!(text.contains(&format!("/api/forwards/decline?token={token}")), "{text}");
        (taken.recipients().remove(0), token)
    }

    pub(crate) async fn until_idle(&self) {
        self.server.until("SELECT count(*) FROM job", 0_i64).await;
    }
}

pub(crate) async fn forward(api: &Api, matching: &str, to: &str) -> Value {
    api.post("/api/routes", json!({"match": matching, "action": "forward", "destination": to})).await.expect(201)
}

pub(crate) async fn route(api: &Api) -> Value {
    api.get("/api/routes").await.expect(200)[0].clone()
}

pub(crate) fn text_of(taken: &ReceivedMail) -> String {
    String::from_utf8(taken.data()).unwrap()
}

pub(crate) fn from(author: &str, subject: &str) -> String {
    format!("From: {author}\r\nTo: sales@inbox.test\r\nSubject: {subject}\r\n\r\nPay to me.\r\n")
}
