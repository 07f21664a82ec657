//! Targets of sending: DSNs and abuse reports, envelope senders of our own form, lists of mailboxes.

use mailkite::testing::clock::Timestamp;
use mailkite::testing::id::MessageId;
use mailkite::testing::mail::address::Mailbox;
use mailkite::testing::mail::mailbox_list;
use mailkite::testing::mail::report::{self, Report};
use mailkite::testing::outbound::return_path::{BounceTag, ReturnPath, ReturnPaths};

const HOSTNAME: &str = "mx.mailkite.test";
const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

pub const REPORT_WORDS: &[&[u8]] = &[
    b"\r\n\r\n",
    b"\r\nFinal-Recipient: rfc822; a@b.test",
    b"\r\nOriginal-Recipient: utf-8; \\x{fc}@b.test",
    b"\r\nAction: failed",
    b"\r\nAction: delayed",
    b"\r\nStatus: 5.1.1",
    b"\r\nStatus: 5",
    b"\r\nDiagnostic-Code: smtp; 550 5.1.1 no",
    b"\r\n ",
    b"\r\nFeedback-Type: abuse",
    b"\r\nOriginal-Rcpt-To: <a@b.test>",
    b"\r\nContent-Type: message/delivery-status\r\n\r\n",
    b"\r\nX-Failed-Recipients: a@b.test, c@d.test",
    b"\x1b[31m",
    b"\xff",
    b"--b\r\n",
];
pub const PATH_WORDS: &[&[u8]] =
    &[b"SRS0=", b"SRS1=", b"==", b"=", b"bounce+", b"@mx.mailkite.test", b"\"", b"\xc3\xbc"];
pub const LIST_WORDS: &[&[u8]] = &[
    b", ",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"(",
    b")",
    b" <a@b.test>",
    b"=?utf-8?B?",
    b"?=",
    b":",
    b";",
    b"\r\n",
    b"\xc3\xbc",
];

pub fn reports() -> Vec<Vec<u8>> {
    let report = |kind: &str, fields: &str| {
        format!(
            "From: <>\r\nContent-Type: multipart/report; report-type={kind}; boundary=b\r\n\r\n--b\r\n\r\nSorry.\r\n--b\r\n\
             Content-Type: message/{kind}\r\n\r\n{fields}\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\n\
             Message-ID: <2Hk9QpVn4tLdA1B2@acme.test>\r\nTo: ada@b.test\r\n--b--\r\n"
        )
        .into_bytes()
    };
    vec![
        report(
            "delivery-status",
            "Reporting-MTA: dns; mx.b.test\r\n\r\nFinal-Recipient: rfc822; ada@b.test\r\nAction: failed\r\n\
             Status: 5.1.1\r\nDiagnostic-Code: smtp; 550-5.1.1 no\r\n 550 such user\r\n\r\n\
             Original-Recipient: rfc822;bob@b.test\r\nAction: delayed\r\nStatus: 4.4.1\r\n",
        ),
        report(
            "feedback-report",
            "Feedback-Type: abuse\r\nUser-Agent: x/1\r\nVersion: 1\r\nOriginal-Rcpt-To: <ada@b.test>\r\n",
        ),
        b"X-Failed-Recipients: ada@b.test, bob@b.test\r\n\r\nSorry.\r\n".to_vec(),
    ]
}

/// A report is bounded, and its texts are single lines without control characters.
pub fn report(raw: &[u8]) {
    let texts = match report::read(raw) {
        None => return,
        Some(Report::Delivery(statuses)) => {
            assert!(!statuses.is_empty() && statuses.len() <= 1_000);
            let texts = statuses.into_iter().flat_map(|one| {
                assert!(one.code.is_none_or(|code| (200..=599).contains(&code)), "{one:?}");
                assert!(one.diagnostic.as_ref().is_none_or(|text| text.chars().count() <= 1_000));
                [one.recipient, one.original_recipient, one.status.map(|code| code.to_string()), one.diagnostic]
            });
            texts.collect::<Vec<_>>()
        }
        Some(Report::Abuse(abuse)) => vec![Some(abuse.feedback_type), abuse.original_rcpt_to, abuse.message_id],
    };
    for text in texts.into_iter().flatten() {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

fn paths() -> ReturnPaths {
    ReturnPaths::new(std::array::from_fn(|index| index as u8), HOSTNAME)
}

fn message() -> MessageId {
    MessageId::parse("msg_2Hk9QpVn4tLdA1B2").expect("an id")
}

fn senders() -> Vec<Mailbox> {
    let parse = |text| Mailbox::parse(text).expect("a mailbox");
    let plain = parse("ada@example.com");
    let forwarded = parse("SRS0=abcd=ab=example.com=ada@other.test");
    [paths().bounce(&message(), 3, "acme.test"), paths().srs(&plain, NOW), paths().srs(&forwarded, NOW)]
        .into_iter()
        .flatten()
        .chain([plain, forwarded])
        .collect()
}

pub fn addresses() -> Vec<Vec<u8>> {
    senders().iter().map(|address| address.to_string().into_bytes()).collect()
}

/// Only addresses made with this key are ours, in any letter case; any other can be rewritten by SRS and read back.
pub fn path(input: &[u8]) {
    let Ok(address) = Mailbox::parse(&String::from_utf8_lossy(input)) else { return };
    let paths = paths();
    match paths.read(&address, NOW) {
        Some(ReturnPath::Bounce(tag)) => {
            let made = BounceTag { message: message(), recipient: Some(3) };
            assert_eq!(tag, made, "a forged tag: {address}");
        }
        Some(ReturnPath::Srs(sender)) => {
            let genuine = ["ada@example.com", "srs0=abcd=ab=example.com=ada@other.test"];
            assert!(genuine.contains(&sender.to_string().to_lowercase().as_str()), "a forged sender: {address}");
        }
        None => {
            let Some(rewritten) = paths.srs(&address, NOW) else { return };
            let local = rewritten.local();
            assert!(local.len() <= 64 && rewritten.domain().as_str() == HOSTNAME, "{rewritten}");
            if local.starts_with("SRS0=") {
                assert!(matches!(paths.read(&rewritten, NOW), Some(ReturnPath::Srs(_))), "{rewritten}");
            }
        }
    }
}

pub fn lists() -> Vec<Vec<u8>> {
    ["ada@b.test", "Ada <ada@b.test>, bob@b.test", "\"Lovelace, Ada\" <ada@b.test>", "Ada (her) <ada@[192.0.2.1]>"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// An accepted list has no control character and can be written as a header again.
pub fn list(input: &[u8]) {
    let Ok(list) = mailbox_list::parse_list(&String::from_utf8_lossy(input)) else { return };
    assert!(!list.is_empty());
    for one in list {
        assert!(one.name.as_ref().is_none_or(|name| !name.is_empty() && !name.chars().any(char::is_control)));
        let alone = mailbox_list::parse_one(&one.mailbox.to_string()).expect("a mailbox that was read");
        assert_eq!(alone.mailbox.to_string(), one.mailbox.to_string());
    }
}
