//! Tests beyond the golden mails: hostile structure, limits, and running time.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Quadratic time exceeds this on any machine; linear time is a moment.
const QUADRATIC: Duration = Duration::from_secs(60);

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

fn slice<'x>(raw: &'x [u8], part: &Part) -> &'x [u8] {
    let from = usize::try_from(part.offset).unwrap();
    &raw[from..from + usize::try_from(part.length).unwrap()]
}

/// Checks what holds for every message, however broken.
fn check_invariants(raw: &[u8]) -> Mail {
    let mail = read(raw, &Limits::default(), TextMode::Decode);
    let headers = Headers::read(raw).to_json();
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&headers).unwrap();
    assert!(object.keys().all(|name| !name.contains(char::is_control)));
    received_count_by(raw, "mx.acme.dev");
    let names = mail.header_from.iter().chain(&mail.header_to);
    let texts = names.flat_map(|named| [Some(&named.address), named.name.as_ref()]);
    for text in texts.chain([mail.subject.as_ref(), mail.message_id.as_ref(), mail.in_reply_to.as_ref()]).flatten() {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    assert!(mail.body_offset <= raw.len());
    for part in &mail.attachments {
        assert_eq!(decode_part(part.encoding, slice(raw, part)).len() as u64, part.size);
        let unsafe_char = |c: char| c.is_control() || matches!(c, '/' | '\\' | '\u{202e}');
        assert!(part.filename.as_ref().is_none_or(|name| !name.contains(unsafe_char)));
    }
    let texts = mail.text.as_ref().map_or(0, String::len) + mail.html.as_ref().map_or(0, String::len);
    let without_bodies = parse_without_bodies(raw);
    assert_eq!((&without_bodies.attachments, without_bodies.body_offset), (&mail.attachments, mail.body_offset));
    assert!(texts <= (raw.len() * 2).max(256 * 1024) + 1000, "{texts} of {}", raw.len());
    mail
}

#[test]
fn the_sender_is_the_one_from_address_else_the_envelope_sender_else_mailer_daemon() {
    let one = parse(b"From: Ada <ada@example.com>\r\n\r\n");
    assert_eq!(one.sender_address("bounce@example.com", "mx.acme.dev"), "ada@example.com");
    let twice = parse(b"From: Ada <ada@example.com>\r\nFrom: Ada <ada@example.com>\r\n\r\n");
    assert_eq!(twice.sender_address("bounce@example.com", "mx.acme.dev"), "ada@example.com");
    assert_eq!((twice.from_fields, twice.header_from.len(), twice.author), (2, 1, None), "no author to rely on");
    for raw in [
        "From: a@example.com, b@example.com\r\n\r\n",
        "From: a@example.com\r\nFrom: b@example.com\r\n\r\n",
        "From: a@example.com\r\nFrom: nobody\r\n\r\n",
        "From: nobody\r\nFrom: a@example.com\r\n\r\n",
        "\r\n",
    ] {
        let mail = parse(raw.as_bytes());
        assert_eq!(mail.sender_address("bounce@example.com", "mx.acme.dev"), "bounce@example.com", "{raw}");
        assert_eq!(mail.sender_address("", "mx.acme.dev"), "MAILER-DAEMON@mx.acme.dev");
    }
}

#[test]
fn a_display_name_belongs_to_its_own_address() {
    let mail = parse(b"To: Support <Support@acme.dev>, sales@acme.dev\r\nCc: \"The Boss\" <boss@acme.dev>\r\n\r\n");
    assert_eq!(display_name(&mail.header_to, "support@acme.dev"), Some("Support"));
    assert_eq!(display_name(&mail.header_to, "sales@acme.dev"), None);
    assert_eq!(display_name(&mail.header_to, "boss@acme.dev"), None);
    assert_eq!(display_name(&mail.header_cc, "boss@acme.dev"), Some("The Boss"));
}

#[test]
fn a_thread_is_named_by_what_is_answered_or_by_the_message_itself() {
    let answer = parse(b"Message-ID: <b@x>\r\nIn-Reply-To: <a@x> <z@x>\r\n\r\n");
    assert_eq!(answer.thread_id(), Some("<a@x>"));
    assert_eq!(parse(b"Message-ID: b@x\r\n\r\n").thread_id(), Some("<b@x>"));
    assert_eq!(parse(b"In-Reply-To: your message of Tuesday\r\n\r\n").thread_id(), None);
}

#[test]
fn trace_fields_stand_first_and_nobody_speaks_in_their_name() {
    let trace = "Authentication-Results: mx.acme.dev;\r\n\tspf=fail\r\nReceived: from x by mx.acme.dev\r\n";
    let raw = b"Received: older\r\nAuthentication-Results: MX.acme.dev; spf=pass\r\nSubject: x\r\n\
                Authentication-Results: other.example; spf=none\r\n\r\n";
    let expected = r#"{"authentication-results":"mx.acme.dev; spf=fail\nother.example; spf=none","received":"from x by mx.acme.dev\nolder","subject":"x"}"#;
    assert_eq!(Headers::read(raw).after_trace(trace).to_json(), expected);
    let stored = Headers::parse(&Headers::read(raw).to_json()).unwrap();
    assert_eq!(stored.after_trace(trace).to_json(), expected);
}

#[test]
fn headers_are_one_json_object_in_order_with_repeated_fields_joined() {
    let raw = b"Received: one\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nRECEIVED: two\r\n three\r\nX-\"Q\": \"\xff\"\r\n\r\nbody: no\r\n";
    assert_eq!(Headers::read(raw).to_json(), r#"{"received":"one\ntwo three","subject":"Grüße","x-\"q\"":"\"ÿ\""}"#);
    assert_eq!(Headers::read(b"").to_json(), "{}");
}

#[test]
fn automatic_and_bulk_mail_is_recognised() {
    assert!(parse(b"Auto-Submitted: auto-replied (vacation)\r\n\r\n").auto_submitted);
    assert!(!parse(b"Auto-Submitted: No\r\n\r\n").auto_submitted);
    assert!(parse(b"Precedence: bulk\r\n\r\n").bulk);
    assert!(parse(b"List-Id: <x.example>\r\n\r\n").bulk);
    assert!(!parse(b"Subject: x\r\n\r\n").bulk);
}

#[test]
fn limits_end_the_reading_and_are_told() {
    let million =
        [b"Content-Type: multipart/mixed; boundary=b\r\n\r\n".as_slice(), &b"--b\n".repeat(1_000_000)].concat();
    let many_fields = b"X: y\r\n".repeat(5000);
    let endless = b"X-Long: "
        .iter()
        .copied()
        .chain(b"\r\n yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy".repeat(100_000))
        .collect();
    let no_end = b"a".repeat(4_000_000);
    let mut deep = Vec::new();
    for level in 0..150 {
        deep.extend(format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n").into_bytes());
    }
    deep.extend(b"\r\nbottom\r\n");
    for (raw, truncated) in [(million, true), (many_fields, true), (endless, true), (no_end, false), (deep, true)] {
        let start = Instant::now();
        let mail = check_invariants(&raw);
        assert_eq!(mail.truncated, truncated);
        assert!(start.elapsed() < QUADRATIC, "{:?}", start.elapsed());
    }
}

#[test]
fn the_body_is_found_behind_a_header_that_is_too_long() {
    let mut raw = b"Subject: kept\r\n".to_vec();
    raw.extend(b"X: y\r\n".repeat(2000));
    raw.extend(b"Message-ID: <late@x>\r\n\r\nbody\r\n");
    let mail = parse(&raw);
    assert_eq!((mail.subject.as_deref(), mail.text.as_deref(), mail.message_id), (Some("kept"), Some("body"), None));
    assert!(mail.truncated);
}

#[test]
fn hostile_structures_take_bounded_time() {
    let head = "Content-Type: multipart/mixed; boundary=b\n\n";
    let mut many_open = String::new();
    for level in 0..99 {
        many_open.push_str(&format!("Content-Type: multipart/mixed; boundary=\"{level:060}\"\n\n--{level:060}\n"));
    }
    let unnamed = |n| format!("Content-Type: multipart/mixed; boundary=a{n}\n\n--q{n}\n");
    let unnamed: String = (0..90).map(unnamed).collect();
    for (name, raw) in [
        ("dashes", format!("{head}--b\n\n{}", "--\n".repeat(2_000_000))),
        ("dashes below 99 levels", format!("{many_open}\n{}", format!("--{:060}x\n", 7).repeat(60_000))),
        ("self nesting", format!("{head}{}", "--b\nContent-Type: multipart/mixed; boundary=b\n\n".repeat(50_000))),
        ("parameters", format!("Content-Type: multipart/mixed{}\n\n", ";a=b".repeat(60_000))),
        ("sections", format!("Content-Disposition: x{}\n\n", ";filename*4000000000=b".repeat(10_000))),
        ("word starts", format!("Subject: {}\n\n", "=?a?q?".repeat(40_000))),
        ("words", format!("Subject: {}\n\n", "=?a?q?=?=".repeat(25_000))),
        ("escapes", format!("Content-Type: text/plain; name=\"{}\n\n", "\\\"".repeat(100_000))),
        ("equals", format!("Content-Transfer-Encoding: quoted-printable\n\n{}", "= ".repeat(2_000_000))),
        ("blanks", format!("Content-Transfer-Encoding: quoted-printable\n\n{}", " ".repeat(4_000_000))),
        ("nested messages", "Content-Type: message/rfc822\n\n".repeat(100_000)),
        ("mbox lines", format!("{}Subject: x\n\nbody", "From a\n".repeat(150_000))),
        ("mbox lines behind a field", format!("A: b\n{}\nbody", ">From a\n".repeat(150_000))),
        ("mbox lines in a part", format!("{head}--b\nA: b\n{}\n", ">From a\n".repeat(150_000))),
        ("ids and prose", format!("In-Reply-To: {} x\n\n", "<a@b>\n ".repeat(35_000))),
        ("charsets", format!("Content-Type: a/b; name=\"{}\"\n\n", "=?b?q?x?= =?c?q?x?= ".repeat(12_000))),
        ("boundaries that are not named", format!("{unnamed}{}", "\n--x\n".repeat(60_000))),
        ("files in a text", format!("\n{}", "begin 644 a\n#0V%T\n`\nend\n".repeat(100_000))),
        ("files without an end", format!("\n{}", "begin 644 a\n#0V%T\n".repeat(200_000))),
        ("text as base64", format!("Content-Transfer-Encoding: base64\n\n{}", "SGVs=\nno data\n".repeat(200_000))),
        ("comments", format!("Received: by {}\nFrom: {}\n\n", "(".repeat(100_000), "(".repeat(100_000))),
    ] {
        let raw = crlf(&raw);
        let start = Instant::now();
        check_invariants(&raw);
        assert!(start.elapsed() < QUADRATIC, "{name}: {:?}", start.elapsed());
    }
}

#[test]
fn text_that_grows_in_decoding_is_cut_at_twice_the_message() {
    let mut raw = b"Content-Type: text/plain; charset=utf-8\r\n\r\n".to_vec();
    raw.extend(b"\xff".repeat(3_000_000));
    let mail = check_invariants(&raw);
    assert!(mail.truncated);
    let reserved = (raw.len() * 2).max(33 << 20);
    assert!(mail.text.unwrap().capacity() <= reserved + 16, "it never grew beyond what was set aside");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_bytes_are_read_without_panic(raw in proptest::collection::vec(any::<u8>(), 0..2000)) {
        check_invariants(&raw);
    }

    #[test]
    fn no_attachment_is_lost_by_a_line_in_a_header_that_is_no_field(
        line in proptest::sample::select(ODD_LINES), at in any::<proptest::sample::Index>(), parts in 1_usize..6,
    ) {
        let (mut lines, mut places) = (Vec::new(), Vec::new());
        let mut header = |lines: &mut Vec<String>, fields: &[&str]| {
            places.extend(lines.len()..=lines.len() + fields.len());
            lines.extend(fields.iter().map(ToString::to_string));
            lines.push(String::new());
        };
        header(&mut lines, &["From: a@b.example", "Subject: x", "Content-Type: multipart/mixed;", " boundary=q"]);
        for part in 0..parts {
            lines.push("--q".to_owned());
            header(&mut lines, &[&format!("Content-Type: application/pdf; name={part}"), "Content-Description: x"]);
            lines.push(format!("body {part}"));
        }
        lines.push("--q--".to_owned());
        lines.insert(*at.get(&places), line.to_owned());
        let mail = check_invariants(lines.join("\r\n").as_bytes());
        prop_assert_eq!(mail.attachments.len(), parts, "{:?}", lines);
    }

    #[test]
    fn every_line_is_in_the_part_that_it_stands_in(
        tree in proptest::collection::vec((0_usize..4, 0_usize..3), 1..12),
    ) {
        // Each step opens a multipart, some with the boundary of another, adds a part, or closes the innermost.
        let (mut raw, mut open, mut bodies) = (String::from("Content-Type: multipart/mixed; boundary=b0\r\n\r\ngap\r\n"), vec![0], 0);
        for (step, boundary) in tree {
            let Some(innermost) = open.last().copied() else { break };
            match step {
                0 => {
                    raw += &format!("--b{innermost}\r\nContent-Type: multipart/mixed; boundary=b{boundary}\r\n\r\ngap\r\n--b{boundary}\r\n\r\nbody {bodies}.\r\n");
                    open.push(boundary);
                    bodies += 1;
                }
                1 | 2 => {
                    raw += &format!("--b{innermost}\r\nContent-Type: text/x\r\n\r\nbody {bodies}.\r\n");
                    bodies += 1;
                }
                _ if open.len() > 1 => {
                    raw += &format!("--b{innermost}--\r\ngap\r\n");
                    open.pop();
                }
                _ => {}
            }
        }
        for boundary in open.iter().rev() {
            raw += &format!("--b{boundary}--\r\n");
        }
        let structure = walk::walk(raw.as_bytes(), &Limits::default(), |_| {});
        let (mut gaps, mut end, mut found) = (String::new(), 0, 0);
        for leaf in structure.leaves.iter().filter(|_| bodies > 0) {
            prop_assert!(end <= leaf.body.start, "parts overlap");
            gaps += raw.get(end..leaf.body.start).unwrap();
            let body = format!("body {found}.");
            prop_assert_eq!(raw.get(leaf.body.clone()).unwrap(), body.as_str());
            (end, found) = (leaf.body.end, found + 1);
        }
        gaps += raw.get(end..).unwrap();
        prop_assert_eq!(found, bodies);
        let is_between = |line: &str| line.is_empty() || ["--b", "Content-Type: ", "gap"].iter().any(|it| line.starts_with(it));
        prop_assert!(bodies == 0 || gaps.lines().all(is_between), "{}", gaps);
    }

    #[test]
    fn scraps_of_mail_in_any_order_are_read_without_panic(
        scraps in proptest::collection::vec(proptest::sample::select(SCRAPS), 0..60),
    ) {
        check_invariants(scraps.concat().as_bytes());
    }
}

const ODD_LINES: &[&str] = &[
    "From a@b.example  Tue Jul 28 00:00:00 2026",
    ">From a@b.example",
    ": value",
    "scanned by the gateway",
    "X Result: clean",
    "X-Gr\u{fc}n: y",
    "\u{feff}",
    "<b>Warning</b>: mail() failed",
    "no colon; but=this",
    " indented",
    "\u{1}\u{2} =?utf-8?q?x?=",
    "HTTP/1.1 200 OK",
];

const SCRAPS: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "--b",
    "--b\r\n",
    "--b--\r\n",
    "--c\r\n",
    "\r",
    "\n",
    " ",
    "\t",
    "\0",
    "\u{b}",
    "\u{c}",
    "\u{85}",
    ":",
    ";",
    "=",
    "?",
    "\"",
    "\\",
    "<",
    ">",
    "(",
    ")",
    ",",
    "Content-Type: multipart/mixed; boundary=b\r\n",
    "Content-Type: multipart/alternative; boundary=\"c\"\r\n",
    "Content-Type: message/rfc822\r\n",
    "Content-Type: text/html; charset=utf-16\r\n",
    "Content-Type: text/plain; charset=utf-7\r\n",
    "Content-Type: text/plain; charset=iso-2022-kr\r\n",
    "Content-Type: text/plain; charset=hz-gb-2312; name=a.txt\r\n",
    "Content-Transfer-Encoding: base64\r\n",
    "Content-Transfer-Encoding: quoted-printable\r\n",
    "Content-Disposition: attachment; filename*0*=utf-8''%C3; filename*1*=%A4\r\n",
    "Content-ID: <x>\r\n",
    "From: ",
    "To: ",
    "Subject: ",
    "a@b.example",
    "=?utf-8?Q?=C3?=",
    "=?utf-8?B?w6Q?=",
    "=?iso-2022-jp?B?GyRC?=",
    "=C3=A4",
    "SGVsbG8=",
    "+ADw-",
    "~{<:",
    "\u{202e}",
    "Received: from x by mx.acme.dev; y\r\n",
    "In-Reply-To: <a@b>\r\n",
];
