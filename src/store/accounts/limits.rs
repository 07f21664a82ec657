//! Number of rows of a kind that an account has, queried before another is added (`crate::limits` decides).
//!
//! Tables with few rows are counted directly, and no further than the limit. For tables that may hold many, triggers
//! maintain a counter in `account_rows`, so that a query costs the same however many there are. The latest message
//! carries the bytes of all messages: accepting one writes no counter.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, MessageRowId};
use crate::store::Result;

/// Kinds of rows with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountedRow {
    /// Including inactive routes.
    Routes,
    /// Routes that belong to no domain.
    RegexRoutes,
    Domains,
    /// Keys limited to one domain.
    ScopedKeys,
    Templates,
    /// Including expired uploads until the sweep removes them.
    Uploads,
    /// Messages scheduled for later.
    Scheduled,
    Suppressions,
    /// Blocked senders.
    BlockedSenders,
    /// Stored responses, including expired ones until the sweep removes them.
    IdempotencyKeys,
}

/// Counts such rows of an account; kinds that are counted directly only up to `most`.
pub(crate) fn count(connection: &Connection, account: AccountRowId, what: CountedRow, most: u64) -> Result<u64> {
    let rows = match what {
        CountedRow::Routes => "SELECT 1 FROM route WHERE account_id = ?1",
        CountedRow::RegexRoutes => "SELECT 1 FROM route WHERE account_id = ?1 AND domain_id IS NULL",
        CountedRow::Domains => "SELECT 1 FROM domain WHERE account_id = ?1",
        CountedRow::ScopedKeys => "SELECT 1 FROM api_key WHERE account_id = ?1 AND public_id IS NOT NULL",
        CountedRow::Templates => "SELECT 1 FROM template WHERE account_id = ?1",
        CountedRow::Scheduled => {
            "SELECT 1 FROM message WHERE account_id = ?1 AND direction = 'outbound' AND status = 'scheduled'
               AND status <> 'sent'"
        }
        CountedRow::Uploads => return kept(connection, account, "upload"),
        CountedRow::Suppressions => return kept(connection, account, "suppression"),
        CountedRow::BlockedSenders => return kept(connection, account, "blocked_sender"),
        CountedRow::IdempotencyKeys => return kept(connection, account, "idempotency"),
    };
    let statement = format!("SELECT count(*) FROM ({rows} LIMIT ?2)");
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    Ok(connection.prepare_cached(&statement)?.query_row(params![account, most], |row| row.get(0))?)
}

/// Returns the counter that triggers maintain for a table.
fn kept(connection: &Connection, account: AccountRowId, table: &str) -> Result<u64> {
    let rows: Option<i64> = connection
        .prepare_cached("SELECT rows FROM account_rows WHERE account_id = ?1 AND table_name = ?2")?
        .query_row(params![account, table], |row| row.get(0))
        .optional()?;
    Ok(rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0))
}

/// Bytes charged for a message in addition to its mail data: its row and index entries, with one delivery or recipient;
/// as much again for each further one.
pub(crate) const MESSAGE_BYTES: u64 = 2048;

/// Returns the running total that a message of `size` octets carries when it is inserted now.
pub(crate) fn add_message(connection: &Connection, account: AccountRowId, size: u64, at: Timestamp) -> Result<i64> {
    let (before, latest): (i64, Option<i64>) = connection
        .prepare_cached(
            "SELECT max(coalesce((SELECT floor FROM message_bytes WHERE account_id = ?1), 0), coalesce(account_total, 0)),
                    received_at
             FROM (SELECT 1) LEFT JOIN (
               SELECT account_total, received_at FROM message WHERE account_id = ?1 ORDER BY received_at DESC LIMIT 1)",
        )?
        .query_row([account], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let total = before.saturating_add(i64::try_from(size.saturating_add(MESSAGE_BYTES)).unwrap_or(i64::MAX));
    // After the clock was set back the new message is not the latest.
    if latest.is_some_and(|latest| latest > at.as_millis()) {
        connection
            .prepare_cached(
                "INSERT INTO message_bytes (account_id, floor, removed) VALUES (?1, ?2, 0)
                 ON CONFLICT (account_id) DO UPDATE SET floor = max(floor, excluded.floor)",
            )?
            .execute(params![account, total])?;
    }
    Ok(total)
}

/// Charges for the deliveries or recipients of a message inserted in this transaction, when there are several.
pub(crate) fn add_deliveries(
    connection: &Connection,
    account: AccountRowId,
    message: MessageRowId,
    count: usize,
) -> Result<()> {
    let more = (count as u64).saturating_sub(1).saturating_mul(MESSAGE_BYTES);
    if more == 0 {
        return Ok(());
    }
    let total: i64 = connection
        .prepare_cached(
            "UPDATE message SET overhead = overhead + ?2, account_total = account_total + ?2 WHERE id = ?1
             RETURNING account_total - ?2",
        )?
        .query_row(params![message, more], |row| row.get(0))?;
    // As in `add_message`, it is not necessarily the latest one.
    connection
        .prepare_cached("UPDATE message_bytes SET floor = floor + ?3 WHERE account_id = ?1 AND floor = ?2")?
        .execute(params![account, total, more])?;
    Ok(())
}

/// Returns the bytes that an account has stored, and true if it is the owner's account.
pub(crate) fn stored_bytes(connection: &Connection, account: AccountRowId) -> Result<(u64, bool)> {
    let found: Option<(i64, bool)> = connection
        .prepare_cached(
            "SELECT coalesce((SELECT sum(bytes) FROM account_rows WHERE account_id = ?1), 0)
                    + max(coalesce((SELECT account_total FROM message WHERE account_id = ?1
                                    ORDER BY received_at DESC LIMIT 1), 0),
                          coalesce((SELECT floor FROM message_bytes WHERE account_id = ?1), 0))
                    - coalesce((SELECT removed FROM message_bytes WHERE account_id = ?1), 0),
                    is_admin
             FROM account WHERE id = ?1",
        )?
        .query_row([account], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (bytes, owner) = found.unwrap_or_default();
    Ok((u64::try_from(bytes).unwrap_or(0), owner))
}
