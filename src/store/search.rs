//! Substring search over sender, recipient and subject: an FTS5 trigram index that is filled behind in batches.
//!
//! Writing the index at accept would cost half the accept rate, so [`fill`] follows later; a search covers the
//! short tail that is not in the index yet by looking at its rows.

use rusqlite::{Connection, params};

use super::Result;

/// Puts up to `limit` of the next messages into the index; returns how many it took.
///
/// # Errors
/// Storage trouble.
pub fn fill(connection: &Connection, limit: u32) -> Result<usize> {
    let from: i64 = indexed_to(connection)?;
    let taken = connection
        .prepare_cached(
            "INSERT INTO message_search (rowid, from_addr, to_addr, subject)
             SELECT id, from_addr, to_addr, coalesce(subject, '') FROM message WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?
        .execute(params![from, limit])?;
    connection
        .prepare_cached(
            "UPDATE search_state SET indexed_to =
               coalesce((SELECT max(id) FROM (SELECT id FROM message WHERE id > ?1 ORDER BY id LIMIT ?2)), indexed_to)",
        )?
        .execute(params![from, limit])?;
    Ok(taken)
}

/// Every message up to this row id is in the index.
///
/// # Errors
/// Storage trouble.
pub fn indexed_to(connection: &Connection) -> Result<i64> {
    Ok(connection.prepare_cached("SELECT indexed_to FROM search_state")?.query_row([], |row| row.get(0))?)
}

/// How many messages wait to be indexed, counted up to `limit`.
///
/// # Errors
/// Storage trouble.
pub fn behind(connection: &Connection, limit: u32) -> Result<u32> {
    let from = indexed_to(connection)?;
    Ok(connection
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM message WHERE id > ?1 LIMIT ?2)")?
        .query_row(params![from, limit], |row| row.get(0))?)
}

/// A needle as an FTS5 phrase: in quotes it is data, whatever it holds.
pub(super) fn phrase(needle: &str) -> String {
    format!("\"{}\"", needle.replace('"', "\"\""))
}

/// A needle as a LIKE pattern with `\` as escape.
pub(super) fn like_pattern(needle: &str) -> String {
    format!("%{}%", needle.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
}
