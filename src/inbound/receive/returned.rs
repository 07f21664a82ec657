//! Mail to our own bounce and SRS addresses: reports settle what they tell of, or go on to the sender of what was
//! forwarded. No message is stored of them.

use super::{COMMIT_DEADLINE, Receipt, ReceiveError, read_mail, storage_trouble};
use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::inbound::{Inbound, Recipient};
use crate::jobs::Left;
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::envelope::Peer;
use crate::mail::report::{self, Report};
use crate::mail::trace;
use crate::outbound::Outbound;
use crate::outbound::forward::{MAX_RECEIVED, Returned};
use crate::outbound::return_path::{BounceTag, ReturnPath};
use crate::store::accounts;
use crate::store::objects::Draft;
use crate::store::raws::{self, NewRaw};

impl Inbound {
    /// Takes mail that goes to our own addresses alone.
    pub(super) async fn take_back(
        &self,
        peer: &Peer,
        returned: Vec<Recipient>,
        reverse_path: ReversePath,
        (bytes, draft): (Vec<u8>, Option<Draft>),
        now: Timestamp,
    ) -> Result<Receipt, ReceiveError> {
        let id = MessageId::new(now);
        self.settle_reports(read_reports(&returned, &reverse_path, &bytes), now).await?;
        let senders: Vec<Mailbox> = returned.iter().filter_map(forwarded_for).cloned().collect();
        // RFC 5321 §4.5.5: a report has the null reverse-path; all else at an SRS address is somebody who collects them.
        if reverse_path == ReversePath::Null && !senders.is_empty() {
            self.give_back(peer, &id, senders, (bytes, draft), now).await?;
        }
        Ok(Receipt { id: id.to_string() })
    }

    /// Settles what reports say, once each.
    pub(super) async fn settle_reports(
        &self,
        reports: Vec<(BounceTag, Report)>,
        now: Timestamp,
    ) -> Result<(), ReceiveError> {
        if reports.is_empty() {
            return Ok(());
        }
        let settled = self.shared.db.write(move |tx| {
            let mut raised = Vec::new();
            for (tag, report) in &reports {
                raised.extend(Outbound::settle_report(tx, tag, report, now)?);
            }
            Ok(raised)
        });
        let raised = match tokio::time::timeout(COMMIT_DEADLINE, settled).await {
            Ok(settled) => settled.map_err(storage_trouble)?,
            Err(_) => return Err(ReceiveError::Busy),
        };
        for one in raised {
            one.tell(&self.shared.feed, &self.shared.jobs, now);
        }
        Ok(())
    }

    /// Sends a report on to those whose mail it tells of, unless it goes round.
    async fn give_back(
        &self,
        peer: &Peer,
        id: &MessageId,
        senders: Vec<Mailbox>,
        (bytes, draft): (Vec<u8>, Option<Draft>),
        now: Timestamp,
    ) -> Result<(), ReceiveError> {
        let hostname = self.shared.config.hostname.as_str();
        let mail = read_mail(&bytes, hostname)?;
        if mail.received_count > MAX_RECEIVED {
            return Ok(());
        }
        let trace = trace::received(peer, hostname, id.as_str(), false, None, now);
        let raw = if draft.is_none() && bytes.len() <= raws::INLINE_MAX {
            NewRaw::inline(&bytes)
        } else {
            self.keep(draft, bytes, id.clone(), now).await?
        };
        let outbound = self.shared.outbound.clone();
        let file = raw.file().map(str::to_owned);
        let written = self.shared.db.write(move |tx| {
            // It is nobody's in particular; the queue shows it to the operator.
            let Some(owner) = accounts::find_owner(tx)? else { return Ok(Vec::new()) };
            let raw_id = raws::insert(tx, &raw, now)?;
            let mut left = Vec::new();
            for sender in &senders {
                let report = Returned { account: owner.id, sender, trace: &trace, raw_id };
                left.extend(outbound.give_back(tx, report, now)?);
            }
            Ok(left)
        });
        let left = match tokio::time::timeout(COMMIT_DEADLINE, written).await {
            Ok(Ok(left)) => left,
            Ok(Err(error)) => {
                self.remove(file);
                return Err(storage_trouble(error));
            }
            Err(_) => return Err(ReceiveError::Busy),
        };
        left.into_iter().for_each(Left::announce);
        Ok(())
    }
}

/// Whose forwarded mail an address of ours stands for.
const fn forwarded_for(recipient: &Recipient) -> Option<&Mailbox> {
    match &recipient.returned {
        Some(ReturnPath::Srs(sender)) => Some(sender),
        Some(ReturnPath::Bounce(_)) | None => None,
    }
}

/// The reports that a mail to our own addresses holds. What is no report is read by nobody, as contract 5.1 has it; nor is
/// a delivery report with an envelope sender (RFC 3464 §2 wants the null reverse-path).
pub(super) fn read_reports(
    returned: &[Recipient],
    reverse_path: &ReversePath,
    bytes: &[u8],
) -> Vec<(BounceTag, Report)> {
    let tags: Vec<&BounceTag> = returned
        .iter()
        .filter_map(|recipient| match &recipient.returned {
            Some(ReturnPath::Bounce(tag)) => Some(tag),
            Some(ReturnPath::Srs(_)) | None => None,
        })
        .collect();
    let Some(first) = tags.first() else { return Vec::new() };
    let report =
        report::read(bytes).filter(|report| *reverse_path == ReversePath::Null || matches!(report, Report::Abuse(_)));
    match report {
        Some(report) => tags.into_iter().map(|tag| (tag.clone(), report.clone())).collect(),
        None => {
            tracing::info!(message = %first.message, "mail that is no report came to a bounce address");
            Vec::new()
        }
    }
}
