//! Indexes that find messages, filled later in batches: blocks of case-folded text for substring search over sender,
//! recipient and subject, and the messages of each conversation.
//!
//! Writing them on acceptance would cost the accept rate, so [`fill`] follows later; a query covers the short tail that
//! is not indexed yet by reading its rows. Blocks belong to one account, so no account's mail slows down another's
//! search, and they are read newest first, so a page of a frequent needle ends after a few of them.

mod block;
mod threads;

use crate::id::{AccountRowId, MessageRowId};
use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::Result;
use block::{Block, FULL, Message, Stored};
pub(super) use block::{Entry, Needle};
pub use threads::list_thread;

/// Adds up to `limit` of the next messages to blocks and threads; returns the number added.
pub fn fill(connection: &Connection, limit: u32) -> Result<usize> {
    let mut last = indexed_to(connection)?;
    let mut accounts: BTreeMap<AccountRowId, Vec<Message>> = BTreeMap::new();
    let mut statement = connection.prepare_cached(
        "SELECT id, account_id, domain_id, received_at, from_addr, to_addr, coalesce(subject, ''), thread_id
         FROM message WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![last, limit])?;
    let mut taken = 0;
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
        let message = Message::new(row.get(3)?, row.get(2)?, [text(4)?, text(5)?, text(6)?]);
        let account = row.get(1)?;
        last = row.get(0)?;
        if let Some(thread) = row.get_ref(7)?.as_str_or_null().map_err(rusqlite::Error::from)? {
            threads::insert(connection, account, thread, MessageRowId::new(last))?;
        }
        accounts.entry(account).or_default().push(message);
        taken += 1;
    }
    for (account, messages) in accounts {
        append(connection, account, messages)?;
    }
    connection.prepare_cached("UPDATE search_state SET indexed_to = ?1")?.execute([last])?;
    Ok(taken)
}

/// Writes messages into new blocks, merged with the newest blocks that are small in comparison.
///
/// A block is rewritten only when it is at most twice as large as the added text, so each message is written a few
/// times until its block is full, however few arrive at a time.
fn append(connection: &Connection, account: AccountRowId, mut messages: Vec<Message>) -> Result<()> {
    let size = |messages: &[Message]| messages.iter().map(Message::size).sum::<usize>();
    while let Some((id, length)) = newest_block(connection, account)? {
        let coming = size(&messages);
        if length > 2 * coming || length + coming > FULL {
            break;
        }
        let mut before = connection
            .prepare_cached("SELECT entries, texts FROM search_block WHERE id = ?1")?
            .query_row([id], |row| Ok(stored(row)?.messages()))?;
        connection.prepare_cached("DELETE FROM search_block WHERE id = ?1")?.execute([id])?;
        before.append(&mut messages);
        messages = before;
    }
    let mut next = Vec::new();
    let mut octets = 0;
    for message in messages {
        if octets > 0 && octets + message.size() > FULL {
            insert(connection, account, std::mem::take(&mut next))?;
            octets = 0;
        }
        octets += message.size();
        next.push(message);
    }
    insert(connection, account, next)
}

/// Returns row id and octets of text of the newest block.
fn newest_block(connection: &Connection, account: AccountRowId) -> Result<Option<(i64, usize)>> {
    Ok(connection
        .prepare_cached(
            "SELECT id, length(texts) FROM search_block WHERE account_id = ?1 ORDER BY newest DESC LIMIT 1",
        )?
        .query_row([account], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

fn insert(connection: &Connection, account: AccountRowId, messages: Vec<Message>) -> Result<()> {
    let Some(block) = Block::of(messages) else { return Ok(()) };
    connection
        .prepare_cached(
            "INSERT INTO search_block (account_id, oldest, newest, grams, entries, texts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![account, block.oldest, block.newest, block.grams, block.entries, block.texts])?;
    Ok(())
}

/// Reads the columns `entries` and `texts`, which come first in the row.
fn stored<'a>(row: &'a rusqlite::Row<'_>) -> rusqlite::Result<Stored<'a>> {
    Ok(Stored { entries: row.get_ref(0)?.as_blob()?, texts: row.get_ref(1)?.as_blob()? })
}

/// A message whose row was removed.
pub(super) struct DeletedMessage {
    pub(crate) id: MessageRowId,
    pub(crate) account: AccountRowId,
    /// Millisecond of its receipt.
    pub(crate) received_at: i64,
    /// Id of its conversation.
    pub(crate) thread: Option<String>,
}

/// Removes a message whose row was just removed.
pub(super) fn remove(connection: &Connection, gone: &DeletedMessage) -> Result<()> {
    if let Some(thread) = &gone.thread {
        threads::delete(connection, gone.account, thread, gone.id)?;
    }
    wipe(connection, gone.account, gone.received_at)
}

/// Wipes the text of a message from its block.
fn wipe(connection: &Connection, account: AccountRowId, received_at: i64) -> Result<()> {
    // Blocks overlap only where the clock was set back, so the first is nearly always the right one.
    let mut statement = connection.prepare_cached(
        "SELECT entries, texts, id FROM search_block INDEXED BY search_block_by_time
         WHERE account_id = ?1 AND newest >= ?2 AND oldest <= ?2 ORDER BY newest",
    )?;
    let mut rows = statement.query(params![account, received_at])?;
    while let Some(row) = rows.next()? {
        let Some(wiped) = stored(row)?.without(received_at) else { continue };
        let id: MessageRowId = row.get(2)?;
        if wiped.is_empty {
            connection.prepare_cached("DELETE FROM search_block WHERE id = ?1")?.execute([id])?;
        } else {
            // Of the same length as before, so that only the changed pages are written.
            connection
                .prepare_cached("UPDATE search_block SET entries = ?2, texts = ?3 WHERE id = ?1")?
                .execute(params![id, wiped.entries, wiped.texts])?;
        }
        break;
    }
    Ok(())
}

/// Returns the row id up to which every message is in a block and in its thread.
pub(crate) fn indexed_to(connection: &Connection) -> Result<i64> {
    Ok(connection.prepare_cached("SELECT indexed_to FROM search_state")?.query_row([], |row| row.get(0))?)
}

/// Counts the messages that wait to be indexed, up to `limit`.
pub(crate) fn behind(connection: &Connection, limit: u32) -> Result<u32> {
    let from = indexed_to(connection)?;
    Ok(connection
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM message WHERE id > ?1 LIMIT ?2)")?
        .query_row(params![from, limit], |row| row.get(0))?)
}

/// Receiver of the results of a walk over the blocks.
pub(super) trait Collect {
    /// Returns true if a message of this millisecond or an older one could still be needed.
    fn wants(&self, received_at: i64) -> bool;
    /// Takes a message that contains the needle; its row may be gone.
    fn take(&mut self, entry: Entry) -> Result<()>;
}

/// Statement of the outer loop of [`walk`].
pub(super) const WALK: &str = "SELECT id, newest, grams FROM search_block INDEXED BY search_block_by_time
     WHERE account_id = ?1 AND newest > ?2 AND oldest < ?3 ORDER BY newest DESC";

/// Finds an account's messages between two milliseconds, both excluded, that contain the needle, newest block first.
///
/// It reads with several statements, so the caller keeps a transaction open.
///
/// # Errors
/// The error of `collect`.
pub(super) fn walk(
    connection: &Connection,
    needle: &Needle,
    account: AccountRowId,
    (after, before): (i64, i64),
    collect: &mut impl Collect,
) -> Result<()> {
    let mut blocks = connection.prepare_cached(WALK)?;
    let mut texts = connection.prepare_cached("SELECT entries, texts FROM search_block WHERE id = ?1")?;
    let mut rows = blocks.query(params![account, after, before])?;
    while let Some(row) = rows.next()? {
        let (id, newest): (i64, i64) = (row.get(0)?, row.get(1)?);
        if !collect.wants(newest) {
            break;
        }
        if !needle.may_be_in(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?) {
            continue;
        }
        let found = texts.query_row([id], |row| Ok(needle.entries(&stored(row)?)))?;
        let in_range = |entry: &Entry| entry.received_at > after && entry.received_at < before;
        for entry in found.into_iter().rev().filter(in_range) {
            if !collect.wants(entry.received_at) {
                break;
            }
            collect.take(entry)?;
        }
    }
    Ok(())
}
