//! A caller's transaction on its way to the writer's thread, and its answer.

use std::time::Instant;

use rusqlite::Connection;

use super::checkpoint::Moved;
use super::pace::WaitingCommits;
use crate::store::Error;

/// Failure that a committed transaction survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Durability {
    /// The end of the process (the commit is in the page cache).
    Process,
    /// A power cut (the commit was fsynced).
    Power,
}

/// Time by which a transaction is to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// At once: somebody waits.
    Now,
    /// Within some milliseconds.
    Soon,
}

/// Part of the reserve that a transaction may use when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// Nothing: it adds content.
    Free,
    /// The reserve except for its rest: it settles what was begun.
    Reserve,
    /// All of it: it removes content, or signs somebody in to do so.
    Rest,
}

/// Answers one caller, once it is known whether the shared commit succeeded.
pub(super) type Answer = Box<dyn FnOnce(std::result::Result<(), &CommitError>) + Send>;
/// Runs inside a savepoint and returns whether to keep it and how to answer; or, given an error, answers with that.
pub(super) type Work =
    Box<dyn FnOnce(std::result::Result<&Connection, &CommitError>) -> Option<(Savepoint, Answer)> + Send>;

/// End of one caller's part of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Savepoint {
    Kept,
    Undone,
    /// Rolled back because there was no room.
    NoRoom,
}

pub(super) struct Request {
    pub(super) durability: Durability,
    pub(super) urgency: Urgency,
    pub(super) room: Room,
    pub(super) came: Instant,
    pub(super) work: Work,
}

/// Event that the thread waits for.
pub(super) enum Event {
    Request(Request),
    /// An fsync ended.
    Synced,
    /// The background thread moved as much of the WAL as it could.
    Moved(rusqlite::Result<Moved>),
    /// No writers are left.
    End,
}

/// Reason why a shared commit failed, for each caller's answer.
#[derive(Clone, Debug)]
pub(super) enum CommitError {
    Full(String),
    Busy,
    Stopped,
    /// COMMIT had begun: the disk may hold the transaction nevertheless.
    Begun(Box<CommitError>),
}

impl CommitError {
    pub(super) fn to_error(&self) -> Error {
        match self {
            Self::Full(text) => Error::Full(text.clone()),
            Self::Busy => Error::Busy,
            Self::Stopped => Error::Stopped,
            Self::Begun(error) => Error::Unknown(Box::new(error.to_error())),
        }
    }
}

/// Summarizes a batch; `None` if it is empty.
pub(super) fn waiting(batch: &[Request]) -> Option<WaitingCommits> {
    let urgent = || batch.iter().filter(|request| request.urgency == Urgency::Now);
    Some(WaitingCommits {
        transactions: batch.len(),
        urgent: urgent().count(),
        promises: urgent().filter(|request| request.durability == Durability::Power).count(),
        since: batch.first()?.came,
        urgent_since: urgent().next().map(|request| request.came),
    })
}

/// Answers all requests with an error; nothing was begun.
pub(super) fn refuse(batch: Vec<Request>, error: &CommitError) {
    batch.into_iter().for_each(|request| drop((request.work)(Err(error))));
}
