//! Stores the outcomes of recipients: their rows, the message's state, events, suppressions, and the last outcome of
//! a forward route (contract 8.5, 9.7, 4.3).

use crate::store::Connection;

use crate::clock::Timestamp;
use crate::jobs::{self, Jobs};
use crate::outbound::{Outcome, Verdict};
use crate::store;
use crate::store::messages::{self, MessageRow};
use crate::store::sending::dispatches;
use crate::store::sending::dispatches::DispatchRow;
use crate::store::sending::recipients;
use crate::store::sending::recipients::RecipientStatus;
use crate::store::sending::recipients::{RecipientRow, RecipientState};
use crate::store::sending::suppressions::SuppressionReason;
use crate::store::sending::{outbound_details, suppressions};
use crate::store::webhooks::routes;
use crate::webhook::events::sending;
use crate::webhook::events::sending::{EventSubject, PendingEvent, SendingEvent};

/// A recipient and its outcome.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    /// The recipient's row before the attempt.
    pub(crate) recipient: RecipientRow,
    pub(crate) outcome: Outcome,
}

impl Verdict {
    /// Returns the recipient status for this verdict.
    pub(crate) const fn status(self) -> RecipientStatus {
        match self {
            Self::Sent => RecipientStatus::Sent,
            Self::Deferred => RecipientStatus::Deferred,
            Self::Bounced => RecipientStatus::Bounced,
        }
    }
}

/// Work that a settlement leaves for after its commit.
#[derive(Debug, Default)]
pub(crate) struct SettledDispatch {
    /// Events to publish.
    pub(crate) raised: Vec<PendingEvent>,
    /// A file that is no longer needed.
    pub(crate) file: Option<String>,
    /// A report to the submitter of the message.
    pub(crate) report: Option<jobs::EnqueuedJob>,
    /// The message, for subscribers.
    pub(crate) message: Option<MessageRow>,
}

/// Stores the outcomes of an attempt.
pub(crate) fn settle(
    tx: &Connection,
    jobs: &Jobs,
    dispatch: &DispatchRow,
    settled: &[Settled],
    now: Timestamp,
) -> store::Result<SettledDispatch> {
    let mut left = SettledDispatch::default();
    for one in settled {
        let state = RecipientState {
            status: one.outcome.verdict.status(),
            smtp_code: one.outcome.code,
            diagnostic: Some(&one.outcome.diagnostic),
        };
        recipients::settle(tx, dispatch.id, one.recipient.idx, state, now)?;
    }
    if let Some(route) = &dispatch.route_id {
        note_forward(tx, route, settled)?;
    } else if let Some(message) = dispatch.message {
        left.message = messages::find_by_row(tx, message)?;
        if let Some(row) = &left.message {
            for one in settled {
                left.raised.extend(raise(tx, jobs, row, one, now)?);
            }
            outbound_details::set_send_status(tx, message, recipients::send_status(tx, message)?)?;
        }
    }
    if settled.iter().all(|one| one.outcome.verdict != Verdict::Deferred) {
        left.file = dispatches::finish(tx, dispatch)?;
    }
    Ok(left)
}

/// Stores the last outcome of a forward route (contract 4.3).
fn note_forward(tx: &Connection, route: &crate::id::RouteId, settled: &[Settled]) -> store::Result<()> {
    let Some(last) = settled.last() else { return Ok(()) };
    // A route knows no bounces: for it the mail failed.
    let status = match last.outcome.verdict {
        Verdict::Bounced => RecipientStatus::Failed,
        verdict => verdict.status(),
    };
    routes::note_outcome(tx, route, status.as_str(), last.outcome.code)
}

/// Raises the event of a recipient, and adds the suppression for a mailbox that does not exist.
fn raise(
    tx: &Connection,
    jobs: &Jobs,
    message: &MessageRow,
    one: &Settled,
    now: Timestamp,
) -> store::Result<Option<PendingEvent>> {
    let what = match one.outcome.verdict {
        Verdict::Deferred => return Ok(None),
        Verdict::Sent => SendingEvent::Sent,
        Verdict::Bounced => {
            if one.outcome.no_mailbox {
                suppressions::suppress(
                    tx,
                    message.account_id,
                    &one.recipient.address,
                    SuppressionReason::Bounce,
                    now,
                )?;
            }
            SendingEvent::Bounced { diagnostic: &one.outcome.diagnostic }
        }
    };
    raise_event(tx, jobs, message, &one.recipient.address, &what, now)
}

/// Stores an event of a recipient.
pub(crate) fn raise_event(
    tx: &Connection,
    jobs: &Jobs,
    message: &MessageRow,
    to: &str,
    what: &SendingEvent<'_>,
    now: Timestamp,
) -> store::Result<Option<PendingEvent>> {
    let Some(domain) = message.domain_id else { return Ok(None) };
    let subject = EventSubject {
        account: message.account_id,
        domain,
        message: message.id,
        message_id: message.public_id.as_str(),
        message_id_header: message.message_id_header.as_deref(),
        from: &message.from_addr,
        to,
        subject: message.subject.as_deref(),
    };
    sending::raise(tx, jobs, what, subject, now).map(Some)
}
