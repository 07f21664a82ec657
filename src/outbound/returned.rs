//! What comes back: delivery status notifications and abuse reports at a bounce address settle its recipients
//! (contract 8.5).
//!
//! Nothing is answered, so nothing can go round: no bounce of a bounce.

use rusqlite::Connection;

use super::Outbound;
use super::bounce::is_dead_mailbox;
use super::settle::raise_event;
use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::mail::address::Mailbox;
use crate::mail::report::{AbuseReport, Action, RecipientStatus, Report};
use crate::store::messages::MessageRow;
use crate::store::recipients::{self, RecipientRow, Standing};
use crate::store::{self, events, messages, submissions, suppressions};
use crate::webhook::sending::{Raised, What};

impl Outbound {
    /// Settles what a report about a message says, in the transaction that the 250 promises.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn settle_report(
        tx: &Connection,
        id: &MessageId,
        report: &Report,
        now: Timestamp,
    ) -> store::Result<Vec<Raised>> {
        let found = messages::find(tx, id)?.filter(|row| row.outbound);
        let Some(message) = found else { return Ok(Vec::new()) };
        let all = recipients::list_by_message(tx, message.id)?;
        let mut raised = Vec::new();
        match report {
            Report::Delivery(statuses) => {
                for status in statuses.iter().filter(|status| status.action == Action::Failed) {
                    let named = [&status.recipient, &status.original_recipient];
                    let Some(recipient) = find(&all, named.into_iter().flatten()) else { continue };
                    raised.extend(bounce(tx, &message, recipient, status, now)?);
                }
                submissions::set_send_status(tx, message.id, recipients::send_status(tx, message.id)?)?;
            }
            Report::Abuse(abuse) if !abuse.is_complaint() => {}
            Report::Abuse(abuse) => {
                let Some(recipient) = find(&all, abuse.original_rcpt_to.iter()) else { return Ok(raised) };
                raised.extend(complain(tx, &message, recipient, abuse, now)?);
            }
        }
        Ok(raised)
    }
}

/// The recipient that a report means: by its address, or the only one there is.
fn find<'r>(all: &'r [RecipientRow], mut named: impl Iterator<Item = &'r String>) -> Option<&'r RecipientRow> {
    // As the queue writes them: a domain may stand in a report in its own letters (RFC 6533).
    let canonical = |address: &str| Mailbox::parse(address).map(|mailbox| mailbox.canonical()).ok();
    let by_name = named.find_map(|name| {
        let wanted = canonical(name)?;
        all.iter().find(|one| canonical(&one.address).is_some_and(|known| known == wanted))
    });
    by_name.or(match all {
        // Its address may have been rewritten on the way.
        [only] => Some(only),
        _ => None,
    })
}

fn bounce(
    tx: &Connection,
    message: &MessageRow,
    recipient: &RecipientRow,
    status: &RecipientStatus,
    now: Timestamp,
) -> store::Result<Option<Raised>> {
    // Only what a remote host had accepted can come back, and only once.
    if recipient.status != "sent" {
        return Ok(None);
    }
    let enhanced = status.status.clone();
    let diagnostic = status.diagnostic.clone().or_else(|| enhanced.clone());
    let diagnostic = diagnostic.unwrap_or_else(|| "returned as undeliverable".to_owned());
    let standing = Standing { status: "bounced", smtp_code: status.code, diagnostic: Some(&diagnostic) };
    recipients::settle(tx, recipient.dispatch, recipient.idx, standing, now)?;
    // The status field is the reporter's verdict; the diagnostic text may hold another host's words. But x.0.0 is none
    // (RFC 3463 §3.1): some hosts write it whatever the reason.
    let judged = enhanced.filter(|status| !status.ends_with(".0.0")).unwrap_or_else(|| diagnostic.clone());
    if is_dead_mailbox(status.code, &judged) {
        suppressions::suppress(tx, message.account_id, &recipient.address, "bounce", now)?;
    }
    raise_event(tx, message, &recipient.address, &What::Bounced { diagnostic: &diagnostic }, now)
}

fn complain(
    tx: &Connection,
    message: &MessageRow,
    recipient: &RecipientRow,
    abuse: &AbuseReport,
    now: Timestamp,
) -> store::Result<Option<Raised>> {
    suppressions::suppress(tx, message.account_id, &recipient.address, "complaint", now)?;
    let what = What::Complained { feedback_type: &abuse.feedback_type };
    // A second report of the same recipient says nothing new.
    if events::was_raised(tx, message.id, what.event_type(), &recipient.address)? {
        return Ok(None);
    }
    raise_event(tx, message, &recipient.address, &what, now)
}
