//! Submitted mail that no host would accept is repaired, then signed as it is sent (contract 8.6); fields of API
//! callers are written in the syntax of each (contract 8.1).

use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::inbound::verify::Verifier;
use mailkite::testing::mail::envelope::Peer;
use mailkite::testing::mail::mime;
use mailkite::testing::net::dns::Resolver;
use serde_json::{Value, json};

use crate::support::remote_host::{HostConfig, RemoteHost};
use crate::support::sending_server::SendingServer;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

/// A server whose mail goes to a host without 8BITMIME.
async fn start() -> SendingServer {
    with_extensions(vec!["PIPELINING"]).await
}

async fn with_extensions(extensions: Vec<&'static str>) -> SendingServer {
    SendingServer::start(
        Clock::manual(NOW),
        RemoteHost::with(HostConfig { extensions, ..HostConfig::default() }).await,
    )
    .await
}

impl SendingServer {
    /// The next message of the remote host, with its signature verified.
    async fn arrived(&mut self) -> Vec<u8> {
        let data = self.remote.next_mail().await.data();
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
        let resolver = Resolver::new(&[self.dns.address]).unwrap();
        let verifier = Verifier::new(resolver, "mx.b.test".into(), Duration::from_secs(10));
        let found = verifier.verify(&peer, "", &data, &mime::parse(&data)).await;
        assert!(found.authentication_results.contains("dkim=pass"), "{}", found.authentication_results);
        data
    }

    /// As [`Self::arrived`], and in a form that every host accepts.
    async fn received(&mut self) -> String {
        let text = String::from_utf8(self.arrived().await).unwrap();
        assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 998), "{text}");
        text
    }

    async fn handed_in(&mut self, mail: impl AsRef<[u8]>) -> String {
        self.submit("hi@inbox.test", &["ada@remote.test"], mail).await;
        self.received().await
    }

    async fn sent_by_api(&mut self, fields: Value) -> String {
        let mut body = json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "s", "text": "x"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.owner.post("/v1/send", body).await.expect(202);
        self.received().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_in_beyond_ascii_or_too_long_is_repaired_and_signed() {
    let mut setup = start().await;
    let latin = b"From: J\xf6rg <hi@inbox.test>\r\nTo: ada@remote.test\r\nSubject: Gr\xfc\xdfe\r\n\r\nhi\r\n";
    let mail = mime::parse(setup.handed_in(latin).await.as_bytes());
    assert_eq!((mail.subject.as_deref(), mail.header_from[0].name.as_deref()), (Some("Grüße"), Some("Jörg")));
    let many: Vec<String> = (0..90).map(|number| format!("user{number}@remote.test")).collect();
    let line = "x".repeat(1_200);
    let mail = format!("From: hi@inbox.test\r\nTo: {}\r\nSubject: s\r\n\r\n{line}\r\n", many.join(","));
    let mail = mime::parse(setup.handed_in(mail).await.as_bytes());
    assert_eq!((mail.header_to.len(), mail.text.unwrap().trim_end()), (90, line.as_str()));
    // It said nothing of its form, which has to be said now.
    let text = setup.handed_in("From: hi@inbox.test\r\nTo: ada@remote.test\r\nSubject: s\r\n\r\nhü\r\n").await;
    assert_eq!(mime::field_values(text.as_bytes(), "MIME-Version"), ["1.0"]);
    assert_eq!(mime::field_values(text.as_bytes(), "Content-Type"), ["text/plain; charset=utf-8"]);
    let file = "From: hi@inbox.test\r\nTo: Jörg <ada@remote.test>\r\nMessage-ID: nonsense\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nkept\r\n--b\r\nContent-Type: application/pdf\r\n\
        Content-Disposition: attachment; filename=\"Größe.pdf\"\r\n\r\nx\r\n--b--\r\n";
    let text = setup.handed_in(file).await;
    let mail = mime::parse(text.as_bytes());
    assert_eq!(mail.attachments[0].filename.as_deref(), Some("Größe.pdf"));
    assert!(text.contains("--b\r\n\r\nkept\r\n--b\r\n") && !text.contains("nonsense"), "{text}");
    let sealed = format!(
        "From: hi@inbox.test\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n{line}\r\n--b--\r\n"
    );
    let reply = setup.submission_session().await.mail("hi@inbox.test", &["ada@remote.test"], sealed).await;
    assert_eq!(
        reply.text(),
        "554 5.6.3 A signed or encrypted part has a line of over 998 octets, and must not be changed"
    );
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_stays_at_any_depth_and_all_around_it_is_repaired() {
    let mut setup = with_extensions(vec!["8BITMIME"]).await;
    let line = "x".repeat(1_500);
    let sealed = "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n--s\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--s--\r\n";
    let mail = format!(
        "From: hi@inbox.test\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         --b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nSchöne Grüße\r\n\
         --b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: inside\r\n{sealed}\r\n\
         --b\r\nContent-Type: text/html\r\nContent-Disposition: inline; filename=\"Größe.html\"\r\n\r\n{line}\r\n--b--\r\n"
    );
    setup.submit("hi@inbox.test", &["ada@remote.test"], &mail).await;
    let text = String::from_utf8(setup.arrived().await).unwrap();
    assert!(
        text.contains(&format!("Content-Transfer-Encoding: 8bit\r\n\r\nSubject: inside\r\n{sealed}\r\n--b\r\n")),
        "{text}"
    );
    assert!(text.contains("boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n"), "{text}");
    assert!(text.contains("base64\r\n\r\nU2Now7ZuZSBHcsO8w59l\r\n--b\r\n"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 998) && !text.contains("Größe.html"), "{text}");
    assert_eq!(mime::parse(text.as_bytes()).attachments.len(), mime::parse(mail.as_bytes()).attachments.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_cannot_be_changed_keeps_nothing_else_from_being_repaired() {
    let mut setup = with_extensions(vec!["8BITMIME"]).await;
    let line = "x".repeat(1_500);
    let html = |name: &str| format!("--b\r\nContent-Type: text/html\r\n\r\n<p>{name}</p>{line}\r\n");
    let p7m = "--b\r\nContent-Type: application/pkcs7-mime; name=old.p7m\r\nContent-Transfer-Encoding: base64\r\n\r\nTUlNRQ==\r\n";
    let uu = "--b\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 Größe.txt\r\n#0V%T\r\n`\r\nend\r\n";
    let head = "From: hi@inbox.test\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n";
    for kept in [p7m, uu] {
        let mail = format!("{head}{}{kept}{}--b--\r\n", html("before"), html("behind"));
        setup.submit("hi@inbox.test", &["ada@remote.test"], &mail).await;
        let text = String::from_utf8(setup.arrived().await).unwrap();
        assert!(text.contains(kept) && text.lines().all(|line| line.len() <= 998), "{text}");
        let (before, after) = (mime::parse(mail.as_bytes()), mime::parse(text.as_bytes()));
        assert_eq!((after.html, after.attachments.len()), (before.html, before.attachments.len()));
    }
    let refused = format!(
        "{head}--b\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 x\r\n{line}\r\nend\r\n--b--\r\n"
    );
    let reply = setup.submission_session().await.mail("hi@inbox.test", &["ada@remote.test"], refused).await;
    assert!(reply.text().starts_with("554 5.6.0 "), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_fields_become_what_readers_take_them_for() {
    let mut setup = start().await;
    let text = |charset: &str| format!("--b\r\nContent-Type: text/plain; {charset}\r\n\r\nx\r\n");
    let meta = "--b\r\nContent-Type: text/html\r\n\r\n<meta charset=koi8-r><p>\\xf0\r\n";
    for (subject, parts, wanted) in [
        ("Grüße \\xfc".to_owned(), text("charset=utf-8"), "Grüße ü"),
        ("\\xf0\\xd2\\xc9".to_owned(), text("charset=utf-8") + &text("charset=koi8-r"), "При"),
        ("\\xf0\\xd2\\xc9".to_owned(), text("koi8-r"), "При"),
        ("\\xf0\\xd2\\xc9".to_owned(), meta.to_owned(), "При"),
    ] {
        let mail = format!(
            "From: hi@inbox.test\r\nSubject: {subject}\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n"
        );
        let octets = octets(&mail);
        let read = mime::parse(&octets).subject;
        assert_eq!(read.as_deref(), Some(wanted), "the reader's own");
        assert_eq!(mime::parse(setup.handed_in(octets).await.as_bytes()).subject, read);
    }
}

/// Decodes `\xNN`.
fn octets(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut octets = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        octets.push(u8::from_str_radix(&part[..2], 16).unwrap());
        octets.extend(&part.as_bytes()[2..]);
    }
    octets
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_senders_are_written_by_one_rule() {
    let mut setup = start().await;
    let mail = |fields: &str| format!("From: hi@inbox.test\r\n{fields}\r\n\r\nhi\r\n");
    for (id, is_kept) in
        [("<a@b@c.test>", false), ("<@c.test>", false), ("<a.1@c.test>", true), ("<a:1@[192.0.2.1]>", true)]
    {
        let text = setup.handed_in(mail(&format!("Message-ID: {id}"))).await;
        assert_eq!(text.contains(&format!("\r\nMessage-ID: {id}\r\n")), is_kept, "{text}");
        let text = setup.sent_by_api(json!({"headers": {"Message-ID": id}})).await;
        assert_eq!(text.contains(&format!("\r\nMessage-ID: {id}\r\n")), is_kept, "{text}");
    }
    let text = setup.handed_in(mail("Sender: =?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?= <hi@inbox.test>")).await;
    assert_eq!(mime::field_values(text.as_bytes(), "Sender"), ["=?utf-8?q?x?= <hi@inbox.test>"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_callers_are_written_in_the_syntax_of_each() {
    let mut setup = start().await;
    for (name, value, wanted) in [
        ("List-Unsubscribe", "<https://a.test/ü?t=?abc>", "<https://a.test/%C3%BC?t=?abc>"),
        ("Disposition-Notification-To", "leser@bücher.example", "<leser@xn--bcher-kva.example>"),
        ("Reply-To", "\"Jörg, M.\" <j@remote.test>", "=?utf-8?B?SsO2cmcsIE0u?= <j@remote.test>"),
    ] {
        let text = setup.sent_by_api(json!({"headers": {name: value}})).await;
        assert!(text.contains(&format!("\r\n{name}: {wanted}\r\n")), "{text}");
    }
    for (name, value) in [
        ("List-Unsubscribe", "click here"),
        ("Reply-To", "nobody"),
        ("Importance", "höchste"),
        ("References", "<a@b> garbage"),
    ] {
        let body = json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "s", "text": "x",
            "headers": {name: value}});
        assert_eq!(setup.owner.post("/v1/send", body).await.expect(400)["code"], "bad_header", "{name}");
    }
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_its_name_for_old_readers_and_the_type_that_its_name_suggests() {
    let mut setup = start().await;
    for (name, kind) in [
        ("a.pdf", "application/pdf"),
        ("Größe 基础.pdf", "application/pdf"),
        ("Rechnung für Müller & Söhne GmbH vom März.pdf", "application/pdf"),
        ("очень длинное имя файла для проверки.pdf", "application/pdf"),
        ("setup.exe", "application/octet-stream"),
        ("tool.jar", "application/octet-stream"),
        ("app.apk", "application/octet-stream"),
        ("a.VBS", "application/octet-stream"),
        ("a.hta", "application/octet-stream"),
        ("a.lnk", "application/octet-stream"),
        ("a.cmd", "application/octet-stream"),
        ("a.py", "application/octet-stream"),
        ("a.txt.scr", "application/octet-stream"),
        ("notes.md", "text/markdown"),
        ("nothing", "application/octet-stream"),
    ] {
        let text = setup.sent_by_api(json!({"attachments": [{"filename": name, "content": "eA=="}]})).await;
        let mail = mime::parse(text.as_bytes());
        let part = &mail.attachments[0];
        assert_eq!((part.filename.as_deref(), part.content_type.as_deref()), (Some(name), Some(kind)));
        assert_eq!(text.contains("name=\"=?utf-8?B?") && text.contains("filename*"), !name.is_ascii(), "{text}");
        assert!(!text.contains(" name*"), "{text}");
    }
    for (name, kept) in [("../..\\C:\\a/Größe.pdf", "Größe.pdf"), ("/etc/a.pdf", "a.pdf"), ("..", "file")] {
        let text = setup.sent_by_api(json!({"attachments": [{"filename": name, "content": "eA=="}]})).await;
        assert_eq!(mime::parse(text.as_bytes()).attachments[0].filename.as_deref(), Some(kept));
        assert!(!text.contains("C:"), "{text}");
    }
    let text = setup.sent_by_api(json!({"from": "\"=?utf-8?q?x?=\" <hi@inbox.test>"})).await;
    assert_eq!(mime::parse(text.as_bytes()).header_from[0].name.as_deref(), Some("=?utf-8?q?x?="));
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_international_address_is_in_nobody_elses_way() {
    let mut setup = start().await;
    let text = setup
        .sent_by_api(json!({"cc": ["Jörg <jörg@remote.test>", "Bob <bob@remote.test>"], "replyTo": "ö@inbox.test"}))
        .await;
    let mail = mime::parse(text.as_bytes());
    assert_eq!(mail.header_cc.iter().map(|one| one.address.as_str()).collect::<Vec<_>>(), ["bob@remote.test"]);
    let cc = mime::field_values(text.as_bytes(), "Cc").concat();
    assert!(cc.contains("Jörg jörg@remote.test:;"), "{cc}");
    assert!(mime::field_values(text.as_bytes(), "Reply-To").concat().contains("ö@inbox.test:;"), "{text}");
    // Bob's copy is the same; the host knows no address such as the third.
    assert_eq!(mime::field_values(setup.received().await.as_bytes(), "Cc").concat(), cc);
    let bounces = "SELECT count(*) FROM recipient WHERE status = 'bounced' AND diagnostic LIKE '5.6.7 %'";
    setup.server.until(bounces, 1_i64).await;
    setup.server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 2_i64).await;
    let mail = "From: hi@inbox.test\r\nTo: ada@remote.test, jörg@remote.test\r\nSubject: s\r\n\r\nhi\r\n";
    let text = setup.handed_in(mail).await;
    assert!(mime::field_values(text.as_bytes(), "To").concat().contains("jörg@remote.test:;"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_with_an_international_address_stays_or_the_message_does_not_leave() {
    let mut setup = start().await;
    let bounces = "SELECT count(*) FROM recipient WHERE status = 'bounced' AND diagnostic LIKE '5.6.7 %'";
    for (count, fields) in
        [(1, json!({"from": "Jörg <jörg@inbox.test>"})), (2, json!({"headers": {"Sender": "jörg@inbox.test"}}))]
    {
        let mut body = json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "s", "text": "x"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        setup.owner.post("/v1/send", body).await.expect(202);
        setup.server.until(bounces, count).await;
    }
    let mail = "From: jörg@inbox.test\r\nTo: ada@remote.test\r\nSubject: s\r\n\r\nhi\r\n";
    assert_eq!(setup.submission_session().await.mail("hi@inbox.test", &["ada@remote.test"], mail).await.code, 250);
    setup.server.until(bounces, 3_i64).await;
    // A name is no address.
    let text = setup.sent_by_api(json!({"from": "Jörg <hi@inbox.test>"})).await;
    assert_eq!(mime::parse(text.as_bytes()).header_from[0].address, "hi@inbox.test");
    assert_eq!(setup.server.query::<i64>("SELECT count(*) FROM suppression").await, 0);
}
