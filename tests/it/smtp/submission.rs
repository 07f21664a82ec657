//! Submission by mail programs: ports, passwords, refusals, and the stored message (contract 8.6).

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::testing::bootstrap;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::config::Config;
use rustls::pki_types::ServerName;
use serde_json::json;

use crate::support::api::Api;
use crate::support::server::{DEADLINE, Server};
use crate::support::smtp::{SmtpClient, SmtpReply, any_certificate};

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);
const MAIL: &str =
    "From: Acme <hi@inbox.test>\r\nTo: ada@remote.test\r\nBcc: secret@remote.test\r\nSubject: Hi\r\n\r\nHi.\r\n";

/// A server that listens for submissions, with its owner.
struct SubmissionServer {
    server: Server,
    owner: Api,
    key: String,
}

impl SubmissionServer {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let server = Server::start_with(Clock::manual(NOW), |config| {
            config.submission.listen = vec![any];
            config.submission.listen_tls = vec![any];
            adjust(config);
        })
        .await;
        let owner = server.owner().await;
        let key = owner.credential.clone().unwrap();
        Self { server, owner, key }
    }

    /// A session in TLS: by STARTTLS, or from the first octet.
    async fn session(&self, implicit: bool) -> SmtpClient {
        let [starttls, tls] = self.server.submission;
        let mut client = if implicit {
            let mut client = SmtpClient::open(tls).await.into_tls().await;
            assert_eq!(client.reply().await.code, 220);
            client
        } else {
            let mut client = SmtpClient::connect(starttls).await;
            client.expect("EHLO client.test", 250).await;
            client.starttls().await
        };
        client.expect("EHLO client.test", 250).await;
        client
    }

    async fn signed_in(&self) -> SmtpClient {
        let mut client = self.session(false).await;
        client.expect(&plain(&self.key), 235).await;
        client
    }
}

fn plain(password: &str) -> String {
    format!("AUTH PLAIN {}", BASE64.encode(format!("\0anybody\0{password}")))
}

fn said(reply: &SmtpReply) -> String {
    reply.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_without_tls_and_a_key() {
    let setup = SubmissionServer::start().await;
    let mut client = SmtpClient::connect(setup.server.submission[0]).await;
    let hello = client.expect("EHLO client.test", 250).await;
    assert!(hello.lines.iter().any(|line| line == "STARTTLS"), "{hello:?}");
    assert!(!hello.lines.iter().any(|line| line.starts_with("AUTH")), "{hello:?}");
    for command in ["MAIL FROM:<a@inbox.test>", &plain(&setup.key)] {
        assert_eq!(said(&client.command(command).await), "530 5.7.0 Must issue a STARTTLS command first");
    }
    let mut client = client.starttls().await;
    let hello = client.expect("EHLO client.test", 250).await;
    assert!(hello.lines.iter().any(|line| line == "AUTH PLAIN LOGIN"), "{hello:?}");
    assert!(!hello.lines.iter().any(|line| line == "STARTTLS"), "{hello:?}");
    assert_eq!(said(&client.command("MAIL FROM:<a@inbox.test>").await), "530 5.7.0 Authentication required");
    client.expect(&plain(&setup.key), 235).await;
    assert_eq!(client.command(&plain(&setup.key)).await.code, 503, "once is enough");
    client.expect("MAIL FROM:<a@inbox.test> AUTH=<>", 250).await;
    // Port 25 has no AUTH.
    let mut mx = SmtpClient::connect_and_greet(setup.server.smtp).await;
    assert_eq!(mx.command(&plain(&setup.key)).await.code, 502);
    assert_eq!(mx.command("MAIL FROM:<a@inbox.test> AUTH=<>").await.code, 555);
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_in_the_clear_does_not_reach_the_encrypted_session() {
    let setup = SubmissionServer::start().await;
    let mut client = SmtpClient::connect(setup.server.submission[0]).await;
    client.expect("EHLO client.test", 250).await;
    client.send(format!("STARTTLS\r\nEHLO injected.test\r\n{}\r\n", plain(&setup.key))).await;
    assert_eq!(client.reply().await.code, 220);
    let mut client = client.into_tls().await;
    assert_eq!(client.command("MAIL FROM:<a@inbox.test>").await.code, 530);
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_hand_a_key_in() {
    let setup = SubmissionServer::start().await;
    for implicit in [false, true] {
        let mut client = setup.session(implicit).await;
        assert_eq!(client.command("AUTH PLAIN").await.code, 334);
        client.expect(&BASE64.encode(format!("\0\0{}", setup.key)), 235).await;
        let mut client = setup.session(implicit).await;
        assert_eq!(said(&client.command("AUTH LOGIN").await), "334 VXNlcm5hbWU6");
        assert_eq!(said(&client.command(&BASE64.encode("me")).await), "334 UGFzc3dvcmQ6");
        client.expect(&BASE64.encode(&setup.key), 235).await;
        let mut client = setup.session(implicit).await;
        assert_eq!(client.command(&format!("AUTH login {}", BASE64.encode("me"))).await.code, 334);
        client.expect(&BASE64.encode(&setup.key), 235).await;
    }
    let mut client = setup.session(false).await;
    assert_eq!(client.command("AUTH PLAIN").await.code, 334);
    assert_eq!(said(&client.command("*").await), "501 5.7.0 Authentication canceled");
    assert_eq!(client.command("AUTH PLAIN !!!").await.code, 501);
    assert_eq!(client.command(&format!("AUTH PLAIN {}", BASE64.encode("no NULs"))).await.code, 501);
    assert_eq!(client.command("AUTH CRAM-MD5").await.code, 504);
    assert_eq!(client.command("AUTH").await.code, 501);
    let session = setup.server.owner_session().await;
    assert_eq!(client.command(&plain(&session)).await.code, 535, "a session's token is no key");
    assert_eq!(client.command(&plain("mk_live_wrong")).await.code, 535);
    let last = client.command(&plain("")).await;
    assert_eq!(said(&last), "535 5.7.8 Bad credentials; the password is an API key");
    assert!(client.is_closed().await, "three are enough");
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_from_one_address_are_throttled() {
    let setup = SubmissionServer::start().await;
    for _ in 0..20 {
        let mut client = setup.session(false).await;
        for _ in 0..3 {
            assert_eq!(client.command(&plain("guess")).await.code, 535);
        }
    }
    let mut client = setup.session(false).await;
    let reply = client.command(&plain("guess")).await;
    assert_eq!(said(&reply), "421 4.7.0 Too many failed logins, please come again later");
    assert!(client.is_closed().await);
    // A good key is no guess.
    setup.signed_in().await;
    setup.server.clock.advance(std::time::Duration::from_secs(60));
    let mut client = setup.session(false).await;
    assert_eq!(client.command(&plain("guess")).await.code, 535);
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_ends_with_the_next_message() {
    let setup = SubmissionServer::start().await;
    let scoped = json!({"domainId": "inbox.test", "name": "limited"});
    let scoped = setup.owner.post("/api/keys/scoped", scoped).await.expect(201);
    let mut client = setup.session(false).await;
    client.expect(&plain(scoped["key"].as_str().unwrap()), 235).await;
    assert_eq!(client.mail("a@inbox.test", &["ada@remote.test"], MAIL).await.code, 250);
    setup.owner.delete(&format!("/api/keys/scoped/{}", scoped["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(said(&client.command("MAIL FROM:<a@inbox.test>").await), "530 5.7.0 Authentication required");
    // The session may go on with another.
    client.expect(&plain(&setup.key), 235).await;
    assert_eq!(client.mail("a@inbox.test", &["ada@remote.test"], MAIL).await.code, 250);
    assert_eq!(setup.server.stop_with_any_jobs().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_are_told_apart_ignoring_case() {
    let setup = SubmissionServer::start().await;
    let mut client = setup.signed_in().await;
    let to = ["ada@remote.test", "Ada@Remote.test", "\"ADA\"@remote.test", "bob@remote.test"];
    let reply = client.mail("a@inbox.test", &to, MAIL).await;
    let id = reply.text().rsplit(' ').next().unwrap().to_owned();
    let shown = setup.owner.get(&format!("/api/messages/{id}")).await.expect(200);
    let addresses: Vec<&str> =
        shown["recipients"].as_array().unwrap().iter().map(|one| one["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["ada@remote.test", "bob@remote.test"]);
    setup.server.stop_with_any_jobs().await;
}

/// A TLS session whose first octets come in one segment with the PROXY header, as load balancers send them; returns the
/// greeting.
fn greeting_behind_a_proxy(address: SocketAddr, header: &[u8]) -> String {
    let name = ServerName::try_from("mx.mailkite.test").unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(any_certificate()), name).unwrap();
    let mut first_flight = header.to_vec();
    tls.write_tls(&mut first_flight).unwrap();
    let mut wire = std::net::TcpStream::connect(address).unwrap();
    wire.set_read_timeout(Some(DEADLINE)).unwrap();
    wire.write_all(&first_flight).unwrap();
    let mut greeting = String::new();
    BufReader::new(rustls::Stream::new(&mut tls, &mut wire)).read_line(&mut greeting).unwrap();
    greeting
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_a_handshake_may_come_in_the_segment_of_the_header() {
    let setup =
        SubmissionServer::start_with(|config| config.smtp.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()])
            .await;
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend_from_slice(&[192, 0, 2, 8, 198, 51, 100, 1, 0x12, 0x67, 1, 209]);
    for header in [b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 465\r\n".to_vec(), b"PROXY UNKNOWN\r\n".to_vec(), v2] {
        let address = setup.server.submission[1];
        let greeting = tokio::task::spawn_blocking(move || greeting_behind_a_proxy(address, &header)).await.unwrap();
        assert_eq!(greeting, "220 mx.mailkite.test ESMTP mailkite\r\n");
    }
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_completed_signed_and_queued() {
    let setup = SubmissionServer::start().await;
    let mut client = setup.signed_in().await;
    let reply = client.mail("whoever@elsewhere.test", &["ada@remote.test", "secret@remote.test"], MAIL).await;
    let id = reply.text().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(said(&reply), format!("250 2.0.0 Ok: {id}"));
    let shown = setup.owner.get(&format!("/api/messages/{id}")).await.expect(200);
    let message = &shown["message"];
    assert_eq!((&message["direction"], &message["to_addr"]), (&json!("outbound"), &json!("ada@remote.test")));
    assert!(message["mail_from"].as_str().unwrap().starts_with("bounce+"), "{message}");
    let addresses: Vec<&str> =
        shown["recipients"].as_array().unwrap().iter().map(|one| one["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["ada@remote.test", "secret@remote.test"]);
    let raw = setup.owner.get(&format!("/api/messages/{id}/raw")).await.body;
    let text = String::from_utf8(raw).unwrap();
    assert!(text.starts_with("DKIM-Signature: ") && text.contains("d=inbox.test"), "{text}");
    let suffix = id.strip_prefix("msg_").unwrap();
    let rest = text.split_once("Date: ").unwrap().1;
    assert_eq!(
        rest,
        format!(
            "Tue, 28 Jul 2026 00:00:00 +0000\r\nMessage-ID: <{suffix}@inbox.test>\r\nFrom: Acme <hi@inbox.test>\r\n\
             To: ada@remote.test\r\nSubject: Hi\r\n\r\nHi.\r\n"
        )
    );
    let used = setup.owner.get("/api/keys").await;
    assert_eq!(used.status, 200);
    assert_eq!(setup.server.stop_with_any_jobs().await, 2, "one for each recipient");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_an_mbox_file_does_not_go_out() {
    let setup = SubmissionServer::start().await;
    let mut client = setup.signed_in().await;
    let saved = "From hi@inbox.test Tue Jul 28 00:00:00 2026\r\nFrom: Acme <hi@inbox.test>\r\nTo: ada@remote.test\r\n\
                 >From other@elsewhere.test Mon\r\nSubject: Hi\r\n\r\nFrom here on it is text.\r\n";
    let reply = client.mail("hi@inbox.test", &["ada@remote.test"], saved).await;
    let id = reply.text().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(said(&reply), format!("250 2.0.0 Ok: {id}"));
    let raw = setup.owner.get(&format!("/api/messages/{id}/raw")).await.body;
    let text = String::from_utf8(raw).unwrap();
    let (header, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(header.ends_with("\r\nFrom: Acme <hi@inbox.test>\r\nTo: ada@remote.test\r\nSubject: Hi"), "{text}");
    assert!(!header.contains("\nFrom ") && !header.contains("\n>From "), "{text}");
    assert_eq!(body, "From here on it is text.\r\n");
    assert_eq!(setup.server.stop_with_any_jobs().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_hosts_may_say_does_not_go_out() {
    let setup = SubmissionServer::start().await;
    let mut client = setup.signed_in().await;
    let claims = "Received: from laptop by desk; Tue, 28 Jul 2026 00:00:00 +0000\r\n\
        Authentication-Results: mx.mailkite.test; dmarc=pass\r\nARC-Seal: i=1; cv=none\r\nReceived-SPF: pass\r\n\
        DKIM-Signature: v=1; d=bank.test;\r\n b=x\r\nDelivered-To: ada@remote.test\r\nX-Mailkite-Copies: 0\r\n\
        Resent-From: ceo@bank.test\r\nresent-sender: ceo@bank.test\r\nReturn-Path: <ceo@bank.test>\r\n";
    for (sender, wanted) in [
        ("ceo@bank.test", ""),
        ("Desk <desk@inbox.test>, ceo@bank.test", ""),
        // Only one of its readers finds an own address in it.
        ("=?utf-8?q?=22?= <ceo@bank.test> =?utf-8?q?=22_<desk@inbox.test>?=", "<desk@inbox.test>"),
        ("Desk <desk@inbox.test>", "\"Desk\" <desk@inbox.test>"),
    ] {
        let mail = format!("{claims}Sender: {sender}\r\n{MAIL}");
        let reply = client.mail("hi@inbox.test", &["ada@remote.test"], mail).await;
        let id = reply.text().rsplit(' ').next().unwrap().to_owned();
        assert_eq!(said(&reply), format!("250 2.0.0 Ok: {id}"));
        let raw = setup.owner.get(&format!("/api/messages/{id}/raw")).await.body;
        let text = String::from_utf8(raw).unwrap();
        let header = text.split_once("Date: ").unwrap().1.split_once("\r\n\r\n").unwrap().0;
        let names: Vec<&str> =
            header.split("\r\n").skip(1).filter_map(|line| Some(line.split_once(": ")?.0)).collect();
        let mut kept = vec!["Message-ID", "Received", "From", "To", "Subject"];
        if !wanted.is_empty() {
            kept.insert(1, "Sender");
        }
        assert_eq!(names, kept, "{text}");
        assert!(header.contains(wanted) && !header.contains("bank.test>\r\n"), "{text}");
    }
    setup.server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_is_one_whom_every_reader_finds() {
    let setup = SubmissionServer::start().await;
    let owner = setup.server.inbox.account_id;
    setup.server.write(move |tx, _, now| bootstrap::verified_domain(tx, owner, "bank.test.inbox.test", now)).await;
    let mut client = setup.signed_in().await;
    for author in [
        "ceo@bank.test\".inbox.test",
        "ceo@bank.test>.inbox.test",
        "ceo@bank.test).inbox.test",
        "ceo@bank.test(.inbox.test",
        "\"CEO\" ceo@bank.test).inbox.test",
        "ceo@bank.test .inbox.test",
        "<ceo@bank.test(x).inbox.test>",
        "ceo@bank.test <a@inbox.test>",
        "<@bank.test:a@inbox.test>",
        "<\"ceo@bank.test\"@inbox.test>",
        "a@inbox.test ceo@bank.test",
        "a@inbox.test (a) .bank.test",
    ] {
        let mail = format!("From: {author}\r\nSubject: x\r\n\r\nPay to me.\r\n");
        let reply = client.mail("a@inbox.test", &["ada@remote.test"], &mail).await;
        assert_eq!(said(&reply), "550 5.6.0 Exactly one From field with exactly one mailbox is needed", "{author}");
        let body = json!({"from": author, "to": "ada@remote.test", "subject": "x", "text": "y"});
        let reply = setup.owner.post("/v1/send", body).await;
        // Here the display name is put into quotes.
        let wanted = if author == "ceo@bank.test <a@inbox.test>" { 202 } else { 400 };
        assert_eq!(reply.status, wanted, "{author}");
    }
    for author in ["Acme, Inc. <a@inbox.test>", "a@inbox.test (Acme)", "\"ceo@bank.test\" <a@inbox.test>"] {
        let mail = format!("From: {author}\r\nSubject: x\r\n\r\nHi.\r\n");
        let reply = client.mail("a@inbox.test", &["ada@remote.test"], &mail).await;
        assert_eq!(reply.code, 250, "{author}: {reply:?}");
    }
    setup.server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gates_of_the_api_count_here() {
    let setup = SubmissionServer::start().await;
    setup.owner.post("/api/contacts/suppressions", json!({"email": "no@remote.test"})).await.expect(201);
    let mut client = setup.signed_in().await;
    let refused = "550 5.7.1 From domain is not yours, or not verified for sending";
    for (from, wanted) in [
        ("From: a@elsewhere.test\r\n", refused),
        ("From: a@pending.test\r\n", refused),
        ("", "550 5.6.0 Exactly one From field with exactly one mailbox is needed"),
        ("From: a\u{200b}@inbox.test\r\n", "550 5.6.0 Exactly one From field with exactly one mailbox is needed"),
        (
            "From: a@inbox.test, b@inbox.test\r\n",
            "550 5.6.0 Exactly one From field with exactly one mailbox is needed",
        ),
        (
            "From: a@inbox.test\r\nFrom: b@inbox.test\r\n",
            "550 5.6.0 Exactly one From field with exactly one mailbox is needed",
        ),
        (
            "From: a@inbox.test\r\nSubject: 1\r\nSubject: 2\r\n",
            "550 5.6.0 Message has a repeated header, or a NUL in one",
        ),
    ] {
        let reply = client.mail("a@inbox.test", &["ada@remote.test"], format!("{from}X-Y: z\r\n\r\nHi\r\n")).await;
        assert_eq!(said(&reply), wanted, "{from}");
    }
    let reply = client.mail("a@inbox.test", &["no@remote.test"], MAIL).await;
    assert_eq!(said(&reply), "550 5.7.1 Every recipient is on the suppression list");
    client.expect("MAIL FROM:<a@inbox.test>", 250).await;
    assert_eq!(client.command("RCPT TO:<a@[127.0.0.1]>").await.code, 550);
    assert_eq!(client.command("RCPT TO:<postmaster>").await.code, 550);
    for n in 0..100 {
        client.expect(&format!("RCPT TO:<r{n}@remote.test>"), 250).await;
    }
    assert_eq!(said(&client.command("RCPT TO:<more@remote.test>").await), "452 4.5.3 Too many recipients");
    client.expect("RSET", 250).await;
    assert_eq!(client.command("MAIL FROM:<a@inbox.test> SIZE=99999999").await.code, 552);
    // A key of another domain.
    let domain = json!({"domain": "second.test"});
    setup.owner.post("/api/domains", domain).await.expect(201);
    let scoped = json!({"domainId": "second.test", "name": "limited"});
    let scoped = setup.owner.post("/api/keys/scoped", scoped).await.expect(201);
    let mut client = setup.session(false).await;
    client.expect(&plain(scoped["key"].as_str().unwrap()), 235).await;
    assert_eq!(said(&client.mail("a@inbox.test", &["ada@remote.test"], MAIL).await), refused);
    // An account that has to prove itself.
    setup.server.write(|tx, _, _| Ok(tx.execute("UPDATE account SET email_verified = 0", [])?)).await;
    let mut client = setup.signed_in().await;
    let reply = client.mail("a@inbox.test", &["ada@remote.test"], MAIL).await;
    assert_eq!(said(&reply), "550 5.7.1 Verify the e-mail address of your account first");
    assert_eq!(setup.server.query::<i64>("SELECT count(*) FROM message").await, 0);
    setup.server.stop().await;
}
