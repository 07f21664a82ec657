//! The job engine: claim, attempt, settle, in lanes.
//!
//! Whoever leaves a job in a transaction with [`Jobs::enqueue`] announces it after the commit. The engine claims (a lease
//! is committed before the attempt; where nothing else waits it is a part of the transaction that leaves the job), runs the
//! [`Handler`] of the job's kind as a task, and settles its verdict in one transaction with what the handler wants
//! recorded. What a job means is its handler's business.

mod lanes;
pub(crate) mod schedule;
mod worker;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::id::AccountRowId;
use crate::store::Connection;
use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::store;
pub use crate::store::jobs::Flow;
pub(crate) use crate::store::jobs::{ClaimedJob, JobKind, JobSubject};
use lanes::Lanes;
pub(crate) use lanes::{Breaker, LaneStats};
pub(crate) use schedule::Schedule;
pub(crate) use worker::{Worker, WorkerConfig};

/// What the lanes of outbound mail begin with; all others are webhooks' and the appliance's own.
pub(crate) const MAIL_LANE: &str = "smtp:";

/// An engine that has not looked for jobs for so long stands still.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The lane of mail to a domain.
pub(crate) fn mail_lane(domain: &str) -> String {
    format!("{MAIL_LANE}{}", domain.to_ascii_lowercase())
}

/// An account's mail to a domain.
pub fn mail_flow(domain: &str, account: AccountRowId) -> Flow {
    Flow::new(&mail_lane(domain), account)
}

/// How a kind of job is worked on.
#[derive(Clone)]
pub(crate) struct Registration {
    /// Who attempts it.
    pub(crate) handler: Arc<dyn Handler>,
    /// Waits between its attempts.
    pub(crate) schedule: Schedule,
    /// How long a claim holds. It covers the wait in the lane's ready queue and the longest attempt.
    pub(crate) lease: Duration,
    /// After this time a job whose flow pauses is given up, as its schedule would have ended; none: never.
    pub(crate) give_up_after: Option<Duration>,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done; nothing more to do.
    Delivered,
    /// Not now; again by the schedule, but not before the time given, if any.
    Deferred {
        /// A lower bound by the remote's own word.
        not_before: Option<Timestamp>,
        /// When the last attempt is due, whatever the schedule says.
        not_after: Option<Timestamp>,
    },
    /// Nothing was attempted, for a reason of our own; again then, on the same rung.
    Postponed {
        /// When.
        until: Timestamp,
    },
    /// Never; the job ends.
    Failed,
}

/// What the engine made of a verdict, told to the handler's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// The job is finished and succeeded.
    Delivered,
    /// It runs again then.
    Retry(Timestamp),
    /// It is finished and did not succeed.
    Failed,
}

/// Done once the settlement is committed.
pub(crate) type AfterCommit = Box<dyn FnOnce() + Send>;

/// Writes down an attempt, inside the transaction that settles its job.
pub(crate) type SettleFn = Box<dyn FnOnce(&Connection, Settlement) -> store::Result<Option<AfterCommit>> + Send>;

/// A finished attempt: its verdict and what to write down.
pub(crate) struct AttemptResult {
    /// What came of it.
    pub(crate) verdict: Verdict,
    /// What to write down with it.
    pub(crate) record: SettleFn,
    /// What it says of the remote.
    pub(crate) health: Health,
}

/// What an attempt says of its remote, whatever became of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It works: it took the job, or refused this one for its own sake.
    Up,
    /// It answers, but takes nothing at the moment; perhaps it says until when.
    Failing {
        /// What it asks for.
        not_before: Option<Timestamp>,
    },
    /// It does not answer.
    Unreachable,
    /// It is slow, or did not take this job at the moment, which says nothing of the others: fewer at a time.
    Reluctant,
    /// It was not asked.
    Unknown,
    /// It was not asked, because its hosts take nothing more at the moment. The flow waits until then, and one of its
    /// jobs tries.
    Held {
        /// When, unless [`Jobs::resume`] says sooner.
        until: Timestamp,
        /// [`Jobs::resumed`] when it began to wait.
        since: u64,
    },
}

/// A boxed future that a handler returns.
pub(crate) type AttemptFuture = Pin<Box<dyn Future<Output = AttemptResult> + Send>>;

/// Attempts one kind of job. Network only; what it wants stored it returns.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Makes one attempt at a job of `flow`. `now` is when it starts.
    fn attempt(self: Arc<Self>, flow: Flow, job: ClaimedJob, now: Timestamp) -> AttemptFuture;

    /// The end of a job whose time is over while its flow pauses; nothing is attempted.
    fn give_up(self: Arc<Self>, _job: ClaimedJob, _now: Timestamp) -> AttemptFuture {
        let record: SettleFn = Box::new(|_, _| Ok(None));
        Box::pin(std::future::ready(AttemptResult { verdict: Verdict::Failed, health: Health::Unknown, record }))
    }
}

/// The way to the engine; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wakeup: Notify,
    /// How often everything that pauses was to be tried at once.
    nudges: AtomicU64,
    /// Resumptions of flows.
    resumed: AtomicU64,
    /// How far the clock was set back altogether, in milliseconds.
    set_back: AtomicU64,
    /// None while no engine runs.
    desk: Mutex<Option<EngineState>>,
}

/// What a running engine knows.
#[derive(Debug)]
struct EngineState {
    lanes: Lanes,
    /// When the engine last looked for something to do.
    turned: Instant,
    /// How long a claim of each kind holds, once jobs may be handed over.
    leases: HashMap<JobKind, Duration>,
    /// Claims to be given back: nobody announced them, or their flow pauses.
    returned: Vec<(Flow, ClaimedJob)>,
}

impl EngineState {
    fn release(&mut self, flow: &Flow, jobs: impl IntoIterator<Item = ClaimedJob>) {
        self.returned.extend(jobs.into_iter().map(|job| (flow.clone(), job)));
    }
}

impl Jobs {
    /// Leaves a job that is due at once, inside a transaction. Where its flow has nothing else to do first the engine
    /// has it in hand as soon as it is told of the commit, and its lease is a part of the transaction.
    pub(crate) fn enqueue(
        &self,
        tx: &Connection,
        flow: &Flow,
        subject: JobSubject,
        now: Timestamp,
    ) -> store::Result<EnqueuedJob> {
        let lease = self.with_state(|desk| {
            let lease = desk.leases.get(&subject.kind())?;
            desk.lanes.reserve(flow, now).then_some(*lease)
        });
        let mut left = EnqueuedJob::waiting(self, flow, now);
        match lease.flatten() {
            Some(lease) => {
                left.place = Location::Reserved;
                let job = store::jobs::insert_claimed(tx, flow, subject, now, now.plus(lease))?;
                left.place = Location::Claimed(job);
            }
            None => store::jobs::insert(tx, flow, subject, now)?,
        }
        Ok(left)
    }

    /// Says that a flow has a job due at `run_at`; call it after the commit that left it.
    pub fn wake(&self, flow: &Flow, run_at: Timestamp) {
        self.with_state(|desk| desk.lanes.wake(flow, run_at));
        self.shared.wakeup.notify_one();
    }

    /// Whether an engine is at work: it looks for something to do several times a minute.
    pub(crate) fn are_attempted(&self) -> bool {
        self.with_state(|desk| desk.turned.elapsed() < SILENCE_MAX).unwrap_or(false)
    }

    /// The engine looks for something to do.
    fn note_turn(&self) {
        self.with_state(|desk| desk.turned = Instant::now());
    }

    /// Until when a flow pauses because its endpoint fails; none if it does not.
    pub(crate) fn paused_until(&self, flow: &Flow, now: Timestamp) -> Option<Timestamp> {
        self.with_lanes(|lanes| lanes.paused_until(flow, now))
    }

    /// Lets a flow that pauses probe its endpoint at once: there is news of it.
    pub(crate) fn probe(&self, flow: &Flow, now: Timestamp) {
        self.with_lanes(|lanes| lanes.probe(flow, now));
        self.shared.wakeup.notify_one();
    }

    /// Resumptions so far. Read before waiting to be resumed, which may happen before the attempt that waits has ended.
    pub(crate) fn resumed(&self) -> u64 {
        self.shared.resumed.load(Ordering::SeqCst)
    }

    /// Lets a held flow make an attempt at `at`.
    pub(crate) fn resume(&self, flow: &Flow, at: Timestamp) {
        let number = self.shared.resumed.fetch_add(1, Ordering::SeqCst) + 1;
        self.with_lanes(|lanes| lanes.resume(flow, at, number));
        self.shared.wakeup.notify_one();
    }

    /// Lets everything that pauses be tried at once: the operator may have seen to it.
    fn probe_all(&self, now: Timestamp) {
        self.shared.nudges.fetch_add(1, Ordering::Relaxed);
        self.with_lanes(|lanes| lanes.probe_all(now));
    }

    /// How often everything that pauses was to be tried at once.
    pub(crate) fn nudges(&self) -> u64 {
        self.shared.nudges.load(Ordering::Relaxed)
    }

    /// The clock was set back: pauses end as much earlier.
    fn shift_back(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.shared.set_back.fetch_add(millis, Ordering::Relaxed);
        self.with_lanes(|lanes| lanes.shift_back(by));
    }

    /// How far the clock was set back since the start; whoever keeps times of his own has them follow it.
    pub(crate) fn set_back(&self) -> Duration {
        Duration::from_millis(self.shared.set_back.load(Ordering::Relaxed))
    }

    /// How the engine fares.
    pub fn figures(&self) -> LaneStats {
        self.with_state(|desk| desk.lanes.figures()).unwrap_or_default()
    }

    /// An attempt of a flow is done with the network.
    fn finished(&self, flow: &Flow, health: Health, now: Timestamp) {
        self.with_state(|desk| {
            let back = desk.lanes.finished(flow, health, now);
            desk.release(flow, back);
        });
        self.shared.wakeup.notify_one();
    }

    /// Gives a claim back that was not attempted.
    fn release(&self, flow: &Flow, job: ClaimedJob) {
        self.with_state(|desk| desk.release(flow, [job]));
        self.shared.wakeup.notify_one();
    }

    /// An engine begins: it hears of lanes from now on.
    fn open(&self, lanes: Lanes) {
        *self.shared.desk.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(EngineState { lanes, turned: Instant::now(), leases: HashMap::new(), returned: Vec::new() });
    }

    /// It took over what an earlier one left; jobs may be handed over.
    fn take_jobs(&self, leases: HashMap<JobKind, Duration>) {
        self.with_state(|desk| desk.leases = leases);
    }

    /// The engine ends; what it has in hand and did not start.
    fn close(&self) -> Vec<ClaimedJob> {
        let desk = self.shared.desk.lock().unwrap_or_else(PoisonError::into_inner).take();
        desk.map(|mut desk| desk.lanes.drain()).unwrap_or_default()
    }

    fn take_returned(&self) -> Vec<(Flow, ClaimedJob)> {
        self.with_state(|desk| std::mem::take(&mut desk.returned)).unwrap_or_default()
    }

    fn with_state<T>(&self, act: impl FnOnce(&mut EngineState) -> T) -> Option<T> {
        self.shared.desk.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(act)
    }

    fn with_lanes<T: Default>(&self, act: impl FnOnce(&mut Lanes) -> T) -> T {
        self.with_state(|desk| act(&mut desk.lanes)).unwrap_or_default()
    }
}

/// A job that a transaction leaves, to be announced after the commit. When nobody does, because the transaction was
/// undone or because its caller went away, the engine looks whether there is such a job.
#[derive(Debug)]
#[must_use]
pub(crate) struct EnqueuedJob {
    jobs: Jobs,
    flow: Flow,
    run_at: Timestamp,
    place: Location,
}

#[derive(Debug)]
enum Location {
    /// In the table, like any other.
    Waiting,
    /// In hand, for a job that is still to be stored.
    Reserved,
    /// In hand, for this job.
    Claimed(ClaimedJob),
    /// The engine knows.
    Announced,
}

impl EnqueuedJob {
    /// A job that was left to wait until `run_at`.
    pub(crate) fn waiting(jobs: &Jobs, flow: &Flow, run_at: Timestamp) -> Self {
        Self { jobs: jobs.clone(), flow: flow.clone(), run_at, place: Location::Waiting }
    }

    /// Whether the engine will have the job in hand at once.
    pub(crate) const fn is_claimed(&self) -> bool {
        matches!(self.place, Location::Claimed(_))
    }

    /// Tells the engine; call it after the commit.
    pub(crate) fn notify_committed(mut self) {
        if let Location::Claimed(job) = std::mem::replace(&mut self.place, Location::Announced) {
            let (flow, now) = (&self.flow, self.run_at);
            self.jobs.with_state(|desk| {
                let back = desk.lanes.hand_over(flow, job, now);
                desk.release(flow, back);
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
        match std::mem::replace(&mut self.place, Location::Announced) {
            Location::Announced => {}
            Location::Waiting => self.jobs.wake(flow, self.run_at),
            Location::Reserved => self.jobs.with_lanes(|lanes| lanes.unreserve(flow)),
            Location::Claimed(job) => {
                self.jobs.with_state(|desk| {
                    desk.lanes.unreserve(flow);
                    desk.release(flow, [job]);
                });
                self.jobs.shared.wakeup.notify_one();
            }
        }
    }
}
