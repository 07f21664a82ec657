//! Accounts and their API keys.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Result;
use crate::clock::Timestamp;
use crate::id::AccountId;

/// What `key_sealed` is sealed for.
pub const KEY_PURPOSE: &str = "api-key";

/// An account as stored.
#[derive(Clone, Debug)]
pub struct Account {
    /// Row id.
    pub id: i64,
    /// Public id.
    pub public_id: AccountId,
    /// Lower-cased address.
    pub email: String,
    /// Whether it owns the installation.
    pub is_admin: bool,
    /// Whether its address is verified.
    pub email_verified: bool,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: row.get(0)?,
        public_id: row.get(1)?,
        email: row.get(2)?,
        is_admin: row.get(3)?,
        email_verified: row.get(4)?,
    })
}

/// Stores a new account that owns the installation and is verified.
///
/// # Errors
/// [`super::Error::Conflict`] when the address is taken.
pub fn insert_owner(connection: &Connection, email: &str, now: Timestamp) -> Result<Account> {
    let public_id = AccountId::new(now);
    connection
        .prepare_cached(
            "INSERT INTO account (public_id, email, is_admin, email_verified, created_at)
             VALUES (?1, ?2, 1, 1, ?3)",
        )?
        .execute(params![public_id, email, now.as_millis()])?;
    Ok(Account {
        id: connection.last_insert_rowid(),
        public_id,
        email: email.to_owned(),
        is_admin: true,
        email_verified: true,
    })
}

/// The account that owns the installation, if there is one yet.
///
/// # Errors
/// Storage trouble.
pub fn find_owner(connection: &Connection) -> Result<Option<Account>> {
    let found = connection
        .prepare_cached("SELECT id, public_id, email, is_admin, email_verified FROM account WHERE is_admin = 1 ORDER BY id LIMIT 1")?
        .query_row([], read)
        .optional()?;
    Ok(found)
}

/// Stores an account's API key: its hash, by which it is found, and itself, sealed.
///
/// # Errors
/// Storage trouble.
pub fn insert_key(connection: &Connection, account: i64, hash: &[u8], sealed: &[u8], now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO api_key (account_id, key_hash, key_sealed, created_at)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![account, hash, sealed, now.as_millis()])?;
    Ok(())
}

/// An account's API key, sealed.
///
/// # Errors
/// Storage trouble.
pub fn find_sealed_key(connection: &Connection, account: i64) -> Result<Option<Vec<u8>>> {
    let found = connection
        .prepare_cached("SELECT key_sealed FROM api_key WHERE account_id = ?1 ORDER BY id DESC LIMIT 1")?
        .query_row([account], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// The account that an API key belongs to, by the key's hash.
///
/// # Errors
/// Storage trouble.
pub fn find_by_key_hash(connection: &Connection, hash: &[u8]) -> Result<Option<Account>> {
    let found = connection
        .prepare_cached(
            "SELECT account.id, account.public_id, account.email, account.is_admin, account.email_verified
             FROM api_key JOIN account ON account.id = api_key.account_id
             WHERE api_key.key_hash = ?1",
        )?
        .query_row([hash], read)
        .optional()?;
    Ok(found)
}
