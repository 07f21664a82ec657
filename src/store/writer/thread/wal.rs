//! Length of the WAL: when to checkpoint it, on a full disk too, and when to report that it is large.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{LOCK_WAIT, Thread};
use crate::store::writer::checkpoint::{self, Moved, Step};
use crate::store::writer::readers;
use crate::store::{is_busy, is_no_room};

/// Time that a checkpoint waits for readers, once this many before it could not reset the WAL because of them.
const READERS_WAIT: Duration = Duration::from_millis(50);
const HELD_BACK: u32 = 4;
/// Interval of checkpoints that free room on a full disk.
const RECLAIM_EVERY: Duration = Duration::from_secs(1);
/// A WAL of this many times the checkpoint's size is reported …
const WAL_LARGE: u64 = 2;
/// … at this interval.
const WAL_TOLD_EVERY: Duration = Duration::from_secs(60);

impl Thread {
    /// Starts or continues a checkpoint when the WAL has grown.
    pub(super) fn mind_wal(&mut self, now: Instant) {
        match checkpoint::wal_frames(&self.connection) {
            Ok(moved) => self.pages = moved.pages,
            Err(error) => tracing::debug!(%error, "the length of the database's log is not known"),
        }
        let octets = self.pages * self.frame;
        let before = self.counts.wal_octets.swap(octets, Ordering::Relaxed);
        // It was reset when there is less in it than before.
        let written = octets.checked_sub(before).unwrap_or(octets);
        self.counts.wal_written.fetch_add(written, Ordering::Relaxed);
        let mark = checkpoint::mark(free(&self.path));
        self.counts.wal_mark.store(mark, Ordering::Relaxed);
        let told = self.told_at.is_some_and(|told| now.duration_since(told) <= WAL_TOLD_EVERY);
        if !told && octets > mark * WAL_LARGE {
            self.told_at = Some(now);
            let others = readers::others(&self.path).join(", ");
            tracing::warn!(
                octets,
                others,
                "the database's log is large: somebody has read it for long and keeps it from beginning anew"
            );
        }
        if self.has_failed() {
            return;
        }
        self.keep_length(checkpoint::kept(mark));
        if self.progress.grown(octets, mark, now) == Step::Background && !self.background.ask() {
            self.move_rest();
        }
    }

    /// Starts a checkpoint, unless one is running.
    pub(super) fn start_checkpoint(&mut self) {
        if !self.has_failed() && self.progress.start() == Step::Background && !self.background.ask() {
            self.move_rest();
        }
    }

    pub(super) fn moved(&mut self, moved: rusqlite::Result<Moved>) {
        if self.has_failed() {
            return;
        }
        let step = match moved {
            Ok(moved) => self.progress.moved(moved, self.pages),
            Err(error) => return self.move_failed(&error),
        };
        match step {
            Step::Background if self.background.ask() => {}
            Step::Background | Step::Rest => self.move_rest(),
            Step::Nothing => {}
        }
    }

    /// Moves the rest while nobody writes, so that the next commit resets the WAL unless somebody reads it.
    fn move_rest(&mut self) {
        let moved = if self.progress.held_back() < HELD_BACK {
            checkpoint::passive(&self.connection)
        } else {
            let patient = self.connection.busy_timeout(READERS_WAIT);
            let moved = patient.and_then(|()| checkpoint::restart(&self.connection));
            self.connection.busy_timeout(LOCK_WAIT).and(moved)
        };
        match moved {
            Ok(moved) => {
                self.progress.rested(moved, Instant::now());
                if moved.is_all() && !self.reserve.is_spent() {
                    self.reclaim_at.set(None);
                }
            }
            Err(error) => self.move_failed(&error),
        }
    }

    fn move_failed(&mut self, error: &rusqlite::Error) {
        self.progress.failed(Instant::now());
        match error.sqlite_error() {
            Some(failure) if is_busy(*failure) || is_no_room(*failure) => {
                tracing::debug!(%error, "the database's log was not moved; trying again");
            }
            _ => drop(self.stop(error)),
        }
    }

    /// Moves the WAL into the database file on a full disk, so that its room is reused or freed.
    pub(super) fn reclaim(&mut self) {
        if self.has_failed() {
            return self.reclaim_at.set(None);
        }
        self.reclaim_at.set(Some(Instant::now() + RECLAIM_EVERY));
        self.keep_length(checkpoint::kept(0));
        self.reserve.restore();
        self.move_rest();
    }

    /// Sets the length that the WAL's file keeps when it is reset.
    fn keep_length(&mut self, octets: u64) {
        // A small difference is not worth a statement.
        if octets / 2 < self.kept && self.kept / 2 < octets {
            return;
        }
        match self.connection.pragma_update(None, "journal_size_limit", i64::try_from(octets).unwrap_or(i64::MAX)) {
            Ok(()) => self.kept = octets,
            Err(error) => tracing::debug!(%error, "the length of the database's log was not set"),
        }
    }
}

/// Returns the free octets of the file system that holds a file.
fn free(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}
