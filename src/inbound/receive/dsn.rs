//! Mail to our own bounce and SRS addresses: reports settle the dispatch that they are about, or are passed on to the
//! sender of the forwarded mail. No message is stored for them.

use super::{AcceptedMessage, ReceiveError, reading, within_deadline};
use crate::clock::Timestamp;
use crate::event_bus::mail_log::{Event, Line};
use crate::id::MessageId;
use crate::inbound::Inbound;
use crate::inbound::recipients::ReturnPathRecipient;
use crate::jobs::EnqueuedJob;
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::mime::{Mail, Part};
use crate::mail::report::{self, Action, Report};
use crate::outbound::forward::ForwardReport;
use crate::outbound::reports::incoming::SettledReport;
use crate::outbound::return_path::{BounceTag, ReturnPath, ReturnPaths};

impl Inbound {
    /// Accepts mail that goes to our own addresses alone.
    pub(super) async fn accept_dsn(
        &self,
        recipients: &[ReturnPathRecipient],
        reverse_path: &ReversePath,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<AcceptedMessage, ReceiveError> {
        self.settle_reports(read_reports(recipients, reverse_path, bytes), now).await?;
        if recipients.iter().any(|recipient| forwarded_for(recipient).is_some()) {
            let reports = forward_reports(recipients, reverse_path, bytes);
            if !self.report_forwards(reports, now).await? {
                return Err(ReceiveError::NotAReport);
            }
        }
        let id = MessageId::new(now).to_string();
        Ok(AcceptedMessage { all_ids: id.clone(), id })
    }

    /// Settles the recipients that reports are about, once each.
    pub(super) async fn settle_reports(
        &self,
        reports: Vec<(BounceTag, Report)>,
        now: Timestamp,
    ) -> Result<(), ReceiveError> {
        if reports.is_empty() {
            return Ok(());
        }
        let outbound = self.shared.outbound.clone();
        let settled = self.shared.db.write(move |tx| {
            reports.iter().map(|(tag, report)| outbound.settle_report(tx, tag, report, now)).collect()
        });
        let settled: Vec<SettledReport> = within_deadline(settled).await?;
        settled.into_iter().for_each(|one| one.publish(&self.shared.publisher));
        Ok(())
    }

    /// Sends reports of our own to the senders of forwarded mail; false if there was nothing to report.
    pub(super) async fn report_forwards(
        &self,
        reports: Vec<ForwardReport>,
        now: Timestamp,
    ) -> Result<bool, ReceiveError> {
        if reports.is_empty() {
            return Ok(false);
        }
        let outbound = self.shared.outbound.clone();
        let written = self.shared.db.write(move |tx| {
            let mut enqueued = Vec::new();
            for report in &reports {
                enqueued.extend(outbound.report_forward(tx, report, now)?);
            }
            Ok(enqueued)
        });
        let enqueued: Vec<EnqueuedJob> = within_deadline(written).await?;
        let has_reported = !enqueued.is_empty();
        enqueued.into_iter().for_each(EnqueuedJob::notify_committed);
        Ok(has_reported)
    }
}

/// Returns the complaint in a mail to any other address, such as the one that a feedback loop was registered with (RFC
/// 5965). Only a valid bounce address ties it to a message of ours: a Message-ID is known to everybody who got a copy.
pub(super) fn complaint(
    mail: &Mail,
    bytes: &[u8],
    return_paths: &ReturnPaths,
    now: Timestamp,
) -> Option<(BounceTag, Report)> {
    let is_report = |part: &Part| part.content_type.as_deref() == Some("message/feedback-report");
    if !mail.attachments.iter().any(is_report) {
        return None;
    }
    let report = reading(bytes.len(), || report::read(bytes))?;
    let Report::Abuse(abuse) = &report else { return None };
    let tag =
        abuse.reverse_paths.iter().find_map(|path| match return_paths.read(&Mailbox::parse(path).ok()?, now) {
            Some(ReturnPath::Bounce(tag)) => Some(tag),
            Some(ReturnPath::Srs(_)) | None => None,
        })?;
    Some((tag, report))
}

/// Returns the reports in a mail to SRS addresses; none if it has an envelope sender (RFC 3464 §2) or reports no
/// failure.
pub(super) fn forward_reports(
    recipients: &[ReturnPathRecipient],
    reverse_path: &ReversePath,
    bytes: &[u8],
) -> Vec<ForwardReport> {
    if *reverse_path != ReversePath::Null || !recipients.iter().any(|one| forwarded_for(one).is_some()) {
        return Vec::new();
    }
    // A forwarded message went to one recipient.
    let report = reading(bytes.len(), || report::read(bytes));
    let Some(Report::Delivery(statuses)) = report else { return Vec::new() };
    let status = statuses.into_iter().next().filter(|status| status.action == Action::Failed);
    let Some(status) = status else { return Vec::new() };
    let message_ids = reading(bytes.len(), || report::enclosed_ids(bytes));
    let of = |recipient: &ReturnPathRecipient| {
        Some(ForwardReport {
            address: recipient.mailbox.clone(),
            sender: forwarded_for(recipient)?.clone(),
            status: status.clone(),
            message_ids: message_ids.clone(),
        })
    };
    recipients.iter().filter_map(of).collect()
}

/// Returns the sender of the forwarded mail that an address of ours stands for.
const fn forwarded_for(recipient: &ReturnPathRecipient) -> Option<&Mailbox> {
    match &recipient.path {
        ReturnPath::Srs(sender) => Some(sender),
        ReturnPath::Bounce(_) => None,
    }
}

/// Returns the reports in a mail to our own addresses. Mail that is no report is discarded, as contract 5.1 requires;
/// so is a delivery report with an envelope sender (RFC 3464 §2 requires the null reverse-path).
pub(super) fn read_reports(
    recipients: &[ReturnPathRecipient],
    reverse_path: &ReversePath,
    bytes: &[u8],
) -> Vec<(BounceTag, Report)> {
    let tags: Vec<&BounceTag> = recipients
        .iter()
        .filter_map(|recipient| match &recipient.path {
            ReturnPath::Bounce(tag) => Some(tag),
            ReturnPath::Srs(_) => None,
        })
        .collect();
    let Some(first) = tags.first() else { return Vec::new() };
    let counts = |report: &Report| *reverse_path == ReversePath::Null || matches!(report, Report::Abuse(_));
    match reading(bytes.len(), || report::read(bytes)).filter(counts) {
        Some(report) => tags.into_iter().map(|tag| (tag.clone(), report.clone())).collect(),
        None => {
            let from = reverse_path.to_string();
            let (message_id, reason) = (Some(first.message.as_str()), Some("no_report"));
            Line { message_id, from: Some(&from), reason, ..Line::default() }.log(Event::Dropped);
            Vec::new()
        }
    }
}
