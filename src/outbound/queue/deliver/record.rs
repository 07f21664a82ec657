//! Records an attempt of a dispatch in the transaction that settles its job, and publishes it after the commit.

use std::time::Duration;

use super::Dispatcher;
use crate::clock::Timestamp;
use crate::event_bus::Activity;
use crate::event_bus::mail_log::{self, Line};
use crate::id::RouteId;
use crate::jobs::{self, Settlement};
use crate::metrics::Counter;
use crate::outbound::forward::Gate;
use crate::outbound::queue::settle::{self, Settled};
use crate::outbound::reports::bounce::Failure;
use crate::outbound::{SessionRecord, Verdict};
use crate::store::jobs::lane_pauses;
use crate::store::messages;
use crate::store::sending::dispatches;
use crate::store::sending::dispatches::DispatchRow;
use crate::store::webhooks::routes;
use crate::store::{self, Connection};

/// An attempt with the outcome of each recipient.
pub(crate) struct CompletedDispatch {
    pub(super) dispatch: DispatchRow,
    pub(super) settled: Vec<Settled>,
    pub(super) session: SessionRecord,
    /// The forwarding gate that closed since it was stored.
    pub(super) closed: Option<Gate>,
    pub(super) finished: Timestamp,
    /// Time that the attempt took; `None` if none was made.
    pub(super) took: Option<Duration>,
}

/// A recorded attempt.
pub(crate) struct RecordedDispatch {
    completed: CompletedDispatch,
    left: settle::SettledDispatch,
    /// Public id of the message, for the log.
    message_id: Option<String>,
    next_attempt_at: Option<Timestamp>,
}

impl Dispatcher {
    pub(super) fn record(
        &self,
        tx: &Connection,
        completed: CompletedDispatch,
        settlement: Settlement,
    ) -> store::Result<Option<RecordedDispatch>> {
        let CompletedDispatch { dispatch, settled, session, closed, finished: now, .. } = &completed;
        // The dispatch may have been removed or finished meanwhile.
        if dispatches::find(tx, dispatch.id)?.is_none_or(|row| row.mail_data_id != dispatch.mail_data_id) {
            return Ok(None);
        }
        let made = dispatches::DispatchAttempt {
            host: session.host.as_deref(),
            tls: session.tls.as_deref(),
            transcript: &session.transcript,
        };
        dispatches::record_attempt(tx, dispatch.id, made, *now)?;
        if settled.iter().any(|one| one.outcome.verdict == Verdict::Sent) {
            lane_pauses::end(tx, &self.outbound.parts.lane_of(dispatch))?;
        }
        let mut left = settle::settle(tx, &self.outbound.parts.jobs, dispatch, settled, *now)?;
        if let Some(message) = &left.message {
            let failed = settled.iter().filter(|one| one.outcome.verdict == Verdict::Bounced);
            let failures: Vec<Failure<'_>> = failed
                .map(|one| Failure {
                    recipient: &one.recipient.address,
                    code: one.outcome.code,
                    status: one.outcome.status,
                    diagnostic: &one.outcome.diagnostic,
                })
                .collect();
            left.report = self.outbound.report_failures(tx, message, &failures, *now)?;
        }
        if let (Some(gate), Some(route)) = (closed, &dispatch.route_id) {
            routes::note_outcome(tx, route, gate.word(), None)?;
        }
        let next_attempt_at = match settlement {
            Settlement::Retry(at) => Some(at),
            Settlement::Delivered | Settlement::Failed => None,
        };
        let message_id = match (&left.message, dispatch.message) {
            (Some(message), _) => Some(message.public_id.to_string()),
            (None, Some(forwarded)) if mail_log::is_enabled() => {
                messages::find_name(tx, forwarded)?.map(|(id, _)| id)
            }
            (None, _) => None,
        };
        Ok(Some(RecordedDispatch { completed, left, message_id, next_attempt_at }))
    }

    /// Notifies subscribers after the commit.
    pub(super) fn publish(&self, recorded: RecordedDispatch) {
        let RecordedDispatch { completed, left, message_id, next_attempt_at } = recorded;
        let CompletedDispatch { dispatch, settled, session, took, .. } = completed;
        let line = Line {
            peer: session.address.map(|address| address.ip()),
            message_id: message_id.as_deref(),
            from: Some(&dispatch.reverse_path),
            tls: session.host.is_some().then(|| session.tls.as_deref().unwrap_or("none")),
            duration: took,
            route: dispatch.route_id.as_ref().map(RouteId::as_str),
            host: session.host.as_deref(),
            attempt: Some(dispatch.attempts + 1),
            ..Line::default()
        };
        let parts = &self.outbound.parts;
        left.raised.into_iter().for_each(|one| one.publish(&parts.publisher));
        left.report.into_iter().for_each(jobs::EnqueuedJob::notify_committed);
        parts.db.remove_later(&parts.objects, left.file.into_iter().collect());
        for one in &settled {
            parts.metrics.add(match one.outcome.verdict {
                Verdict::Sent => Counter::RecipientsSent,
                Verdict::Deferred => Counter::RecipientsDeferred,
                Verdict::Bounced => Counter::RecipientsBounced,
            });
            let next_attempt = next_attempt_at.filter(|_| one.outcome.verdict == Verdict::Deferred);
            one.outcome.log(Line { to: Some(&one.recipient.address), next_attempt, ..line });
            parts.publisher.publish(|| Activity::Sent {
                message_id: left.message.as_ref().map(|row| row.public_id.to_string()),
                from: left.message.as_ref().map_or(&dispatch.reverse_path, |row| &row.from_addr).clone(),
                to: one.recipient.address.clone(),
                subject: left.message.as_ref().and_then(|row| row.subject.clone()),
                status: one.outcome.verdict.status().as_str(),
                captured: one.outcome.is_captured(),
                diagnostic: one.outcome.diagnostic.clone(),
                host: session.host.clone(),
                next_attempt_at: next_attempt.map(Timestamp::as_millis),
            });
        }
    }
}
