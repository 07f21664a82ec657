//! The composed mail data, parsed by our own reader and inspected octet by octet.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;
use crate::mail::mailbox_list::{parse_list, parse_one};
use crate::mail::mime;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

fn sample() -> Content {
    Content {
        from: parse_one("Acme <hi@acme.dev>").unwrap(),
        to: parse_list("Ada Lovelace <ada@example.com>").unwrap(),
        cc: Vec::new(),
        reply_to: Vec::new(),
        subject: "Hi".to_owned(),
        text: Some("Does it branch?".to_owned()),
        html: None,
        in_reply_to: None,
        headers: Vec::new(),
        attachments: Vec::new(),
        message_id: "<2Hk9QpVn4tLdA1B2@acme.dev>".to_owned(),
        date: NOW,
    }
}

/// Composes the mail data and asserts that any host can take it.
fn wire(content: &Content) -> String {
    let data = compose(content).unwrap();
    assert!(data.iter().all(|byte| byte.is_ascii() && *byte != 0), "7 bit, no NUL");
    let text = String::from_utf8(data).unwrap();
    let bare = text.replace("\r\n", "");
    assert!(!bare.contains(['\r', '\n']), "CRLF alone");
    let head = text.split("\r\n\r\n").next().unwrap();
    assert!(text.lines().all(|line| line.len() <= 998), "no line is too long");
    for line in head.split("\r\n") {
        assert!(line.len() <= 998 && !line.trim().is_empty(), "{line:?}");
    }
    let names: Vec<String> = head
        .split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split(':').next().unwrap().to_lowercase())
        .collect();
    let mut once = names.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), names.len(), "each field once: {names:?}");
    assert!(!names.iter().any(|name| name == "bcc"));
    text
}

#[test]
fn a_plain_message() {
    assert_eq!(
        wire(&sample()),
        "From: \"Acme\" <hi@acme.dev>\r\nTo: \"Ada Lovelace\" <ada@example.com>\r\nSubject: Hi\r\n\
         Date: Tue, 28 Jul 2026 00:00:00 +0000\r\nMessage-ID: <2Hk9QpVn4tLdA1B2@acme.dev>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=\"utf-8\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\nDoes it branch?"
            .replace("\"Acme\"", wire(&sample()).split(['"', '<']).nth(1).map_or("Acme", |_| "\"Acme\""))
    );
}

#[test]
fn any_text_comes_back_as_it_was() {
    let long = "x".repeat(5_000);
    let many = "Zeile mit Umlaut äöü und 🦀\n".repeat(2_000);
    for text in [
        "",
        ".",
        ".\n..\n.leading dot",
        "From here on",
        "trailing blanks  \nand tabs\t\n",
        "one\r\ntwo\rthree\nfour",
        "= equals == =3D",
        "a bell \u{7} and \u{1b}[1mbold\u{1b}[0m and \0",
        "ends in blank lines\n \n\t\n",
        "日本語のテキスト\n絵文字 👩‍👩‍👧‍👦",
        long.as_str(),
        many.as_str(),
    ] {
        let content = Content { text: Some(text.to_owned()), html: Some(format!("<p>{text}</p>")), ..sample() };
        let mail = mime::parse(wire(&content).as_bytes());
        let wanted = text.replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(mail.text.unwrap().trim_end(), wanted.trim_end(), "{text:.40}");
        assert_eq!(mail.html.unwrap().trim_end(), format!("<p>{wanted}</p>"), "{text:.40}");
    }
}

#[test]
fn base64_hides_no_line_break_that_is_not_canonical() {
    for text in ["日本語\nテキスト\n", "one\rtwo\r\nthree\n\u{7}"] {
        let text = wire(&Content { text: Some(text.to_owned()), ..sample() });
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Content-Transfer-Encoding: base64"), "{head}");
        let decoded = String::from_utf8(BASE64.decode(body.replace("\r\n", "")).unwrap()).unwrap();
        assert!(decoded.contains("\r\n") && !decoded.replace("\r\n", "").contains(['\r', '\n']), "{decoded:?}");
    }
}

#[test]
fn subjects_and_names_come_back_as_they_were() {
    let long = "🦀".repeat(998);
    for text in [
        "Grüße",
        "Grüße  aus   Köln und Ä Ö",
        "Ä  x  Ö",
        "=?utf-8?q?x?=",
        long.as_str(),
        "a \"quoted\" \\ name, with <all>",
        "x".repeat(998).as_str(),
    ] {
        let mut content = Content { subject: text.to_owned(), ..sample() };
        // Readers decode encoded words in a quoted name too, although they should not.
        content.from.name = Some(text.replace("=?", "= ?").chars().take(200).collect());
        content.to = vec![content.from.clone(); 50];
        let mail = mime::parse(wire(&content).as_bytes());
        assert_eq!(mail.subject.as_deref(), Some(text));
        let text: String = text.replace("=?", "= ?").chars().take(200).collect();
        assert_eq!(mail.header_from.first().unwrap().name.as_deref(), Some(text.as_str()));
        assert_eq!(mail.header_to.len(), 50);
    }
}

#[test]
fn files_arrive_octet_for_octet_under_their_names() {
    let every: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let files = [
        ("po.pdf", Some("application/pdf"), every.clone()),
        ("Rechnung März, \"2026\".txt", Some("text/plain; charset=utf-8"), b"line\nbare\rlf\r\n.\r\n".to_vec()),
        ("x", Some("no type"), b"1".to_vec()),
        ("y", Some("multipart/mixed; boundary=a"), b"2".to_vec()),
        ("z", None, Vec::new()),
    ];
    let attachments = files
        .iter()
        .map(|(filename, content_type, content)| Attachment {
            filename: (*filename).to_owned(),
            content_type: content_type.map(str::to_owned),
            content: content.clone().into(),
        })
        .collect();
    let text = wire(&Content { attachments, html: Some("<b>x</b>".to_owned()), ..sample() });
    let mail = mime::parse(text.as_bytes());
    assert_eq!(mail.text.as_deref(), Some("Does it branch?"));
    assert_eq!(mail.attachments.len(), files.len());
    for (part, (filename, content_type, content)) in mail.attachments.iter().zip(&files) {
        assert_eq!(part.filename.as_deref(), Some(*filename));
        let known = content_type.filter(|given| given.contains('/') && !given.starts_with("multipart"));
        let wanted = known.map_or("application/octet-stream", |given| given.split(';').next().unwrap());
        assert_eq!(part.content_type.as_deref(), Some(wanted));
        let (from, length) = (usize::try_from(part.offset).unwrap(), usize::try_from(part.length).unwrap());
        let encoded = text.as_bytes().get(from..from + length).unwrap();
        assert_eq!(mime::decode_part(part.encoding, encoded), *content, "{filename}");
    }
}

#[test]
fn a_name_that_needs_rfc_2231_stands_whole_in_name_too() {
    let long = format!("{}.pdf", "ä".repeat(120));
    for (filename, kind, wanted) in [
        ("Rechnung für Müller & Söhne GmbH vom März.pdf", None, None),
        ("очень длинное имя файла для проверки.pdf", None, None),
        (long.as_str(), None, None),
        ("ä\"b\".pdf", None, None),
        ("quarterly \"report\" of all that was sold in every shop of the whole country in the year.pdf", None, None),
        (
            "a.pdf",
            Some("application/pdf; name=\"Müller & Söhne, eine sehr lange Rechnung.pdf\"; x=y"),
            Some("Müller & Söhne, eine sehr lange Rechnung.pdf"),
        ),
        ("ä.pdf", Some("application/pdf; name=b.pdf"), Some("b.pdf")),
        ("a.txt", Some("text/plain; charset=utf-8; name=\"=?utf-8?q?x?=\""), Some("x")),
    ] {
        let file = Attachment {
            filename: filename.to_owned(),
            content_type: kind.map(str::to_owned),
            content: b"x".as_slice().into(),
        };
        let text = wire(&Content { attachments: vec![file], ..sample() });
        assert!(!text.contains(" name*"), "{text}");
        assert!(text.lines().filter(|line| line.contains("=?")).all(|line| line.len() <= 76), "{text}");
        let start = text.rfind("Content-Type: ").unwrap() + "Content-Type: ".len();
        let field = text.get(start..).unwrap().split("\r\nContent-").next().unwrap();
        let read = mime::ParameterizedValue::parse(field.as_bytes());
        assert_eq!(read.get("name").as_deref(), Some(wanted.unwrap_or(filename)), "{field}");
        // Each word is whole: nothing else stands between quotes and folds.
        if let Some((_, words)) = field.split_once("\"=?") {
            for word in format!("=?{words}").trim_end_matches('"').split("\r\n ") {
                assert!(word.starts_with("=?utf-8?B?") && word.ends_with("?="), "{field}");
            }
        }
        let mail = mime::parse(text.as_bytes());
        assert_eq!(mail.attachments.first().unwrap().filename.as_deref(), Some(filename));
    }
}

#[test]
fn own_headers_stand_beside_ours_and_replace_those_for_threading() {
    let content = Content {
        in_reply_to: Some("<a@b.test>".to_owned()),
        headers: vec![
            ("X-Order".to_owned(), "1017 Grüße".to_owned()),
            ("references".to_owned(), "<c@d.test> <a@b.test>".to_owned()),
            ("List-Unsubscribe".to_owned(), format!("<https://acme.dev/{}>, <mailto:u@acme.dev>", "u".repeat(800))),
        ],
        ..sample()
    };
    let text = wire(&content);
    let unfolded = text.replace("\r\n ", " ");
    assert!(
        unfolded
            .contains(&format!("List-Unsubscribe: <https://acme.dev/{}>, <mailto:u@acme.dev>\r\n", "u".repeat(800)))
    );
    assert!(text.contains("In-Reply-To: <a@b.test>\r\n") && text.contains("references: <c@d.test> <a@b.test>\r\n"));
    let headers: serde_json::Value = serde_json::from_str(&mime::Headers::read(text.as_bytes()).to_json()).unwrap();
    assert_eq!(headers.get("x-order").and_then(serde_json::Value::as_str), Some("1017 Grüße"));
    assert!(text.contains("X-Order: 1017 =?utf-8?B?"), "only what has to be encoded is");
}

#[test]
fn headers_that_are_refused() {
    for name in [
        "From",
        "bcc",
        "CONTENT-TYPE",
        "Content-",
        "message-id",
        "DKIM-Signature",
        "received",
        "Authentication-Results",
        "ARC-Seal",
        "arc-x",
        "Resent-From",
        "resent-sender",
        "Received-SPF",
        "Return-Path",
        "Delivered-To",
        "DomainKey-Signature",
        "X-Mailkite-Copies",
    ] {
        assert_eq!(check_header(name, "x"), Err(ComposeError::Reserved), "{name}");
    }
    for name in ["", "X Order", "X-Order:", "Ünï", "X\r\n"] {
        assert_eq!(check_header(name, "x"), Err(ComposeError::Name), "{name}");
    }
    for value in ["a\r\nBcc: x@y.test", "a\nb", "a\0", "\u{7f}", "a\tb"] {
        assert_eq!(check_header("X-Order", value), Err(ComposeError::ControlCharacter), "{value:?}");
    }
    assert_eq!(check_header("X-Order", "Grüße 🦀"), Ok(()));
    for bad in ["", "a", "a@b.test, c@d.test", "\u{202e}a@b.test"] {
        assert_eq!(check_header("sender", bad), Err(ComposeError::Sender), "{bad:?}");
    }
    assert_eq!(check_header("Sender", "Grüße <a@b.test>"), Ok(()));
    assert_eq!(thread_header("a@b"), Ok("<a@b>".to_owned()));
    assert_eq!(thread_header(" <a@b> "), Ok("<a@b>".to_owned()));
    for bad in ["", "<>", "a b", "<a>\r\n", "<a> <b>"] {
        assert!(thread_header(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn every_line_break_becomes_a_crlf() {
    for (text, wanted) in [
        ("", ""),
        ("a", "a"),
        ("a\nb\rc\r\nd", "a\r\nb\r\nc\r\nd"),
        ("\r\r\n\n\r", "\r\n\r\n\r\n\r\n"),
        ("é\r\né\n", "é\r\né\r\n"),
    ] {
        assert_eq!(lines(text.into()), wanted, "{text:?}");
    }
}

#[test]
fn a_letter_that_is_used_up_becomes_the_same_mail() {
    let file = Attachment { filename: "a.bin".to_owned(), content_type: None, content: vec![7; 100].into() };
    let mut content = Content { attachments: vec![file], text: Some("a\nb".to_owned()), ..sample() };
    let boundary = |mail: Vec<u8>| {
        let mail = String::from_utf8(mail).unwrap();
        let boundary = mail.split("boundary=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        mail.replace(&boundary, "b")
    };
    let whole = compose(&content).unwrap();
    assert_eq!(boundary(compose_last(&mut content).unwrap()), boundary(whole));
    assert!(content.text.is_none() && content.attachments.iter().all(|file| file.content.is_empty()));
}
