//! Sessions: logins that last until they expire, are logged out, or the password changes.

use rusqlite::{Connection, OptionalExtension, params};

use super::Account;
use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::store::Result;

/// Data of a new session.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// JWT id of its token.
    pub jti: String,
    /// Account that is logged in.
    pub account: AccountRowId,
    /// Client address of the login.
    pub client_address: String,
    /// User-Agent of the login.
    pub user_agent: String,
    /// Time at which it expires.
    pub expires_at: Timestamp,
}

/// Stores a new session; ends the account's oldest ones if it then has more than `most` (0 means no limit).
pub fn insert(connection: &Connection, new: &NewSession, most: u32, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO session (jti, account_id, client_address, user_agent, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            new.jti,
            new.account,
            new.client_address,
            new.user_agent,
            now.as_millis(),
            new.expires_at.as_millis()
        ])?;
    connection
        .prepare_cached("UPDATE account SET signed_in_at = ?2 WHERE id = ?1")?
        .execute(params![new.account, now.as_millis()])?;
    if most > 0 {
        connection
            .prepare_cached(
                "DELETE FROM session WHERE account_id = ?1 AND id <= (
                   SELECT id FROM session WHERE account_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![new.account, most])?;
    }
    Ok(())
}

/// Finds the account of a live session.
pub(crate) fn find_account(connection: &Connection, jti: &str, now: Timestamp) -> Result<Option<Account>> {
    let statement = format!(
        "SELECT {} FROM session JOIN account ON account.id = session.account_id
         WHERE session.jti = ?1 AND session.expires_at > ?2",
        super::COLUMNS
    );
    Ok(connection.prepare_cached(&statement)?.query_row(params![jti, now.as_millis()], super::read).optional()?)
}

/// A session as listed.
#[derive(Clone, Debug)]
pub(crate) struct SessionRow {
    /// JWT id of its token.
    pub(crate) jti: String,
    /// Client address of the login.
    pub(crate) client_address: String,
    /// User-Agent of the login; may be empty.
    pub(crate) user_agent: String,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// Lists the live sessions of an account, newest first, at most a hundred.
pub(crate) fn list(connection: &Connection, account: AccountRowId, now: Timestamp) -> Result<Vec<SessionRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT jti, client_address, user_agent, created_at, expires_at FROM session
         WHERE account_id = ?1 AND expires_at > ?2 ORDER BY id DESC LIMIT 100",
    )?;
    let rows = statement.query_map(params![account, now.as_millis()], |row| {
        Ok(SessionRow {
            jti: row.get(0)?,
            client_address: row.get(1)?,
            user_agent: row.get(2)?,
            created_at: Timestamp::from_millis(row.get(3)?),
            expires_at: Timestamp::from_millis(row.get(4)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns true if a live session of an account began at this address.
pub(crate) fn is_known(
    connection: &Connection,
    account: AccountRowId,
    address: &str,
    now: Timestamp,
) -> Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM session WHERE account_id = ?1 AND expires_at > ?3 AND client_address = ?2)",
    )?;
    Ok(statement.query_row(params![account, address, now.as_millis()], |row| row.get(0))?)
}

/// Deletes all sessions of all accounts.
pub(crate) fn delete_all(connection: &Connection) -> Result<()> {
    connection.execute("DELETE FROM session", [])?;
    Ok(())
}

/// Ends a session of an account; returns false if there was none.
pub(crate) fn delete_own(connection: &Connection, account: AccountRowId, jti: &str) -> Result<bool> {
    let mut statement = connection.prepare_cached("DELETE FROM session WHERE jti = ?1 AND account_id = ?2")?;
    Ok(statement.execute(params![jti, account])? > 0)
}

/// Ends one session.
pub(crate) fn delete(connection: &Connection, jti: &str) -> Result<()> {
    connection.prepare_cached("DELETE FROM session WHERE jti = ?1")?.execute([jti])?;
    Ok(())
}

/// Ends all sessions of an account.
pub(crate) fn delete_of_account(connection: &Connection, account: AccountRowId) -> Result<()> {
    connection.prepare_cached("DELETE FROM session WHERE account_id = ?1")?.execute([account])?;
    Ok(())
}

/// Removes sessions that expired before `now`; returns the number removed.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    Ok(connection.prepare_cached("DELETE FROM session WHERE expires_at <= ?1")?.execute([now.as_millis()])?)
}
