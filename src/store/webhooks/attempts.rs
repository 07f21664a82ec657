//! Attempts of deliveries: the request and its response (contract 6.3).

use rusqlite::{Connection, params};

use crate::clock::Timestamp;
use crate::id::{AttemptId, DeliveryRowId};
use crate::store::Result;

/// Attempts kept and shown of a delivery: the newest.
const KEPT: u32 = 200;

/// An attempt at a delivery.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) public_id: AttemptId,
    /// Number from 1, including manual attempts.
    pub(crate) attempt: u32,
    /// True if a person requested it.
    pub(crate) manual: bool,
    /// URL requested.
    pub(crate) request_url: String,
    /// Header name to value, a JSON object.
    pub(crate) request_headers: String,
    /// HTTP status; none without a response.
    pub(crate) status_code: Option<u16>,
    /// Header name to value, a JSON object; none without a response.
    pub(crate) response_headers: Option<String>,
    /// At most 64 KiB; none without a response.
    pub(crate) response_body: Option<Vec<u8>>,
    /// True if the body was longer.
    pub(crate) response_truncated: bool,
    /// Error in the words of contract 6.1.
    pub(crate) error: Option<String>,
    pub(crate) duration_ms: u64,
    /// Time at which it began.
    pub(crate) created_at: Timestamp,
}

/// Stores an attempt of a delivery and removes one that is too old to be shown.
pub(crate) fn insert(connection: &Connection, delivery: DeliveryRowId, new: &Attempt) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO attempt (public_id, delivery_id, attempt, manual, request_url, request_headers, status_code,
                                  response_headers, response_body, response_truncated, error, duration_ms, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            new.public_id,
            delivery,
            new.attempt,
            new.manual,
            new.request_url,
            new.request_headers,
            new.status_code,
            new.response_headers,
            new.response_body,
            new.response_truncated,
            new.error,
            new.duration_ms,
            new.created_at.as_millis()
        ])?;
    if new.attempt > KEPT {
        connection
            .prepare_cached(
                "DELETE FROM attempt WHERE id IN
                   (SELECT id FROM attempt WHERE delivery_id = ?1 ORDER BY attempt DESC, id DESC LIMIT -1 OFFSET ?2)",
            )?
            .execute(params![delivery, KEPT])?;
    }
    Ok(())
}

/// Lists the attempts of a delivery, newest first.
pub(crate) fn list(connection: &Connection, delivery: DeliveryRowId) -> Result<Vec<Attempt>> {
    let rows = connection
        .prepare_cached(
            "SELECT public_id, attempt, manual, request_url, request_headers, status_code, response_headers,
                    response_body, response_truncated, error, duration_ms, created_at
             FROM attempt WHERE delivery_id = ?1 ORDER BY attempt DESC, id DESC LIMIT ?2",
        )?
        .query_map(params![delivery, KEPT], |row| {
            Ok(Attempt {
                public_id: row.get("public_id")?,
                attempt: row.get("attempt")?,
                manual: row.get("manual")?,
                request_url: row.get("request_url")?,
                request_headers: row.get("request_headers")?,
                status_code: row.get("status_code")?,
                response_headers: row.get("response_headers")?,
                response_body: row.get("response_body")?,
                response_truncated: row.get("response_truncated")?,
                error: row.get("error")?,
                duration_ms: row.get("duration_ms")?,
                created_at: Timestamp::from_millis(row.get("created_at")?),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Removes up to `limit` attempts older than `before`; returns the number removed.
pub(crate) fn delete_before(connection: &Connection, before: Timestamp, limit: u32) -> Result<usize> {
    // Row ids grow with time, so only the old end is read.
    let gone = connection
        .prepare_cached(
            "DELETE FROM attempt WHERE id IN
               (SELECT id FROM (SELECT id, created_at FROM attempt ORDER BY id LIMIT ?2) WHERE created_at < ?1)",
        )?
        .execute(params![before.as_millis(), limit])?;
    Ok(gone)
}
