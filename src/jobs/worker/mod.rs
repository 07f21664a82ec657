//! The engine's loop: one task claims, a task per attempt runs the handler, and settlements share the group commit.
//! Uses `store` and the rest of `jobs`. A change of claiming, leases, settling or of the reaction to a changed clock
//! belongs here; the order of jobs belongs in `lanes`.

mod settle;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lanes::{ClaimRequest, Lanes};
use super::{ClaimedJob, Flow, Health, JobKind, Jobs, Registration};
use crate::clock::{Clock, Timestamp};
use crate::id::JobRowId;
use crate::store::{self, Db};

/// Maximum number of flows claimed in one transaction.
const CLAIM_FLOWS: usize = 128;
/// The longest sleep: leases are checked this often, and a changed clock is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);
/// A clock that goes back by less is ignored.
const SMALL_STEP: Duration = Duration::from_secs(2);
/// The longest wait that a remote may ask for beyond the schedule.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(25 * 3600);
/// Pause of the engine after a failed claim or settlement (a full disk).
const TROUBLE_WAIT: Duration = Duration::from_secs(1);
/// Time for the records of attempts that end at a stop.
const RELEASE_WAIT: Duration = Duration::from_secs(5);
/// Interval at which jobs are looked for whose time is over while their flow pauses.
const GIVE_UP_EVERY: Duration = Duration::from_secs(60);
/// Jobs read at a time for that.
const GIVE_UP_PAGE: usize = 500;

/// Limits on concurrent attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerConfig {
    /// Concurrent attempts of one lane.
    pub(crate) lane_width: usize,
    /// The same for lanes of outbound mail.
    pub(crate) mail_lane_width: usize,
    /// Concurrent attempts of all lanes.
    pub(crate) max_in_flight: usize,
}

/// The engine, ready to run.
pub(crate) struct Worker {
    /// Database of the jobs.
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    /// Handle through which others wake the engine.
    pub(crate) jobs: Jobs,
    /// Handler and settings of each kind of job.
    pub(crate) kinds: HashMap<JobKind, Registration>,
    /// Limits on concurrent attempts.
    pub(crate) config: WorkerConfig,
    /// Cancelled when the server stops: nothing new is started.
    pub(crate) stop: CancellationToken,
}

/// Outcome of a claim: per flow the claimed jobs and the due time of the next one.
type Claims = Vec<(Flow, Vec<ClaimedJob>, Option<Timestamp>)>;
type Claiming = JoinHandle<(Vec<Flow>, store::Result<Claims>)>;

struct Running {
    worker: Arc<Worker>,
    tracker: TaskTracker,
    claiming: Option<Claiming>,
    leases_checked: Timestamp,
    given_up: Timestamp,
    /// Set while a task looks for jobs to give up.
    giving_up: Arc<AtomicBool>,
    /// The clock at the last tick, and the monotonic time of that tick.
    seen: (Timestamp, Instant),
    /// Version of the database when it was last read.
    seen_version: Arc<AtomicI64>,
}

impl Worker {
    /// Attempts jobs until `stop`; then starts nothing new, and running attempts end within the grace of their kind.
    ///
    /// If storage fails at the start (a full disk, a lock), it is tried again until it works.
    pub(crate) async fn run(self) {
        self.jobs.open(Lanes::new(self.config));
        let mut reported = false;
        let (version, waiting) = loop {
            match self.begin().await {
                Ok(begun) => break begun,
                Err(error) if !std::mem::replace(&mut reported, true) => {
                    tracing::warn!(%error, "nothing is delivered or sent yet: the job table cannot be used; trying again");
                }
                Err(error) => tracing::debug!(%error, "the job table cannot be used yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(TROUBLE_WAIT) => {}
                () = self.stop.cancelled() => return drop(self.jobs.close()),
            }
        };
        for (flow, due) in &waiting {
            self.jobs.wake(flow, *due);
        }
        self.jobs.take_jobs(self.leases());
        let now = self.clock.now();
        let running = Running {
            worker: Arc::new(self),
            tracker: TaskTracker::new(),
            claiming: None,
            leases_checked: now,
            given_up: now,
            giving_up: Arc::default(),
            seen: (now, Instant::now()),
            seen_version: Arc::new(AtomicI64::new(version)),
        };
        running.run().await;
    }

    fn leases(&self) -> HashMap<JobKind, Duration> {
        self.kinds.iter().map(|(kind, registration)| (*kind, registration.lease)).collect()
    }

    /// Takes over the jobs of an earlier process; returns the version of the database, and the flows.
    async fn begin(&self) -> store::Result<(i64, Vec<(Flow, Timestamp)>)> {
        let now = self.clock.now();
        // One process per data directory: every earlier lease belongs to a process that crashed.
        let everything = Timestamp::from_millis(i64::MAX);
        self.db.write_nosync(move |tx| store::jobs::release_expired(tx, everything, now)).await?;
        let longest = self.kinds.values().map(|kind| kind.schedule.longest()).max().unwrap_or_default();
        let last = now.plus(longest.max(LONGEST_ASKED_FOR));
        if self.db.read(store::jobs::last_due).await?.is_some_and(|due| due > last) {
            self.db.write_nosync(move |tx| store::jobs::clamp_run_at(tx, last, now)).await?;
        }
        let version = self.db.write_nosync(store::data_version).await?;
        Ok((version, self.db.read(store::jobs::list_flows).await?))
    }
}

impl Running {
    async fn run(mut self) {
        let jobs = self.worker.jobs.clone();
        let stop = self.worker.stop.clone();
        while !stop.is_cancelled() {
            // Register before looking, so a wake-up sent meanwhile is not missed.
            let wakeup = jobs.shared.wakeup.notified();
            tokio::pin!(wakeup);
            wakeup.as_mut().enable();
            let sleep = self.tick();
            tokio::select! {
                () = &mut wakeup => {}
                claims = next_claim(&mut self.claiming) => self.take_claims(claims),
                () = tokio::time::sleep(sleep) => {}
                () = stop.cancelled() => {}
            }
        }
        self.drain().await;
    }

    /// Starts what can start and claims what is due; returns how long nothing will change by itself.
    fn tick(&mut self) -> Duration {
        let now = self.worker.clock.now();
        self.worker.jobs.note_turn();
        self.follow_clock(now);
        let limit = if self.claiming.is_none() { CLAIM_FLOWS } else { 0 };
        let (started, requests, due) = self.worker.jobs.with_lanes(|lanes| {
            let started: Vec<_> = std::iter::from_fn(|| lanes.start()).collect();
            (started, lanes.due_lanes(now, limit), lanes.next_due())
        });
        for (flow, job) in started {
            self.start(flow, job);
        }
        let returned = self.worker.jobs.take_returned();
        if !returned.is_empty() {
            self.tracker.spawn(release(Arc::clone(&self.worker), returned));
        }
        if !requests.is_empty() {
            self.claiming = Some(tokio::spawn(claim(Arc::clone(&self.worker), requests)));
        }
        if now.since(self.leases_checked) >= LONGEST_SLEEP || now < self.leases_checked {
            self.leases_checked = now;
            self.tracker.spawn(release_expired(Arc::clone(&self.worker), now));
            self.tracker.spawn(detect_external_writes(Arc::clone(&self.worker), Arc::clone(&self.seen_version)));
        }
        if now.since(self.given_up) >= GIVE_UP_EVERY || now < self.given_up {
            self.given_up = now;
            if self.worker.jobs.figures().paused > 0 && !self.giving_up.swap(true, Ordering::Relaxed) {
                self.tracker.spawn(give_up(Arc::clone(&self.worker), Arc::clone(&self.giving_up)));
            }
        }
        let due = due.filter(|_| self.claiming.is_none());
        due.map_or(LONGEST_SLEEP, |at| at.since(now)).clamp(Duration::from_millis(1), LONGEST_SLEEP)
    }

    /// Moves waiting jobs back when the clock was set back, or they would wait for as much longer. (A clock set forward
    /// makes everything due, flow by flow.)
    fn follow_clock(&mut self, now: Timestamp) {
        let (seen, at) = std::mem::replace(&mut self.seen, (now, Instant::now()));
        let back = seen.plus(at.elapsed()).since(now);
        if back > SMALL_STEP {
            tracing::warn!(back_secs = back.as_secs(), "the clock was set back; waiting jobs follow it");
            self.worker.jobs.shift_back(back);
            self.tracker.spawn(shift_run_at(Arc::clone(&self.worker), seen, back));
        }
    }

    fn start(&self, flow: Flow, job: ClaimedJob) {
        let worker = Arc::clone(&self.worker);
        self.tracker.spawn(async move {
            let now = worker.clock.now();
            if job.lease_until <= now {
                // It waited too long behind others of its lane.
                worker.jobs.finished(&flow, Health::Unknown, now);
                return worker.jobs.release(&flow, job);
            }
            match worker.kinds.get(&job.kind) {
                Some(kind) => kind.handler.run(Arc::clone(&worker), flow, job, now).await,
                // Its lease runs out, and a version that knows the kind may attempt it.
                None => worker.jobs.finished(&flow, Health::Unknown, now),
            }
        });
    }

    fn take_claims(&self, (flows, claims): (Vec<Flow>, store::Result<Claims>)) {
        let now = self.worker.clock.now();
        let claims = claims.unwrap_or_else(|error| {
            tracing::warn!(%error, "claiming jobs failed; trying again");
            let later = now.plus(TROUBLE_WAIT);
            flows.into_iter().map(|flow| (flow, Vec::new(), Some(later))).collect()
        });
        self.worker.jobs.with_state(|engine| {
            for (flow, jobs, next_due) in claims {
                let back = engine.lanes.claimed(&flow, jobs, next_due, now);
                engine.release(&flow, back);
            }
        });
    }

    async fn drain(mut self) {
        if let Some(claiming) = self.claiming.take()
            && let Ok(claims) = claiming.await
        {
            self.take_claims(claims);
        }
        let unstarted = self.worker.jobs.close();
        let released = self
            .worker
            .db
            .write_nosync(move |tx| unstarted.iter().try_for_each(|job| store::jobs::release(tx, job).map(drop)));
        if let Err(error) = released.await {
            tracing::warn!(%error, "claims were not released; their leases will run out");
        }
        self.tracker.close();
        let grace = self.worker.kinds.values().map(|kind| kind.grace).max().unwrap_or_default();
        // Those cut off still end their leases; an attempt that does not yield is left to the end of the process.
        if tokio::time::timeout(grace + RELEASE_WAIT, self.tracker.wait()).await.is_err() {
            tracing::warn!(
                attempts = self.tracker.len(),
                "attempts were cut off by the shutdown; they will be made again"
            );
        }
    }
}

async fn next_claim(claiming: &mut Option<Claiming>) -> (Vec<Flow>, store::Result<Claims>) {
    let Some(handle) = claiming else { return std::future::pending().await };
    let claims = handle.await.unwrap_or_else(|_| (Vec::new(), Err(store::Error::Stopped)));
    *claiming = None;
    claims
}

async fn claim(worker: Arc<Worker>, requests: Vec<ClaimRequest>) -> (Vec<Flow>, store::Result<Claims>) {
    let flows = requests.iter().map(|request| request.flow.clone()).collect();
    let now = worker.clock.now();
    let leases = worker.leases();
    let claims = worker.db.write_nosync(move |tx| {
        let mut claims = Claims::with_capacity(requests.len());
        let lease = |kind| leases.get(&kind).copied().unwrap_or(LONGEST_SLEEP);
        for request in requests {
            let jobs = store::jobs::claim(tx, &request.flow, request.limit, now, lease)?;
            let next_due = store::jobs::next_due(tx, &request.flow)?;
            claims.push((request.flow, jobs, next_due));
        }
        Ok(claims)
    });
    (flows, claims.await)
}

/// Releases claims that were not attempted, or may never have been committed, and examines the flows of those that
/// were.
async fn release(worker: Arc<Worker>, returned: Vec<(Flow, ClaimedJob)>) {
    let released = worker.db.write_nosync(move |tx| {
        let mut flows = Vec::new();
        for (flow, job) in returned {
            if store::jobs::release(tx, &job)? {
                flows.push((flow, job.run_at));
            }
        }
        Ok(flows)
    });
    match released.await {
        Ok(flows) => wake(&worker, &flows),
        Err(error) => tracing::warn!(%error, "claims were not released; their leases will run out"),
    }
}

async fn release_expired(worker: Arc<Worker>, now: Timestamp) {
    let released = worker.db.write_nosync(move |tx| store::jobs::release_expired(tx, now, now)).await;
    match released {
        Ok(released) => wake(&worker, &released),
        Err(error) => tracing::warn!(%error, "looking for expired leases failed"),
    }
}

/// Moves the jobs that wait for `seen` or later.
async fn shift_run_at(worker: Arc<Worker>, seen: Timestamp, back: Duration) {
    loop {
        match worker.db.write(move |tx| store::jobs::shift_run_at(tx, seen, back)).await {
            Ok(()) => return wake_all(&worker).await,
            Err(error) => tracing::warn!(%error, "waiting jobs could not follow the clock; trying again"),
        }
        tokio::time::sleep(TROUBLE_WAIT).await;
    }
}

async fn wake_all(worker: &Worker) {
    match worker.db.read(store::jobs::list_flows).await {
        Ok(flows) => wake(worker, &flows),
        Err(error) => tracing::warn!(%error, "the job table could not be listed"),
    }
}

fn wake(worker: &Worker, flows: &[(Flow, Timestamp)]) {
    flows.iter().for_each(|(flow, due)| worker.jobs.wake(flow, *due));
}

/// Checks whether another process changed the database (`mailkite queue`); then every flow is read again, at a cost
/// proportional to their number.
async fn detect_external_writes(worker: Arc<Worker>, seen: Arc<AtomicI64>) {
    let version = match worker.db.write_nosync(store::data_version).await {
        Ok(version) => version,
        Err(error) => return tracing::warn!(%error, "the version of the database could not be read"),
    };
    let before = seen.swap(version, Ordering::Relaxed);
    if before != version {
        let now = worker.clock.now();
        worker.jobs.probe_all(now);
        wake_all(&worker).await;
    }
}

/// Ends the jobs whose schedule would be over by now while their flow pauses. The table lists the oldest first, so the
/// search ends at the first one that is young enough.
async fn give_up(worker: Arc<Worker>, giving_up: Arc<AtomicBool>) {
    let after = |kind| worker.kinds.get(&kind).and_then(|kind: &Registration| kind.give_up_after);
    let shortest = worker.kinds.values().filter_map(|kind| kind.give_up_after).min();
    let now = worker.clock.now();
    let mut last = JobRowId::new(0);
    while let Some(shortest) = shortest {
        let page = worker.db.read(move |connection| store::jobs::list_after(connection, last, GIVE_UP_PAGE)).await;
        let page = page.unwrap_or_else(|error| {
            tracing::warn!(%error, "looking for jobs to be given up failed");
            Vec::new()
        });
        let young = |listed: &store::jobs::WaitingJob| {
            after(listed.job.kind).is_some() && listed.job.queued_at.plus(shortest) > now
        };
        let ends = page.len() < GIVE_UP_PAGE || page.last().is_some_and(young);
        last = page.last().map_or(last, |listed| listed.job.id);
        for listed in page {
            let over = after(listed.job.kind).is_some_and(|after| listed.job.queued_at.plus(after) <= now);
            let waits = !listed.is_claimed && listed.job.run_at <= now;
            if over && waits && worker.jobs.with_lanes(|lanes| lanes.is_paused(&listed.flow)) {
                worker.give_up(listed.flow, listed.job, now).await;
            }
        }
        if ends {
            break;
        }
    }
    giving_up.store(false, Ordering::Relaxed);
}

impl Worker {
    async fn give_up(self: &Arc<Self>, flow: Flow, job: ClaimedJob, now: Timestamp) {
        let Some(kind) = self.kinds.get(&job.kind) else { return };
        let job = ClaimedJob { lease_until: now.plus(kind.lease), ..job };
        let claim = job.clone();
        match self.db.write_nosync(move |tx| store::jobs::claim_one(tx, &claim)).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::warn!(%error, "a job could not be given up; trying again later"),
        }
        kind.handler.end(Arc::clone(self), flow, job, now).await;
    }
}

#[cfg(test)]
mod tests;
