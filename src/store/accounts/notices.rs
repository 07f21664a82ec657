//! Mail sent by the appliance itself, and the time of the last notice to an owner about an
//! endpoint.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, NoticeRowId};
use crate::store::Result;
use crate::store::jobs;
use crate::store::jobs::JobSubject;

/// Sealing purpose of `text_sealed`.
pub const PURPOSE: &str = "notice";
/// An owner is notified of an endpoint at most once in this time (contract 9.5).
const TELL_EVERY: Duration = Duration::from_secs(86_400);

/// A queued mail.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) id: NoticeRowId,
    pub(crate) recipient: String,
    pub(crate) subject: String,
    /// Plain text, sealed.
    pub(crate) text_sealed: Vec<u8>,
    pub(crate) created_at: Timestamp,
    /// The notice is pointless after this time.
    pub(crate) expires_at: Timestamp,
}

/// Stores a mail; returns its row, which its job is about.
pub(crate) fn insert(
    connection: &Connection,
    recipient: &str,
    subject: &str,
    text_sealed: &[u8],
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<NoticeRowId> {
    connection
        .prepare_cached(
            "INSERT INTO notice (recipient, subject, text_sealed, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![recipient, subject, text_sealed, now.as_millis(), expires_at.as_millis()])?;
    Ok(NoticeRowId::new(connection.last_insert_rowid()))
}

/// Finds a mail by row id.
pub(crate) fn find(connection: &Connection, id: NoticeRowId) -> Result<Option<Notice>> {
    let found = connection
        .prepare_cached("SELECT recipient, subject, text_sealed, created_at, expires_at FROM notice WHERE id = ?1")?
        .query_row([id], |row| {
            Ok(Notice {
                id,
                recipient: row.get(0)?,
                subject: row.get(1)?,
                text_sealed: row.get(2)?,
                created_at: Timestamp::from_millis(row.get(3)?),
                expires_at: Timestamp::from_millis(row.get(4)?),
            })
        })
        .optional()?;
    Ok(found)
}

/// Removes a mail.
pub(crate) fn delete(connection: &Connection, id: NoticeRowId) -> Result<()> {
    connection.prepare_cached("DELETE FROM notice WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Removes expired mails with their jobs; returns the number removed.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    let expired: Vec<NoticeRowId> = connection
        .prepare_cached("DELETE FROM notice WHERE expires_at <= ?1 RETURNING id")?
        .query_map([now.as_millis()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    expired.iter().try_for_each(|id| jobs::delete_by_subject(connection, JobSubject::Notice(*id)))?;
    Ok(expired.len())
}

/// Returns true if an account's owner is to be notified of an endpoint now, and records that as done.
pub(crate) fn take_turn(
    connection: &Connection,
    account: AccountRowId,
    endpoint: &str,
    now: Timestamp,
) -> Result<bool> {
    let taken = connection
        .prepare_cached(
            "INSERT INTO owner_notice (account_id, endpoint, noticed_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (account_id, endpoint) DO UPDATE SET noticed_at = excluded.noticed_at
               WHERE noticed_at <= ?4 OR noticed_at > excluded.noticed_at",
        )?
        .execute(params![account, endpoint, now.as_millis(), now.minus(TELL_EVERY).as_millis()])?;
    Ok(taken > 0)
}
