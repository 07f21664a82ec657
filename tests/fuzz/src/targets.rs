//! The targets, and the assertions that hold for every input.

use std::fs;
use std::path::Path;

use mailkite::testing::clock::Timestamp;
use mailkite::testing::id::MessageId;
use mailkite::testing::inbound::route::Pattern;
use mailkite::testing::mail::address::{ForwardPath, Mailbox, ReversePath};
use mailkite::testing::mail::mime;
use mailkite::testing::net::egress::{Policy, Target as Url};
use mailkite::testing::secrets::signed_links::Links;
use mailkite::testing::smtp_server::command::{self, Command, Refusal};
use mailkite::testing::smtp_server::data::{DataReader, Progress};
use mailkite::testing::webhook::events::email_received::{
    Attachment, AttachmentBytes, Auth, EmailReceived, Party, Text,
};

use crate::sending;

/// One target.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub corpus: fn() -> Vec<Vec<u8>>,
    pub dictionary: &'static [&'static [u8]],
}

/// All targets.
pub const TARGETS: [Target; 8] = [
    Target { name: "command", run: command, corpus: dialog_lines, dictionary: COMMANDS },
    Target { name: "data", run: data, corpus: mails, dictionary: ENDS },
    Target { name: "mime", run: mime, corpus: mails, dictionary: FIELDS },
    Target { name: "tnef", run: tnef, corpus: streams, dictionary: ATTRIBUTES },
    Target { name: "link", run: link, corpus: links, dictionary: URLS },
    Target { name: "report", run: sending::report, corpus: sending::reports, dictionary: sending::REPORT_WORDS },
    Target { name: "path", run: sending::path, corpus: sending::addresses, dictionary: sending::PATH_WORDS },
    Target { name: "list", run: sending::list, corpus: sending::lists, dictionary: sending::LIST_WORDS },
];

const COMMANDS: &[&[u8]] = &[
    b"MAIL FROM:<",
    b"RCPT TO:<",
    b"> SIZE=",
    b" BODY=8BITMIME",
    b" SMTPUTF8",
    b"postmaster",
    b"@inbox.test",
    b"\"",
    b"\\\"",
    b"[IPv6:",
    b"@a,@b:",
    b"xn--",
    b"\xc3\xbc",
    b"EHLO ",
    b"\t",
    b"%",
    b"!",
];
const ENDS: &[&[u8]] = &[
    b"\r\n.\r\n",
    b"\r\n.\n",
    b"\n.\r\n",
    b"\n.\n",
    b"\r.\r",
    b"\r\n..",
    b".",
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xc2\x85",
];
const FIELDS: &[&[u8]] = &[
    b"\r\n\r\n",
    b"\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n",
    b"\r\n--b--\r\n",
    b"--",
    b"boundary=\"",
    b"\r\nContent-Type: message/rfc822\r\n\r\n",
    b"\r\nContent-Transfer-Encoding: base64\r\n",
    b"\r\nContent-Transfer-Encoding: quoted-printable\r\n",
    b"; charset=utf-7",
    b"; charset=iso-2022-jp",
    b"=?utf-8?B?",
    b"=?utf-8?Q?=0D=0A",
    b"?=",
    b"filename*0*=utf-8''",
    b"filename*99999999999=x",
    b"\r\nFrom: <",
    b"\r\nReceived: by ",
    b"=\r\n",
    b"=0",
    b"\x1b$B",
    b"+AGEA-",
    b"(((((((",
    b"\"\\",
];
const ATTRIBUTES: &[&[u8]] = &[
    b"\x78\x9f\x3e\x22",
    b"\x01\x07\x90\x06\x00",
    b"\x01\x03\x90\x06\x00",
    b"\x02\x02\x90\x06\x00",
    b"\x02\x0f\x80\x06\x00",
    b"\x02\x05\x90\x06\x00",
    b"\x02\x01\x09\x10",
    b"\x0d\x00\x01\x37",
    b"\x1f\x10\x07\x37",
    b"LZFu",
    b"MELA",
    b"{\\rtf1\\fromhtml1 ",
    b"{\\*\\htmltag64 ",
    b"\\htmlrtf0 ",
    b"\\u-10179 ?",
    b"\\'83",
    b"\\bin99999999 ",
    b"\xff\xff\xff\xff",
];
const URLS: &[&[u8]] = &[
    b"http://",
    b"https://",
    b"0x7f.1",
    b"127.0.0.1",
    b"[::ffff:127.0.0.1]",
    b"%31%32",
    b"@",
    b":99999",
    b"#",
    b"?",
    b"/",
    b"..",
    b"\xef\xbc\x91",
    b"exp=",
    b"&sig=",
    b"\n",
    b"*",
    b"+*@",
    b"/(a|b)*/i",
];

/// The mails of tests/fixtures that are small enough to try many of.
fn mails() -> Vec<Vec<u8>> {
    let found = files("fixtures", ".eml").into_iter().filter(|mail| mail.len() < 32 * 1024);
    found.chain([b"Subject: hi\r\n\r\nHello.\r\n.\r\n".to_vec()]).collect()
}

/// Lines that the clients of tests/dialogs send.
fn dialog_lines() -> Vec<Vec<u8>> {
    let lines = files("dialogs", ".txt").into_iter().flat_map(|script| {
        let text = String::from_utf8_lossy(&script).into_owned();
        let said: Vec<Vec<u8>> =
            text.lines().filter_map(|line| line.strip_prefix("C: ")).map(|line| line.as_bytes().to_vec()).collect();
        said
    });
    lines.chain([b"MAIL FROM:<ada@example.com> SIZE=1".to_vec()]).collect()
}

fn links() -> Vec<Vec<u8>> {
    let url = signer().url("msg_2Hk9QpVn4tLdA1B2", 0, 1_785_801_600);
    let sig = url.rsplit("sig=").next().unwrap_or_default().to_owned();
    vec![
        format!("2Hk9QpVn4tLdA1B2\n0\n1785801600\n{sig}").into_bytes(),
        format!("msg_2Hk9QpVn4tLdA1B2\n0\n1785801600\n{sig}").into_bytes(),
        format!("2Hk9QpVn4tLdA1B2\n00\n1785801600\n{}", sig.to_uppercase()).into_bytes(),
        url.into_bytes(),
        b"https://user@app.acme.dev:8443/hook?a=1#x".to_vec(),
        b"http://127.0.0.1:3000/hook".to_vec(),
        b"ticket+*@inbox.test".to_vec(),
        b"/^(a|b)+@inbox/i".to_vec(),
    ]
}

fn files(folder: &str, end: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let fitting = paths.into_iter().filter(|path| path.to_string_lossy().ends_with(end));
    fitting.filter_map(|path| fs::read(path).ok()).collect()
}

/// A line is parsed or refused with a reply of one line; a parsed address reads the same when it is written again.
fn command(line: &[u8]) {
    let reply = match command::parse(line) {
        Ok(Command::Mail(arguments)) => {
            let path = arguments.reverse_path;
            match &path {
                ReversePath::Null => {}
                ReversePath::Mailbox(mailbox) => reads_again(mailbox),
                ReversePath::Local(local) => assert_eq!(ReversePath::parse_received(local).as_ref(), Ok(&path)),
            }
            return;
        }
        Ok(Command::Rcpt(ForwardPath::Mailbox(mailbox))) => return reads_again(&mailbox),
        Ok(_) => return,
        Err(Refusal::Reply(reply) | Refusal::Close(reply)) => reply,
    };
    assert!((400..=559).contains(&reply.code), "{reply:?}");
    let mut wire = Vec::new();
    reply.write(&mut wire);
    assert_eq!(memchr::memchr_iter(b'\n', &wire).count(), 1);
    assert!(wire.ends_with(b"\r\n"));
}

fn reads_again(mailbox: &Mailbox) {
    let written = mailbox.to_string();
    let again = Mailbox::parse_received(&written).expect("a mailbox that was read cannot be read again");
    assert_eq!((again.to_string(), again.canonical()), (written, mailbox.canonical()));
    assert!(!mailbox.to_string().chars().any(char::is_control));
    assert!(mailbox.domain().as_str().is_ascii());
}

/// The data reader against a plain description of the rule, in one piece and in many.
fn data(input: &[u8]) {
    let expected = plain_data(input);
    for piece in [input.len().max(1), 1, 2, 7] {
        let mut reader = DataReader::default();
        let (mut out, mut before, mut got) = (Vec::new(), 0, (Progress::More, 0));
        for chunk in input.chunks(piece) {
            match reader.feed(chunk, &mut out) {
                Progress::More => before += chunk.len(),
                Progress::End(used) => {
                    got = (Progress::End(0), before + used);
                    break;
                }
                Progress::BareNewline => {
                    got = (Progress::BareNewline, 0);
                    break;
                }
            }
        }
        match &expected {
            Some(Ok((text, used))) => {
                assert_eq!(got, (Progress::End(0), *used), "in pieces of {piece}");
                assert!(reader.line_too_long() || out == *text, "in pieces of {piece}");
            }
            Some(Err(())) => assert_eq!(got.0, Progress::BareNewline, "in pieces of {piece}"),
            None => assert_eq!(got.0, Progress::More, "in pieces of {piece}"),
        }
    }
}

/// RFC 5321 §4.1.1.4 and §4.5.2 written plainly: the text and the octets used, a bare newline, or no end yet.
fn plain_data(input: &[u8]) -> Option<Result<(Vec<u8>, usize), ()>> {
    let (mut text, mut at) = (Vec::new(), 0);
    loop {
        let rest = &input[at..];
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
        match (rest[end], rest.get(end + 1)) {
            (b'\r', Some(b'\n')) => {}
            (b'\r', None) => return None,
            _ => return Some(Err(())),
        }
        let line = &rest[..end];
        at += end + 2;
        if line == b"." {
            return Some(Ok((text, at)));
        }
        text.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        text.extend_from_slice(b"\r\n");
    }
}

/// A winmail.dat, in a mail that is nothing else.
fn tnef(stream: &[u8]) {
    mime(&[&b"Content-Type: application/ms-tnef\r\n\r\n"[..], stream].concat());
}

/// The winmail.dat of the mails that have one.
fn streams() -> Vec<Vec<u8>> {
    let in_mail = |mail: Vec<u8>| {
        let parts = mime::parse(&mail).attachments.into_iter();
        let carriers = parts.filter(|part| part.inner_offset.is_none());
        let body = |part: mime::Part| {
            mime::decode_part(part.encoding, &mail[part.offset as usize..(part.offset + part.length) as usize])
        };
        carriers.map(body).filter(|body| body.starts_with(b"\x78\x9f\x3e\x22")).collect::<Vec<_>>()
    };
    mails().into_iter().flat_map(in_mail).collect()
}

/// A message is parsed within its limits, and its event is JSON with the same values.
fn mime(raw: &[u8]) {
    let mail = mime::parse(raw);
    let headers: serde_json::Value =
        serde_json::from_str(&mime::Headers::read(raw).to_json()).expect("headers are no JSON");
    assert!(headers.is_object());
    if let Some(recoded) = mime::to_seven_bit(raw) {
        assert!(recoded.is_ascii() || raw.is_ascii());
        assert_eq!(mime::parse(&recoded).attachments.len(), mail.attachments.len(), "recoded");
    }
    let texts = [&mail.subject, &mail.message_id, &mail.in_reply_to];
    let names =
        mail.header_from.iter().chain(&mail.header_to).flat_map(|named| [Some(&named.address), named.name.as_ref()]);
    for text in texts.into_iter().map(Option::as_ref).chain(names).flatten() {
        assert!(!text.chars().any(|c| matches!(c, '\r' | '\n' | '\0')), "{text:?}");
    }
    let outline = mime::parse_streaming(&raw.to_vec().into());
    for (placed, whole) in [(&outline.text, &mail.text), (&outline.html, &mail.html)] {
        let read = placed.as_ref().map(|placed| {
            let (mut reader, mut text) = (mime::TextReader::new(placed), String::new());
            while reader.read(&mut text) {}
            text
        });
        assert_eq!(&read, whole, "read in pieces");
    }
    let size = raw.len() as u64;
    let mut attachments = Vec::new();
    for (index, part) in mail.attachments.iter().enumerate() {
        assert!(part.offset + part.length <= size);
        let body = &raw[part.offset as usize..(part.offset + part.length) as usize];
        let whole = mime::decode_part(part.encoding, body).len() as u64;
        match part.inner_offset {
            Some(offset) => assert!(offset + part.size <= whole, "a file in a winmail.dat stands in it"),
            None => assert_eq!(whole, part.size, "announced and served size"),
        }
        if let Some(name) = &part.filename {
            assert!(!name.is_empty() && name.len() <= 255, "{name:?}");
            assert!(!name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | '\u{202e}')), "{name:?}");
        }
        attachments.push(Attachment {
            index: index as u32,
            filename: part.filename.as_deref(),
            content_type: part.content_type.as_deref(),
            size: part.size,
            bytes: AttachmentBytes::Url("https://mail.acme.dev/att/x".into()),
        });
    }
    let id = MessageId::parse("msg_2Hk9QpVn4tLdA1B2").expect("an id");
    let from = mail.sender_address("", "mx.mailkite.test");
    let event = EmailReceived {
        id: &id,
        from: Party { address: &from, name: mime::display_name(&mail.header_from, &from) },
        to: Party { address: "a@inbox.test", name: None },
        subject: mail.subject.as_deref(),
        text: mail.text.as_deref().map(Text::Whole),
        html: mail.html.as_deref().map(Text::Whole),
        thread_id: mail.thread_id(),
        received_at: Timestamp::from_millis(1_785_196_800_000),
        auth: Auth::default(),
        attachments: &attachments,
    };
    let event: serde_json::Value = serde_json::from_slice(&event.to_json()).expect("the event is no JSON");
    assert_eq!(event["subject"].as_str(), mail.subject.as_deref());
    assert_eq!(event["text"].as_str(), mail.text.as_deref());
    assert_eq!(event["attachments"].as_array().map(Vec::len), Some(mail.attachments.len()));
}

fn signer() -> Links {
    Links::new("https://mail.acme.dev", std::array::from_fn(|index| index as u8), &[])
}

/// A link is valid only in its one spelling; URLs and route patterns are parsed without a panic.
fn link(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let now = Timestamp::from_millis(1_785_196_800_000);
    if let [mid, idx, exp, sig] = text.split('\n').collect::<Vec<_>>()[..]
        && signer().verify(mid, idx, exp, sig, now).is_ok()
    {
        let again = signer().url(mid, idx.parse().expect("an index"), exp.parse().expect("seconds"));
        let bare = mid.strip_prefix("msg_").unwrap_or(mid);
        assert_eq!(again, format!("https://mail.acme.dev/att/{bare}/{idx}?exp={exp}&sig={sig}"), "a second spelling");
    }
    for policy in [Policy::default(), Policy { allow_localhost: true, ..Policy::default() }] {
        if let Ok(url) = Url::parse(text, &policy) {
            assert!(url.uri().host().is_some());
            assert_eq!(Url::lane_of(text), url.origin());
        }
    }
    if let Ok(pattern) = Pattern::parse(text) {
        pattern.matches("ticket+7@inbox.test");
    }
}
