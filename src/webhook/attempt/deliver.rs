//! One attempt of a webhook delivery: it is prepared, posted, and recorded in the transaction that settles its job.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::store::Connection;
use hyper::HeaderMap;

use super::in_flight::Guard;
use super::log;
use super::outcome::{self, AnswerView, Outcome};
use super::prepare::{Damaged, EMAIL_RECEIVED, Lookup, Prepared, Trigger};
use super::record::{CompletedAttempt, Recorded, RequestInfo};
use super::request::{self, RequestMeta};
use super::signature::SigningSecrets;
use crate::clock::Timestamp;
use crate::id::DeliveryRowId;
use crate::jobs::{AttemptResult, ClaimedJob, Flow, Handler, Settlement};
use crate::metrics::{Counter, WebhookAnswer};
use crate::net::egress::{Answer, Body, EgressError, Limits, Target};
use crate::store;
use crate::store::webhooks::deliveries::{self, DeliveryRow, DeliveryStatus};
use crate::store::webhooks::routes::AckMode;
use crate::webhook::Webhooks;

/// Upper bound of an attempt, which takes at most 15 s. One whose lease ends earlier is not started, so that it
/// cannot run twice.
pub(crate) const ATTEMPT_TIME: Duration = Duration::from_secs(20);
/// Delay before an attempt that failed for a local reason (a busy database) runs again.
const LOCAL_FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// An attempt to be recorded. Other attempts of the delivery wait for that.
pub(crate) struct Attempted {
    result: Made,
    /// None for a delivery that was given up.
    guard: Option<Guard>,
}

/// Result of an attempt.
enum Made {
    /// Nothing was posted, for a local reason.
    Nothing,
    Posted(Box<CompletedAttempt>),
    /// The mail data is not what was accepted.
    Damaged(Box<Damaged>, Timestamp),
    /// There is nothing left to attempt; with the `last_error` value (contract 6.1).
    Ended(Option<(DeliveryRowId, &'static str)>, Timestamp),
    /// The endpoint accepted nothing in all its time.
    GivenUp(DeliveryRowId, Timestamp),
}

/// A recorded attempt.
pub(crate) struct Settled {
    recorded: Option<Recorded>,
    /// A delivery that ended without another attempt, and the reason; for the log.
    ended: Option<(Box<DeliveryRow>, &'static str)>,
    guard: Option<Guard>,
}

impl Handler for Webhooks {
    type Attempted = Attempted;
    type Settled = Settled;

    async fn attempt(self: Arc<Self>, _: Flow, job: ClaimedJob, now: Timestamp) -> AttemptResult<Attempted> {
        // The job waits while a user's attempt runs, and keeps its step of the retry schedule.
        let Some(guard) = self.in_flight.enter(job.subject_id.of_kind()) else { return postponed(now) };
        let AttemptResult { verdict, health, attempted } = self.make_attempt(&job, now).await;
        let result = attempted.unwrap_or(Made::Nothing);
        AttemptResult { verdict, health, attempted: Some(Attempted { result, guard: Some(guard) }) }
    }

    async fn give_up(self: Arc<Self>, job: ClaimedJob, now: Timestamp) -> AttemptResult<Attempted> {
        let result = Made::GivenUp(job.subject_id.of_kind(), now);
        AttemptResult { attempted: Some(Attempted { result, guard: None }), ..AttemptResult::failed() }
    }

    fn settle(
        &self,
        tx: &Connection,
        attempted: Attempted,
        settlement: Settlement,
    ) -> store::Result<Option<Settled>> {
        let Attempted { result, guard } = attempted;
        let mut logged = None;
        let recorded = match result {
            Made::Nothing => None,
            Made::Posted(posted) => {
                let (status, next_attempt_at) = match settlement {
                    Settlement::Delivered => (DeliveryStatus::Delivered, None),
                    Settlement::Retry(at) => (DeliveryStatus::Pending, Some(at)),
                    Settlement::Failed => (DeliveryStatus::Failed, None),
                };
                self.record(tx, *posted, status, next_attempt_at)?
            }
            Made::Damaged(damaged, now) => self.record_damaged(tx, *damaged, now)?,
            Made::Ended(ended, now) => {
                if let Some((delivery, word)) = ended {
                    deliveries::end(tx, delivery, word, now)?;
                    logged = deliveries::find_by_row(tx, delivery)?.map(|row| (Box::new(row), word));
                }
                None
            }
            Made::GivenUp(delivery, now) => self.end_unattempted(tx, delivery, now)?,
        };
        Ok(Some(Settled { recorded, ended: logged, guard }))
    }

    fn committed(&self, settled: Settled) {
        // Dropped before subscribers learn of this attempt, because they may request the next one.
        drop(settled.guard);
        if let Some((delivery, reason)) = settled.ended {
            log::ended(&delivery, &delivery.event_id, reason);
        }
        settled.recorded.into_iter().for_each(|recorded| self.publish(recorded));
    }
}

impl Webhooks {
    async fn make_attempt(self: &Arc<Self>, job: &ClaimedJob, now: Timestamp) -> AttemptResult<Made> {
        let waiting = Instant::now();
        let found = match self.prepare_cached(job.subject_id.of_kind(), now) {
            Some(found) => found.map(|found| (found, None)),
            None => self.prepare(job.subject_id.of_kind(), Trigger::Queue, now).await,
        };
        match found {
            Ok((Lookup::Ready(prepared), _reservation)) => {
                let begins = begins(now, waiting);
                if begins.plus(ATTEMPT_TIME) > job.lease_until {
                    return postponed(begins);
                }
                let posted = self.exchange(*prepared, Trigger::Queue, begins).await;
                let (verdict, health) = (posted.verdict(), posted.health());
                AttemptResult { verdict, health, attempted: Some(Made::Posted(Box::new(posted))) }
            }
            Ok((Lookup::Damaged(damaged), _)) => {
                self.metrics.add(Counter::WebhooksRejected);
                self.metrics.webhook_attempts.add(WebhookAnswer::Damaged);
                AttemptResult { attempted: Some(Made::Damaged(damaged, now)), ..AttemptResult::failed() }
            }
            Ok((Lookup::Ended(ended), _)) => {
                AttemptResult { attempted: Some(Made::Ended(ended, now)), ..AttemptResult::failed() }
            }
            Err(error) => {
                tracing::warn!(job = job.id.get(), %error, "a delivery could not be prepared");
                postponed(now)
            }
        }
    }

    /// Signs and posts one attempt and judges the answer; stores nothing.
    pub(crate) async fn exchange(
        &self,
        mut prepared: Prepared,
        trigger: Trigger,
        now: Timestamp,
    ) -> CompletedAttempt {
        let attempt = prepared.delivery.attempts + 1;
        // The payload may be large and is not needed after the post.
        let payload = std::mem::take(&mut prepared.payload);
        let secrets = SigningSecrets { current: &prepared.secret, previous: prepared.previous_secret.as_deref() };
        let (delivery, event_id) = (&prepared.delivery.public_id, prepared.delivery.event_id.as_str());
        let head = RequestMeta { delivery, event_id, attempt, secrets };
        let (headers, body) = request::signed(head, payload, now);
        let clock = Instant::now();
        let answer = self.post(&prepared.url, prepared.ack_mode, headers.clone(), body).await;
        let duration = clock.elapsed();
        self.metrics.webhook_attempted(answer_class(&answer), duration);
        if attempt == 1 && trigger == Trigger::Queue && prepared.delivery.event_type == EMAIL_RECEIVED {
            self.metrics.webhook_reached_after(now.plus(duration).since(prepared.delivery.created_at));
        }
        let outcome = answer.as_ref().ok().map(|answer| judge(prepared.ack_mode, answer, now.plus(duration)));
        let sent = RequestInfo { attempt, manual: trigger == Trigger::Manual, headers: &headers, at: now, duration };
        let posted = CompletedAttempt::new(prepared, sent, answer, outcome);
        let delivered = posted.is_delivered();
        self.metrics.add(if delivered { Counter::WebhooksDelivered } else { Counter::WebhooksRejected });
        posted
    }

    /// Posts once. An answer with a broken or late body still counts as an answer, unless `mode` needs the body.
    pub(crate) async fn post(
        &self,
        url: &str,
        mode: AckMode,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Answer, EgressError> {
        // The URL was permitted when the route was created, but the operator's policy may have changed since.
        let target = Target::parse(url, &self.policy).map_err(|_| EgressError::BlockedAddress)?;
        let answer = self.egress.post_for_status(&target, headers, body, Limits::default()).await?;
        let broken = answer.broken.filter(|_| outcome::needs_body(mode, view(&answer)));
        broken.map_or(Ok(answer), Err)
    }
}

/// Returns the start time of an attempt requested at `now`: large mail may have waited for memory, and the signature
/// carries the time.
pub(crate) fn begins(now: Timestamp, waiting: Instant) -> Timestamp {
    let waited = waiting.elapsed();
    if waited < Duration::from_secs(1) { now } else { now.plus(waited) }
}

/// Returns the end of an attempt as metrics name it.
pub(crate) fn answer_class(answer: &Result<Answer, EgressError>) -> WebhookAnswer {
    match answer {
        Ok(answer) => WebhookAnswer::of_status(answer.status),
        Err(EgressError::Timeout) => WebhookAnswer::Timeout,
        Err(EgressError::Dns) => WebhookAnswer::Dns,
        Err(EgressError::Connect) => WebhookAnswer::Connection,
        Err(EgressError::Tls) => WebhookAnswer::Tls,
        Err(EgressError::BlockedAddress) => WebhookAnswer::Blocked,
        Err(EgressError::BadResponse) => WebhookAnswer::BadResponse,
    }
}

/// Judges an answer by the route's ack mode; `now` is the time at which it was complete.
pub(crate) fn judge(mode: AckMode, answer: &Answer, now: Timestamp) -> Outcome {
    outcome::judge(mode, view(answer), now)
}

fn view(answer: &Answer) -> AnswerView<'_> {
    let Answer { status, headers, body, truncated, .. } = answer;
    AnswerView { status: *status, headers, body, truncated: *truncated }
}

/// Postpones an attempt that did not happen for a local reason; no step of the retry schedule is used up.
pub(crate) fn postponed<A>(now: Timestamp) -> AttemptResult<A> {
    AttemptResult::postponed(now.plus(LOCAL_FAILURE_PAUSE))
}
