//! Deliveries of an account, newest first, by state, domain, route and time.

use rusqlite::{Connection, OptionalExtension, params};

use super::deliveries::{self, DeliveryRow};
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId, MessageRowId};
use crate::store::Result;

/// Deliveries that one page looks at; a filter that few pass gives shorter pages.
const LOOKED_AT: usize = 20_000;

/// Which deliveries are listed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Only in this state.
    pub(crate) status: Option<&'static str>,
    /// Only of messages of this domain.
    pub(crate) domain: Option<DomainRowId>,
    /// Only of this route.
    pub(crate) route: Option<String>,
    /// Only of events at or after this time.
    pub(crate) since: Option<Timestamp>,
    /// Only of events before this time.
    pub(crate) until: Option<Timestamp>,
    /// Only those that follow this one.
    pub(crate) before: Option<DeliveryRow>,
    /// At most so many.
    pub(crate) limit: usize,
}

/// A delivery with its message.
#[derive(Debug)]
pub(crate) struct Listed {
    /// The delivery.
    pub(crate) delivery: DeliveryRow,
    /// Its message, while that is stored.
    pub(crate) message: Option<About>,
}

/// What a list says of a message.
#[derive(Debug)]
pub(crate) struct About {
    /// Public id.
    pub(crate) public_id: String,
    /// Subject.
    pub(crate) subject: Option<String>,
    /// Author.
    pub(crate) from_addr: String,
    /// Recipient.
    pub(crate) to_addr: String,
    /// Row id of its domain.
    pub(crate) domain: Option<DomainRowId>,
    /// When it arrived.
    pub(crate) received_at: Timestamp,
}

/// A page, and after which delivery the next one begins; none when there is no more.
pub(crate) fn list(
    connection: &Connection,
    account: AccountRowId,
    filter: &Filter,
) -> Result<(Vec<Listed>, Option<String>)> {
    // The literal term lets the partial index be used.
    let state = match filter.status {
        Some("delivered") => "AND status = 'delivered'",
        Some("failed") => "AND status = 'failed' AND status <> 'delivered'",
        Some(_) => "AND status = 'pending' AND status <> 'delivered'",
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

/// What a list says of a message, if it is stored.
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
