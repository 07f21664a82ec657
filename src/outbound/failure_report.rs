//! Tells who handed a message in by mail what of it could not be delivered (RFC 5321 §6.1, RFC 3464). Callers of the API hear it
//! by webhook.

use rusqlite::Connection;

use super::{Outbound, refusal};
use crate::clock::Timestamp;
use crate::jobs::Left;
use crate::mail::address::Mailbox;
use crate::store::dispatches::NewDispatch;
use crate::store::messages::MessageRow;
use crate::store::raws::{self, NewRaw, RawRow};
use crate::store::{self, submissions};

/// Octets of the message's header that a report encloses at most.
const MAX_HEADER: usize = 32 * 1024;

/// A recipient whom a message did not reach, and why.
pub(super) struct Failure<'f> {
    pub recipient: &'f str,
    pub code: Option<u16>,
    pub diagnostic: &'f str,
}

impl Outbound {
    /// Leaves a report, with its job, in the transaction that settles the failures. None when nobody handed the message in by
    /// mail. It has the null reverse-path, so nothing comes back of it.
    ///
    /// # Errors
    /// Storage trouble.
    pub(super) fn report_failures(
        &self,
        tx: &Connection,
        message: &MessageRow,
        failures: &[Failure<'_>],
        now: Timestamp,
    ) -> store::Result<Option<Left>> {
        if failures.is_empty() {
            return Ok(None);
        }
        let beside = submissions::find(tx, message.id)?;
        let Some(to) = beside.and_then(|beside| Mailbox::parse(&beside.return_to?).ok()) else { return Ok(None) };
        let hostname = self.parts.config.hostname.as_str();
        let mut data = compose(message, &enclosed(tx, message)?, failures, &to, hostname, now);
        if let Some(signature) = self.parts.host_signature(tx, &data)? {
            data.splice(..0, signature.into_bytes());
        }
        let raw_id = raws::insert(tx, &NewRaw::inline(&data), now)?;
        let new = NewDispatch {
            account_id: message.account_id,
            message: None,
            route_id: None,
            sending_domain: hostname,
            domain: None,
            reverse_path: "",
            prefix: "",
            raw_id,
            forwarding: None,
        };
        self.send_on(tx, new, to, now)
    }
}

/// The header of the message, if it is at hand; a large one is not read for it.
fn enclosed(tx: &Connection, message: &MessageRow) -> store::Result<Vec<u8>> {
    let raw = match message.raw_id {
        Some(raw) => raws::find(tx, raw)?,
        None => None,
    };
    let Some(RawRow::Inline(data)) = raw else {
        let id = message.message_id_header.as_deref().unwrap_or_default();
        return Ok(format!("Message-ID: {id}\r\n").into_bytes());
    };
    let end = memchr::memmem::find(&data, b"\r\n\r\n").map_or(data.len(), |end| end + 2);
    Ok(data.get(..end.min(MAX_HEADER)).unwrap_or_default().to_vec())
}

fn compose(
    message: &MessageRow,
    enclosed: &[u8],
    failures: &[Failure<'_>],
    to: &Mailbox,
    hostname: &str,
    now: Timestamp,
) -> Vec<u8> {
    // RFC 6533 §3: an address with letters beyond ASCII, here and in what is enclosed.
    let is_international = !to.to_string().is_ascii() || failures.iter().any(|failure| !failure.recipient.is_ascii());
    let (kind, status_type, header_type) = if is_international || !enclosed.is_ascii() {
        ("utf-8", "message/global-delivery-status", "message/global-headers")
    } else {
        ("rfc822", "message/delivery-status", "text/rfc822-headers")
    };
    let boundary = format!("{}.{}", message.public_id.suffix(), now.as_millis());
    let subject = message.subject.as_deref().unwrap_or_default();
    let mut told = String::new();
    let mut groups = String::new();
    for failure in failures {
        let Failure { recipient, code, diagnostic } = failure;
        let status =
            refusal::status_of(diagnostic).filter(|status| status.starts_with('5')).unwrap_or("5.0.0".to_owned());
        let line: String = diagnostic.chars().map(|c| if c.is_control() { ' ' } else { c }).take(600).collect();
        told.push_str(&format!("  {recipient}\r\n    {line}\r\n"));
        groups
            .push_str(&format!("\r\nFinal-Recipient: {kind}; {recipient}\r\nAction: failed\r\nStatus: {status}\r\n"));
        if code.is_some() {
            groups.push_str(&format!("Diagnostic-Code: smtp; {line}\r\n"));
        }
    }
    let mut report = format!(
        "From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\nTo: <{to}>\r\n\
         Subject: Undelivered Mail Returned to Sender\r\nDate: {date}\r\n\
         Message-ID: <failure.{boundary}@{hostname}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         Your message could not be delivered to everybody.\r\n\r\n  Subject: {subject}\r\n\r\n{told}\
         \r\n--{boundary}\r\nContent-Type: {status_type}\r\n\r\nReporting-MTA: dns; {hostname}\r\n\
         Arrival-Date: {arrival}\r\n{groups}\
         \r\n--{boundary}\r\nContent-Type: {header_type}\r\n\r\n",
        date = now.rfc5322(),
        arrival = message.received_at.rfc5322(),
    )
    .into_bytes();
    report.extend_from_slice(enclosed);
    report.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    report
}
