//! Files and texts in Outlook's winmail.dat, from SMTP to payloads and links.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;

const FILES: &str = include_str!("../../fixtures/winmail-files.eml");
const ALONE: &str = include_str!("../../fixtures/winmail-alone.eml");
const DAMAGED: &str = include_str!("../../fixtures/winmail-damaged.eml");

/// Contents of the fixtures' files, by name.
const CONTENTS: [(&str, &[u8]); 6] = [
    ("Übersicht für März – 2026.xlsx", b"sheet"),
    ("naïve.txt", b"text\r\n"),
    ("after.csv", b"a,b"),
    ("счёт.doc", b"\xd0\xcf outer"),
    ("Старое письмо.txt", b"Z\0w\0e\0i\0\r\0\n\0Z\0e\0i\0l\0e\0n\0"),
    ("отчёт.pdf", b"%PDF-1.4 inner"),
];

fn content(name: &str) -> Option<&'static [u8]> {
    CONTENTS.iter().find(|(known, _)| *known == name).map(|(_, content)| *content)
}

fn names(event: &Value) -> Vec<&str> {
    let attachments = event["attachments"].as_array().unwrap();
    attachments.iter().map(|attachment| attachment["filename"].as_str().unwrap()).collect()
}

/// A mail large enough for an object file, so that it is decoded in pieces.
fn large(mail: &str) -> String {
    let padding = format!("X-Padding: {}\r\n", "x".repeat(900)).repeat(200);
    format!("{padding}{mail}")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_winmail_dat_have_ids_and_links_of_their_own() {
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let server = Server::start().await;
    server.webhook(&receiver.url()).await;
    let anonymous = server.anonymous();
    for mail in [FILES.to_owned(), ALONE.to_owned(), large(&FILES.replace("<winmail-files@", "<large@"))] {
        assert_eq!(server.mail("support@inbox.test", &mail).await.code, 250);
        let event = receiver.next_request().await.json();
        let id = event["id"].as_str().unwrap();
        let detail = server.api(&format!("/api/messages/{id}")).await.1;
        assert_eq!(detail["message"]["html_body"], event["html"]);
        assert_eq!(detail["message"]["text_body"], event["text"]);
        let mut served = 0;
        for (index, attachment) in event["attachments"].as_array().unwrap().iter().enumerate() {
            assert_eq!(attachment["id"], json!(format!("{id}:{index}")));
            assert_eq!(detail["attachments"][index]["id"], attachment["id"]);
            assert_eq!(detail["attachments"][index]["size"], attachment["size"]);
            let link = attachment["url"].as_str().unwrap();
            let path = &link[link.find("/att/").unwrap()..];
            let file = anonymous.exchange("GET", path, &[], None).await;
            assert_eq!((file.status, file.body.len() as u64), (200, attachment["size"].as_u64().unwrap()));
            let Some(content) = content(attachment["filename"].as_str().unwrap()) else { continue };
            assert_eq!(file.body, content);
            let part = anonymous.exchange("GET", path, &[("Range", "bytes=1-2")], None).await;
            assert_eq!((part.status, &part.body[..]), (206, &content[1..3]));
            served += 1;
        }
        assert_eq!(served, 3);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_winmail_dat_stands_in_for_one_that_the_mail_has_not() {
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let server = Server::start().await;
    server.webhook(&receiver.url()).await;
    let own = "Content-Type: text/html\r\n\r\n<p>own</p>\r\n--b\r\nContent-Type: application/ms-tnef";
    let with_html = FILES.replacen("Content-Type: application/ms-tnef", own, 1);
    for (mail, text, html) in [
        (
            FILES,
            "See the files.",
            Some("<html><body><p>Příklad <img src=\"cid:logo@example.com\"></p></body></html>"),
        ),
        (with_html.as_str(), "See the files.", Some("<p>own</p>")),
        (ALONE, "Привет\nиз тела", Some("<html><body><p>Привет € &amp; more</p></body></html>")),
        (DAMAGED, "Alone.", None),
    ] {
        assert_eq!(server.mail("support@inbox.test", mail).await.code, 250);
        let event = receiver.next_request().await.json();
        assert_eq!((&event["text"], &event["html"]), (&json!(text), &json!(html)));
        if mail == DAMAGED {
            assert_eq!(names(&event), ["WinMail.DAT", "winmail.dat", "other.dat"]);
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_storage_the_files_of_a_winmail_dat_are_in_the_payload() {
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let mut server = Server::start().await;
    server
        .write(|tx, _, _| Ok(tx.execute("UPDATE domain SET zero_retention = 1 WHERE name = 'inbox.test'", [])?))
        .await;
    server.webhook(&receiver.url()).await;
    for mail in [FILES.to_owned(), large(FILES), ALONE.to_owned(), large(ALONE)] {
        assert_eq!(server.mail("support@inbox.test", &mail).await.code, 250);
        let event = receiver.next_request().await.json();
        server.next_zero_retention_attempt().await;
        let mut held = 0;
        for attachment in event["attachments"].as_array().unwrap() {
            let bytes = BASE64.decode(attachment["content"].as_str().unwrap()).unwrap();
            assert_eq!(bytes.len() as u64, attachment["size"].as_u64().unwrap());
            if let Some(content) = content(attachment["filename"].as_str().unwrap()) {
                assert_eq!(bytes, content);
                held += 1;
            }
        }
        assert_eq!(held, 3);
        assert!(event["html"].as_str().unwrap().starts_with("<html>"));
    }
    server.stop().await;
}
