//! The queue of outbound mail for its operator's commands, also while a server is running.

use rusqlite::{Connection, OptionalExtension, params};

use super::dispatches::{self, DispatchRow};
use super::outbound_details;
use super::recipients::{self, RecipientRow, RecipientState, RecipientStatus};
use crate::clock::Timestamp;
use crate::id::{DispatchRowId, MessageId};
use crate::store::Result;
use crate::store::jobs;
use crate::store::jobs::lane_pauses;
use crate::store::jobs::lane_pauses::Pause;
use crate::store::jobs::{JobKind, JobSubject};
use crate::store::messages;
use crate::store::messages::{Direction, MessageRow, MessageStatus};

/// A message waiting for one destination.
#[derive(Clone, Debug)]
pub(crate) struct QueueEntry {
    pub(crate) dispatch: DispatchRow,
    /// Its message; none when nothing of it is stored.
    pub(crate) message: Option<MessageRow>,
    /// All its recipients.
    pub(crate) recipients: Vec<RecipientRow>,
    /// Time of the next attempt, or of the release if it is scheduled; none during an attempt, or when everything is
    /// settled.
    pub(crate) run_at: Option<Timestamp>,
    /// Pause of its hosts, while they accept nothing.
    pub(crate) pause: Option<Pause>,
}

/// Selection of dispatches.
#[derive(Clone, Debug)]
pub(crate) enum Which {
    /// One, by its row id.
    Dispatch(DispatchRowId),
    /// Those of a message.
    Message(MessageId),
    /// Those of a recipient domain.
    Domain(String),
    All,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Dispatches with unsettled recipients, without the scheduled ones.
    pub(crate) waiting: u64,
    /// Scheduled messages.
    pub(crate) scheduled: u64,
}

/// Lists up to `limit` waiting dispatches, oldest first; with `scheduled`, those of scheduled messages instead.
pub(crate) fn list(connection: &Connection, scheduled: bool, limit: u32, now: Timestamp) -> Result<Vec<QueueEntry>> {
    const PAGE: u32 = 500;
    let mut found = Vec::new();
    let mut after = DispatchRowId::new(0);
    loop {
        let page = dispatches::list_unsettled(connection, after, PAGE)?;
        let is_last = page.len() < PAGE as usize;
        for dispatch in page {
            after = dispatch.id;
            let waiting = read_entry(connection, dispatch, now)?;
            if waiting.is_scheduled() == scheduled {
                found.push(waiting);
            }
            if found.len() >= limit as usize {
                return Ok(found);
            }
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// Finds the selected dispatches with everything that belongs to them, including settled ones.
pub(crate) fn find(connection: &Connection, which: &Which, now: Timestamp) -> Result<Vec<QueueEntry>> {
    let ids: Vec<DispatchRowId> = match which {
        Which::Dispatch(id) => vec![*id],
        Which::Message(id) => column(
            connection,
            "SELECT dispatch.id FROM message JOIN dispatch ON dispatch.message_id = message.id
             WHERE message.public_id = ?1 ORDER BY dispatch.id",
            id.as_str(),
        )?,
        Which::Domain(domain) => column(
            connection,
            "SELECT id FROM dispatch WHERE mail_data_id IS NOT NULL AND domain = ?1 ORDER BY id",
            domain,
        )?,
        Which::All => {
            column(connection, "SELECT id FROM dispatch WHERE mail_data_id IS NOT NULL AND ?1 = '' ORDER BY id", "")?
        }
    };
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(dispatch) = dispatches::find(connection, id)? {
            found.push(read_entry(connection, dispatch, now)?);
        }
    }
    Ok(found)
}

fn column(connection: &Connection, statement: &str, value: &str) -> Result<Vec<DispatchRowId>> {
    let rows =
        connection.prepare(statement)?.query_map([value], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

fn read_entry(connection: &Connection, dispatch: DispatchRow, now: Timestamp) -> Result<QueueEntry> {
    let message = dispatch.message.map(|id| messages::find_by_row(connection, id)).transpose()?.flatten();
    let recipients = recipients::list(connection, dispatch.id)?;
    let pause = lane_pauses::of_dispatch(connection, dispatch.id, now)?;
    let mut waiting = QueueEntry { dispatch, message, recipients, run_at: None, pause };
    let subject = match &waiting.message {
        Some(message) if waiting.is_scheduled() => JobSubject::ScheduledSend(message.id),
        Some(_) | None => JobSubject::Dispatch(waiting.dispatch.id),
    };
    let run_at: Option<i64> = connection
        .prepare_cached("SELECT run_at FROM job WHERE subject_id = ?1 AND kind = ?2 AND lease_until IS NULL")?
        .query_row(params![subject.id(), subject.kind()], |row| row.get(0))
        .optional()?;
    waiting.run_at = run_at.map(Timestamp::from_millis);
    Ok(waiting)
}

/// Counts waiting dispatches and scheduled messages.
pub(crate) fn totals(connection: &Connection) -> Result<Totals> {
    let count = |kind: JobKind| {
        connection.query_row("SELECT count(*) FROM job WHERE kind = ?1", params![kind], |row| row.get(0))
    };
    Ok(Totals { waiting: count(JobKind::Dispatch)?, scheduled: count(JobKind::ScheduledSend)? })
}

/// Makes the waiting dispatches among the selected due now; returns their number.
pub(crate) fn retry(connection: &Connection, which: &Which, now: Timestamp) -> Result<usize> {
    let mut hurried = 0;
    for waiting in find(connection, which, now)? {
        hurried += usize::from(jobs::run_now(connection, JobSubject::Dispatch(waiting.dispatch.id), now)?);
    }
    Ok(hurried)
}

/// Fails the unsettled recipients of the selected dispatches and cancels scheduled messages; returns the number of
/// recipients.
///
/// A running attempt is no longer recorded.
pub(crate) fn give_up(connection: &Connection, which: &Which, now: Timestamp) -> Result<usize> {
    let mut dropped = 0;
    for waiting in find(connection, which, now)? {
        let id = waiting.dispatch.id;
        let scheduled = waiting.is_scheduled();
        let open =
            waiting.recipients.iter().filter(|one| one.is_unsettled() || one.status == RecipientStatus::Scheduled);
        for one in open {
            let status = if scheduled { RecipientStatus::Canceled } else { RecipientStatus::Failed };
            let state = RecipientState { status, smtp_code: None, diagnostic: Some("dropped by the operator") };
            recipients::settle(connection, id, one.idx, state, now)?;
            dropped += 1;
        }
        jobs::delete_by_subject(connection, JobSubject::Dispatch(id))?;
        dispatches::finish(connection, &waiting.dispatch)?;
        let Some(message) = waiting.message.filter(|row| row.direction == Direction::Outbound) else { continue };
        if scheduled {
            jobs::delete_by_subject(connection, JobSubject::ScheduledSend(message.id))?;
        }
        outbound_details::set_send_status(connection, message.id, recipients::send_status(connection, message.id)?)?;
    }
    Ok(dropped)
}

impl QueueEntry {
    /// Returns true if its message is scheduled for later.
    pub(crate) fn is_scheduled(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.status == MessageStatus::Scheduled)
    }
}
