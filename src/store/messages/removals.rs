//! Removal notes: reason and time for which a row was removed, by a hash of its id, kept for some months.
//!
//! They let `mailkite audit` distinguish what was removed, and by whom, from what is lost. A note contains no names or
//! content: without the id it reveals nothing.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::clock::Timestamp;
use crate::id::{MessageId, MessageRowId, UploadRowId, ZeroRetentionRowId};
use crate::store::Result;
use crate::store::stored_enum::stored_enum;

/// Maximum number of notes, whatever their age: any outsider creates one by a mail to a `drop` route.
const KEPT: i64 = 500_000;
/// Number removed at a time beyond that.
const STEP: i64 = 250;

stored_enum! {
    /// Reason for a removal.
    #[derive(PartialOrd, Ord)]
    pub(crate) enum Reason in "removal reason" {
        /// Its owner removed it, or the operator its account.
        Api = "api",
        /// Its retention ended.
        Retention = "retention",
        /// A route or its domain's zero retention stores nothing, and there was nobody to deliver it to.
        Rule = "rule",
        /// Zero retention: its webhook accepted it.
        Delivered = "delivered",
        /// Zero retention: its only attempt failed, or could no longer be made.
        Undelivered = "undelivered",
    }
}

/// Notes that the message or upload `id` is gone, or was never stored.
pub(crate) fn note(tx: &Connection, id: &MessageId, reason: Reason, now: Timestamp) -> Result<()> {
    insert(tx, id.as_str(), reason, now)
}

/// Notes that a message is about to be removed.
pub(crate) fn note_message(tx: &Connection, row: MessageRowId, reason: Reason, now: Timestamp) -> Result<()> {
    note_named(tx, "SELECT public_id FROM message WHERE id = ?1", row, reason, now)
}

/// Notes that an upload is about to be removed.
pub(crate) fn note_upload(tx: &Connection, row: UploadRowId, reason: Reason, now: Timestamp) -> Result<()> {
    note_named(tx, "SELECT public_id FROM upload WHERE id = ?1", row, reason, now)
}

/// Notes that zero-retention mail is about to be removed.
pub(crate) fn note_zero_retention(
    tx: &Connection,
    row: ZeroRetentionRowId,
    reason: Reason,
    now: Timestamp,
) -> Result<()> {
    note_named(tx, "SELECT event ->> '$.id' FROM zero_retention_delivery WHERE id = ?1", row, reason, now)
}

fn note_named(
    tx: &Connection,
    statement: &str,
    row: impl rusqlite::ToSql,
    reason: Reason,
    now: Timestamp,
) -> Result<()> {
    let id: Option<Option<String>> =
        tx.prepare_cached(statement)?.query_row([row], |found| found.get(0)).optional()?;
    id.flatten().map_or(Ok(()), |id| insert(tx, &id, reason, now))
}

/// Appends to the table whatever the id, so that the accept path touches no random page.
fn insert(tx: &Connection, id: &str, reason: Reason, now: Timestamp) -> Result<()> {
    tx.prepare_cached("INSERT INTO removal (name_hash, reason, removed_at) VALUES (?1, ?2, ?3)")?
        .execute(params![name_hash(id), reason, now.as_millis()])?;
    let row = tx.last_insert_rowid();
    if row % STEP == 0 {
        tx.prepare_cached("DELETE FROM removal WHERE id <= ?1")?.execute([row - KEPT])?;
    }
    Ok(())
}

/// Returns 64 bits of the id's SHA-256.
pub(crate) fn name_hash(id: &str) -> i64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
    i64::from_be_bytes(digest.as_ref().first_chunk().copied().unwrap_or_default())
}

/// Loads all notes, by [`name_hash`].
pub(crate) fn load(connection: &Connection) -> Result<HashMap<i64, Reason>> {
    let mut statement = connection.prepare("SELECT name_hash, reason FROM removal")?;
    let mut rows = statement.query([])?;
    let mut all = HashMap::new();
    while let Some(row) = rows.next()? {
        all.insert(row.get(0)?, row.get(1)?);
    }
    Ok(all)
}

/// Removes notes from before `before` among the `limit` oldest; returns the number removed.
pub(crate) fn delete_before(tx: &Connection, before: Timestamp, limit: u32) -> Result<usize> {
    let gone = tx
        .prepare_cached(
            "DELETE FROM removal WHERE id IN
               (SELECT id FROM (SELECT id, removed_at FROM removal ORDER BY id LIMIT ?2) WHERE removed_at < ?1)",
        )?
        .execute(params![before.as_millis(), limit])?;
    Ok(gone)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn beyond_so_many_the_oldest_notes_go() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(crate::store::migrate::SCHEMA).unwrap();
        let note = |id: i64| {
            let made = "INSERT INTO removal (id, name_hash, reason, removed_at) VALUES (?1, 0, 'rule', 0)";
            db.execute(made, [id]).unwrap();
        };
        [1, STEP, STEP + 1, KEPT + STEP - 1].into_iter().for_each(note);
        let rows = || -> Vec<i64> {
            let mut statement = db.prepare("SELECT id FROM removal ORDER BY id").unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
        };
        let now = Timestamp::from_millis(0);
        insert(&db, "msg_1", Reason::Api, now).unwrap();
        assert_eq!(rows(), [STEP + 1, KEPT + STEP - 1, KEPT + STEP]);
        insert(&db, "msg_2", Reason::Api, now).unwrap();
        assert_eq!(rows().len(), 4);
    }
}
