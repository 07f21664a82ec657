//! Writes delivery status notifications of failures (RFC 3464). The callers decide who gets one, and when.
//!
//! A report has the null reverse-path, so one that a host cannot take is lost. Every host takes these: the lines are
//! short and the octets ASCII, whatever other hosts replied. Only the header names an international address as it is,
//! and only if the report goes to one.

use crate::id::AccountRowId;
use crate::store::Connection;
use mail_builder::mime::MimePart;

use crate::clock::Timestamp;
use crate::jobs::EnqueuedJob;
use crate::mail::address::Mailbox;
use crate::mail::line::is_seven_bit;
use crate::mail::status_code::EnhancedStatusCode;
use crate::mail::{date, header_value, mime};
use crate::outbound::Outbound;
use crate::store;
use crate::store::messages::mail_data;
use crate::store::messages::mail_data::NewMailData;
use crate::store::sending::dispatches::NewDispatch;

/// Octets of a host's reply that a report repeats.
const MAX_DIAGNOSTIC: usize = 600;

/// A report of failures.
pub(crate) struct DeliveryReport<'r> {
    pub(crate) to: &'r Mailbox,
    pub(crate) subject: &'static str,
    /// The left side of its Message-ID, unique among reports; a dot-atom (RFC 5322 §3.2.3).
    pub(crate) id: &'r str,
    /// The text for people, with CRLF line ends.
    pub(crate) text: &'r str,
    /// Time of arrival of the reported message.
    pub(crate) arrival: Timestamp,
    pub(crate) failures: &'r [FailedRecipient<'r>],
    /// The header of the reported message.
    pub(crate) enclosed: Option<&'r [u8]>,
}

pub(crate) struct FailedRecipient<'r> {
    /// An address, or a description of one that is not disclosed.
    pub(crate) recipient: &'r str,
    /// A code of class 5; `None` is written as 5.0.0.
    pub(crate) status: Option<EnhancedStatusCode>,
    /// The reply of a host.
    pub(crate) diagnostic: Option<&'r str>,
}

impl Outbound {
    /// Enqueues a report.
    pub(crate) fn send_report(
        &self,
        tx: &Connection,
        account_id: AccountRowId,
        to: Mailbox,
        data: &[u8],
        now: Timestamp,
    ) -> store::Result<Option<EnqueuedJob>> {
        let mail_data_id = mail_data::insert(tx, &NewMailData::inline(data), now)?;
        let new = NewDispatch {
            account_id,
            message: None,
            route_id: None,
            sending_domain: self.parts.config.hostname.as_str(),
            domain: None,
            reverse_path: "",
            prefix: "",
            mail_data_id,
            forwarding: None,
        };
        self.send_on(tx, new, to, now)
    }
}

impl DeliveryReport<'_> {
    /// Returns the message data.
    pub(crate) fn compose(&self, hostname: &str, now: Timestamp) -> Vec<u8> {
        let Self { to, subject, id, text, .. } = self;
        let mut mail = format!(
            "From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: {date}\r\n\
             Message-ID: <{id}@{hostname}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=\"{id}\"\r\n\r\n--{id}\r\n",
            date = date::format(now),
        )
        .into_bytes();
        MimePart::new("text/plain", *text).write_part(&mut mail);
        let status = self.delivery_status(hostname);
        mail.extend_from_slice(
            format!("\r\n--{id}\r\nContent-Type: message/delivery-status\r\n\r\n{status}").as_bytes(),
        );
        if let Some(header) = self.enclosed {
            mail.extend_from_slice(format!("\r\n--{id}\r\n").as_bytes());
            append_header_part(header, &mut mail);
        }
        mail.extend_from_slice(format!("\r\n--{id}--\r\n").as_bytes());
        mail
    }

    /// Returns the message/delivery-status part.
    fn delivery_status(&self, hostname: &str) -> String {
        let arrival = date::format(self.arrival);
        let mut status = format!("Reporting-MTA: dns; {hostname}\r\nArrival-Date: {arrival}\r\n");
        for failure in self.failures {
            let recipient = typed_address(failure.recipient);
            let code = failure.status.unwrap_or(EnhancedStatusCode::UNDEFINED);
            status.push_str(&format!("\r\nFinal-Recipient: {recipient}\r\nAction: failed\r\nStatus: {code}\r\n"));
            if let Some(diagnostic) = failure.diagnostic {
                let ascii = |c: char| if c.is_ascii() { c } else { '?' };
                let diagnostic: String = one_line_diagnostic(diagnostic).chars().map(ascii).collect();
                let field = header_value::fold("Diagnostic-Code", &format!("smtp; {diagnostic}"));
                status.push_str(&field.unwrap_or_default());
            }
        }
        status
    }
}

/// Returns a text from elsewhere as one line of at most `max_octets`.
pub(super) fn one_line(text: &str, max_octets: usize) -> String {
    let cut = text.get(..text.floor_char_boundary(max_octets)).unwrap_or(text);
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Returns a host's reply as one line.
pub(super) fn one_line_diagnostic(diagnostic: &str) -> String {
    one_line(diagnostic, MAX_DIAGNOSTIC)
}

/// Returns an address with its type, in 7 bits (RFC 6533 §3: utf-8-addr-unitext).
fn typed_address(text: &str) -> String {
    if text.is_ascii() {
        return format!("{}; {text}", if text.contains('@') { "rfc822" } else { "unknown" });
    }
    let mut address = String::from("utf-8; ");
    for c in text.chars() {
        if c.is_ascii_graphic() && !"+=\\".contains(c) {
            address.push(c);
        } else {
            address.push_str(&format!("\\x{{{:02X}}}", u32::from(c)));
        }
    }
    address
}

/// Appends the part with the header of the reported message. RFC 6533 §6.3: a header with characters beyond ASCII has
/// a media type of its own, which may be encoded.
fn append_header_part(header: &[u8], mail: &mut Vec<u8>) {
    if is_seven_bit(header) {
        mail.extend_from_slice(b"Content-Type: text/rfc822-headers\r\n\r\n");
        mail.extend_from_slice(header);
    } else {
        mail.extend_from_slice(b"Content-Type: message/global-headers\r\nContent-Transfer-Encoding: base64\r\n\r\n");
        mail.extend_from_slice(&mime::base64_lines(header));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

    use super::*;
    use crate::mail::report::{self, Report};

    const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

    fn composed(to: &str, failures: &[FailedRecipient<'_>], enclosed: Option<&[u8]>) -> String {
        let to = Mailbox::parse(to).unwrap();
        let text = "It went wrong.\r\n";
        let report = DeliveryReport {
            to: &to,
            subject: "Undelivered",
            id: "report.1",
            text,
            arrival: NOW,
            failures,
            enclosed,
        };
        String::from_utf8(report.compose("mx.acme.dev", NOW)).unwrap()
    }

    #[test]
    fn a_plain_report() {
        let failure = FailedRecipient {
            recipient: "ada@b.test",
            status: Some(EnhancedStatusCode::BAD_MAILBOX),
            diagnostic: Some("550 5.1.1 gone"),
        };
        assert_eq!(
            composed("hi@acme.dev", &[failure], Some(b"Subject: Hi\r\n")),
            "From: Mail Delivery System <MAILER-DAEMON@mx.acme.dev>\r\nTo: <hi@acme.dev>\r\nSubject: Undelivered\r\n\
             Date: Tue, 28 Jul 2026 00:00:00 +0000\r\nMessage-ID: <report.1@mx.acme.dev>\r\n\
             Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=\"report.1\"\r\n\r\n\
             --report.1\r\nContent-Type: text/plain; charset=\"utf-8\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
             It went wrong.\r\n\
             \r\n--report.1\r\nContent-Type: message/delivery-status\r\n\r\n\
             Reporting-MTA: dns; mx.acme.dev\r\nArrival-Date: Tue, 28 Jul 2026 00:00:00 +0000\r\n\r\n\
             Final-Recipient: rfc822; ada@b.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\
             Diagnostic-Code: smtp; 550 5.1.1 gone\r\n\
             \r\n--report.1\r\nContent-Type: text/rfc822-headers\r\n\r\nSubject: Hi\r\n\
             \r\n--report.1--\r\n"
        );
    }

    #[test]
    fn any_host_takes_a_report_whatever_another_host_replied() {
        let long = "no such user ".repeat(300);
        for reply in
            ["550 5.1.1 Boîte inexistante", &long, &"\u{1f4ea}".repeat(900), &"x".repeat(5_000), "a\r\nb\0c", ""]
        {
            let status = Some(EnhancedStatusCode::BAD_MAILBOX);
            let failures = ["ada@b.test", "jörg=x@b.test"].map(|recipient| FailedRecipient {
                recipient,
                status,
                diagnostic: Some(reply),
            });
            let header = format!("Subject: {reply}\r\n");
            let mail = composed("hi@acme.dev", &failures, Some(header.as_bytes()));
            assert!(mail.is_ascii() && mail.split("\r\n").all(|line| line.len() <= 998), "{mail}");
            let Some(Report::Delivery(statuses)) = report::read(mail.as_bytes()) else { panic!("{mail}") };
            let found: Vec<_> = statuses.iter().filter_map(|status| status.recipient.as_deref()).collect();
            assert_eq!(found, ["ada@b.test", "jörg=x@b.test"]);
        }
    }

    #[test]
    fn an_undisclosed_recipient_has_no_address() {
        let failure = FailedRecipient { recipient: "an address at b.test", status: None, diagnostic: None };
        let mail = composed("hi@acme.dev", &[failure], None);
        assert!(mail.contains("Final-Recipient: unknown; an address at b.test\r\n"), "{mail}");
        assert_eq!(mail.matches("--report.1").count(), 3);
        assert!(!mail.contains("Diagnostic-Code"));
    }
}
