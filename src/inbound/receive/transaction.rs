//! The transaction of an acceptance: writes everything that the 250 promises.

use std::sync::Arc;

use super::forwarding::forward_all;
use super::plan::{MessageFields, RecipientPlan};
use super::{Services, zero_retention};
use crate::clock::Timestamp;
use crate::event_bus::mail_log::{Event, Line};
use crate::id::{AccountRowId, DomainRowId, MailDataRowId, MessageId, MessageRowId};
use crate::jobs::{self, EnqueuedJob};
use crate::store::messages;
use crate::store::messages::mail_data;
use crate::store::messages::mail_data::NewMailData;
use crate::store::messages::removals::Reason;
use crate::store::webhooks::deliveries;
use crate::store::webhooks::deliveries::NewDelivery;
use crate::store::{self, Connection};
use crate::webhook::attempt::first_attempt_cache::CachedMessage;

/// Result of the commit for one recipient.
pub(super) struct Stored {
    pub(crate) id: String,
    pub(crate) to: String,
    pub(crate) jobs: Vec<EnqueuedJob>,
    pub(crate) stored_as: StoredAs,
    /// Deliveries that may be attempted without reading the stored message.
    pub(crate) first_attempts: Vec<CachedMessage>,
}

impl Stored {
    const fn nothing(id: String, to: String, discarded: Discarded) -> Self {
        Self { id, to, jobs: Vec::new(), stored_as: StoredAs::Nothing(discarded), first_attempts: Vec::new() }
    }

    /// Logs a recipient of whose mail nothing is stored.
    pub(super) fn log_discarded(&self, mail_from: &str) {
        let StoredAs::Nothing(discarded) = &self.stored_as else { return };
        let (event, reason, route) = match discarded {
            Discarded::ByRoute(route) => (Event::Dropped, "drop_route", route.as_deref()),
            Discarded::ZeroRetention => (Event::Dropped, "zero_retention", None),
            Discarded::Duplicate => (Event::Duplicate, "duplicate", None),
        };
        let line = Line {
            message_id: Some(&self.id),
            from: Some(mail_from),
            to: Some(&self.to),
            reason: Some(reason),
            route,
            ..Line::default()
        };
        line.log(event);
    }
}

/// Reason that nothing of a recipient's mail is stored.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Discarded {
    /// A drop route, by its public id.
    ByRoute(Option<String>),
    /// A domain with zero retention and without a recipient webhook, or the account blocks the sender.
    ZeroRetention,
    /// A repetition; the id is that of the first one.
    Duplicate,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum StoredAs {
    Nothing(Discarded),
    /// A message.
    Message {
        account: AccountRowId,
        domain: Option<DomainRowId>,
        row: MessageRowId,
    },
    /// Zero retention: rows that are removed after their attempts.
    ZeroRetention,
}

/// Stores the message of each recipient, and the mail data once if any of them needs it; the second value is true if it
/// was stored.
pub(super) fn store_all(
    tx: &Connection,
    services: Services<'_>,
    first: MessageId,
    fields: &MessageFields,
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
            stored.push(Stored::nothing(id.to_string(), to, Discarded::ByRoute(plan.drop_route())));
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
            let jobs = zero_retention::store(tx, services, &id, fields, &plan, mail_data_id, now)?;
            if jobs.is_empty() {
                store::messages::removals::note(tx, &id, Reason::Rule, now)?;
            }
            let stored_as =
                if jobs.is_empty() { StoredAs::Nothing(Discarded::ZeroRetention) } else { StoredAs::ZeroRetention };
            stored.push(Stored { id: id.to_string(), to, jobs, stored_as, first_attempts: Vec::new() });
            continue;
        }
        let window =
            if fields.undated { store::messages::dedup::UNDATED_WINDOW } else { store::messages::dedup::WINDOW };
        let (mail_from, size) = (fields.mail_from.as_str(), fields.size);
        let original = store::messages::dedup::Original { mail_from, to_addr: &to, size, window };
        if let Some(id) = store::messages::dedup::find(tx, services.objects, plan.fingerprint, original, now)? {
            stored.push(Stored::nothing(id, to, Discarded::Duplicate));
            continue;
        }
        let id = next_id.take().unwrap_or_else(|| MessageId::new(now));
        stored.push(store_one(tx, services, id, to, fields, plan, mail_data_id()?, now)?);
    }
    Ok((stored, mail_data_row.is_some()))
}

/// Stores one recipient's message with its deliveries.
#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the arguments")]
fn store_one(
    tx: &Connection,
    services: Services<'_>,
    id: MessageId,
    to: String,
    fields: &MessageFields,
    plan: RecipientPlan,
    mail_data_id: MailDataRowId,
    now: Timestamp,
) -> store::Result<Stored> {
    let (account, domain) = (plan.recipient.account, plan.recipient.domain);
    services.limits.admit_mail(tx, account)?;
    let blocked = store::webhooks::blocked_senders::is_blocked(tx, account, &fields.from_addr)?;
    let new = messages::NewMessage {
        public_id: id.clone(),
        account_id: account,
        domain_id: domain,
        route_id: plan.route_id(),
        mail_from: fields.mail_from.clone(),
        from_addr: fields.from_addr.clone(),
        from_name: fields.from_name.clone(),
        to_addr: to.clone(),
        to_name: plan.to_name.clone(),
        subject: fields.subject.clone(),
        message_id_header: fields.message_id_header.clone(),
        thread_id: fields.thread_id.clone(),
        spf: fields.verdicts.spf.map(|verdict| verdict.as_str()),
        dkim: fields.verdicts.dkim.map(|verdict| verdict.as_str()),
        dmarc: fields.verdicts.dmarc.map(|verdict| verdict.as_str()),
        spam: if blocked { Some(messages::SpamVerdict::Spam) } else { fields.spam },
        trace: plan.trace.clone(),
        truncated: fields.truncated,
        attachment_count: fields.parts.len(),
        size: fields.size,
        mail_data_id,
    };
    let (row, received_at) = messages::insert(tx, &new, now)?;
    store::accounts::limits::add_deliveries(tx, account, row, plan.runs)?;
    store::messages::dedup::insert(tx, plan.fingerprint, row, now)?;
    store::messages::attachments::insert_all(tx, row, &fields.parts)?;
    let stored_as = StoredAs::Message { account, domain, row };
    let mut stored = Stored { id: id.to_string(), to, jobs: Vec::new(), stored_as, first_attempts: Vec::new() };
    if blocked {
        return Ok(stored);
    }
    stored.jobs = forward_all(tx, services, fields, &plan, Some(row), mail_data_id, now)?;
    let message = Arc::new(new.into_row(row, received_at));
    let webhooks: Vec<_> = plan
        .routes
        .iter()
        .filter_map(|route| Some((&route.row, route.row.destination.as_deref()?, route.flow.as_ref()?)))
        .collect();
    let new: Vec<NewDelivery<'_>> = webhooks
        .iter()
        .map(|(route, url, _)| NewDelivery {
            account_id: account,
            message: row,
            message_id: &id,
            route_id: &route.public_id,
            url,
        })
        .collect();
    let deliveries = deliveries::insert_received(tx, &new, now)?;
    let jobs: Vec<_> = webhooks
        .iter()
        .zip(&deliveries)
        .map(|((_, _, flow), delivery)| (*flow, jobs::JobSubject::Webhook(delivery.id)))
        .collect();
    let enqueued = services.jobs.enqueue_all(tx, &jobs, now)?;
    let claimed = webhooks.iter().zip(deliveries).zip(&enqueued).filter(|(_, job)| job.is_claimed());
    stored.first_attempts = claimed
        .map(|(((route, ..), delivery), _)| CachedMessage {
            delivery,
            message: Arc::clone(&message),
            route: Arc::clone(route),
            version: plan.recipient.routes_version,
        })
        .collect();
    stored.jobs.extend(enqueued);
    Ok(stored)
}
