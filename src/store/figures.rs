//! What the overview shows of an account: counts by time, answered from indexes, and samples of the newest deliveries.

use rusqlite::{Connection, params};

use super::Result;
use super::deliveries::{self, DeliveryRow};
use crate::clock::Timestamp;

/// Deliveries that samples are made of at most.
const SAMPLE: u32 = 2_000;

/// A range of time in equal steps.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Its beginning.
    pub from: Timestamp,
    /// Milliseconds of a step.
    pub step_ms: i64,
    /// How many steps.
    pub count: usize,
}

impl Steps {
    fn end(&self) -> i64 {
        self.from.as_millis() + self.step_ms * i64::try_from(self.count).unwrap_or(0)
    }
}

/// How many in each step.
type Counts = Vec<u64>;

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub enum Counted {
    /// Messages of both directions.
    Messages,
    /// Messages that were sent.
    Outbound,
    /// Deliveries in any state, by the time of their event.
    Deliveries,
    /// Those of them that failed.
    Failed,
    /// Those of them that wait.
    Pending,
}

impl Counted {
    const fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::Messages => ("received_at", "message WHERE account_id = ?1"),
            Self::Outbound => ("received_at", "message WHERE account_id = ?1 AND direction = 'outbound'"),
            Self::Deliveries => ("created_at", "delivery WHERE account_id = ?1"),
            Self::Failed => {
                ("created_at", "delivery WHERE account_id = ?1 AND status = 'failed' AND status <> 'delivered'")
            }
            Self::Pending => {
                ("created_at", "delivery WHERE account_id = ?1 AND status = 'pending' AND status <> 'delivered'")
            }
        }
    }
}

/// Counts by step.
///
/// # Errors
/// Storage trouble.
pub fn count(connection: &Connection, account: i64, counted: Counted, steps: Steps) -> Result<Counts> {
    let (time, source) = counted.source();
    let statement =
        format!("SELECT ({time} - ?2) / ?3, count(*) FROM {source} AND {time} >= ?2 AND {time} < ?4 GROUP BY 1");
    let mut counts = vec![0; steps.count];
    let mut statement = connection.prepare_cached(&statement)?;
    let mut rows = statement.query(params![account, steps.from.as_millis(), steps.step_ms, steps.end()])?;
    while let Some(row) = rows.next()? {
        let at: i64 = row.get(0)?;
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| counts.get_mut(at)) {
            *slot = row.get(1)?;
        }
    }
    Ok(counts)
}

/// What waits, and since when the oldest of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// Deliveries of webhooks.
    pub webhooks: u64,
    /// Messages with recipients that are not settled.
    pub outbound: u64,
    /// The oldest of both.
    pub oldest_at: Option<Timestamp>,
}

/// What of an account waits.
///
/// # Errors
/// Storage trouble.
pub fn waiting(connection: &Connection, account: i64) -> Result<Waiting> {
    let ask = |statement: &str| -> Result<(u64, Option<i64>)> {
        let mut statement = connection.prepare_cached(statement)?;
        Ok(statement.query_row([account], |row| Ok((row.get(0)?, row.get(1)?)))?)
    };
    let (webhooks, oldest) = ask("SELECT count(*), min(created_at) FROM delivery
         WHERE account_id = ?1 AND status = 'pending' AND status <> 'delivered'")?;
    let (outbound, oldest_sent) = ask(
        "SELECT count(*), min(received_at) FROM message
         WHERE account_id = ?1 AND direction = 'outbound' AND status <> 'sent' AND status IN ('queued', 'deferred')",
    )?;
    let oldest_at = [oldest, oldest_sent].into_iter().flatten().min().map(Timestamp::from_millis);
    Ok(Waiting { webhooks, outbound, oldest_at })
}

/// How many messages that were sent since then came back or were refused for good.
///
/// # Errors
/// Storage trouble.
pub fn bounced(connection: &Connection, account: i64, since: Timestamp) -> Result<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FROM message WHERE account_id = ?1 AND direction = 'outbound' AND status <> 'sent'
         AND status IN ('bounced', 'failed') AND received_at >= ?2",
    )?;
    Ok(statement.query_row(params![account, since.as_millis()], |row| row.get(0))?)
}

/// The newest deliveries since then, at most two thousand.
///
/// # Errors
/// Storage trouble.
pub fn sample(connection: &Connection, account: i64, since: Timestamp) -> Result<Vec<DeliveryRow>> {
    let statement = format!(
        "SELECT {} FROM delivery WHERE account_id = ?1 AND created_at >= ?2 ORDER BY created_at DESC, id DESC LIMIT ?3",
        deliveries::COLUMNS
    );
    let mut statement = connection.prepare_cached(&statement)?;
    let rows = statement.query_map(params![account, since.as_millis(), SAMPLE], deliveries::read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
