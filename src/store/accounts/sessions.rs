//! Sessions: logins that live until they end, are logged out, or the password changes.

use rusqlite::{Connection, OptionalExtension, params};

use super::Account;
use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::store::Result;

/// What a new session is made of.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// What its token names it by.
    pub jti: String,
    /// Whose it is.
    pub account: AccountRowId,
    /// Where the login came from.
    pub client_address: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Stores a new session; the account's oldest end when it has more than `most` then (0: any number).
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

/// Whose live session this is.
pub(crate) fn find_account(connection: &Connection, jti: &str, now: Timestamp) -> Result<Option<Account>> {
    let statement = format!(
        "SELECT {} FROM session JOIN account ON account.id = session.account_id
         WHERE session.jti = ?1 AND session.expires_at > ?2",
        super::COLUMNS
    );
    Ok(connection.prepare_cached(&statement)?.query_row(params![jti, now.as_millis()], super::read).optional()?)
}

/// A login as listed.
#[derive(Clone, Debug)]
pub(crate) struct SessionRow {
    /// What its token names it by.
    pub(crate) jti: String,
    /// Where the login came from.
    pub(crate) client_address: String,
    /// What the client calls itself; may be empty.
    pub(crate) user_agent: String,
    /// When it began.
    pub(crate) created_at: Timestamp,
    /// When it ends.
    pub(crate) expires_at: Timestamp,
}

/// The live sessions of an account, newest first, at most a hundred.
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

/// Whether a live session of an account began at this address.
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

/// Ends a session of an account; whether there was one.
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

/// Removes sessions that ended before `now`; how many.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    Ok(connection.prepare_cached("DELETE FROM session WHERE expires_at <= ?1")?.execute([now.as_millis()])?)
}
