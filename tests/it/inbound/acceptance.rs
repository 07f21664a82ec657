//! Acceptance: SPF by the peer's address, the verdict of rspamd, trace fields.

use std::time::{Duration, Instant};

use mailkite::testing::clock::Clock;
use mailkite::testing::config::Config;

use crate::support::dns::DnsServer;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::{Server, message};
use crate::support::smtp::SmtpClient;

/// Starts a server that queries `dns` and accepts the PROXY header from this machine.
async fn server_asking(dns: &DnsServer, adjust: impl FnOnce(&mut Config)) -> Server {
    let address = dns.address;
    Server::start_with(Clock::System, |config| {
        config.dns.servers = vec![address];
        config.smtp.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
        adjust(config);
    })
    .await
}

/// Opens a session from `peer`, by the PROXY protocol.
async fn from_peer(server: &Server, peer: &str) -> SmtpClient {
    let mut client = SmtpClient::open(server.smtp).await;
    client.send(format!("PROXY TCP4 {peer} 198.51.100.1 4711 25\r\n")).await;
    assert_eq!(client.reply().await.code, 220);
    client.expect("EHLO out.example.com", 250).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payload_says_whether_the_sender_is_who_it_says() {
    let dns = DnsServer::start().await;
    dns.txt("example.com", "v=spf1 ip4:192.0.2.7 -all").txt("_dmarc.example.com", "v=DMARC1; p=reject");
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let server = server_asking(&dns, |_| {}).await;
    server.webhook(&receiver.url()).await;
    for (peer, spf, dmarc) in [("192.0.2.7", "pass", "pass"), ("192.0.2.8", "fail", "fail")] {
        let mut client = from_peer(&server, peer).await;
        let forged =
            "Authentication-Results: mx.mailkite.test; spf=pass; dkim=pass; dmarc=pass\r\nReceived: older\r\n";
        let reply = client.mail("ada@example.com", &["a@inbox.test"], format!("{forged}{}", message(peer))).await;
        assert_eq!(reply.code, 250, "a verdict never refuses mail");
        let event = receiver.next_request().await.json();
        let wanted = serde_json::json!({"spf": spf, "dkim": "none", "dmarc": dmarc, "spam": null});
        assert_eq!(event["auth"], wanted, "{peer}");
        let id = event["id"].as_str().unwrap();
        let (_, detail) = server.api(&format!("/api/messages/{id}")).await;
        let headers: serde_json::Value =
            serde_json::from_str(detail["message"]["headers_json"].as_str().unwrap()).unwrap();
        let results = format!(
            "mx.mailkite.test; spf={spf} smtp.mailfrom=ada@example.com; dkim=none; dmarc={dmarc} header.from=example.com"
        );
        assert_eq!(headers["authentication-results"], results, "the trace fields tell it too, and nobody else does");
        let received = headers["received"].as_str().unwrap();
        let ours =
            format!("from out.example.com ([{peer}]) by mx.mailkite.test with ESMTP id {id} for <a@inbox.test>; ");
        assert!(received.starts_with(&ours) && received.ends_with("\nolder"), "{received}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_loopback_peer_nothing_is_asked() {
    let dns = DnsServer::start().await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let server = server_asking(&dns, |config| config.smtp.proxy_protocol_from.clear()).await;
    server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "From here").await;
    let event = receiver.next_request().await.json();
    assert_eq!(event["auth"], serde_json::json!({"spf": null, "dkim": null, "dmarc": null, "spam": null}));
    assert_eq!(dns.asked(), Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_dns_costs_seconds_and_never_the_mail() {
    let dns = DnsServer::start().await;
    dns.silence_all();
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let server = server_asking(&dns, |_| {}).await;
    server.webhook(&receiver.url()).await;
    let mut client = from_peer(&server, "192.0.2.7").await;
    let started = Instant::now();
    let reply = client.mail("ada@example.com", &["a@inbox.test"], message("Silence")).await;
    assert_eq!(reply.code, 250);
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert_eq!(receiver.next_request().await.json()["auth"]["spf"], "temperror");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rspamd_gives_the_spam_verdict_and_its_absence_costs_nothing() {
    let rspamd = Receiver::start(|request| {
        let is_spam = String::from_utf8_lossy(&request.body).contains("pills");
        Reply::status(200).body(if is_spam { r#"{"action":"add header"}"# } else { r#"{"action":"no action"}"# })
    })
    .await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let url = format!("http://{}", rspamd.address());
    let server = Server::start_with(Clock::System, |config| config.spam.rspamd_url = Some(url)).await;
    server.webhook(&receiver.url()).await;
    for (subject, verdict) in [("Cheap pills", "spam"), ("Meeting", "ham")] {
        server.accepted("a@inbox.test", subject).await;
        assert_eq!(receiver.next_request().await.json()["auth"]["spam"], verdict);
    }
    let asked = rspamd.requests();
    assert_eq!((asked[0].path.as_str(), asked[0].header("from")), ("/checkv2", "ada@example.com"));
    assert_eq!(asked[0].header("rcpt"), "a@inbox.test");
    drop(rspamd);
    server.accepted("a@inbox.test", "Nobody judges").await;
    assert_eq!(receiver.next_request().await.json()["auth"]["spam"], serde_json::Value::Null);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn received_at_is_unique_within_an_account() {
    let server = Server::start_with(
        Clock::manual(mailkite::testing::clock::Timestamp::from_millis(1_785_196_800_000)),
        |_| {},
    )
    .await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    for number in 0..20 {
        let reply =
            client.mail("ada@example.com", &["a@inbox.test", "b@inbox.test"], message(&number.to_string())).await;
        assert_eq!(reply.code, 250);
    }
    let times: String =
        server.query("SELECT count(DISTINCT received_at) || ' ' || max(received_at) FROM message").await;
    assert_eq!(times, "40 1785196800039");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_hook_is_stored_in_the_clear() {
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let mut server = Server::start().await;
    let hook = server.webhook(&receiver.url()).await;
    server.accepted("a@inbox.test", "Sealed").await;
    server.next_attempt().await;
    let data_dir = server.data_dir().to_owned();
    let bare = hook.secret.trim_start_matches("whsec_").to_owned();
    for name in ["mailkite.db", "mailkite.db-wal"] {
        let Ok(bytes) = std::fs::read(data_dir.join(name)) else { continue };
        assert!(memchr::memmem::find(&bytes, bare.as_bytes()).is_none(), "{name} holds a signing secret");
    }
    server.stop().await;
}
