//! The job engine: it claims a job (a lease is committed before the attempt; if nothing else waits, it is part of the
//! transaction that enqueues the job), runs the [`Handler`] of its kind as a task, and settles the verdict in one
//! transaction with the handler's records. It uses `store`, `clock` and `id`; a caller of [`Jobs::enqueue`] announces
//! the job after the commit, and the meaning of a job is its handler's business, so a new kind is a handler in its own
//! module. A change of retry times belongs in `schedule`, of order and concurrency in `lanes`, and of claiming and
//! settling in `worker`.

mod handler;
mod lanes;
pub(crate) mod schedule;
mod worker;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::id::AccountRowId;
use crate::store::Connection;
use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::store;
pub use crate::store::jobs::Flow;
use crate::store::jobs::NewJob;
pub(crate) use crate::store::jobs::{ClaimedJob, JobKind, JobSubject};
pub(crate) use handler::{AttemptResult, Handler, Loaded, Registration, load};
use lanes::Lanes;
pub(crate) use lanes::{Breaker, LaneStats};
pub(crate) use schedule::Schedule;
pub(crate) use worker::{Worker, WorkerConfig};

/// Prefix of the lanes of outbound mail; all others belong to webhooks and the appliance itself.
pub(crate) const MAIL_LANE: &str = "smtp:";

/// An engine that has not looked for jobs for this long is considered stalled.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Returns the lane of mail to a domain.
pub(crate) fn mail_lane(domain: &str) -> String {
    format!("{MAIL_LANE}{}", domain.to_ascii_lowercase())
}

/// Returns the flow of an account's mail to a domain.
pub fn mail_flow(domain: &str, account: AccountRowId) -> Flow {
    Flow::new(&mail_lane(domain), account)
}

/// Outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done; nothing remains to do.
    Delivered,
    /// Failed for now; retried by the schedule, but not before the given time, if any.
    Deferred {
        /// A lower bound asked for by the remote.
        not_before: Option<Timestamp>,
        /// Time of the last attempt, whatever the schedule says.
        not_after: Option<Timestamp>,
    },
    /// Nothing was attempted, for a reason of our own; tried at the given time, on the same step of the retry schedule.
    Postponed {
        /// Time of the next attempt.
        until: Timestamp,
    },
    /// Failed for good; the job ends.
    Failed,
}

/// The engine's decision on a verdict, passed to the handler's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// The job is finished and succeeded.
    Delivered,
    /// The job runs again at this time.
    Retry(Timestamp),
    /// The job is finished and did not succeed.
    Failed,
}

/// State of the remote as an attempt found it, whatever the verdict on the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It works: it took the job, or refused this one for its own sake.
    Up,
    /// It answers but takes nothing at the moment, perhaps until a given time.
    Failing {
        /// Time before which it wants no attempt.
        not_before: Option<Timestamp>,
    },
    /// It does not answer.
    Unreachable,
    /// It is slow, or did not take this job at the moment, which says nothing about others: fewer attempts at a time.
    Reluctant,
    /// It was not contacted.
    Unknown,
    /// It was not contacted, because its hosts take nothing more at the moment. The flow waits until then, and one of
    /// its jobs probes.
    Held {
        /// Time of that probe, unless [`Jobs::resume`] makes it earlier.
        until: Timestamp,
        /// [`Jobs::resumed`] at the start of the wait.
        since: u64,
    },
}

/// Handle to the engine; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wakeup: Notify,
    /// Counts the requests to probe everything that pauses.
    nudges: AtomicU64,
    /// Counts the resumptions of flows.
    resumed: AtomicU64,
    /// Total time by which the clock was set back, in milliseconds.
    set_back: AtomicU64,
    /// `None` while no engine runs.
    engine: Mutex<Option<EngineState>>,
}

/// State of a running engine.
#[derive(Debug)]
struct EngineState {
    lanes: Lanes,
    /// Time at which the engine last looked for something to do.
    turned: Instant,
    /// Duration of a claim by kind, once jobs may be claimed on enqueueing.
    leases: HashMap<JobKind, Duration>,
    /// Claims to release: nobody announced them, or their flow pauses.
    returned: Vec<(Flow, ClaimedJob)>,
}

impl EngineState {
    fn release(&mut self, flow: &Flow, jobs: impl IntoIterator<Item = ClaimedJob>) {
        self.returned.extend(jobs.into_iter().map(|job| (flow.clone(), job)));
    }
}

impl Jobs {
    /// Enqueues a job that is due at once, inside a transaction. If its flow has nothing else to do first, the lease is
    /// part of the transaction, and the engine buffers the job as soon as it is notified of the commit.
    pub(crate) fn enqueue(
        &self,
        tx: &Connection,
        flow: &Flow,
        subject: JobSubject,
        now: Timestamp,
    ) -> store::Result<EnqueuedJob> {
        let mut enqueued = self.enqueue_all(tx, &[(flow, subject)], now)?;
        enqueued.pop().ok_or(store::Error::Corrupt("job"))
    }

    /// Does the same as [`Jobs::enqueue`] for several jobs; returns them in their order.
    pub(crate) fn enqueue_all(
        &self,
        tx: &Connection,
        jobs: &[(&Flow, JobSubject)],
        now: Timestamp,
    ) -> store::Result<Vec<EnqueuedJob>> {
        let (mut new, mut enqueued) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        for &(flow, subject) in jobs {
            let lease = self.with_state(|engine| {
                let lease = engine.leases.get(&subject.kind())?;
                engine.lanes.reserve(flow, now).then_some(*lease)
            });
            let lease_until = lease.flatten().map(|lease| now.plus(lease));
            let mut one = EnqueuedJob::waiting(self, flow, now);
            if lease_until.is_some() {
                // If the transaction fails, dropping it returns the place.
                one.location = Location::Reserved;
            }
            enqueued.push(one);
            new.push(NewJob { flow, subject, run_at: now, lease_until });
        }
        for (one, claimed) in enqueued.iter_mut().zip(store::jobs::insert_all(tx, &new)?) {
            one.location = claimed.map_or(Location::Waiting, Location::Claimed);
        }
        Ok(enqueued)
    }

    /// Enqueues a job that is due at `run_at`, inside a transaction.
    pub(crate) fn enqueue_at(
        &self,
        tx: &Connection,
        flow: &Flow,
        subject: JobSubject,
        run_at: Timestamp,
    ) -> store::Result<EnqueuedJob> {
        store::jobs::insert(tx, flow, subject, run_at)?;
        Ok(EnqueuedJob::waiting(self, flow, run_at))
    }

    /// Reports that a flow has a job due at `run_at`; call it after the commit that enqueued it.
    pub fn wake(&self, flow: &Flow, run_at: Timestamp) {
        self.with_state(|engine| engine.lanes.wake(flow, run_at));
        self.shared.wakeup.notify_one();
    }

    /// True while an engine is at work: it looks for something to do several times a minute.
    pub(crate) fn are_attempted(&self) -> bool {
        self.with_state(|engine| engine.turned.elapsed() < SILENCE_MAX).unwrap_or(false)
    }

    /// Notes that the engine looks for something to do.
    fn note_turn(&self) {
        self.with_state(|engine| engine.turned = Instant::now());
    }

    /// Returns the time until which a flow pauses because its endpoint fails; `None` if it does not.
    pub(crate) fn paused_until(&self, flow: &Flow, now: Timestamp) -> Option<Timestamp> {
        self.with_lanes(|lanes| lanes.paused_until(flow, now))
    }

    /// Lets a paused flow probe its endpoint at once, after news of it.
    pub(crate) fn probe(&self, flow: &Flow, now: Timestamp) {
        self.with_lanes(|lanes| lanes.probe(flow, now));
        self.shared.wakeup.notify_one();
    }

    /// Returns the number of resumptions so far. Read it before waiting to be resumed, which may happen before the
    /// waiting attempt has ended.
    pub(crate) fn resumed(&self) -> u64 {
        self.shared.resumed.load(Ordering::SeqCst)
    }

    /// Lets a held flow make an attempt at `at`.
    pub(crate) fn resume(&self, flow: &Flow, at: Timestamp) {
        let number = self.shared.resumed.fetch_add(1, Ordering::SeqCst) + 1;
        self.with_lanes(|lanes| lanes.resume(flow, at, number));
        self.shared.wakeup.notify_one();
    }

    /// Lets everything that pauses be tried at once: the operator may have fixed the cause.
    fn probe_all(&self, now: Timestamp) {
        self.shared.nudges.fetch_add(1, Ordering::Relaxed);
        self.with_lanes(|lanes| lanes.probe_all(now));
    }

    /// Returns how often everything that pauses was to be tried at once.
    pub(crate) fn nudges(&self) -> u64 {
        self.shared.nudges.load(Ordering::Relaxed)
    }

    /// Moves pauses with a clock that was set back: they end as much earlier.
    fn shift_back(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.shared.set_back.fetch_add(millis, Ordering::Relaxed);
        self.with_lanes(|lanes| lanes.shift_back(by));
    }

    /// Returns how far the clock was set back since the start, so that other holders of times can move theirs.
    pub(crate) fn set_back(&self) -> Duration {
        Duration::from_millis(self.shared.set_back.load(Ordering::Relaxed))
    }

    /// Returns the engine's figures.
    pub fn figures(&self) -> LaneStats {
        self.with_state(|engine| engine.lanes.figures()).unwrap_or_default()
    }

    /// Notes that an attempt of a flow is done with the network.
    fn finished(&self, flow: &Flow, health: Health, now: Timestamp) {
        self.with_state(|engine| {
            let back = engine.lanes.finished(flow, health, now);
            engine.release(flow, back);
        });
        self.shared.wakeup.notify_one();
    }

    /// Releases a claim that was not attempted.
    fn release(&self, flow: &Flow, job: ClaimedJob) {
        self.with_state(|engine| engine.release(flow, [job]));
        self.shared.wakeup.notify_one();
    }

    /// Registers a starting engine, which receives wake-ups from now on.
    fn open(&self, lanes: Lanes) {
        *self.shared.engine.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(EngineState { lanes, turned: Instant::now(), leases: HashMap::new(), returned: Vec::new() });
    }

    /// Marks the jobs of an earlier engine as taken over; jobs may be claimed on enqueueing from now on.
    fn take_jobs(&self, leases: HashMap<JobKind, Duration>) {
        self.with_state(|engine| engine.leases = leases);
    }

    /// Ends the engine and returns the jobs that it has buffered and not started.
    fn close(&self) -> Vec<ClaimedJob> {
        let engine = self.shared.engine.lock().unwrap_or_else(PoisonError::into_inner).take();
        engine.map(|mut engine| engine.lanes.drain()).unwrap_or_default()
    }

    fn take_returned(&self) -> Vec<(Flow, ClaimedJob)> {
        self.with_state(|engine| std::mem::take(&mut engine.returned)).unwrap_or_default()
    }

    fn with_state<T>(&self, act: impl FnOnce(&mut EngineState) -> T) -> Option<T> {
        self.shared.engine.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(act)
    }

    fn with_lanes<T: Default>(&self, act: impl FnOnce(&mut Lanes) -> T) -> T {
        self.with_state(|engine| act(&mut engine.lanes)).unwrap_or_default()
    }
}

/// A job enqueued by a transaction, to be announced after the commit. If nobody does, because the transaction was
/// rolled back or its caller went away, the engine checks whether the job exists.
#[derive(Debug)]
#[must_use]
pub(crate) struct EnqueuedJob {
    jobs: Jobs,
    flow: Flow,
    run_at: Timestamp,
    location: Location,
}

#[derive(Debug)]
enum Location {
    /// In the table, like any other.
    Waiting,
    /// A buffer place reserved for a job that is still to be stored.
    Reserved,
    /// Claimed, with a buffer place.
    Claimed(ClaimedJob),
    /// Announced to the engine.
    Announced,
}

impl EnqueuedJob {
    /// Creates the announcement of a job that waits until `run_at`.
    fn waiting(jobs: &Jobs, flow: &Flow, run_at: Timestamp) -> Self {
        Self { jobs: jobs.clone(), flow: flow.clone(), run_at, location: Location::Waiting }
    }

    /// True if the engine will buffer the job at once.
    pub(crate) const fn is_claimed(&self) -> bool {
        matches!(self.location, Location::Claimed(_))
    }

    /// Notifies the engine; call it after the commit.
    pub(crate) fn notify_committed(mut self) {
        if let Location::Claimed(job) = std::mem::replace(&mut self.location, Location::Announced) {
            let (flow, now) = (&self.flow, self.run_at);
            self.jobs.with_state(|engine| {
                let back = engine.lanes.hand_over(flow, job, now);
                engine.release(flow, back);
            });
            self.jobs.shared.wakeup.notify_one();
        } else {
            self.jobs.wake(&self.flow, self.run_at);
        }
    }
}

impl Drop for EnqueuedJob {
    fn drop(&mut self) {
        let flow = &self.flow;
        match std::mem::replace(&mut self.location, Location::Announced) {
            Location::Announced => {}
            Location::Waiting => self.jobs.wake(flow, self.run_at),
            Location::Reserved => self.jobs.with_lanes(|lanes| lanes.unreserve(flow)),
            Location::Claimed(job) => {
                self.jobs.with_state(|engine| {
                    engine.lanes.unreserve(flow);
                    engine.release(flow, [job]);
                });
                self.jobs.shared.wakeup.notify_one();
            }
        }
    }
}
