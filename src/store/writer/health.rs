//! How the database does: whether commits are made, who waits and reads for how long, how large the WAL is.

use std::fmt::Write as _;
use std::time::Duration;

use crate::store::{Db, Result};

/// A commit that takes longer stands still.
const STALLED: Duration = Duration::from_secs(3);
/// A commit this long ago says that the next would be made too.
const FRESH: Duration = Duration::from_secs(1);
/// How long an answer is waited for, where nothing says so.
const PROBE_MAX: Duration = Duration::from_secs(2);

impl Db {
    /// How long the transaction has waited that waits longest for its commit.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.inner.writer.longest_wait()
    }

    /// How long the reader has read that reads longest: as long the WAL keeps what it reads.
    pub(crate) fn longest_read(&self) -> Duration {
        self.inner.reading.longest()
    }

    /// Octets of the WAL that are in use.
    pub(crate) fn wal_octets(&self) -> u64 {
        self.inner.writer.counts().wal_octets()
    }

    /// Octets that commits have written to the WAL since the start.
    pub(crate) fn wal_written(&self) -> u64 {
        self.inner.writer.counts().wal_written()
    }

    /// Whether commits are made: one was a moment ago, or an empty one is, in a few seconds. An fsync that does not
    /// return, a full disk and another process's lock are in the way of both.
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

    /// Returns once everything that was committed before is durable: a reader may see it earlier.
    ///
    /// # Errors
    /// As [`Db::write`].
    pub(crate) async fn until_durable(&self) -> Result<()> {
        self.write_removal(|_| Ok(())).await
    }

    /// The figures in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        let figures = [
            (
                "mailkite_wal_written_bytes_total",
                "counter",
                "Octets that commits have written to the database's WAL.",
                self.wal_written() as f64,
            ),
            (
                "mailkite_wal_bytes",
                "gauge",
                "Octets of the database's WAL that are in use.",
                self.wal_octets() as f64,
            ),
            (
                "mailkite_commit_oldest_waiting_seconds",
                "gauge",
                "How long the transaction has waited that waits longest for its commit.",
                self.longest_wait().as_secs_f64(),
            ),
            (
                "mailkite_reader_oldest_seconds",
                "gauge",
                "How long the database's oldest reader has read; the WAL keeps what it reads.",
                self.longest_read().as_secs_f64(),
            ),
        ];
        let mut text = String::with_capacity(1024);
        for (name, kind, help, value) in figures {
            // Writing to a string cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        text
    }
}
