//! A payload generated from the mail data equals the one built whole, byte for byte.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::content::StoredContent;
use crate::id::MessageId;
use crate::mail::mime;
use crate::webhook::attempt::zero_retention::{EventMetadata, payload_of};

fn metadata() -> EventMetadata {
    EventMetadata {
        id: MessageId::parse("msg_2Hk9QpVn4tLdA1B2").unwrap(),
        from_addr: "ada@example.com".to_owned(),
        from_name: Some("Ada \"\u{1}\" Lovelace".to_owned()),
        to_addr: "support@acme.dev".to_owned(),
        to_name: None,
        spf: Some("pass".to_owned()),
        dkim: None,
        dmarc: None,
        spam: None,
        received_at: Timestamp::from_millis(1_785_196_800_000),
    }
}

/// Compares both forms and returns the length of the payload.
fn assert_same(raw: &[u8], what: &str) -> usize {
    let whole = payload_of(&metadata(), raw.to_vec(), usize::MAX).into_bytes();
    let written = payload_of(&metadata(), raw.to_vec(), 0);
    let mut joined = Vec::new();
    for piece in written.pieces() {
        assert!(!piece.is_empty());
        joined.extend_from_slice(&piece);
    }
    let differs = whole.iter().zip(&joined).position(|(a, b)| a != b);
    assert!(
        whole == joined,
        "{what}: {} and {} bytes, the first that differs: {differs:?}",
        whole.len(),
        joined.len()
    );

    let mut mail = mime::parse(raw);
    let parsed = mime::parse_streaming(&Bytes::copy_from_slice(raw));
    let length = |text: &Option<LocatedText>| text.as_ref().map(LocatedText::len);
    assert_eq!(length(&parsed.text), mail.text.as_ref().map(String::len), "{what}");
    assert_eq!(length(&parsed.html), mail.html.as_ref().map(String::len), "{what}");
    (mail.text, mail.html) = (None, None);
    assert_eq!(parsed.mail, mail, "{what}");
    whole.len()
}

fn mail(content_type: &str, encoding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("Subject: x\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

const CHARSETS: [&str; 16] = [
    "utf-8",
    "iso-8859-1",
    "windows-1252",
    "tis-620",
    "iso-2022-jp",
    "shift_jis",
    "euc-kr",
    "gb18030",
    "big5",
    "utf-16",
    "utf-16le",
    "utf-32",
    "utf-7",
    "cp437",
    "hz-gb-2312",
    "iso-2022-kr",
];

#[test]
fn of_every_fixture() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "eml") {
            assert_same(&fs::read(&path).unwrap(), &path.display().to_string());
            count += 1;
        }
    }
    assert!(count >= 60);
}

#[test]
fn of_characters_escapes_and_line_breaks_across_every_border() {
    let units: [&[u8]; 9] =
        ["é".as_bytes(), "€".as_bytes(), "🐝".as_bytes(), b"\x01", b"\"\\", b"\r\n", b"\r", b"\0\n\r\n", b"\xe9\x80"];
    for charset in CHARSETS {
        for unit in units {
            // Chunk boundaries are at multiples of 8 and 16 KiB.
            for shift in 0..4 {
                let body = [b"x".repeat(shift), unit.repeat(40_000 / unit.len())].concat();
                let what = format!("{charset} {unit:x?} {shift}");
                assert_same(&mail(&format!("text/plain; charset={charset}"), "8bit", &body), &what);
            }
        }
    }
}

#[test]
fn of_encoded_texts_across_every_border() {
    let text = "Grüße €5 🐝 \u{1} \"q\" \\ \r\n".repeat(3000);
    for shift in 0..6 {
        let plain = ["x".repeat(shift), text.clone()].concat();
        let folded: Vec<&[u8]> = plain.as_bytes().chunks(57).collect();
        let lines: Vec<Vec<u8>> = folded.iter().map(|line| mime::base64_lines(line)).collect();
        assert_same(&mail("text/html; charset=utf-8", "base64", &lines.join(&b"\r\n"[..])), "base64");
        let quoted: String = plain.bytes().map(|byte| format!("={byte:02X}")).collect();
        let quoted: Vec<&[u8]> = quoted.as_bytes().chunks(75).collect();
        assert_same(&mail("text/plain; charset=utf-8", "quoted-printable", &quoted.join(&b"=\r\n"[..])), "quoted");
    }
}

#[test]
fn of_texts_that_are_cut_to_twice_the_size_of_the_mail() {
    for (first, second) in [("windows-1252", "utf-8"), ("utf-8", "windows-1252"), ("windows-1252", "windows-1252")] {
        for shift in 0..4 {
            let euro = b"\x80".repeat(150_000 + shift);
            let other = if second == "utf-8" { "\r\né".repeat(40_000).into_bytes() } else { euro.clone() };
            let raw = [
                &b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset="[..],
                first.as_bytes(),
                b"\r\n\r\n",
                &euro,
                b"\r\n--b\r\nContent-Type: text/html; charset=",
                second.as_bytes(),
                b"\r\n\r\n",
                &other,
                b"\r\n\r\n\r\n--b\r\n\r\n\r\nlast\r\n\r\n--b--\r\n",
            ]
            .concat();
            assert_same(&raw, &format!("{first} {second} {shift}"));
        }
    }
}

#[test]
fn of_more_than_is_held_whole() {
    let euro = mail("text/plain; charset=windows-1252", "8bit", &b"\x80\x01\r\n".repeat(WHOLE_MAX / 4));
    assert!(assert_same(&euro, "euro") > 2 * WHOLE_MAX);
    // At most 4 MiB of a text in such a character set are decoded.
    let boxes = mail("text/plain; charset=cp437", "8bit", &b"\xb0".repeat(7 << 20));
    assert!(assert_same(&boxes, "cp437") > 3 * (4 << 20));
    let file = mail("application/octet-stream", "binary", &b"\0\xff\x80".repeat(WHOLE_MAX));
    assert!(assert_same(&file, "file") > 4 * WHOLE_MAX);
}

#[test]
fn what_it_holds_is_the_texts_alone_where_they_are_the_smaller_part() {
    let text = "\u{e9}\r\n".repeat(WHOLE_MAX / 2);
    let file = "A".repeat(4 * text.len());
    let raw = format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\
         \r\n--b\r\nContent-Type: application/x\r\n\r\n{file}\r\n--b--\r\n"
    );
    let whole = mime::parse(raw.as_bytes()).text.unwrap();
    let texts = StoredContent::Raw(raw.into_bytes()).texts(WHOLE_MAX).unwrap();
    let placed = if let Texts::Placed(text, None) = texts { text } else { None };
    let placed = placed.unwrap();
    assert_eq!(placed.encoded_len(), text.len());
    let (mut reader, mut read) = (TextReader::new(&placed), String::new());
    while reader.read(&mut read) {}
    assert!(read == whole);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn of_any_message(
        parts in prop::collection::vec((
            prop::sample::select(CHARSETS.to_vec()),
            prop::sample::select(vec!["text/plain", "text/html", "application/x", "text/x"]),
            prop::sample::select(vec!["8bit", "base64", "quoted-printable"]),
            prop::collection::vec(prop_oneof![
                any::<u8>().prop_map(|byte| vec![byte]),
                prop::sample::select(vec!["\r\n", "\r", "\n", "=\r\n", "=80", "= ", "€", "🐝", "\u{feff}", "\x1b$B", "~{", "+ADw-"])
                    .prop_map(|text| text.as_bytes().to_vec()),
            ], 0..60),
            1_usize..800,
        ), 1..5),
    ) {
        let mut raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
        for (charset, kind, encoding, units, times) in parts {
            let head = format!(
                "--b\r\nContent-Type: {kind}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
            );
            raw.extend_from_slice(head.as_bytes());
            raw.extend_from_slice(&units.concat().repeat(times));
            raw.extend_from_slice(b"\r\n");
        }
        assert_same(&raw, "any message");
    }
}
