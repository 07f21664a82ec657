//! The job engine: claim, attempt, settle, in lanes.
//!
//! Whoever leaves a job in a transaction calls [`Jobs::wake`] after its commit. The engine claims (a lease is
//! committed before the attempt), runs the [`Handler`] of the job's kind as a task, and settles its verdict in one
//! transaction with what the handler wants recorded. What a job means is its handler's business.

mod lanes;
pub mod schedule;
mod worker;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::store;
pub use crate::store::jobs::{Claimed, Kind};
pub use schedule::Schedule;
pub use worker::{Worker, WorkerConfig};

/// What the lanes of outbound mail begin with; all others are webhooks' and the appliance's own.
pub const MAIL_LANE: &str = "smtp:";

/// The lane of mail to a domain.
pub fn mail_lane(domain: &str) -> String {
    format!("{MAIL_LANE}{}", domain.to_ascii_lowercase())
}

/// How a kind of job is worked on.
#[derive(Clone)]
pub struct Track {
    /// Who attempts it.
    pub handler: Arc<dyn Handler>,
    /// Waits between its attempts.
    pub schedule: Schedule,
    /// How long a claim holds. It covers the wait in the lane's ready queue and the longest attempt.
    pub lease: Duration,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
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
    PutOff {
        /// When.
        until: Timestamp,
    },
    /// Never; the job ends.
    Failed,
}

/// What the engine made of a verdict, told to the handler's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The job is finished and succeeded.
    Delivered,
    /// It runs again then.
    Retry(Timestamp),
    /// It is finished and did not succeed.
    Failed,
}

/// Done once the settlement is committed.
pub type After = Box<dyn FnOnce() + Send>;

/// Writes down an attempt, inside the transaction that settles its job.
pub type Record = Box<dyn FnOnce(&Connection, Fate) -> store::Result<Option<After>> + Send>;

/// A finished attempt: its verdict and what to write down.
pub struct Attempted {
    /// What came of it.
    pub verdict: Verdict,
    /// What to write down with it.
    pub record: Record,
    /// Whether the remote answered well; an ailing lane gets fewer attempts at a time.
    pub healthy: bool,
}

/// A boxed future that a handler returns.
pub type Attempt = Pin<Box<dyn Future<Output = Attempted> + Send>>;

/// Attempts one kind of job. Network only; what it wants stored it returns.
pub trait Handler: Send + Sync + 'static {
    /// Makes one attempt. `now` is when it starts.
    fn attempt(self: Arc<Self>, job: Claimed, now: Timestamp) -> Attempt;
}

/// The engine's bell; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    bell: Arc<Bell>,
}

#[derive(Debug, Default)]
struct Bell {
    notify: Notify,
    woken: Mutex<Vec<(String, Timestamp)>>,
}

impl Jobs {
    /// Says that a lane has a job due at `run_at`; call it after the commit that left it.
    pub fn wake(&self, lane: String, run_at: Timestamp) {
        self.bell.woken.lock().unwrap_or_else(PoisonError::into_inner).push((lane, run_at));
        self.bell.notify.notify_one();
    }

    fn take(&self) -> Vec<(String, Timestamp)> {
        std::mem::take(&mut *self.bell.woken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
