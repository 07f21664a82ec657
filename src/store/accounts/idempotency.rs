//! Responses to requests with an Idempotency-Key, replayed when the request is repeated (contract 1.11).

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::store::Result;

/// Time for which a response is replayed.
pub(crate) const LIFETIME: Duration = Duration::from_secs(86_400);

/// Identity of a request: the key counts for one account and path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RequestKey {
    pub(crate) account: AccountRowId,
    pub(crate) path: String,
    /// Value of the Idempotency-Key header.
    pub(crate) key: String,
}

/// A response with the hash of the request body that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// SHA-256 of the request body.
    pub(crate) body_hash: Vec<u8>,
    pub(crate) status: u16,
    /// Response body.
    pub(crate) response: Vec<u8>,
}

/// Finds the stored response to a request.
pub(crate) fn find(connection: &Connection, request: &RequestKey, now: Timestamp) -> Result<Option<Remembered>> {
    let found = connection
        .prepare_cached(
            "SELECT body_hash, status, response FROM idempotency
             WHERE account_id = ?1 AND path = ?2 AND idempotency_key = ?3 AND created_at > ?4",
        )?
        .query_row(params![request.account, request.path, request.key, now.minus(LIFETIME).as_millis()], |row| {
            Ok(Remembered { body_hash: row.get(0)?, status: row.get(1)?, response: row.get(2)? })
        })
        .optional()?;
    Ok(found)
}

/// Stores a response, in the transaction that makes it true.
pub(crate) fn put(connection: &Connection, request: &RequestKey, answer: &Remembered, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO idempotency (account_id, path, idempotency_key, body_hash, status, response, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (account_id, path, idempotency_key) DO UPDATE SET
               body_hash = excluded.body_hash, status = excluded.status, response = excluded.response,
               created_at = excluded.created_at",
        )?
        .execute(params![
            request.account,
            request.path,
            request.key,
            answer.body_hash,
            answer.status,
            answer.response,
            now.as_millis()
        ])?;
    Ok(())
}

/// Removes up to `limit` expired responses; returns the number removed.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp, limit: u32) -> Result<usize> {
    Ok(connection
        .prepare_cached(
            "DELETE FROM idempotency WHERE (account_id, path, idempotency_key) IN (
               SELECT account_id, path, idempotency_key FROM idempotency WHERE created_at <= ?1 LIMIT ?2)",
        )?
        .execute(params![now.minus(LIFETIME).as_millis(), limit])?)
}
