//! Counters of the writer for other threads: commits, the WAL, times of the last durable and the last failed commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use tokio::sync::watch;

use super::Event;
use super::failure::Failure;
use super::mark::Keeper;
use super::sync::Listener;

/// Counters of the writer, and times of its last events.
#[derive(Debug)]
pub(in crate::store) struct Counts {
    pub(super) commits: AtomicU64,
    pub(super) synced: AtomicU64,
    pub(super) started: Instant,
    /// Milliseconds from `started`, plus one; 0 is never: the last commit that many waited for …
    pub(super) crowded_at: AtomicU64,
    /// … the last that became durable, and the last that failed.
    pub(super) good_at: AtomicU64,
    pub(super) bad_at: AtomicU64,
    pub(super) wal_octets: AtomicU64,
    /// WAL size at which a checkpoint runs.
    pub(super) wal_mark: AtomicU64,
    pub(super) wal_written: AtomicU64,
    /// Number of the last commit that needs an fsync, and of the last durable one that wrote anything.
    pub(super) made: AtomicU64,
    pub(super) proven: AtomicU64,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            commits: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            started: Instant::now(),
            crowded_at: AtomicU64::new(0),
            good_at: AtomicU64::new(0),
            bad_at: AtomicU64::new(0),
            wal_octets: AtomicU64::new(0),
            wal_mark: AtomicU64::new(super::checkpoint::MARK_MAX),
            wal_written: AtomicU64::new(0),
            made: AtomicU64::new(0),
            proven: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn note(&self, what: &AtomicU64) {
        what.store(self.now().saturating_add(1), Ordering::Release);
    }

    /// Returns the octets that commits have written to the WAL since the start.
    pub(in crate::store) fn wal_written(&self) -> u64 {
        self.wal_written.load(Ordering::Relaxed)
    }

    /// Returns the octets of the WAL that are in use.
    pub(in crate::store) fn wal_octets(&self) -> u64 {
        self.wal_octets.load(Ordering::Relaxed)
    }

    /// Returns the WAL's size as a multiple of the size for a checkpoint: large while readers prevent its reset.
    pub(in crate::store) fn wal_marks(&self) -> u64 {
        self.wal_octets() / self.wal_mark.load(Ordering::Relaxed).max(1)
    }
}

/// Listener for fsyncs, called on their threads.
pub(super) struct Announced {
    pub(crate) events: Sender<Event>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) failed: watch::Sender<Option<Failure>>,
    pub(crate) mark: Arc<Keeper>,
}

impl Listener for Announced {
    fn synced(&self, durable: u64, proven: u64) {
        self.counts.synced.fetch_max(durable, Ordering::Release);
        self.counts.proven.fetch_max(proven, Ordering::Release);
        // Before any caller is answered.
        self.mark.durable(durable);
        self.counts.note(&self.counts.good_at);
        drop(self.events.send(Event::Synced));
    }

    fn failed(&self, error: &std::io::Error) {
        tracing::error!(%error, "an fsync of the database's log failed; storage stops until a restart");
        self.counts.note(&self.counts.bad_at);
        self.failed.send_replace(Some(Failure::Sync(error.to_string())));
        self.mark.end();
        drop(self.events.send(Event::Synced));
    }
}
