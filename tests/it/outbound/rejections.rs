//! Replies seen from hosts in the field, and their effect on the message and the address.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mailkite::testing::clock::Clock;
use mailkite::testing::config::{Smarthost, SmarthostSecurity};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::dns::DnsServer;
use crate::support::outbound::deliver_to_loopback;
use crate::support::remote_host::{HostAction, HostConfig, RemoteHost, self_signed};
use crate::support::server::Server;

async fn send(api: &Api, to: &[String]) {
    let body = json!({"from": "hi@inbox.test", "to": to, "subject": "Hi", "text": "It branches."});
    api.post("/v1/send", body).await.expect(202);
}

async fn suppressed(api: &Api) -> Vec<String> {
    let found = api.get("/api/contacts/suppressions").await.expect(200);
    let mut addresses: Vec<String> = found["suppressions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["email"].as_str().unwrap().to_owned())
        .collect();
    addresses.sort();
    addresses
}

/// Command, reply, true when the message has failed for good, true when the address is suppressed.
const REFUSALS: &[(&str, &str, bool, bool)] = &[
    ("RCPT", "550 No such user here", true, true),
    ("RCPT", "550 5.1.1 no such user", true, true),
    ("RCPT", "550 Requested action not taken: mailbox unavailable", true, true),
    ("RCPT", "554 delivery error: dd This user doesn't have an example.com account", true, true),
    ("RCPT", "550 JunkMail rejected - [192.0.2.1] is in an RBL, see https://rbl.example/192.0.2.1", true, false),
    ("RCPT", "550-Blocked by policy\r\n550 5.7.1 see https://rbl.example/192.0.2.1", true, false),
    ("RCPT", "550 #5.7.1 Your access to this e-mail system has been rejected.", true, false),
    ("RCPT", "550-inconsistent or no DNS PTR record (see RFC\r\n550 1912 2.1)", true, false),
    ("RCPT", "550 5.1.1 <x@y>: blocked using bl.example", true, false),
    ("RCPT", "550 You have exceeded your hourly limit", false, false),
    ("MAIL", "553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)", true, false),
    ("MAIL", "550 5.1.1 no such user", true, false),
    ("DATA", "550 Protocol violation", true, false),
    ("END", "550 This message was classified as SPAM", true, false),
    ("END", "550 5.1.1 no such user", true, false),
];

#[tokio::test(flavor = "multi_thread")]
async fn only_a_mailbox_that_is_gone_is_suppressed() {
    let dns = DnsServer::start().await;
    // Which of them a session is about stands in the address of the host, since MAIL names no recipient.
    let mut remotes: Vec<RemoteHost> = Vec::new();
    for (number, (at, reply, ..)) in REFUSALS.iter().enumerate() {
        let port = remotes.first().map_or(0, |first| first.address.port());
        let address = format!("127.0.0.{}:{port}", number + 1).parse().unwrap();
        let script =
            move |command: &str, _: usize| command.starts_with(at).then(|| HostAction::Send(format!("{reply}\r\n")));
        remotes.push(RemoteHost::at(address, HostConfig { script: Arc::new(script), ..HostConfig::default() }).await);
        dns.mx(&format!("r{number}.test"), 10, &format!("mx.r{number}.test"));
        dns.address(&format!("mx.r{number}.test"), &format!("127.0.0.{}", number + 1));
    }
    let port = remotes[0].address.port();
    let server = Server::start_with(Clock::System, |config| deliver_to_loopback(config, &dns, port)).await;
    let owner = server.owner().await;
    for number in 0..REFUSALS.len() {
        send(&owner, &[format!("x@r{number}.test")]).await;
    }
    let count = |wanted: bool| REFUSALS.iter().filter(|(_, _, over, _)| *over == wanted).count();
    server
        .until("SELECT count(*) FROM recipient WHERE status = 'bounced'", i64::try_from(count(true)).unwrap())
        .await;
    server
        .until("SELECT count(*) FROM recipient WHERE status = 'deferred'", i64::try_from(count(false)).unwrap())
        .await;
    let gone = REFUSALS.iter().enumerate().filter(|(_, (.., gone))| *gone);
    let mut wanted: Vec<String> = gone.map(|(number, _)| format!("x@r{number}.test")).collect();
    wanted.sort();
    assert_eq!(suppressed(&owner).await, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refusal_of_the_sender_suppresses_no_recipient() {
    let dns = DnsServer::start().await;
    let remote = RemoteHost::scripted(|command, _| {
        command.starts_with("MAIL").then(|| HostAction::Send("550 Access denied - your IP is listed\r\n".to_owned()))
    })
    .await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    let server =
        Server::start_with(Clock::System, |config| deliver_to_loopback(config, &dns, remote.address.port())).await;
    let owner = server.owner().await;
    let ten: Vec<String> = (0..10).map(|number| format!("u{number}@remote.test")).collect();
    send(&owner, &ten).await;
    server.until("SELECT count(*) FROM recipient WHERE status = 'bounced'", 10_i64).await;
    assert_eq!(suppressed(&owner).await, Vec::<String>::new());
    send(&owner, &ten).await;
    server.until("SELECT count(*) FROM recipient WHERE status = 'bounced'", 20_i64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smarthost_has_to_say_by_its_code_that_a_mailbox_is_gone() {
    let remote = RemoteHost::scripted(|command, _| {
        let text = match command {
            "RCPT TO:<coded@remote.test>" => "550 5.1.1 no such user",
            "RCPT TO:<worded@remote.test>" => "550 no such user",
            "RCPT TO:<limited@remote.test>" => "550 You have exceeded your 24-hour sending limit.",
            _ => return None,
        };
        Some(HostAction::Send(format!("{text}\r\n")))
    })
    .await;
    let relay = Smarthost {
        host: "127.0.0.1".to_owned(),
        port: remote.address.port(),
        security: SmarthostSecurity::None,
        username: None,
        password: None,
        fallback: false,
    };
    let server = Server::start_with(Clock::System, |config| config.outbound.smarthost = Some(Arc::new(relay))).await;
    let owner = server.owner().await;
    for name in ["coded", "worded", "limited"] {
        send(&owner, &[format!("{name}@remote.test")]).await;
    }
    server.until("SELECT count(*) FROM recipient WHERE status = 'bounced'", 2_i64).await;
    server.until("SELECT count(*) FROM recipient WHERE status = 'deferred'", 1_i64).await;
    assert_eq!(suppressed(&owner).await, ["coded@remote.test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_wants_the_tls_that_failed_gets_the_mail_later() {
    // How TLS fails at the first connection, and how many it takes: in the first case one more, in plain text.
    let failed = ("220 go", 3);
    for (trouble, connections, reply) in [
        (failed.0, failed.1, "530 5.7.0 Must issue a STARTTLS command first"),
        (failed.0, failed.1, "554 5.7.0 TLS required"),
        (failed.0, failed.1, "550 5.7.10 Encryption needed"),
        ("454 4.7.0 TLS not available due to temporary reason", 2, "530 5.7.0 Must issue a STARTTLS command first"),
        ("502 5.5.1 not now", 2, "554 5.7.1 not like this"),
        // Not offered at all.
        ("", 2, "554 5.7.1 TLS is required"),
    ] {
        let dns = DnsServer::start().await;
        let encrypted = Arc::new(AtomicUsize::new(0));
        let upgraded = Arc::clone(&encrypted);
        // Its first STARTTLS fails; whoever goes on in plain text is refused.
        let script = move |command: &str, connection: usize| match command {
            "STARTTLS" if connection == 1 && trouble.starts_with("220") => {
                Some(HostAction::SendAndClose(format!("{trouble}\r\n")))
            }
            "STARTTLS" if connection == 1 => Some(HostAction::Send(format!("{trouble}\r\n"))),
            "STARTTLS" => {
                upgraded.store(connection, Ordering::SeqCst);
                None
            }
            _ if connection == 1 && trouble.is_empty() && command.starts_with("EHLO") => {
                Some(HostAction::Send("250 mx.remote.test\r\n".to_owned()))
            }
            _ => {
                let refused = ["MAIL", "RCPT", "DATA"].iter().any(|verb| command.starts_with(verb));
                let is_plain = upgraded.load(Ordering::SeqCst) != connection;
                (refused && is_plain).then(|| HostAction::Send(format!("{reply}\r\n")))
            }
        };
        let (acceptor, _) = self_signed("mx.remote.test");
        let extensions = vec!["PIPELINING"];
        let manner =
            HostConfig { extensions, tls: Some(acceptor), script: Arc::new(script), ..HostConfig::default() };
        let mut remote = RemoteHost::with(manner).await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        let server = Server::start_with(Clock::System, |config| {
            deliver_to_loopback(config, &dns, remote.address.port());
            config.outbound.retry = vec![std::time::Duration::from_millis(10)];
        })
        .await;
        let owner = server.owner().await;
        send(&owner, &["x@remote.test".to_owned()]).await;
        assert!(remote.next_mail().await.tls, "{trouble}: {reply}");
        assert_eq!(remote.connections(), connections, "{trouble}: {reply}");
        server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 1_i64).await;
        assert_eq!(suppressed(&owner).await, Vec::<String>::new());
        let listed: Value = owner.get("/api/messages?direction=outbound").await.expect(200);
        assert_eq!(listed[0]["send_status"], "sent");
    }
}
