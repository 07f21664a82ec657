//! Lanes whose hosts pause, for whoever looks at the queue: what rules is the engine's own knowledge.

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::DispatchRowId;
use crate::store::Result;

/// That the hosts of a lane take nothing at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When one message tries them next.
    pub(crate) until: Timestamp,
    /// What the host said, or that it did not answer.
    pub reason: String,
}

/// Notes that a lane pauses.
pub(crate) fn note(connection: &Connection, lane: &str, pause: &Pause) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO lane_pause (lane, until, reason) VALUES (?1, ?2, ?3)
             ON CONFLICT (lane) DO UPDATE SET until = excluded.until, reason = excluded.reason",
        )?
        .execute(params![lane, pause.until.as_millis(), pause.reason])?;
    Ok(())
}

/// A lane does not pause any more.
pub(crate) fn end(connection: &Connection, lane: &str) -> Result<()> {
    connection.prepare_cached("DELETE FROM lane_pause WHERE lane = ?1")?.execute([lane])?;
    Ok(())
}

/// The pause that a dispatch waits for; none: it does not, or is attempted at this moment.
pub(crate) fn of_dispatch(connection: &Connection, dispatch: DispatchRowId, now: Timestamp) -> Result<Option<Pause>> {
    let found = connection
        .prepare_cached(
            "SELECT lane_pause.until, lane_pause.reason FROM job JOIN lane_pause ON lane_pause.lane = job.lane
             WHERE job.subject_id = ?1 AND job.kind = 'dispatch' AND job.lease_until IS NULL AND lane_pause.until > ?2",
        )?
        .query_row(params![dispatch, now.as_millis()], |row| {
            Ok(Pause { until: Timestamp::from_millis(row.get(0)?), reason: row.get(1)? })
        })
        .optional()?;
    Ok(found)
}

/// Removes pauses that are over; how many.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    Ok(connection.prepare_cached("DELETE FROM lane_pause WHERE until <= ?1")?.execute([now.as_millis()])?)
}
