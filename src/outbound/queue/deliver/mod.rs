//! One attempt of a dispatch: read (database), transmit (network), record (database).
//!
//! Mail to a domain that is received here is delivered locally at once. In dev mode nothing leaves the machine: all
//! other mail is captured, so its recipients count as sent and the API shows it.

mod prepare;
mod record;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::id::{AccountRowId, DispatchRowId};
use crate::store::Connection;
use bytes::Bytes;

use super::hosts::Wait;
use super::outcome::health;
use super::rate_limiter::{RateLimiter, Slot};
use super::settle::Settled;
use crate::clock::{Clock, Timestamp};
use crate::jobs::{self, AttemptResult, ClaimedJob, Flow, Handler, Health, Settlement};
use crate::limits::Kind;
use crate::mail::address::{Domain, Mailbox};
use crate::mail::status_code::EnhancedStatusCode;
use crate::mail::verification::Verification;
use crate::memory_budget::MemoryBudget;
use crate::metrics::{RemoteOutcome, StatusSubject};
use crate::outbound::transport::Transport;
use crate::outbound::{DeliveryRequest, DeliveryResult, Destination, Outbound, Outcome, SessionRecord, Verdict};
use crate::store;
use crate::store::jobs::lane_pauses;
use crate::store::jobs::lane_pauses::Pause;
use crate::store::sending::dispatches;
use crate::store::sending::dispatches::DispatchRow;
use crate::store::sending::recipients::RecipientRow;
use prepare::{Lookup, Prepared};
use record::CompletedDispatch;
pub(crate) use record::RecordedDispatch;

/// Delay before an attempt that failed for a local reason (a busy database) runs again.
const LOCAL_FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// Time that an attempt to forward waits for its account's rate before its job goes back into the queue.
const RATE_PATIENCE: Duration = Duration::from_secs(10);
/// Interval at which a waiting attempt checks the rate.
const RATE_LOOK: Duration = Duration::from_millis(200);

/// The future returned by a local delivery.
pub(crate) type Delivering = Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>>;

/// Accepts mail for domains that are received here.
pub(crate) trait LocalDelivery: Send + Sync + 'static {
    /// Returns the outcome of each recipient, in the order of the delivery request; the sender was authenticated
    /// before.
    fn deliver(&self, request: DeliveryRequest, verification: Verification) -> Delivering;
}

/// Attempts dispatches; handles the jobs of that kind.
pub(crate) struct Dispatcher {
    /// Composes, signs and stores mail.
    pub(crate) outbound: Outbound,
    /// Delivers to remote hosts.
    pub(crate) transport: Transport,
    /// Accepts mail that is received here.
    pub(crate) local: Arc<dyn LocalDelivery>,
    /// Gives the time at which an attempt ends.
    pub(crate) clock: Clock,
    /// Limits the rate per recipient domain.
    pub(crate) pace: RateLimiter,
    /// Memory budget for large mail data.
    pub(crate) memory: MemoryBudget,
}

/// An attempt to be recorded.
pub(crate) enum Attempted {
    /// Recipients have outcomes.
    Settled(Box<CompletedDispatch>),
    /// The hosts accept nothing at the moment.
    HostPause(HostPause),
}

/// A pause of the hosts that a lane leads to.
pub(crate) struct HostPause {
    lane: Arc<str>,
    pause: Pause,
}

impl HostPause {
    /// Records the pause, for the list of the queue.
    pub(crate) fn record(&self, tx: &Connection) -> store::Result<()> {
        lane_pauses::note(tx, &self.lane, &self.pause)
    }
}

impl Handler for Dispatcher {
    type Attempted = Attempted;
    type Settled = RecordedDispatch;

    async fn attempt(self: Arc<Self>, flow: Flow, job: ClaimedJob, now: Timestamp) -> AttemptResult<Attempted> {
        let slot = self.acquire_slot(job.subject_id.of_kind()).await;
        let mut found = self.prepare(job.subject_id.of_kind()).await;
        if let Ok((Lookup::Ready(prepared), _)) = &found
            && prepared.dispatch.route_id.is_some()
        {
            let account = prepared.dispatch.account_id;
            if !self.is_within_rate(account) {
                // Its mail data is not held while it waits.
                drop(found);
                if !self.wait_for_rate(account).await {
                    return postponed(self.clock.now());
                }
                found = self.prepare(job.subject_id.of_kind()).await;
            }
        }
        match found {
            Ok((Lookup::Ready(mut prepared), _reservation)) => {
                let began = Instant::now();
                let transmitted = self.transmit(&flow, &mut prepared, now).await;
                let took = began.elapsed();
                self.count(&prepared, &transmitted, took);
                if transmitted.wait.is_some() {
                    self.release(&prepared, slot);
                }
                self.attempted_or_waits(&flow, &job, *prepared, transmitted, took)
            }
            Ok((Lookup::Lost(lost), _)) => self.lost(*lost),
            Ok((Lookup::Ended, _)) => AttemptResult::finished(),
            Err(error) => {
                tracing::warn!(job = job.id.get(), %error, "a dispatch could not be prepared");
                postponed(now)
            }
        }
    }

    async fn give_up(self: Arc<Self>, job: ClaimedJob, now: Timestamp) -> AttemptResult<Attempted> {
        match self.prepare(job.subject_id.of_kind()).await {
            Ok((Lookup::Ready(prepared), _reservation)) => {
                let unanswered =
                    Outcome::without_reply(EnhancedStatusCode::NO_ANSWER, "the destination did not answer");
                let transmitted = all(&prepared, &unanswered);
                self.attempted(*prepared, transmitted, None)
            }
            Ok((Lookup::Lost(lost), _)) => self.lost(*lost),
            Ok((Lookup::Ended, _)) => AttemptResult::finished(),
            Err(_) => postponed(now),
        }
    }

    fn settle(
        &self,
        tx: &Connection,
        attempted: Attempted,
        settlement: Settlement,
    ) -> store::Result<Option<RecordedDispatch>> {
        match attempted {
            Attempted::Settled(completed) => self.record(tx, *completed, settlement),
            Attempted::HostPause(pause) => pause.record(tx).map(|()| None),
        }
    }

    fn committed(&self, recorded: RecordedDispatch) {
        self.publish(recorded);
    }
}

impl Dispatcher {
    /// Counts an attempt that a remote host had the chance to answer.
    fn count(&self, prepared: &Prepared, transmitted: &DeliveryResult, took: Duration) {
        let parts = &self.outbound.parts;
        if prepared.local || parts.config.dev || prepared.closed.is_some() || transmitted.wait.is_some() {
            return;
        }
        parts.metrics.remote_delivery_took(took);
        for outcome in &transmitted.outcomes {
            let ended = match outcome.verdict {
                Verdict::Sent => RemoteOutcome::Sent,
                Verdict::Deferred => RemoteOutcome::Deferred,
                Verdict::Bounced => RemoteOutcome::Bounced,
            };
            let subject = StatusSubject::of_number(outcome.status.map(|status| status.subject));
            parts.metrics.remote_deliveries.add(ended, subject);
        }
    }

    /// Waits for the rate limit of a dispatch, before its mail data takes up memory.
    async fn acquire_slot(self: &Arc<Self>, id: DispatchRowId) -> Option<Slot> {
        if !self.pace.is_limited() {
            return None;
        }
        let this = Arc::clone(self);
        // Later steps handle a dispatch that has no rate limit or cannot be read.
        let found = self.outbound.parts.db.read(move |connection| this.rate_key(connection, id)).await;
        self.pace.acquire(&found.ok()??).await
    }

    /// Returns the slots of an attempt that only waits for its hosts: it used nothing of its account's rate or its
    /// domain's.
    fn release(&self, prepared: &Prepared, slot: Option<Slot>) {
        if prepared.dispatch.route_id.is_some() {
            self.outbound.parts.limits.refund_request(prepared.dispatch.account_id);
        }
        if let Some(slot) = slot {
            self.pace.release(slot);
        }
    }

    /// Counts a forwarded message against its account's rate, like an API request to send (contract 1.12).
    fn is_within_rate(&self, account: AccountRowId) -> bool {
        self.outbound.parts.limits.take_request(account, self.clock.now()).is_ok()
    }

    /// Waits until the rate of an account lets it forward one more; false: not within some seconds. Like a paced lane,
    /// an account beyond its rate holds a few attempts and no more, however much it has to forward.
    async fn wait_for_rate(&self, account: AccountRowId) -> bool {
        self.outbound.parts.limits.count_refused(Kind::Requests, 1);
        let waiting = async {
            while !self.is_within_rate(account) {
                tokio::time::sleep(RATE_LOOK).await;
            }
        };
        tokio::time::timeout(RATE_PATIENCE, waiting).await.is_ok()
    }

    /// Returns the relay or recipient domain of a dispatch; `None` if it does not leave this machine.
    fn rate_key(&self, connection: &Connection, id: DispatchRowId) -> store::Result<Option<String>> {
        let config = &self.outbound.parts.config;
        let Some(dispatch) = dispatches::find(connection, id)?.filter(|_| !config.dev) else { return Ok(None) };
        if self.is_local(connection, &dispatch)? {
            return Ok(None);
        }
        let relay = config.outbound.smarthost_of(&dispatch.sending_domain);
        Ok(relay.map(|relay| relay.host.clone()).or(dispatch.domain))
    }

    /// Transmits the mail data, which moves into the delivery request and is freed as soon as that is done.
    async fn transmit(&self, flow: &Flow, prepared: &mut Prepared, now: Timestamp) -> DeliveryResult {
        if let Some(gate) = prepared.closed {
            return all(prepared, &Outcome::without_reply(gate.status(), gate.sentence()));
        }
        let data = std::mem::take(&mut prepared.data);
        let Some((data, verification)) = self.finish(prepared, data, now).await else {
            return all(
                prepared,
                &Outcome::without_reply(EnhancedStatusCode::NOT_AUTHORIZED, "the domain has no keys to sign it with"),
            );
        };
        let dispatch = &prepared.dispatch;
        // Stored addresses were parsed before.
        let mailboxes: Result<Vec<Mailbox>, _> =
            prepared.recipients.iter().map(|recipient| Mailbox::parse(&recipient.address)).collect();
        let Ok(recipients) = mailboxes else {
            return all(
                prepared,
                &Outcome::without_reply(EnhancedStatusCode::BAD_MAILBOX_SYNTAX, "the address cannot be read"),
            );
        };
        let reverse_path = Mailbox::parse(&dispatch.reverse_path).ok();
        let ascii = prepared.ascii_form();
        let request = DeliveryRequest { reverse_path, recipients, data, ascii };
        if prepared.local {
            let outcomes = self.local.deliver(request, verification).await;
            let host = Some(self.outbound.parts.config.hostname.clone());
            return DeliveryResult {
                outcomes,
                record: SessionRecord { host, ..SessionRecord::default() },
                wait: None,
            };
        }
        if self.outbound.parts.config.dev {
            return all(
                prepared,
                &Outcome::without_reply(EnhancedStatusCode::OK, "captured: in dev mode nothing leaves the machine"),
            );
        }
        let relay = self.outbound.parts.config.outbound.smarthost_of(&dispatch.sending_domain);
        match (relay, &dispatch.domain) {
            (Some(relay), _) => {
                self.transport.transmit(flow, &Destination::Smarthost(Arc::clone(relay)), request, now).await
            }
            (None, Some(domain)) => match Domain::parse(domain) {
                Ok(domain) => self.transport.transmit(flow, &Destination::Domain(domain), request, now).await,
                Err(_) => all(
                    prepared,
                    &Outcome::without_reply(EnhancedStatusCode::BAD_SYSTEM, "the domain is no host name"),
                ),
            },
            // The smarthost that took them together was removed from the configuration.
            (None, None) => self.transport.transmit_large(flow, request, now).await,
        }
    }

    /// Returns the mail as it leaves, with its authentication results; `None` when it cannot leave.
    async fn finish(&self, prepared: &Prepared, data: Bytes, now: Timestamp) -> Option<(Bytes, Verification)> {
        let hostname = self.outbound.parts.config.hostname.clone();
        let dispatch = &prepared.dispatch;
        let domain = dispatch.sending_domain.clone();
        let Some(forwarding) = prepared.forwarding.clone() else {
            let verification = Verification::of_own_message(&hostname, &domain, &dispatch.reverse_path);
            return Some((data, verification));
        };
        let (prefix, keys) = (dispatch.prefix.clone(), prepared.keys.clone());
        // Only mail that leaves the machine is sealed: a local delivery passes the authentication results directly.
        let seals = !prepared.local && !self.outbound.parts.config.dev;
        let finished = tokio::task::spawn_blocking(move || {
            forwarding.finish(data.into(), &prefix, &hostname, &domain, keys.as_deref(), seals, now)
        });
        match finished.await {
            Ok(finished) => finished.map(|(data, verification)| (data.into(), verification)),
            Err(_) => None,
        }
    }

    /// Judges an attempt, unless its hosts accept nothing at the moment: then no attempt was made.
    fn attempted_or_waits(
        &self,
        flow: &Flow,
        job: &ClaimedJob,
        prepared: Prepared,
        transmitted: DeliveryResult,
        took: Duration,
    ) -> AttemptResult<Attempted> {
        let give_up_at = prepared.dispatch.queued_at.plus(self.outbound.parts.config.outbound.give_up_after);
        match transmitted.wait {
            Some(wait) if self.clock.now() < give_up_at => waits(flow, job, wait, Attempted::HostPause),
            _ => self.attempted(prepared, transmitted, Some(took)),
        }
    }

    /// Judges an attempt. Recipients still deferred at the end of the retry time bounce.
    fn attempted(
        &self,
        prepared: Prepared,
        transmitted: DeliveryResult,
        took: Option<Duration>,
    ) -> AttemptResult<Attempted> {
        let now = self.clock.now();
        let Prepared { dispatch, recipients, local, closed, .. } = prepared;
        let give_up_at = dispatch.queued_at.plus(self.outbound.parts.config.outbound.give_up_after);
        let DeliveryResult { outcomes, record: session, .. } = transmitted;
        let health = match health(&outcomes) {
            // A failed local delivery is a local problem.
            Health::Unreachable if local => Health::Reluctant,
            health => health,
        };
        let settled: Vec<Settled> = recipients
            .into_iter()
            .zip(outcomes)
            .map(|(recipient, outcome)| Settled { recipient, outcome: outcome.expire_if(now >= give_up_at) })
            .collect();
        let deferred = settled.iter().any(|one| one.outcome.verdict == Verdict::Deferred);
        let verdict = if deferred {
            jobs::Verdict::Deferred { not_before: None, not_after: Some(give_up_at) }
        } else {
            jobs::Verdict::Delivered
        };
        let completed = CompletedDispatch { dispatch, settled, session, closed, finished: now, took };
        AttemptResult { verdict, health, attempted: Some(Attempted::Settled(Box::new(completed))) }
    }

    /// Settles a dispatch whose mail data is missing, or is not what was accepted.
    fn lost(&self, (dispatch, recipients): (DispatchRow, Vec<RecipientRow>)) -> AttemptResult<Attempted> {
        tracing::error!(dispatch = dispatch.id.get(), "the mail data of a dispatch is missing or damaged");
        let gone = Outcome::without_reply(
            EnhancedStatusCode::PERMANENT_SYSTEM,
            "the stored mail data is missing or damaged",
        );
        let outcomes = vec![gone; recipients.len()];
        let prepared = Prepared {
            dispatch,
            recipients,
            data: Bytes::new(),
            local: false,
            forwarding: None,
            keys: None,
            closed: None,
        };
        self.attempted(prepared, DeliveryResult { outcomes, record: SessionRecord::default(), wait: None }, None)
    }
}

/// Returns the same outcome for every recipient, without a host.
fn all(prepared: &Prepared, outcome: &Outcome) -> DeliveryResult {
    let outcomes = vec![outcome.clone(); prepared.recipients.len()];
    DeliveryResult { outcomes, record: SessionRecord::default(), wait: None }
}

/// Puts a job back whose flow waits for its hosts; `recorded` makes an attempt of the pause that is to be recorded. The
/// job keeps its place and its step of the retry schedule.
pub(crate) fn waits<A>(
    flow: &Flow,
    job: &ClaimedJob,
    wait: Wait,
    recorded: impl FnOnce(HostPause) -> A,
) -> AttemptResult<A> {
    let Wait { until, since, pause } = wait;
    AttemptResult {
        verdict: jobs::Verdict::Postponed { until: job.run_at },
        health: Health::Held { until, since },
        attempted: pause.map(|pause| recorded(HostPause { lane: Arc::clone(&flow.lane), pause })),
    }
}

/// Postpones an attempt that did not happen for a local reason; no step of the retry schedule is used up.
pub(crate) fn postponed<A>(now: Timestamp) -> AttemptResult<A> {
    AttemptResult::postponed(now.plus(LOCAL_FAILURE_PAUSE))
}
