//! Checkpoints: the WAL is moved into the database file so that it can be reset, in the background first, so that
//! commits go on, then the short rest between two commits.
//!
//! The limit of its size follows the free room on the disk: its content has to fit into the database file.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;

use super::failure::Failure;
use crate::store::connection::keep_wal;

/// WAL size at which a checkpoint runs, where there is plenty of room …
pub(super) const MARK_MAX: u64 = 64 << 20;
/// … and where there is nearly none.
const MARK_MIN: u64 = 256 << 10;
/// In between, this share of the free room.
const ROOM_SHARE: u64 = 16;
/// Length that the file keeps when the WAL is reset: transactions that fit need no room on a full disk.
const KEPT_MIN: u64 = 1 << 20;
/// Delay between two attempts, and the factor by which it grows while readers prevent the reset.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_GROWTH: u32 = 5;
/// Delay after an error.
const ERROR_RETRY: Duration = Duration::from_secs(1);
/// Rounds in the background before the rest is moved whatever its size.
const ROUNDS: u32 = 3;

/// Progress of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// Pages in the WAL, and the number of them that are in the database file.
    pub(crate) pages: u64,
    pub(crate) moved: u64,
}

impl Moved {
    pub(super) const fn is_all(&self) -> bool {
        self.pages == self.moved
    }
}

/// Reports the size of the WAL without moving anything.
pub(super) fn wal_frames(connection: &Connection) -> rusqlite::Result<Moved> {
    run(connection, "PRAGMA wal_checkpoint(NOOP)")
}

/// Moves the pages that can be moved without waiting for anybody.
pub(super) fn passive(connection: &Connection) -> rusqlite::Result<Moved> {
    run(connection, "PRAGMA wal_checkpoint(PASSIVE)")
}

/// Does the same, and waits for readers of the WAL as long as the connection's busy timeout.
pub(super) fn restart(connection: &Connection) -> rusqlite::Result<Moved> {
    run(connection, "PRAGMA wal_checkpoint(RESTART)")
}

fn run(connection: &Connection, statement: &str) -> rusqlite::Result<Moved> {
    connection.prepare_cached(statement)?.query_row([], |row| {
        // A database that is not in WAL mode reports -1.
        let pages = |column| row.get(column).map(|pages: i64| u64::try_from(pages).unwrap_or(0));
        Ok(Moved { pages: pages(1)?, moved: pages(2)? })
    })
}

/// Returns the WAL size in octets at which a checkpoint runs, with this much free room.
pub(super) fn mark(free: u64) -> u64 {
    (free / ROOM_SHARE).clamp(MARK_MIN, MARK_MAX)
}

/// Returns the length that the file keeps when the WAL is reset.
pub(super) fn kept(mark: u64) -> u64 {
    mark.max(KEPT_MIN)
}

/// Next step of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Ask the background thread.
    Background,
    /// Move the rest now, between two commits.
    Rest,
}

/// State of the checkpoints.
#[derive(Debug)]
pub(super) struct Progress {
    running: bool,
    rounds: u32,
    /// No attempt is made before this time.
    next: Option<Instant>,
    /// Attempts in a row in which readers, or another process, prevented a complete checkpoint.
    held_back: u32,
}

impl Progress {
    pub(super) const fn new() -> Self {
        Self { running: false, rounds: 0, next: None, held_back: 0 }
    }

    /// Decides after a commit that left the WAL this large.
    pub(super) fn grown(&mut self, octets: u64, mark: u64, now: Instant) -> Step {
        if octets < mark {
            if octets < mark / 2 {
                self.held_back = 0;
            }
            return Step::Nothing;
        }
        if self.next.is_some_and(|next| now < next) {
            return Step::Nothing;
        }
        self.start()
    }

    /// Starts a checkpoint whatever the size, unless one is running.
    pub(super) const fn start(&mut self) -> Step {
        if self.running {
            return Step::Nothing;
        }
        self.running = true;
        self.rounds = 1;
        Step::Background
    }

    /// Decides after the background thread finished; the WAL has `pages` pages by now.
    pub(super) fn moved(&mut self, moved: Moved, pages: u64) -> Step {
        let rest = pages.saturating_sub(moved.moved);
        if rest > pages / 8 && self.rounds < ROUNDS {
            self.rounds += 1;
            return Step::Background;
        }
        self.running = false;
        Step::Rest
    }

    /// Records that the rest was moved, or not all of it.
    pub(super) fn rested(&mut self, moved: Moved, now: Instant) {
        self.running = false;
        self.held_back = if moved.is_all() { 0 } else { self.held_back.saturating_add(1) };
        self.next = Some(now + RETRY * self.held_back.clamp(1, RETRY_GROWTH));
    }

    /// Records a failure that may be temporary.
    pub(super) fn failed(&mut self, now: Instant) {
        self.running = false;
        self.next = Some(now + ERROR_RETRY);
    }

    /// Returns how often in a row readers prevented the reset of the WAL.
    pub(super) const fn held_back(&self) -> u32 {
        self.held_back
    }
}

/// The background thread, which ends when this is dropped.
pub(super) struct Background {
    /// None once it is ending.
    asks: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts the thread for the database at `path`; `tell` is called after each run. Once storage failed it moves
    /// nothing.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        path: &Path,
        failure: watch::Receiver<Option<Failure>>,
        tell: impl Fn(rusqlite::Result<Moved>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (asks, asked) = channel();
        let path = path.to_owned();
        let thread = std::thread::Builder::new().name("checkpoint".to_owned());
        let thread = thread.spawn(move || serve(&path, &asked, &failure, tell))?;
        Ok(Self { asks: Some(asks), thread: Some(thread) })
    }

    /// Requests a run; returns false when the thread has ended.
    pub(super) fn ask(&self) -> bool {
        self.asks.as_ref().is_some_and(|asks| asks.send(()).is_ok())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.asks = None;
        // A thread that panicked has reported it itself.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn serve(
    path: &Path,
    asked: &Receiver<()>,
    failure: &watch::Receiver<Option<Failure>>,
    tell: impl Fn(rusqlite::Result<Moved>),
) {
    let mut open: Option<Connection> = None;
    while asked.recv().is_ok() && failure.borrow().is_none() {
        let moved = match open.take().map_or_else(|| connect(path), Ok) {
            Ok(connection) => {
                let moved = passive(&connection);
                open = Some(connection);
                moved
            }
            Err(error) => Err(error),
        };
        tell(moved);
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    keep_wal(&connection)?;
    // It fsyncs the WAL before it copies, and the database before the WAL may be reset.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -256)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wal_leaves_room_for_what_it_holds() {
        assert_eq!(mark(u64::MAX), 64 << 20);
        for free in [0, 1 << 20, 24 << 20, 64 << 20, 512 << 20] {
            assert!(mark(free) <= (free / 8).max(MARK_MIN), "{free}");
        }
    }

    #[test]
    fn the_bulk_is_moved_in_the_background_and_the_rest_between_two_commits() {
        let (mut progress, now) = (Progress::new(), Instant::now());
        assert_eq!(progress.grown(99, 100, now), Step::Nothing);
        assert_eq!(progress.grown(100, 100, now), Step::Background);
        assert_eq!(progress.grown(120, 100, now), Step::Nothing, "one at a time");
        assert_eq!(progress.moved(Moved { pages: 100, moved: 100 }, 150), Step::Background, "much came meanwhile");
        assert_eq!(progress.moved(Moved { pages: 150, moved: 150 }, 160), Step::Rest);
        progress.rested(Moved { pages: 160, moved: 130 }, now);
        assert_eq!((progress.held_back(), progress.grown(170, 100, now)), (1, Step::Nothing), "not at every commit");
        assert_eq!(progress.grown(170, 100, now + RETRY), Step::Background);
    }
}
