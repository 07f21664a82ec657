//! Stored messages that a route could receive now (contract 6.4): a walk in bounded steps, newest first.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Row, params};

use super::MessageRow;
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId, MessageRowId, RouteId};
use crate::store::Result;

/// Maximum number of rows read by one call.
pub const SCAN_MAX: u32 = 2_000;
/// Time limit of one call: a regex may take a while for each row.
const SCAN_TIME: Duration = Duration::from_millis(250);

/// Selection of candidates.
#[derive(Clone, Debug)]
pub struct Query {
    /// Account that owns the messages.
    pub account: AccountRowId,
    /// Domain of the route's match; none for a regex.
    pub domain: Option<DomainRowId>,
    /// Route to replay to.
    pub route: RouteId,
    /// Only messages older than this.
    pub before: Option<Timestamp>,
    /// Maximum number of candidates.
    pub limit: usize,
}

/// A message that the route matches.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The message.
    pub message: MessageRow,
    /// True if it was delivered to this route before.
    pub delivered_here: bool,
}

/// Result of one step of the walk.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Newest first; may be fewer than requested although there are more.
    pub found: Vec<Candidate>,
    /// Value of `before` for the next step; none at the end.
    pub next_before: Option<Timestamp>,
}

/// Lists received messages with existing content whose recipient (lower-cased) `matches` the route; reads no more than
/// [`SCAN_MAX`] rows.
pub fn list(connection: &Connection, query: &Query, matches: impl Fn(&str) -> bool) -> Result<Candidates> {
    // Each case has one index: the walk follows its order and ends with the page.
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
