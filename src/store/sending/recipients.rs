//! Recipients of dispatches and their state (contract 8.5).

use rusqlite::{Connection, Row, params};

use crate::clock::Timestamp;
use crate::id::{DispatchRowId, MessageRowId};
use crate::store::Result;
use crate::store::messages::MessageStatus;
use crate::store::stored_enum::stored_enum;

stored_enum! {
    /// State of a recipient (contract 8.5).
    pub(crate) enum RecipientStatus in "recipient status" {
        Scheduled = "scheduled",
        Canceled = "canceled",
        Queued = "queued",
        /// Tried, and to be tried again.
        Deferred = "deferred",
        /// A host accepted the message for it.
        Sent = "sent",
        /// A report said so after a host had accepted it.
        Bounced = "bounced",
        Failed = "failed",
    }
}

impl RecipientStatus {
    /// Returns true while it is still to be delivered.
    pub(crate) const fn is_unsettled(self) -> bool {
        matches!(self, Self::Queued | Self::Deferred)
    }
}

impl From<RecipientStatus> for MessageStatus {
    fn from(status: RecipientStatus) -> Self {
        match status {
            RecipientStatus::Scheduled => Self::Scheduled,
            RecipientStatus::Canceled => Self::Canceled,
            RecipientStatus::Queued => Self::Queued,
            RecipientStatus::Deferred => Self::Deferred,
            RecipientStatus::Sent => Self::Sent,
            RecipientStatus::Bounced => Self::Bounced,
            RecipientStatus::Failed => Self::Failed,
        }
    }
}

/// A recipient as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecipientRow {
    pub(crate) dispatch: DispatchRowId,
    /// Position in the message, from 0.
    pub(crate) idx: u32,
    /// As written, `local@domain`.
    pub(crate) address: String,
    pub(crate) status: RecipientStatus,
    /// Reply code that decided the state.
    pub(crate) smtp_code: Option<u16>,
    /// The reply, or our own explanation.
    pub(crate) diagnostic: Option<String>,
    /// Time of the last change.
    pub(crate) updated_at: Timestamp,
}

impl RecipientRow {
    /// Returns true while it is still to be delivered.
    pub(crate) const fn is_unsettled(&self) -> bool {
        self.status.is_unsettled()
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<RecipientRow> {
    Ok(RecipientRow {
        dispatch: row.get(0)?,
        idx: row.get(1)?,
        address: row.get(2)?,
        status: row.get(3)?,
        smtp_code: row.get(4)?,
        diagnostic: row.get(5)?,
        updated_at: Timestamp::from_millis(row.get(6)?),
    })
}

const COLUMNS: &str = "dispatch_id, idx, address, recipient.status, smtp_code, diagnostic, updated_at";

/// Stores recipients, each with its dispatch and in the order in which the message names them.
pub(crate) fn insert_all(
    connection: &Connection,
    new: &[(DispatchRowId, String)],
    status: RecipientStatus,
    now: Timestamp,
) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO recipient (dispatch_id, idx, address, status, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (idx, (dispatch, address)) in new.iter().enumerate() {
        statement.execute(params![dispatch, idx, address, status, now.as_millis()])?;
    }
    Ok(())
}

/// Lists the recipients of a dispatch, in their order.
pub(crate) fn list(connection: &Connection, dispatch: DispatchRowId) -> Result<Vec<RecipientRow>> {
    let statement = format!("SELECT {COLUMNS} FROM recipient WHERE dispatch_id = ?1 ORDER BY idx");
    let rows =
        connection.prepare_cached(&statement)?.query_map([dispatch], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Lists the recipients that a message was sent to, in their order, without those that routes forwarded it to.
pub(crate) fn list_by_message(connection: &Connection, message: MessageRowId) -> Result<Vec<RecipientRow>> {
    let statement = format!(
        "SELECT {COLUMNS} FROM dispatch JOIN recipient ON recipient.dispatch_id = dispatch.id
         WHERE dispatch.message_id = ?1 AND dispatch.route_id IS NULL ORDER BY idx"
    );
    let rows = connection.prepare_cached(&statement)?.query_map([message], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// New state of a recipient.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecipientState<'a> {
    pub(crate) status: RecipientStatus,
    /// Reply code that decided it.
    pub(crate) smtp_code: Option<u16>,
    /// The reply, or our own explanation.
    pub(crate) diagnostic: Option<&'a str>,
}

/// Changes the state of a recipient.
pub(crate) fn settle(
    connection: &Connection,
    dispatch: DispatchRowId,
    idx: u32,
    state: RecipientState<'_>,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE recipient SET status = ?3, smtp_code = ?4, diagnostic = ?5, updated_at = ?6
             WHERE dispatch_id = ?1 AND idx = ?2",
        )?
        .execute(params![dispatch, idx, state.status, state.smtp_code, state.diagnostic, now.as_millis()])?;
    Ok(())
}

/// Changes the state of a message's recipients that are in the state `from`.
pub(crate) fn set_status_of_message(
    connection: &Connection,
    message: MessageRowId,
    from: RecipientStatus,
    status: RecipientStatus,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE recipient SET status = ?3, updated_at = ?4
             WHERE status = ?2 AND dispatch_id IN (SELECT id FROM dispatch WHERE message_id = ?1)",
        )?
        .execute(params![message, from, status, now.as_millis()])?;
    Ok(())
}

/// Derives a message's state from its recipients (contract 8.5).
pub(crate) fn send_status(connection: &Connection, message: MessageRowId) -> Result<MessageStatus> {
    let statuses: Vec<RecipientStatus> = connection
        .prepare_cached(
            "SELECT DISTINCT recipient.status FROM dispatch JOIN recipient ON recipient.dispatch_id = dispatch.id
             WHERE dispatch.message_id = ?1 AND dispatch.route_id IS NULL",
        )?
        .query_map([message], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let order = [
        RecipientStatus::Deferred,
        RecipientStatus::Queued,
        RecipientStatus::Scheduled,
        RecipientStatus::Bounced,
        RecipientStatus::Failed,
        RecipientStatus::Canceled,
    ];
    let first = order.into_iter().find(|status| statuses.contains(status));
    Ok(first.unwrap_or(RecipientStatus::Sent).into())
}
