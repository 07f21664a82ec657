//! Reports about forwarded mail (RFC 3464). The sender gets a report generated here: forwarding somebody else's text
//! would make our addresses a way to send anything to anybody.

use crate::store::Connection;
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::Outbound;
use crate::clock::Timestamp;
use crate::jobs::EnqueuedJob;
use crate::mail::address::Mailbox;
use crate::mail::report::ReportedRecipient;
use crate::mail::status_code::EnhancedStatusCode;
use crate::outbound::reports::dsn::{DeliveryReport, FailedRecipient};
use crate::store;
use crate::store::accounts;
use crate::store::sending::forwarded_messages;
use crate::store::sending::forwarded_messages::ForwardedMessage;

/// A failure report received at one of our SRS addresses.
#[derive(Clone, Debug)]
pub(crate) struct ForwardReport {
    /// The SRS address.
    pub(crate) address: Mailbox,
    /// The original sender that it encodes.
    pub(crate) sender: Mailbox,
    /// The status it reports.
    pub(crate) status: ReportedRecipient,
    /// Message-IDs of the enclosed message.
    pub(crate) message_ids: Vec<String>,
}

/// Returns the fingerprint of a forwarded message: the address it was sent with, and its Message-ID or the internal
/// id.
pub(super) fn fingerprint(address: &Mailbox, id: &str) -> Vec<u8> {
    let text = format!("{}\0{id}", address.to_string().to_lowercase());
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

impl Outbound {
    /// Queues a report to the sender of a forwarded message, with its job, in the transaction that the 250 confirms.
    /// Returns `None` if no message was sent with that address for a known sender, if the failure was already
    /// reported, or if the limit of reports is reached. The report has the null reverse-path, so it never bounces.
    pub(crate) fn report_forward(
        &self,
        tx: &Connection,
        report: &ForwardReport,
        now: Timestamp,
    ) -> store::Result<Option<EnqueuedJob>> {
        for id in &report.message_ids {
            let fingerprint = fingerprint(&report.address, id);
            let Some(forwarded) = forwarded_messages::take(tx, &fingerprint, now)? else { continue };
            // It belongs to no account in particular; the operator sees it in the queue.
            let Some(owner) = accounts::find_owner(tx)? else { return Ok(None) };
            let hostname = self.parts.config.hostname.as_str();
            let data = compose(report, &fingerprint, &forwarded, hostname, now);
            return self.send_report(tx, owner.id, report.sender.clone(), &data, now);
        }
        Ok(None)
    }
}

/// Composes the report from status codes and our own text. The original recipient's address may be arbitrary quoted
/// text, so it is included only if it is a plain address.
fn compose(
    report: &ForwardReport,
    fingerprint: &[u8],
    forwarded: &ForwardedMessage,
    hostname: &str,
    now: Timestamp,
) -> Vec<u8> {
    let status = &report.status;
    let enhanced = status.status.filter(|status| status.is_permanent()).unwrap_or(EnhancedStatusCode::UNDEFINED);
    let code = status.code.filter(|code| (500..600).contains(code));
    let diagnostic = code.map(|code| format!("{code} {enhanced}"));
    let recipient = Mailbox::parse_received(&forwarded.recipient).ok();
    let recipient = recipient.map_or_else(|| "an address".to_owned(), |mailbox| mailbox.display_for_third_party());
    let text = format!(
        "A message of yours to {recipient}\r\nwas forwarded from there. The host that it was forwarded to reports that it\r\n\
         cannot be delivered ({enhanced}).\r\n"
    );
    let failure =
        FailedRecipient { recipient: &recipient, status: Some(enhanced), diagnostic: diagnostic.as_deref() };
    let report = DeliveryReport {
        to: &report.sender,
        subject: "Delivery Status Notification (Failure)",
        id: &format!("report.{}", HEXLOWER.encode(fingerprint.get(..12).unwrap_or(fingerprint))),
        text: &text,
        arrival: forwarded.sent_at,
        failures: &[failure],
        enclosed: None,
    };
    report.compose(hostname, now)
}
