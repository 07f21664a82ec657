//! A kind of job: its attempt, the record of that, and what follows the commit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::worker::Worker;
use super::{ClaimedJob, Flow, Health, Schedule, Settlement, Verdict};
use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::memory_budget::Reservation;
use crate::store::{self, Connection, Db};

/// Attempts one kind of job. The engine runs the three steps: an attempt uses the network and stores nothing, `settle`
/// writes its result in the transaction that settles the job, and `committed` publishes it.
pub(crate) trait Handler: Send + Sync + Sized + 'static {
    /// An attempt that is made and has something to record.
    type Attempted: Send + 'static;
    /// A recorded attempt.
    type Settled: Send + 'static;

    /// Makes one attempt at a job of `flow`. `now` is its start.
    fn attempt(
        self: Arc<Self>,
        flow: Flow,
        job: ClaimedJob,
        now: Timestamp,
    ) -> impl Future<Output = AttemptResult<Self::Attempted>> + Send;

    /// Ends a job whose time is over while its flow pauses; nothing is attempted.
    fn give_up(
        self: Arc<Self>,
        _job: ClaimedJob,
        _now: Timestamp,
    ) -> impl Future<Output = AttemptResult<Self::Attempted>> + Send {
        std::future::ready(AttemptResult::failed())
    }

    /// Records an attempt; `None` if it no longer counts, because its row is gone or was ended meanwhile.
    fn settle(
        &self,
        tx: &Connection,
        attempted: Self::Attempted,
        settlement: Settlement,
    ) -> store::Result<Option<Self::Settled>>;

    /// Publishes a recorded attempt once its transaction is committed.
    fn committed(&self, settled: Self::Settled);
}

/// A finished attempt: its verdict and the changes to record.
#[derive(Debug)]
pub(crate) struct AttemptResult<A> {
    pub(crate) verdict: Verdict,
    /// State of the remote as this attempt found it.
    pub(crate) health: Health,
    /// `None` records nothing but the verdict.
    pub(crate) attempted: Option<A>,
}

impl<A> AttemptResult<A> {
    /// Nothing remains to do, and nothing to record.
    pub(crate) const fn finished() -> Self {
        Self { verdict: Verdict::Delivered, health: Health::Unknown, attempted: None }
    }

    /// The job ends without success, and nothing is recorded.
    pub(crate) const fn failed() -> Self {
        Self { verdict: Verdict::Failed, health: Health::Unknown, attempted: None }
    }

    /// The attempt did not happen for a local reason; it uses no step of the retry schedule.
    pub(crate) const fn postponed(until: Timestamp) -> Self {
        Self { verdict: Verdict::Postponed { until }, health: Health::Unknown, attempted: None }
    }
}

/// Result of reading what an attempt needs.
pub(crate) enum Loaded<T> {
    Complete(T),
    /// The mail data has `size` octets, more than was allowed.
    Large {
        account: AccountRowId,
        size: u64,
    },
}

/// Reads what an attempt needs. If that has more than `small` octets, `reserve` first waits for memory and it is read
/// again, since it may have changed meanwhile.
pub(crate) async fn load<T, R, F>(
    db: &Db,
    small: u64,
    read: R,
    reserve: impl FnOnce(AccountRowId, u64) -> F + Send,
) -> store::Result<(T, Option<Reservation>)>
where
    T: Send + 'static,
    R: Fn(&Connection, u64) -> store::Result<Loaded<T>> + Clone + Send + 'static,
    F: Future<Output = Reservation> + Send,
{
    let first = read.clone();
    match db.read(move |connection| first(connection, small)).await? {
        Loaded::Complete(found) => Ok((found, None)),
        Loaded::Large { account, size } => {
            let reservation = reserve(account, size).await;
            match db.read(move |connection| read(connection, u64::MAX)).await? {
                Loaded::Complete(found) => Ok((found, Some(reservation))),
                // No size is above the limit.
                Loaded::Large { .. } => Err(store::Error::Corrupt("size of mail data")),
            }
        }
    }
}

/// Settings of a kind of job.
#[derive(Clone)]
pub(crate) struct Registration {
    /// Attempts its jobs.
    pub(super) handler: Arc<dyn AnyHandler>,
    /// Retry schedule.
    pub(super) schedule: Schedule,
    /// Duration of a claim. It covers the wait in the lane's ready queue and the longest attempt.
    pub(super) lease: Duration,
    /// Age at which a job whose flow pauses is given up, as its schedule would have ended; `None` is never.
    pub(super) give_up_after: Option<Duration>,
    /// Time that a running attempt has to finish at a stop. Then it is cut off, and made again after the start.
    pub(super) grace: Duration,
}

/// Time for an attempt that may be made twice without harm.
const GRACE: Duration = Duration::from_secs(3);

impl Registration {
    /// Registers a handler with its retry schedule and the duration of a claim.
    pub(crate) fn new<H: Handler>(handler: Arc<H>, schedule: Schedule, lease: Duration) -> Self {
        Self { handler: Arc::new(Erased(handler)), schedule, lease, give_up_after: None, grace: GRACE }
    }

    /// Gives up jobs of this age while their flow pauses.
    pub(crate) fn give_up_after(self, age: Duration) -> Self {
        Self { give_up_after: Some(age), ..self }
    }

    /// Gives running attempts this long to finish at a stop: for those that cost something when made twice.
    pub(crate) fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }
}

/// A handler of any kind, for the table of kinds.
pub(super) trait AnyHandler: Send + Sync {
    /// Attempts a job and settles it.
    fn run(&self, worker: Arc<Worker>, flow: Flow, job: ClaimedJob, now: Timestamp) -> RunFuture;

    /// Ends a job whose time is over, and settles it.
    fn end(&self, worker: Arc<Worker>, flow: Flow, job: ClaimedJob, now: Timestamp) -> RunFuture;
}

/// The whole of an attempt, from its start to its settlement.
pub(super) type RunFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Erased<H>(Arc<H>);

impl<H: Handler> AnyHandler for Erased<H> {
    fn run(&self, worker: Arc<Worker>, flow: Flow, job: ClaimedJob, now: Timestamp) -> RunFuture {
        let handler = Arc::clone(&self.0);
        Box::pin(async move { worker.attempt(handler, flow, job, now).await })
    }

    fn end(&self, worker: Arc<Worker>, flow: Flow, job: ClaimedJob, now: Timestamp) -> RunFuture {
        let handler = Arc::clone(&self.0);
        Box::pin(async move {
            let attempted = Arc::clone(&handler).give_up(job.clone(), now).await;
            worker.settle(handler, flow, job, Some(attempted)).await;
        })
    }
}
