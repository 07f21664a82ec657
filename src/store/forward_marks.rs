//! What was forwarded with an SRS address, so that only reports about it come back there (contract 5.1).

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::Result;
use crate::clock::Timestamp;

/// Longer than any SRS address is valid.
const KEPT_FOR: Duration = Duration::from_secs(60 * 86_400);

/// Notes that a message with this mark was forwarded, on behalf of the address that it was sent to.
///
/// # Errors
/// Storage trouble.
pub fn insert(connection: &Connection, mark: &[u8], recipient: &str, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO forward_mark (mark, recipient, reported, sent_at) VALUES (?1, ?2, 0, ?3)
             ON CONFLICT (mark) DO UPDATE SET sent_at = excluded.sent_at",
        )?
        .execute(params![mark, recipient, now.as_millis()])?;
    Ok(())
}

/// Takes a report about a message with this mark: the address that the message was sent to, the first time that this
/// `action`, one bit, is reported.
///
/// # Errors
/// Storage trouble.
pub fn take(connection: &Connection, mark: &[u8], action: u8) -> Result<Option<String>> {
    let recipient = connection
        .prepare_cached(
            "UPDATE forward_mark SET reported = reported | ?2 WHERE mark = ?1 AND reported & ?2 = 0
             RETURNING recipient",
        )?
        .query_row(params![mark, action], |row| row.get(0))
        .optional()?;
    Ok(recipient)
}

/// Removes marks that no report can come for any more; how many.
///
/// # Errors
/// Storage trouble.
pub fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    let gone = connection
        .prepare_cached("DELETE FROM forward_mark WHERE sent_at <= ?1")?
        .execute([now.minus(KEPT_FOR).as_millis()])?;
    Ok(gone)
}
