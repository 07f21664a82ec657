//! Reports about forwarded mail (RFC 3464). The sender gets one of our own making: what somebody else wrote into a report
//! is not passed on, or an address of ours would be a way to mail anything to anybody.

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use rusqlite::Connection;

use super::Outbound;
use crate::clock::Timestamp;
use crate::jobs::Left;
use crate::mail::address::Mailbox;
use crate::mail::report::{Action, RecipientStatus};
use crate::store::dispatches::NewDispatch;
use crate::store::raws::{self, NewRaw};
use crate::store::{self, accounts, forward_marks};

/// A report at one of our SRS addresses.
#[derive(Clone, Debug)]
pub struct ForwardReport {
    /// The address.
    pub address: Mailbox,
    /// Whom it stands for.
    pub sender: Mailbox,
    /// What it says.
    pub status: RecipientStatus,
    /// What the message that it encloses may be known by.
    pub marks: Vec<String>,
}

/// What a forwarded message is known by: the address that it went out with, and its Message-ID or our own id of it.
pub(super) fn mark(address: &Mailbox, id: &str) -> Vec<u8> {
    let text = format!("{}\0{id}", address.to_string().to_lowercase());
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

const fn bit(action: Action) -> u8 {
    match action {
        Action::Failed => 1,
        Action::Delayed => 2,
        Action::Delivered => 4,
        Action::Relayed => 8,
        Action::Expanded => 16,
    }
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Failed => "failed",
        Action::Delayed => "delayed",
        Action::Delivered => "delivered",
        Action::Relayed => "relayed",
        Action::Expanded => "expanded",
    }
}

impl Outbound {
    /// Leaves a report for the sender of what was forwarded, with its job, in the transaction that the 250 promises. None
    /// when it tells of nothing that went out with that address, or of what was told before. It has the null reverse-path,
    /// so nothing comes back of it.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn report_forward(
        &self,
        tx: &Connection,
        report: &ForwardReport,
        now: Timestamp,
    ) -> store::Result<Option<Left>> {
        for id in &report.marks {
            let found = forward_marks::take(tx, &mark(&report.address, id), bit(report.status.action))?;
            let Some(recipient) = found else { continue };
            // It is nobody's in particular; the queue shows it to the operator.
            let Some(owner) = accounts::find_owner(tx)? else { return Ok(None) };
            let hostname = self.parts.config.hostname.as_str();
            let raw_id = raws::insert(tx, &NewRaw::inline(&compose(report, id, &recipient, hostname, now)), now)?;
            let new = NewDispatch {
                account_id: owner.id,
                message: None,
                route_id: None,
                sending_domain: hostname,
                domain: None,
                reverse_path: "",
                prefix: "",
                raw_id,
                forwarding: None,
            };
            return self.send_on(tx, new, report.sender.clone(), now);
        }
        Ok(None)
    }
}

/// The report, of nothing but codes and what was known here before.
fn compose(report: &ForwardReport, id: &str, recipient: &str, hostname: &str, now: Timestamp) -> Vec<u8> {
    let status = &report.status;
    let class = match status.action {
        Action::Failed => "5.0.0",
        Action::Delayed => "4.0.0",
        Action::Delivered | Action::Relayed | Action::Expanded => "2.0.0",
    };
    let enhanced = status.status.as_deref().unwrap_or(class);
    let diagnostic = status.code.map(|code| format!("Diagnostic-Code: smtp; {code} {enhanced}\r\n"));
    let action = word(status.action);
    let number = HEXLOWER.encode(digest(&SHA256, format!("{id}{action}").as_bytes()).as_ref());
    let number = number.get(..24).unwrap_or_default();
    let kind = if recipient.is_ascii() { "rfc822" } else { "utf-8" };
    let original = if id.starts_with('<') { format!("Message-ID: {id}\r\n") } else { String::new() };
    format!(
        "From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\nTo: <{sender}>\r\n\
         Subject: Delivery status of a message to {recipient}\r\nDate: {date}\r\n\
         Message-ID: <report.{number}@{hostname}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"{number}\"\r\n\r\n\
         --{number}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
         Your message to {recipient} was forwarded. The host that it was\r\nforwarded to reports: {action} ({enhanced}).\r\n\
         \r\n--{number}\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; {hostname}\r\n\r\n\
         Final-Recipient: {kind}; {recipient}\r\nAction: {action}\r\nStatus: {enhanced}\r\n{diagnostic}\
         \r\n--{number}\r\nContent-Type: text/rfc822-headers\r\n\r\n{original}\r\n--{number}--\r\n",
        sender = report.sender,
        date = now.rfc5322(),
        diagnostic = diagnostic.unwrap_or_default(),
    )
    .into_bytes()
}
