//! What was forwarded with an SRS address, so that only reports about it come back there, and how many of those are sent on
//! (contract 5.1).

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::store::Result;

/// Longer than any SRS address is valid.
const KEPT_FOR: Duration = Duration::from_secs(60 * 86_400);
/// In this time so many reports are sent of what one account forwards …
const REPORTED_WITHIN: Duration = Duration::from_secs(3_600);
const MAX_OF_ACCOUNT: u32 = 100;
/// … and so many to one sender.
const MAX_TO_SENDER: u32 = 10;

/// A forwarded message of which a report may come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewMark<'a> {
    /// What it is known by.
    pub(crate) mark: &'a [u8],
    /// Who forwards it.
    pub(crate) account: AccountRowId,
    /// Who gets the report: what senders are counted by.
    pub(crate) sender: &'a str,
    /// The address that it was sent to.
    pub(crate) recipient: &'a str,
}

/// What a report may say of a forwarded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marked {
    /// The address that it was sent to.
    pub(crate) recipient: String,
    /// When it was forwarded last.
    pub(crate) sent_at: Timestamp,
}

/// Notes that a message was forwarded.
pub(crate) fn insert(connection: &Connection, new: NewMark<'_>, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO forward_mark (mark, account_id, sender, recipient, sent_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (mark) DO UPDATE SET sent_at = excluded.sent_at",
        )?
        .execute(params![new.mark, new.account, new.sender, new.recipient, now.as_millis()])?;
    Ok(())
}

/// Takes a report about a message with this mark. None when there is no such message, one was taken before, or as many
/// were sent as may be.
pub(crate) fn take(connection: &Connection, mark: &[u8], now: Timestamp) -> Result<Option<Marked>> {
    let since = now.minus(REPORTED_WITHIN).as_millis();
    let taken = connection
        .prepare_cached(
            "UPDATE forward_mark SET reported_at = ?2
             WHERE mark = ?1 AND reported_at IS NULL
               AND (SELECT count(*) FROM forward_mark AS other
                    WHERE other.account_id = forward_mark.account_id AND other.reported_at > ?3) < ?4
               AND (SELECT count(*) FROM forward_mark AS other
                    WHERE other.sender = forward_mark.sender AND other.reported_at > ?3) < ?5
             RETURNING recipient, sent_at",
        )?
        .query_row(params![mark, now.as_millis(), since, MAX_OF_ACCOUNT, MAX_TO_SENDER], |row| {
            Ok(Marked { recipient: row.get(0)?, sent_at: Timestamp::from_millis(row.get(1)?) })
        })
        .optional()?;
    Ok(taken)
}

/// Removes marks that no report can come for any more; how many.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    let gone = connection
        .prepare_cached("DELETE FROM forward_mark WHERE sent_at <= ?1")?
        .execute([now.minus(KEPT_FOR).as_millis()])?;
    Ok(gone)
}
