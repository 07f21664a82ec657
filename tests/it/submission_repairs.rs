//! What a mail program hands in and no host would take arrives repaired, and signed as it is sent (contract 8.6); fields of
//! API callers arrive in the syntax of each (contract 8.1).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::clock::{Clock, Timestamp};
use mailkite::dns::Resolver;
use mailkite::inbound::verify::Verifier;
use mailkite::mail::envelope::Peer;
use mailkite::mail::mime;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::dns::DnsServer;
use crate::support::remote::{Manner, Remote};
use crate::support::server::Server;
use crate::support::smtp::SmtpClient;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

/// A server with a submission door whose mail goes to a host that takes 7 bits alone.
struct Post {
    server: Server,
    remote: Remote,
    owner: Api,
    verifier: Verifier,
    dns: DnsServer,
}

impl Post {
    async fn start() -> Self {
        let dns = DnsServer::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        let remote = Remote::with(Manner { extensions: vec!["PIPELINING"], ..Manner::default() }).await;
        let (servers, port) = (vec![dns.address], remote.address.port());
        let server = Server::start_with(Clock::manual(NOW), |config| {
            config.submission.listen = vec!["127.0.0.1:0".parse().unwrap()];
            config.dns.servers = servers;
            config.outbound.smarthost = None;
            config.outbound.port = port;
            config.outbound.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .await;
        let owner = server.owner().await;
        let resolver = Resolver::new(&[dns.address]).unwrap();
        let verifier = Verifier::new(resolver, "mx.b.test".into(), Duration::from_secs(10));
        Self { server, remote, owner, verifier, dns }
    }

    async fn session(&self) -> SmtpClient {
        let mut client = SmtpClient::connect(self.server.submission[0]).await;
        client.expect("EHLO client.test", 250).await;
        let mut client = client.starttls().await;
        client.expect("EHLO client.test", 250).await;
        let key = self.owner.credential.clone().unwrap();
        client.expect(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0me\0{key}"))), 235).await;
        client
    }

    /// A message as the remote host got it, after its signature and form were looked at.
    async fn received(&mut self) -> String {
        let data = self.remote.taken().await.data();
        let key: String = self
            .server
            .query(
                "SELECT public_key FROM dkim_key JOIN domain ON domain.id = domain_id \
                    WHERE domain.name = 'inbox.test' AND algorithm = 'rsa'",
            )
            .await;
        let record = format!("v=DKIM1; k=rsa; p={key}");
        let strings: Vec<&str> = record.as_bytes().chunks(255).map(|s| std::str::from_utf8(s).unwrap()).collect();
        self.dns.strings("mailkite._domainkey.inbox.test", &strings);
        let peer = Peer { address: "192.0.2.7".parse().unwrap(), helo: "mx.test".into(), esmtp: true, tls: None };
        let found = self.verifier.verify(&peer, "", &data, &mime::parse(&data)).await;
        assert!(found.authentication_results.contains("dkim=pass"), "{}", found.authentication_results);
        let text = String::from_utf8(data).unwrap();
        assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 998), "{text}");
        text
    }

    async fn handed_in(&mut self, mail: impl AsRef<[u8]>) -> String {
        let reply = self.session().await.mail("hi@inbox.test", &["ada@remote.test"], mail).await;
        assert_eq!(reply.code, 250, "{}", reply.text());
        self.received().await
    }

    async fn sent(&mut self, fields: Value) -> String {
        let mut body = json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "s", "text": "x"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.owner.post("/v1/send", body).await.expect(202);
        self.received().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_in_beyond_ascii_or_too_long_is_repaired_and_signed() {
    let mut post = Post::start().await;
    let latin = b"From: J\xf6rg <hi@inbox.test>\r\nTo: ada@remote.test\r\nSubject: Gr\xfc\xdfe\r\n\r\nhi\r\n";
    let mail = mime::parse(post.handed_in(latin).await.as_bytes());
    assert_eq!((mail.subject.as_deref(), mail.header_from[0].name.as_deref()), (Some("Grüße"), Some("Jörg")));
    let many: Vec<String> = (0..90).map(|number| format!("user{number}@remote.test")).collect();
    let line = "x".repeat(1_200);
    let mail = format!("From: hi@inbox.test\r\nTo: {}\r\nSubject: s\r\n\r\n{line}\r\n", many.join(","));
    let mail = mime::parse(post.handed_in(mail).await.as_bytes());
    assert_eq!((mail.to_names.len(), mail.text.unwrap().trim_end()), (90, line.as_str()));
    let file = "From: hi@inbox.test\r\nTo: Jörg <ada@remote.test>\r\nMessage-ID: nonsense\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nkept\r\n--b\r\nContent-Type: application/pdf\r\n\
        Content-Disposition: attachment; filename=\"Größe.pdf\"\r\n\r\nx\r\n--b--\r\n";
    let text = post.handed_in(file).await;
    let mail = mime::parse(text.as_bytes());
    assert_eq!(mail.attachments[0].filename.as_deref(), Some("Größe.pdf"));
    assert!(text.contains("--b\r\n\r\nkept\r\n--b\r\n") && !text.contains("nonsense"), "{text}");
    let sealed = format!(
        "From: hi@inbox.test\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n{line}\r\n--b--\r\n"
    );
    let reply = post.session().await.mail("hi@inbox.test", &["ada@remote.test"], sealed).await;
    assert_eq!(
        reply.text(),
        "554 5.6.3 A signed or encrypted part has a line of over 998 octets, and must not be changed"
    );
    post.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_callers_are_written_in_the_syntax_of_each() {
    let mut post = Post::start().await;
    for (name, value, wanted) in [
        ("List-Unsubscribe", "<https://a.test/ü?t=?abc>", "<https://a.test/%C3%BC?t=?abc>"),
        ("Disposition-Notification-To", "leser@bücher.example", "<leser@xn--bcher-kva.example>"),
        ("Reply-To", "\"Jörg, M.\" <j@remote.test>", "=?utf-8?B?SsO2cmcsIE0u?= <j@remote.test>"),
    ] {
        let text = post.sent(json!({"headers": {name: value}})).await;
        assert!(text.contains(&format!("\r\n{name}: {wanted}\r\n")), "{text}");
    }
    for (name, value) in [("List-Unsubscribe", "click here"), ("Reply-To", "nobody"), ("Importance", "höchste")] {
        let body = json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "s", "text": "x",
            "headers": {name: value}});
        assert_eq!(post.owner.post("/v1/send", body).await.expect(400)["code"], "bad_header", "{name}");
    }
    post.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_its_name_for_old_readers_and_the_type_that_its_name_suggests() {
    let mut post = Post::start().await;
    for (name, kind) in [
        ("a.pdf", "application/pdf"),
        ("Größe 基础.pdf", "application/pdf"),
        ("Rechnung für Müller & Söhne GmbH vom März.pdf", "application/pdf"),
        ("очень длинное имя файла для проверки.pdf", "application/pdf"),
        ("setup.exe", "application/octet-stream"),
        ("nothing", "application/octet-stream"),
    ] {
        let text = post.sent(json!({"attachments": [{"filename": name, "content": "eA=="}]})).await;
        let mail = mime::parse(text.as_bytes());
        let part = &mail.attachments[0];
        assert_eq!((part.filename.as_deref(), part.content_type.as_deref()), (Some(name), Some(kind)));
        assert_eq!(text.contains("name=\"=?utf-8?B?") && text.contains("filename*"), !name.is_ascii(), "{text}");
        assert!(!text.contains(" name*"), "{text}");
    }
    for (name, kept) in [("../..\\C:\\a/Größe.pdf", "Größe.pdf"), ("/etc/a.pdf", "a.pdf"), ("..", "file")] {
        let text = post.sent(json!({"attachments": [{"filename": name, "content": "eA=="}]})).await;
        assert_eq!(mime::parse(text.as_bytes()).attachments[0].filename.as_deref(), Some(kept));
        assert!(!text.contains("C:"), "{text}");
    }
    let text = post.sent(json!({"from": "\"=?utf-8?q?x?=\" <hi@inbox.test>"})).await;
    assert_eq!(mime::parse(text.as_bytes()).header_from[0].name.as_deref(), Some("=?utf-8?q?x?="));
    post.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_international_address_is_in_nobody_elses_way() {
    let mut post = Post::start().await;
    let text = post
        .sent(json!({"cc": ["Jörg <jörg@remote.test>", "Bob <bob@remote.test>"], "replyTo": "ö@inbox.test"}))
        .await;
    let mail = mime::parse(text.as_bytes());
    assert_eq!(mail.cc_names.iter().map(|one| one.address.as_str()).collect::<Vec<_>>(), ["bob@remote.test"]);
    let cc = mime::field_values(text.as_bytes(), "Cc").concat();
    assert!(cc.contains("Jörg jörg@remote.test:;"), "{cc}");
    assert!(mime::field_values(text.as_bytes(), "Reply-To").concat().contains("ö@inbox.test:;"), "{text}");
    // Bob's copy is the same; the host knows no address such as the third.
    assert_eq!(mime::field_values(post.received().await.as_bytes(), "Cc").concat(), cc);
    let told = "SELECT count(*) FROM recipient WHERE status = 'bounced' AND diagnostic LIKE '5.6.7 %'";
    post.server.until(told, 1_i64).await;
    post.server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 2_i64).await;
    let mail = "From: hi@inbox.test\r\nTo: ada@remote.test, jörg@remote.test\r\nSubject: s\r\n\r\nhi\r\n";
    let text = post.handed_in(mail).await;
    assert!(mime::field_values(text.as_bytes(), "To").concat().contains("jörg@remote.test:;"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_with_an_international_address_stays_or_the_message_does_not_leave() {
    let mut post = Post::start().await;
    let told = "SELECT count(*) FROM recipient WHERE status = 'bounced' AND diagnostic LIKE '5.6.7 %'";
    for (count, fields) in
        [(1, json!({"from": "Jörg <jörg@inbox.test>"})), (2, json!({"headers": {"Sender": "jörg@inbox.test"}}))]
    {
        let mut body = json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "s", "text": "x"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        post.owner.post("/v1/send", body).await.expect(202);
        post.server.until(told, count).await;
    }
    let mail = "From: jörg@inbox.test\r\nTo: ada@remote.test\r\nSubject: s\r\n\r\nhi\r\n";
    assert_eq!(post.session().await.mail("hi@inbox.test", &["ada@remote.test"], mail).await.code, 250);
    post.server.until(told, 3_i64).await;
    // A name is no address.
    let text = post.sent(json!({"from": "Jörg <hi@inbox.test>"})).await;
    assert_eq!(mime::parse(text.as_bytes()).header_from[0].address, "hi@inbox.test");
    assert_eq!(post.server.query::<i64>("SELECT count(*) FROM suppression").await, 0);
}
