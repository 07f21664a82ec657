//! Who handed a message in is told by mail what of it could not be delivered (contract 8.6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::clock::Clock;
use mailkite::mail::mime;
use mailkite::mail::report::{self, Report};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::dns::DnsServer;
use crate::support::remote::{Act, Remote};
use crate::support::server::Server;
use crate::support::smtp::SmtpClient;

struct Post {
    server: Server,
    remote: Remote,
    owner: Api,
    _dns: DnsServer,
}

impl Post {
    /// A server whose mail for remote.test goes to a host that knows no `gone`.
    async fn start() -> Self {
        let dns = DnsServer::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        let remote = Remote::scripted(|command, _| {
            let is_gone = command.starts_with("RCPT TO:<gone");
            is_gone.then(|| Act::Say("550 5.1.1 no such user\r\n".to_owned()))
        })
        .await;
        let (servers, port) = (vec![dns.address], remote.address.port());
        let server = Server::start_with(Clock::System, |config| {
            config.submission.listen = vec!["127.0.0.1:0".parse().unwrap()];
            config.dns.servers = servers;
            config.outbound.smarthost = None;
            config.outbound.port = port;
            config.outbound.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .await;
        let owner = server.owner().await;
        Self { server, remote, owner, _dns: dns }
    }

    async fn hand_in(&self, reverse_path: &str, to: &[&str], mail: &str) {
        let mut client = SmtpClient::connect(self.server.submission[0]).await;
        client.expect("EHLO client.test", 250).await;
        let mut client = client.starttls().await;
        client.expect("EHLO client.test", 250).await;
        let key = self.owner.credential.clone().unwrap();
        client.expect(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0me\0{key}"))), 235).await;
        let reply = client.mail(reverse_path, to, mail).await;
        assert_eq!(reply.code, 250, "{}", reply.text());
    }

    async fn inbound(&self) -> Vec<Value> {
        let listed = self.owner.get("/api/messages?direction=inbound").await.expect(200);
        listed.as_array().unwrap().clone()
    }
}

const MAIL: &str = "From: hi@inbox.test\r\nTo: gone@remote.test, ada@remote.test\r\nSubject: Engine\r\n\
    Message-ID: <own.1@inbox.test>\r\n\r\nDoes it branch?\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_reported_once_to_who_handed_the_message_in() {
    let mut post = Post::start().await;
    post.hand_in("hi@inbox.test", &["gone@remote.test", "ada@remote.test"], MAIL).await;
    post.remote.taken().await;
    post.server.until("SELECT count(*) FROM message WHERE direction = 'inbound'", 1_i64).await;
    let reports = post.inbound().await;
    let id = reports[0]["id"].as_str().unwrap();
    let shown = post.owner.get(&format!("/api/messages/{id}")).await.expect(200);
    assert_eq!((&shown["message"]["mail_from"], &shown["message"]["to_addr"]), (&json!(""), &json!("hi@inbox.test")));
    let raw = post.owner.get(&format!("/api/messages/{id}/raw")).await.body;
    let mail = mime::parse(&raw);
    assert!(mail.auto_submitted && mail.header_from[0].address.starts_with("MAILER-DAEMON@"), "{mail:?}");
    let Some(Report::Delivery(statuses)) = report::read(&raw) else { panic!("{}", String::from_utf8_lossy(&raw)) };
    assert_eq!(statuses.len(), 1, "{statuses:?}");
    assert_eq!(statuses[0].recipient.as_deref(), Some("gone@remote.test"));
    assert_eq!((statuses[0].status.as_deref(), statuses[0].code), (Some("5.1.1"), Some(550)));
    let text = String::from_utf8(raw).unwrap();
    assert!(
        text.contains("Content-Type: text/rfc822-headers\r\n\r\n") && text.contains("<own.1@inbox.test>"),
        "{text}"
    );
    assert!(!text.contains("Does it branch?"), "{text}");
    post.server.until("SELECT count(*) FROM job WHERE kind = 'dispatch'", 0_i64).await;
    assert_eq!(post.inbound().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_a_report() {
    let post = Post::start().await;
    // The null reverse-path wants none; the API's callers have webhooks; another's address is not written to.
    post.hand_in("", &["gone@remote.test"], &MAIL.replace("own.1", "own.2")).await;
    let body = json!({"from": "hi@inbox.test", "to": "gone2@remote.test", "subject": "s", "text": "x"});
    post.owner.post("/v1/send", body).await.expect(202);
    post.server.until("SELECT count(*) FROM recipient WHERE status = 'bounced'", 2_i64).await;
    post.hand_in("victim@elsewhere.test", &["gone3@remote.test"], &MAIL.replace("own.1", "own.3")).await;
    post.server.until("SELECT count(*) FROM message WHERE direction = 'inbound'", 1_i64).await;
    let told = post.inbound().await;
    assert_eq!(told[0]["to"], json!([{"address": "hi@inbox.test"}]), "the author, whose domain it is");
    post.server.until("SELECT count(*) FROM job WHERE kind = 'dispatch'", 0_i64).await;
    assert_eq!(post.inbound().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_later_is_reported_too() {
    let mut post = Post::start().await;
    post.hand_in("hi@inbox.test", &["ada@remote.test"], MAIL).await;
    let bounce = post.remote.taken().await.sender();
    post.server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 1_i64).await;
    let returned = format!(
        "From: MAILER-DAEMON@mx.remote.test\r\nTo: {bounce}\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.remote.test\r\n\r\n\
         Final-Recipient: rfc822; ada@remote.test\r\nAction: failed\r\nStatus: 5.2.2\r\n\r\n--b--\r\n"
    );
    for _ in 0..2 {
        let reply = SmtpClient::greeted(post.server.smtp).await.mail("", &[&bounce], &returned).await;
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    post.server.until("SELECT count(*) FROM message WHERE direction = 'inbound'", 1_i64).await;
    let id = post.inbound().await[0]["id"].as_str().unwrap().to_owned();
    let raw = post.owner.get(&format!("/api/messages/{id}/raw")).await.body;
    let Some(Report::Delivery(statuses)) = report::read(&raw) else { panic!("{}", String::from_utf8_lossy(&raw)) };
    assert_eq!(statuses[0].status.as_deref(), Some("5.2.2"));
    post.server.until("SELECT count(*) FROM job WHERE kind = 'dispatch'", 0_i64).await;
    assert_eq!(post.inbound().await.len(), 1);
}
