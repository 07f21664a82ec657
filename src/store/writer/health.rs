//! Health of the database: progress of commits, longest waits and reads, size of the WAL.

use std::fmt;
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::{Expose, Exposition};
use crate::store::{Db, Result};

/// Commits that take longer count as stalled.
const STALLED: Duration = Duration::from_secs(3);
/// A commit no longer ago than this shows that the next would succeed too.
const FRESH: Duration = Duration::from_secs(1);
/// Default time limit for a probe.
const PROBE_MAX: Duration = Duration::from_secs(2);

impl Db {
    /// Returns the longest time that a waiting transaction has waited for its commit.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.inner.writer.longest_wait()
    }

    /// Returns the duration of the longest running read: for that long the WAL keeps what it reads.
    pub(crate) fn longest_read(&self) -> Duration {
        self.inner.reading.longest()
    }

    /// Returns the octets of the WAL that are in use.
    pub(crate) fn wal_octets(&self) -> u64 {
        self.inner.writer.counts().wal_octets()
    }

    /// Returns the octets that commits have written to the WAL since the start.
    pub(crate) fn wal_written(&self) -> u64 {
        self.inner.writer.counts().wal_written()
    }

    /// Returns true if commits succeed: one did a moment ago, or an empty one does within a few seconds. An fsync that
    /// does not return, a full disk and another process's lock prevent both.
    pub(crate) async fn is_committing(&self) -> bool {
        let fresh = || self.inner.writer.committed_within(FRESH);
        if !self.is_healthy() || self.longest_wait() > STALLED {
            return false;
        }
        if fresh() {
            return true;
        }
        let probe = async {
            let _turn = self.inner.probes.acquire().await;
            fresh() || self.write(|_| Ok(())).await.is_ok()
        };
        tokio::time::timeout(PROBE_MAX, probe).await.unwrap_or(false)
    }

    /// Returns once everything committed before is durable: a reader may see it earlier.
    ///
    /// # Errors
    /// Those of [`Db::write`].
    pub(crate) async fn until_durable(&self) -> Result<()> {
        self.write_removal(|_| Ok(())).await
    }

    /// Returns the durations of the WAL's fsyncs.
    pub(crate) fn fsync_times(&self) -> &Histogram {
        self.inner.writer.counts().fsyncs()
    }
}

impl Expose for Db {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let (made, fsynced) = self.commits();
        let written = self.wal_written();
        exposition.counter("mailkite_commits_total", "Commits of the database.", made)?;
        exposition.counter(
            "mailkite_commits_fsynced_total",
            "Commits of the database that were fsynced.",
            fsynced,
        )?;
        let help = "Octets that commits have written to the database's WAL.";
        exposition.counter("mailkite_wal_written_bytes_total", help, written)?;
        let help = "Octets of the database's WAL that are in use.";
        exposition.gauge("mailkite_wal_bytes", help, self.wal_octets())?;
        exposition.gauge(
            "mailkite_commit_oldest_waiting_seconds",
            "How long the transaction has waited that waits longest for its commit.",
            self.longest_wait().as_secs_f64(),
        )?;
        exposition.gauge(
            "mailkite_reader_oldest_seconds",
            "How long the database's oldest reader has read; the WAL keeps what it reads.",
            self.longest_read().as_secs_f64(),
        )?;
        let help = "1 while the disk is full and nothing new is stored.";
        exposition.gauge("mailkite_storage_full", help, u32::from(self.is_full()))
    }
}
