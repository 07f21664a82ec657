//! Messages in the order of their time, in pages, for the export.

use rusqlite::{Connection, params};

use super::Direction;
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId, MessageRowId};
use crate::store::Result;

/// Messages to export.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) account: AccountRowId,
    pub(crate) domain: Option<DomainRowId>,
    pub(crate) direction: Option<Direction>,
    /// The first time.
    pub(crate) since: Timestamp,
    /// The first time after the last one.
    pub(crate) until: Timestamp,
}

/// Lists up to `limit` messages received after `after`, oldest first, with their times.
pub(crate) fn page(
    connection: &Connection,
    selection: &Selection,
    after: Timestamp,
    limit: u32,
) -> Result<Vec<(MessageRowId, Timestamp)>> {
    let rows = connection
        .prepare_cached(
            "SELECT id, received_at FROM message
             WHERE account_id = ?1 AND received_at > ?2 AND received_at >= ?3 AND received_at < ?4
               AND (?5 IS NULL OR domain_id = ?5) AND (?6 IS NULL OR direction = ?6)
             ORDER BY received_at LIMIT ?7",
        )?
        .query_map(
            params![
                selection.account,
                after.as_millis(),
                selection.since.as_millis(),
                selection.until.as_millis(),
                selection.domain,
                selection.direction,
                limit
            ],
            |row| Ok((row.get(0)?, Timestamp::from_millis(row.get(1)?))),
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}
