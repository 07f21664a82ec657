//! What finds messages, filled behind in batches: an FTS5 trigram index over sender, recipient and subject for
//! substring search, and the messages of each conversation.
//!
//! Writing the indexes at accept would cost half the accept rate, so [`fill`] follows later; whoever asks covers the
//! short tail that is not in the index yet by looking at its rows.

use ring::digest::{SHA256, digest};
use rusqlite::{Connection, OptionalExtension, params};

use super::Result;

/// Puts up to `limit` of the next messages into the indexes; returns how many it took.
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
    fill_threads(connection, from, limit)?;
    connection
        .prepare_cached(
            "UPDATE search_state SET indexed_to =
               coalesce((SELECT max(id) FROM (SELECT id FROM message WHERE id > ?1 ORDER BY id LIMIT ?2)), indexed_to)",
        )?
        .execute(params![from, limit])?;
    Ok(taken)
}

fn fill_threads(connection: &Connection, from: i64, limit: u32) -> Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO message_thread (thread_hash, message_id)
         VALUES (?1, ?2)
         ON CONFLICT DO NOTHING",
    )?;
    let mut next = connection
        .prepare_cached("SELECT id, account_id, thread_id FROM message WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let mut rows = next.query(params![from, limit])?;
    while let Some(row) = rows.next()? {
        let (id, account): (i64, i64) = (row.get(0)?, row.get(1)?);
        if let Some(thread) = row.get::<_, Option<String>>(2)? {
            insert.execute(params![thread_hash(account, &thread), id])?;
        }
    }
    Ok(())
}

/// Forgets a message that is about to be removed; its row must still be there.
///
/// # Errors
/// Storage trouble.
pub(super) fn forget(connection: &Connection, id: i64) -> Result<()> {
    connection.prepare_cached("DELETE FROM message_search WHERE rowid = ?1")?.execute([id])?;
    let thread: Option<(i64, String)> = connection
        .prepare_cached("SELECT account_id, thread_id FROM message WHERE id = ?1 AND thread_id IS NOT NULL")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((account, thread)) = thread {
        connection
            .prepare_cached("DELETE FROM message_thread WHERE thread_hash = ?1 AND message_id = ?2")?
            .execute(params![thread_hash(account, &thread), id])?;
    }
    Ok(())
}

/// 63 bits of a hash over account and thread id. Two threads may share one, so the rows themselves are asked too.
fn thread_hash(account: i64, thread: &str) -> i64 {
    let mut input = account.to_be_bytes().to_vec();
    input.extend_from_slice(thread.as_bytes());
    let hash = digest(&SHA256, &input);
    let first = hash.as_ref().first_chunk::<8>().copied().unwrap_or_default();
    i64::from_be_bytes(first) & i64::MAX
}

/// The row ids of an account's messages of this thread, oldest first; with a `domain`, of that alone.
///
/// # Errors
/// Storage trouble.
pub fn list_thread(connection: &Connection, account: i64, thread: &str, domain: Option<i64>) -> Result<Vec<i64>> {
    let rows = connection
        .prepare_cached(
            "SELECT id FROM message
             WHERE id IN (SELECT message_id FROM message_thread WHERE thread_hash = ?1) AND id <= ?2
               AND account_id = ?3 AND thread_id = ?4 AND (?5 IS NULL OR domain_id = ?5)
             UNION ALL
             SELECT id FROM message
             WHERE id > ?2 AND account_id = ?3 AND thread_id = ?4 AND (?5 IS NULL OR domain_id = ?5)
             ORDER BY id",
        )?
        .query_map(params![thread_hash(account, thread), indexed_to(connection)?, account, thread, domain], |row| {
            row.get(0)
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Every message up to this row id is in the indexes.
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
