//! Stored messages that a route could be given now (contract 6.4): a walk in bounded steps, newest first.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Row, params};

use super::MessageRow;
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId, MessageRowId, RouteId};
use crate::store::Result;

/// Rows that one call looks at.
pub const SCAN_MAX: u32 = 2_000;
/// How long one call looks: a regex may take a while for each row.
const SCAN_TIME: Duration = Duration::from_millis(250);

/// Whose candidates are asked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// The account.
    pub account: AccountRowId,
    /// The domain of the route's match; none for a regex.
    pub domain: Option<DomainRowId>,
    /// The route.
    pub route: RouteId,
    /// Only messages older than this.
    pub before: Option<Timestamp>,
    /// How many at most.
    pub limit: usize,
}

/// A message that the route covers.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The message.
    pub message: MessageRow,
    /// Whether it was delivered to this very route.
    pub delivered_here: bool,
}

/// One step of the walk.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Newest first; may be fewer than asked for although there are more.
    pub found: Vec<Candidate>,
    /// Where to go on; none at the end.
    pub next_before: Option<Timestamp>,
}

/// The received messages, their content still there, whose recipient (lower-cased) `matches` the route; looks at no
/// more than [`SCAN_MAX`] rows.
pub fn list(connection: &Connection, query: &Query, matches: impl Fn(&str) -> bool) -> Result<Candidates> {
    // One index each: the walk is in its order and ends with the page.
    let whose = if query.domain.is_some() { "domain_id = ?2" } else { "?2 IS NULL AND domain_id IS NOT NULL" };
    let index = if query.domain.is_some() { "message_by_domain" } else { "message_by_time" };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, to_addr, received_at, direction = 'inbound' AND status = 'received' FROM message INDEXED BY {index}
         WHERE account_id = ?1 AND {whose} AND received_at < ?3
         ORDER BY received_at DESC LIMIT ?4"
    ))?;
    let before = query.before.map_or(i64::MAX, Timestamp::as_millis);
    let mut rows = statement.query(params![query.account, query.domain, before, SCAN_MAX + 1])?;
    let mut step = Candidates::default();
    let started = Instant::now();
    let mut seen = 0;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let tired = seen == SCAN_MAX || (seen > 0 && started.elapsed() > SCAN_TIME);
        if tired || step.found.len() >= query.limit {
            step.next_before = last;
            break;
        }
        seen += 1;
        last = Some(Timestamp::from_millis(row.get(2)?));
        if is_covered(row, &matches)? {
            step.found.extend(candidate(connection, row.get(0)?, &query.route)?);
        }
    }
    Ok(step)
}

fn is_covered(row: &Row<'_>, matches: &impl Fn(&str) -> bool) -> Result<bool> {
    Ok(row.get(3)? && matches(&row.get_ref(1)?.as_str().unwrap_or_default().to_lowercase()))
}

fn candidate(connection: &Connection, id: MessageRowId, route: &RouteId) -> Result<Option<Candidate>> {
    let delivered_here = connection
        .prepare_cached(
            "SELECT 1 FROM delivery WHERE message_id = ?1 AND route_id = ?2 AND status = 'delivered' LIMIT 1",
        )?
        .exists(params![id, route])?;
    Ok(super::find_by_row(connection, id)?.map(|message| Candidate { message, delivered_here }))
}
