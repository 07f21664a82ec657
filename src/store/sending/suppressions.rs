//! Suppressed addresses (contract 8.4), by account, to which nothing is sent; compared in canonical form.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::mail::address::canonical;
use crate::store::Result;
use crate::store::stored_enum::stored_enum;

stored_enum! {
    /// Reason for a suppression.
    pub(crate) enum SuppressionReason in "suppression reason" {
        /// Its account added it.
        Manual = "manual",
        Unsubscribe = "unsubscribe",
        /// A host refused it permanently, or a report did.
        Bounce = "bounce",
        /// A feedback report complained.
        Complaint = "complaint",
    }
}

/// A suppression as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suppression {
    /// In canonical form.
    pub(crate) email: String,
    pub(crate) reason: SuppressionReason,
    /// Free text.
    pub(crate) note: Option<String>,
    /// Unique within the account.
    pub(crate) created_at: Timestamp,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Suppression> {
    Ok(Suppression {
        email: row.get(0)?,
        reason: row.get(1)?,
        note: row.get(2)?,
        created_at: Timestamp::from_millis(row.get(3)?),
    })
}

/// Lists an account's suppressions, newest first; with `before`, only older ones.
pub(crate) fn list(
    connection: &Connection,
    account: AccountRowId,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<Suppression>> {
    let rows = connection
        .prepare_cached(
            "SELECT email, reason, note, created_at FROM suppression
             WHERE account_id = ?1 AND created_at < ?2 ORDER BY created_at DESC LIMIT ?3",
        )?
        .query_map(params![account, before.unwrap_or(i64::MAX), limit], read)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Adds or replaces a suppression; returns true if it is new.
pub(crate) fn put(
    connection: &Connection,
    account: AccountRowId,
    email: &str,
    reason: SuppressionReason,
    note: Option<&str>,
    now: Timestamp,
) -> Result<(Suppression, bool)> {
    let email = canonical(email);
    let gone = connection
        .prepare_cached("DELETE FROM suppression WHERE account_id = ?1 AND email = ?2")?
        .execute(params![account, email])?;
    let created_at = free_millisecond(connection, account, now)?;
    connection
        .prepare_cached(
            "INSERT INTO suppression (account_id, email, reason, note, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![account, email, reason, note, created_at.as_millis()])?;
    let row = Suppression { email, reason, note: note.map(str::to_owned), created_at };
    Ok((row, gone == 0))
}

/// Adds a suppression unless there is one; returns true if it is new.
pub(crate) fn suppress(
    connection: &Connection,
    account: AccountRowId,
    email: &str,
    reason: SuppressionReason,
    now: Timestamp,
) -> Result<bool> {
    if is_suppressed(connection, account, email)? {
        return Ok(false);
    }
    put(connection, account, email, reason, None, now).map(|_| true)
}

fn is_suppressed(connection: &Connection, account: AccountRowId, email: &str) -> Result<bool> {
    let found = connection
        .prepare_cached("SELECT 1 FROM suppression WHERE account_id = ?1 AND email = ?2")?
        .exists(params![account, canonical(email)])?;
    Ok(found)
}

/// Returns the suppressed ones of these addresses, which may have any spelling, in canonical form.
pub(crate) fn find_suppressed(
    connection: &Connection,
    account: AccountRowId,
    emails: &[String],
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for email in emails {
        if is_suppressed(connection, account, email)? {
            found.push(canonical(email));
        }
    }
    Ok(found)
}

/// Removes a suppression, if there is one.
pub(crate) fn delete(connection: &Connection, account: AccountRowId, email: &str) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM suppression WHERE account_id = ?1 AND email = ?2")?
        .execute(params![account, canonical(email)])?;
    Ok(())
}

/// Returns `now`, or the next millisecond that no suppression of the account has.
fn free_millisecond(connection: &Connection, account: AccountRowId, now: Timestamp) -> Result<Timestamp> {
    let mut free = now.as_millis();
    let mut taken =
        connection.prepare_cached("SELECT 1 FROM suppression WHERE account_id = ?1 AND created_at = ?2")?;
    while taken.query_row(params![account, free], |_| Ok(())).optional()?.is_some() {
        free += 1;
    }
    Ok(Timestamp::from_millis(free))
}
