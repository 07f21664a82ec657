//! Attempts and settles one job: the verdict becomes the end of the job or its next attempt, in one transaction with
//! the handler's record.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::Worker;
use crate::clock::Timestamp;
use crate::jobs::handler::{AttemptResult, Handler};
use crate::jobs::{ClaimedJob, Flow, Health, JobKind, Settlement, Verdict};
use crate::store;

/// Wait of a job whose attempt panicked.
const PANIC_WAIT: Duration = Duration::from_secs(300);

impl Worker {
    /// Makes an attempt and settles its job.
    pub(in crate::jobs) async fn attempt<H: Handler>(
        &self,
        handler: Arc<H>,
        flow: Flow,
        job: ClaimedJob,
        now: Timestamp,
    ) {
        let attempt = Arc::clone(&handler).attempt(flow.clone(), job.clone(), now);
        let attempted = tokio::select! {
            attempted = AssertUnwindSafe(attempt).catch_unwind() => attempted.ok(),
            () = self.cut_off(job.kind) => return self.release_cut_off(&flow, job).await,
        };
        // The slot is free as soon as the attempt is done with the network.
        let health = attempted.as_ref().map_or(Health::Unknown, |attempted| attempted.health);
        self.jobs.finished(&flow, health, self.clock.now());
        self.settle(handler, flow, job, attempted).await;
    }

    /// Waits until attempts of this kind have to end because the server stops.
    async fn cut_off(&self, kind: JobKind) {
        self.stop.cancelled().await;
        tokio::time::sleep(self.kinds.get(&kind).map_or(Duration::ZERO, |kind| kind.grace)).await;
    }

    /// Ends the lease of an attempt that was cut off: it uses no step of the retry schedule.
    async fn release_cut_off(&self, flow: &Flow, job: ClaimedJob) {
        self.jobs.finished(flow, Health::Unknown, self.clock.now());
        tracing::info!(job = job.id.get(), "an attempt was cut off by the stop; it will be made again");
        if let Err(error) = self.db.write_nosync(move |tx| store::jobs::release(tx, &job)).await {
            tracing::debug!(%error, "a lease was not released; the next start releases it");
        }
    }

    /// Records an attempt and settles its job; `None` is an attempt that panicked.
    pub(in crate::jobs) async fn settle<H: Handler>(
        &self,
        handler: Arc<H>,
        flow: Flow,
        job: ClaimedJob,
        attempted: Option<AttemptResult<H::Attempted>>,
    ) {
        let now = self.clock.now();
        let (verdict, attempted) = match attempted {
            Some(result) => (result.verdict, result.attempted),
            None => (Verdict::Postponed { until: now.plus(PANIC_WAIT) }, None),
        };
        let failed = matches!(verdict, Verdict::Deferred { .. });
        let settlement = self.settlement(verdict, &job, now);
        let (id, recorder) = (job.id, Arc::clone(&handler));
        let settled = self.db.write_lazy(move |tx| {
            let held = match settlement {
                Settlement::Delivered | Settlement::Failed => store::jobs::finish(tx, &job)?,
                Settlement::Retry(at) => store::jobs::put_back(tx, &job, at, failed)?,
            };
            if !held {
                return Ok(None);
            }
            Ok(Some(attempted.map_or(Ok(None), |attempted| recorder.settle(tx, attempted, settlement))?))
        });
        match settled.await {
            Ok(Some(settled)) => {
                settled.into_iter().for_each(|settled| handler.committed(settled));
                if let Settlement::Retry(at) = settlement {
                    self.jobs.wake(&flow, at);
                }
            }
            Ok(None) => {
                tracing::info!(job = id.get(), "an attempt outlived its job or its lease and was not recorded")
            }
            Err(error) => {
                tracing::warn!(job = id.get(), %error, "an attempt could not be recorded; it will be made again")
            }
        }
    }

    fn settlement(&self, verdict: Verdict, job: &ClaimedJob, now: Timestamp) -> Settlement {
        let (not_before, not_after) = match verdict {
            Verdict::Delivered => return Settlement::Delivered,
            Verdict::Failed => return Settlement::Failed,
            Verdict::Postponed { until } => return Settlement::Retry(until),
            Verdict::Deferred { not_before, not_after } => (not_before, not_after),
        };
        // Pauses may have kept the job from attempts, but do not extend its time.
        let over = |after| not_before.is_none() && not_after.is_none() && job.queued_at.plus(after) <= now;
        let kind = self.kinds.get(&job.kind).filter(|kind| !kind.give_up_after.is_some_and(over));
        let next = kind.and_then(|kind| kind.schedule.next(job.failures, now, not_before));
        let next = next.map(|next| not_after.map_or(next, |last| next.min(last)));
        next.map_or(Settlement::Failed, Settlement::Retry)
    }
}
