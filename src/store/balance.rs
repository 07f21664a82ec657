//! The balance of `mailkite audit`: everything ever accepted is stored in some state, or was removed.
//!
//! Ids are never used twice, so the highest id tells how many messages were ever accepted; each one that has no row was
//! removed, for which reason a note says for some months. That no row went without a removal is shown by the octets:
//! each message carries the sum of all that its account was ever charged, and triggers sum up what was removed.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::Result;

/// Numbers of what was accepted and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Balance {
    /// Messages and zero-retention mail that ever had a row.
    pub(crate) accepted: u64,
    /// Stored messages by state.
    pub(crate) states: BTreeMap<String, u64>,
    /// Removed messages, and zero-retention mail that was passed on or given up.
    pub(crate) removed: u64,
    pub(crate) ended: u64,
    /// Notes of removals by reason, which are kept for 90 days.
    pub(crate) notes: BTreeMap<String, u64>,
    pub(crate) mismatches: Vec<Mismatch>,
}

/// An account whose messages are not what its removals leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) account: String,
    /// Octets charged for all messages but the removed ones, and octets of those that are there.
    pub(crate) charged: i64,
    pub(crate) present: i64,
}

/// Draws up the balance; each query sees one state of the database.
pub(crate) fn draw_up(connection: &Connection) -> Result<Balance> {
    let (messages, passing) = (last_id(connection, "message")?, last_id(connection, "zero_retention_delivery")?);
    let mut states = counts(connection, STATES, messages)?;
    let stored: u64 = states.values().sum();
    let waiting: u64 =
        connection
            .query_row("SELECT count(*) FROM zero_retention_delivery WHERE id <= ?1", [passing], |row| row.get(0))?;
    if waiting > 0 {
        *states.entry("pending".to_owned()).or_default() += waiting;
    }
    Ok(Balance {
        accepted: messages + passing,
        removed: messages.saturating_sub(stored),
        ended: passing.saturating_sub(waiting),
        states,
        notes: counts(connection, "SELECT reason, count(*) FROM removal WHERE ?1 >= 0 GROUP BY reason", 0)?,
        mismatches: mismatches(connection)?,
    })
}

/// States of received messages follow from their deliveries and forwarded copies, as in `audit`.
const STATES: &str = "
    SELECT CASE
        WHEN status = 'dropped' THEN 'dropped by the receiver'
        WHEN status IN ('scheduled', 'queued', 'deferred') THEN 'pending'
        WHEN status = 'sent' THEN 'delivered'
        WHEN status IN ('bounced', 'failed') THEN 'failed'
        WHEN status = 'canceled' THEN 'canceled'
        WHEN EXISTS (SELECT 1 FROM delivery WHERE message_id = message.id AND status = 'pending')
          OR EXISTS (SELECT 1 FROM dispatch JOIN recipient ON dispatch_id = dispatch.id WHERE message_id = message.id
                       AND status IN ('queued', 'deferred', 'scheduled')) THEN 'pending'
        WHEN EXISTS (SELECT 1 FROM delivery WHERE message_id = message.id AND status = 'delivered')
          OR EXISTS (SELECT 1 FROM dispatch JOIN recipient ON dispatch_id = dispatch.id WHERE message_id = message.id
                       AND recipient.status = 'sent') THEN 'delivered'
        WHEN EXISTS (SELECT 1 FROM delivery WHERE message_id = message.id)
          OR EXISTS (SELECT 1 FROM dispatch WHERE message_id = message.id) THEN 'failed'
        ELSE 'stored'
      END AS state, count(*)
    FROM message WHERE id <= ?1 GROUP BY state";

fn counts(connection: &Connection, statement: &str, upto: u64) -> Result<BTreeMap<String, u64>> {
    let mut statement = connection.prepare(statement)?;
    let rows = statement.query_map([upto], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns the highest id that a table ever gave.
fn last_id(connection: &Connection, table: &str) -> Result<u64> {
    let last = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?1), 0)";
    Ok(connection.query_row(last, [table], |row| row.get(0))?)
}

/// Compares the octets of each account's messages with those that its removals leave.
fn mismatches(connection: &Connection) -> Result<Vec<Mismatch>> {
    let mut statement = connection.prepare(
        "SELECT public_id,
                max(coalesce((SELECT account_total FROM message WHERE account_id = account.id
                              ORDER BY received_at DESC LIMIT 1), 0),
                    coalesce((SELECT floor FROM message_bytes WHERE account_id = account.id), 0))
                - coalesce((SELECT removed FROM message_bytes WHERE account_id = account.id), 0) AS charged,
                (SELECT coalesce(sum(overhead + iif(mail_data_id IS NULL, 0, size)
                                     + coalesce(octet_length(body), 0)), 0)
                 FROM message WHERE account_id = account.id) AS present
         FROM account WHERE charged <> present",
    )?;
    let rows = statement
        .query_map([], |row| Ok(Mismatch { account: row.get(0)?, charged: row.get(1)?, present: row.get(2)? }))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
