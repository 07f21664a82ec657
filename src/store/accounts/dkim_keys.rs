//! DKIM keys of domains: two that sign for each, and while they are rotated two that replace them, or that they
//! replaced.

use rusqlite::{Connection, params};

use super::dns_checks::Status;
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId};
use crate::store::Result;
use crate::store::stored_enum::stored_enum;

/// Purpose under which private keys are sealed.
pub const PURPOSE: &str = "dkim-key";

stored_enum! {
    /// Algorithm of a DKIM key.
    pub(crate) enum Algorithm in "DKIM algorithm" {
        /// RFC 6376.
        Rsa = "rsa",
        /// RFC 8463.
        Ed25519 = "ed25519",
    }
}

stored_enum! {
    /// State of a domain's pair of keys (contract 3.9).
    #[derive(serde::Serialize, utoipa::ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub(crate) enum KeyState in "DKIM key state" {
        /// Signs.
        Signing = "signing",
        /// Signs once its record is found.
        Next = "next",
        /// Signs no more, but mail that it signed may still be verified.
        Retiring = "retiring",
        /// Its record may be removed; the private key is gone.
        Retired = "retired",
    }
}

/// A key to store.
#[derive(Clone, Debug)]
pub struct NewDkimKey {
    pub(crate) algorithm: Algorithm,
    /// PKCS #8, sealed.
    pub private_sealed: Vec<u8>,
    /// Base64, as in the record's `p=`.
    pub public_key: String,
}

/// The public part of a key.
#[derive(Clone, Debug)]
pub(crate) struct DkimKey {
    pub(crate) algorithm: Algorithm,
    pub(crate) state: KeyState,
    pub(crate) selector: String,
    /// Base64, as in the record's `p=`.
    pub(crate) public_key: String,
    /// Latest time at which mail with its signature was still to be delivered; set while it is retiring.
    pub(crate) needed_at: Option<Timestamp>,
    /// Result of the last look at its record, of keys that do not sign.
    pub(crate) status: Status,
    /// Values in the DNS.
    pub(crate) found: Vec<String>,
}

/// Stores a domain's keys in a state, each under the selector of its algorithm.
///
/// # Errors
/// [`crate::store::Error::Conflict`] when the domain already has a key of that state or selector.
pub(crate) fn insert(
    connection: &Connection,
    domain: DomainRowId,
    state: KeyState,
    keys: &[NewDkimKey],
    selector: impl Fn(Algorithm) -> String,
    now: Timestamp,
) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO dkim_key (domain_id, algorithm, state, selector, private_sealed, public_key, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for key in keys {
        let (algorithm, selector) = (key.algorithm, selector(key.algorithm));
        let created_at = now.as_millis();
        statement.execute(params![
            domain,
            algorithm,
            state,
            selector,
            key.private_sealed,
            key.public_key,
            created_at
        ])?;
    }
    Ok(())
}

/// Lists a domain's keys: those that sign, then the next, the retiring and the retired ones, RSA before Ed25519.
pub(crate) fn list(connection: &Connection, domain: DomainRowId) -> Result<Vec<DkimKey>> {
    let keys = connection
        .prepare_cached(
            "SELECT algorithm, state, selector, public_key, needed_at, dns_status, dns_found FROM dkim_key
             WHERE domain_id = ?1
             ORDER BY CASE state WHEN 'signing' THEN 0 WHEN 'next' THEN 1 WHEN 'retiring' THEN 2 ELSE 3 END,
                      algorithm DESC",
        )?
        .query_map([domain], |row| {
            Ok(DkimKey {
                algorithm: row.get(0)?,
                state: row.get(1)?,
                selector: row.get(2)?,
                public_key: row.get(3)?,
                needed_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
                status: row.get(5)?,
                found: serde_json::from_str(row.get_ref(6)?.as_str()?).unwrap_or_default(),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(keys)
}

/// Returns true if a domain has keys in this state.
pub(crate) fn has(connection: &Connection, domain: DomainRowId, state: KeyState) -> Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM dkim_key WHERE domain_id = ?1 AND state = ?2")?
        .exists(params![domain, state])?)
}

/// Finds the selector of a domain's RSA key that signs.
pub(crate) fn find_signing_selector(connection: &Connection, domain: DomainRowId) -> Result<Option<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT selector FROM dkim_key WHERE domain_id = ?1 AND algorithm = 'rsa' AND state = 'signing'",
    )?;
    let mut rows = statement.query([domain])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
}

/// Finds the selector and, sealed, the private key of this algorithm that sign for a domain.
pub(crate) fn find_signing(
    connection: &Connection,
    domain: DomainRowId,
    algorithm: Algorithm,
) -> Result<Option<(String, Vec<u8>)>> {
    let mut statement = connection.prepare_cached(
        "SELECT selector, private_sealed FROM dkim_key
         WHERE domain_id = ?1 AND algorithm = ?2 AND state = 'signing'",
    )?;
    let mut rows = statement.query(params![domain, algorithm])?;
    Ok(rows.next()?.map(|row| Ok::<_, rusqlite::Error>((row.get(0)?, row.get(1)?))).transpose()?)
}

/// Stores what DNS has of a key's record.
pub(crate) fn set_found(
    connection: &Connection,
    domain: DomainRowId,
    selector: &str,
    status: Status,
    found: &[String],
) -> Result<()> {
    let found = serde_json::to_string(found).unwrap_or_default();
    connection
        .prepare_cached("UPDATE dkim_key SET dns_status = ?3, dns_found = ?4 WHERE domain_id = ?1 AND selector = ?2")?
        .execute(params![domain, selector, status, found])?;
    Ok(())
}

/// Has the next keys sign from `now` on; those that signed so far are retiring.
pub(crate) fn switch(connection: &Connection, domain: DomainRowId, now: Timestamp) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE dkim_key SET state = 'retiring', needed_at = ?2 WHERE domain_id = ?1 AND state = 'signing'",
    )?;
    statement.execute(params![domain, now.as_millis()])?;
    let mut statement =
        connection.prepare_cached("UPDATE dkim_key SET state = 'signing' WHERE domain_id = ?1 AND state = 'next'")?;
    statement.execute([domain])?;
    Ok(())
}

/// Records that mail signed with the retiring keys is still to be delivered.
pub(crate) fn set_needed(connection: &Connection, domain: DomainRowId, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE dkim_key SET needed_at = ?2 WHERE domain_id = ?1 AND state = 'retiring'")?
        .execute(params![domain, now.as_millis()])?;
    Ok(())
}

/// Returns true if mail that an account submitted from a domain up to `until` is still to be delivered.
pub(crate) fn is_needed(
    connection: &Connection,
    account: AccountRowId,
    domain: DomainRowId,
    until: Timestamp,
) -> Result<bool> {
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM message
             WHERE account_id = ?1 AND direction = 'outbound' AND status IN ('scheduled', 'queued', 'deferred')
               AND received_at <= ?3 AND domain_id = ?2",
        )?
        .exists(params![account, domain, until.as_millis()])?)
}

/// Deletes the retiring private keys, in place of keys that retired earlier.
pub(crate) fn retire(connection: &Connection, domain: DomainRowId) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM dkim_key WHERE domain_id = ?1 AND state = 'retired'")?
        .execute([domain])?;
    connection
        .prepare_cached(
            "UPDATE dkim_key SET state = 'retired', private_sealed = NULL, needed_at = NULL
             WHERE domain_id = ?1 AND state = 'retiring'",
        )?
        .execute([domain])?;
    Ok(())
}

/// Forgets a retired key.
pub(crate) fn delete_retired(connection: &Connection, domain: DomainRowId, selector: &str) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM dkim_key WHERE domain_id = ?1 AND selector = ?2 AND state = 'retired'")?
        .execute(params![domain, selector])?;
    Ok(())
}
