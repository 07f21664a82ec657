//! Figures for an account's overview: counts by time, maintained by minute, and samples of the newest deliveries.

use rusqlite::{Connection, params};

use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::store::Result;
use crate::store::webhooks::deliveries;
use crate::store::webhooks::deliveries::DeliveryRow;

/// Maximum number of deliveries in a sample.
const SAMPLE: u32 = 2_000;

/// A time range divided into equal steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    pub(crate) from: Timestamp,
    /// Length of a step in milliseconds.
    pub(crate) step_ms: i64,
    /// Number of steps.
    pub(crate) count: usize,
}

impl Steps {
    fn end(&self) -> i64 {
        self.from.as_millis() + self.step_ms * i64::try_from(self.count).unwrap_or(0)
    }
}

/// Events within one step of time; also their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages received.
    pub(crate) received: u64,
    /// Messages accepted for sending.
    pub(crate) sent: u64,
    /// Of these, those that bounced or were refused permanently.
    pub(crate) bounced: u64,
    /// Webhook deliveries that were acknowledged.
    pub(crate) delivered: u64,
    /// Webhook deliveries that failed permanently.
    pub(crate) failed: u64,
}

const MINUTE_MS: i64 = 60_000;
/// No screen shows minutes older than this.
const KEPT_MILLIS: i64 = 8 * 86_400_000;

/// Counts by step, whose length is whole minutes; the cost depends on the minutes, not on the events in them.
pub(crate) fn count(connection: &Connection, account: AccountRowId, steps: Steps) -> Result<Vec<Counts>> {
    let mut counts = vec![Counts::default(); steps.count];
    let mut statement = connection.prepare_cached(COUNT)?;
    let from = steps.from.as_millis();
    let mut rows = statement.query(params![account, from / MINUTE_MS, steps.end() / MINUTE_MS])?;
    while let Some(row) = rows.next()? {
        let at = (row.get::<_, i64>(0)? * MINUTE_MS - from) / steps.step_ms;
        let Some(slot) = usize::try_from(at).ok().and_then(|at| counts.get_mut(at)) else { continue };
        slot.received += positive(row.get(1)?);
        slot.sent += positive(row.get(2)?);
        slot.bounced += positive(row.get(3)?);
        slot.delivered += positive(row.get(4)?);
        slot.failed += positive(row.get(5)?);
    }
    Ok(counts)
}

const COUNT: &str = "SELECT minute, received, sent, bounced, delivered, failed FROM stats
     WHERE account_id = ?1 AND minute >= ?2 AND minute < ?3";

/// Clamps a count at zero: removing rows of a minute that the sweep removed leaves it negative.
fn positive(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// Removes up to `limit` minutes that are out of every range and have nothing waiting; returns the number removed.
pub(crate) fn forget_before(connection: &Connection, now: Timestamp, limit: u32) -> Result<usize> {
    let gone = connection
        .prepare_cached(
            "DELETE FROM stats WHERE (account_id, minute) IN (
               SELECT stats.account_id, stats.minute
               FROM account CROSS JOIN stats ON stats.account_id = account.id AND stats.minute < ?1
               WHERE stats.pending = 0 AND stats.unsent = 0 LIMIT ?2)",
        )?
        .execute(params![(now.as_millis() - KEPT_MILLIS) / MINUTE_MS, limit])?;
    Ok(gone)
}

/// Numbers of waiting rows, and the age of the oldest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueCounts {
    /// Webhook deliveries.
    pub(crate) webhooks: u64,
    /// Messages with unsettled recipients.
    pub(crate) outbound: u64,
    /// Time of the oldest of both.
    pub(crate) oldest_at: Option<Timestamp>,
}

/// Counts an account's waiting deliveries and messages.
pub(crate) fn waiting(connection: &Connection, account: AccountRowId) -> Result<QueueCounts> {
    let (webhooks, outbound): (i64, i64) = connection
        .prepare_cached(
            "SELECT coalesce(sum(pending), 0), coalesce(sum(unsent), 0) FROM stats WHERE account_id = ?1",
        )?
        .query_row([account], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let oldest = |statement: &str| -> Result<Option<i64>> {
        Ok(connection.prepare_cached(statement)?.query_row([account], |row| row.get(0))?)
    };
    // Each is the first entry of an index.
    let oldest_of = [
        "SELECT min(created_at) FROM delivery WHERE account_id = ?1 AND status = 'pending' AND status <> 'delivered'",
        "SELECT min(received_at) FROM message
         WHERE account_id = ?1 AND direction = 'outbound' AND status <> 'sent' AND status = 'queued'",
        "SELECT min(received_at) FROM message
         WHERE account_id = ?1 AND direction = 'outbound' AND status <> 'sent' AND status = 'deferred'",
    ];
    let oldest_at = oldest_of.into_iter().filter_map(|one| oldest(one).transpose()).collect::<Result<Vec<_>>>()?;
    let oldest_at = oldest_at.into_iter().min().map(Timestamp::from_millis);
    Ok(QueueCounts { webhooks: positive(webhooks), outbound: positive(outbound), oldest_at })
}

/// Lists the newest deliveries since then, at most two thousand.
pub(crate) fn sample(connection: &Connection, account: AccountRowId, since: Timestamp) -> Result<Vec<DeliveryRow>> {
    let statement = format!(
        "SELECT {} FROM delivery WHERE account_id = ?1 AND created_at >= ?2 ORDER BY created_at DESC, id DESC LIMIT ?3",
        deliveries::COLUMNS
    );
    let mut statement = connection.prepare_cached(&statement)?;
    let rows = statement.query_map(params![account, since.as_millis(), SAMPLE], deliveries::read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests;
