//! Domains of accounts.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Result;
use crate::clock::Timestamp;
use crate::id::DomainId;

/// A domain as stored.
#[derive(Clone, Debug)]
pub struct DomainRow {
    /// Row id.
    pub id: i64,
    /// Public id.
    pub public_id: DomainId,
    /// The account that holds it.
    pub account_id: i64,
    /// A-label, lower case.
    pub name: String,
    /// Whether mail is received for it.
    pub verified: bool,
}

fn read(row: &Row<'_>) -> rusqlite::Result<DomainRow> {
    Ok(DomainRow {
        id: row.get("id")?,
        public_id: row.get("public_id")?,
        account_id: row.get("account_id")?,
        name: row.get("name")?,
        verified: row.get::<_, String>("status")? == "verified",
    })
}

/// Stores a new domain.
///
/// # Errors
/// [`super::Error::Conflict`] when the account has it, or `verified` and another account holds it.
pub fn insert(
    connection: &Connection,
    account: i64,
    name: &str,
    verified: bool,
    now: Timestamp,
) -> Result<DomainRow> {
    let public_id = DomainId::new(now);
    connection
        .prepare_cached(
            "INSERT INTO domain (public_id, account_id, name, status,
                                 mx_verified, spf_verified, dkim_verified, dmarc_verified, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?5, ?5, ?6)",
        )?
        .execute(params![
            public_id,
            account,
            name,
            if verified { "verified" } else { "pending" },
            verified,
            now.as_millis()
        ])?;
    let id = connection.last_insert_rowid();
    Ok(DomainRow { id, public_id, account_id: account, name: name.to_owned(), verified })
}

/// The domain of this name that mail is received for, else one that waits for its proof, else none.
///
/// # Errors
/// Storage trouble.
pub fn find_by_name(connection: &Connection, name: &str) -> Result<Option<DomainRow>> {
    let found = connection
        .prepare_cached(
            "SELECT id, public_id, account_id, name, status FROM domain
             WHERE name = ?1 ORDER BY status = 'verified' DESC, id LIMIT 1",
        )?
        .query_row([name], read)
        .optional()?;
    Ok(found)
}

/// An account's own domain of this name.
///
/// # Errors
/// Storage trouble.
pub fn find_of_account(connection: &Connection, account: i64, name: &str) -> Result<Option<DomainRow>> {
    let found = connection
        .prepare_cached(
            "SELECT id, public_id, account_id, name, status FROM domain WHERE account_id = ?1 AND name = ?2",
        )?
        .query_row(params![account, name], read)
        .optional()?;
    Ok(found)
}

/// An account's own domain by its name (lower case) or public id.
///
/// # Errors
/// Storage trouble.
pub fn find_by_name_or_id(connection: &Connection, account: i64, name: &str, id: &str) -> Result<Option<DomainRow>> {
    let found = connection
        .prepare_cached(
            "SELECT id, public_id, account_id, name, status FROM domain
             WHERE account_id = ?1 AND (name = ?2 OR public_id = ?3)",
        )?
        .query_row(params![account, name, id], read)
        .optional()?;
    Ok(found)
}

/// Whether nothing of a domain's mail is to be stored (contract 3.8).
///
/// # Errors
/// Storage trouble.
pub fn is_zero_retention(connection: &Connection, domain: i64) -> Result<bool> {
    let found =
        connection.prepare_cached("SELECT 1 FROM domain WHERE id = ?1 AND zero_retention = 1")?.exists([domain])?;
    Ok(found)
}

/// Names of an account's domains that mail can be sent from (contract 3.2), oldest first; with `only`, of that domain.
///
/// # Errors
/// Storage trouble.
pub fn list_sending(connection: &Connection, account: i64, only: Option<i64>) -> Result<Vec<String>> {
    let rows = connection
        .prepare_cached(
            "SELECT name FROM domain
             WHERE account_id = ?1 AND spf_verified = 1 AND dkim_verified = 1 AND (?2 IS NULL OR id = ?2) ORDER BY id",
        )?
        .query_map(params![account, only], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}
