//! The transaction of an acceptance: writes everything that the 250 promises.

use std::sync::Arc;

use crate::store::Connection;

use super::{MessageFields, RecipientPlan, zero_retention};
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId, MailDataRowId, MessageId, MessageRowId};
use crate::inbound::route::{Route, is_exact};
use crate::jobs::{self, EnqueuedJob, Jobs};
use crate::limits::{Kind, Limits};
use crate::outbound::Outbound;
use crate::outbound::forward::{Forward, MAX_RECEIVED, share_copies};
use crate::store;
use crate::store::blobs::objects::Objects;
use crate::store::messages;
use crate::store::messages::mail_data;
use crate::store::messages::mail_data::NewMailData;
use crate::store::messages::removals::Reason;
use crate::store::webhooks::routes::Action;
use crate::webhook::attempt::first_attempt_cache::CachedMessage;

/// Result of the commit for one recipient.
pub(super) struct Stored {
    pub(crate) id: String,
    pub(crate) to: String,
    pub(crate) jobs: Vec<EnqueuedJob>,
    pub(crate) kept: StoredAs,
    /// Deliveries that may be attempted without reading the stored message.
    pub(crate) fresh: Vec<CachedMessage>,
}

impl Stored {
    const fn nothing(id: String, to: String) -> Self {
        Self { id, to, jobs: Vec::new(), kept: StoredAs::Nothing, fresh: Vec::new() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StoredAs {
    /// Dropped, a repetition, or for a domain with zero retention and without a recipient webhook.
    Nothing,
    /// A message.
    Message { account: AccountRowId, domain: Option<DomainRowId>, row: MessageRowId },
    /// Zero retention: rows that are removed after their attempts.
    ZeroRetention,
}

/// Services used inside the transaction.
#[derive(Clone, Copy)]
pub(super) struct Services<'a> {
    pub(crate) jobs: &'a Jobs,
    pub(crate) outbound: &'a Outbound,
    pub(crate) limits: &'a Limits,
    pub(crate) objects: &'a Objects,
}

/// Stores the message of each recipient, and the mail data once if any of them needs it; the second value is true if it
/// was stored.
pub(super) fn store_all(
    tx: &Connection,
    ways: Services<'_>,
    first: MessageId,
    common: &MessageFields,
    plans: Vec<RecipientPlan>,
    raw: &NewMailData,
    now: Timestamp,
) -> store::Result<(Vec<Stored>, bool)> {
    let mut mail_data_row = None;
    let mut next_id = Some(first);
    let mut stored = Vec::with_capacity(plans.len());
    for plan in plans {
        let to = plan.recipient.mailbox.to_string();
        if plan.is_dropped() {
            let named = next_id.take();
            // No other id was ever disclosed.
            named.iter().try_for_each(|id| store::messages::removals::note(tx, id, Reason::Rule, now))?;
            let id = named.unwrap_or_else(|| MessageId::new(now));
            stored.push(Stored::nothing(id.to_string(), to));
            continue;
        }
        let mut mail_data_id = || match mail_data_row {
            Some(id) => Ok(id),
            None => mail_data::insert(tx, raw, now).map(|id| *mail_data_row.insert(id)),
        };
        // Zero retention is read here, not at RCPT: once the setting is confirmed to the account, nothing is stored.
        if let Some(domain) = plan.recipient.domain
            && store::accounts::domains::is_zero_retention(tx, domain)?
        {
            let id = next_id.take().unwrap_or_else(|| MessageId::new(now));
            let jobs = zero_retention::store(tx, ways, &id, common, &plan, mail_data_id, now)?;
            if jobs.is_empty() {
                store::messages::removals::note(tx, &id, Reason::Rule, now)?;
            }
            let kept = if jobs.is_empty() { StoredAs::Nothing } else { StoredAs::ZeroRetention };
            stored.push(Stored { id: id.to_string(), to, jobs, kept, fresh: Vec::new() });
            continue;
        }
        let window =
            if common.undated { store::messages::dedup::UNDATED_WINDOW } else { store::messages::dedup::WINDOW };
        let (mail_from, size) = (common.mail_from.as_str(), common.size);
        let original = store::messages::dedup::Original { mail_from, to_addr: &to, size, window };
        if let Some(id) = store::messages::dedup::find(tx, ways.objects, plan.fingerprint, original, now)? {
            stored.push(Stored::nothing(id, to));
            continue;
        }
        let id = next_id.take().unwrap_or_else(|| MessageId::new(now));
        stored.push(store_one(tx, ways, id, to, common, plan, mail_data_id()?, now)?);
    }
    Ok((stored, mail_data_row.is_some()))
}

/// Stores one recipient's message with its deliveries.
#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the arguments")]
fn store_one(
    tx: &Connection,
    ways: Services<'_>,
    id: MessageId,
    to: String,
    common: &MessageFields,
    plan: RecipientPlan,
    mail_data_id: MailDataRowId,
    now: Timestamp,
) -> store::Result<Stored> {
    let (account, domain) = (plan.recipient.account, plan.recipient.domain);
    ways.limits.admit_mail(tx, account)?;
    let blocked = store::webhooks::blocked_senders::is_blocked(tx, account, &common.from_addr)?;
    let new = messages::NewMessage {
        public_id: id.clone(),
        account_id: account,
        domain_id: domain,
        route_id: plan.route_id(),
        mail_from: common.mail_from.clone(),
        from_addr: common.from_addr.clone(),
        from_name: common.from_name.clone(),
        to_addr: to.clone(),
        to_name: plan.to_name.clone(),
        subject: common.subject.clone(),
        message_id_header: common.message_id_header.clone(),
        thread_id: common.thread_id.clone(),
        spf: common.verdicts.spf.map(|verdict| verdict.as_str()),
        dkim: common.verdicts.dkim.map(|verdict| verdict.as_str()),
        dmarc: common.verdicts.dmarc.map(|verdict| verdict.as_str()),
        spam: if blocked { Some("spam") } else { common.spam },
        trace: plan.trace.clone(),
        truncated: common.truncated,
        attachment_count: common.parts.len(),
        size: common.size,
        mail_data_id,
    };
    let (row, received_at) = messages::insert(tx, &new, now)?;
    store::accounts::limits::add_deliveries(tx, account, row, plan.runs)?;
    store::messages::dedup::insert(tx, plan.fingerprint, row, now)?;
    store::messages::attachments::insert_all(tx, row, &common.parts)?;
    let kept = StoredAs::Message { account, domain, row };
    let mut stored = Stored { id: id.to_string(), to, jobs: Vec::new(), kept, fresh: Vec::new() };
    if blocked {
        return Ok(stored);
    }
    stored.jobs = forward_all(tx, ways, common, &plan, Some(row), mail_data_id, now)?;
    let message = Arc::new(new.into_row(row, received_at));
    for route in &plan.routes {
        let (Some(url), Some(flow)) = (&route.row.destination, &route.flow) else { continue };
        let delivery = store::webhooks::deliveries::NewDelivery {
            account_id: account,
            message: row,
            message_id: &id,
            route_id: &route.row.public_id,
            url,
        };
        let delivery = store::webhooks::deliveries::insert_received(tx, &delivery, now)?;
        let left = ways.jobs.enqueue(tx, flow, jobs::JobSubject::Webhook(delivery.id), now)?;
        if left.is_claimed() {
            let version = plan.recipient.routes_version;
            let (message, route) = (Arc::clone(&message), Arc::clone(&route.row));
            stored.fresh.push(CachedMessage { delivery, message, route, version });
        }
        stored.jobs.push(left);
    }
    Ok(stored)
}

/// Enqueues a dispatch for each forward route of a recipient and returns the jobs. A route that forwarded the message
/// before does not forward it again (contract 4.1).
pub(super) fn forward_all(
    tx: &Connection,
    ways: Services<'_>,
    common: &MessageFields,
    plan: &RecipientPlan,
    message: Option<MessageRowId>,
    mail_data_id: MailDataRowId,
    now: Timestamp,
) -> store::Result<Vec<EnqueuedJob>> {
    let mut jobs = Vec::new();
    let due = forwards(common, plan).count();
    let (running, copies) = share_copies(common.copies, due);
    ways.limits.count_refused(Kind::LocalCopies, due - running);
    for route in forwards(common, plan).take(running) {
        let Some(to) = route.row.destination.as_deref() else { continue };
        let forward = Forward {
            account: plan.recipient.account,
            message,
            route: &route.row.public_id,
            to,
            domain: plan.recipient.mailbox.domain().as_str(),
            mail_from: &common.mail_from,
            trace: &plan.trace,
            mail_data_id,
            copies,
            recipient: &plan.recipient.mailbox,
            exact: is_exact(&route.row.match_pattern),
            policy: route.row.on_auth_fail,
            verification: &common.verification,
            message_id: common.message_id_header.as_deref().unwrap_or(&plan.own_id),
            author: common.author.as_deref(),
            plain_header: common.plain_header,
        };
        jobs.extend(ways.outbound.forward(tx, forward, now)?);
    }
    Ok(jobs)
}

/// Returns the forward routes of a recipient.
pub(super) fn forwards<'p>(
    common: &'p MessageFields,
    plan: &'p RecipientPlan,
) -> impl Iterator<Item = &'p Arc<Route>> {
    let goes_round = common.received_count > MAX_RECEIVED;
    plan.routes.iter().filter(move |route| {
        let again = common.forwarded_by.iter().any(|id| id == route.row.public_id.as_str());
        route.row.action == Action::Forward && !again && !goes_round
    })
}
