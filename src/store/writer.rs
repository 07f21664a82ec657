//! The one thread that writes, with group commit.
//!
//! It takes every transaction that waits, runs each inside a savepoint of one `BEGIN IMMEDIATE` transaction,
//! commits once and only then answers all. So many sessions share one fsync and each still gets its promise. What nobody
//! waits for goes along with the next commit that somebody does wait for, or soon alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::faults::Faults;
use super::mark::Keeper;
use super::{Error, Result};

/// Pages in the WAL at which the writer checkpoints: 64 MiB at 8 KiB a page.
pub const WAL_PAGES: i32 = 8192;
/// Transactions that share one commit at most; it bounds how long the first of them waits.
const BATCH: usize = 512;

/// How long transactions that have time are kept for a commit that has to be made anyway …
const PATIENCE: Duration = Duration::from_millis(5);
/// … unless there are so many of them.
const PATIENT: usize = 64;

/// So many transactions that wait for one commit make a crowd …
const CROWD: usize = 4;
/// … and so long after it the writer still counts as busy.
const CROWDED: Duration = Duration::from_millis(100);

/// What a committed transaction survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The end of the process (the commit is in the page cache).
    Process,
    /// A power cut (the commit was fsynced).
    Power,
}

/// When a transaction is to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// At once: somebody waits.
    Now,
    /// Within some milliseconds.
    Soon,
}

/// Answers one caller, once it is known whether the shared commit succeeded.
type Answer = Box<dyn FnOnce(std::result::Result<(), &CommitError>) + Send>;
/// Runs inside a savepoint and tells whether to keep it and how to answer; or, given an error, answers with that.
type Work = Box<dyn FnOnce(std::result::Result<&Connection, &CommitError>) -> Option<(Savepoint, Answer)> + Send>;

/// What becomes of one caller's part of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Savepoint {
    Kept,
    Undone,
    /// Undone because there was no room.
    NoRoom,
}

struct Request {
    durability: Durability,
    urgency: Urgency,
    work: Work,
}

/// The handle to the thread.
#[derive(Debug)]
pub struct Writer {
    requests: Sender<Request>,
    counts: Arc<Counts>,
    faults: Arc<Faults>,
    failure: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Counts {
    commits: AtomicU64,
    synced: AtomicU64,
    started: Instant,
    /// Milliseconds from `started` to the last commit that many waited for, plus one; 0 is never.
    crowded_at: AtomicU64,
}

impl Counts {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Why a shared commit failed, told to each caller in turn.
#[derive(Clone, Debug)]
enum CommitError {
    Full(String),
    Busy,
    Stopped,
    /// COMMIT had begun: the disk may hold the transaction all the same.
    Begun(Box<CommitError>),
}

impl CommitError {
    fn to_error(&self) -> Error {
        match self {
            Self::Full(text) => Error::Full(text.clone()),
            Self::Busy => Error::Busy,
            Self::Stopped => Error::Stopped,
            Self::Begun(error) => Error::Unknown(Box::new(error.to_error())),
        }
    }
}

impl Writer {
    /// Starts the thread over an open, configured connection.
    pub fn start(connection: Connection, mark: Arc<Keeper>) -> Self {
        let (requests, waiting) = channel();
        let (failed, failure) = watch::channel(false);
        let counts = Arc::new(Counts {
            commits: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            started: Instant::now(),
            crowded_at: AtomicU64::new(0),
        });
        let panicked = failed.clone();
        let faults = Arc::new(Faults::default());
        let thread = Thread {
            connection,
            waiting,
            counts: Arc::clone(&counts),
            faults: Arc::clone(&faults),
            failed,
            durability: Durability::Power,
            mark: Some(mark),
        };
        let started = std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| thread.run())).is_err() {
                panicked.send_replace(true);
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "the writer thread did not start; every write will be refused");
        }
        Self { requests, counts, faults, failure }
    }

    /// Runs `work` on the thread and waits for the commit that carries it.
    pub async fn run<T, F>(&self, durability: Durability, urgency: Urgency, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |opened| {
            let connection = match opened {
                Ok(connection) => connection,
                Err(error) => {
                    drop(answer.send(Err(error.to_error())));
                    return None;
                }
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| work(connection))).unwrap_or_else(|_| {
                tracing::error!("a transaction panicked and was undone");
                Err(Error::Corrupt("value met by a transaction"))
            });
            let savepoint = match &outcome {
                Ok(_) => Savepoint::Kept,
                Err(Error::Full(_)) => Savepoint::NoRoom,
                Err(_) => Savepoint::Undone,
            };
            let respond: Answer = Box::new(move |commit| {
                let outcome = match commit {
                    Ok(()) => outcome,
                    Err(error) => outcome.and(Err(error.to_error())),
                };
                // A caller that stopped waiting (its connection closed) needs no answer.
                drop(answer.send(outcome));
            });
            Some((savepoint, respond))
        });
        self.requests.send(Request { durability, urgency, work }).map_err(|_| Error::Stopped)?;
        // The thread ended with the request in hand.
        answered.await.unwrap_or_else(|_| Err(Error::Unknown(Box::new(Error::Stopped))))
    }

    /// Commits so far, and how many of them were fsynced.
    pub fn commits(&self) -> (u64, u64) {
        (self.counts.commits.load(Ordering::Relaxed), self.counts.synced.load(Ordering::Acquire))
    }

    /// Whether many transactions waited for one commit a moment ago: the machine has more to write than it can.
    pub fn is_crowded(&self) -> bool {
        let crowded_at = self.counts.crowded_at.load(Ordering::Relaxed);
        crowded_at > 0 && u128::from(self.counts.now().saturating_sub(crowded_at - 1)) < CROWDED.as_millis()
    }

    /// The faults of its commits, for tests.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Becomes true when the writer stopped for good.
    pub fn failure(&self) -> watch::Receiver<bool> {
        self.failure.clone()
    }
}

struct Thread {
    connection: Connection,
    waiting: Receiver<Request>,
    counts: Arc<Counts>,
    faults: Arc<Faults>,
    failed: watch::Sender<bool>,
    /// What `PRAGMA synchronous` stands at.
    durability: Durability,
    /// Told of each commit before anybody is answered.
    mark: Option<Arc<Keeper>>,
}

impl Thread {
    fn run(mut self) {
        while let Ok(first) = self.waiting.recv() {
            let batch = self.gather(first);
            if batch.iter().filter(|request| request.urgency == Urgency::Now).count() >= CROWD {
                self.counts.crowded_at.store(self.counts.now().saturating_add(1), Ordering::Relaxed);
            }
            if *self.failed.borrow() {
                refuse(batch, &CommitError::Stopped);
                continue;
            }
            self.commit_together(batch);
        }
    }

    /// Everything that waits with `first`; while none of it is urgent, what comes within a moment too.
    fn gather(&self, first: Request) -> Vec<Request> {
        let patience = Instant::now() + PATIENCE;
        let mut batch = Vec::with_capacity(16);
        let mut next = Some(first);
        let mut urgent = false;
        while let Some(request) = next {
            urgent |= request.urgency == Urgency::Now;
            batch.push(request);
            next = if batch.len() >= BATCH {
                None
            } else if urgent || batch.len() >= PATIENT {
                self.waiting.try_recv().ok()
            } else {
                self.waiting.recv_timeout(patience.saturating_duration_since(Instant::now())).ok()
            };
        }
        batch
    }

    fn commit_together(&mut self, batch: Vec<Request>) {
        let durability = batch.iter().map(|request| request.durability).max().unwrap_or(Durability::Power);
        let begun = self.set_durability(durability).and_then(|()| self.execute("BEGIN IMMEDIATE"));
        let changes_before = self.connection.total_changes();
        let begun = begun.and_then(|()| self.raise_mark(durability));
        if let Err(error) = begun {
            let error = self.judge(&error);
            self.roll_back();
            return refuse(batch, &error);
        }
        let mut answers = Vec::with_capacity(batch.len());
        let mut outcome = Ok(());
        for request in batch {
            if let Err(error) = &outcome {
                (request.work)(Err(error));
                continue;
            }
            let (answer, kept) = self.run_in_savepoint(request.work);
            answers.extend(answer);
            outcome = kept;
        }
        // Up to here an error is certain: without a COMMIT nothing of the transaction counts.
        if let Err(error) = outcome.and_then(|()| self.commit()) {
            self.roll_back();
            answers.into_iter().for_each(|answer| answer(Err(&error)));
            return;
        }
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        // A commit without changes writes nothing, so it syncs nothing either.
        let synced = durability == Durability::Power && self.connection.total_changes() != changes_before;
        if synced {
            self.counts.synced.fetch_add(1, Ordering::Release);
        }
        if let Some(mark) = &self.mark {
            mark.committed(&self.connection, synced);
        }
        answers.into_iter().for_each(|answer| answer(Ok(())));
    }

    /// Only with commits that are fsynced: what the mark says is promised.
    fn raise_mark(&self, durability: Durability) -> rusqlite::Result<()> {
        match &self.mark {
            Some(mark) if durability == Durability::Power => mark.raise(&self.connection),
            _ => Ok(()),
        }
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            self.stop(&error);
        }
        if let Some(mark) = &self.mark {
            mark.rolled_back();
        }
    }

    /// One caller's work; an error is of the whole transaction.
    fn run_in_savepoint(&self, work: Work) -> (Option<Answer>, std::result::Result<(), CommitError>) {
        if let Err(error) = self.execute("SAVEPOINT one") {
            let error = self.judge(&error);
            work(Err(&error));
            return (None, Err(error));
        }
        let Some((savepoint, answer)) = work(Ok(&self.connection)) else {
            return (None, Ok(()));
        };
        // When there is no room, or reading fails, SQLite undoes the whole transaction, not only the statement.
        if self.connection.is_autocommit() {
            let undone = match savepoint {
                Savepoint::NoRoom => CommitError::Full("the transaction was undone".to_owned()),
                Savepoint::Undone => CommitError::Busy,
                Savepoint::Kept => {
                    // It went on after the error, and what it wrote then was committed statement by statement.
                    answer(Err(&CommitError::Begun(Box::new(CommitError::Busy))));
                    return (None, Err(CommitError::Busy));
                }
            };
            return (Some(answer), Err(undone));
        }
        let undone = if savepoint == Savepoint::Kept { Ok(()) } else { self.execute("ROLLBACK TO one") };
        let closed = undone.and_then(|()| self.execute("RELEASE one")).map_err(|error| self.judge(&error));
        (Some(answer), closed)
    }

    /// Commits what the batch left. However this fails, the frames may be on disk, and a restart may find them whole.
    fn commit(&self) -> std::result::Result<(), CommitError> {
        let committed = match self.faults.take(self.durability) {
            None => self.execute("COMMIT"),
            Some(fault) => fault.commit(|statement| self.execute(statement)),
        };
        committed.map_err(|error| CommitError::Begun(Box::new(self.judge_commit(&error))))
    }

    /// `PRAGMA synchronous` cannot change inside a transaction, so it is chosen before each.
    fn set_durability(&mut self, wanted: Durability) -> rusqlite::Result<()> {
        if self.durability != wanted {
            self.execute(match wanted {
                Durability::Process => "PRAGMA synchronous = NORMAL",
                Durability::Power => "PRAGMA synchronous = FULL",
            })?;
            self.durability = wanted;
        }
        Ok(())
    }

    fn execute(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.raw_execute().map(drop)
    }

    /// What an error before the COMMIT means: a full disk may be freed, and another process lets the lock go.
    fn judge(&self, error: &rusqlite::Error) -> CommitError {
        match error.sqlite_error() {
            Some(failure) if super::is_busy(*failure) => CommitError::Busy,
            Some(failure) if super::is_no_room(*failure) => self.no_room(error),
            _ => self.stop(error),
        }
    }

    /// What an error of the COMMIT means. A frame that could not be written is written again by the next commit, in its
    /// place. Whatever fails later, the fsync or the index of the WAL after it, leaves a whole transaction in the file:
    /// only a restart can tell what the disk holds.
    fn judge_commit(&self, error: &rusqlite::Error) -> CommitError {
        match error.sqlite_error() {
            Some(failure) if failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => self.stop(error),
            _ => self.judge(error),
        }
    }

    fn stop(&self, error: &rusqlite::Error) -> CommitError {
        let code = error.sqlite_error().map_or(0, |failure| failure.extended_code);
        tracing::error!(%error, code, "the database could not commit; storage stops until a restart");
        self.failed.send_replace(true);
        CommitError::Stopped
    }

    fn no_room(&self, error: &rusqlite::Error) -> CommitError {
        tracing::warn!(%error, "no room to commit; new mail is refused until there is");
        CommitError::Full(error.to_string())
    }
}

/// Answers everybody with an error; nothing was begun.
fn refuse(batch: Vec<Request>, error: &CommitError) {
    batch.into_iter().for_each(|request| drop((request.work)(Err(error))));
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    fn thread() -> (Thread, Sender<Request>) {
        let (requests, waiting) = channel();
        let counts = Counts {
            commits: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            started: Instant::now(),
            crowded_at: AtomicU64::new(0),
        };
        let thread = Thread {
            connection: Connection::open_in_memory().unwrap(),
            waiting,
            counts: Arc::new(counts),
            faults: Arc::default(),
            failed: watch::channel(false).0,
            durability: Durability::Power,
            mark: None,
        };
        (thread, requests)
    }

    fn request(urgency: Urgency) -> Request {
        Request { durability: Durability::Process, urgency, work: Box::new(|_| None) }
    }

    #[test]
    fn what_has_time_is_committed_with_what_is_urgent() {
        let (thread, requests) = thread();
        let later = std::thread::spawn(move || {
            // It comes while the first is kept waiting, or was there before.
            for urgency in [Urgency::Soon, Urgency::Now] {
                requests.send(request(urgency)).unwrap();
            }
            requests
        });
        let mut batches = vec![thread.gather(request(Urgency::Soon))];
        while batches.iter().flatten().count() < 3 {
            batches.push(thread.gather(thread.waiting.recv().unwrap()));
        }
        assert!(batches.iter().rev().skip(1).flatten().all(|request| request.urgency == Urgency::Soon));
        drop(later.join().unwrap());
    }

    #[test]
    fn what_has_time_waits_for_no_commit_that_never_comes() {
        let (thread, _requests) = thread();
        assert_eq!(thread.gather(request(Urgency::Soon)).len(), 1);
    }

    #[test]
    fn what_is_urgent_takes_all_that_waits_along() {
        let (thread, requests) = thread();
        for urgency in [Urgency::Soon, Urgency::Now, Urgency::Soon] {
            requests.send(request(urgency)).unwrap();
        }
        assert_eq!(thread.gather(request(Urgency::Now)).len(), 4);
    }
}
