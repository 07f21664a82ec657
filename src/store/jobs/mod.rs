//! The job table: attempts that are due or planned, in lanes. Only the job engine claims and settles.

pub(crate) mod lane_pauses;

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::Result;
use super::stored_enum::stored_enum;
use crate::clock::Timestamp;
use crate::id::{
    AccountRowId, DeliveryRowId, DispatchRowId, JobRowId, JobSubjectId, MessageRowId, NoticeRowId, ZeroRetentionRowId,
};

stored_enum! {
    /// The kind of a job, which selects its handler.
    pub(crate) enum JobKind in "job.kind" {
        /// A webhook delivery.
        Webhook = "webhook",
        /// The only delivery of a message of which nothing else is stored.
        ZeroRetention = "zero_retention",
        /// A message queued for one destination.
        Dispatch = "dispatch",
        /// A scheduled message to release at its time.
        ScheduledSend = "scheduled_send",
        /// Mail sent by this server itself.
        Notice = "notice",
    }
}

/// The row that a job attempts, in the table of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobSubject {
    /// A webhook delivery.
    Webhook(DeliveryRowId),
    /// The only delivery of a message of which nothing else is stored.
    ZeroRetention(ZeroRetentionRowId),
    /// A message queued for one destination.
    Dispatch(DispatchRowId),
    /// A scheduled message.
    ScheduledSend(MessageRowId),
    /// Mail sent by this server itself.
    Notice(NoticeRowId),
}

impl JobSubject {
    /// Returns the kind of the job.
    pub(crate) const fn kind(self) -> JobKind {
        match self {
            Self::Webhook(_) => JobKind::Webhook,
            Self::ZeroRetention(_) => JobKind::ZeroRetention,
            Self::Dispatch(_) => JobKind::Dispatch,
            Self::ScheduledSend(_) => JobKind::ScheduledSend,
            Self::Notice(_) => JobKind::Notice,
        }
    }

    /// Returns the row id as stored in the column shared by all kinds.
    pub(crate) const fn id(self) -> JobSubjectId {
        match self {
            Self::Webhook(row) => row.as_subject(),
            Self::ZeroRetention(row) => row.as_subject(),
            Self::Dispatch(row) => row.as_subject(),
            Self::ScheduledSend(row) => row.as_subject(),
            Self::Notice(row) => row.as_subject(),
        }
    }
}

/// Jobs of one account for one endpoint within a lane, first in, first out. Accounts are served in rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Unit of throttling: an endpoint's origin or a recipient domain.
    pub(crate) lane: Arc<str>,
    /// Row id of the account; 0 for the appliance itself.
    pub(crate) account: AccountRowId,
    /// Distinguishes the endpoints of a lane; 0 where there is one.
    pub(crate) endpoint: i64,
}

impl Flow {
    /// Returns the flow of an account in a lane that is one endpoint.
    pub fn new(lane: &str, account: AccountRowId) -> Self {
        Self { lane: lane.into(), account, endpoint: 0 }
    }

    /// Reads the columns from index `lane` on.
    fn read(row: &rusqlite::Row<'_>, lane: usize) -> rusqlite::Result<Self> {
        let name = row.get_ref(lane)?.as_str()?;
        Ok(Self { lane: name.into(), account: row.get(lane + 1)?, endpoint: row.get(lane + 2)? })
    }
}

/// A claimed job, which may be attempted until its lease expires.
#[derive(Clone, Debug)]
pub(crate) struct ClaimedJob {
    pub(crate) id: JobRowId,
    pub(crate) kind: JobKind,
    /// Row that it attempts, in the table of its kind.
    pub(crate) subject_id: JobSubjectId,
    /// Attempts settled as deferred: the step of the retry schedule.
    pub(crate) failures: u32,
    /// Time at which it was due.
    pub(crate) run_at: Timestamp,
    /// Time at which it was first due.
    pub(crate) queued_at: Timestamp,
    /// End of the lease.
    pub(crate) lease_until: Timestamp,
}

/// Data of a new job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewJob<'a> {
    pub(crate) flow: &'a Flow,
    pub(crate) subject: JobSubject,
    /// Time from which it is to be attempted.
    pub(crate) run_at: Timestamp,
    /// End of its lease, if its transaction claims it, so that nobody else has to find it.
    pub(crate) lease_until: Option<Timestamp>,
}

/// Queues a job to be attempted from `run_at` on.
pub fn insert(connection: &Connection, flow: &Flow, subject: JobSubject, run_at: Timestamp) -> Result<()> {
    insert_all(connection, &[NewJob { flow, subject, run_at, lease_until: None }]).map(drop)
}

/// Queues jobs; returns the claim of each that has a lease, in their order.
pub(crate) fn insert_all(connection: &Connection, new: &[NewJob<'_>]) -> Result<Vec<Option<ClaimedJob>>> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO job (lane, account_id, endpoint, kind, subject_id, run_at, queued_at, claims, lease_until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7 IS NOT NULL, ?7)",
    )?;
    let mut claimed = Vec::with_capacity(new.len());
    for &NewJob { flow, subject, run_at, lease_until } in new {
        statement.execute(params![
            flow.lane,
            flow.account,
            flow.endpoint,
            subject.kind(),
            subject.id(),
            run_at.as_millis(),
            lease_until.map(Timestamp::as_millis)
        ])?;
        claimed.push(lease_until.map(|lease_until| ClaimedJob {
            id: crate::id::RowId::new(connection.last_insert_rowid()),
            kind: subject.kind(),
            subject_id: subject.id(),
            failures: 0,
            run_at,
            queued_at: run_at,
            lease_until,
        }));
    }
    Ok(claimed)
}

/// Claims up to `limit` due jobs of a flow, each with the lease that its kind needs.
pub(crate) fn claim(
    connection: &Connection,
    flow: &Flow,
    limit: usize,
    now: Timestamp,
    lease: impl Fn(JobKind) -> Duration,
) -> Result<Vec<ClaimedJob>> {
    let claimed: Vec<ClaimedJob> = connection
        .prepare_cached(
            "SELECT id, subject_id, failures, run_at, kind, queued_at FROM job
             WHERE lane = ?1 AND account_id = ?2 AND endpoint = ?3 AND lease_until IS NULL AND run_at <= ?4
             ORDER BY run_at LIMIT ?5",
        )?
        .query_map(params![flow.lane, flow.account, flow.endpoint, now.as_millis(), limit], |row| {
            let kind = row.get::<_, JobKind>(4)?;
            Ok(ClaimedJob {
                id: row.get(0)?,
                kind,
                subject_id: row.get(1)?,
                failures: row.get(2)?,
                run_at: Timestamp::from_millis(row.get(3)?),
                queued_at: Timestamp::from_millis(row.get(5)?),
                lease_until: now.plus(lease(kind)),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut claim =
        connection.prepare_cached("UPDATE job SET lease_until = ?2, claims = claims + 1 WHERE id = ?1")?;
    for job in &claimed {
        claim.execute(params![job.id, job.lease_until.as_millis()])?;
    }
    Ok(claimed)
}

/// A job as stored, claimed or not.
#[derive(Clone, Debug)]
pub(crate) struct WaitingJob {
    /// Flow that it waits in.
    pub(crate) flow: Flow,
    /// The job, with the `lease_until` to use for [`claim_one`].
    pub(crate) job: ClaimedJob,
    /// True while the job is claimed.
    pub(crate) is_claimed: bool,
}

/// Lists up to `limit` jobs after the one with this id, in the order in which they were queued.
pub(crate) fn list_after(connection: &Connection, id: JobRowId, limit: usize) -> Result<Vec<WaitingJob>> {
    let rows = connection
        .prepare_cached(
            "SELECT lane, account_id, endpoint, id, kind, subject_id, failures, run_at, queued_at, lease_until
             FROM job WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?
        .query_map(params![id, limit], |row| {
            let lease_until: Option<i64> = row.get(9)?;
            Ok(WaitingJob {
                flow: Flow::read(row, 0)?,
                job: ClaimedJob {
                    id: row.get(3)?,
                    kind: row.get::<_, JobKind>(4)?,
                    subject_id: row.get(5)?,
                    failures: row.get(6)?,
                    run_at: Timestamp::from_millis(row.get(7)?),
                    queued_at: Timestamp::from_millis(row.get(8)?),
                    lease_until: Timestamp::from_millis(lease_until.unwrap_or(0)),
                },
                is_claimed: lease_until.is_some(),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Claims a waiting job until its `lease_until`; returns false if it was no longer waiting.
pub(crate) fn claim_one(connection: &Connection, job: &ClaimedJob) -> Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE job SET lease_until = ?2, claims = claims + 1
             WHERE id = ?1 AND lease_until IS NULL",
        )?
        .execute(params![job.id, job.lease_until.as_millis()])?;
    Ok(changed > 0)
}

/// Returns the time at which the next job of a flow is due.
pub(crate) fn next_due(connection: &Connection, flow: &Flow) -> Result<Option<Timestamp>> {
    let found: Option<i64> = connection
        .prepare_cached(
            "SELECT run_at FROM job
             WHERE lane = ?1 AND account_id = ?2 AND endpoint = ?3 AND lease_until IS NULL
             ORDER BY run_at LIMIT 1",
        )?
        .query_row(params![flow.lane, flow.account, flow.endpoint], |row| row.get(0))
        .optional()?;
    Ok(found.map(Timestamp::from_millis))
}

/// Lists every flow with waiting jobs and the time at which its first is due; the cost grows with the flows, not the
/// jobs.
pub(crate) fn list_flows(connection: &Connection) -> Result<Vec<(Flow, Timestamp)>> {
    let mut after = connection.prepare(
        "SELECT lane, account_id, endpoint, run_at FROM job
         WHERE lease_until IS NULL AND (lane, account_id, endpoint) > (?1, ?2, ?3)
         ORDER BY lane, account_id, endpoint, run_at LIMIT 1",
    )?;
    let mut flows: Vec<(Flow, Timestamp)> = Vec::new();
    let mut last = Flow::new("", AccountRowId::new(i64::MIN));
    loop {
        let next = after.query_row(params![last.lane, last.account, last.endpoint], |row| {
            Ok((Flow::read(row, 0)?, Timestamp::from_millis(row.get(3)?)))
        });
        let Some((flow, due)) = next.optional()? else { return Ok(flows) };
        last = flow.clone();
        flows.push((flow, due));
    }
}

/// Returns the time at which the last waiting job is due; the cost grows with the flows, not the jobs.
pub(crate) fn last_due(connection: &Connection) -> Result<Option<Timestamp>> {
    let mut last = connection.prepare(
        "SELECT run_at FROM job
         WHERE lane = ?1 AND account_id = ?2 AND endpoint = ?3 AND lease_until IS NULL
         ORDER BY run_at DESC LIMIT 1",
    )?;
    let mut latest = None;
    for (flow, _) in list_flows(connection)? {
        let due = last.query_row(params![flow.lane, flow.account, flow.endpoint], |row| row.get(0)).optional()?;
        latest = latest.max(due);
    }
    Ok(latest.map(Timestamp::from_millis))
}

/// Makes jobs due that would wait for longer than `last`: the clock was set back after they were put back. Scheduled
/// messages keep their time.
pub(crate) fn clamp_run_at(connection: &Connection, last: Timestamp, now: Timestamp) -> Result<()> {
    reschedule(connection, last, "?2", now.as_millis())
}

/// Moves jobs due at `seen` or later back by the amount the clock was set back. Scheduled messages keep their time.
pub(crate) fn shift_run_at(connection: &Connection, seen: Timestamp, back: Duration) -> Result<()> {
    let from = Timestamp::from_millis(seen.as_millis().saturating_sub(1));
    reschedule(connection, from, "run_at - ?2", i64::try_from(back.as_millis()).unwrap_or(i64::MAX))
}

/// Sets a new time for the waiting jobs after `from` and for the planned attempts of their deliveries.
fn reschedule(connection: &Connection, from: Timestamp, run_at: &str, value: i64) -> Result<()> {
    let which = "lease_until IS NULL AND kind <> 'scheduled_send' AND run_at > ?1";
    connection.execute(
        &format!(
            "UPDATE delivery SET next_attempt_at = (SELECT {run_at} FROM job WHERE subject_id = delivery.id AND kind = 'webhook')
             WHERE status = 'pending' AND id IN (SELECT subject_id FROM job WHERE kind = 'webhook' AND {which})"
        ),
        params![from.as_millis(), value],
    )?;
    connection
        .execute(&format!("UPDATE job SET run_at = {run_at} WHERE {which}"), params![from.as_millis(), value])?;
    Ok(())
}

/// Releases claims whose lease expired before `until`; returns the flows they wait in with their times.
///
/// A job claimed several times without a settlement was interrupted by a crash each time. It waits a little longer
/// after each, so that a crash loop does not hammer a remote host.
pub(crate) fn release_expired(
    connection: &Connection,
    until: Timestamp,
    now: Timestamp,
) -> Result<Vec<(Flow, Timestamp)>> {
    let rows = connection
        .prepare_cached(
            "UPDATE job
             SET lease_until = NULL,
                 run_at = CASE WHEN claims <= 3 THEN run_at ELSE ?2 + min(claims - 3, 12) * 5000 END
             WHERE lease_until IS NOT NULL AND lease_until <= ?1
             RETURNING lane, account_id, endpoint, run_at",
        )?
        .query_map(params![until.as_millis(), now.as_millis()], |row| {
            Ok((Flow::read(row, 0)?, Timestamp::from_millis(row.get(3)?)))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Puts a claimed job back to run at `run_at`, one step further in the retry schedule if its attempt `failed`. Returns
/// false as [`finish`] does.
pub(crate) fn put_back(connection: &Connection, job: &ClaimedJob, run_at: Timestamp, failed: bool) -> Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE job SET run_at = ?3, failures = failures + ?4, claims = 0, lease_until = NULL
             WHERE id = ?1 AND lease_until = ?2",
        )?
        .execute(params![job.id, job.lease_until.as_millis(), run_at.as_millis(), failed])?;
    Ok(changed > 0)
}

/// Releases a claim without an attempt, leaving the job as it was. Returns false as [`finish`] does.
pub(crate) fn release(connection: &Connection, job: &ClaimedJob) -> Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE job SET claims = claims - 1, lease_until = NULL
             WHERE id = ?1 AND lease_until = ?2",
        )?
        .execute(params![job.id, job.lease_until.as_millis()])?;
    Ok(changed > 0)
}

/// Removes a job after its last attempt. Returns false if the claim is no longer valid because it was released or
/// removed meanwhile.
pub(crate) fn finish(connection: &Connection, job: &ClaimedJob) -> Result<bool> {
    let removed = connection
        .prepare_cached("DELETE FROM job WHERE id = ?1 AND lease_until = ?2")?
        .execute(params![job.id, job.lease_until.as_millis()])?;
    Ok(removed > 0)
}

/// Finds the jobs of these deliveries, as pairs of delivery and job; a job keeps its id for its lifetime.
pub(crate) fn find_by_deliveries(
    connection: &Connection,
    deliveries: &[DeliveryRowId],
) -> Result<Vec<(DeliveryRowId, JobRowId)>> {
    if deliveries.is_empty() {
        return Ok(Vec::new());
    }
    let rows = connection
        .prepare_cached(
            "SELECT subject_id, id FROM job
             WHERE kind = ?1 AND subject_id IN (SELECT value FROM json_each(?2)) ORDER BY id",
        )?
        .query_map(params![JobKind::Webhook, super::id_list(deliveries)], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Removes jobs found by [`find_by_deliveries`]; claims of them become invalid.
pub(crate) fn delete_all(connection: &Connection, ids: &[JobRowId]) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM job WHERE id IN (SELECT value FROM json_each(?1))")?
        .execute([super::id_list(ids)])?;
    Ok(())
}

/// Removes the job of a subject that is being deleted; a claim of it becomes invalid.
pub(crate) fn delete_by_subject(connection: &Connection, subject: JobSubject) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM job WHERE subject_id = ?2 AND kind = ?1")?
        .execute(params![subject.kind(), subject.id()])?;
    Ok(())
}

/// Makes the waiting job of a subject due; returns false if there is none.
pub(crate) fn run_now(connection: &Connection, subject: JobSubject, now: Timestamp) -> Result<bool> {
    let changed = connection
        .prepare_cached("UPDATE job SET run_at = ?3 WHERE subject_id = ?2 AND kind = ?1 AND lease_until IS NULL")?
        .execute(params![subject.kind(), subject.id(), now.as_millis()])?;
    Ok(changed > 0)
}

/// Removes a job unless it is claimed.
pub(crate) fn delete_waiting(connection: &Connection, id: JobRowId) -> Result<()> {
    connection.prepare_cached("DELETE FROM job WHERE id = ?1 AND lease_until IS NULL")?.execute([id])?;
    Ok(())
}

/// Counts all jobs, including claimed ones.
#[cfg(test)]
pub(crate) fn count(connection: &Connection) -> Result<u64> {
    Ok(connection.query_row("SELECT count(*) FROM job", [], |row| row.get(0))?)
}
