//! What comes back: delivery status notifications and abuse reports at a bounce address settle the recipient whose
//! address it is (contract 8.5). They say nothing of the others: who got the message could make one up.
//!
//! Who handed a message in by mail is told. That has the null reverse-path, so nothing can go round: no bounce of a bounce.

use crate::store::Connection;

use super::bounce::Failure;
use crate::clock::Timestamp;
use crate::jobs::EnqueuedJob;
use crate::mail::address::Mailbox;
use crate::mail::report::{AbuseReport, Action, RecipientStatus, Report};
use crate::outbound::Outbound;
use crate::outbound::queue::refusal;
use crate::outbound::queue::refusal::{Speaker, Stage};
use crate::outbound::queue::settle::raise_event;
use crate::outbound::return_path::BounceTag;
use crate::store;
use crate::store::messages;
use crate::store::messages::MessageRow;
use crate::store::sending::recipients;
use crate::store::sending::recipients::{RecipientRow, RecipientState};
use crate::store::sending::{outbound_details, suppressions};
use crate::store::webhooks::events;
use crate::webhook::events::sending::{PendingEvent, SendingEvent};

impl Outbound {
    /// Settles what a report says of the recipient whose bounce address it came to, in the transaction that the 250
    /// promises.
    ///
    /// # Errors
    /// Storage trouble.
    pub(crate) fn settle_report(
        &self,
        tx: &Connection,
        tag: &BounceTag,
        report: &Report,
        now: Timestamp,
    ) -> store::Result<(Vec<PendingEvent>, Option<EnqueuedJob>)> {
        let found = messages::find(tx, &tag.message)?.filter(|row| row.outbound);
        let Some(message) = found else { return Ok((Vec::new(), None)) };
        let all = recipients::list_by_message(tx, message.id)?;
        let own = match tag.recipient {
            Some(place) => all.iter().find(|one| one.idx == u32::from(place)),
            None => Some(all.as_slice()).filter(|all| all.len() == 1).and_then(<[_]>::first),
        };
        let Some(recipient) = own else { return Ok((Vec::new(), None)) };
        let (mut raised, mut left) = (Vec::new(), None);
        match report {
            Report::Delivery(statuses) => {
                let Some(status) = status_of(recipient, &all, statuses) else { return Ok((raised, None)) };
                if let Some(diagnostic) = bounce(tx, &message, recipient, status, &mut raised, now)? {
                    let failure =
                        Failure { recipient: &recipient.address, code: status.code, diagnostic: &diagnostic };
                    left = self.report_failures(tx, &message, &[failure], now)?;
                }
                outbound_details::set_send_status(tx, message.id, recipients::send_status(tx, message.id)?)?;
            }
            Report::Abuse(abuse) if !abuse.is_complaint() => {}
            Report::Abuse(abuse) => raised.extend(complain(tx, &message, recipient, abuse, now)?),
        }
        Ok((raised, left))
    }
}

/// The failure that a report tells of `recipient`: the one that names it, else the only one there is, unless that names
/// another recipient; an address may have been rewritten on the way.
fn status_of<'s>(
    recipient: &RecipientRow,
    all: &[RecipientRow],
    statuses: &'s [RecipientStatus],
) -> Option<&'s RecipientStatus> {
    // As the queue writes them: a domain may stand in a report in its own letters (RFC 6533).
    let canonical = |address: &str| Mailbox::parse(address).map(|mailbox| mailbox.canonical()).ok();
    let names = |status: &RecipientStatus, row: &RecipientRow| {
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

/// Settles a recipient whose mail came back; the diagnostic, unless that was known.
fn bounce(
    tx: &Connection,
    message: &MessageRow,
    recipient: &RecipientRow,
    status: &RecipientStatus,
    raised: &mut Vec<PendingEvent>,
    now: Timestamp,
) -> store::Result<Option<String>> {
    // Only what a remote host had accepted can come back, and only once.
    if recipient.status != "sent" {
        return Ok(None);
    }
    let enhanced = status.status.clone();
    let diagnostic = status.diagnostic.clone().or_else(|| enhanced.clone());
    let diagnostic = diagnostic.unwrap_or_else(|| "returned as undeliverable".to_owned());
    let standing = RecipientState { status: "bounced", smtp_code: status.code, diagnostic: Some(&diagnostic) };
    recipients::settle(tx, recipient.dispatch, recipient.idx, standing, now)?;
    // The status field is the reporter's verdict; the diagnostic text may hold another host's words. But x.0.0 is none
    // (RFC 3463 §3.1): some hosts write it whatever the reason.
    let status = enhanced.filter(|status| !status.ends_with(".0.0"));
    let judged = status.map_or_else(|| diagnostic.clone(), |status| format!("{status} {diagnostic}"));
    if refusal::meaning(Speaker::Report, Stage::Rcpt, None, &judged).no_mailbox {
        suppressions::suppress(tx, message.account_id, &recipient.address, "bounce", now)?;
    }
    raised.extend(raise_event(
        tx,
        message,
        &recipient.address,
        &SendingEvent::Bounced { diagnostic: &diagnostic },
        now,
    )?);
    Ok(Some(diagnostic))
}

fn complain(
    tx: &Connection,
    message: &MessageRow,
    recipient: &RecipientRow,
    abuse: &AbuseReport,
    now: Timestamp,
) -> store::Result<Option<PendingEvent>> {
    suppressions::suppress(tx, message.account_id, &recipient.address, "complaint", now)?;
    let what = SendingEvent::Complained { feedback_type: &abuse.feedback_type };
    // A second report of the same recipient says nothing new.
    if events::was_raised(tx, message.id, what.event_type(), &recipient.address)? {
        return Ok(None);
    }
    raise_event(tx, message, &recipient.address, &what, now)
}
