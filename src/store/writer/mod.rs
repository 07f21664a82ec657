//! The one thread that writes, with group commit.
//!
//! It takes every transaction that waits, runs each inside a savepoint of one `BEGIN IMMEDIATE` transaction, and
//! commits once. The fsync of the WAL is made by [`sync`], while the next transactions run; only after it are the
//! callers answered that were promised it. So many sessions share one fsync and each still gets its promise.
//! Transactions that nobody waits for join the next commit that somebody does wait for, or are committed alone soon
//! after.

pub(crate) mod faults;
pub(crate) mod health;
pub(crate) mod mark;
pub(crate) mod reserve;

mod checkpoint;
mod counts;
mod pace;
mod readers;
mod sync;
mod waiting;
mod wal;

use std::cell::Cell;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::changes::Changes;
use super::{Error, Result, TransactionError};
use checkpoint::{Background, Moved, Progress};
use counts::{Announced, Counts};
use faults::Faults;
use mark::Keeper;
use pace::{Due, Pace, WaitingCommits};
use reserve::Reserve;
use sync::Syncs;
pub(super) use waiting::Queue;

/// Maximum number of transactions that share one commit; it bounds how long the first of them waits.
const BATCH: usize = 512;

/// From this many transactions waiting for one commit the writer counts as contended …
const CONTENTION_THRESHOLD: usize = 4;
/// … and for this long afterwards.
const CROWDED: Duration = Duration::from_millis(100);

/// Maximum wait of a statement for another process's lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);

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
type Answer = Box<dyn FnOnce(std::result::Result<(), &CommitError>) + Send>;
/// Runs inside a savepoint and returns whether to keep it and how to answer; or, given an error, answers with that.
type Work = Box<dyn FnOnce(std::result::Result<&Connection, &CommitError>) -> Option<(Savepoint, Answer)> + Send>;

/// End of one caller's part of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Savepoint {
    Kept,
    Undone,
    /// Rolled back because there was no room.
    NoRoom,
}

struct Request {
    durability: Durability,
    urgency: Urgency,
    room: Room,
    came: Instant,
    work: Work,
}

/// Event that the thread waits for.
enum Event {
    Request(Request),
    /// An fsync ended.
    Synced,
    /// The background thread moved as much of the WAL as it could.
    Moved(rusqlite::Result<Moved>),
    /// No writers are left.
    End,
}

/// Handle of the thread.
#[derive(Debug)]
pub(crate) struct Writer {
    events: Sender<Event>,
    counts: Arc<Counts>,
    faults: Arc<Faults>,
    waiting: Queue,
    failure: watch::Receiver<bool>,
    /// None once its end was awaited.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Reason why a shared commit failed, for each caller's answer.
#[derive(Clone, Debug)]
enum CommitError {
    Full(String),
    Busy,
    Stopped,
    /// COMMIT had begun: the disk may hold the transaction nevertheless.
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
    /// Starts the threads over an open, configured connection to the database at `path`.
    ///
    /// # Errors
    /// The WAL cannot be opened, or a thread cannot be started.
    pub(in crate::store) fn start(
        connection: Connection,
        path: &Path,
        mark: Arc<Keeper>,
        reserve: Arc<Reserve>,
        changes: Arc<Changes>,
    ) -> Result<Self> {
        // A commit writes its frames; the fsync is done here, and a checkpoint fsyncs both files in their order.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let (events, heard) = channel();
        let (failed, failure) = watch::channel(false);
        let counts = Arc::new(Counts::new());
        let faults = Arc::new(Faults::default());
        let told = Announced {
            events: events.clone(),
            counts: Arc::clone(&counts),
            failed: failed.clone(),
            mark: Arc::clone(&mark),
        };
        let threads = |error| Error::io("starting a thread of the database", error);
        let syncs = Syncs::start(open_wal(&connection, path)?, Box::new(told)).map_err(threads)?;
        let moves = events.clone();
        let background = Background::start(path, failure.clone(), move |moved| drop(moves.send(Event::Moved(moved))));
        let frame: u64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let thread = Thread {
            connection,
            path: path.to_owned(),
            frame: frame + FRAME_HEADER,
            pages: 0,
            heard,
            batch: Vec::new(),
            counts: Arc::clone(&counts),
            faults: Arc::clone(&faults),
            failed: failed.clone(),
            syncs,
            pace: Pace::new(),
            progress: Progress::new(),
            background: background.map_err(threads)?,
            mark,
            reserve,
            changes,
            kept: 0,
            reclaim_at: Cell::new(None),
            told_at: None,
        };
        let run = move || {
            if catch_unwind(AssertUnwindSafe(|| thread.run())).is_err() {
                failed.send_replace(true);
            }
        };
        let thread = std::thread::Builder::new().name("writer".to_owned()).spawn(run).map_err(threads)?;
        Ok(Self { events, counts, faults, waiting: Queue::default(), failure, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `work` on the thread and waits for the commit that carries it.
    pub(crate) async fn run<T, E, F>(
        &self,
        durability: Durability,
        urgency: Urgency,
        room: Room,
        work: F,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: TransactionError,
        F: FnOnce(&Connection) -> std::result::Result<T, E> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let ticket = self.waiting.enter();
        let work: Work = Box::new(move |opened| {
            let connection = match opened {
                Ok(connection) => connection,
                Err(error) => {
                    drop(answer.send(Err(error.to_error().into())));
                    return None;
                }
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| work(connection))).unwrap_or_else(|_| {
                tracing::error!("a transaction panicked and was undone");
                Err(Error::Corrupt("value met by a transaction").into())
            });
            let savepoint = match &outcome {
                Ok(_) => Savepoint::Kept,
                Err(error) if matches!(error.storage(), Some(Error::Full(_))) => Savepoint::NoRoom,
                Err(_) => Savepoint::Undone,
            };
            let respond: Answer = Box::new(move |commit| {
                let outcome = match commit {
                    Ok(()) => outcome,
                    Err(error) => outcome.and_then(|_| Err(error.to_error().into())),
                };
                // A caller that stopped waiting (its connection closed) needs no answer.
                drop(answer.send(outcome));
                drop(ticket);
            });
            Some((savepoint, respond))
        });
        let request = Request { durability, urgency, room, came: Instant::now(), work };
        self.events.send(Event::Request(request)).map_err(|_| Error::Stopped)?;
        // The thread ended while it held the request.
        answered.await.unwrap_or_else(|_| Err(Error::Unknown(Box::new(Error::Stopped)).into()))
    }

    /// Returns the number of commits so far, and of those whose fsync is done.
    pub(crate) fn commits(&self) -> (u64, u64) {
        (self.counts.commits.load(Ordering::Relaxed), self.counts.synced.load(Ordering::Acquire))
    }

    /// Returns true if many transactions waited for one commit a moment ago: the machine has more to write than it can.
    pub(crate) fn is_contended(&self) -> bool {
        let crowded_at = self.counts.crowded_at.load(Ordering::Relaxed);
        crowded_at > 0 && u128::from(self.counts.now().saturating_sub(crowded_at - 1)) < CROWDED.as_millis()
    }

    /// Returns the number of the last commit that needs an fsync, and of the last durable one that wrote anything: when
    /// the second is greater than the first was when a commit failed, that commit's place in the WAL was overwritten by
    /// another.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.counts.made.load(Ordering::Acquire), self.counts.proven.load(Ordering::Acquire))
    }

    /// Returns the longest time that a waiting transaction has waited.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.waiting.longest()
    }

    /// Returns true if the last commit to finish became durable, no longer ago than `within`.
    pub(crate) fn committed_within(&self, within: Duration) -> bool {
        let (good, bad) = (self.counts.good_at.load(Ordering::Acquire), self.counts.bad_at.load(Ordering::Acquire));
        good > bad && u128::from(self.counts.now().saturating_sub(good - 1)) <= within.as_millis()
    }

    /// Returns the counters.
    pub(super) const fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Returns the faults of its commits, for tests.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Ends the thread, and waits until it and the threads it started have closed the database. Blocks.
    pub(crate) fn end(&self) {
        drop(self.events.send(Event::End));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A thread that panicked has reported it itself.
        drop(thread.map(JoinHandle::join));
    }

    /// Becomes true when the writer stopped permanently.
    pub(crate) fn failure(&self) -> watch::Receiver<bool> {
        self.failure.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.events.send(Event::End));
    }
}

/// Octets before each page in the WAL.
const FRAME_HEADER: u64 = 24;

/// Opens descriptors of the WAL, which exists as long as any connection does. Closing one releases no lock: SQLite's
/// are on the other two files.
fn open_wal(connection: &Connection, path: &Path) -> Result<Vec<File>> {
    // The first read of the database creates the file.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let wal = path.with_extension("db-wal");
    let open = || File::open(&wal).map_err(|error| Error::io(wal.display().to_string(), error));
    (0..sync::MAX).map(|_| open()).collect()
}

struct Thread {
    connection: Connection,
    path: PathBuf,
    /// Octets per page in the WAL.
    frame: u64,
    /// Pages in the WAL after the last commit.
    pages: u64,
    heard: Receiver<Event>,
    batch: Vec<Request>,
    counts: Arc<Counts>,
    faults: Arc<Faults>,
    failed: watch::Sender<bool>,
    syncs: Syncs,
    pace: Pace,
    progress: Progress,
    background: Background,
    /// Notified of each commit, and of its fsync.
    mark: Arc<Keeper>,
    reserve: Arc<Reserve>,
    /// Notified of the end of each transaction.
    changes: Arc<Changes>,
    /// Present value of `PRAGMA journal_size_limit`.
    kept: u64,
    /// While the disk is full: time at which to make room again.
    reclaim_at: Cell<Option<Instant>>,
    /// Time of the last report of a large WAL.
    told_at: Option<Instant>,
}

impl Thread {
    fn run(mut self) {
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
        *self.failed.borrow()
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
        let ended = outcome.and_then(|()| self.commit(durability));
        // Before anybody is answered, and whatever the end: statements after an error may have been committed alone.
        self.changes.publish();
        if let Err(error) = ended {
            self.roll_back();
            answers.into_iter().for_each(|answer| answer(Err(&error)));
            return;
        }
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        let tell: sync::Answers = Box::new(move |durable| {
            let outcome = if durable { Ok(()) } else { Err(CommitError::Begun(Box::new(CommitError::Stopped))) };
            answers.into_iter().for_each(|answer| answer(outcome.as_ref().copied()));
        });
        let wrote = self.connection.total_changes() != changes_before;
        let sync = durability == Durability::Power;
        let made = self.counts.made.load(Ordering::Relaxed) + u64::from(sync);
        // Before the fsync that makes it a promise.
        self.mark.committed(&self.connection, sync.then_some(made));
        self.counts.made.store(made, Ordering::Release);
        self.syncs.commit(sync, wrote, tell);
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

    /// Runs one caller's work; an error affects the whole transaction.
    fn run_in_savepoint(&self, work: Work) -> (Option<Answer>, std::result::Result<(), CommitError>) {
        if let Err(error) = self.execute("SAVEPOINT one") {
            let error = self.judge(&error);
            work(Err(&error));
            return (None, Err(error));
        }
        let Some((savepoint, answer)) = work(Ok(&self.connection)) else {
            return (None, Ok(()));
        };
        // When there is no room, or reading fails, SQLite rolls back the whole transaction, not only the statement.
        if self.connection.is_autocommit() {
            let undone = match savepoint {
                Savepoint::NoRoom => CommitError::Full("the transaction was undone".to_owned()),
                Savepoint::Undone => CommitError::Busy,
                Savepoint::Kept => {
                    // The work went on after the error, and its later statements were committed one by one.
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

    /// Commits the batch. However this fails, the frames may be on disk, and a restart may find them complete.
    fn commit(&self, durability: Durability) -> std::result::Result<(), CommitError> {
        let commit = || match self.faults.take(durability) {
            None => self.execute("COMMIT"),
            Some(fault) => fault.commit(|statement| self.execute(statement)),
        };
        let ended = catch_unwind(AssertUnwindSafe(commit)).map_err(|_| {
            tracing::error!("the database panicked in a commit; storage stops until a restart");
            self.failed.send_replace(true);
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
            Some(failure) if super::is_busy(*failure) => {
                self.counts.note(&self.counts.bad_at);
                CommitError::Busy
            }
            Some(failure) if super::is_no_room(*failure) => self.no_room(error),
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
        self.failed.send_replace(true);
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

/// Summarizes a batch; `None` if it is empty.
fn waiting(batch: &[Request]) -> Option<WaitingCommits> {
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
fn refuse(batch: Vec<Request>, error: &CommitError) {
    batch.into_iter().for_each(|request| drop((request.work)(Err(error))));
}

#[cfg(test)]
mod tests;
