//! Links that verify an account's address, and the setup token.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::store::Result;

/// Sealing purpose of the setup token.
pub(crate) const SETUP_PURPOSE: &str = "setup-token";
/// Validity of a verification link (contract 2.6).
pub(crate) const LINK_LIFETIME: Duration = Duration::from_secs(86_400);

/// Stores a link that verifies the account's address.
pub fn insert(connection: &Connection, hash: &[u8], account: AccountRowId, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO email_verification (token_hash, account_id, created_at) VALUES (?1, ?2, ?3)")?
        .execute(params![hash, account, now.as_millis()])?;
    Ok(())
}

/// Finds the account whose address the link with this hash verifies.
pub(crate) fn find_account(connection: &Connection, hash: &[u8], now: Timestamp) -> Result<Option<AccountRowId>> {
    let found = connection
        .prepare_cached("SELECT account_id FROM email_verification WHERE token_hash = ?1 AND created_at > ?2")?
        .query_row(params![hash, now.minus(LINK_LIFETIME).as_millis()], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Removes expired links; returns the number removed.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    let links = connection
        .prepare_cached("DELETE FROM email_verification WHERE created_at <= ?1")?
        .execute([now.minus(LINK_LIFETIME).as_millis()])?;
    Ok(links)
}

/// Returns the setup token, sealed, if there is one.
pub(crate) fn find_setup_token(connection: &Connection) -> Result<Option<Vec<u8>>> {
    let found = connection
        .prepare_cached("SELECT token_sealed FROM setup_token")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Stores the setup token.
///
/// # Errors
/// [`crate::store::Error::Conflict`] when there is one already.
pub(crate) fn insert_setup_token(connection: &Connection, sealed: &[u8]) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO setup_token (singleton, token_sealed) VALUES (1, ?1)")?
        .execute([sealed])?;
    Ok(())
}

/// Removes the setup token once it was used.
pub(crate) fn delete_setup_token(connection: &Connection) -> Result<()> {
    connection.prepare_cached("DELETE FROM setup_token")?.execute([])?;
    Ok(())
}
