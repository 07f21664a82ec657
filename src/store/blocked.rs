//! Senders that an account blocked (contract 9.4).

use rusqlite::{Connection, params};

use super::Result;
use crate::clock::Timestamp;

/// Blocks a sender for an account; blocking it again changes nothing.
///
/// # Errors
/// Storage trouble.
pub fn insert(connection: &Connection, account: i64, email: &str, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO blocked_sender (account_id, email, created_at)
             VALUES (?1, ?2, ?3)
             ON CONFLICT (account_id, email) DO NOTHING",
        )?
        .execute(params![account, email.to_lowercase(), now.as_millis()])?;
    Ok(())
}

/// Whether an account blocked this sender.
///
/// # Errors
/// Storage trouble.
pub fn is_blocked(connection: &Connection, account: i64, email: &str) -> Result<bool> {
    let found = connection
        .prepare_cached("SELECT 1 FROM blocked_sender WHERE account_id = ?1 AND email = ?2")?
        .exists(params![account, email.to_lowercase()])?;
    Ok(found)
}
