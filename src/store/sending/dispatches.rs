//! Dispatches: the part of a message that goes to one destination.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, DispatchRowId, MailDataRowId, MessageRowId, RouteId};
use crate::store::Result;
use crate::store::messages::mail_data;

/// Data of a new dispatch.
#[derive(Clone, Debug)]
pub(crate) struct NewDispatch<'a> {
    pub(crate) account_id: AccountRowId,
    /// The message; none when nothing else of it is stored.
    pub(crate) message: Option<MessageRowId>,
    /// Route that forwards it; none for a submitted message.
    pub(crate) route_id: Option<&'a RouteId>,
    /// Domain that selects the smarthost.
    pub(crate) sending_domain: &'a str,
    /// Domain of the recipients; none when they have several.
    pub(crate) domain: Option<&'a str>,
    /// Envelope sender; empty for the null reverse-path.
    pub(crate) reverse_path: &'a str,
    /// Header fields to prepend to the mail data.
    pub(crate) prefix: &'a str,
    /// Row of the raw copy.
    pub(crate) mail_data_id: MailDataRowId,
    /// JSON details of a forwarded message; none for a submitted one.
    pub(crate) forwarding: Option<&'a str>,
}

/// A dispatch as stored.
#[derive(Clone, Debug)]
pub(crate) struct DispatchRow {
    pub(crate) id: DispatchRowId,
    pub(crate) account_id: AccountRowId,
    /// The message; none when nothing else of it is stored.
    pub(crate) message: Option<MessageRowId>,
    /// Route that forwards it; none for a submitted message.
    pub(crate) route_id: Option<RouteId>,
    /// Domain that selects the smarthost.
    pub(crate) sending_domain: String,
    /// Domain of the recipients; none when they have several.
    pub(crate) domain: Option<String>,
    /// Envelope sender; empty for the null reverse-path.
    pub(crate) reverse_path: String,
    /// Header fields to prepend to the mail data.
    pub(crate) prefix: String,
    /// Row of the raw copy, while a recipient is unsettled.
    pub(crate) mail_data_id: Option<MailDataRowId>,
    /// Start of the queue lifetime.
    pub(crate) queued_at: Timestamp,
    /// Attempts made.
    pub(crate) attempts: u32,
    /// Time of the last attempt.
    pub(crate) attempted_at: Option<Timestamp>,
    /// Remote host that decided the last attempt.
    pub(crate) host: Option<String>,
    /// TLS of that connection.
    pub(crate) tls: Option<String>,
    /// SMTP dialog of that connection.
    pub(crate) transcript: Option<String>,
    /// JSON details of a forwarded message; none for a submitted one.
    pub(crate) forwarding: Option<String>,
}

/// Result of an attempt, as recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DispatchAttempt<'a> {
    /// Remote host that decided it.
    pub(crate) host: Option<&'a str>,
    /// TLS of that connection.
    pub(crate) tls: Option<&'a str>,
    /// SMTP dialog of that connection.
    pub(crate) transcript: &'a str,
}

const COLUMNS: &str =
    "id, account_id, message_id, route_id, sending_domain, domain, reverse_path, prefix, mail_data_id,
     queued_at, attempts, attempted_at, host, tls, transcript, forwarding";

fn read(row: &Row<'_>) -> rusqlite::Result<DispatchRow> {
    Ok(DispatchRow {
        id: row.get("id")?,
        account_id: row.get("account_id")?,
        message: row.get("message_id")?,
        route_id: row.get("route_id")?,
        sending_domain: row.get("sending_domain")?,
        domain: row.get("domain")?,
        reverse_path: row.get("reverse_path")?,
        prefix: row.get("prefix")?,
        mail_data_id: row.get("mail_data_id")?,
        queued_at: Timestamp::from_millis(row.get("queued_at")?),
        attempts: row.get("attempts")?,
        attempted_at: row.get::<_, Option<i64>>("attempted_at")?.map(Timestamp::from_millis),
        host: row.get("host")?,
        tls: row.get("tls")?,
        transcript: row.get("transcript")?,
        forwarding: row.get("forwarding")?,
    })
}

/// Stores a dispatch; returns its row id.
pub(crate) fn insert(connection: &Connection, new: NewDispatch<'_>, queued_at: Timestamp) -> Result<DispatchRowId> {
    let made = insert_all(connection, &[new], queued_at)?.pop();
    made.ok_or(crate::store::Error::Corrupt("dispatch"))
}

/// Stores dispatches; returns their row ids.
pub(crate) fn insert_all(
    connection: &Connection,
    new: &[NewDispatch<'_>],
    queued_at: Timestamp,
) -> Result<Vec<DispatchRowId>> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO dispatch (account_id, message_id, route_id, sending_domain, domain, reverse_path, prefix,
                               mail_data_id, queued_at, forwarding)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let insert = |new: &NewDispatch<'_>| {
        statement.execute(params![
            new.account_id,
            new.message,
            new.route_id,
            new.sending_domain,
            new.domain,
            new.reverse_path,
            new.prefix,
            new.mail_data_id,
            queued_at.as_millis(),
            new.forwarding
        ])?;
        Ok(DispatchRowId::new(connection.last_insert_rowid()))
    };
    new.iter().map(insert).collect()
}

/// Finds a dispatch by row id.
pub(crate) fn find(connection: &Connection, id: DispatchRowId) -> Result<Option<DispatchRow>> {
    let statement = format!("SELECT {COLUMNS} FROM dispatch WHERE id = ?1");
    Ok(connection.prepare_cached(&statement)?.query_row([id], read).optional()?)
}

/// Lists the dispatches of a message, oldest first.
pub(crate) fn list_by_message(connection: &Connection, message: MessageRowId) -> Result<Vec<DispatchRow>> {
    let statement = format!("SELECT {COLUMNS} FROM dispatch WHERE message_id = ?1 ORDER BY id");
    let rows = connection.prepare_cached(&statement)?.query_map([message], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Lists up to `limit` dispatches with unsettled recipients whose id is above `after`.
pub(crate) fn list_unsettled(connection: &Connection, after: DispatchRowId, limit: u32) -> Result<Vec<DispatchRow>> {
    let statement =
        format!("SELECT {COLUMNS} FROM dispatch WHERE mail_data_id IS NOT NULL AND id > ?1 ORDER BY id LIMIT ?2");
    let rows = connection
        .prepare_cached(&statement)?
        .query_map(params![after, limit], read)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Starts the queue lifetime, when a scheduled message is released.
pub(crate) fn set_queued_at(connection: &Connection, id: DispatchRowId, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE dispatch SET queued_at = ?2 WHERE id = ?1")?
        .execute(params![id, now.as_millis()])?;
    Ok(())
}

/// Records an attempt.
pub(crate) fn record_attempt(
    connection: &Connection,
    id: DispatchRowId,
    made: DispatchAttempt<'_>,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE dispatch SET attempts = attempts + 1, attempted_at = ?2, host = ?3, tls = ?4, transcript = ?5
             WHERE id = ?1",
        )?
        .execute(params![id, now.as_millis(), made.host, made.tls, made.transcript])?;
    Ok(())
}

/// Drops the reference to the raw copy from a dispatch that is never attempted; its message holds the copy itself.
pub(crate) fn postpone(connection: &Connection, id: DispatchRowId) -> Result<()> {
    connection.prepare_cached("UPDATE dispatch SET mail_data_id = NULL, prefix = '' WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Ends a dispatch whose recipients are all settled: drops its reference to the raw copy, which a message may still
/// hold, and removes the dispatch if nothing of it is to be kept. Returns the file to remove after the commit.
pub(crate) fn finish(connection: &Connection, dispatch: &DispatchRow) -> Result<Option<String>> {
    let is_unstored = dispatch.message.is_none();
    let statement = if is_unstored {
        "DELETE FROM dispatch WHERE id = ?1"
    } else {
        "UPDATE dispatch SET mail_data_id = NULL, prefix = '' WHERE id = ?1"
    };
    connection.prepare_cached(statement)?.execute([dispatch.id])?;
    // The message of a settled dispatch keeps its copy for the API; checking for it costs a search.
    match dispatch.mail_data_id {
        Some(mail_data) if is_unstored => mail_data::release(connection, mail_data),
        Some(mail_data) if !holds_mail_data(connection, dispatch.message, mail_data)? => {
            mail_data::release(connection, mail_data)
        }
        Some(_) | None => Ok(None),
    }
}

fn holds_mail_data(connection: &Connection, message: Option<MessageRowId>, mail_data: MailDataRowId) -> Result<bool> {
    let held = connection
        .prepare_cached("SELECT 1 FROM message WHERE id = ?1 AND mail_data_id = ?2")?
        .exists(params![message, mail_data])?;
    Ok(held)
}

/// Removes the dispatches of a message with their jobs; a running attempt is no longer recorded.
pub(crate) fn delete_by_message(connection: &Connection, message: MessageRowId) -> Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM job WHERE kind = 'dispatch'
               AND subject_id IN (SELECT id FROM dispatch WHERE message_id = ?1)",
        )?
        .execute([message])?;
    connection.prepare_cached("DELETE FROM dispatch WHERE message_id = ?1")?.execute([message])?;
    Ok(())
}
