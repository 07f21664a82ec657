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

/// Row ids of an account's messages that contain `needle` (three characters or more), newest first.
///
/// # Errors
/// Storage trouble.
pub fn find(connection: &Connection, account: i64, needle: &str, limit: u32) -> Result<Vec<i64>> {
    // A quoted string is data to FTS5; its own quotes are doubled.
    let phrase = format!("\"{}\"", needle.replace('"', "\"\""));
    let like = format!("%{}%", needle.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
    let rows = connection
        .prepare_cached(
            "SELECT id FROM (
               SELECT message.id, message.received_at FROM message_search
               JOIN message ON message.id = message_search.rowid
               WHERE message_search MATCH ?2 AND message.account_id = ?1
               UNION ALL
               SELECT id, received_at FROM message
               WHERE id > (SELECT indexed_to FROM search_state) AND account_id = ?1
                 AND (from_addr LIKE ?3 ESCAPE '\\' OR to_addr LIKE ?3 ESCAPE '\\' OR subject LIKE ?3 ESCAPE '\\'))
             ORDER BY received_at DESC LIMIT ?4",
        )?
        .query_map(params![account, phrase, like, limit], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}
