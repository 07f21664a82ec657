//! How many rows of a kind an account has, asked before it gets one more (`crate::limits` decides).
//!
//! Few rows are counted where they stand, and no further than the limit. Of tables that may hold many, triggers keep a
//! counter in `account_rows`, so that asking costs the same whatever there is. Bytes of messages are known from the latest
//! one: accepting a message writes no counter.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, MessageRowId};
use crate::store::Result;

/// Rows that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountedRow {
    /// Routes, inactive ones included.
    Routes,
    /// Routes of no domain.
    RegexRoutes,
    /// Domains.
    Domains,
    /// Keys for one domain.
    ScopedKeys,
    /// Templates.
    Templates,
    /// Uploads, expired ones included until they are swept.
    Uploads,
    /// Messages that wait for their time.
    Scheduled,
    /// Suppressed addresses.
    Suppressions,
    /// Blocked senders.
    BlockedSenders,
    /// Remembered answers, expired ones included until they are swept.
    IdempotencyKeys,
}

/// How many such rows an account has; of the few that are counted one by one no more than `most`.
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

/// The counter that triggers keep of a table's rows.
fn kept(connection: &Connection, account: AccountRowId, table: &str) -> Result<u64> {
    let rows: Option<i64> = connection
        .prepare_cached("SELECT rows FROM account_rows WHERE account_id = ?1 AND table_name = ?2")?
        .query_row(params![account, table], |row| row.get(0))
        .optional()?;
    Ok(rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0))
}

/// What a message takes beside its mail data: its row and what finds it, with one delivery or recipient; as much again for
/// each more of these.
pub(crate) const MESSAGE_BYTES: u64 = 2048;

/// The sum that a message of so many octets carries when it is inserted now.
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
    // After a clock that was set back the new message is not the latest.
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

/// Counts the deliveries or recipients of a message that was inserted in this transaction, when they are several.
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
    // See add_message: it is not the latest one.
    connection
        .prepare_cached("UPDATE message_bytes SET floor = floor + ?3 WHERE account_id = ?1 AND floor = ?2")?
        .execute(params![account, total, more])?;
    Ok(())
}

/// The bytes that an account has stored, and whether it is the owner's.
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
