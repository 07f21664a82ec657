//! Forwarding: permitted authors, confirmed destinations, limits, SRS and ARC (contract 4.6).

use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::dkim::DkimSigner;
use mail_auth::dkim::generate::DkimKeyPair;
use mailkite::testing::bootstrap;
use mailkite::testing::clock::Clock;
use mailkite::testing::mail::trace::Verdict;
use mailkite::testing::store::accounts;
use serde_json::json;

use crate::support::dns::DnsServer;
use crate::support::forwarding_server::{EVIL, ForwardingServer, GOOD, forward, from, route, text_of};
use crate::support::outbound::deliver_to_loopback;
use crate::support::remote_host::RemoteHost;
use crate::support::server::{Server, message};
use crate::support::smtp::{SmtpClient, data};

#[tokio::test(flavor = "multi_thread")]
async fn an_injected_message_leaves_only_with_a_from_that_the_account_may_send_from() {
    let mut setup = ForwardingServer::start().await;
    let made = forward(&setup.owner, "out@inbox.test", "victim@remote.test").await;
    assert_eq!((&made["destination_proven"], &made["on_auth_fail"]), (&json!(true), &json!("refuse")));
    let id = made["id"].clone();
    let inject = async |from: &str| {
        let body = json!({"from": from, "routeId": id, "subject": "Pay me", "text": "now"});
        setup.owner.post("/v1/route", body).await
    };
    for number in 0..20 {
        inject(&format!("CEO <ceo{number}@bank.example>")).await.expect_error(404, "domain_not_owned");
    }
    inject("hi@pending.test").await.expect_error(403, "from_domain");
    for unseen in ['\u{202e}', '\u{200b}', '\u{2800}', '\u{600}', '\u{1d159}', '\u{13430}'] {
        inject(&format!("hi{unseen}@inbox.test")).await.expect_field(400, "bad_request", "from");
        inject(&format!("\"hi{unseen}\"@inbox.test")).await.expect_field(400, "bad_request", "from");
        let to = json!({"from": "hi@inbox.test", "address": format!("out{unseen}@inbox.test"), "text": "now"});
        setup.owner.post("/v1/route", to).await.expect_field(400, "bad_request", "address");
        let send = json!({"from": format!("hi{unseen}@inbox.test"), "to": "victim@remote.test", "text": "now"});
        setup.owner.post("/v1/send", send).await.expect_field(400, "bad_address", "from");
    }
    assert_eq!(setup.server.query::<i64>("SELECT count(*) FROM dispatch").await, 0);
    inject("Acme <hi@inbox.test>").await.expect(202);
    let taken = setup.remote.next_mail().await;
    let text = String::from_utf8(taken.data()).unwrap();
    assert_eq!(taken.recipients(), ["victim@remote.test"]);
    assert!(text.contains("DKIM-Signature: v=1; a=rsa-sha256;") && text.contains("d=inbox.test;"), "{text}");
    setup.until_idle().await;
    assert!(setup.remote.is_drained());
    let messages = setup.owner.get("/api/messages").await.expect(200);
    assert_eq!(
        (&messages[0]["spf"], &messages[0]["dkim"], &messages[0]["dmarc"]),
        (&json!(null), &json!(null), &json!(null))
    );
    // What stays here may have any From.
    setup.owner.post("/api/routes", json!({"match": "in@inbox.test", "action": "store"})).await.expect(201);
    let body = json!({"from": "ceo@bank.example", "address": "in@inbox.test", "subject": "x", "text": "y"});
    setup.owner.post("/v1/route", body).await.expect(202);
    // An account whose e-mail is not proven sends nothing at all.
    let eve = setup.tenant("eve.test", false).await;
    let id = forward(&eve, "out@eve.test", "victim@remote.test").await["id"].clone();
    let body = json!({"from": "eve@eve.test", "routeId": id, "subject": "x", "text": "y"});
    eve.post("/v1/route", body).await.expect_error(403, "email_not_verified");
    // Nor is mail received for it; what was let in before it lost its proof is not forwarded.
    let proven = async |sql: &'static str| {
        setup.server.write(move |tx, _, _| Ok(tx.execute(sql, [])?)).await;
    };
    let mut client = SmtpClient::connect_and_greet(setup.server.smtp).await;
    client.expect("MAIL FROM:<ada@example.com>", 250).await;
    client.expect("RCPT TO:<out@eve.test>", 450).await;
    client.expect("RSET", 250).await;
    proven("UPDATE account SET email_verified = 1 WHERE email = 'owner@eve.test'").await;
    client.envelope("ada@example.com", &["out@eve.test"]).await;
    proven("UPDATE account SET email_verified = 0 WHERE email = 'owner@eve.test'").await;
    client.expect("DATA", 354).await;
    client.send(data(message("By SMTP").as_bytes())).await;
    assert_eq!(client.reply().await.code, 250);
    setup.server.until("SELECT last_status FROM route ORDER BY id DESC", "unverified".to_owned()).await;
    setup.until_idle().await;
    assert!(setup.remote.is_drained(), "nor is anybody asked in its name");
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_vouches_for_no_author_who_was_not_authenticated() {
    let mut setup = ForwardingServer::start_with_policies().await;
    forward(&setup.owner, "sales@inbox.test", "boss@remote.test").await;
    for (number, (author, mail_from)) in [
        // A policy says what becomes of it.
        ("CEO <ceo@bank.test>", "x@evil.test"),
        ("CEO <ceo@bank.test>", "ceo@bank.test"),
        ("ceo@sub.bank.test", ""),
        // Our own name on the envelope would vouch for it.
        ("ceo@mailkite.test", "x@evil.test"),
        ("ceo@mx.mailkite.test", ""),
        ("ceo@deep.mx.mailkite.test", "x@evil.test"),
        // It belongs to somebody here.
        ("Owner <hi@inbox.test>", "x@evil.test"),
        ("hi@sub.inbox.test", "hi@inbox.test"),
        // Nobody can say.
        ("ceo@broken.test", "x@evil.test"),
        // Readers disagree about whom they see.
        ("a@evil.test, ceo@bank.test", "x@evil.test"),
        ("a@evil.test\r\nFrom: ceo@mailkite.test", "x@evil.test"),
        ("a@evil.test\r\n: odd\r\nFrom: ceo@mailkite.test", "x@evil.test"),
        ("\r\nSender: a@evil.test", "x@evil.test"),
        ("hi@inbox .test", "x@evil.test"),
        ("hi@inbox(x).test", "x@evil.test"),
        ("c@mx.mailkite (a) .\r\n (b) test", "x@evil.test"),
        ("Team: ceo@bank. test;", "x@evil.test"),
        ("hi@inbox.test\"x", "x@evil.test"),
        ("CEO hi@inbox.test>x", "x@evil.test"),
        ("hi@inbox.test\".evil.test", "x@evil.test"),
        ("hi@inbox.test>.evil.test", "x@evil.test"),
        ("hi@inbox.test(.evil.test", "x@evil.test"),
        ("hi@inbox.test .evil.test", "x@evil.test"),
        ("hi@inbox.test <x@evil.test>", "x@evil.test"),
        ("<hi@inbox.test(x).evil.test>", "x@evil.test"),
        ("x@evil.test hi@inbox.test", "x@evil.test"),
    ]
    .into_iter()
    .enumerate()
    {
        setup.server.write(|tx, _, _| Ok(tx.execute("UPDATE route SET last_status = NULL", [])?)).await;
        let mail = from(author, &format!("Number {number}"));
        assert_eq!(setup.deliver(EVIL, mail_from, "sales@inbox.test", &mail).await, 250, "{author}");
        assert_eq!(route(&setup.owner).await["last_status"], "refused", "{author} {mail_from}");
    }
    setup.until_idle().await;
    assert!(setup.remote.is_drained());
    assert_eq!(setup.server.query::<i64>("SELECT count(*) FROM message").await, 26, "stored all the same");
    // What its author's own host hands over goes on as it is, and so does what no policy speaks against.
    for (host, author, mail_from) in
        [(GOOD, "ada@good.test", "ada@good.test"), (EVIL, "x@calm.test", "x@evil.test"), (EVIL, "x@evil.test", "")]
    {
        assert_eq!(setup.deliver(host, mail_from, "sales@inbox.test", &from(author, "Fine")).await, 250);
        let text = text_of(&setup.remote.next_mail().await);
        assert!(text.contains(&format!("\r\nFrom: {author}\r\n")), "{text}");
    }
    setup.until_idle().await;
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_an_mbox_file_on_top_makes_nobody_authenticated_and_stays_here() {
    let mut setup = ForwardingServer::start_with_policies().await;
    forward(&setup.owner, "sales@inbox.test", "boss@remote.test").await;
    for (number, line) in
        ["From a", ">From a b", ">From ", "From x@y.test Mon Nov 30 01:00:00 2026"].iter().enumerate()
    {
        setup.server.write(|tx, _, _| Ok(tx.execute("UPDATE route SET last_status = NULL", [])?)).await;
        let forged = format!("{line}\r\n{}", from("ceo@bank.test", &format!("Forged {number}")));
        assert_eq!(setup.deliver(EVIL, "x@evil.test", "sales@inbox.test", &forged).await, 250);
        assert_eq!(route(&setup.owner).await["last_status"], "refused", "{line}");
        let shown = setup.owner.get("/api/messages?limit=1").await.expect(200)[0].clone();
        assert_eq!((&shown["from"]["address"], &shown["dmarc"]), (&json!("ceo@bank.test"), &json!("fail")), "{line}");
        let true_one = from("ada@good.test", &format!("True {number}"));
        let saved = format!("{line}\r\n{true_one}");
        assert_eq!(setup.deliver(GOOD, "ada@good.test", "sales@inbox.test", &saved).await, 250);
        let text = text_of(&setup.remote.next_mail().await);
        assert!(text.ends_with(&true_one) && !text.contains(&format!("\n{line}\r")), "{text}");
    }
    setup.until_idle().await;
    assert!(setup.remote.is_drained());
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_let_an_address_of_its_domain_speak_for_an_author() {
    let mut setup = ForwardingServer::start_with_policies().await;
    let made = forward(&setup.owner, "sales@inbox.test", "boss@remote.test").await;
    let path = format!("/api/routes/{}", made["id"].as_str().unwrap());
    setup.owner.patch(&path, json!({"onAuthFail": "perhaps"})).await.expect_field(400, "bad_request", "onAuthFail");
    for (matching, to, speaker) in [
        ("sales@inbox.test", "Sales@inbox.test", "sales@inbox.test"),
        // Whoever sends chooses the recipient of these, so it says nothing.
        ("*@inbox.test", "ceo@inbox.test", "noreply@inbox.test"),
        ("c*@inbox.test", "ceo@inbox.test", "noreply@inbox.test"),
        ("/.*@inbox.test/", "ceo@inbox.test", "noreply@inbox.test"),
    ] {
        let change = json!({"onAuthFail": "rewrite", "match": matching});
        assert_eq!(setup.owner.patch(&path, change).await.expect(200)["on_auth_fail"], "rewrite");
        for (author, name) in [("CEO <ceo@bank.test>", "CEO"), ("\"ceo@inbox.test\" <ceo@bank.test>", "unknown")] {
            let mail = from(author, &format!("Pay {matching}"));
            assert_eq!(setup.deliver(EVIL, "x@evil.test", to, &mail).await, 250);
            let taken = setup.remote.next_mail().await;
            let text = text_of(&taken);
            assert!(text.contains(&format!("\r\nFrom: \"{name} via inbox.test\" <{speaker}>\r\n")), "{text}");
            assert!(text.contains("\r\nReply-To: ") && text.contains(" <ceo@bank.test>\r\n"), "{text}");
            assert_eq!(text.matches("\r\nFrom: ").count(), 1, "{text}");
            let found = setup.verify(&taken.sender(), &text).await;
            let pass = Some(Verdict::Pass);
            assert_eq!((found.verdicts.dkim, found.verdicts.dmarc, found.verdicts.arc), (pass, pass, pass), "{text}");
        }
    }
    // Nobody speaks for who claims to be of the route's domain, of one that the account sends from, or of the host's;
    // and a header that has no author for every reader stays here.
    setup
        .server
        .write(|tx, _, now| {
            let owner = accounts::find_owner(tx)?.unwrap();
            let shop = mailkite::testing::store::accounts::domains::insert(tx, owner.id, "shop.test", false, now)?;
            Ok(tx.execute("UPDATE domain SET spf_verified = 1, dkim_verified = 1 WHERE id = ?1", [shop.id])?)
        })
        .await;
    setup.dns.txt("_dmarc.shop.test", "v=DMARC1; p=reject");
    for author in [
        "CEO <ceo@inbox.test>",
        "CEO <ceo@mail.inbox.test>",
        "CEO <ceo@shop.test>",
        "CEO <ceo@mailkite.test>",
        "CEO <ceo@mx.mailkite.test>",
        "a@bank.test, ceo@inbox.test",
        "\r\nSender: a@evil.test",
    ] {
        setup.server.write(|tx, _, _| Ok(tx.execute("UPDATE route SET last_status = NULL", [])?)).await;
        assert_eq!(setup.deliver(EVIL, "x@evil.test", "ceo@inbox.test", &from(author, "Pay")).await, 250);
        assert_eq!(route(&setup.owner).await["last_status"], "refused", "{author}");
    }
    setup.until_idle().await;
    assert!(setup.remote.is_drained());
    setup.server.stop().await;
}

/// Verifies ARC with a second implementation, where it is installed: Python's dkimpy.
async fn dkimpy_arc(mail: &str, key: &str) -> Option<String> {
    let script = "import dkim,json,sys\nmail,key=json.load(sys.stdin)\n\
                  find=lambda name,timeout=5: ('v=DKIM1; k=rsa; p='+key).encode()\n\
                  print(dkim.arc_verify(mail.encode('latin-1'),dnsfunc=find)[0].decode())";
    for program in ["python3", "/usr/bin/python3"] {
        let mut command = tokio::process::Command::new(program);
        command.args(["-c", script]).stderr(std::process::Stdio::null());
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let Ok(mut child) = command.spawn() else { continue };
        let input = serde_json::to_vec(&(mail, key)).unwrap();
        // Without the module it ends before it reads.
        drop(tokio::io::AsyncWriteExt::write_all(&mut child.stdin.take().unwrap(), &input).await);
        let output = child.wait_with_output().await.unwrap();
        if output.status.success() {
            return Some(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forwarded_is_sealed_with_what_was_found_on_arrival() {
    let mut setup = ForwardingServer::start_with_policies().await;
    let public = setup.server.query::<String>("SELECT public_key FROM dkim_key WHERE algorithm = 'rsa'").await;
    let keys = DkimKeyPair::generate_ed25519().unwrap();
    setup.dns.txt("s1._domainkey.good.test", &format!("v=DKIM1; k=ed25519; p={}", keys.encoded_public_key()));
    for number in 1..=3 {
        forward(&setup.owner, &format!("hop{number}@inbox.test"), "boss@remote.test").await;
    }
    let plain = from("Ada <ada@good.test>", "Signed  by its author").replace("Pay to me.", "Pay  to me. ");
    let key = Ed25519Key::from_pkcs8_maybe_unchecked_der(keys.private_key()).unwrap();
    let signer = DkimSigner::from_key(key).domain("good.test").selector("s1").headers(["From", "Subject"]);
    let signed = format!("{}{plain}", signer.sign(plain.as_bytes()).unwrap().to_header());
    assert_eq!(setup.deliver(GOOD, "ada@good.test", "hop1@inbox.test", &signed).await, 250);
    let first = setup.remote.next_mail().await;
    let text = text_of(&first);
    assert!(text.ends_with(&signed), "the author's octets stay: {text}");
    for line in [
        "ARC-Seal: i=1; a=rsa-sha256; d=inbox.test; s=mailkite;",
        "cv=none;",
        "\r\nARC-Authentication-Results: i=1; mx.mailkite.test;\r\n\tspf=pass smtp.mailfrom=ada@good.test;",
        "\r\n\tdkim=pass header.d=good.test",
        "\r\n\tdmarc=pass header.from=good.test\r\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    let found = setup.verify(&first.sender(), &text).await;
    let pass = Some(Verdict::Pass);
    assert_eq!((found.verdicts.arc, found.verdicts.dkim, found.verdicts.dmarc), (pass, pass, pass));
    if let Some(verdict) = dkimpy_arc(&text, &public).await {
        assert_eq!(verdict, "pass");
    }
    // A second forwarder adds its set to a chain that holds.
    assert_eq!(setup.deliver("198.51.100.1", &first.sender(), "hop2@inbox.test", &text).await, 250);
    let second = text_of(&setup.remote.next_mail().await);
    assert!(second.starts_with("ARC-Seal: i=2;") && second.contains("cv=pass;"), "{second}");
    assert!(second.contains("ARC-Authentication-Results: i=2; mx.mailkite.test;"), "{second}");
    assert_eq!(setup.verify("x@evil.test", &second).await.verdicts.arc, pass);
    if let Some(verdict) = dkimpy_arc(&second, &public).await {
        assert_eq!(verdict, "pass");
    }
    // One that was broken on the way is marked, once; nothing makes it good again.
    let broken = second.replace("Pay  to me.", "Pay to Eve.");
    assert_eq!(setup.deliver(GOOD, "ada@good.test", "hop3@inbox.test", &broken).await, 250);
    let third = text_of(&setup.remote.next_mail().await);
    assert!(third.starts_with("ARC-Seal: i=3;") && third.contains("cv=fail;"), "{third}");
    assert_ne!(setup.verify("x@evil.test", &third).await.verdicts.arc, pass);
    forward(&setup.owner, "hop4@inbox.test", "boss@remote.test").await;
    assert_eq!(setup.deliver(GOOD, "ada@good.test", "hop4@inbox.test", &third).await, 250);
    let fourth = text_of(&setup.remote.next_mail().await);
    assert!(!fourth.contains("ARC-Seal: i=4;"), "{fourth}");
    setup.until_idle().await;
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_within_the_server_forgets_no_verdict() {
    let mut setup = ForwardingServer::start_with_policies().await;
    let other = setup.tenant("other.test", true).await;
    forward(&setup.owner, "sales@inbox.test", "in@other.test").await;
    let verdicts = async || {
        let shown = other.get("/api/messages?limit=1").await.expect(200)[0].clone();
        (shown["spf"].clone(), shown["dkim"].clone(), shown["dmarc"].clone())
    };
    // From outside, and the same mail over a route of somebody else's.
    for to in ["in@other.test", "sales@inbox.test"] {
        assert_eq!(setup.deliver(EVIL, "x@calm.test", to, &from("ceo@calm.test", to)).await, 250);
        setup.until_idle().await;
        assert_eq!(verdicts().await, (json!("fail"), json!("none"), json!("fail")), "{to}");
    }
    assert_eq!(other.get("/api/messages").await.expect(200).as_array().unwrap().len(), 2);
    // What this server sent itself for an account is what it says.
    let body = json!({"from": "hi@inbox.test", "to": "in@other.test", "subject": "Ours", "text": "x"});
    setup.owner.post("/v1/send", body).await.expect(202);
    setup.until_idle().await;
    assert_eq!(verdicts().await, (json!("pass"), json!("pass"), json!("pass")));
    // And it goes on as such.
    forward(&setup.owner, "out@inbox.test", "boss@remote.test").await;
    let body = json!({"from": "hi@inbox.test", "to": "out@inbox.test", "subject": "Ours", "text": "x"});
    setup.owner.post("/v1/send", body).await.expect(202);
    let taken = setup.remote.next_mail().await;
    let text = text_of(&taken);
    assert!(text.contains("ARC-Authentication-Results: i=1; mx.mailkite.test;\r\n\tspf=pass"), "{text}");
    let found = setup.verify(&taken.sender(), &text).await;
    assert_eq!((found.verdicts.dmarc, found.verdicts.arc), (Some(Verdict::Pass), Some(Verdict::Pass)), "{text}");
    setup.until_idle().await;
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_of_envelope_senders_that_align_with_a_users_domain() {
    let setup = ForwardingServer::start().await;
    forward(&setup.owner, "*@inbox.test", "boss@remote.test").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mailkite.toml");
    let check = |more: &str| {
        let data_dir = setup.server.data_dir().display();
        let text = format!(
            "hostname = \"mx.mailkite.test\"\npublic_url = \"https://mail.mailkite.test\"\ndata_dir = \"{data_dir}\"\n{more}"
        );
        std::fs::write(&file, text).unwrap();
        let binary = env!("CARGO_BIN_EXE_mailkite");
        let output = std::process::Command::new(binary).arg("check").arg("--config").arg(&file).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!check("").contains("forward_domain"));
    setup
        .server
        .write(|tx, _, now| {
            let owner = accounts::find_owner(tx)?.unwrap();
            bootstrap::verified_domain(tx, owner.id, "mailkite.test", now)
        })
        .await;
    let printed = check("");
    assert!(
        printed.contains("mailkite.test is of the same organization") && printed.contains("forward_domain"),
        "{printed}"
    );
    assert!(!check("[outbound]\nforward_domain = \"fwd.example.net\"\n").contains("same organization"));
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envelope_senders_of_forwarded_mail_may_have_a_domain_of_their_own() {
    let dns = DnsServer::start().await;
    let mut remote = RemoteHost::start().await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    let port = remote.address.port();
    let server = Server::start_with(Clock::System, |config| {
        deliver_to_loopback(config, &dns, port);
        config.outbound.forward_domain = Some("fwd.example.net".to_owned());
    })
    .await;
    forward(&server.owner().await, "*@inbox.test", "boss@remote.test").await;
    server.accepted("a@inbox.test", "Apart").await;
    let srs = remote.next_mail().await.sender();
    assert!(srs.ends_with("@fwd.example.net"), "{srs}");
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    client.expect("MAIL FROM:<>", 250).await;
    client.expect(&format!("RCPT TO:<{srs}>"), 250).await;
    client.expect("RCPT TO:<postmaster@fwd.example.net>", 250).await;
    client.expect("RCPT TO:<anybody@fwd.example.net>", 550).await;
    server.until("SELECT count(*) FROM job", 0_i64).await;
    server.stop().await;
}
