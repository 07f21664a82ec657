//! Attachments: slices of the mail data, decoded when served.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::id::MessageRowId;
use crate::mail::mime::{Disposition, Encoding, Part};
use crate::store::Result;

fn read(row: &Row<'_>) -> rusqlite::Result<Part> {
    Ok(Part {
        filename: row.get("filename")?,
        content_type: row.get("content_type")?,
        charset: row.get("charset")?,
        content_id: row.get("content_id")?,
        disposition: row.get::<_, Option<String>>("disposition")?.map(|word| Disposition::parse(&word)),
        size: row.get("size")?,
        offset: row.get("part_offset")?,
        length: row.get("part_length")?,
        encoding: Encoding::parse(row.get_ref("encoding")?.as_str()?),
        inner_offset: row.get("inner_offset")?,
    })
}

const COLUMNS: &str =
    "filename, content_type, charset, content_id, disposition, size, part_offset, part_length, encoding,
     inner_offset";

/// Stores a message's attachments in their order.
pub(crate) fn insert_all(connection: &Connection, message: MessageRowId, parts: &[Part]) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO attachment (message_id, idx, filename, content_type, charset, content_id, disposition, size,
                                 part_offset, part_length, encoding, inner_offset)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    for (index, part) in parts.iter().enumerate() {
        statement.execute(params![
            message,
            index,
            part.filename,
            part.content_type,
            part.charset,
            part.content_id,
            part.disposition.map(Disposition::as_str),
            part.size,
            part.offset,
            part.length,
            part.encoding.as_str(),
            part.inner_offset
        ])?;
    }
    Ok(())
}

/// Lists a message's attachments in their order.
pub(crate) fn list(connection: &Connection, message: MessageRowId) -> Result<Vec<Part>> {
    let statement = format!("SELECT {COLUMNS} FROM attachment WHERE message_id = ?1 ORDER BY idx");
    let rows = connection.prepare_cached(&statement)?.query_map([message], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Finds one attachment of a message.
pub(crate) fn find(connection: &Connection, message: MessageRowId, index: u32) -> Result<Option<Part>> {
    let statement = format!("SELECT {COLUMNS} FROM attachment WHERE message_id = ?1 AND idx = ?2");
    Ok(connection.prepare_cached(&statement)?.query_row(params![message, index], read).optional()?)
}

/// Removes a message's attachments.
pub(crate) fn delete_all(connection: &Connection, message: MessageRowId) -> Result<()> {
    connection.prepare_cached("DELETE FROM attachment WHERE message_id = ?1")?.execute([message])?;
    Ok(())
}
