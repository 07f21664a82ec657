//! Mail of the appliance's own that waits to be sent, each with its job, and which endpoints owners were told of.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, NoticeRowId};
use crate::store::Result;
use crate::store::jobs;
use crate::store::jobs::{Flow, JobSubject};

/// What `text_sealed` of a notice is sealed for.
pub const PURPOSE: &str = "notice";
/// An owner hears of an endpoint at most once in this time (contract 9.5).
const TELL_EVERY: Duration = Duration::from_secs(86_400);

/// A mail as stored.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// Row id.
    pub(crate) id: NoticeRowId,
    /// To whom.
    pub(crate) recipient: String,
    /// About what.
    pub(crate) subject: String,
    /// Plain text, sealed.
    pub(crate) text_sealed: Vec<u8>,
    /// When it was written.
    pub(crate) created_at: Timestamp,
    /// After that it would tell nothing any more.
    pub(crate) expires_at: Timestamp,
}

/// Leaves a mail with its job in `flow`.
pub(crate) fn insert(
    connection: &Connection,
    flow: &Flow,
    recipient: &str,
    subject: &str,
    text_sealed: &[u8],
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO notice (recipient, subject, text_sealed, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![recipient, subject, text_sealed, now.as_millis(), expires_at.as_millis()])?;
    jobs::insert(connection, flow, JobSubject::Notice(crate::id::RowId::new(connection.last_insert_rowid())), now)
}

/// A mail by row id.
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

/// Removes mails whose time is over, with their jobs; how many.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    let expired: Vec<NoticeRowId> = connection
        .prepare_cached("DELETE FROM notice WHERE expires_at <= ?1 RETURNING id")?
        .query_map([now.as_millis()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    expired.iter().try_for_each(|id| jobs::delete_by_subject(connection, JobSubject::Notice(*id)))?;
    Ok(expired.len())
}

/// Whether an account's owner is to be told of an endpoint now; then it counts as told.
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
