//! Zero retention (contract 3.8): of a recipient's mail only the data that its webhooks need is stored, until they have
//! received it.
//!
//! Duplicates are not suppressed here: there is nothing stored that a message could repeat, and if no receiver took the
//! first one, repeating it is the sender's only way to try again.

use super::Services;
use super::forwarding::{forward_all, forwards};
use super::plan::{MessageFields, RecipientPlan};
use crate::clock::Timestamp;
use crate::id::{MailDataRowId, MessageId};
use crate::jobs::{EnqueuedJob, JobSubject};
use crate::store::webhooks::zero_retention;
use crate::store::webhooks::zero_retention::NewZeroRetention;
use crate::store::{self, Connection};
use crate::webhook;
use crate::webhook::attempt::zero_retention::EventMetadata;

/// Stores one row and job for each webhook route of the recipient and returns the jobs. `mail_data_id` stores the raw
/// copy unless that was done before.
pub(super) fn store(
    tx: &Connection,
    services: Services<'_>,
    id: &MessageId,
    fields: &MessageFields,
    plan: &RecipientPlan,
    mut mail_data_id: impl FnMut() -> store::Result<MailDataRowId>,
    now: Timestamp,
) -> store::Result<Vec<EnqueuedJob>> {
    let account_id = plan.recipient.account;
    let mut enqueued = Vec::new();
    services.limits.admit_mail(tx, account_id)?;
    if store::webhooks::blocked_senders::is_blocked(tx, account_id, &fields.from_addr)? {
        return Ok(enqueued);
    }
    if forwards(fields, plan).next().is_some() {
        enqueued.extend(forward_all(tx, services, fields, plan, None, mail_data_id()?, now)?);
    }
    let metadata = EventMetadata {
        id: id.clone(),
        from_addr: fields.from_addr.clone(),
        from_name: fields.from_name.clone(),
        to_addr: plan.recipient.mailbox.to_string(),
        to_name: plan.to_name.clone(),
        spf: fields.verdicts.spf.map(|verdict| verdict.as_str().to_owned()),
        dkim: fields.verdicts.dkim.map(|verdict| verdict.as_str().to_owned()),
        dmarc: fields.verdicts.dmarc.map(|verdict| verdict.as_str().to_owned()),
        spam: fields.spam.map(|verdict| verdict.as_str().to_owned()),
        received_at: now,
    };
    let event = serde_json::to_string(&metadata).map_err(|_| store::Error::Corrupt("event"))?;
    for route in &plan.routes {
        let Some(flow) = &route.flow else { continue };
        let new = NewZeroRetention {
            account_id,
            route_id: &route.row.public_id,
            event: &event,
            mail_data_id: mail_data_id()?,
        };
        let row = zero_retention::insert(tx, new, now)?;
        enqueued.push(services.jobs.enqueue(
            tx,
            &webhook::zero_retention_flow(flow),
            JobSubject::ZeroRetention(row),
            now,
        )?);
    }
    Ok(enqueued)
}
