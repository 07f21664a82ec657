//! The job table: what is still to be attempted, in lanes. Only the job engine claims and settles.

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
    /// The kind of a job, by which its handler is found.
    pub(crate) enum JobKind in "job.kind" {
        /// A webhook delivery.
        Webhook = "webhook",
        /// The one delivery of a message that nothing else is stored of.
        ZeroRetention = "passing",
        /// A message on its way to one destination.
        Dispatch = "dispatch",
        /// A scheduled message whose time comes.
        ScheduledSend = "release",
        /// Mail of this server's own.
        Notice = "notice",
    }
}

/// The row that a job attempts, in the table of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobSubject {
    /// A webhook delivery.
    Webhook(DeliveryRowId),
    /// The one delivery of a message that nothing else is stored of.
    ZeroRetention(ZeroRetentionRowId),
    /// A message on its way to one destination.
    Dispatch(DispatchRowId),
    /// A scheduled message.
    ScheduledSend(MessageRowId),
    /// Mail of this server's own.
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

    /// Returns the row's number, as jobs of all kinds have it in one column.
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

/// Jobs of one account for one endpoint, within a lane: first come, first served. Accounts take turns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// What must not be hurried: an endpoint's origin, a recipient domain.
    pub(crate) lane: Arc<str>,
    /// Row id of the account; 0: the appliance's own.
    pub(crate) account: AccountRowId,
    /// Tells the endpoints of a lane apart; 0 where there is one.
    pub(crate) endpoint: i64,
}

impl Flow {
    /// An account's jobs in a lane that is one endpoint.
    pub fn new(lane: &str, account: AccountRowId) -> Self {
        Self { lane: lane.into(), account, endpoint: 0 }
    }

    /// From columns of these places.
    fn read(row: &rusqlite::Row<'_>, lane: usize) -> rusqlite::Result<Self> {
        let name = row.get_ref(lane)?.as_str()?;
        Ok(Self { lane: name.into(), account: row.get(lane + 1)?, endpoint: row.get(lane + 2)? })
    }
}

/// A job that was claimed and may be attempted until its lease runs out.
#[derive(Clone, Debug)]
pub(crate) struct ClaimedJob {
    /// Row id.
    pub(crate) id: JobRowId,
    /// What kind of thing it attempts.
    pub(crate) kind: JobKind,
    /// The row it attempts, in the table of its kind.
    pub(crate) subject_id: JobSubjectId,
    /// Attempts that were settled as deferred: the rung of the ladder.
    pub(crate) failures: u32,
    /// When it was due.
    pub(crate) run_at: Timestamp,
    /// When it was first due.
    pub(crate) queued_at: Timestamp,
    /// Until when the claim holds.
    pub(crate) lease_until: Timestamp,
}

/// Leaves a job to be attempted from `run_at` on.
pub fn insert(connection: &Connection, flow: &Flow, subject: JobSubject, run_at: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO job (lane, account_id, endpoint, kind, subject_id, run_at, queued_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        )?
        .execute(params![flow.lane, flow.account, flow.endpoint, subject.kind(), subject.id(), run_at.as_millis()])?;
    Ok(())
}

/// Leaves a job that its transaction claims at once: nobody else has to look for it.
pub(crate) fn insert_claimed(
    connection: &Connection,
    flow: &Flow,
    subject: JobSubject,
    run_at: Timestamp,
    lease_until: Timestamp,
) -> Result<ClaimedJob> {
    connection
        .prepare_cached(
            "INSERT INTO job (lane, account_id, endpoint, kind, subject_id, run_at, queued_at, claims, lease_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 1, ?7)",
        )?
        .execute(params![
            flow.lane,
            flow.account,
            flow.endpoint,
            subject.kind(),
            subject.id(),
            run_at.as_millis(),
            lease_until.as_millis()
        ])?;
    Ok(ClaimedJob {
        id: crate::id::RowId::new(connection.last_insert_rowid()),
        kind: subject.kind(),
        subject_id: subject.id(),
        failures: 0,
        run_at,
        queued_at: run_at,
        lease_until,
    })
}

/// Claims up to `limit` due jobs of a flow, each for as long as its kind needs.
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

/// A job as the table shows it.
#[derive(Clone, Debug)]
pub(crate) struct WaitingJob {
    /// Where it waits.
    pub(crate) flow: Flow,
    /// The job; its lease is `lease_until` of whoever claims it with [`claim_one`].
    pub(crate) job: ClaimedJob,
    /// Whether somebody has it.
    pub(crate) is_claimed: bool,
}

/// Up to `limit` jobs after the one with this id, in the order in which they were left.
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

/// Claims a waiting job until its `lease_until`; whether it still was one.
pub(crate) fn claim_one(connection: &Connection, job: &ClaimedJob) -> Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE job SET lease_until = ?2, claims = claims + 1
             WHERE id = ?1 AND lease_until IS NULL AND kind = ?3 AND subject_id = ?4",
        )?
        .execute(params![job.id, job.lease_until.as_millis(), job.kind, job.subject_id])?;
    Ok(changed > 0)
}

/// When the next job of a flow is due.
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

/// Every flow with waiting jobs and when its first is due; costs by the number of flows, not of jobs.
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

/// When the last waiting job of all is due; costs by the number of flows, not of jobs.
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

/// Makes the jobs due that wait for longer than `last`: since they were put back the clock was set back. A scheduled
/// message keeps its time.
pub(crate) fn clamp_run_at(connection: &Connection, last: Timestamp, now: Timestamp) -> Result<()> {
    reschedule(connection, last, "?2", now.as_millis())
}

/// Moves the jobs that wait for `seen` or later back by as much as the clock was. A scheduled message keeps its time.
pub(crate) fn shift_run_at(connection: &Connection, seen: Timestamp, back: Duration) -> Result<()> {
    let from = Timestamp::from_millis(seen.as_millis().saturating_sub(1));
    reschedule(connection, from, "run_at - ?2", i64::try_from(back.as_millis()).unwrap_or(i64::MAX))
}

/// Gives the waiting jobs after `from` another time, and the deliveries that they attempt another plan.
fn reschedule(connection: &Connection, from: Timestamp, run_at: &str, value: i64) -> Result<()> {
    let which = "lease_until IS NULL AND kind <> 'release' AND run_at > ?1";
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

/// Gives back claims whose lease ran out before `until`; returns the flows and times they wait in.
///
/// A job that was claimed several times without a settlement met a crash each time, so it waits a little longer each
/// time: a crash must not hammer a remote.
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

/// Puts a claimed job back to run at `run_at`; one rung further if its attempt `failed`. False: see [`finish`].
pub(crate) fn put_back(connection: &Connection, job: &ClaimedJob, run_at: Timestamp, failed: bool) -> Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE job SET run_at = ?5, failures = failures + ?6, claims = 0, lease_until = NULL
             WHERE id = ?1 AND lease_until = ?2 AND kind = ?3 AND subject_id = ?4",
        )?
        .execute(params![
            job.id,
            job.lease_until.as_millis(),
            job.kind,
            job.subject_id,
            run_at.as_millis(),
            failed
        ])?;
    Ok(changed > 0)
}

/// Gives an unattempted claim back as it was. False: see [`finish`].
pub(crate) fn release(connection: &Connection, job: &ClaimedJob) -> Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE job SET claims = claims - 1, lease_until = NULL
             WHERE id = ?1 AND lease_until = ?2 AND kind = ?3 AND subject_id = ?4",
        )?
        .execute(params![job.id, job.lease_until.as_millis(), job.kind, job.subject_id])?;
    Ok(changed > 0)
}

/// Removes a job that was attempted for the last time. False: its claim holds no more, because it was given back or
/// removed meanwhile; its row may be a later job's.
pub(crate) fn finish(connection: &Connection, job: &ClaimedJob) -> Result<bool> {
    let removed = connection
        .prepare_cached("DELETE FROM job WHERE id = ?1 AND lease_until = ?2 AND kind = ?3 AND subject_id = ?4")?
        .execute(params![job.id, job.lease_until.as_millis(), job.kind, job.subject_id])?;
    Ok(removed > 0)
}

/// The jobs of these deliveries, as pairs of delivery and job; a job keeps its id as long as it lives.
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

/// Removes a job that [`find_by_deliveries`] found, if it is still this subject's; a claim of it holds no more.
pub(crate) fn delete_of(connection: &Connection, id: JobRowId, subject: JobSubject) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM job WHERE id = ?1 AND kind = ?2 AND subject_id = ?3")?
        .execute(params![id, subject.kind(), subject.id()])?;
    Ok(())
}

/// Removes the job of a subject that goes, or it would attempt the next one to get that row id; a claim of it holds no
/// more.
pub(crate) fn delete_by_subject(connection: &Connection, subject: JobSubject) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM job WHERE subject_id = ?2 AND kind = ?1")?
        .execute(params![subject.kind(), subject.id()])?;
    Ok(())
}

/// Makes the waiting job of a subject due; whether there is one.
pub(crate) fn run_now(connection: &Connection, subject: JobSubject, now: Timestamp) -> Result<bool> {
    let changed = connection
        .prepare_cached("UPDATE job SET run_at = ?3 WHERE subject_id = ?2 AND kind = ?1 AND lease_until IS NULL")?
        .execute(params![subject.kind(), subject.id(), now.as_millis()])?;
    Ok(changed > 0)
}

/// Removes a job unless it is claimed.
pub(crate) fn delete_waiting(connection: &Connection, id: JobRowId, subject: JobSubject) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM job WHERE id = ?1 AND kind = ?2 AND subject_id = ?3 AND lease_until IS NULL")?
        .execute(params![id, subject.kind(), subject.id()])?;
    Ok(())
}

/// How many jobs there are, claimed ones included.
#[cfg(test)]
pub(crate) fn count(connection: &Connection) -> Result<u64> {
    Ok(connection.query_row("SELECT count(*) FROM job", [], |row| row.get(0))?)
}
