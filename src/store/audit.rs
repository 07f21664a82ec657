//! Queries of `mailkite audit`: everything that the rows promise must exist, and everything that waits must have its
//! job.
//!
//! Each query is a statement of its own, so that a long audit holds no snapshot while a server is running.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::Result;
use super::blobs::objects::Object;
use super::messages::removals;
use super::messages::removals::Reason;
use super::messages::{MessageStatus, mail_data, uploads};
use super::sending::recipients::RecipientStatus;
use super::webhooks::deliveries::DeliveryStatus;
use crate::clock::Timestamp;
use crate::id::MessageRowId;

/// Tables whose rows name objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Mail data.
    Mail,
    /// Uploaded files.
    Uploads,
}

/// Lists up to `limit` objects named by rows of a table, by row id after `after`.
pub(crate) fn list_objects(
    connection: &Connection,
    table: Table,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, Object)>> {
    let statement = match table {
        Table::Mail => {
            "SELECT id, file, size, checksum FROM mail_data WHERE file IS NOT NULL AND id > ?1 ORDER BY id LIMIT ?2"
        }
        Table::Uploads => "SELECT id, file, size, checksum FROM upload WHERE id > ?1 ORDER BY id LIMIT ?2",
    };
    let rows = connection
        .prepare_cached(statement)?
        .query_map(params![after, limit], |row| {
            Ok((row.get(0)?, Object { name: row.get(1)?, size: row.get(2)?, checksum: row.get(3)? }))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Returns true if any row names this object.
pub(crate) fn names_object(connection: &Connection, name: &str) -> Result<bool> {
    Ok(mail_data::names_file(connection, name)? || uploads::names_file(connection, name)?)
}

/// Returns true if this is a mailkite database of any version: `mail_data` was `raw` before schema 6.
pub(crate) fn has_tables(connection: &Connection) -> Result<bool> {
    let count: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('mail_data', 'raw', 'upload', 'message')",
        [],
        |row| row.get(0),
    )?;
    Ok(count == 3)
}

/// Returns the time at which the latest message was received or submitted.
pub(crate) fn latest_message(connection: &Connection) -> Result<Option<Timestamp>> {
    if !has_tables(connection)? {
        return Ok(None);
    }
    let latest = connection
        .query_row("SELECT received_at FROM message ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok(latest.map(Timestamp::from_millis))
}

/// Lists the public ids stored in an object: messages, or an upload.
pub(crate) fn owners(connection: &Connection, table: Table, row: i64) -> Result<Vec<String>> {
    let statement = match table {
        Table::Mail => "SELECT public_id FROM message WHERE mail_data_id = ?1 ORDER BY id",
        Table::Uploads => "SELECT public_id FROM upload WHERE id = ?1",
    };
    let mut statement = connection.prepare_cached(statement)?;
    let rows = statement.query_map([row], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns SQLite's findings about the file; none when it is sound.
pub(crate) fn quick_check(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA quick_check(20)")?;
    let rows: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(rows.into_iter().filter(|line| line != "ok").collect())
}

/// Returns SQLite's findings about the whole file, its indexes included, and rows that refer to missing ones; none when
/// it is sound.
pub(crate) fn integrity_check(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
    let rows: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut found: Vec<String> = rows.into_iter().filter(|line| line != "ok").collect();
    let mut statement =
        connection.prepare("SELECT \"table\", rowid, parent FROM pragma_foreign_key_check LIMIT 20")?;
    let rows = statement.query_map([], |row| {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        Ok(format!("row {:?} of {table} refers to a missing {parent}", row.get::<_, Option<i64>>(1)?.unwrap_or(0)))
    })?;
    for row in rows {
        found.push(row?);
    }
    Ok(found)
}

/// Numbers of what a database holds, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) messages: u64,
    /// Objects that rows of mail data and uploads name, and their octets.
    pub(crate) objects: u64,
    pub(crate) object_bytes: u64,
    /// Outgoing messages that wait, and webhook deliveries.
    pub(crate) outbound: u64,
    pub(crate) webhooks: u64,
}

/// Counts what a database holds.
pub(crate) fn contents(connection: &Connection) -> Result<Contents> {
    let contents = connection.query_row(
        "SELECT (SELECT count(*) FROM message),
                (SELECT count(*) FROM mail_data WHERE file IS NOT NULL) + (SELECT count(*) FROM upload),
                (SELECT coalesce(sum(size), 0) FROM mail_data WHERE file IS NOT NULL)
                + (SELECT coalesce(sum(size), 0) FROM upload),
                (SELECT count(*) FROM job WHERE kind IN ('dispatch', 'scheduled_send')),
                (SELECT count(*) FROM job WHERE kind IN ('webhook', 'zero_retention'))",
        [],
        |row| {
            Ok(Contents {
                messages: row.get(0)?,
                objects: row.get(1)?,
                object_bytes: row.get(2)?,
                outbound: row.get(3)?,
                webhooks: row.get(4)?,
            })
        },
    )?;
    Ok(contents)
}

/// Lists rows whose counterpart is missing, by a description of each kind, with up to `limit` of their names.
pub(crate) fn strays(connection: &Connection, limit: u32) -> Result<Vec<(&'static str, Vec<String>)>> {
    const QUESTIONS: &[(&str, &str)] = &[
        (
            "message without its mail data",
            "SELECT public_id FROM message
             WHERE mail_data_id IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM mail_data WHERE mail_data.id = message.mail_data_id)
             LIMIT ?1",
        ),
        (
            "outbound delivery without its mail data",
            "SELECT 'number ' || id FROM dispatch
             WHERE mail_data_id IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM mail_data WHERE mail_data.id = dispatch.mail_data_id)
             LIMIT ?1",
        ),
        (
            "pending delivery that nothing will attempt",
            "SELECT public_id FROM delivery
             WHERE status = 'pending'
               AND NOT EXISTS (SELECT 1 FROM job WHERE job.subject_id = delivery.id AND job.kind = 'webhook')
             LIMIT ?1",
        ),
        (
            "waiting recipient that nothing will attempt",
            "SELECT DISTINCT 'number ' || dispatch_id FROM recipient
             WHERE status IN ('queued', 'deferred')
               AND NOT EXISTS (SELECT 1 FROM job WHERE job.subject_id = dispatch_id AND job.kind = 'dispatch')
             LIMIT ?1",
        ),
        (
            "scheduled message that nothing will send",
            "SELECT public_id FROM message
             WHERE direction = 'outbound' AND status = 'scheduled'
               AND NOT EXISTS (SELECT 1 FROM job WHERE job.subject_id = message.id AND job.kind = 'scheduled_send')
             LIMIT ?1",
        ),
    ];
    let mut found = Vec::new();
    for (what, question) in QUESTIONS {
        let names: Vec<String> =
            connection.prepare(question)?.query_map([limit], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        if !names.is_empty() {
            found.push((*what, names));
        }
    }
    Ok(found)
}

/// Final state of an acknowledged message or upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MessageState {
    /// A receiver accepted it: a webhook, or the remote host of every recipient.
    Delivered,
    /// It can be read.
    Stored,
    /// An attempt is still to be made.
    Pending,
    /// It failed, as its row records.
    Failed,
    /// Canceled by its sender.
    Canceled,
    /// Dropped by its webhook's control answer.
    DroppedByReceiver,
    /// Removed for this reason.
    Gone(Reason),
    /// No row, and no record of a removal.
    Lost,
}

/// Data to determine the state of many ids.
#[derive(Debug)]
pub(crate) struct MessageStates {
    gone: HashMap<i64, Reason>,
    in_transit: HashSet<String>,
}

impl MessageStates {
    /// Loads the data.
    pub(crate) fn load(connection: &Connection) -> Result<Self> {
        // Mail in transit first: it leaves its removal note when it goes.
        let mut statement = connection.prepare("SELECT event ->> '$.id' FROM zero_retention_delivery")?;
        let in_transit = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(Self { in_transit, gone: removals::load(connection)? })
    }

    /// Determines the state of a message or an upload.
    pub(crate) fn find(&self, connection: &Connection, id: &str) -> Result<MessageState> {
        if self.in_transit.contains(id) {
            return Ok(MessageState::Pending);
        }
        let message = connection
            .prepare_cached("SELECT id, status FROM message WHERE public_id = ?1")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((message, status)) = message {
            return match status {
                MessageStatus::Received => state_of_received(connection, message),
                MessageStatus::Dropped => Ok(MessageState::DroppedByReceiver),
                MessageStatus::Scheduled | MessageStatus::Queued | MessageStatus::Deferred => {
                    Ok(MessageState::Pending)
                }
                MessageStatus::Canceled => Ok(MessageState::Canceled),
                MessageStatus::Sent => Ok(MessageState::Delivered),
                MessageStatus::Bounced | MessageStatus::Failed => Ok(MessageState::Failed),
            };
        }
        if connection.prepare_cached("SELECT 1 FROM upload WHERE public_id = ?1")?.exists([id])? {
            return Ok(MessageState::Stored);
        }
        Ok(self.gone.get(&removals::name_hash(id)).map_or(MessageState::Lost, |reason| MessageState::Gone(*reason)))
    }
}

/// Derives the state from its deliveries to webhooks and to the addresses that routes forward it to.
fn state_of_received(connection: &Connection, message: MessageRowId) -> Result<MessageState> {
    let (mut pending, mut delivered, mut failed) = (false, false, false);
    let mut deliveries = connection.prepare_cached("SELECT status FROM delivery WHERE message_id = ?1")?;
    for status in deliveries.query_map([message], |row| row.get(0))? {
        match status? {
            DeliveryStatus::Pending => pending = true,
            DeliveryStatus::Delivered => delivered = true,
            DeliveryStatus::Failed => failed = true,
        }
    }
    let mut recipients = connection.prepare_cached(
        "SELECT recipient.status FROM dispatch JOIN recipient ON dispatch_id = dispatch.id WHERE message_id = ?1",
    )?;
    for status in recipients.query_map([message], |row| row.get(0))? {
        match status? {
            RecipientStatus::Queued | RecipientStatus::Deferred | RecipientStatus::Scheduled => pending = true,
            RecipientStatus::Sent => delivered = true,
            RecipientStatus::Bounced | RecipientStatus::Failed | RecipientStatus::Canceled => failed = true,
        }
    }
    Ok(match (pending, delivered, failed) {
        (true, ..) => MessageState::Pending,
        (_, true, _) => MessageState::Delivered,
        (_, _, true) => MessageState::Failed,
        _ => MessageState::Stored,
    })
}
