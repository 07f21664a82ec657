//! The dispatches of a received message that forward routes cause.

use std::sync::Arc;

use super::Services;
use super::plan::{MessageFields, RecipientPlan};
use crate::clock::Timestamp;
use crate::id::{MailDataRowId, MessageRowId};
use crate::inbound::route::{Route, is_exact};
use crate::jobs::EnqueuedJob;
use crate::limits::Kind;
use crate::outbound::forward::{Forward, MAX_RECEIVED, share_copies};
use crate::store::webhooks::routes::Action;
use crate::store::{self, Connection};

/// Enqueues a dispatch for each forward route of a recipient and returns the jobs. A route that forwarded the message
/// before does not forward it again (contract 4.1).
pub(super) fn forward_all(
    tx: &Connection,
    services: Services<'_>,
    fields: &MessageFields,
    plan: &RecipientPlan,
    message: Option<MessageRowId>,
    mail_data_id: MailDataRowId,
    now: Timestamp,
) -> store::Result<Vec<EnqueuedJob>> {
    let mut jobs = Vec::new();
    let due = forwards(fields, plan).count();
    let (running, copies) = share_copies(fields.copies, due);
    services.limits.count_refused(Kind::LocalCopies, due - running);
    for route in forwards(fields, plan).take(running) {
        let Some(to) = route.row.destination.as_deref() else { continue };
        let forward = Forward {
            account: plan.recipient.account,
            message,
            route: &route.row.public_id,
            to,
            domain: plan.recipient.mailbox.domain().as_str(),
            mail_from: &fields.mail_from,
            trace: &plan.trace,
            mail_data_id,
            copies,
            recipient: &plan.recipient.mailbox,
            exact: is_exact(&route.row.match_pattern),
            policy: route.row.on_auth_fail,
            verification: &fields.verification,
            message_id: fields.message_id_header.as_deref().unwrap_or(&plan.own_id),
            author: fields.author.as_deref(),
            plain_header: fields.plain_header,
        };
        jobs.extend(services.outbound.forward(tx, forward, now)?);
    }
    Ok(jobs)
}

/// Returns the forward routes of a recipient.
pub(super) fn forwards<'p>(
    fields: &'p MessageFields,
    plan: &'p RecipientPlan,
) -> impl Iterator<Item = &'p Arc<Route>> {
    let goes_round = fields.received_count > MAX_RECEIVED;
    plan.routes.iter().filter(move |route| {
        let again = fields.forwarded_by.iter().any(|id| id == route.row.public_id.as_str());
        route.row.action == Action::Forward && !again && !goes_round
    })
}
