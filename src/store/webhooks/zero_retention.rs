//! Zero-retention mail on its way to one webhook (contract 3.8); each row has its job and its raw copy.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, MailDataRowId, RouteId, ZeroRetentionRowId};
use crate::store::Result;
use crate::store::messages::mail_data;

/// Data of a new row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewZeroRetention<'a> {
    pub(crate) account_id: AccountRowId,
    /// Route that requests it.
    pub(crate) route_id: &'a RouteId,
    /// JSON: the payload without the mail's own content.
    pub(crate) event: &'a str,
    /// Row of the raw copy.
    pub(crate) mail_data_id: MailDataRowId,
}

/// A row as stored.
#[derive(Clone, Debug)]
pub(crate) struct ZeroRetentionRow {
    pub(crate) id: ZeroRetentionRowId,
    pub(crate) account_id: AccountRowId,
    /// Route that requests it.
    pub(crate) route_id: RouteId,
    /// JSON: the payload without the mail's own content.
    pub(crate) event: String,
    /// Row of the raw copy.
    pub(crate) mail_data_id: MailDataRowId,
    /// Time of acceptance.
    pub(crate) created_at: Timestamp,
}

fn read(row: &Row<'_>) -> rusqlite::Result<ZeroRetentionRow> {
    Ok(ZeroRetentionRow {
        id: row.get("id")?,
        account_id: row.get("account_id")?,
        route_id: row.get("route_id")?,
        event: row.get("event")?,
        mail_data_id: row.get("mail_data_id")?,
        created_at: Timestamp::from_millis(row.get("created_at")?),
    })
}

/// Stores a row; returns its id.
pub(crate) fn insert(
    connection: &Connection,
    new: NewZeroRetention<'_>,
    now: Timestamp,
) -> Result<ZeroRetentionRowId> {
    connection
        .prepare_cached(
            "INSERT INTO zero_retention_delivery (account_id, route_id, event, mail_data_id, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![new.account_id, new.route_id, new.event, new.mail_data_id, now.as_millis()])?;
    Ok(crate::id::RowId::new(connection.last_insert_rowid()))
}

/// Finds a row by its id.
pub(crate) fn find(connection: &Connection, id: ZeroRetentionRowId) -> Result<Option<ZeroRetentionRow>> {
    let found = connection
        .prepare_cached(
            "SELECT id, account_id, route_id, event, mail_data_id, created_at FROM zero_retention_delivery
             WHERE id = ?1",
        )?
        .query_row([id], read)
        .optional()?;
    Ok(found)
}

/// Lists up to `limit` rows accepted before `before`, oldest first.
pub(crate) fn list_created_before(
    connection: &Connection,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<ZeroRetentionRow>> {
    let rows: Vec<ZeroRetentionRow> = connection
        .prepare_cached(
            "SELECT id, account_id, route_id, event, mail_data_id, created_at FROM zero_retention_delivery
             ORDER BY id LIMIT ?1",
        )?
        .query_map([limit], read)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows.into_iter().filter(|row| row.created_at < before).collect())
}

/// Removes a row and, with the last row that names it, the raw copy; returns the file to remove after the commit.
pub(crate) fn finish(connection: &Connection, row: &ZeroRetentionRow) -> Result<Option<String>> {
    let removed =
        connection.prepare_cached("DELETE FROM zero_retention_delivery WHERE id = ?1")?.execute([row.id])?;
    if removed == 0 { Ok(None) } else { mail_data::release(connection, row.mail_data_id) }
}
