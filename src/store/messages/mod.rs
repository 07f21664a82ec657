//! Messages: one row per message and envelope recipient.

pub(crate) mod attachments;
pub(crate) mod dedup;
pub(crate) mod export;
pub(crate) mod imports;
pub(crate) mod list;
pub(crate) mod mail_data;
pub(crate) mod removals;
pub(crate) mod replay_candidates;
pub(crate) mod uploads;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Result;
use super::search::DeletedMessage;
use super::stored_enum::stored_enum;
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId, MailDataRowId, MessageId, MessageRowId};
pub(crate) use list::{Filter, list};

stored_enum! {
    /// State of a message (contract 5.2, 8.5).
    pub(crate) enum MessageStatus in "message status" {
        /// Inbound.
        Received = "received",
        /// Inbound; its content is gone on a receiver's request.
        Dropped = "dropped",
        Scheduled = "scheduled",
        Canceled = "canceled",
        Queued = "queued",
        /// Tried, and to be tried again.
        Deferred = "deferred",
        /// Accepted by the remote host of every recipient.
        Sent = "sent",
        /// A report said so after a host had accepted it.
        Bounced = "bounced",
        Failed = "failed",
    }
}

stored_enum! {
    /// Direction of a message.
    pub(crate) enum Direction in "message direction" {
        Inbound = "inbound",
        Outbound = "outbound",
    }
}

stored_enum! {
    /// Verdict of the spam check.
    pub(crate) enum SpamVerdict in "spam verdict" {
        Ham = "ham",
        Spam = "spam",
    }
}

impl MessageStatus {
    /// Returns true while some recipient waits for it.
    pub(crate) const fn is_waiting(self) -> bool {
        matches!(self, Self::Scheduled | Self::Queued | Self::Deferred)
    }
}

/// Data of a new inbound message.
#[derive(Clone, Debug)]
pub(crate) struct NewMessage {
    pub(crate) public_id: MessageId,
    /// Account of the recipient.
    pub(crate) account_id: AccountRowId,
    /// Domain of the recipient; none for the host name itself.
    pub(crate) domain_id: Option<DomainRowId>,
    /// Public id of the route that decided (contract 5.2).
    pub(crate) route_id: Option<String>,
    /// Envelope sender; empty for the null reverse-path.
    pub(crate) mail_from: String,
    /// Author (contract 5.2).
    pub(crate) from_addr: String,
    /// Display name of that address in the header.
    pub(crate) from_name: Option<String>,
    /// The one envelope recipient.
    pub(crate) to_addr: String,
    /// Display name of that address in the header.
    pub(crate) to_name: Option<String>,
    pub(crate) subject: Option<String>,
    /// Its own Message-ID, with angle brackets.
    pub(crate) message_id_header: Option<String>,
    /// Id of its conversation (contract 5.2).
    pub(crate) thread_id: Option<String>,
    /// SPF verdict; null when not checked.
    pub(crate) spf: Option<&'static str>,
    /// DKIM verdict.
    pub(crate) dkim: Option<&'static str>,
    /// DMARC verdict.
    pub(crate) dmarc: Option<&'static str>,
    /// None when not checked.
    pub(crate) spam: Option<SpamVerdict>,
    /// Trace fields to prepend to it.
    pub(crate) trace: String,
    /// True if MIME limits cut the parsing short.
    pub(crate) truncated: bool,
    pub(crate) attachment_count: usize,
    /// Octets as received.
    pub(crate) size: u64,
    /// Row of the mail data.
    pub(crate) mail_data_id: MailDataRowId,
}

impl NewMessage {
    /// Returns the row as stored.
    pub(crate) fn into_row(self, id: MessageRowId, received_at: Timestamp) -> MessageRow {
        MessageRow {
            id,
            public_id: self.public_id,
            account_id: self.account_id,
            domain_id: self.domain_id,
            route_id: self.route_id,
            direction: Direction::Inbound,
            status: MessageStatus::Received,
            mail_from: self.mail_from,
            from_addr: self.from_addr,
            from_name: self.from_name,
            to_addr: self.to_addr,
            to_name: self.to_name,
            subject: self.subject,
            message_id_header: self.message_id_header,
            thread_id: self.thread_id,
            spf: self.spf.map(str::to_owned),
            dkim: self.dkim.map(str::to_owned),
            dmarc: self.dmarc.map(str::to_owned),
            spam: self.spam,
            spam_on_arrival: self.spam,
            trace: self.trace,
            attachment_count: self.attachment_count,
            size: self.size,
            mail_data_id: Some(self.mail_data_id),
            body: None,
            received_at,
        }
    }
}

/// A message as stored.
#[derive(Clone, Debug)]
pub struct MessageRow {
    /// Row id.
    pub id: MessageRowId,
    /// Public id.
    pub(crate) public_id: MessageId,
    /// Account that owns it.
    pub(crate) account_id: AccountRowId,
    /// Its domain, which may be gone; none for the host name itself.
    pub(crate) domain_id: Option<DomainRowId>,
    /// Public id of the route that decided.
    pub(crate) route_id: Option<String>,
    pub(crate) direction: Direction,
    pub(crate) status: MessageStatus,
    /// Envelope sender.
    pub(crate) mail_from: String,
    /// Author.
    pub(crate) from_addr: String,
    /// Display name of that address.
    pub(crate) from_name: Option<String>,
    /// The one envelope recipient.
    pub(crate) to_addr: String,
    /// Display name of that address.
    pub(crate) to_name: Option<String>,
    /// Decoded subject.
    pub subject: Option<String>,
    /// Its own Message-ID.
    pub(crate) message_id_header: Option<String>,
    /// Id of its conversation.
    pub(crate) thread_id: Option<String>,
    /// SPF verdict.
    pub(crate) spf: Option<String>,
    /// DKIM verdict.
    pub(crate) dkim: Option<String>,
    /// DMARC verdict.
    pub(crate) dmarc: Option<String>,
    /// Current spam verdict.
    pub(crate) spam: Option<SpamVerdict>,
    /// Spam verdict on arrival, as reported in the payload.
    pub(crate) spam_on_arrival: Option<SpamVerdict>,
    /// Trace fields to prepend to it; empty in a list.
    pub(crate) trace: String,
    pub(crate) attachment_count: usize,
    /// Octets as received.
    pub(crate) size: u64,
    /// Row of the mail data, while it exists.
    pub(crate) mail_data_id: Option<MailDataRowId>,
    /// Text, html and headers once the raw copy is gone; none in a list.
    pub(crate) body: Option<Vec<u8>>,
    /// Time of acceptance; unique within the account.
    pub(crate) received_at: Timestamp,
}

const COLUMNS: &str =
    "id, public_id, account_id, domain_id, route_id, status, mail_from, from_addr, from_name, to_addr, to_name,
     subject, message_id_header, thread_id, spf, dkim, dmarc, spam, spam_on_arrival, trace, attachment_count,
     size, mail_data_id, body, received_at, direction";

/// The same without columns that no list shows and that may be large.
pub(super) const LIST_COLUMNS: &str =
    "id, public_id, account_id, domain_id, route_id, status, mail_from, from_addr, from_name, to_addr, to_name,
     subject, message_id_header, thread_id, spf, dkim, dmarc, spam, spam_on_arrival, '', attachment_count,
     size, mail_data_id, NULL, received_at, direction";

/// Reads [`COLUMNS`] by position: finding each by its name would take as long as the query.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    Ok(MessageRow {
        id: row.get(0)?,
        public_id: row.get(1)?,
        account_id: row.get(2)?,
        domain_id: row.get(3)?,
        route_id: row.get(4)?,
        status: row.get(5)?,
        mail_from: row.get(6)?,
        from_addr: row.get(7)?,
        from_name: row.get(8)?,
        to_addr: row.get(9)?,
        to_name: row.get(10)?,
        subject: row.get(11)?,
        message_id_header: row.get(12)?,
        thread_id: row.get(13)?,
        spf: row.get(14)?,
        dkim: row.get(15)?,
        dmarc: row.get(16)?,
        spam: row.get(17)?,
        spam_on_arrival: row.get(18)?,
        trace: row.get(19)?,
        attachment_count: row.get(20)?,
        size: row.get(21)?,
        mail_data_id: row.get(22)?,
        body: row.get(23)?,
        received_at: Timestamp::from_millis(row.get(24)?),
        direction: row.get(25)?,
    })
}

/// Stores a new inbound message; returns its row id and the millisecond assigned to it.
pub(crate) fn insert(connection: &Connection, new: &NewMessage, now: Timestamp) -> Result<(MessageRowId, Timestamp)> {
    let received_at = free_millisecond(connection, new.account_id, now)?;
    Ok((insert_at(connection, new, received_at)?, received_at))
}

/// Stores a new inbound message at a millisecond that no message of the account has.
fn insert_at(connection: &Connection, new: &NewMessage, received_at: Timestamp) -> Result<MessageRowId> {
    let account_total = super::accounts::limits::add_message(connection, new.account_id, new.size, received_at)?;
    connection
        .prepare_cached(
            "INSERT INTO message (public_id, account_id, domain_id, route_id, direction, status, mail_from, from_addr,
                                  from_name, to_addr, to_name, subject, message_id_header, thread_id,
                                  spf, dkim, dmarc, spam, spam_on_arrival, trace, truncated, attachment_count,
                                  size, mail_data_id, received_at, account_total)
             VALUES (?1, ?2, ?3, ?4, 'inbound', 'received', ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,
                     ?13, ?14, ?15, ?16, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)",
        )?
        .execute(params![
            new.public_id,
            new.account_id,
            new.domain_id,
            new.route_id,
            new.mail_from,
            new.from_addr,
            new.from_name,
            new.to_addr,
            new.to_name,
            new.subject,
            new.message_id_header,
            new.thread_id,
            new.spf,
            new.dkim,
            new.dmarc,
            new.spam,
            new.trace,
            new.truncated,
            new.attachment_count,
            new.size,
            new.mail_data_id,
            received_at.as_millis(),
            account_total
        ])?;
    Ok(crate::id::RowId::new(connection.last_insert_rowid()))
}

/// Returns `now` or, on a tie, the next millisecond that no message of the account has (contract 1.8).
pub(super) fn free_millisecond(connection: &Connection, account: AccountRowId, now: Timestamp) -> Result<Timestamp> {
    /// Beyond this the latest row is not part of a burst: the clock was set back.
    const BURST_MILLIS: i64 = 3_600_000;
    let last: Option<i64> = connection
        .prepare_cached("SELECT max(received_at) FROM message WHERE account_id = ?1")?
        .query_row([account], |row| row.get(0))?;
    match last {
        Some(last) if last >= now.as_millis() && last - now.as_millis() <= BURST_MILLIS => {
            Ok(Timestamp::from_millis(last + 1))
        }
        Some(last) if last >= now.as_millis() => unused_millisecond(connection, account, now),
        _ => Ok(now),
    }
}

/// Returns `at` or the next millisecond that no message of the account has.
fn unused_millisecond(connection: &Connection, account: AccountRowId, at: Timestamp) -> Result<Timestamp> {
    let free = connection
        .prepare_cached(
            "SELECT ?2 WHERE NOT EXISTS (SELECT 1 FROM message WHERE account_id = ?1 AND received_at = ?2)
             UNION ALL
             SELECT * FROM (
               SELECT taken.received_at + 1 FROM message AS taken
               WHERE taken.account_id = ?1 AND taken.received_at >= ?2 AND NOT EXISTS (
                 SELECT 1 FROM message AS next
                 WHERE next.account_id = ?1 AND next.received_at = taken.received_at + 1)
               ORDER BY taken.received_at LIMIT 1)
             LIMIT 1",
        )?
        .query_row(params![account, at.as_millis()], |row| row.get(0))?;
    Ok(Timestamp::from_millis(free))
}

/// Finds a message by row id.
pub(crate) fn find_by_row(connection: &Connection, id: MessageRowId) -> Result<Option<MessageRow>> {
    let statement = format!("SELECT {COLUMNS} FROM message WHERE id = ?1");
    Ok(connection.prepare_cached(&statement)?.query_row([id], read).optional()?)
}

/// Finds a message's public id and domain.
pub(crate) fn find_name(connection: &Connection, id: MessageRowId) -> Result<Option<(String, Option<DomainRowId>)>> {
    let mut statement = connection.prepare_cached("SELECT public_id, domain_id FROM message WHERE id = ?1")?;
    Ok(statement.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// Finds a message by public id.
pub fn find(connection: &Connection, id: &MessageId) -> Result<Option<MessageRow>> {
    let statement = format!("SELECT {COLUMNS} FROM message WHERE public_id = ?1");
    Ok(connection.prepare_cached(&statement)?.query_row([id], read).optional()?)
}

/// Counts the outbound messages that an account created from `start` on and before `end`.
pub(crate) fn count_outbound(
    connection: &Connection,
    account: AccountRowId,
    start: Timestamp,
    end: Timestamp,
) -> Result<u64> {
    Ok(connection
        .prepare_cached(
            "SELECT count(*) FROM message
             WHERE account_id = ?1 AND direction = 'outbound' AND received_at >= ?2 AND received_at < ?3",
        )?
        .query_row(params![account, start.as_millis(), end.as_millis()], |row| row.get(0))?)
}

/// Marks a message as spam on a receiver's request (contract 9.4).
pub(crate) fn mark_spam(connection: &Connection, id: MessageRowId) -> Result<()> {
    connection.prepare_cached("UPDATE message SET spam = 'spam' WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Drops a message's content on a receiver's request: the row stays, its bytes do not (contract 9.4).
///
/// Returns the raw copy that it used, for [`mail_data::release`].
pub(crate) fn mark_dropped(connection: &Connection, id: MessageRowId) -> Result<Option<MailDataRowId>> {
    let mail_data_id: Option<MailDataRowId> = connection
        .prepare_cached("SELECT mail_data_id FROM message WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?
        .flatten();
    connection
        .prepare_cached(
            "UPDATE message SET status = 'dropped', mail_data_id = NULL, body = NULL, attachment_count = 0 WHERE id = ?1",
        )?
        .execute([id])?;
    Ok(mail_data_id)
}

/// Replaces the raw copy by the text, html and headers that stay readable after it.
pub(crate) fn set_body(connection: &Connection, id: MessageRowId, body: &[u8]) -> Result<()> {
    connection
        .prepare_cached("UPDATE message SET mail_data_id = NULL, body = ?2 WHERE id = ?1")?
        .execute(params![id, body])?;
    Ok(())
}

/// Lists the messages that still use this raw copy.
pub(crate) fn list_by_mail_data(connection: &Connection, id: MailDataRowId) -> Result<Vec<MessageRowId>> {
    let rows = connection
        .prepare_cached("SELECT id FROM message WHERE mail_data_id = ?1")?
        .query_map([id], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Lists up to `limit` messages past their retention, oldest first: the domain's own days, else the default.
pub(crate) fn list_expired(
    connection: &Connection,
    default_days: u32,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<(MessageRowId, Option<MailDataRowId>)>> {
    // Walks each account's time index from its old end to the shortest retention of all; messages of domains with a
    // longer one are read again at each sweep.
    const DAY_MILLIS: i64 = 86_400_000;
    let rows = connection
        .prepare_cached(
            "SELECT message.id, message.mail_data_id
             FROM account
             JOIN message ON message.account_id = account.id
             LEFT JOIN domain ON domain.id = message.domain_id
             WHERE message.status NOT IN ('scheduled', 'queued', 'deferred')
               AND message.received_at < ?1 - ?3 * min(?2, (SELECT coalesce(min(retention_days), ?2) FROM domain))
               AND message.received_at < ?1 - ?3 * coalesce(domain.retention_days, ?2)
             LIMIT ?4",
        )?
        .query_map(params![now.as_millis(), default_days, DAY_MILLIS, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Finds the row id of an account's message; with a `domain`, only if it belongs to that domain.
pub(crate) fn find_in_scope(
    connection: &Connection,
    id: &MessageId,
    account: AccountRowId,
    domain: Option<DomainRowId>,
) -> Result<Option<MessageRowId>> {
    let found = connection
        .prepare_cached(
            "SELECT id FROM message
             WHERE public_id = ?1 AND account_id = ?2 AND (?3 IS NULL OR domain_id = ?3)",
        )?
        .query_row(params![id, account, domain], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Returns true if the content of an inbound message still exists; `None` for any other message or none.
pub(crate) fn replayable(connection: &Connection, id: MessageRowId) -> Result<Option<bool>> {
    let found = connection
        .prepare_cached("SELECT status = 'received' FROM message WHERE id = ?1 AND direction = 'inbound'")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Removes a message row with its attachments and its entries in the search index and threads.
pub(crate) fn delete(connection: &Connection, id: MessageRowId) -> Result<()> {
    let gone = connection
        .prepare_cached("DELETE FROM message WHERE id = ?1 RETURNING account_id, received_at, thread_id")?
        .query_row([id], |row| {
            Ok(DeletedMessage { id, account: row.get(0)?, received_at: row.get(1)?, thread: row.get(2)? })
        })
        .optional()?;
    gone.map_or(Ok(()), |gone| super::search::remove(connection, &gone))
}
