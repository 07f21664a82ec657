//! Webhook deliveries: one event to one endpoint (contract 6.1).

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, DeliveryId, DeliveryRowId, DomainRowId, JobRowId, MessageId, MessageRowId, RouteId};
use crate::store::Result;
use crate::store::stored_enum::stored_enum;

stored_enum! {
    /// State of a delivery (contract 6.1).
    pub(crate) enum DeliveryStatus in "delivery status" {
        /// An attempt is still to be made.
        Pending = "pending",
        Delivered = "delivered",
        Failed = "failed",
    }
}

/// Data of a new delivery of a received message.
#[derive(Clone, Debug)]
pub(crate) struct NewDelivery<'a> {
    pub(crate) account_id: AccountRowId,
    pub(crate) message: MessageRowId,
    /// Public id of the message, which is also the event's id.
    pub(crate) message_id: &'a MessageId,
    /// Route that requests it.
    pub(crate) route_id: &'a RouteId,
    /// URL of the route at this time.
    pub(crate) url: &'a str,
}

/// A delivery as stored.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryRow {
    /// Row id.
    pub(crate) id: DeliveryRowId,
    pub(crate) public_id: DeliveryId,
    pub(crate) account_id: AccountRowId,
    /// Row of the message; none when the event refers to no message.
    pub(crate) message: Option<MessageRowId>,
    /// The route; none for a tracking webhook.
    pub(crate) route_id: Option<RouteId>,
    /// Id by which the receiver detects duplicates.
    pub(crate) event_id: String,
    /// Event type, such as `email.received`.
    pub(crate) event_type: String,
    /// URL of the latest attempt.
    pub(crate) url: String,
    pub(crate) status: DeliveryStatus,
    /// Number of recorded attempts.
    pub(crate) attempts: u32,
    /// HTTP status of the last attempt that got a response.
    pub(crate) last_status_code: Option<u16>,
    /// Error of the last attempt (contract 6.1).
    pub(crate) last_error: Option<String>,
    /// Planned time of the next attempt.
    pub(crate) next_attempt_at: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
    /// Time of the last change.
    pub(crate) updated_at: Timestamp,
}

/// State of a delivery after an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Progress<'a> {
    pub(crate) status: DeliveryStatus,
    /// URL requested.
    pub(crate) url: &'a str,
    /// HTTP status, if there was a response.
    pub(crate) status_code: Option<u16>,
    /// Error, if it failed.
    pub(crate) error: Option<&'a str>,
    /// Planned time of the next attempt.
    pub(crate) next_attempt_at: Option<Timestamp>,
}

/// Reads [`COLUMNS`] by position: finding each by its name would take as long as the query.
pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        id: row.get(0)?,
        public_id: row.get(1)?,
        account_id: row.get(2)?,
        message: row.get(3)?,
        route_id: row.get(4)?,
        event_id: row.get(5)?,
        event_type: row.get(6)?,
        url: row.get(7)?,
        status: row.get(8)?,
        attempts: row.get(9)?,
        last_status_code: row.get(10)?,
        last_error: row.get(11)?,
        next_attempt_at: row.get::<_, Option<i64>>(12)?.map(Timestamp::from_millis),
        created_at: Timestamp::from_millis(row.get(13)?),
        updated_at: Timestamp::from_millis(row.get(14)?),
    })
}

pub(crate) const COLUMNS: &str =
    "id, public_id, account_id, message_id, route_id, event_id, event_type, url, status, attempts,
     last_status_code, last_error, next_attempt_at, created_at, updated_at";

/// Stores the deliveries of a received message; returns their rows.
pub(crate) fn insert_received(
    connection: &Connection,
    new: &[NewDelivery<'_>],
    now: Timestamp,
) -> Result<Vec<DeliveryRow>> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO delivery (public_id, account_id, message_id, route_id, event_id, event_type, url, status,
                               next_attempt_at, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, 'email.received', ?6, 'pending', ?7, ?7, ?7)",
    )?;
    let insert = |new: &NewDelivery<'_>| {
        let public_id = DeliveryId::new(now);
        statement.execute(params![
            public_id,
            new.account_id,
            new.message,
            new.route_id,
            new.message_id,
            new.url,
            now.as_millis()
        ])?;
        Ok(DeliveryRow {
            id: DeliveryRowId::new(connection.last_insert_rowid()),
            public_id,
            account_id: new.account_id,
            message: Some(new.message),
            route_id: Some(new.route_id.clone()),
            event_id: new.message_id.to_string(),
            event_type: "email.received".to_owned(),
            url: new.url.to_owned(),
            status: DeliveryStatus::Pending,
            attempts: 0,
            last_status_code: None,
            last_error: None,
            next_attempt_at: Some(now),
            created_at: now,
            updated_at: now,
        })
    };
    new.iter().map(insert).collect()
}

/// Inserts the delivery of a stored message to a route that requests it later (contract 6.4); returns its row id.
///
/// It has no job, so nothing attempts it automatically: it is `failed` until an attempt succeeds.
pub(crate) fn insert_replayed(
    connection: &Connection,
    new: &NewDelivery<'_>,
    now: Timestamp,
) -> Result<DeliveryRowId> {
    let made = insert_received(connection, std::slice::from_ref(new), now)?.pop();
    let id = made.ok_or(crate::store::Error::Corrupt("delivery"))?.id;
    connection
        .prepare_cached("UPDATE delivery SET status = 'failed', next_attempt_at = NULL WHERE id = ?1")?
        .execute([id])?;
    Ok(id)
}

/// Finds a delivery by row id.
pub(crate) fn find_by_row(connection: &Connection, id: DeliveryRowId) -> Result<Option<DeliveryRow>> {
    let statement = format!("SELECT {COLUMNS} FROM delivery WHERE id = ?1");
    Ok(connection.prepare_cached(&statement)?.query_row([id], read).optional()?)
}

/// Finds a delivery by public id.
pub(crate) fn find(connection: &Connection, id: &DeliveryId) -> Result<Option<DeliveryRow>> {
    let statement = format!("SELECT {COLUMNS} FROM delivery WHERE public_id = ?1");
    Ok(connection.prepare_cached(&statement)?.query_row([id], read).optional()?)
}

/// Finds a delivery of an account by public id; with a `domain`, only if its message belongs to that domain.
pub(crate) fn find_in_scope(
    connection: &Connection,
    id: &DeliveryId,
    account: AccountRowId,
    domain: Option<DomainRowId>,
) -> Result<Option<DeliveryRow>> {
    let statement = format!(
        "SELECT {COLUMNS} FROM delivery
         WHERE public_id = ?1 AND account_id = ?2 AND (?3 IS NULL OR EXISTS (
           SELECT 1 FROM message WHERE message.id = delivery.message_id AND message.domain_id = ?3))"
    );
    Ok(connection.prepare_cached(&statement)?.query_row(params![id, account, domain], read).optional()?)
}

/// Lists the latest delivery of a message to each route, oldest first.
pub(crate) fn list_latest(connection: &Connection, message: MessageRowId) -> Result<Vec<DeliveryRow>> {
    let statement = format!(
        "SELECT {COLUMNS} FROM delivery
         WHERE id IN (SELECT max(id) FROM delivery WHERE message_id = ?1 GROUP BY route_id) ORDER BY id"
    );
    let rows = connection.prepare_cached(&statement)?.query_map([message], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Finds the delivery of a received message to a route.
pub(crate) fn find_received(
    connection: &Connection,
    message: MessageRowId,
    route: &RouteId,
) -> Result<Option<DeliveryRow>> {
    let statement = format!(
        "SELECT {COLUMNS} FROM delivery
         WHERE message_id = ?1 AND route_id = ?2 AND event_type = 'email.received' ORDER BY id DESC LIMIT 1"
    );
    Ok(connection.prepare_cached(&statement)?.query_row(params![message, route], read).optional()?)
}

/// Lists the deliveries of a message, oldest first.
pub(crate) fn list_by_message(connection: &Connection, message: MessageRowId) -> Result<Vec<DeliveryRow>> {
    let statement = format!("SELECT {COLUMNS} FROM delivery WHERE message_id = ?1 ORDER BY id");
    let rows = connection.prepare_cached(&statement)?.query_map([message], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Records the result of an attempt in its delivery.
pub(crate) fn record_attempt(
    connection: &Connection,
    id: DeliveryRowId,
    attempts: u32,
    progress: &Progress<'_>,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE delivery
             SET status = ?2, attempts = ?3, url = ?4, last_status_code = coalesce(?5, last_status_code),
                 last_error = ?6, next_attempt_at = ?7, updated_at = ?8
             WHERE id = ?1",
        )?
        .execute(params![
            id,
            progress.status,
            attempts,
            progress.url,
            progress.status_code,
            progress.error,
            progress.next_attempt_at.map(Timestamp::as_millis),
            now.as_millis()
        ])?;
    Ok(())
}

/// Ends a delivery without an attempt, when its route or its message was removed.
pub(crate) fn end(connection: &Connection, id: DeliveryRowId, error: &str, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE delivery SET status = 'failed', last_error = ?2, next_attempt_at = NULL, updated_at = ?3
             WHERE id = ?1 AND status = 'pending'",
        )?
        .execute(params![id, error, now.as_millis()])?;
    Ok(())
}

/// Ends the pending deliveries of a message; their jobs find them ended and finish.
pub(crate) fn end_by_message(
    connection: &Connection,
    message: MessageRowId,
    error: &str,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE delivery SET status = 'failed', last_error = ?2, next_attempt_at = NULL, updated_at = ?3
             WHERE message_id = ?1 AND status = 'pending'",
        )?
        .execute(params![message, error, now.as_millis()])?;
    Ok(())
}

/// Numbers of a message's deliveries by state, and the latest delivery (contract 5.3).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeliveryCounts {
    pub(crate) delivered: u64,
    /// Failed permanently.
    pub(crate) failed: u64,
    /// Still being attempted.
    pub(crate) pending: u64,
    /// Attempts of the latest delivery, if there is one.
    pub(crate) latest_attempts: Option<u32>,
    /// HTTP status of the latest delivery.
    pub(crate) latest_status_code: Option<u16>,
}

/// Counts the deliveries of a message.
pub(crate) fn counts(connection: &Connection, message: MessageRowId) -> Result<DeliveryCounts> {
    Ok(counts_by_message(connection, &[message])?.pop().unwrap_or_default())
}

/// Counts the deliveries of each of these messages, in their order.
pub(crate) fn counts_by_message(connection: &Connection, messages: &[MessageRowId]) -> Result<Vec<DeliveryCounts>> {
    let mut statement = connection.prepare_cached(
        "SELECT status, attempts, last_status_code FROM delivery WHERE message_id = ?1 ORDER BY id",
    )?;
    let mut all = Vec::with_capacity(messages.len());
    for message in messages {
        let mut counts = DeliveryCounts::default();
        let mut rows = statement.query([message])?;
        while let Some(row) = rows.next()? {
            match row.get(0)? {
                DeliveryStatus::Delivered => counts.delivered += 1,
                DeliveryStatus::Failed => counts.failed += 1,
                DeliveryStatus::Pending => counts.pending += 1,
            }
            counts.latest_attempts = row.get(1)?;
            counts.latest_status_code = row.get(2)?;
        }
        all.push(counts);
    }
    Ok(all)
}

/// Lists up to `limit` pending deliveries of these routes with their jobs, whose job id is above `after`, as pairs of
/// job and delivery.
///
/// Walks the job table from there, so it belongs on a reader's connection.
pub(crate) fn list_pending_of_routes(
    connection: &Connection,
    routes: &[RouteId],
    after: JobRowId,
    limit: u32,
) -> Result<Vec<(JobRowId, DeliveryRowId)>> {
    let routes = serde_json::to_string(routes).unwrap_or_default();
    let rows = connection
        .prepare_cached(
            "SELECT job.id, delivery.id FROM job CROSS JOIN delivery ON delivery.id = job.subject_id
             WHERE job.kind = 'webhook' AND job.id > ?1 AND delivery.status = 'pending'
               AND delivery.route_id IN (SELECT value FROM json_each(?2))
             ORDER BY job.id LIMIT ?3",
        )?
        .query_map(params![after, routes, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Lists the row ids of these messages' deliveries.
pub(crate) fn list_ids_of_messages(connection: &Connection, messages: &[MessageRowId]) -> Result<Vec<DeliveryRowId>> {
    let rows = connection
        .prepare_cached("SELECT id FROM delivery WHERE message_id IN (SELECT value FROM json_each(?1))")?
        .query_map([crate::store::id_list(messages)], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Detaches the deliveries of a message from it: pending ones end as `message_gone`, and captured bodies are removed
/// (contract 5.5).
pub(crate) fn detach_from_message(connection: &Connection, message: MessageRowId, now: Timestamp) -> Result<()> {
    end_by_message(connection, message, "message_gone", now)?;
    connection
        .prepare_cached("DELETE FROM attempt WHERE delivery_id IN (SELECT id FROM delivery WHERE message_id = ?1)")?
        .execute([message])?;
    connection.prepare_cached("UPDATE delivery SET message_id = NULL WHERE message_id = ?1")?.execute([message])?;
    Ok(())
}

/// Removes up to `limit` ended deliveries without a message whose last change was before `before`; returns the number
/// removed.
pub fn delete_detached(connection: &Connection, before: Timestamp, limit: u32) -> Result<usize> {
    let gone = connection
        .prepare_cached(
            "DELETE FROM delivery WHERE id IN
               (SELECT id FROM delivery
                WHERE message_id IS NULL AND status <> 'pending' AND updated_at < ?1 LIMIT ?2)",
        )?
        .execute(params![before.as_millis(), limit])?;
    Ok(gone)
}

/// Removes the deliveries of a message with their attempts.
pub(crate) fn delete_by_message(connection: &Connection, message: MessageRowId) -> Result<()> {
    connection.prepare_cached("DELETE FROM delivery WHERE message_id = ?1")?.execute([message])?;
    Ok(())
}
