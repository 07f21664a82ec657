//! The writer's thread: collects what waits, commits it together, and judges errors.

mod wal;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;

use super::CONTENTION_THRESHOLD;
use super::checkpoint::{Background, Progress};
use super::counts::Counts;
use super::failure::Failure;
use super::faults::Faults;
use super::mark::Keeper;
use super::pace::{Due, Pace};
use super::request::{CommitError, Durability, Event, Request, Room, Savepoint, Transaction, refuse, waiting};
use super::reserve::Reserve;
use super::sync::{self, Syncs};
use crate::store::changes::Changes;
use crate::store::{is_busy, is_no_room, is_unreadable};

/// Maximum number of transactions that share one commit; it bounds how long the first of them waits.
const BATCH: usize = 512;

/// Maximum wait of a statement for another process's lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The thread that owns the writing connection.
pub(super) struct Thread {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    /// Octets per page in the WAL.
    pub(super) frame: u64,
    /// Pages in the WAL after the last commit.
    pub(super) pages: u64,
    pub(super) heard: Receiver<Event>,
    pub(super) batch: Vec<Request>,
    pub(super) counts: Arc<Counts>,
    pub(super) faults: Arc<Faults>,
    pub(super) failed: watch::Sender<Option<Failure>>,
    pub(super) syncs: Syncs,
    pub(super) pace: Pace,
    pub(super) progress: Progress,
    pub(super) background: Background,
    /// Notified of each commit, and of its fsync.
    pub(super) mark: Arc<Keeper>,
    pub(super) reserve: Arc<Reserve>,
    /// Notified of the end of each transaction.
    pub(super) changes: Arc<Changes>,
    /// Present value of `PRAGMA journal_size_limit`.
    pub(super) kept: u64,
    /// While the disk is full: time at which to make room again.
    pub(super) reclaim_at: Cell<Option<Instant>>,
    /// Time of the last report of a large WAL.
    pub(super) told_at: Option<Instant>,
}

impl Thread {
    pub(super) fn run(mut self) {
        while self.hear() {
            let now = Instant::now();
            if self.has_failed() {
                refuse(std::mem::take(&mut self.batch), &CommitError::Stopped);
            } else if matches!(self.due(), Some(Due::At(at)) if at <= now) {
                self.commit_batch(now);
            }
            if self.reclaim_at.get().is_some_and(|at| at <= now) {
                self.reclaim();
            }
        }
        while !self.batch.is_empty() && !self.has_failed() {
            self.commit_batch(Instant::now());
        }
        refuse(std::mem::take(&mut self.batch), &CommitError::Stopped);
        self.mark.end();
    }

    /// Returns true once storage failed: from then on nothing writes, and nothing moves the WAL.
    fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Waits for the next event while there is nothing to do, then takes all that are queued. Returns false at the end.
    fn hear(&mut self) -> bool {
        let due = match self.due() {
            Some(Due::At(at)) => Some(at),
            Some(Due::AfterSync) | None => None,
        };
        let wake = [due, self.reclaim_at.get()].into_iter().flatten().min();
        let first = match wake {
            Some(at) => match self.heard.recv_timeout(at.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => None,
                Ok(event) => Some(event),
            },
            None => self.heard.recv().ok(),
        };
        let mut next = first.ok_or(TryRecvError::Disconnected);
        loop {
            match next {
                Ok(Event::Request(request)) => self.batch.push(request),
                Ok(Event::Synced) => {}
                Ok(Event::Checkpoint) => self.start_checkpoint(),
                Ok(Event::Moved(moved)) => self.moved(moved),
                Ok(Event::End) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
            if self.batch.len() >= BATCH {
                return true;
            }
            next = self.heard.try_recv();
        }
    }

    /// Returns the time at which the waiting transactions are to be committed.
    fn due(&self) -> Option<Due> {
        let waiting = waiting(&self.batch)?;
        let (running, takes) = self.syncs.load();
        Some(self.pace.due(waiting, running, takes))
    }

    fn commit_batch(&mut self, now: Instant) {
        let more = self.batch.split_off(self.batch.len().min(BATCH));
        let batch = std::mem::replace(&mut self.batch, more);
        let Some(waiting) = waiting(&batch) else { return };
        if waiting.urgent >= CONTENTION_THRESHOLD {
            self.counts.note(&self.counts.crowded_at);
        }
        self.commit_together(batch);
        self.pace.committed(waiting, now);
        self.mind_wal(Instant::now());
    }

    /// Returns the requests of a batch that there is room for; the others are answered.
    fn admit(&self, batch: Vec<Request>) -> Vec<Request> {
        self.reserve.check_free_space();
        self.reserve.restore();
        if !self.reserve.is_spent() {
            return batch;
        }
        let most = if self.reserve.is_nearly_used() { Room::Reserve } else { Room::Free };
        let (refused, admitted): (Vec<_>, Vec<_>) = batch.into_iter().partition(|request| request.room <= most);
        if !refused.is_empty() {
            self.counts.note(&self.counts.bad_at);
            refuse(refused, &CommitError::Full("the disk is full".to_owned()));
        }
        if self.reclaim_at.get().is_none() {
            self.reclaim_at.set(Some(Instant::now()));
        }
        admitted
    }

    fn commit_together(&mut self, batch: Vec<Request>) {
        let batch = self.admit(batch);
        if batch.is_empty() {
            return;
        }
        let durability = batch.iter().map(|request| request.durability).max().unwrap_or(Durability::Power);
        let changes_before = self.connection.total_changes();
        if let Err(error) = self.execute("BEGIN IMMEDIATE").and_then(|()| self.raise_mark(durability)) {
            let error = self.judge(&error);
            self.roll_back();
            return refuse(batch, &error);
        }
        let mut unanswered = Vec::with_capacity(batch.len());
        let mut outcome = Ok(());
        for request in batch {
            if let Err(error) = &outcome {
                request.transaction.answer(Err(error));
                continue;
            }
            let (transaction, ended) = self.run_in_savepoint(request.transaction);
            unanswered.extend(transaction);
            outcome = ended;
        }
        // Up to here an error is certain: without a COMMIT nothing of the transaction counts.
        let ended = outcome.and_then(|()| self.commit(durability));
        // Before anybody is answered, and whatever the end: statements after an error may have been committed alone.
        self.changes.publish();
        if let Err(error) = ended {
            self.roll_back();
            unanswered.into_iter().for_each(|transaction| transaction.answer(Err(&error)));
            return;
        }
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        let answer: sync::Answers = Box::new(move |durable| {
            let outcome = if durable { Ok(()) } else { Err(CommitError::Begun(Box::new(CommitError::Stopped))) };
            unanswered.into_iter().for_each(|transaction| transaction.answer(outcome.as_ref().copied()));
        });
        let wrote = self.connection.total_changes() != changes_before;
        let sync = durability == Durability::Power;
        let made = self.counts.made.load(Ordering::Relaxed) + u64::from(sync);
        // Before the fsync that makes it a promise.
        self.mark.committed(&self.connection, sync.then_some(made));
        self.counts.made.store(made, Ordering::Release);
        self.syncs.commit(sync, wrote, answer);
    }

    /// Raises it only with commits that are fsynced, because the mark is a promise.
    fn raise_mark(&self, durability: Durability) -> rusqlite::Result<()> {
        if durability == Durability::Power { self.mark.raise(&self.connection) } else { Ok(()) }
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            self.stop(&error);
        }
        self.mark.rolled_back();
    }

    /// Runs one caller's work; an error affects the whole transaction. Returns it unless it is answered already.
    fn run_in_savepoint(
        &self,
        mut transaction: Box<dyn Transaction>,
    ) -> (Option<Box<dyn Transaction>>, std::result::Result<(), CommitError>) {
        if let Err(error) = self.execute("SAVEPOINT one") {
            let error = self.judge(&error);
            transaction.answer(Err(&error));
            return (None, Err(error));
        }
        let savepoint = transaction.run(&self.connection);
        // When there is no room, or reading fails, SQLite rolls back the whole transaction, not only the statement.
        if self.connection.is_autocommit() {
            let undone = match savepoint {
                Savepoint::NoRoom => CommitError::Full("the transaction was undone".to_owned()),
                Savepoint::Undone => CommitError::Busy,
                Savepoint::Kept => {
                    // The work went on after the error, and its later statements were committed one by one.
                    transaction.answer(Err(&CommitError::Begun(Box::new(CommitError::Busy))));
                    return (None, Err(CommitError::Busy));
                }
            };
            return (Some(transaction), Err(undone));
        }
        let undone = if savepoint == Savepoint::Kept { Ok(()) } else { self.execute("ROLLBACK TO one") };
        let closed = undone.and_then(|()| self.execute("RELEASE one")).map_err(|error| self.judge(&error));
        (Some(transaction), closed)
    }

    /// Commits the batch. However this fails, the frames may be on disk, and a restart may find them complete.
    fn commit(&self, durability: Durability) -> std::result::Result<(), CommitError> {
        let commit = || match self.faults.take(durability) {
            None => self.execute("COMMIT"),
            Some(fault) => fault.commit(|statement| self.execute(statement)),
        };
        let ended = catch_unwind(AssertUnwindSafe(commit)).map_err(|_| {
            tracing::error!("the database panicked in a commit; storage stops until a restart");
            self.failed.send_replace(Some(Failure::Panicked));
            CommitError::Stopped
        });
        let judged = ended.and_then(|committed| committed.map_err(|error| self.judge_commit(&error)));
        judged.map_err(|error| CommitError::Begun(Box::new(error)))
    }

    fn execute(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.raw_execute().map(drop)
    }

    /// Classifies an error before the COMMIT: a full disk may be freed, and another process releases its lock.
    fn judge(&self, error: &rusqlite::Error) -> CommitError {
        match error.sqlite_error() {
            Some(failure) if is_busy(*failure) => {
                self.counts.note(&self.counts.bad_at);
                CommitError::Busy
            }
            Some(failure) if is_no_room(*failure) => self.no_room(error),
            _ => self.stop(error),
        }
    }

    /// Classifies an error of the COMMIT. A frame that could not be written is written again by the next commit, in its
    /// place. Any later failure, of the fsync or of the WAL's index after it, leaves a complete transaction in the
    /// file: only a restart can tell what the disk holds.
    fn judge_commit(&self, error: &rusqlite::Error) -> CommitError {
        match error.sqlite_error() {
            Some(failure) if failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => self.stop(error),
            _ => self.judge(error),
        }
    }

    fn stop(&self, error: &rusqlite::Error) -> CommitError {
        let code = error.sqlite_error().map_or(0, |failure| failure.extended_code);
        tracing::error!(%error, code, "the database could not commit; storage stops until a restart");
        self.counts.note(&self.counts.bad_at);
        self.failed.send_replace(Some(if is_unreadable(error) {
            Failure::Unreadable(error.to_string())
        } else {
            Failure::Commit(error.to_string())
        }));
        CommitError::Stopped
    }

    fn no_room(&self, error: &rusqlite::Error) -> CommitError {
        tracing::warn!(%error, "no room to commit");
        self.reserve.spend();
        self.counts.note(&self.counts.bad_at);
        if self.reclaim_at.get().is_none() {
            self.reclaim_at.set(Some(Instant::now()));
        }
        CommitError::Full(error.to_string())
    }
}
