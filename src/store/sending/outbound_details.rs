//! Outbound messages: their rows, and details that only few of them have: several header recipients, metadata, a
//! scheduled time, a failure.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId, MailDataRowId, MessageId, MessageRowId, ScheduledId};
use crate::store::blobs::objects::Objects;
use crate::store::messages::{MessageStatus, mail_data};
use crate::store::{Result, messages};

/// Data of a new outbound message.
#[derive(Clone, Debug)]
pub(crate) struct NewOutbound {
    pub(crate) public_id: MessageId,
    pub(crate) account_id: AccountRowId,
    /// Domain of the From address.
    pub(crate) domain_id: DomainRowId,
    /// Queued or scheduled.
    pub(crate) status: MessageStatus,
    /// Bounce address.
    pub(crate) mail_from: String,
    /// The From address.
    pub(crate) from_addr: String,
    /// Display name of the From address.
    pub(crate) from_name: Option<String>,
    /// All of To and Cc, joined with a comma.
    pub(crate) to_addr: String,
    /// Display name of the one recipient in To and Cc.
    pub(crate) to_name: Option<String>,
    pub(crate) subject: Option<String>,
    /// Message-ID, with angle brackets.
    pub(crate) message_id_header: Option<String>,
    /// Id of its conversation.
    pub(crate) thread_id: Option<String>,
    pub(crate) attachment_count: usize,
    /// Octets as queued.
    pub(crate) size: u64,
    /// Row of the mail data.
    pub(crate) mail_data_id: MailDataRowId,
}

/// Stores a new outbound message; returns its row id.
pub(crate) fn insert_message(connection: &Connection, new: &NewOutbound, now: Timestamp) -> Result<MessageRowId> {
    let received_at = messages::free_millisecond(connection, new.account_id, now)?;
    let account_total =
        crate::store::accounts::limits::add_message(connection, new.account_id, new.size, received_at)?;
    connection
        .prepare_cached(
            "INSERT INTO message (public_id, account_id, domain_id, direction, status, mail_from, from_addr, from_name,
                                  to_addr, to_name, subject, message_id_header, thread_id, trace, attachment_count,
                                  size, mail_data_id, received_at, account_total)
             VALUES (?1, ?2, ?3, 'outbound', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, '', ?13, ?14, ?15, ?16, ?17)",
        )?
        .execute(params![
            new.public_id,
            new.account_id,
            new.domain_id,
            new.status,
            new.mail_from,
            new.from_addr,
            new.from_name,
            new.to_addr,
            new.to_name,
            new.subject,
            new.message_id_header,
            new.thread_id,
            new.attachment_count,
            new.size,
            new.mail_data_id,
            received_at.as_millis(),
            account_total
        ])?;
    Ok(crate::id::RowId::new(connection.last_insert_rowid()))
}

/// Changes the state of an outbound message (contract 8.5).
pub(crate) fn set_send_status(connection: &Connection, id: MessageRowId, status: MessageStatus) -> Result<()> {
    connection
        .prepare_cached("UPDATE message SET status = ?2 WHERE id = ?1 AND direction = 'outbound' AND status <> ?2")?
        .execute(params![id, status])?;
    Ok(())
}

/// Details of an outbound message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Submission {
    /// JSON: To and Cc as shown in contract 5.3; none when the message's own columns hold them.
    pub(crate) header_to: Option<String>,
    /// JSON object.
    pub(crate) metadata: Option<String>,
    /// Id of the scheduled send.
    pub(crate) scheduled_id: Option<ScheduledId>,
    /// Time to send it.
    pub(crate) scheduled_at: Option<Timestamp>,
    /// Reason why the message is `failed`.
    pub(crate) failure: Option<String>,
    /// Address that is notified of delivery failures.
    pub(crate) return_to: Option<String>,
}

impl Submission {
    /// Returns true if there is nothing to store.
    pub(crate) const fn is_empty(&self) -> bool {
        self.header_to.is_none()
            && self.metadata.is_none()
            && self.scheduled_id.is_none()
            && self.failure.is_none()
            && self.return_to.is_none()
    }
}

const COLUMNS: &str = "header_to, metadata, scheduled_id, scheduled_at, failure, return_to";

fn read(row: &Row<'_>) -> rusqlite::Result<Submission> {
    Ok(Submission {
        header_to: row.get("header_to")?,
        metadata: row.get("metadata")?,
        scheduled_id: row.get("scheduled_id")?,
        scheduled_at: row.get::<_, Option<i64>>("scheduled_at")?.map(Timestamp::from_millis),
        failure: row.get("failure")?,
        return_to: row.get("return_to")?,
    })
}

/// Stores a row.
pub(crate) fn insert(connection: &Connection, message: MessageRowId, new: &Submission) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO outbound_detail (message_id, header_to, metadata, scheduled_id, scheduled_at, failure,
                                     return_to)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            message,
            new.header_to,
            new.metadata,
            new.scheduled_id,
            new.scheduled_at.map(Timestamp::as_millis),
            new.failure,
            new.return_to
        ])?;
    Ok(())
}

/// Finds the details of a message.
pub(crate) fn find(connection: &Connection, message: MessageRowId) -> Result<Option<Submission>> {
    let statement = format!("SELECT {COLUMNS} FROM outbound_detail WHERE message_id = ?1");
    Ok(connection.prepare_cached(&statement)?.query_row([message], read).optional()?)
}

/// Finds the message of a scheduled send.
pub(crate) fn find_scheduled(connection: &Connection, id: &ScheduledId) -> Result<Option<MessageRowId>> {
    let found = connection
        .prepare_cached("SELECT message_id FROM outbound_detail WHERE scheduled_id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Returns true if a message accepted for sending can never be sent: some recipient did not get it, and its mail data
/// is missing. A message that was removed since is not lost.
pub(crate) fn is_lost(connection: &Connection, objects: &Objects, id: &MessageId) -> Result<bool> {
    let mail_data_id: Option<MailDataRowId> = connection
        .prepare_cached(
            "SELECT mail_data_id FROM message
             WHERE public_id = ?1 AND mail_data_id IS NOT NULL AND EXISTS (
               SELECT 1 FROM dispatch JOIN recipient ON recipient.dispatch_id = dispatch.id
               WHERE dispatch.message_id = message.id AND recipient.status <> 'sent')",
        )?
        .query_row([id], |row| row.get(0))
        .optional()?;
    mail_data_id.map_or(Ok(false), |id| mail_data::is_whole(connection, objects, id).map(|whole| !whole))
}

/// Does the same as [`is_lost`] for a scheduled send.
pub(crate) fn is_scheduled_lost(connection: &Connection, objects: &Objects, id: &ScheduledId) -> Result<bool> {
    let Some(message) = find_scheduled(connection, id)? else { return Ok(false) };
    match messages::find_name(connection, message)? {
        Some((name, _)) => MessageId::parse(&name).map_or(Ok(false), |name| is_lost(connection, objects, &name)),
        None => Ok(false),
    }
}

/// Records the reason why a message failed.
pub(crate) fn set_failure(connection: &Connection, message: MessageRowId, failure: &str) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO outbound_detail (message_id, failure) VALUES (?1, ?2)
             ON CONFLICT (message_id) DO UPDATE SET failure = excluded.failure",
        )?
        .execute(params![message, failure])?;
    Ok(())
}
