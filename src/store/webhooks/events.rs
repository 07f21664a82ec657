//! Deliveries of sending events, whose payload is stored (contract 9.7).

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, DeliveryId, DeliveryRowId, DomainRowId, EventId, MessageRowId, RouteId};
use crate::store::Result;

/// Data of a sending event's delivery.
#[derive(Clone, Debug)]
pub(crate) struct NewEvent<'a> {
    pub(crate) account_id: AccountRowId,
    pub(crate) message: MessageRowId,
    /// Route that receives it; none for a tracking webhook.
    pub(crate) route_id: Option<&'a RouteId>,
    /// Domain whose tracking webhook receives it; none for a route.
    pub(crate) domain: Option<DomainRowId>,
    /// Id by which the receiver detects duplicates.
    pub(crate) event_id: &'a EventId,
    /// Event type, such as `email.sent`.
    pub(crate) event_type: &'a str,
    /// URL of the webhook at this time.
    pub(crate) url: &'a str,
    /// The whole request body.
    pub(crate) payload: &'a str,
}

/// Stores the delivery of a sending event; returns its row id.
pub(crate) fn insert(connection: &Connection, new: &NewEvent<'_>, now: Timestamp) -> Result<DeliveryRowId> {
    connection
        .prepare_cached(
            "INSERT INTO delivery (public_id, account_id, message_id, route_id, domain_id, event_id, event_type, url,
                                   payload, status, next_attempt_at, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'pending', ?10, ?10, ?10)",
        )?
        .execute(params![
            DeliveryId::new(now),
            new.account_id,
            new.message,
            new.route_id,
            new.domain,
            new.event_id,
            new.event_type,
            new.url,
            new.payload,
            now.as_millis()
        ])?;
    Ok(crate::id::RowId::new(connection.last_insert_rowid()))
}

/// Returns true if an event of this type about a recipient of a message was sent to a webhook before.
pub(crate) fn was_raised(connection: &Connection, message: MessageRowId, event_type: &str, to: &str) -> Result<bool> {
    let found = connection
        .prepare_cached(
            "SELECT 1 FROM delivery
             WHERE message_id = ?1 AND event_type = ?2 AND payload IS NOT NULL
               AND json_extract(payload, '$.data.to') = ?3",
        )?
        .exists(params![message, event_type, to])?;
    Ok(found)
}

/// Returns the stored payload of a delivery; none when it is made from the message.
pub(crate) fn payload_of(connection: &Connection, delivery: DeliveryRowId) -> Result<Option<String>> {
    let found = connection
        .prepare_cached("SELECT payload FROM delivery WHERE id = ?1")?
        .query_row([delivery], |row| row.get(0))
        .optional()?;
    Ok(found.flatten())
}

/// Returns the domain whose tracking webhook a delivery goes to.
pub(crate) fn domain_of(connection: &Connection, delivery: DeliveryRowId) -> Result<Option<DomainRowId>> {
    let found = connection
        .prepare_cached("SELECT domain_id FROM delivery WHERE id = ?1")?
        .query_row([delivery], |row| row.get(0))
        .optional()?;
    Ok(found.flatten())
}

/// Removes up to `limit` payloads of deliveries made before `before`; returns the number removed.
pub(crate) fn forget_payloads(connection: &Connection, before: Timestamp, limit: u32) -> Result<usize> {
    let gone = connection
        .prepare_cached(
            "UPDATE delivery SET payload = NULL WHERE id IN (
               SELECT id FROM delivery INDEXED BY delivery_payload
               WHERE payload IS NOT NULL AND created_at < ?1 LIMIT ?2)",
        )?
        .execute(params![before.as_millis(), limit])?;
    Ok(gone)
}
