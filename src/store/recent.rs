//! Duplicate suppression: what arrived within the last 24 hours (contract 5.1).

use rusqlite::{Connection, OptionalExtension, params};

use super::Result;
use crate::clock::Timestamp;

/// How long a repeat is recognised.
pub const WINDOW: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// The message that this fingerprint was stored as, if that was within the window.
///
/// # Errors
/// Storage trouble.
pub fn find(connection: &Connection, fingerprint: i64, now: Timestamp) -> Result<Option<String>> {
    let found = connection
        .prepare_cached(
            "SELECT message.public_id FROM recent JOIN message ON message.id = recent.message_id
             WHERE recent.fingerprint = ?1 AND message.received_at > ?2",
        )?
        .query_row(params![fingerprint, now.minus(WINDOW).as_millis()], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Remembers a stored message by its row.
///
/// # Errors
/// Storage trouble.
pub fn insert(connection: &Connection, fingerprint: i64, message: i64) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO recent (fingerprint, message_id)
             VALUES (?1, ?2)
             ON CONFLICT (fingerprint) DO UPDATE SET message_id = excluded.message_id",
        )?
        .execute(params![fingerprint, message])?;
    Ok(())
}

/// Forgets what is past the window among the `limit` keys after `from`; returns where to go on, `None` at the end.
///
/// # Errors
/// Storage trouble.
pub fn sweep(connection: &Connection, from: i64, limit: u32, now: Timestamp) -> Result<Option<i64>> {
    let last: Option<i64> = connection
        .prepare_cached(
            "SELECT fingerprint FROM recent WHERE fingerprint > ?1 ORDER BY fingerprint LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![from, limit], |row| row.get(0))
        .optional()?;
    connection
        .prepare_cached(
            "DELETE FROM recent
             WHERE fingerprint > ?1 AND fingerprint <= ?2 AND NOT EXISTS (
               SELECT 1 FROM message WHERE message.id = recent.message_id AND message.received_at > ?3)",
        )?
        .execute(params![from, last.unwrap_or(i64::MAX), now.minus(WINDOW).as_millis()])?;
    Ok(last)
}
