//! Imported mail: messages at a time of the past, and the fingerprints that a repeated import is recognised by.

use rusqlite::{Connection, OptionalExtension, params};

use super::{NewMessage, insert_at, unused_millisecond};
use crate::clock::Timestamp;
use crate::id::{AccountRowId, MessageRowId};
use crate::store::Result;

/// Values by which a message that came otherwise than by an import is recognised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Original<'a> {
    pub(crate) message_id_header: Option<&'a str>,
    /// Octets as received.
    pub(crate) size: u64,
    pub(crate) received_at: Timestamp,
}

/// Returns true if the account has imported mail data with this SHA-256.
pub(crate) fn is_imported(connection: &Connection, account: AccountRowId, fingerprint: &[u8]) -> Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM imported_message WHERE account_id = ?1 AND fingerprint = ?2")?
        .exists(params![account, fingerprint])?)
}

/// Finds a message of the same Message-ID and size that the account received within a second of that time.
pub(crate) fn find_original(
    connection: &Connection,
    account: AccountRowId,
    original: Original<'_>,
) -> Result<Option<MessageRowId>> {
    let Some(message_id) = original.message_id_header else { return Ok(None) };
    let at = original.received_at.as_millis();
    let found = connection
        .prepare_cached(
            "SELECT id FROM message
             WHERE account_id = ?1 AND received_at BETWEEN ?2 - 1000 AND ?2 + 1000
               AND message_id_header = ?3 AND size = ?4 LIMIT 1",
        )?
        .query_row(params![account, at, message_id, original.size], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Stores an imported message, received at `at` or in the next free millisecond.
pub(crate) fn insert(
    connection: &Connection,
    new: &NewMessage,
    fingerprint: &[u8],
    at: Timestamp,
) -> Result<MessageRowId> {
    let at = unused_millisecond(connection, new.account_id, at)?;
    let message = insert_at(connection, new, at)?;
    connection
        .prepare_cached("INSERT INTO imported_message (account_id, fingerprint, message_id) VALUES (?1, ?2, ?3)")?
        .execute(params![new.account_id, fingerprint, message])?;
    Ok(message)
}
