//! Bounces of forwarded mail (RFC 3464). The sender gets a report that is composed here: passing on somebody else's
//! would let anybody mail anything to anybody by way of an SRS address.

use crate::store::Connection;
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::Outbound;
use crate::clock::Timestamp;
use crate::jobs::EnqueuedJob;
use crate::mail::address::Mailbox;
use crate::mail::report::RecipientStatus;
use crate::mail::status_code::EnhancedStatusCode;
use crate::outbound::reports::dsn::{DeliveryReport, FailedRecipient};
use crate::store;
use crate::store::accounts;
use crate::store::sending::forward_marks;
use crate::store::sending::forward_marks::Marked;

/// A report of a failure that came to an SRS address of this server.
#[derive(Clone, Debug)]
pub(crate) struct ForwardReport {
    /// The SRS address.
    pub(crate) address: Mailbox,
    /// The original sender, whom the address stands for.
    pub(crate) sender: Mailbox,
    pub(crate) status: RecipientStatus,
    /// Ids of the message that the report encloses.
    pub(crate) marks: Vec<String>,
}

/// Returns the mark of a forwarded message: a hash of its envelope sender and of its Message-ID or own id.
pub(super) fn mark(address: &Mailbox, id: &str) -> Vec<u8> {
    let text = format!("{}\0{id}", address.to_string().to_lowercase());
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

impl Outbound {
    /// Enqueues a report for the original sender, in the transaction that the 250 promises. `None` if no message went
    /// out with that address for a known sender, if it was reported before, or if the limit of reports is reached. The
    /// report has the null reverse-path, so it never bounces itself.
    pub(crate) fn report_forward(
        &self,
        tx: &Connection,
        report: &ForwardReport,
        now: Timestamp,
    ) -> store::Result<Option<EnqueuedJob>> {
        for id in &report.marks {
            let mark = mark(&report.address, id);
            let Some(marked) = forward_marks::take(tx, &mark, now)? else { continue };
            // The report belongs to no account; the queue shows it to the operator.
            let Some(owner) = accounts::find_owner(tx)? else { return Ok(None) };
            let hostname = self.parts.config.hostname.as_str();
            let data = compose(report, &mark, &marked, hostname, now);
            return self.send_report(tx, owner.id, report.sender.clone(), &data, now);
        }
        Ok(None)
    }
}

/// Composes the report from the codes and fixed sentences. The recipient's address may be any text in quotes, so it is
/// named only if it is a plain one.
fn compose(report: &ForwardReport, mark: &[u8], marked: &Marked, hostname: &str, now: Timestamp) -> Vec<u8> {
    let status = &report.status;
    let enhanced = status.status.filter(|status| status.is_permanent()).unwrap_or(EnhancedStatusCode::UNDEFINED);
    let code = status.code.filter(|code| (500..600).contains(code));
    let diagnostic = code.map(|code| format!("{code} {enhanced}"));
    let recipient = Mailbox::parse_received(&marked.recipient).ok();
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
        id: &format!("report.{}", HEXLOWER.encode(mark.get(..12).unwrap_or(mark))),
        text: &text,
        arrival: marked.sent_at,
        failures: &[failure],
        enclosed: None,
    };
    report.compose(hostname, now)
}
