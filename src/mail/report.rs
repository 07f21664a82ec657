//! Reports about mail that was sent: delivery status notifications (RFC 3464, with RFC 6533's addresses), abuse reports
//! (RFC 5965), and what Exim and qmail wrote and write instead.
//!
//! Pure and bounded: parts are found by [`super::mime`] within its limits, and a report counts its first thousand
//! recipients.

use super::mime::{self, Fields, Limits, Part, decode_part};

/// Envelope senders that a complaint may name.
const MAX_REVERSE_PATHS: usize = 5;
const MAX_RECIPIENTS: usize = 1_000;
/// Octets of a report part that are read.
const MAX_REPORT: usize = 256 * 1024;
const MAX_DIAGNOSTIC: usize = 1_000;

/// A report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// What became of recipients.
    Delivery(Vec<RecipientStatus>),
    /// Somebody did not want it.
    Abuse(AbuseReport),
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientStatus {
    /// Where it went in the end.
    pub recipient: Option<String>,
    /// Where it was sent to.
    pub original_recipient: Option<String>,
    /// What happened.
    pub action: Action,
    /// Enhanced status code (RFC 3463): `5.1.1`.
    pub status: Option<String>,
    /// The remote host's words on one line: `550 5.1.1 no such user`.
    pub diagnostic: Option<String>,
    /// The reply code that the diagnostic begins with.
    pub code: Option<u16>,
}

impl AbuseReport {
    /// Whether a user did not want the message; some reports say the opposite, or tell of signatures (RFC 6591).
    pub(crate) fn is_complaint(&self) -> bool {
        !matches!(self.feedback_type.as_str(), "not-spam" | "auth-failure" | "dmarc")
    }
}

/// What happened to a recipient (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It will not be delivered.
    Failed,
    /// It is still tried.
    Delayed,
    /// It was.
    Delivered,
    /// It was passed to a host that sends no reports.
    Relayed,
    /// It was passed to the members of a list.
    Expanded,
}

/// A complaint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbuseReport {
    /// `abuse`, `fraud`, `not-spam` and so on (RFC 5965 §7.3), in lower case.
    pub feedback_type: String,
    /// The recipient who complained.
    pub original_rcpt_to: Option<String>,
    /// Message-ID of what was complained of, with angle brackets.
    pub message_id: Option<String>,
    /// What it was sent with as the envelope sender, by the report and by what that encloses.
    pub reverse_paths: Vec<String>,
}

/// The report that mail data holds, if it is one.
pub fn read(raw: &[u8]) -> Option<Report> {
    let mail = mime::parse(raw);
    let of_type = |types: &[&str]| {
        let is_whole = |part: &Part| part.inner_offset.is_none();
        let fits =
            |part: &&Part| is_whole(part) && part.content_type.as_deref().is_some_and(|found| types.contains(&found));
        mail.attachments.iter().find(fits)
    };
    if let Some(part) = of_type(&["message/feedback-report"]) {
        let original =
            of_type(&["message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"]);
        return Some(Report::Abuse(abuse(&content(raw, part), original.map(|part| content(raw, part)))));
    }
    if let Some(part) = of_type(&["message/delivery-status", "message/global-delivery-status"]) {
        let statuses = delivery(&content(raw, part));
        return (!statuses.is_empty()).then_some(Report::Delivery(statuses));
    }
    // Exim, before it learnt RFC 3464: the failed recipients stand in a field, the reasons in prose.
    let failed = mime::field_values(raw, "X-Failed-Recipients");
    let from_exim = failed.iter().flat_map(|value| value.split(','));
    let statuses: Vec<RecipientStatus> = from_exim
        .map(str::trim)
        .filter(|address| address.contains('@'))
        .take(MAX_RECIPIENTS)
        .map(|address| RecipientStatus {
            recipient: Some(address.to_owned()),
            original_recipient: None,
            action: Action::Failed,
            status: None,
            diagnostic: None,
            code: None,
        })
        .collect();
    if !statuses.is_empty() {
        return Some(Report::Delivery(statuses));
    }
    let statuses = mail.text.as_deref().map(from_qmail).unwrap_or_default();
    (!statuses.is_empty()).then_some(Report::Delivery(statuses))
}

/// What the message that a report encloses may be known by: Message-IDs, with angle brackets, and ids of ours in Received
/// fields.
pub fn enclosed_ids(raw: &[u8]) -> Vec<String> {
    const MAX_IDS: usize = 20;
    // What our messages' ids begin with (contract 1.3).
    const OWN_ID: &str = "msg_";
    const TYPES: [&str; 4] = ["message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"];
    let mail = mime::parse(raw);
    let of_type = |part: &&Part| {
        part.inner_offset.is_none() && part.content_type.as_deref().is_some_and(|found| TYPES.contains(&found))
    };
    let mut texts: Vec<Vec<u8>> = mail.attachments.iter().filter(of_type).map(|part| content(raw, part)).collect();
    if texts.is_empty() {
        // Older reports quote the message in their text.
        texts.extend(mail.text.map(|text| text.into_bytes().into_iter().take(MAX_REPORT).collect()));
    }
    let mut ids = Vec::new();
    for text in texts {
        let text = String::from_utf8_lossy(&text).replace("\r\n ", " ").replace("\r\n\t", " ");
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let id = match name.trim().to_ascii_lowercase().as_str() {
                "message-id" => value.split_whitespace().next(),
                "received" => value.split_whitespace().find(|word| word.starts_with(OWN_ID)),
                _ => None,
            };
            ids.extend(id.map(|id| id.trim_end_matches(';').to_owned()).filter(|_| ids.len() < MAX_IDS));
        }
    }
    ids
}

/// qmail's own form: a first paragraph that begins with these words, then one for each recipient, whose first line is the
/// address, until a line that begins with `---`.
fn from_qmail(text: &str) -> Vec<RecipientStatus> {
    if !text.starts_with("Hi. This is the") {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.starts_with("---")).collect();
    let paragraphs = lines.split(|line| line.is_empty()).skip(1);
    paragraphs.filter_map(recipient_of_qmail).take(MAX_RECIPIENTS).collect()
}

fn recipient_of_qmail(lines: &[&str]) -> Option<RecipientStatus> {
    let (first, reasons) = lines.split_first()?;
    let recipient = first.strip_prefix('<')?.strip_suffix(">:").and_then(address)?;
    let said = reasons.join(" ");
    // The remote host's own words, if it was asked; else qmail's, which end in `(#5.1.1)`.
    let reply = reasons.iter().find_map(|line| line.split_once(" said: ")).map(|(_, reply)| reply);
    let hashed = said.rsplit_once("(#").and_then(|(_, rest)| rest.split(')').next()).and_then(status_code);
    let diagnostic: String = reply.unwrap_or(&said).chars().take(MAX_DIAGNOSTIC).collect();
    Some(RecipientStatus {
        recipient: Some(recipient),
        original_recipient: None,
        action: Action::Failed,
        status: if reply.is_some() { None } else { hashed },
        code: reply_code(&diagnostic),
        diagnostic: Some(diagnostic).filter(|text| !text.is_empty()),
    })
}

/// The decoded content of a part, as far as it is read.
fn content(raw: &[u8], part: &Part) -> Vec<u8> {
    let from = usize::try_from(part.offset).unwrap_or(usize::MAX);
    let length = usize::try_from(part.length).unwrap_or(usize::MAX).min(MAX_REPORT);
    let slice = raw.get(from..from.saturating_add(length)).unwrap_or_default();
    decode_part(part.encoding, slice)
}

/// Groups of fields with empty lines between; the first is about the message, each other about a recipient.
fn delivery(text: &[u8]) -> Vec<RecipientStatus> {
    let limits = Limits::default();
    let mut statuses = Vec::new();
    let mut at = 0;
    while at < text.len() && statuses.len() < MAX_RECIPIENTS {
        let mut fields = Fields::new(text, at, &limits);
        let mut group = Group::default();
        while let Some(field) = fields.next(|_| false) {
            group.take(field.name, &plain(field.value));
        }
        statuses.extend(group.status());
        // A line that is no field ends a group as well; it is stepped over.
        let next = fields.body_offset();
        at = if next > at {
            next
        } else {
            text.get(at..).and_then(|rest| memchr::memchr(b'\n', rest)).map_or(text.len(), |end| at + end + 1)
        };
    }
    statuses
}

#[derive(Default)]
struct Group {
    recipient: Option<String>,
    original_recipient: Option<String>,
    action: Option<Action>,
    status: Option<String>,
    diagnostic: Option<String>,
}

impl Group {
    fn take(&mut self, name: &[u8], value: &str) {
        match name.to_ascii_lowercase().as_slice() {
            b"final-recipient" => self.recipient = typed(value).and_then(|text| address(&letters(text))),
            b"original-recipient" => self.original_recipient = typed(value).and_then(|text| address(&letters(text))),
            b"action" => {
                let word = value.split([' ', '(', ';']).next().unwrap_or_default().to_ascii_lowercase();
                self.action = match word.as_str() {
                    "failed" => Some(Action::Failed),
                    "delayed" => Some(Action::Delayed),
                    "delivered" => Some(Action::Delivered),
                    "relayed" => Some(Action::Relayed),
                    "expanded" => Some(Action::Expanded),
                    _ => None,
                };
            }
            b"status" => self.status = value.split([' ', '(']).next().and_then(status_code),
            b"diagnostic-code" => self.diagnostic = Some(typed(value).unwrap_or(value).to_owned()),
            _ => {}
        }
    }

    /// None for the group about the message, and for one that does not say what happened.
    fn status(self) -> Option<RecipientStatus> {
        let action = self.action.or_else(|| self.status.as_deref().and_then(action_of))?;
        if self.recipient.is_none() && self.original_recipient.is_none() {
            return None;
        }
        let diagnostic = self.diagnostic.map(|text| text.chars().take(MAX_DIAGNOSTIC).collect::<String>());
        let code = diagnostic.as_deref().and_then(reply_code);
        Some(RecipientStatus {
            recipient: self.recipient,
            original_recipient: self.original_recipient,
            action,
            status: self.status,
            diagnostic: diagnostic.filter(|text| !text.is_empty()),
            code,
        })
    }
}

/// An enhanced status code (RFC 3463 §2).
fn status_code(text: &str) -> Option<String> {
    let fits = text.split('.').count() == 3 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (fits && text.len() <= 9).then(|| text.to_owned())
}

/// The reply code that a diagnostic begins with.
fn reply_code(diagnostic: &str) -> Option<u16> {
    let (code, rest) = diagnostic.split_at_checked(3)?;
    let ends = rest.chars().next().is_none_or(|c| !c.is_alphanumeric() && c != '.');
    code.parse().ok().filter(|code| ends && (200..600).contains(code))
}

/// What a status means where no action is said: its class tells (RFC 3463 §3.1).
fn action_of(status: &str) -> Option<Action> {
    match status.split('.').next() {
        Some("2") => Some(Action::Delivered),
        Some("4") => Some(Action::Delayed),
        Some("5") => Some(Action::Failed),
        _ => None,
    }
}

/// What stands behind `rfc822;`, `smtp;` and the like.
fn typed(value: &str) -> Option<&str> {
    let (kind, rest) = value.split_once(';')?;
    let word = kind.trim();
    (!word.is_empty() && !word.contains(' ')).then(|| rest.trim())
}

/// `\x{F6}` for a letter beyond ASCII, where a report has 7 bits (RFC 6533 §3: utf-8-addr-unitext).
fn letters(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split("\\x{");
    plain.extend(parts.next());
    for part in parts {
        let letter = part.split_once('}').and_then(|(code, rest)| {
            let letter = u32::from_str_radix(code, 16).ok().and_then(char::from_u32)?;
            (!letter.is_control()).then_some((letter, rest))
        });
        match letter {
            Some((letter, rest)) => {
                plain.push(letter);
                plain.push_str(rest);
            }
            None => {
                plain.push_str("\\x{");
                plain.push_str(part);
            }
        }
    }
    plain
}

/// An address without its brackets.
fn address(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches('<').trim_end_matches('>');
    (text.contains('@') && text.len() <= 320 && !text.contains(' ')).then(|| text.to_owned())
}

fn abuse(text: &[u8], original: Option<Vec<u8>>) -> AbuseReport {
    let first = |name: &str| mime::field_values(text, name).into_iter().next();
    let kind = first("Feedback-Type").map(|kind| kind.to_ascii_lowercase());
    let fits = |kind: &String| {
        (1..=40).contains(&kind.len())
            && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let paths = first("Original-Mail-From").into_iter();
    let enclosed = original.iter().flat_map(|original| mime::field_values(original, "Return-Path"));
    let reverse_paths = paths.chain(enclosed).filter_map(|value| address(&value)).take(MAX_REVERSE_PATHS).collect();
    let original = original.map(|original| mime::parse(&original));
    AbuseReport {
        feedback_type: kind.filter(fits).unwrap_or_else(|| "abuse".to_owned()),
        original_rcpt_to: first("Original-Rcpt-To").and_then(|value| address(&value)),
        message_id: original.and_then(|mail| mail.message_id),
        reverse_paths,
    }
}

/// A field's value on one line of printable text.
fn plain(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

    use proptest::prelude::*;

    use super::*;

    fn dsn(status: &str) -> Vec<u8> {
        format!(
            "From: MAILER-DAEMON@mx.example\r\nTo: bounce@acme.dev\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\
             Content-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n\
             Reporting-MTA: dns; mx.example\r\nArrival-Date: Tue, 28 Jul 2026 00:00:00 +0000\r\n\r\n{status}\r\n--b\r\n\
             Content-Type: message/rfc822\r\n\r\nMessage-ID: <1@acme.dev>\r\n\r\nHi\r\n--b--\r\n"
        )
        .into_bytes()
    }

    fn statuses(raw: &[u8]) -> Vec<RecipientStatus> {
        match read(raw) {
            Some(Report::Delivery(statuses)) => statuses,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_postfix_writes() {
        let raw = dsn("Final-Recipient: rfc822; ada@example.com\r\nOriginal-Recipient: rfc822;Ada@Example.com\r\n\
             Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example.com\r\n\
             Diagnostic-Code: smtp; 550 5.1.1 <ada@example.com>:\r\n    Recipient address rejected\r\n\r\n\
             Final-Recipient: rfc822; bob@example.com\r\nAction: delayed\r\nStatus: 4.4.1\r\n");
        let found = statuses(&raw);
        assert_eq!(found.len(), 2);
        assert_eq!(
            found.first().unwrap(),
            &RecipientStatus {
                recipient: Some("ada@example.com".to_owned()),
                original_recipient: Some("Ada@Example.com".to_owned()),
                action: Action::Failed,
                status: Some("5.1.1".to_owned()),
                diagnostic: Some("550 5.1.1 <ada@example.com>: Recipient address rejected".to_owned()),
                code: Some(550),
            }
        );
        assert_eq!(found.last().unwrap().action, Action::Delayed);
    }

    #[test]
    fn other_spellings() {
        let raw = dsn(
            "final-recipient: RFC822;<x@y.test>\r\nACTION: Failed (expired)\r\nstatus: 5.4.7 (delivery time expired)\r\n",
        );
        let only = statuses(&raw).pop().unwrap();
        assert_eq!((only.recipient.as_deref(), only.action), (Some("x@y.test"), Action::Failed));
        assert_eq!((only.status.as_deref(), only.diagnostic, only.code), (Some("5.4.7"), None, None));
        let utf8 = String::from_utf8(dsn(
            "Final-Recipient: utf-8; jörg@bücher.example\r\nAction: failed\r\nStatus: 5.1.6\r\n",
        ))
        .unwrap()
        .replace("message/delivery-status", "message/global-delivery-status");
        assert_eq!(statuses(utf8.as_bytes()).pop().unwrap().recipient.as_deref(), Some("jörg@bücher.example"));
        let exim = b"From: Mailer-Daemon@x.test\r\nX-Failed-Recipients: a@b.test, c@d.test\r\n\r\nThis message was created automatically\r\n";
        assert_eq!(statuses(exim).len(), 2);
    }

    #[test]
    fn what_qmail_writes() {
        let raw = b"From: MAILER-DAEMON@q.test\r\nSubject: failure notice\r\n\r\nHi. This is the qmail-send program at q.test.\r\n\
            I'm afraid I wasn't able to deliver your message to the following addresses.\r\n\r\n\
            <ada@example.com>:\r\nSorry, no mailbox here by that name. (#5.1.1)\r\n\r\n\
            <bob@example.com>:\r\n192.0.2.1 does not like recipient.\r\nRemote host said: 550 5.7.1 blocked\r\n\
            Giving up on 192.0.2.1.\r\n\r\n--- Below this line is a copy of the message.\r\n\r\n<eve@example.com>:\r\nx\r\n";
        let of = |address: &str, status: Option<&str>, diagnostic: &str, code| RecipientStatus {
            recipient: Some(address.to_owned()),
            original_recipient: None,
            action: Action::Failed,
            status: status.map(str::to_owned),
            diagnostic: Some(diagnostic.to_owned()),
            code,
        };
        assert_eq!(
            statuses(raw),
            [
                of("ada@example.com", Some("5.1.1"), "Sorry, no mailbox here by that name. (#5.1.1)", None),
                of("bob@example.com", None, "550 5.7.1 blocked", Some(550)),
            ]
        );
    }

    #[test]
    fn what_is_not_said_is_told_by_the_status() {
        for (status, action) in [("5.1.1", Action::Failed), ("4.4.1", Action::Delayed), ("2.0.0", Action::Delivered)]
        {
            let raw = dsn(&format!("Final-Recipient: rfc822; a@b.test\r\nStatus: {status}\r\n"));
            assert_eq!(statuses(&raw).pop().unwrap().action, action);
        }
        let seven_bit = dsn("Final-Recipient: utf-8; j\\x{F6}rg@b.test\r\nAction: failed\r\nStatus: 5.1.1\r\n");
        assert_eq!(statuses(&seven_bit).pop().unwrap().recipient.as_deref(), Some("jörg@b.test"));
        for odd in ["a\\x{}b", "a\\x{110000}b", "a\\x{F6", "a\\x{a}b", "\\x{"] {
            assert_eq!(letters(odd), odd);
        }
    }

    #[test]
    fn complaints() {
        let raw = b"From: fbl@isp.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n\
            --b\r\nContent-Type: text/plain\r\n\r\nAn abuse report\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\n\
            Feedback-Type: Abuse\r\nUser-Agent: x/1\r\nVersion: 1\r\nOriginal-Mail-From: <bounce@acme.dev>\r\n\
            Original-Rcpt-To: <ada@example.com>\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
            Message-ID: <1@acme.dev>\r\nSubject: Hi\r\n\r\nHi\r\n--b--\r\n";
        assert_eq!(
            read(raw),
            Some(Report::Abuse(AbuseReport {
                feedback_type: "abuse".to_owned(),
                original_rcpt_to: Some("ada@example.com".to_owned()),
                message_id: Some("<1@acme.dev>".to_owned()),
                reverse_paths: vec!["bounce@acme.dev".to_owned()],
            }))
        );
    }

    #[test]
    fn what_is_no_report() {
        for raw in [
            b"Subject: Out of office\r\nAuto-Submitted: auto-replied\r\n\r\nI am away.\r\n".to_vec(),
            Vec::new(),
            dsn(""),
            dsn("Final-Recipient: rfc822; a@b.test\r\n"),
            dsn("Action: failed\r\nStatus: 5.0.0\r\n"),
        ] {
            assert_eq!(read(&raw), None, "{}", String::from_utf8_lossy(&raw));
        }
    }

    proptest! {
        #[test]
        fn any_status_is_read_or_not(status in "([A-Za-z-]{0,20}: ?[ -~]{0,40}\r?\n){0,8}") {
            let _ = read(&dsn(&status));
        }
    }
}
