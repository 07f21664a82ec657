//! Reports about forwarded mail (RFC 3464). The sender gets one of our own making: what somebody else wrote into a report
//! is not passed on, or an address of ours would be a way to mail anything to anybody.

use crate::store::Connection;
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::Outbound;
use crate::clock::Timestamp;
use crate::jobs::EnqueuedJob;
use crate::mail::address::Mailbox;
use crate::mail::report::RecipientStatus;
use crate::outbound::reports::dsn::{DeliveryReport, FailedRecipient, UNKNOWN_STATUS};
use crate::store;
use crate::store::accounts;
use crate::store::sending::forward_marks;
use crate::store::sending::forward_marks::Marked;

/// A report of a failure at one of our SRS addresses.
#[derive(Clone, Debug)]
pub(crate) struct ForwardReport {
    /// The address.
    pub(crate) address: Mailbox,
    /// Whom it stands for.
    pub(crate) sender: Mailbox,
    /// What it says.
    pub(crate) status: RecipientStatus,
    /// What the message that it encloses may be known by.
    pub(crate) marks: Vec<String>,
}

/// What a forwarded message is known by: the address that it went out with, and its Message-ID or our own id of it.
pub(super) fn mark(address: &Mailbox, id: &str) -> Vec<u8> {
    let text = format!("{}\0{id}", address.to_string().to_lowercase());
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

impl Outbound {
    /// Leaves a report for the sender of what was forwarded, with its job, in the transaction that the 250 promises. None
    /// when it tells of nothing that went out with that address for a sender who is known, of what was told before, or as
    /// many were sent as may be. It has the null reverse-path, so nothing comes back of it.
    pub(crate) fn report_forward(
        &self,
        tx: &Connection,
        report: &ForwardReport,
        now: Timestamp,
    ) -> store::Result<Option<EnqueuedJob>> {
        for id in &report.marks {
            let mark = mark(&report.address, id);
            let Some(marked) = forward_marks::take(tx, &mark, now)? else { continue };
            // It is nobody's in particular; the queue shows it to the operator.
            let Some(owner) = accounts::find_owner(tx)? else { return Ok(None) };
            let hostname = self.parts.config.hostname.as_str();
            let data = compose(report, &mark, &marked, hostname, now);
            return self.send_report(tx, owner.id, report.sender.clone(), &data, now);
        }
        Ok(None)
    }
}

/// The report, of codes and our own words. The address that the message was sent to may be any text in quotes, so it is
/// named only where it is a plain one.
fn compose(report: &ForwardReport, mark: &[u8], marked: &Marked, hostname: &str, now: Timestamp) -> Vec<u8> {
    let status = &report.status;
    let enhanced = status.status.as_deref().filter(|status| status.starts_with('5')).unwrap_or(UNKNOWN_STATUS);
    let code = status.code.filter(|code| (500..600).contains(code));
    let said = code.map(|code| format!("{code} {enhanced}"));
    let recipient = Mailbox::parse_received(&marked.recipient).ok();
    let recipient = recipient.map_or_else(|| "an address".to_owned(), |mailbox| mailbox.display_for_third_party());
    let text = format!(
        "A message of yours to {recipient}\r\nwas forwarded from there. The host that it was forwarded to reports that it\r\n\
         cannot be delivered ({enhanced}).\r\n"
    );
    let failure =
        FailedRecipient { recipient: &recipient, status: Some(enhanced.to_owned()), diagnostic: said.as_deref() };
    let report = DeliveryReport {
        to: &report.sender,
        subject: "Delivery Status Notification (Failure)",
        id: &format!("report.{}", HEXLOWER.encode(mark.get(..12).unwrap_or(mark))),
        text: &text,
        arrival: marked.sent_at,
        failures: &[failure],
        enclosed: None,
    };
    report.compose(hostname, now)
}
