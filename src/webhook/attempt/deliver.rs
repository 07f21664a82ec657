//! One attempt of a webhook delivery: prepare (database, pure), post (network); `record.rs` stores the result.
//!
//! The job engine calls [`Webhooks::attempt`], and the result is stored in the transaction that settles the job. The
//! payload is rebuilt from the stored message, so every attempt posts the same bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::store::Connection;
use hyper::HeaderMap;

use super::budget;
use super::damaged::Damaged;
use super::first_attempt_cache::FirstAttemptCache;
use super::in_flight::{Guard, InFlight};
use super::outcome::{self, AnswerView, Outcome};
use super::payload::Payload;
use super::record::{CompletedAttempt, Recorded, RequestInfo};
use super::request::{self, RequestMeta, SMALL};
pub(crate) use super::request::{LINK_SECS, payload};
use super::signature::SigningSecrets;
use crate::clock::Timestamp;
use crate::content::{StoredContent, Texts};
use crate::event_bus::Publisher;
use crate::id::{DeliveryRowId, DomainRowId, MessageRowId, RouteId};
use crate::jobs::{self, AttemptResult, ClaimedJob, Flow, Handler, Jobs, Loaded, Settlement};
use crate::limits;
use crate::memory_budget::{MemoryBudget, Reservation};
use crate::metrics::{Counter, Metrics};
use crate::net::egress::{Answer, Body, Egress, EgressError, Limits, Policy, Target};
use crate::secrets::Secrets;
use crate::secrets::signed_links::Links;
use crate::store;
use crate::store::Db;
use crate::store::blobs::objects::Objects;
use crate::store::messages::{self, MessageRow};
use crate::store::webhooks::deliveries;
use crate::store::webhooks::deliveries::DeliveryRow;
use crate::store::webhooks::deliveries::DeliveryStatus;
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::AckMode;
use crate::store::webhooks::routes::RouteRow;
use crate::store::webhooks::{events, former_webhooks};

/// The only event whose payload is built from the stored message.
const EMAIL_RECEIVED: &str = "email.received";
/// Upper bound of an attempt, which takes at most 15 s. One whose lease ends earlier is not started, so that it
/// cannot run twice.
pub(crate) const ATTEMPT_TIME: Duration = Duration::from_secs(20);
/// Delay before an attempt that failed for a local reason (a busy database) runs again.
const LOCAL_FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// Delivers webhooks; handles the jobs of that kind.
pub struct Webhooks {
    pub(crate) db: Db,
    pub(crate) objects: Objects,
    /// Decrypts the signing secrets.
    pub(crate) secrets: Arc<Secrets>,
    /// Signs attachment links.
    pub(crate) links: Arc<Links>,
    /// Posts requests.
    pub(crate) egress: Egress,
    /// Decides which URLs may be posted to.
    pub(crate) policy: Policy,
    pub(crate) metrics: Arc<Metrics>,
    /// Limits per account.
    pub(crate) limits: Arc<limits::Limits>,
    /// Publishes the events of live streams.
    pub(crate) publisher: Publisher,
    /// Woken for mail to account owners.
    pub jobs: Jobs,
    /// Memory budget for large mail.
    pub memory: MemoryBudget,
    /// Deliveries with an attempt in progress.
    pub(crate) in_flight: InFlight,
    /// Deliveries of mail that was just accepted.
    pub(crate) first_attempt_cache: FirstAttemptCache,
}

/// A delivery that is ready to be attempted, with everything the attempt needs.
pub(crate) struct Prepared {
    pub(crate) delivery: DeliveryRow,
    /// The received message, which a control answer may change.
    pub(crate) received: Option<Received>,
    /// `None` for a tracking webhook.
    pub(crate) route: Option<RouteId>,
    pub(crate) ack_mode: AckMode,
    pub(crate) url: String,
    pub(crate) secret: String,
    pub(crate) previous_secret: Option<String>,
    pub(crate) payload: Payload,
}

/// The received message that an event reports.
pub(crate) struct Received {
    pub(crate) row: MessageRowId,
    pub(crate) domain: Option<DomainRowId>,
    pub(crate) from_addr: String,
}

impl Received {
    fn new(message: &MessageRow) -> Self {
        Self { row: message.id, domain: message.domain_id, from_addr: message.from_addr.clone() }
    }
}

/// The origin of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The job engine, for a pending delivery.
    Queue,
    /// A user, whatever the delivery's status.
    Manual,
}

/// Result of looking up a delivery that is to be attempted.
pub(crate) enum Lookup {
    /// The delivery can be attempted.
    Ready(Box<Prepared>),
    /// The mail data is not what was accepted.
    Damaged(Box<Damaged>),
    /// The delivery has ended meanwhile, or its route or message is gone; carries the `last_error` value
    /// (contract 6.1).
    Ended(Option<(DeliveryRowId, &'static str)>),
}

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
                ended.map_or(Ok(()), |(delivery, word)| deliveries::end(tx, delivery, word, now))?;
                None
            }
            Made::GivenUp(delivery, now) => self.end_unattempted(tx, delivery, now)?,
        };
        Ok(Some(Settled { recorded, guard }))
    }

    fn committed(&self, settled: Settled) {
        // Dropped before subscribers learn of this attempt, because they may request the next one.
        drop(settled.guard);
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

    pub(crate) async fn prepare(
        self: &Arc<Self>,
        id: DeliveryRowId,
        trigger: Trigger,
        now: Timestamp,
    ) -> store::Result<(Lookup, Option<Reservation>)> {
        let this = Arc::clone(self);
        let read = move |connection: &Connection, largest| this.look_up(connection, id, trigger, now, largest);
        let reserve = |account, size| self.reserve(account, size);
        let (found, reservation) = jobs::load(&self.db, SMALL as u64, read, reserve).await?;
        let reservation = match &found {
            Lookup::Ready(prepared) => reservation.and_then(|held| budget::shrink(held, &prepared.payload)),
            Lookup::Damaged(_) | Lookup::Ended(_) => None,
        };
        Ok((found, reservation))
    }

    /// Returns the `email.received` JSON of the message `id` as it is stored now, if it still is, with its share of
    /// the memory budget. `message` is the row it had, which may belong to another message by now.
    pub(crate) async fn received(
        self: &Arc<Self>,
        message: MessageRowId,
        id: &str,
    ) -> store::Result<Option<(Payload, Option<Reservation>)>> {
        let found = self.db.read(move |connection| messages::find_by_row(connection, message)).await?;
        let Some(row) = found.filter(|row| row.public_id.as_str() == id) else { return Ok(None) };
        let permit = if row.size > SMALL as u64 { Some(self.reserve(row.account_id, row.size).await) } else { None };
        let this = Arc::clone(self);
        let made = self.db.read(move |connection| payload(connection, &this.objects, &this.links, &row)).await?;
        Ok(made.map(|made| {
            let permit = permit.and_then(|share| budget::shrink(share, &made));
            (made, permit)
        }))
    }

    /// Returns the body that each attempt of a delivery posts, as far as it is still stored, with its share of the
    /// memory budget.
    pub(crate) async fn request_body(
        self: &Arc<Self>,
        delivery: &DeliveryRow,
    ) -> store::Result<Option<(Payload, Option<Reservation>)>> {
        let id = delivery.id;
        let stored = self.db.read(move |connection| events::payload_of(connection, id)).await?;
        match (stored, delivery.message) {
            (Some(payload), _) => Ok(Some((payload.into(), None))),
            (None, Some(message)) if delivery.event_type == EMAIL_RECEIVED => {
                self.received(message, &delivery.event_id).await
            }
            (None, _) => Ok(None),
        }
    }

    fn look_up(
        &self,
        connection: &Connection,
        id: DeliveryRowId,
        trigger: Trigger,
        now: Timestamp,
        largest: u64,
    ) -> store::Result<Loaded<Lookup>> {
        let Some(delivery) = deliveries::find_by_row(connection, id)? else {
            return Ok(Loaded::Complete(Lookup::Ended(None)));
        };
        if trigger == Trigger::Queue && delivery.status != DeliveryStatus::Pending {
            return Ok(Loaded::Complete(Lookup::Ended(None)));
        }
        if let Some(payload) = events::payload_of(connection, id)? {
            return self.look_up_event(connection, delivery, payload, now).map(Loaded::Complete);
        }
        if delivery.event_type != EMAIL_RECEIVED {
            return Ok(Loaded::Complete(Lookup::Ended(Some((id, "message_gone")))));
        }
        let route = match &delivery.route_id {
            Some(route_id) => former_webhooks::find_route(connection, route_id)?,
            None => None,
        };
        let Some(route) = route.filter(|route| route.active) else {
            return Ok(Loaded::Complete(Lookup::Ended(Some((id, "route_gone")))));
        };
        let message = match delivery.message {
            Some(message) => messages::find_by_row(connection, message)?,
            None => None,
        };
        let Some(message) = message else { return Ok(Loaded::Complete(Lookup::Ended(Some((id, "message_gone"))))) };
        if message.size > largest {
            return Ok(Loaded::Large { account: message.account_id, size: message.size });
        }
        let payload = match payload(connection, &self.objects, &self.links, &message) {
            Err(store::Error::Damaged { .. }) => {
                let url = route.destination.unwrap_or_else(|| delivery.url.clone());
                return Ok(Loaded::Complete(Lookup::Damaged(Box::new(Damaged {
                    delivery,
                    domain: message.domain_id,
                    url,
                }))));
            }
            read => read?,
        };
        let Some(payload) = payload else { return Ok(Loaded::Complete(Lookup::Ended(Some((id, "message_gone"))))) };
        self.ready(delivery, Some(Received::new(&message)), &route, payload, now).map(Loaded::Complete)
    }

    /// Does the same from memory for mail that was just accepted; `None` if the database has to be read.
    fn prepare_cached(&self, id: DeliveryRowId, now: Timestamp) -> Option<store::Result<Lookup>> {
        let (cached, data) = self.first_attempt_cache.take(id, |account| self.db.routes_version(account))?;
        let readable = StoredContent::Raw(data.into()).readable();
        Some(readable.and_then(|readable| {
            let payload = request::payload_of(&cached.message, Texts::Decoded(readable), &[], &self.links);
            self.ready(cached.delivery, Some(Received::new(&cached.message)), &cached.route, payload, now)
        }))
    }

    /// Combines a delivery with its route's current URL and secrets.
    pub(crate) fn ready(
        &self,
        delivery: DeliveryRow,
        received: Option<Received>,
        route: &RouteRow,
        payload: Payload,
        now: Timestamp,
    ) -> store::Result<Lookup> {
        let (Some(url), Some(sealed)) = (route.destination.clone(), route.secret_sealed.as_deref()) else {
            return Ok(Lookup::Ended(Some((delivery.id, "route_gone"))));
        };
        let in_overlap = route.previous_valid_until.is_some_and(|until| now < until);
        let previous = route.previous_secret_sealed.as_deref().filter(|_| in_overlap);
        let unseal = |sealed: &[u8]| self.unseal(routes::SECRET_PURPOSE, sealed);
        Ok(Lookup::Ready(Box::new(Prepared {
            secret: unseal(sealed)?,
            previous_secret: previous.map(unseal).transpose()?,
            received,
            route: Some(route.public_id.clone()),
            ack_mode: route.ack_mode.unwrap_or_default(),
            delivery,
            url,
            payload,
        })))
    }

    pub(crate) fn unseal(&self, purpose: &str, sealed: &[u8]) -> store::Result<String> {
        let plain = self.secrets.open_sealed(purpose, sealed).ok();
        plain.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(store::Error::Corrupt("signing secret"))
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
