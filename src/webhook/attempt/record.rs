//! Stores the result of a posted attempt (database): the attempt's row, the delivery's status, and the effects of a
//! control answer.

use std::time::Duration;

use crate::store::Connection;
use hyper::HeaderMap;

use super::log;
use super::outcome::{Control, Outcome, Reason};
use super::prepare::{Prepared, Received};
use super::request;
use crate::clock::Timestamp;
use crate::event_bus::Activity;
use crate::id::{AccountRowId, AttemptId, DeliveryRowId, DomainRowId};
use crate::jobs::{EnqueuedJob, Health, Verdict};
use crate::limits::{Kind, Limits};
use crate::net::egress::{Answer, EgressError};
use crate::store;
use crate::store::messages;
use crate::store::messages::attachments;
use crate::store::webhooks::attempts::Attempt as AttemptRow;
use crate::store::webhooks::deliveries::{self, DeliveryRow, DeliveryStatus, Progress};
use crate::store::webhooks::{blocked_senders, routes};
use crate::webhook::Webhooks;
use crate::webhook::events::delivery_updated;
use crate::webhook::events::delivery_updated::DeliveryState;
use crate::webhook::flow_of;

/// The `last_error` value (contract 6.1) of a delivery given up while its endpoint accepted nothing.
const ENDPOINT_FAILING: &str = "endpoint_failing";

/// The request that was sent, and its time.
pub(crate) struct RequestInfo<'a> {
    /// Attempt number, from 1.
    pub(crate) attempt: u32,
    pub(crate) manual: bool,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) at: Timestamp,
    /// Time until the answer, or until the failure.
    pub(crate) duration: Duration,
}

/// Maximum number of captured response header fields, and of octets in their names and values.
const FIELDS_MAX: usize = 64;
const FIELD_OCTETS_MAX: usize = 8 * 1024;

/// Returns the response header fields to store: from the first on, as many as fit.
fn captured(headers: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    let mut octets = 0_usize;
    headers.iter().take(FIELDS_MAX).map(|(name, value)| (name.as_str(), value.as_str())).filter(
        move |(name, value)| {
            let with = octets.saturating_add(name.len() + value.len());
            let fits = with <= FIELD_OCTETS_MAX;
            octets = if fits { with } else { octets };
            fits
        },
    )
}

/// An attempt that reached the network, with its result.
pub(crate) struct CompletedAttempt {
    prepared: Prepared,
    pub(crate) answer: Result<Answer, EgressError>,
    outcome: Option<Outcome>,
    /// The row to store, built in advance because all transactions share one writer.
    row: AttemptRow,
    finished: Timestamp,
}

impl CompletedAttempt {
    pub(crate) fn new(
        prepared: Prepared,
        sent: RequestInfo<'_>,
        answer: Result<Answer, EgressError>,
        outcome: Option<Outcome>,
    ) -> Self {
        let answered = answer.as_ref().ok();
        let error = error(&answer, outcome.as_ref());
        let headers = sent.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()));
        let row = AttemptRow {
            public_id: AttemptId::new(sent.at),
            attempt: sent.attempt,
            manual: sent.manual,
            request_url: prepared.url.clone(),
            request_headers: request::headers_json(headers),
            status_code: answered.map(|answer| answer.status),
            response_headers: answered.map(|answer| request::headers_json(captured(&answer.headers))),
            response_body: answered.map(|answer| answer.body.clone()),
            response_truncated: answered.is_some_and(|answer| answer.truncated),
            error: error.map(str::to_owned),
            duration_ms: u64::try_from(sent.duration.as_millis()).unwrap_or(u64::MAX),
            created_at: sent.at,
        };
        Self { prepared, answer, outcome, row, finished: sent.at.plus(sent.duration) }
    }

    pub(crate) const fn is_delivered(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Delivered { .. }))
    }

    /// Returns the delivery as it was before the attempt.
    pub(crate) const fn delivery(&self) -> &DeliveryRow {
        &self.prepared.delivery
    }

    /// Returns the URL it was posted to.
    pub(crate) fn url(&self) -> &str {
        &self.prepared.url
    }

    pub(crate) fn health(&self) -> Health {
        let not_before = match self.verdict() {
            Verdict::Deferred { not_before, .. } => not_before,
            _ => None,
        };
        health(&self.answer, not_before)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match &self.outcome {
            Some(Outcome::Delivered { .. }) => Verdict::Delivered,
            Some(Outcome::Rejected { reason: Reason::Gone, .. }) => Verdict::Failed,
            Some(Outcome::Rejected { retry_after, .. }) => {
                Verdict::Deferred { not_before: retry_after.map(|wait| self.finished.plus(wait)), not_after: None }
            }
            None => Verdict::Deferred { not_before: None, not_after: None },
        }
    }
}

/// A recorded attempt, to be published after the commit.
pub(crate) struct Recorded {
    pub(super) account: AccountRowId,
    pub(super) changed: Option<ChangedDelivery>,
    /// Job of a mail to the account's owner.
    pub(super) notified: Option<EnqueuedJob>,
    /// True if the receiver dropped the message.
    pub(super) dropped: bool,
    /// An object that is no longer needed.
    pub(super) file: Option<String>,
    pub(super) activity: Option<Activity>,
}

/// A delivery as an attempt left it.
pub(super) struct ChangedDelivery {
    /// The delivery before.
    pub(super) delivery: DeliveryRow,
    /// Public id of its message.
    pub(super) message: String,
    pub(super) domain: Option<DomainRowId>,
    pub(super) status: DeliveryStatus,
    pub(super) attempts: u32,
    pub(super) last_status_code: Option<u16>,
    /// URL of the latest attempt.
    pub(super) url: String,
    pub(super) at: Timestamp,
}

impl Recorded {
    /// Nothing to publish yet.
    pub(super) const fn new(account: AccountRowId) -> Self {
        Self { account, changed: None, notified: None, dropped: false, file: None, activity: None }
    }
}

impl Recorded {
    fn log(&self) {
        match (&self.changed, &self.activity) {
            (Some(changed), Some(activity)) => {
                log::attempted(activity, &changed.message, changed.delivery.route_id.as_ref(), changed.status);
            }
            (Some(changed), None) => log::ended(&changed.delivery, &changed.message, ENDPOINT_FAILING),
            // The message was removed meanwhile.
            (None, _) => {}
        }
    }
}

/// Returns the endpoint health that an attempt shows: a status that rejects only this event means the endpoint works.
fn health(answer: &Result<Answer, EgressError>, not_before: Option<Timestamp>) -> Health {
    match answer {
        Err(_) => Health::Unreachable,
        Ok(answer) if answer.status >= 500 || answer.status == 429 => Health::Failing { not_before },
        Ok(_) => Health::Up,
    }
}

/// Returns the `last_error` value of a failed attempt (contract 6.1).
fn error(answer: &Result<Answer, EgressError>, outcome: Option<&Outcome>) -> Option<&'static str> {
    match (answer, outcome) {
        (Err(error), _) => Some(error.as_str()),
        (_, Some(Outcome::Rejected { reason, .. })) => Some(reason.as_str()),
        _ => None,
    }
}

impl Webhooks {
    /// Stores a posted attempt that leaves its delivery in `status`, and applies the instructions of a control
    /// answer.
    ///
    /// Stores nothing for a delivery that was removed meanwhile or lost its message. One that was ended meanwhile
    /// stays ended, unless the attempt succeeded.
    pub(crate) fn record(
        &self,
        tx: &Connection,
        posted: CompletedAttempt,
        status: DeliveryStatus,
        next_attempt_at: Option<Timestamp>,
    ) -> store::Result<Option<Recorded>> {
        let (delivery, row) = (&posted.prepared.delivery, &posted.row);
        let present = deliveries::find_by_row(tx, delivery.id)?;
        let Some(present) = present.filter(|row| row.message == delivery.message) else { return Ok(None) };
        let error = error(&posted.answer, posted.outcome.as_ref());
        let mut progress =
            Progress { status, url: &posted.prepared.url, status_code: row.status_code, error, next_attempt_at };
        if present.status != delivery.status && !posted.is_delivered() {
            progress.status = present.status;
            progress.error = present.last_error.as_deref();
            progress.next_attempt_at = present.next_attempt_at;
        }
        let (status, next_attempt_at) = (progress.status, progress.next_attempt_at);
        store::webhooks::attempts::insert(tx, delivery.id, row)?;
        deliveries::record_attempt(tx, delivery.id, row.attempt, &progress, posted.finished)?;
        let outcome = if posted.is_delivered() { DeliveryStatus::Delivered } else { DeliveryStatus::Failed };
        if let Some(route) = &posted.prepared.route {
            routes::note_outcome(tx, route, outcome.as_str(), row.status_code)?;
        }
        let mut dropped_file = None;
        let mut dropped = false;
        if let (Some(Outcome::Delivered { control }), Some(received)) = (&posted.outcome, &posted.prepared.received) {
            dropped_file = apply_control(tx, &self.limits, received, delivery.account_id, *control, posted.finished)?;
            dropped = control.drop;
        }
        let notified = if status == DeliveryStatus::Failed && present.status == DeliveryStatus::Pending {
            let url = posted.prepared.url.as_str();
            self.tell_owner(tx, &present, url, error, row.status_code, row.created_at)?
        } else {
            None
        };
        let named = match (&posted.prepared.received, delivery.message) {
            // The event has the id of the message.
            (Some(received), _) => Some((delivery.event_id.clone(), received.domain)),
            (None, Some(message)) => messages::find_name(tx, message)?,
            (None, None) => None,
        };
        let last_status_code = row.status_code.or(present.last_status_code);
        let account = delivery.account_id;
        let changed = named.map(|(message, domain)| ChangedDelivery {
            delivery: delivery.clone(),
            message,
            domain,
            status,
            attempts: row.attempt,
            last_status_code,
            url: posted.prepared.url.clone(),
            at: posted.finished,
        });
        let activity = Some(posted.activity(status, error, next_attempt_at));
        Ok(Some(Recorded { account, changed, notified, dropped, file: dropped_file, activity }))
    }

    /// Publishes a recorded attempt once its transaction is committed.
    pub(crate) fn publish(&self, recorded: Recorded) {
        recorded.log();
        if let Some(changed) = recorded.changed {
            let paused_until = self.paused_until(&changed.url, recorded.account, changed.at);
            let state = DeliveryState {
                status: changed.status,
                attempts: changed.attempts,
                last_status_code: changed.last_status_code,
                paused_until,
            };
            let event =
                delivery_updated::event(&changed.delivery, &changed.message, changed.domain, state, changed.at);
            self.publisher.realtime.publish(recorded.account, event);
        }
        recorded.notified.into_iter().for_each(EnqueuedJob::notify_committed);
        if recorded.dropped {
            self.first_attempt_cache.clear();
        }
        self.db.remove_later(&self.objects, recorded.file.into_iter().collect());
        if let Some(activity) = recorded.activity {
            self.publisher.publish(|| activity);
        }
    }
}

impl Webhooks {
    /// Ends a delivery whose time is over while its endpoint accepted nothing (contract 9.5).
    pub(super) fn end_unattempted(
        &self,
        tx: &Connection,
        delivery: DeliveryRowId,
        now: Timestamp,
    ) -> store::Result<Option<Recorded>> {
        let row = deliveries::find_by_row(tx, delivery)?;
        let Some(row) = row.filter(|row| row.status == DeliveryStatus::Pending) else { return Ok(None) };
        deliveries::end(tx, delivery, ENDPOINT_FAILING, now)?;
        let notified = self.tell_owner(tx, &row, &row.url, Some(ENDPOINT_FAILING), row.last_status_code, now)?;
        let named = row.message.map(|message| messages::find_name(tx, message)).transpose()?.flatten();
        let account = row.account_id;
        let changed = named.map(|(message, domain)| ChangedDelivery {
            message,
            domain,
            status: DeliveryStatus::Failed,
            attempts: row.attempts,
            last_status_code: row.last_status_code,
            url: row.url.clone(),
            at: now,
            delivery: row,
        });
        Ok(Some(Recorded { notified, changed, ..Recorded::new(account) }))
    }

    /// Returns the end of an endpoint's pause; `None` if it is not paused.
    pub(crate) fn paused_until(&self, url: &str, account: AccountRowId, now: Timestamp) -> Option<Timestamp> {
        self.jobs.paused_until(&flow_of(url, account), now)
    }
}

impl CompletedAttempt {
    fn activity(
        self,
        status: DeliveryStatus,
        error: Option<&'static str>,
        next_attempt_at: Option<Timestamp>,
    ) -> Activity {
        Activity::Attempted {
            delivery_id: self.prepared.delivery.public_id.to_string(),
            message_id: self.prepared.delivery.event_id,
            url: self.prepared.url,
            attempt: self.row.attempt,
            status_code: self.row.status_code,
            error,
            status: status.as_str(),
            duration_ms: self.row.duration_ms,
            next_attempt_at: next_attempt_at.map(Timestamp::as_millis),
        }
    }
}

/// Applies a control answer to the stored message (contract 9.4); returns a file to remove after the commit.
fn apply_control(
    tx: &Connection,
    limits: &Limits,
    received: &Received,
    account: AccountRowId,
    control: Control,
    now: Timestamp,
) -> store::Result<Option<String>> {
    if control.spam {
        messages::mark_spam(tx, received.row)?;
    }
    if control.block_sender {
        block_sender(tx, limits, account, &received.from_addr, now)?;
    }
    if !control.drop {
        return Ok(None);
    }
    let mail_data_id = messages::mark_dropped(tx, received.row)?;
    attachments::delete_all(tx, received.row)?;
    deliveries::end_by_message(tx, received.row, "message_gone", now)?;
    // Once the content is dropped, the copies that a route forwards are not kept either.
    store::sending::dispatches::delete_by_message(tx, received.row)?;
    mail_data_id.map_or(Ok(None), |id| store::messages::mail_data::release(tx, id))
}

/// Blocks a sender for an account, unless the account's block list is full.
pub(crate) fn block_sender(
    tx: &Connection,
    limits: &Limits,
    account: AccountRowId,
    email: &str,
    now: Timestamp,
) -> store::Result<()> {
    if blocked_senders::is_blocked(tx, account, email)? {
        return Ok(());
    }
    match limits.admit(tx, account, Kind::BlockedSenders) {
        Ok(()) => blocked_senders::insert(tx, account, email, now),
        Err(store::Error::Limit { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
