//! Bounces of messages that were submitted over SMTP (RFC 5321 §6.1, RFC 3464). Clients of the API learn of failures
//! by webhook.

use crate::store::Connection;

use super::dsn::{DeliveryReport, FailedRecipient, one_line, one_line_diagnostic};
use crate::clock::Timestamp;
use crate::jobs::EnqueuedJob;
use crate::mail::address::Mailbox;
use crate::mail::status_code::EnhancedStatusCode;
use crate::outbound::Outbound;
use crate::store;
use crate::store::messages::MessageRow;
use crate::store::messages::mail_data;
use crate::store::messages::mail_data::StoredMailData;
use crate::store::sending::outbound_details;

/// Octets of the message's header that a bounce encloses.
const MAX_HEADER: usize = 32 * 1024;
/// Octets of its subject that a bounce quotes.
const MAX_SUBJECT: usize = 300;

/// A recipient whom a message did not reach.
pub(crate) struct Failure<'f> {
    pub(crate) recipient: &'f str,
    /// Reply code; `None` when no reply decided it.
    pub(crate) code: Option<u16>,
    pub(crate) status: Option<EnhancedStatusCode>,
    pub(crate) diagnostic: &'f str,
}

impl Outbound {
    /// Enqueues a bounce in the transaction that settles the failures; `None` if the message was not submitted over
    /// SMTP. The bounce has the null reverse-path, so it never bounces itself.
    pub(crate) fn report_failures(
        &self,
        tx: &Connection,
        message: &MessageRow,
        failures: &[Failure<'_>],
        now: Timestamp,
    ) -> store::Result<Option<EnqueuedJob>> {
        if failures.is_empty() {
            return Ok(None);
        }
        let details = outbound_details::find(tx, message.id)?;
        let Some(to) = details.and_then(|details| Mailbox::parse(&details.return_to?).ok()) else { return Ok(None) };
        let hostname = self.parts.config.hostname.as_str();
        let mut data = compose(message, &enclosed(tx, message)?, failures, &to, hostname, now);
        if let Some(signature) = self.parts.host_signature(tx, &data)? {
            data.splice(..0, signature.into_bytes());
        }
        self.send_report(tx, message.account_id, to, &data, now)
    }
}

/// Returns the header of the message, or its Message-ID alone if the message is stored as a file, which is not read
/// for this.
fn enclosed(tx: &Connection, message: &MessageRow) -> store::Result<Vec<u8>> {
    let raw = match message.mail_data_id {
        Some(raw) => mail_data::find(tx, raw)?,
        None => None,
    };
    let Some(StoredMailData::Inline(data)) = raw else {
        let id = message.message_id_header.as_deref().unwrap_or_default();
        return Ok(format!("Message-ID: {id}\r\n").into_bytes());
    };
    let end = memchr::memmem::find(&data, b"\r\n\r\n").map_or(data.len(), |end| end + 2);
    let header = data.get(..end.min(MAX_HEADER)).unwrap_or_default();
    // Cut at a line end.
    let end = memchr::memrchr(b'\n', header).map_or(0, |end| end + 1);
    Ok(header.get(..end).unwrap_or_default().to_vec())
}

fn compose(
    message: &MessageRow,
    enclosed: &[u8],
    failures: &[Failure<'_>],
    to: &Mailbox,
    hostname: &str,
    now: Timestamp,
) -> Vec<u8> {
    let subject = one_line(message.subject.as_deref().unwrap_or_default(), MAX_SUBJECT);
    let mut text = format!("Your message could not be delivered to everybody.\r\n\r\n  Subject: {subject}\r\n\r\n");
    for Failure { recipient, diagnostic, .. } in failures {
        text.push_str(&format!("  {recipient}\r\n    {}\r\n", one_line_diagnostic(diagnostic)));
    }
    let failed: Vec<_> = failures
        .iter()
        .map(|failure| FailedRecipient {
            recipient: failure.recipient,
            status: failure.status.filter(|status| status.is_permanent()),
            // RFC 3464 §2.3.6: only a host's own reply.
            diagnostic: failure.code.map(|_| failure.diagnostic),
        })
        .collect();
    let report = DeliveryReport {
        to,
        subject: "Undelivered Mail Returned to Sender",
        id: &format!("failure.{}.{}", message.public_id.suffix(), now.as_millis()),
        text: &text,
        arrival: message.received_at,
        failures: &failed,
        enclosed: Some(enclosed),
    };
    report.compose(hostname, now)
}
