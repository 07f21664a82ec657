//! Messages forwarded with an SRS address, so that only reports about them are accepted there, and limits on the
//! reports sent on (contract 5.1).

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::store::Result;

/// Longer than the validity of any SRS address.
const KEPT_FOR: Duration = Duration::from_secs(60 * 86_400);
/// Within this time this many reports about one account's forwarded mail are sent on …
const REPORTED_WITHIN: Duration = Duration::from_secs(3_600);
const MAX_OF_ACCOUNT: u32 = 100;
/// … and this many to one sender.
const MAX_TO_SENDER: u32 = 10;

/// A forwarded message that a report may refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewForwardedMessage<'a> {
    /// Key: a hash over the address and the Message-ID.
    pub(crate) fingerprint: &'a [u8],
    /// Account that forwards it.
    pub(crate) account: AccountRowId,
    /// Recipient of the report, for the limit per sender.
    pub(crate) sender: &'a str,
    /// Address that it was forwarded to.
    pub(crate) recipient: &'a str,
}

/// Forwarded message that a report refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardedMessage {
    /// Address that it was forwarded to.
    pub(crate) recipient: String,
    /// Time at which it was last forwarded.
    pub(crate) sent_at: Timestamp,
}

/// Records a forwarded message.
pub(crate) fn insert(connection: &Connection, new: NewForwardedMessage<'_>, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO forwarded_message (fingerprint, account_id, sender, recipient, sent_at)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (fingerprint) DO UPDATE SET sent_at = excluded.sent_at",
        )?
        .execute(params![new.fingerprint, new.account, new.sender, new.recipient, now.as_millis()])?;
    Ok(())
}

/// Accepts a report about the message with this fingerprint. Returns none when there is no such message, a report was
/// accepted before, or a limit is reached.
pub(crate) fn take(connection: &Connection, fingerprint: &[u8], now: Timestamp) -> Result<Option<ForwardedMessage>> {
    let since = now.minus(REPORTED_WITHIN).as_millis();
    let taken = connection
        .prepare_cached(
            "UPDATE forwarded_message SET reported_at = ?2
             WHERE fingerprint = ?1 AND reported_at IS NULL
               AND (SELECT count(*) FROM forwarded_message AS other
                    WHERE other.account_id = forwarded_message.account_id AND other.reported_at > ?3) < ?4
               AND (SELECT count(*) FROM forwarded_message AS other
                    WHERE other.sender = forwarded_message.sender AND other.reported_at > ?3) < ?5
             RETURNING recipient, sent_at",
        )?
        .query_row(params![fingerprint, now.as_millis(), since, MAX_OF_ACCOUNT, MAX_TO_SENDER], |row| {
            Ok(ForwardedMessage { recipient: row.get(0)?, sent_at: Timestamp::from_millis(row.get(1)?) })
        })
        .optional()?;
    Ok(taken)
}

/// Removes messages too old for any report; returns the number removed.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    let gone = connection
        .prepare_cached("DELETE FROM forwarded_message WHERE sent_at <= ?1")?
        .execute([now.minus(KEPT_FOR).as_millis()])?;
    Ok(gone)
}
