//! Mail data, once per SMTP transaction: in the row when small and plain, else in a file of the object store.

use std::cell::RefCell;

use rusqlite::{Connection, OptionalExtension, params};

use zstd::bulk::{Compressor, Decompressor};

use crate::clock::Timestamp;
use crate::id::MailDataRowId;
use crate::store::blobs::objects::{Damage, Object, Objects};
use crate::store::{Error, Result};

/// Mail data up to this many octets, without attachments, is stored in its row.
pub(crate) const INLINE_MAX: usize = 64 * 1024;
/// Compression pays from this many octets on.
const COMPRESS_MIN: usize = 256;
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    // Creating a context costs more than compressing a small mail with it.
    static PACK: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(ZSTD_LEVEL).ok());
    static UNPACK: RefCell<Option<Decompressor<'static>>> = RefCell::new(Decompressor::new().ok());
}

fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    PACK.with_borrow_mut(|context| context.as_mut()?.compress(bytes).ok())
}

fn decompress(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    UNPACK.with_borrow_mut(|context| context.as_mut()?.decompress(packed, size).ok())
}

/// Mail data prepared for the transaction that stores it.
#[derive(Debug)]
pub(crate) enum NewMailData {
    /// In the row, as prepared by [`NewMailData::inline`].
    Inline {
        /// The octets, possibly compressed.
        data: Vec<u8>,
        /// True if `data` is compressed.
        compressed: bool,
        /// Octets as received.
        size: usize,
    },
    /// In a file that is already durable.
    File(Object),
}

impl NewMailData {
    /// Prepares small mail data for the row, compressed where that pays.
    pub(crate) fn inline(bytes: &[u8]) -> Self {
        let size = bytes.len();
        if size >= COMPRESS_MIN
            && let Some(packed) = compress(bytes)
            && packed.len() < size
        {
            return Self::Inline { data: packed, compressed: true, size };
        }
        Self::Inline { data: bytes.to_vec(), compressed: false, size }
    }

    /// Returns the octets as received.
    pub(crate) const fn size(&self) -> u64 {
        match self {
            Self::Inline { size, .. } => *size as u64,
            Self::File(object) => object.size,
        }
    }
}

/// Location of stored mail data.
#[derive(Debug)]
pub(crate) enum StoredMailData {
    /// The octets themselves.
    Inline(Vec<u8>),
    /// The object that holds them.
    File(Object),
}

/// Stores mail data, or the name of its file.
pub(crate) fn insert(connection: &Connection, new: &NewMailData, now: Timestamp) -> Result<MailDataRowId> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO mail_data (size, data, compressed, file, checksum, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    match new {
        NewMailData::Inline { data, compressed, size } => {
            statement.execute(params![size, data, compressed, None::<String>, None::<u32>, now.as_millis()])?
        }
        NewMailData::File(object) => statement.execute(params![
            object.size,
            None::<Vec<u8>>,
            false,
            object.name,
            object.checksum,
            now.as_millis()
        ])?,
    };
    Ok(crate::id::RowId::new(connection.last_insert_rowid()))
}

/// Finds mail data by row id.
///
/// # Errors
/// [`Error::Damaged`] when it does not decompress.
pub(crate) fn find(connection: &Connection, id: MailDataRowId) -> Result<Option<StoredMailData>> {
    let found = connection
        .prepare_cached("SELECT size, data, compressed, file, checksum FROM mail_data WHERE id = ?1")?
        .query_row([id], |row| {
            let size: usize = row.get(0)?;
            if let Some(name) = row.get(3)? {
                return Ok(Some(StoredMailData::File(Object { name, size: row.get(0)?, checksum: row.get(4)? })));
            }
            let data = row.get_ref(1)?.as_blob()?;
            let octets = if row.get(2)? { decompress(data, size) } else { Some(data.to_vec()) };
            Ok(octets.map(StoredMailData::Inline))
        })
        .optional()?;
    match found {
        Some(None) => Err(Error::Damaged { name: format!("in the row {id}"), what: Damage::Content }),
        Some(found) => Ok(found),
        None => Ok(None),
    }
}

/// Returns true if mail data exists where its row says, with its full length. Blocks.
///
/// # Errors
/// The object cannot be examined.
pub(crate) fn is_whole(connection: &Connection, objects: &Objects, id: MailDataRowId) -> Result<bool> {
    let opened = match find(connection, id) {
        Ok(Some(StoredMailData::File(object))) => objects.open_object(&object).map(|_| true),
        Ok(found) => Ok(found.is_some()),
        Err(error) => Err(error),
    };
    match opened {
        Err(Error::Damaged { .. }) => Ok(false),
        opened => opened,
    }
}

/// Returns the octets as received, by row id.
pub(crate) fn size(connection: &Connection, id: MailDataRowId) -> Result<Option<u64>> {
    let found =
        connection.prepare_cached("SELECT size FROM mail_data WHERE id = ?1")?.query_row([id], |row| row.get(0));
    Ok(found.optional()?)
}

/// Removes mail data that no message, zero-retention mail or dispatch uses any more; returns the file to remove after
/// the commit.
pub(crate) fn release(connection: &Connection, id: MailDataRowId) -> Result<Option<String>> {
    let used = connection
        .prepare_cached(
            "SELECT 1 FROM message WHERE mail_data_id = ?1
             UNION ALL
             SELECT 1 FROM zero_retention_delivery WHERE mail_data_id = ?1
             UNION ALL
             SELECT 1 FROM dispatch WHERE mail_data_id = ?1
             LIMIT 1",
        )?
        .exists([id])?;
    if used {
        return Ok(None);
    }
    let file = connection
        .prepare_cached("SELECT file FROM mail_data WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?
        .flatten();
    connection.prepare_cached("DELETE FROM mail_data WHERE id = ?1")?.execute([id])?;
    Ok(file)
}

/// Lists up to `limit` raw copies older than their seven days, oldest first, without those still to be sent.
pub(crate) fn list_created_before(
    connection: &Connection,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<MailDataRowId>> {
    // Row ids grow with time, so the oldest are at the start and the walk stops at the first recent one.
    let rows: Vec<(MailDataRowId, i64)> = connection
        .prepare_cached(
            "SELECT id, created_at FROM mail_data
             WHERE NOT EXISTS (SELECT 1 FROM dispatch WHERE dispatch.mail_data_id = mail_data.id) ORDER BY id LIMIT ?1",
        )?
        .query_map([limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows.into_iter().filter(|(_, created)| *created < before.as_millis()).map(|(id, _)| id).collect())
}

/// Returns true if a row names this object file.
pub(crate) fn names_file(connection: &Connection, name: &str) -> Result<bool> {
    Ok(connection.prepare_cached("SELECT 1 FROM mail_data WHERE file = ?1")?.exists([name])?)
}
