//! Duplicate suppression for mail received within the last 24 hours, or one hour (contract 5.1).

use rusqlite::{Connection, OptionalExtension, params};

use super::mail_data;
use crate::clock::Timestamp;
use crate::id::{MailDataRowId, MessageRowId};
use crate::store::Result;
use crate::store::blobs::objects::Objects;

/// Time within which a repeat is recognised.
pub(crate) const WINDOW: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// The same for mail without Date and Message-ID: an alarm with the same text again is a new one.
pub(crate) const UNDATED_WINDOW: std::time::Duration = std::time::Duration::from_secs(3600);

/// Keys of one such time span are adjacent, so that inserts touch few pages of the table.
const SPAN_SECS: i64 = 4 * 3600;
/// Bits of the hash in a key; the span is stored above them.
const HASH_BITS: u32 = 48;

/// Values that a repeat must share besides its fingerprint: 48 bits alone are too few to drop mail by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Original<'a> {
    pub(crate) mail_from: &'a str,
    pub(crate) to_addr: &'a str,
    /// Octets as received.
    pub(crate) size: u64,
    /// Maximum age of the earlier message.
    pub(crate) window: std::time::Duration,
}

/// Returns the key of a fingerprint seen `spans_ago` spans before `now`.
fn key(fingerprint: i64, now: Timestamp, spans_ago: i64) -> i64 {
    let span = (now.as_secs() / SPAN_SECS - spans_ago) & 0x7fff;
    (span << HASH_BITS) | (fingerprint & ((1 << HASH_BITS) - 1))
}

/// Finds the message stored with this fingerprint, if that was within the window and its content still exists:
/// otherwise the repeat is the one chance to still get the mail.
pub(crate) fn find(
    connection: &Connection,
    objects: &Objects,
    fingerprint: i64,
    original: Original<'_>,
    now: Timestamp,
) -> Result<Option<String>> {
    let seen = |spans_ago| key(fingerprint, now, spans_ago);
    // Written this way, it is seven searches; `IN (…)` would build a table of the seven keys for each mail.
    let candidates: Vec<i64> = connection
        .prepare_cached(
            "SELECT message_id FROM dedup_fingerprint WHERE fingerprint = ?1 UNION ALL
             SELECT message_id FROM dedup_fingerprint WHERE fingerprint = ?2 UNION ALL
             SELECT message_id FROM dedup_fingerprint WHERE fingerprint = ?3 UNION ALL
             SELECT message_id FROM dedup_fingerprint WHERE fingerprint = ?4 UNION ALL
             SELECT message_id FROM dedup_fingerprint WHERE fingerprint = ?5 UNION ALL
             SELECT message_id FROM dedup_fingerprint WHERE fingerprint = ?6 UNION ALL
             SELECT message_id FROM dedup_fingerprint WHERE fingerprint = ?7",
        )?
        .query_map([seen(0), seen(1), seen(2), seen(3), seen(4), seen(5), seen(6)], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for message in candidates {
        let found = connection
            .prepare_cached(
                "SELECT public_id, mail_data_id, body IS NOT NULL OR status = 'dropped' FROM message
                 WHERE id = ?1 AND received_at > ?2 AND size = ?3 AND mail_from = ?4 AND lower(to_addr) = lower(?5)",
            )?
            .query_row(
                params![
                    message,
                    now.minus(original.window).as_millis(),
                    original.size,
                    original.mail_from,
                    original.to_addr
                ],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()?;
        let Some((id, mail_data_id, needs_none)): Option<(String, Option<MailDataRowId>, bool)> = found else {
            continue;
        };
        let whole = mail_data_id.map_or(Ok(needs_none), |row| mail_data::is_whole(connection, objects, row))?;
        if whole {
            return Ok(Some(id));
        }
        tracing::error!(message = id, "the content of a message that came again is gone; it is stored anew");
    }
    Ok(None)
}

/// Records a stored message by its row.
pub(crate) fn insert(connection: &Connection, fingerprint: i64, message: MessageRowId, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO dedup_fingerprint (fingerprint, message_id)
             VALUES (?1, ?2)
             ON CONFLICT (fingerprint) DO UPDATE SET message_id = excluded.message_id",
        )?
        .execute(params![key(fingerprint, now, 0), message])?;
    Ok(())
}

/// Removes expired keys among the `limit` keys after `from`; returns the key to continue after, `None` at the end.
pub(crate) fn sweep(connection: &Connection, from: i64, limit: u32, now: Timestamp) -> Result<Option<i64>> {
    let last: Option<i64> = connection
        .prepare_cached(
            "SELECT fingerprint FROM dedup_fingerprint WHERE fingerprint > ?1 ORDER BY fingerprint LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![from, limit], |row| row.get(0))
        .optional()?;
    connection
        .prepare_cached(
            "DELETE FROM dedup_fingerprint
             WHERE fingerprint > ?1 AND fingerprint <= ?2 AND NOT EXISTS (
               SELECT 1 FROM message WHERE message.id = dedup_fingerprint.message_id AND message.received_at > ?3)",
        )?
        .execute(params![from, last.unwrap_or(i64::MAX), now.minus(WINDOW).as_millis()])?;
    Ok(last)
}
