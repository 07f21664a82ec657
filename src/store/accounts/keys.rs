//! API keys: an account's own, and those limited to one domain (contract 2.8).

use rusqlite::{Connection, OptionalExtension, params};

use super as accounts;
use super::Account;
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainId, DomainRowId, KeyId, KeyRowId};
use crate::store::Result;

/// Sealing purpose of `key_sealed`.
pub const PURPOSE: &str = "api-key";

/// Owner and scope of the key presented by a request.
#[derive(Clone, Debug)]
pub(crate) struct KeyHolder {
    pub(crate) key: KeyRowId,
    pub(crate) account: Account,
    /// Domain that the key is limited to; none for the account's own key.
    pub(crate) domain: Option<DomainRowId>,
    /// Time of its last use, to the minute.
    pub(crate) last_used_at: Option<Timestamp>,
}

/// A scoped key as listed.
#[derive(Clone, Debug)]
pub(crate) struct ScopedKey {
    pub(crate) public_id: KeyId,
    pub(crate) name: String,
    /// Public id of its domain.
    pub(crate) domain_id: DomainId,
    pub(crate) domain_name: String,
    /// The key, sealed.
    pub(crate) key_sealed: Vec<u8>,
    pub(crate) created_at: Timestamp,
    /// Time of its last use, to the minute.
    pub(crate) last_used_at: Option<Timestamp>,
}

/// Stores an account's own API key: its hash, by which it is looked up, and the key itself, sealed.
pub fn insert(
    connection: &Connection,
    account: AccountRowId,
    hash: &[u8],
    sealed: &[u8],
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO api_key (account_id, key_hash, key_sealed, created_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![account, hash, sealed, now.as_millis()])?;
    Ok(())
}

/// Stores a key for one domain.
pub fn insert_scoped(
    connection: &Connection,
    account: AccountRowId,
    domain: DomainRowId,
    name: &str,
    hash: &[u8],
    sealed: &[u8],
    now: Timestamp,
) -> Result<KeyId> {
    let public_id = KeyId::new(now);
    connection
        .prepare_cached(
            "INSERT INTO api_key (account_id, key_hash, key_sealed, created_at, public_id, domain_id, name)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![account, hash, sealed, now.as_millis(), public_id, domain, name])?;
    Ok(public_id)
}

/// Returns an account's own API key, sealed.
pub(crate) fn find_sealed(connection: &Connection, account: AccountRowId) -> Result<Option<Vec<u8>>> {
    let found = connection
        .prepare_cached(
            "SELECT key_sealed FROM api_key WHERE account_id = ?1 AND public_id IS NULL ORDER BY id DESC LIMIT 1",
        )?
        .query_row([account], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Finds the owner of the key with this hash.
pub(crate) fn find_by_hash(connection: &Connection, hash: &[u8]) -> Result<Option<KeyHolder>> {
    let statement = format!(
        "SELECT {}, api_key.id, api_key.domain_id, api_key.last_used_at
         FROM api_key JOIN account ON account.id = api_key.account_id WHERE api_key.key_hash = ?1",
        accounts::COLUMNS
    );
    let found = connection
        .prepare_cached(&statement)?
        .query_row([hash], |row| {
            Ok(KeyHolder {
                account: super::read(row)?,
                key: row.get(6)?,
                domain: row.get(7)?,
                last_used_at: row.get::<_, Option<i64>>(8)?.map(Timestamp::from_millis),
            })
        })
        .optional()?;
    Ok(found)
}

/// Records the use of a key.
pub(crate) fn note_use(connection: &Connection, key: KeyRowId, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE api_key SET last_used_at = ?2 WHERE id = ?1")?
        .execute(params![key, now.as_millis()])?;
    Ok(())
}

/// Removes an account's own key; its scoped keys stay.
pub(crate) fn delete_own(connection: &Connection, account: AccountRowId) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM api_key WHERE account_id = ?1 AND public_id IS NULL")?
        .execute([account])?;
    Ok(())
}

/// Removes every key of an account.
pub(crate) fn delete_of_account(connection: &Connection, account: AccountRowId) -> Result<()> {
    connection.prepare_cached("DELETE FROM api_key WHERE account_id = ?1")?.execute([account])?;
    Ok(())
}

/// Lists an account's scoped keys, newest first.
pub(crate) fn list_scoped(connection: &Connection, account: AccountRowId) -> Result<Vec<ScopedKey>> {
    let rows = connection
        .prepare_cached(
            "SELECT api_key.public_id, api_key.name, domain.public_id, domain.name, api_key.key_sealed,
                    api_key.created_at, api_key.last_used_at
             FROM api_key JOIN domain ON domain.id = api_key.domain_id
             WHERE api_key.account_id = ?1 AND api_key.public_id IS NOT NULL ORDER BY api_key.id DESC",
        )?
        .query_map([account], |row| {
            Ok(ScopedKey {
                public_id: row.get(0)?,
                name: row.get(1)?,
                domain_id: row.get(2)?,
                domain_name: row.get(3)?,
                key_sealed: row.get(4)?,
                created_at: Timestamp::from_millis(row.get(5)?),
                last_used_at: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_millis),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Returns true if an account has this scoped key.
pub(crate) fn has_scoped(connection: &Connection, account: AccountRowId, id: &KeyId) -> Result<bool> {
    let found = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM api_key WHERE account_id = ?1 AND public_id = ?2)")?
        .query_row(params![account, id], |row| row.get(0))?;
    Ok(found)
}

/// Removes a scoped key; returns false if there was none.
pub(crate) fn delete_scoped(connection: &Connection, account: AccountRowId, id: &KeyId) -> Result<bool> {
    let removed = connection
        .prepare_cached("DELETE FROM api_key WHERE account_id = ?1 AND public_id = ?2")?
        .execute(params![account, id])?;
    Ok(removed > 0)
}
