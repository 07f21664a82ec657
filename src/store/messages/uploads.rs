//! Files that clients upload for a limited time (contract 7.2); the bytes are in the object store.

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, UploadId, UploadRowId};
use crate::store::Result;

/// An uploaded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UploadRow {
    /// Id in links.
    pub(crate) public_id: UploadId,
    /// Account that owns it.
    pub(crate) account_id: AccountRowId,
    /// File name that is safe to offer for download.
    pub(crate) filename: String,
    /// Syntactically valid media type.
    pub(crate) content_type: String,
    /// Octets.
    pub(crate) size: u64,
    /// Name of the object.
    pub(crate) file: String,
    /// CRC-32 of the object; `None` for an upload of an earlier version.
    pub(crate) checksum: Option<u32>,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// Stores an upload whose object is already durable.
pub(crate) fn insert(connection: &Connection, upload: &UploadRow) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO upload (public_id, account_id, filename, content_type, size, file, checksum,
                                 created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            upload.public_id,
            upload.account_id,
            upload.filename,
            upload.content_type,
            upload.size,
            upload.file,
            upload.checksum,
            upload.created_at.as_millis(),
            upload.expires_at.as_millis()
        ])?;
    Ok(())
}

/// Finds an upload by its public id, in any account.
pub(crate) fn find(connection: &Connection, id: &UploadId) -> Result<Option<UploadRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT public_id, account_id, filename, content_type, size, file, checksum, created_at, expires_at
         FROM upload
         WHERE public_id = ?1",
    )?;
    let found = statement.query_row([id], |row| {
        Ok(UploadRow {
            public_id: row.get("public_id")?,
            account_id: row.get("account_id")?,
            filename: row.get("filename")?,
            content_type: row.get("content_type")?,
            size: row.get("size")?,
            file: row.get("file")?,
            checksum: row.get("checksum")?,
            created_at: Timestamp::from_millis(row.get("created_at")?),
            expires_at: Timestamp::from_millis(row.get("expires_at")?),
        })
    });
    Ok(found.optional()?)
}

/// Lists row id and object name of up to `limit` uploads expired at `now`, earliest expiry first.
pub(crate) fn list_expired(
    connection: &Connection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<(UploadRowId, String)>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, file
         FROM upload
         WHERE expires_at < ?1
         ORDER BY expires_at
         LIMIT ?2",
    )?;
    let rows = statement.query_map(params![now.as_millis(), limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Removes an upload's row; its object is removed after the commit.
pub(crate) fn delete(connection: &Connection, id: UploadRowId) -> Result<()> {
    connection.prepare_cached("DELETE FROM upload WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Returns true if an upload names this object file.
pub(crate) fn names_file(connection: &Connection, name: &str) -> Result<bool> {
    Ok(connection.prepare_cached("SELECT 1 FROM upload WHERE file = ?1")?.exists([name])?)
}
