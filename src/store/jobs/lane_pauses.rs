//! Pauses of lanes, stored for display of the queue: the job engine acts on its own state.

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::DispatchRowId;
use crate::store::Result;

/// A pause of a lane whose hosts accept nothing at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Time at which one message tries them next.
    pub(crate) until: Timestamp,
    /// Reply of the host, or that it did not answer.
    pub reason: String,
}

/// Records the pause of a lane.
pub(crate) fn note(connection: &Connection, lane: &str, pause: &Pause) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO lane_pause (lane, until, reason) VALUES (?1, ?2, ?3)
             ON CONFLICT (lane) DO UPDATE SET until = excluded.until, reason = excluded.reason",
        )?
        .execute(params![lane, pause.until.as_millis(), pause.reason])?;
    Ok(())
}

/// Ends the pause of a lane.
pub(crate) fn end(connection: &Connection, lane: &str) -> Result<()> {
    connection.prepare_cached("DELETE FROM lane_pause WHERE lane = ?1")?.execute([lane])?;
    Ok(())
}

/// Finds the pause that a dispatch waits for; none if it does not wait, or is being attempted.
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

/// Removes pauses that are over; returns the number removed.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    Ok(connection.prepare_cached("DELETE FROM lane_pause WHERE until <= ?1")?.execute([now.as_millis()])?)
}
