//! Reports about sent mail: delivery status notifications (RFC 3464), abuse reports (RFC 5965), and the bounces of
//! Exim and qmail.
//!
//! Pure, and uses [`super::mime`] to find the parts within its limits. A format goes into a file of its own; which one
//! a mail has is decided here. A report's first thousand recipients are read.

mod abuse;
mod delivery_status;
mod legacy;

use super::mime::{self, Part, decode_part};
pub(crate) use abuse::AbuseReport;
pub(crate) use delivery_status::{Action, ReportedRecipient};

/// Octets read of a part.
const MAX_PART: usize = 256 * 1024;
/// Media types of an enclosed message or of its header (RFC 6522 §3, RFC 6533 §4).
const ENCLOSED: [&str; 4] = ["message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"];

/// A report, in any of the formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The results of at least one recipient.
    Delivery(Vec<ReportedRecipient>),
    /// A complaint, or another message of a feedback loop.
    Abuse(AbuseReport),
}

/// Returns the report that mail data holds, if it is one.
pub fn read(raw: &[u8]) -> Option<Report> {
    let mail = mime::parse(raw);
    let find = |types: &[&str]| mail.attachments.iter().find(|part| is_whole_part_of(part, types));
    if let Some(part) = find(&["message/feedback-report"]) {
        let original = find(&ENCLOSED).map(|part| content(raw, part));
        return Some(Report::Abuse(abuse::parse(&content(raw, part), original)));
    }
    let statuses = if let Some(part) = find(&["message/delivery-status", "message/global-delivery-status"]) {
        delivery_status::parse(&content(raw, part))
    } else {
        let statuses = legacy::from_exim(raw);
        if statuses.is_empty() { mail.text.as_deref().map(legacy::from_qmail).unwrap_or_default() } else { statuses }
    };
    (!statuses.is_empty()).then_some(Report::Delivery(statuses))
}

/// True for a part of one of these media types that is not within an enclosed message.
fn is_whole_part_of(part: &Part, types: &[&str]) -> bool {
    part.inner_offset.is_none() && part.content_type.as_deref().is_some_and(|found| types.contains(&found))
}

/// Returns the ids of the message that a report encloses: Message-IDs, with angle brackets, and ids of this server in
/// its Received fields.
pub fn enclosed_ids(raw: &[u8]) -> Vec<String> {
    const MAX_IDS: usize = 20;
    // Prefix of this server's message ids (contract 1.3).
    const OWN_ID: &str = "msg_";
    let mail = mime::parse(raw);
    let parts = mail.attachments.iter().filter(|part| is_whole_part_of(part, &ENCLOSED));
    let mut texts: Vec<Vec<u8>> = parts.map(|part| content(raw, part)).collect();
    if texts.is_empty() {
        // Older reports quote the message in their text.
        texts.extend(mail.text.map(|text| text.into_bytes().into_iter().take(MAX_PART).collect()));
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

/// Returns the decoded content of a part, up to the limit.
fn content(raw: &[u8], part: &Part) -> Vec<u8> {
    let from = usize::try_from(part.offset).unwrap_or(usize::MAX);
    let length = usize::try_from(part.length).unwrap_or(usize::MAX).min(MAX_PART);
    let slice = raw.get(from..from.saturating_add(length)).unwrap_or_default();
    decode_part(part.encoding, slice)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

    use proptest::prelude::*;

    use super::*;
    use crate::mail::status_code::EnhancedStatusCode;

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

    fn statuses(raw: &[u8]) -> Vec<ReportedRecipient> {
        match read(raw) {
            Some(Report::Delivery(statuses)) => statuses,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_report_of_postfix() {
        let raw = dsn("Final-Recipient: rfc822; ada@example.com\r\nOriginal-Recipient: rfc822;Ada@Example.com\r\n\
             Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example.com\r\n\
             Diagnostic-Code: smtp; 550 5.1.1 <ada@example.com>:\r\n    Recipient address rejected\r\n\r\n\
             Final-Recipient: rfc822; bob@example.com\r\nAction: delayed\r\nStatus: 4.4.1\r\n");
        let found = statuses(&raw);
        assert_eq!(found.len(), 2);
        assert_eq!(
            found.first().unwrap(),
            &ReportedRecipient {
                recipient: Some("ada@example.com".to_owned()),
                original_recipient: Some("Ada@Example.com".to_owned()),
                action: Action::Failed,
                status: Some(EnhancedStatusCode::BAD_MAILBOX),
                diagnostic: Some("550 5.1.1 <ada@example.com>: Recipient address rejected".to_owned()),
                code: Some(550),
            }
        );
        assert_eq!(found.last().unwrap().action, Action::Delayed);
    }

    #[test]
    fn reports_of_other_hosts() {
        let raw = dsn(
            "final-recipient: RFC822;<x@y.test>\r\nACTION: Failed (expired)\r\nstatus: 5.4.7 (delivery time expired)\r\n",
        );
        let only = statuses(&raw).pop().unwrap();
        assert_eq!((only.recipient.as_deref(), only.action), (Some("x@y.test"), Action::Failed));
        assert_eq!(
            (only.status, only.diagnostic, only.code),
            (Some(EnhancedStatusCode::DELIVERY_TIME_EXPIRED), None, None)
        );
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
    fn a_bounce_of_qmail() {
        let raw = b"From: MAILER-DAEMON@q.test\r\nSubject: failure notice\r\n\r\nHi. This is the qmail-send program at q.test.\r\n\
            I'm afraid I wasn't able to deliver your message to the following addresses.\r\n\r\n\
            <ada@example.com>:\r\nSorry, no mailbox here by that name. (#5.1.1)\r\n\r\n\
            <bob@example.com>:\r\n192.0.2.1 does not like recipient.\r\nRemote host said: 550 5.7.1 blocked\r\n\
            Giving up on 192.0.2.1.\r\n\r\n--- Below this line is a copy of the message.\r\n\r\n<eve@example.com>:\r\nx\r\n";
        let failed = |address: &str, status, diagnostic: &str, code| ReportedRecipient {
            recipient: Some(address.to_owned()),
            original_recipient: None,
            action: Action::Failed,
            status,
            diagnostic: Some(diagnostic.to_owned()),
            code,
        };
        assert_eq!(
            statuses(raw),
            [
                failed(
                    "ada@example.com",
                    Some(EnhancedStatusCode::BAD_MAILBOX),
                    "Sorry, no mailbox here by that name. (#5.1.1)",
                    None
                ),
                failed("bob@example.com", None, "550 5.7.1 blocked", Some(550)),
            ]
        );
    }

    #[test]
    fn the_status_stands_in_for_a_missing_action() {
        for (status, action) in [("5.1.1", Action::Failed), ("4.4.1", Action::Delayed), ("2.0.0", Action::Delivered)]
        {
            let raw = dsn(&format!("Final-Recipient: rfc822; a@b.test\r\nStatus: {status}\r\n"));
            assert_eq!(statuses(&raw).pop().unwrap().action, action);
        }
        let seven_bit = dsn("Final-Recipient: utf-8; j\\x{F6}rg@b.test\r\nAction: failed\r\nStatus: 5.1.1\r\n");
        assert_eq!(statuses(&seven_bit).pop().unwrap().recipient.as_deref(), Some("jörg@b.test"));
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
    fn other_mail_is_not_a_report() {
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
