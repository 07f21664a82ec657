//! Mail composed and signed here, read and verified as its receiver does.

use std::time::Duration;

use mailkite::testing::clock::Timestamp;
use mailkite::testing::domain::keys::{KeyMaker, PURPOSE};
use mailkite::testing::domain::records::{Kind, PublicKey, Wanted};
use mailkite::testing::inbound::verify::Verifier;
use mailkite::testing::mail::envelope::Peer;
use mailkite::testing::mail::mailbox_list::{parse_list, parse_one};
use mailkite::testing::mail::mime;
use mailkite::testing::net::dns::Resolver;
use mailkite::testing::outbound::message::compose::{Attachment, Content, compose};
use mailkite::testing::outbound::message::dkim::{DomainKeys, PrivateKey};
use mailkite::testing::secrets::Secrets;

use crate::support::dns::DnsServer;
use crate::support::machine::skip;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

struct Bench {
    _dns: DnsServer,
    verifier: Verifier,
    keys: DomainKeys,
    rsa_only: DomainKeys,
    /// Name and value of the DNS records with the public keys.
    records: Vec<(String, String)>,
}

impl Bench {
    /// Generates, seals and publishes keys as a domain does.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::open(dir.path()).unwrap();
        let made = KeyMaker::default().make(&secrets, "test").await.unwrap();
        let private: Vec<Vec<u8>> =
            made.iter().map(|key| secrets.open_sealed(PURPOSE, &key.private_sealed).unwrap()).collect();
        let wanted = Wanted {
            name: "acme.dev",
            hostname: "mx.acme.dev",
            spf_include: None,
            rsa: PublicKey { selector: "mailkite", value: &made[0].public_key },
            ed25519: PublicKey { selector: "mailkite-ed", value: &made[1].public_key },
        };
        let dns = DnsServer::start().await;
        let records = wanted.records().into_iter().filter(|one| matches!(one.kind, Kind::Dkim | Kind::DkimEd25519));
        let records: Vec<(String, String)> = records.map(|record| (record.name, record.value)).collect();
        for (name, value) in &records {
            let strings: Vec<&str> = value.as_bytes().chunks(255).map(|s| std::str::from_utf8(s).unwrap()).collect();
            dns.strings(name, &strings);
        }
        let resolver = Resolver::new(&[dns.address]).unwrap();
        let rsa = PrivateKey { selector: "mailkite", pkcs8: &private[0] };
        let ed25519 = PrivateKey { selector: "mailkite-ed", pkcs8: &private[1] };
        Self {
            verifier: Verifier::new(resolver, "mx.b.dev".into(), Duration::from_secs(10)),
            keys: DomainKeys::new("acme.dev", rsa, Some(ed25519)).unwrap(),
            rsa_only: DomainKeys::new("acme.dev", rsa, None).unwrap(),
            records,
            _dns: dns,
        }
    }

    /// The verdicts on the signatures, in order.
    async fn verdicts(&self, raw: &[u8]) -> Vec<String> {
        let peer = Peer { address: "192.0.2.7".parse().unwrap(), helo: "mx.acme.dev".into(), esmtp: true, tls: None };
        let found = self.verifier.verify(&peer, "", raw, &mime::parse(raw)).await;
        let results = found.authentication_results.split("dkim=").skip(1);
        results.map(|result| result.split([' ', ';']).next().unwrap().to_owned()).collect()
    }

    fn signed(&self, mail: &[u8]) -> Vec<u8> {
        [self.keys.sign(mail).unwrap().as_bytes(), mail].concat()
    }
}

fn content() -> Content {
    Content {
        from: parse_one("\"Zoë, A\" <zoe@acme.dev>").unwrap(),
        to: parse_list("Bob <bob@b.dev>, eve@b.dev").unwrap(),
        cc: parse_list("carol@b.dev").unwrap(),
        reply_to: parse_list("help@acme.dev").unwrap(),
        subject: "Grüße, and a long line of plain words that has to be folded somewhere before its end".into(),
        text: Some("Hello  \n\n  world\t\n \n\n".into()),
        html: Some("<p>Größe</p>\n".into()),
        in_reply_to: Some("<1@b.dev>".into()),
        headers: vec![("List-Unsubscribe".into(), "<https://acme.dev/u>".into())],
        attachments: vec![Attachment { filename: "a.bin".into(), content_type: None, content: vec![0; 999].into() }],
        message_id: "<01j@acme.dev>".into(),
        date: NOW,
    }
}

#[tokio::test]
async fn both_signatures_hold_for_messages_of_every_form() {
    let bench = Bench::new().await;
    let bare = Content { html: None, attachments: Vec::new(), ..content() };
    let empty = Content { text: Some(String::new()), headers: Vec::new(), cc: Vec::new(), ..bare.clone() };
    let blank = Content { text: Some(" \n\t\n".into()), ..bare.clone() };
    let large = Content { text: Some("Zoë schrieb  \n".repeat(80_000)), ..content() };
    for content in [content(), bare, empty, blank, large] {
        let mail = compose(&content).unwrap();
        let signature = bench.keys.sign(&mail).unwrap();
        assert_eq!(bench.verdicts(&bench.signed(&mail)).await, ["pass", "pass"], "{signature}");
    }
    let mail = compose(&content()).unwrap();
    let once = [bench.rsa_only.sign(&mail).unwrap().as_bytes(), &mail].concat();
    assert_eq!(bench.verdicts(&once).await, ["pass"]);
}

#[tokio::test]
async fn nothing_can_be_added_or_changed() {
    let bench = Bench::new().await;
    let raw = String::from_utf8(bench.signed(&compose(&content()).unwrap())).unwrap();
    for name in ["From: eve@e.dev", "To: eve@e.dev", "Subject: other", "Date: now", "Message-ID: <2@e.dev>"] {
        for changed in [format!("{name}\r\n{raw}"), raw.replace("MIME-Version", &format!("{name}\r\nMIME-Version"))] {
            let verdicts = bench.verdicts(changed.as_bytes()).await;
            assert!(verdicts.len() == 2 && !verdicts.contains(&"pass".to_owned()), "{name} {verdicts:?}");
        }
    }
    for (from, to) in [
        ("zoe@acme.dev", "eve@acme.dev"),
        ("carol@b.dev", "eve@b.dev"),
        ("help@acme.dev", "eve@acme.dev"),
        ("multipart/mixed", "multipart/digest"),
        ("https://acme.dev/u", "https://acme.dev/v"),
        ("<p>", "<q>"),
        ("--\r\n", "--\r\nmore\r\n"),
    ] {
        let changed = raw.replace(from, to);
        assert_ne!(changed, raw);
        assert_eq!(bench.verdicts(changed.as_bytes()).await, ["fail", "fail"], "{from}");
    }
    // Relays may fold anew and add blanks at the end of lines.
    let refolded = raw.replace("Subject: ", "subject:\r\n\t ") + "\r\n\r\n";
    assert_eq!(bench.verdicts(refolded.as_bytes()).await, ["pass", "pass"]);
}

#[tokio::test]
async fn odd_fields_and_eight_bits_are_signed_as_they_are() {
    let bench = Bench::new().await;
    let odd = b"From: zoe@acme.dev\r\nX-Odd: \xff\xfe 8-bit\r\nCc: 1\r\nCc: 2\r\n\r\nx  y";
    assert_eq!(bench.verdicts(&bench.signed(odd)).await, ["pass", "pass"]);
    // Readers differ on where the text of this begins, so nothing vouches for it.
    for line in [b"no colon".as_slice(), b"\xff\xfe: no name"] {
        let headless = [b"From: zoe@acme.dev\r\n", line, b"\r\n\r\nx  y"].concat();
        assert_eq!(bench.verdicts(&bench.signed(&headless)).await, ["permerror", "permerror"]);
    }
}

/// Verifies with a second implementation, where it is installed: Python's dkimpy.
#[tokio::test]
async fn dkimpy_verifies_both_signatures() {
    let script = "import dkim,json,sys\nmail,records=json.load(sys.stdin)\n\
                  find=lambda name,timeout=5: dict(records).get(name.decode().rstrip('.'),'').encode()\n\
                  check=dkim.DKIM(mail.encode('latin-1'))\n\
                  print([check.verify(idx=i,dnsfunc=find) for i in (0,1)])";
    let python = |program: &str, code: &str| {
        let mut command = tokio::process::Command::new(program);
        command.args(["-c", code]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        command
    };
    let mut found = None;
    // Debian's package is seen by Debian's Python alone.
    for program in ["python3", "/usr/bin/python3"] {
        let status = python(program, "import dkim, nacl").stderr(std::process::Stdio::null()).status().await;
        if status.is_ok_and(|status| status.success()) {
            found = Some(program);
        }
    }
    let Some(program) = found else {
        skip("Python has no dkim and nacl");
        return;
    };
    let bench = Bench::new().await;
    for text in ["Hello  \n\n  world\t\n \n\n", " \n", ""] {
        let content = Content { text: Some(text.into()), ..content() };
        // As a client may submit it, with blank lines at the end that nothing encodes.
        let submitted = format!("From: zoe@acme.dev\r\nSubject:  x\r\n\r\n{}", text.replace('\n', "\r\n"));
        for mail in [compose(&content).unwrap(), submitted.into_bytes()] {
            let raw = String::from_utf8(bench.signed(&mail)).unwrap();
            let mut child = python(program, script).spawn().unwrap();
            let input = serde_json::to_vec(&(raw, &bench.records)).unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut child.stdin.take().unwrap(), &input).await.unwrap();
            let output = child.wait_with_output().await.unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[True, True]", "{text:?}");
        }
    }
}
