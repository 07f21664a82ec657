//! Routing of queued mail: a slow host delays no other, relays get the mail they are configured for.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hickory_resolver::proto::op::ResponseCode;
use mailkite::testing::clock::Clock;
use mailkite::testing::config::{Smarthost, SmarthostSecurity};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::dns::{DnsServer, Edns};
use crate::support::outbound::deliver_to_loopback;
use crate::support::remote_host::{HostAction, HostConfig, RemoteHost};
use crate::support::server::Server;

async fn send(api: &Api, from: &str, to: &str) -> String {
    let body = json!({"from": from, "to": to, "subject": "Hi", "text": "It branches."});
    api.post("/v1/send", body).await.expect(202)["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_says_nothing_is_in_nobody_elses_way() {
    let dns = DnsServer::start().await;
    let mut healthy = RemoteHost::start().await;
    let at = format!("127.0.0.2:{}", healthy.address.port()).parse().unwrap();
    let mute = HostConfig { script: Arc::new(|_, _| Some(HostAction::Hang)), ..HostConfig::default() };
    let tarpit = RemoteHost::at(at, mute).await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    dns.mx("tarpit.test", 10, "mx.tarpit.test").address("mx.tarpit.test", "127.0.0.2");
    let port = healthy.address.port();
    let server = Server::start_with(Clock::System, |config| deliver_to_loopback(config, &dns, port)).await;
    let owner = server.owner().await;
    for number in 0..60 {
        send(&owner, "hi@inbox.test", &format!("m{number}@tarpit.test")).await;
    }
    for number in 0..20 {
        send(&owner, "hi@inbox.test", &format!("m{number}@remote.test")).await;
    }
    for _ in 0..20 {
        healthy.next_mail().await;
    }
    server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 20_i64).await;
    server.until("SELECT count(*) FROM recipient WHERE status = 'queued'", 60_i64).await;
    assert_eq!(tarpit.connections(), 2, "a domain gets more only after a success");
}

#[tokio::test(flavor = "multi_thread")]
async fn name_servers_that_do_not_know_edns_are_asked_without() {
    for edns in [Edns::Refused(ResponseCode::FormErr), Edns::Refused(ResponseCode::NotImp), Edns::Dropped] {
        let dns = DnsServer::start().await;
        dns.edns(edns);
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        let mut remote = RemoteHost::start().await;
        let server =
            Server::start_with(Clock::System, |config| deliver_to_loopback(config, &dns, remote.address.port()))
                .await;
        let owner = server.owner().await;
        send(&owner, "hi@inbox.test", "ada@remote.test").await;
        assert_eq!(remote.next_mail().await.recipients(), ["ada@remote.test"], "{edns:?}");
        server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 1_i64).await;
        server.stop().await;
    }
}

/// Starts a relay that requires a password; returns it with its settings.
async fn relay(user: &str) -> (RemoteHost, Arc<Smarthost>) {
    let wanted = format!("AUTH PLAIN {}", BASE64.encode(format!("\0{user}\0secret of {user}")));
    let script = move |command: &str, _: usize| match command {
        given if given == wanted => Some(HostAction::Send("235 2.7.0 welcome\r\n".to_owned())),
        given if given.starts_with("AUTH") => Some(HostAction::Send("535 5.7.8 who are you\r\n".to_owned())),
        _ => None,
    };
    let manner = HostConfig {
        extensions: vec!["PIPELINING", "AUTH PLAIN LOGIN"],
        script: Arc::new(script),
        ..HostConfig::default()
    };
    let remote = RemoteHost::with(manner).await;
    let smarthost = Smarthost {
        host: "127.0.0.1".to_owned(),
        port: remote.address.port(),
        security: SmarthostSecurity::None,
        username: Some(user.to_owned()),
        password: Some(format!("secret of {user}")),
        fallback: false,
    };
    (remote, Arc::new(smarthost))
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_take_the_mail_of_the_installation_and_of_a_domain() {
    let dns = DnsServer::start().await;
    let (mut all, everybodys) = relay("all").await;
    let (mut shops, shops_own) = relay("shop").await;
    let server = Server::start_with(Clock::System, |config| {
        deliver_to_loopback(config, &dns, 1);
        config.outbound.smarthost = Some(everybodys);
        config.outbound.domain_smarthosts = BTreeMap::from([("shop.test".to_owned(), shops_own)]);
    })
    .await;
    server.add_domain("shop.test").await;
    let owner = server.owner().await;
    // Several recipient domains, one relay; each recipient has an envelope of its own.
    let body = json!({"from": "hi@inbox.test", "to": ["a@one.test", "b@two.test"], "subject": "Hi", "text": "x"});
    let id = owner.post("/v1/send", body).await.expect(202)["id"].as_str().unwrap().to_owned();
    let mut relayed = [all.next_mail().await.recipients(), all.next_mail().await.recipients()];
    relayed.sort();
    assert_eq!(relayed, [["a@one.test"], ["b@two.test"]]);
    send(&owner, "hi@shop.test", "c@one.test").await;
    assert_eq!(shops.next_mail().await.recipients(), ["c@one.test"]);
    server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 3_i64).await;
    let transmissions = owner.get(&format!("/api/messages/{id}/transmissions")).await.expect(200);
    let [first, taken] = transmissions.as_array().unwrap().as_slice() else { panic!("two: {transmissions}") };
    let stand = |one: &Value| (one["recipients"][0]["address"].clone(), one["recipients"][0]["status"].clone());
    assert_eq!(
        [stand(first), stand(taken)],
        [(json!("a@one.test"), json!("sent")), (json!("b@two.test"), json!("sent"))]
    );
    assert_eq!((&taken["host"], &taken["tls"]), (&json!("127.0.0.1"), &json!(null)));
    assert_eq!((&taken["attempts"], &taken["settled"], &taken["routeId"]), (&json!(1), &json!(true), &json!(null)));
    let transcript = taken["transcript"].as_str().unwrap();
    for line in ["AUTH PLAIN <credentials>", "235 2.7.0 welcome", "RCPT TO:<b@two.test>", "250 2.0.0 taken"] {
        assert!(transcript.contains(line), "{line}: {transcript}");
    }
    assert!(!transcript.contains(&BASE64.encode("\0all\0secret of all")), "{transcript}");
    assert!(dns.asked().is_empty(), "relays need no MX: {:?}", dns.asked());
    assert!(all.is_drained() && shops.is_drained());
    server.stop().await;
}
