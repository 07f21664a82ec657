//! DKIM keys of domains: two for each.

use rusqlite::{Connection, params};

use crate::clock::Timestamp;
use crate::id::DomainRowId;
use crate::store::Result;
use crate::store::stored_enum::stored_enum;

stored_enum! {
    /// Algorithm of a DKIM key.
    pub(crate) enum Algorithm in "DKIM algorithm" {
        /// RFC 6376.
        Rsa = "rsa",
        /// RFC 8463.
        Ed25519 = "ed25519",
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

/// Stores a domain's keys.
///
/// # Errors
/// [`crate::store::Error::Conflict`] when it already has a key of this algorithm.
pub(crate) fn insert(
    connection: &Connection,
    domain: DomainRowId,
    keys: &[NewDkimKey],
    now: Timestamp,
) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO dkim_key (domain_id, algorithm, private_sealed, public_key, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for key in keys {
        statement.execute(params![domain, key.algorithm, key.private_sealed, key.public_key, now.as_millis()])?;
    }
    Ok(())
}

/// Finds a domain's public key of this algorithm.
pub(crate) fn find_public(
    connection: &Connection,
    domain: DomainRowId,
    algorithm: Algorithm,
) -> Result<Option<String>> {
    let mut statement =
        connection.prepare_cached("SELECT public_key FROM dkim_key WHERE domain_id = ?1 AND algorithm = ?2")?;
    let mut rows = statement.query(params![domain, algorithm])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
}

/// Finds a domain's private key of this algorithm, sealed.
pub(crate) fn find_private(
    connection: &Connection,
    domain: DomainRowId,
    algorithm: Algorithm,
) -> Result<Option<Vec<u8>>> {
    let mut statement =
        connection.prepare_cached("SELECT private_sealed FROM dkim_key WHERE domain_id = ?1 AND algorithm = ?2")?;
    let mut rows = statement.query(params![domain, algorithm])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
}
