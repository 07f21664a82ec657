//! Senders that an account blocked (contract 9.4); compared in canonical form.

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::mail::address::canonical;
use crate::store::Result;

/// Blocks a sender for an account; no change if it is blocked already.
pub(crate) fn insert(connection: &Connection, account: AccountRowId, email: &str, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO blocked_sender (account_id, email, created_at)
             VALUES (?1, ?2, ?3)
             ON CONFLICT (account_id, email) DO NOTHING",
        )?
        .execute(params![account, canonical(email), now.as_millis()])?;
    Ok(())
}

/// Returns true if an account blocked this sender.
pub(crate) fn is_blocked(connection: &Connection, account: AccountRowId, email: &str) -> Result<bool> {
    let found = connection
        .prepare_cached("SELECT 1 FROM blocked_sender WHERE account_id = ?1 AND email = ?2")?
        .exists(params![account, canonical(email)])?;
    Ok(found)
}

/// A blocked sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockedSender {
    /// In canonical form.
    pub(crate) email: String,
    /// Time at which it was blocked.
    pub(crate) created_at: Timestamp,
}

/// Finds a blocked sender by address.
pub(crate) fn find(connection: &Connection, account: AccountRowId, email: &str) -> Result<Option<BlockedSender>> {
    let email = canonical(email);
    let found = connection
        .prepare_cached("SELECT created_at FROM blocked_sender WHERE account_id = ?1 AND email = ?2")?
        .query_row(params![account, email], |row| row.get(0))
        .optional()?;
    Ok(found.map(|created_at| BlockedSender { email, created_at: Timestamp::from_millis(created_at) }))
}

/// Lists the senders that an account blocked, by address.
pub(crate) fn list(connection: &Connection, account: AccountRowId) -> Result<Vec<BlockedSender>> {
    let rows = connection
        .prepare_cached("SELECT email, created_at FROM blocked_sender WHERE account_id = ?1 ORDER BY email")?
        .query_map([account], |row| {
            Ok(BlockedSender { email: row.get(0)?, created_at: Timestamp::from_millis(row.get(1)?) })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Unblocks a sender, if it is blocked.
pub(crate) fn delete(connection: &Connection, account: AccountRowId, email: &str) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM blocked_sender WHERE account_id = ?1 AND email = ?2")?
        .execute(params![account, canonical(email)])?;
    Ok(())
}
