//! Lists of an account's deliveries, newest first, filtered by state, domain, route and time.

use rusqlite::{Connection, OptionalExtension, params};

use super::deliveries::{self, DeliveryRow, DeliveryStatus};
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId, MessageRowId};
use crate::store::Result;

/// Deliveries examined for one page; a filter that matches few gives shorter pages.
const LOOKED_AT: usize = 20_000;

/// Filter of a list of deliveries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Only in this state.
    pub(crate) status: Option<DeliveryStatus>,
    /// Only of messages of this domain.
    pub(crate) domain: Option<DomainRowId>,
    /// Only of this route.
    pub(crate) route: Option<String>,
    /// Only of events at or after this time.
    pub(crate) since: Option<Timestamp>,
    /// Only of events before this time.
    pub(crate) until: Option<Timestamp>,
    /// Only those after this one in the list.
    pub(crate) before: Option<DeliveryRow>,
    /// Maximum number of deliveries.
    pub(crate) limit: usize,
}

/// A delivery with its message.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) delivery: DeliveryRow,
    /// Its message, while it is stored.
    pub(crate) message: Option<About>,
}

/// Summary of a message for a list.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) public_id: String,
    pub(crate) subject: Option<String>,
    /// From address.
    pub(crate) from_addr: String,
    /// Recipient.
    pub(crate) to_addr: String,
    /// Row id of its domain.
    pub(crate) domain: Option<DomainRowId>,
    /// Time of receipt.
    pub(crate) received_at: Timestamp,
}

/// Returns a page and the delivery after which the next page begins; none at the end.
pub(crate) fn list(
    connection: &Connection,
    account: AccountRowId,
    filter: &Filter,
) -> Result<(Vec<Listed>, Option<String>)> {
    // The literal term lets SQLite use the partial index.
    let state = match filter.status {
        Some(DeliveryStatus::Delivered) => "AND status = 'delivered'",
        Some(DeliveryStatus::Failed) => "AND status = 'failed' AND status <> 'delivered'",
        Some(DeliveryStatus::Pending) => "AND status = 'pending' AND status <> 'delivered'",
        None => "",
    };
    let statement = format!(
        "SELECT {} FROM delivery
         WHERE account_id = ?1 {state} AND created_at >= ?2 AND created_at < ?3 AND (created_at, id) < (?4, ?5)
         ORDER BY created_at DESC, id DESC LIMIT {LOOKED_AT}",
        deliveries::COLUMNS
    );
    let (created_at, id) =
        filter.before.as_ref().map_or((i64::MAX, i64::MAX), |row| (row.created_at.as_millis(), row.id.get()));
    let since = filter.since.map_or(i64::MIN, Timestamp::as_millis);
    let until = filter.until.map_or(i64::MAX, Timestamp::as_millis);
    let mut statement = connection.prepare_cached(&statement)?;
    let mut rows = statement.query(params![account, since, until, created_at, id])?;
    let (mut page, mut looked_at, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        if page.len() == filter.limit {
            return Ok((page, last));
        }
        let delivery = deliveries::read(row)?;
        looked_at += 1;
        last = Some(delivery.public_id.to_string());
        if filter.route.is_some() && delivery.route_id.as_ref().map(|route| route.as_str()) != filter.route.as_deref()
        {
            continue;
        }
        let message = delivery.message.map(|message| about(connection, message)).transpose()?.flatten();
        if filter.domain.is_none() || message.as_ref().and_then(|message| message.domain) == filter.domain {
            page.push(Listed { delivery, message });
        }
    }
    Ok((page, last.filter(|_| looked_at == LOOKED_AT)))
}

/// Finds the summary of a message, if it is stored.
pub(crate) fn about(connection: &Connection, message: MessageRowId) -> Result<Option<About>> {
    let mut statement = connection.prepare_cached(
        "SELECT public_id, subject, from_addr, to_addr, domain_id, received_at FROM message WHERE id = ?1",
    )?;
    let found = statement.query_row([message], |row| {
        Ok(About {
            public_id: row.get(0)?,
            subject: row.get(1)?,
            from_addr: row.get(2)?,
            to_addr: row.get(3)?,
            domain: row.get(4)?,
            received_at: Timestamp::from_millis(row.get(5)?),
        })
    });
    Ok(found.optional()?)
}
