//! Sealing everything anew for a change of the master key, and the keys derived from former ones.

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::Result;
use super::sealed::COLUMNS;
use super::stored_enum::stored_enum;
use crate::clock::Timestamp;

stored_enum! {
    /// Use of a derived key.
    pub(crate) enum FormerPurpose in "former key" {
        /// Signs links to attachments.
        Link = "link",
        /// Authenticates our own envelope senders.
        ReturnPath = "return_path",
        /// Makes the fingerprints of duplicates.
        Fingerprint = "fingerprint",
    }
}

/// A derived key of a former master key.
pub(crate) struct FormerKeyRow {
    pub(crate) purpose: FormerPurpose,
    pub(crate) key_sealed: Vec<u8>,
    /// Time at which its master key was replaced.
    pub(crate) replaced_at: Timestamp,
}

/// Replaces every sealed value by what `reseal` makes of purpose and value; returns how many there were.
///
/// # Errors
/// `reseal` returned nothing for one of them.
pub(crate) fn reseal_all(
    connection: &Connection,
    reseal: impl Fn(&str, &[u8]) -> Option<Vec<u8>> + Send + 'static,
) -> Result<usize> {
    connection.create_scalar_function("reseal", 2, FunctionFlags::SQLITE_UTF8, move |context| {
        let purpose: String = context.get(0)?;
        let ValueRef::Blob(sealed) = context.get_raw(1) else { return Err(rusqlite::Error::InvalidQuery) };
        let closed = || format!("a sealed secret ({purpose}) does not open with the master key");
        reseal(&purpose, sealed).ok_or_else(|| rusqlite::Error::UserFunctionError(closed().into()))
    })?;
    let mut count = 0;
    for (table, column, purpose) in COLUMNS {
        let sql = format!("UPDATE {table} SET {column} = reseal(?1, {column}) WHERE {column} IS NOT NULL");
        count += connection.execute(&sql, [purpose])?;
    }
    connection.remove_function("reseal", 2)?;
    Ok(count)
}

/// Stores a derived key of a master key that is replaced now.
pub(crate) fn insert_former(connection: &Connection, former: &FormerKeyRow) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO former_key (purpose, key_sealed, replaced_at) VALUES (?1, ?2, ?3)")?
        .execute(params![former.purpose, former.key_sealed, former.replaced_at.as_millis()])?;
    Ok(())
}

/// Lists derived keys of former master keys, those of the latest first.
pub(crate) fn list_former(connection: &Connection) -> Result<Vec<FormerKeyRow>> {
    let rows = connection
        .prepare_cached("SELECT purpose, key_sealed, replaced_at FROM former_key ORDER BY id DESC")?
        .query_map([], |row| {
            Ok(FormerKeyRow {
                purpose: row.get(0)?,
                key_sealed: row.get(1)?,
                replaced_at: Timestamp::from_millis(row.get(2)?),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Removes derived keys whose master key was replaced before `before`; that of the fingerprints stays in use.
pub(crate) fn delete_former(connection: &Connection, before: Timestamp) -> Result<usize> {
    Ok(connection
        .prepare_cached("DELETE FROM former_key WHERE replaced_at < ?1 AND purpose <> 'fingerprint'")?
        .execute([before.as_millis()])?)
}

/// Removes all derived keys of former master keys.
pub(crate) fn forget_former(connection: &Connection) -> Result<()> {
    connection.execute("DELETE FROM former_key", [])?;
    Ok(())
}
