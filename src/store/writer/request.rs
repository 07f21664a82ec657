//! A caller's transaction on its way to the writer's thread, and its answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::checkpoint::Moved;
use super::pace::WaitingCommits;
use super::waiting::Ticket;
use crate::store::{Error, TransactionError};

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

/// A caller's transaction, until it is answered.
pub(super) trait Transaction: Send {
    /// Runs the caller's work inside a savepoint, once; returns what becomes of the savepoint.
    fn run(&mut self, connection: &Connection) -> Savepoint;

    /// Answers the caller; an error says that the shared commit failed, or that nothing was begun.
    fn answer(self: Box<Self>, committed: std::result::Result<(), &CommitError>);
}

/// The work of a caller that waits for a result of its own type.
pub(super) struct CallerTransaction<T, E, F> {
    /// None once it has run.
    work: Option<F>,
    outcome: Option<std::result::Result<T, E>>,
    answer: oneshot::Sender<std::result::Result<T, E>>,
    /// Counts the caller as waiting.
    _ticket: Ticket,
}

impl<T, E, F> CallerTransaction<T, E, F> {
    pub(super) const fn new(work: F, answer: oneshot::Sender<std::result::Result<T, E>>, ticket: Ticket) -> Self {
        Self { work: Some(work), outcome: None, answer, _ticket: ticket }
    }
}

impl<T, E, F> Transaction for CallerTransaction<T, E, F>
where
    T: Send,
    E: TransactionError,
    F: FnOnce(&Connection) -> std::result::Result<T, E> + Send,
{
    fn run(&mut self, connection: &Connection) -> Savepoint {
        let Some(work) = self.work.take() else { return Savepoint::Undone };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(connection))).unwrap_or_else(|_| {
            tracing::error!("a transaction panicked and was undone");
            Err(Error::Corrupt("value met by a transaction").into())
        });
        let savepoint = match &outcome {
            Ok(_) => Savepoint::Kept,
            Err(error) if matches!(error.storage(), Some(Error::Full(_))) => Savepoint::NoRoom,
            Err(_) => Savepoint::Undone,
        };
        self.outcome = Some(outcome);
        savepoint
    }

    fn answer(self: Box<Self>, committed: std::result::Result<(), &CommitError>) {
        let outcome = match (self.outcome, committed) {
            // Its own error is certain, whatever became of the others' work.
            (Some(Err(error)), _) => Err(error),
            (Some(outcome), Ok(())) => outcome,
            (_, Err(error)) => Err(error.to_error().into()),
            (None, Ok(())) => Err(Error::Stopped.into()),
        };
        // A caller that stopped waiting (its connection closed) needs no answer.
        drop(self.answer.send(outcome));
    }
}

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
    pub(super) transaction: Box<dyn Transaction>,
}

/// Event that the thread waits for.
pub(super) enum Event {
    Request(Request),
    /// An fsync ended.
    Synced,
    /// The WAL is to be moved into the database file, however small it is.
    Checkpoint,
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
    batch.into_iter().for_each(|request| request.transaction.answer(Err(error)));
}
