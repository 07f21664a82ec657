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
mod failure;
mod pace;
mod readers;
mod request;
mod sync;
mod thread;
mod waiting;

use std::cell::Cell;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::changes::Changes;
use super::{Error, Result, TransactionError};
use checkpoint::{Background, Progress};
use counts::{Announced, Counts};
pub(crate) use failure::Failure;
use faults::Faults;
use mark::Keeper;
use pace::Pace;
use request::{CallerTransaction, Event, Request};
pub(crate) use request::{Durability, Room, Urgency};
use reserve::Reserve;
use sync::Syncs;
use thread::Thread;
pub(super) use waiting::Queue;

/// From this many transactions waiting for one commit the writer counts as contended …
const CONTENTION_THRESHOLD: usize = 4;
/// … and for this long afterwards.
const CROWDED: Duration = Duration::from_millis(100);

/// Handle of the thread.
#[derive(Debug)]
pub(crate) struct Writer {
    events: Sender<Event>,
    counts: Arc<Counts>,
    faults: Arc<Faults>,
    waiting: Queue,
    failure: watch::Receiver<Option<Failure>>,
    /// None once its end was awaited.
    thread: Mutex<Option<JoinHandle<()>>>,
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
        let (failed, failure) = watch::channel(None);
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
                failed.send_replace(Some(Failure::Panicked));
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
        let transaction = Box::new(CallerTransaction::new(work, answer, self.waiting.enter()));
        let request = Request { durability, urgency, room, came: Instant::now(), transaction };
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

    /// Has the WAL moved into the database file in the background, however small it is.
    pub(crate) fn request_checkpoint(&self) {
        drop(self.events.send(Event::Checkpoint));
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

    /// Receives the failure that stopped the writer for good.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<Failure>> {
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

#[cfg(test)]
mod tests;
