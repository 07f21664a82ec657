//! Delivery status notifications and abuse reports at a bounce address, which settle the recipient whose address it is
//! (contract 8.5). They settle no other: anybody who got the message could forge one.
//!
//! The submitter over SMTP is sent a bounce in turn. It has the null reverse-path, so no loop can arise.

use crate::store::Connection;

use super::bounce::Failure;
use crate::clock::Timestamp;
use crate::event_bus::Publisher;
use crate::event_bus::mail_log::{Event, Line};
use crate::jobs::{EnqueuedJob, Jobs};
use crate::mail::address::Mailbox;
use crate::mail::report::{AbuseReport, Action, Report, ReportedRecipient};
use crate::mail::status_code::EnhancedStatusCode;
use crate::outbound::Outbound;
use crate::outbound::queue::refusal;
use crate::outbound::queue::settle::raise_event;
use crate::outbound::return_path::BounceTag;
use crate::store;
use crate::store::messages;
use crate::store::messages::Direction;
use crate::store::messages::MessageRow;
use crate::store::sending::recipients;
use crate::store::sending::recipients::RecipientStatus;
use crate::store::sending::recipients::{RecipientRow, RecipientState};
use crate::store::sending::suppressions::SuppressionReason;
use crate::store::sending::{outbound_details, suppressions};
use crate::store::webhooks::events;
use crate::webhook::events::sending::{PendingEvent, SendingEvent};

/// A settled report, to be published after the commit.
#[derive(Default)]
#[must_use]
pub(crate) struct SettledReport {
    events: Vec<PendingEvent>,
    /// The bounce for the submitter.
    bounce_job: Option<EnqueuedJob>,
    /// The line that the log gets.
    returned: Option<Returned>,
}

/// Mail that came back, or that a recipient complained about.
struct Returned {
    event: Event,
    message: MessageRow,
    to: String,
    /// The diagnostic, or the type of the complaint.
    reason: String,
}

impl SettledReport {
    /// Notifies subscribers and the job engine, and logs.
    pub(crate) fn publish(self, publisher: &Publisher) {
        if let Some(Returned { event, message, to, reason }) = self.returned {
            let line = Line {
                message_id: Some(message.public_id.as_str()),
                from: Some(&message.from_addr),
                to: Some(&to),
                reason: Some(&reason),
                ..Line::default()
            };
            line.log(event);
        }
        self.events.into_iter().for_each(|one| one.publish(publisher));
        self.bounce_job.into_iter().for_each(EnqueuedJob::notify_committed);
    }
}

impl Outbound {
    /// Settles the recipient whose bounce address a report came to, in the transaction that the 250 promises.
    pub(crate) fn settle_report(
        &self,
        tx: &Connection,
        tag: &BounceTag,
        report: &Report,
        now: Timestamp,
    ) -> store::Result<SettledReport> {
        let mut settled = SettledReport::default();
        let message = messages::find(tx, &tag.message)?.filter(|row| row.direction == Direction::Outbound);
        let Some(message) = message else { return Ok(settled) };
        let all = recipients::list_by_message(tx, message.id)?;
        let recipient = match tag.recipient {
            Some(place) => all.iter().find(|one| one.idx == u32::from(place)),
            None => Some(all.as_slice()).filter(|all| all.len() == 1).and_then(<[_]>::first),
        };
        let Some(recipient) = recipient else { return Ok(settled) };
        let SettledReport { events, bounce_job, returned } = &mut settled;
        let returns =
            |event, reason| Some(Returned { event, message: message.clone(), to: recipient.address.clone(), reason });
        match report {
            Report::Delivery(statuses) => {
                let Some(status) = failure_of(recipient, &all, statuses) else { return Ok(settled) };
                if let Some(diagnostic) = bounce(tx, &self.parts.jobs, &message, recipient, status, events, now)? {
                    // The code that the submitter sees in the diagnostic, if it has one.
                    let reply = status.diagnostic.as_deref();
                    let failure = Failure {
                        recipient: &recipient.address,
                        code: status.code,
                        status: reply.map_or(status.status, |text| EnhancedStatusCode::find_in(text).next()),
                        diagnostic: &diagnostic,
                    };
                    *bounce_job = self.report_failures(tx, &message, &[failure], now)?;
                    *returned = returns(Event::Bounced, diagnostic);
                }
                outbound_details::set_send_status(tx, message.id, recipients::send_status(tx, message.id)?)?;
            }
            Report::Abuse(abuse) if !abuse.is_complaint() => {}
            Report::Abuse(abuse) => {
                events.extend(complain(tx, &self.parts.jobs, &message, recipient, abuse, now)?);
                *returned = returns(Event::Complained, abuse.feedback_type.clone());
            }
        }
        Ok(settled)
    }
}

/// Returns the failure of `recipient` in a report: the one that names it, else the only one there is unless that names
/// another recipient of the message, since an address may have been rewritten on the way.
fn failure_of<'s>(
    recipient: &RecipientRow,
    all: &[RecipientRow],
    statuses: &'s [ReportedRecipient],
) -> Option<&'s ReportedRecipient> {
    // A report may have a domain in Unicode (RFC 6533), the queue has A-labels.
    let canonical = |address: &str| Mailbox::parse(address).map(|mailbox| mailbox.canonical()).ok();
    let names = |status: &ReportedRecipient, row: &RecipientRow| {
        let wanted = canonical(&row.address);
        let mut named = [&status.recipient, &status.original_recipient].into_iter().flatten();
        wanted.is_some() && named.any(|name| canonical(name) == wanted)
    };
    let failed = || statuses.iter().filter(|status| status.action == Action::Failed);
    failed().find(|status| names(status, recipient)).or_else(|| {
        let only = failed().next().filter(|_| statuses.len() == 1)?;
        Some(only).filter(|only| !all.iter().any(|row| names(only, row)))
    })
}

/// Settles a recipient whose mail came back. Returns the diagnostic, or `None` if the recipient was settled before.
fn bounce(
    tx: &Connection,
    jobs: &Jobs,
    message: &MessageRow,
    recipient: &RecipientRow,
    status: &ReportedRecipient,
    events: &mut Vec<PendingEvent>,
    now: Timestamp,
) -> store::Result<Option<String>> {
    // Only mail that a remote host accepted can come back, and only once.
    if recipient.status != RecipientStatus::Sent {
        return Ok(None);
    }
    let diagnostic = status.diagnostic.clone().or_else(|| status.status.map(|status| status.to_string()));
    let diagnostic = diagnostic.unwrap_or_else(|| "returned as undeliverable".to_owned());
    let state =
        RecipientState { status: RecipientStatus::Bounced, smtp_code: status.code, diagnostic: Some(&diagnostic) };
    recipients::settle(tx, recipient.dispatch, recipient.idx, state, now)?;
    if refusal::report_says_no_mailbox(status.status, status.diagnostic.as_deref().unwrap_or_default()) {
        suppressions::suppress(tx, message.account_id, &recipient.address, SuppressionReason::Bounce, now)?;
    }
    events.extend(raise_event(
        tx,
        jobs,
        message,
        &recipient.address,
        &SendingEvent::Bounced { diagnostic: &diagnostic },
        now,
    )?);
    Ok(Some(diagnostic))
}

fn complain(
    tx: &Connection,
    jobs: &Jobs,
    message: &MessageRow,
    recipient: &RecipientRow,
    abuse: &AbuseReport,
    now: Timestamp,
) -> store::Result<Option<PendingEvent>> {
    suppressions::suppress(tx, message.account_id, &recipient.address, SuppressionReason::Complaint, now)?;
    let event = SendingEvent::Complained { feedback_type: &abuse.feedback_type };
    // One event for each recipient, however many reports come.
    if events::was_raised(tx, message.id, event.event_type(), &recipient.address)? {
        return Ok(None);
    }
    raise_event(tx, jobs, message, &recipient.address, &event, now)
}
