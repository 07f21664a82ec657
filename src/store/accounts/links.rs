//! Links that open an account once: to sign in, or to set a password. The row holds a hash of the link's token.

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::store::Result;
use crate::store::stored_enum::stored_enum;

stored_enum! {
    /// Purpose of a link.
    pub(crate) enum LinkPurpose in "account_link.purpose" {
        /// Opens a session (contract 2.3).
        SignIn = "sign_in",
        /// Sets a password (contract 2.6).
        PasswordReset = "password_reset",
    }
}

/// Stores a link.
pub(crate) fn insert(
    connection: &Connection,
    hash: &[u8],
    account: AccountRowId,
    purpose: LinkPurpose,
    expires_at: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO account_link (token_hash, account_id, purpose, expires_at) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![hash, account, purpose, expires_at.as_millis()])?;
    Ok(())
}

/// Finds the account that a valid link opens.
pub(crate) fn find_account(
    connection: &Connection,
    hash: &[u8],
    purpose: LinkPurpose,
    now: Timestamp,
) -> Result<Option<AccountRowId>> {
    let found = connection
        .prepare_cached(
            "SELECT account_id FROM account_link WHERE token_hash = ?1 AND purpose = ?2 AND expires_at > ?3",
        )?
        .query_row(params![hash, purpose, now.as_millis()], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Removes a valid link and returns its account.
pub(crate) fn redeem(
    connection: &Connection,
    hash: &[u8],
    purpose: LinkPurpose,
    now: Timestamp,
) -> Result<Option<AccountRowId>> {
    let found = find_account(connection, hash, purpose, now)?;
    if found.is_some() {
        connection.prepare_cached("DELETE FROM account_link WHERE token_hash = ?1")?.execute([hash])?;
    }
    Ok(found)
}

/// Removes all links of an account.
pub(crate) fn delete_of_account(connection: &Connection, account: AccountRowId) -> Result<()> {
    connection.prepare_cached("DELETE FROM account_link WHERE account_id = ?1")?.execute([account])?;
    Ok(())
}

/// Removes expired links; returns the number removed.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    Ok(connection.prepare_cached("DELETE FROM account_link WHERE expires_at <= ?1")?.execute([now.as_millis()])?)
}
