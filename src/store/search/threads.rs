//! Conversations: the messages of each thread, filled with the blocks of text.

use ring::digest::{SHA256, digest};
use rusqlite::{Connection, params};

use crate::id::{AccountRowId, DomainRowId, MessageRowId};
use crate::store::Result;

/// Adds a message to a thread of its account.
pub(super) fn insert(
    connection: &Connection,
    account: AccountRowId,
    thread: &str,
    message: MessageRowId,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO message_thread (thread_hash, message_id)
             VALUES (?1, ?2)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![thread_hash(account, thread), message])?;
    Ok(())
}

/// Removes a message from its thread.
pub(super) fn delete(
    connection: &Connection,
    account: AccountRowId,
    thread: &str,
    message: MessageRowId,
) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM message_thread WHERE thread_hash = ?1 AND message_id = ?2")?
        .execute(params![thread_hash(account, thread), message])?;
    Ok(())
}

/// Returns 63 bits of a hash over account and thread id. Two threads may share one, so the rows themselves are checked
/// too.
fn thread_hash(account: AccountRowId, thread: &str) -> i64 {
    let mut input = account.get().to_be_bytes().to_vec();
    input.extend_from_slice(thread.as_bytes());
    let hash = digest(&SHA256, &input);
    let first = hash.as_ref().first_chunk::<8>().copied().unwrap_or_default();
    i64::from_be_bytes(first) & i64::MAX
}

/// Lists the row ids of an account's messages of this thread, oldest first; with a `domain`, of that one alone.
pub fn list_thread(
    connection: &Connection,
    account: AccountRowId,
    thread: &str,
    domain: Option<DomainRowId>,
) -> Result<Vec<MessageRowId>> {
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
        .query_map(
            params![thread_hash(account, thread), super::indexed_to(connection)?, account, thread, domain],
            |row| row.get(0),
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}
