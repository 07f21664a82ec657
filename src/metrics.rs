//! Counters and gauges of the server, in the text format of Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

macro_rules! counters {
    ($($name:ident = $metric:literal, $help:literal;)*) => {
        /// The counters since the start.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Counter {
            $(#[doc = $help] $name,)*
        }

        const COUNTERS: &[(Counter, &str, &str)] = &[$((Counter::$name, $metric, $help),)*];
    };
}

counters! {
    SessionsOpened = "mailkite_smtp_sessions_total", "SMTP sessions opened.";
    SessionsRefused = "mailkite_smtp_sessions_refused_total", "SMTP connections refused by a cap.";
    MessagesAccepted = "mailkite_messages_accepted_total", "SMTP transactions answered 250 after the data.";
    RefusedRelay = "mailkite_recipients_refused_relay_total", "Recipients refused: not one of our domains.";
    RefusedUnknown = "mailkite_recipients_refused_unknown_total", "Recipients refused: no route matches.";
    RefusedBareLine = "mailkite_messages_refused_bare_newline_total", "Messages refused for a bare CR or LF.";
    RefusedTooLarge = "mailkite_messages_refused_too_large_total", "Messages refused for their size.";
    RefusedReport = "mailkite_messages_refused_report_total", "Messages to SRS addresses refused that do not report on forwarded mail.";
    RefusedLoop = "mailkite_messages_refused_loop_total", "Messages refused because they loop.";
    RefusedStorageFull = "mailkite_messages_refused_storage_full_total", "Messages refused because the disk is full.";
    RefusedStorage = "mailkite_messages_refused_storage_total", "Messages refused because storage failed or was slow.";
    WebhooksDelivered = "mailkite_webhook_attempts_delivered_total", "Webhook attempts that succeeded.";
    WebhooksRejected = "mailkite_webhook_attempts_failed_total", "Webhook attempts that failed.";
    LoginsRefused = "mailkite_smtp_logins_refused_total", "AUTH with an invalid key.";
    MessagesSubmitted = "mailkite_messages_submitted_total", "Messages accepted to be sent.";
    RecipientsSent = "mailkite_recipients_sent_total", "Recipients that a remote host accepted.";
    RecipientsDeferred = "mailkite_recipients_deferred_total", "Attempts deferred by a remote host, or because none was reached.";
    RecipientsBounced = "mailkite_recipients_bounced_total", "Recipients refused for good or given up.";
}

#[derive(Debug)]
pub(crate) struct Metrics {
    counts: Vec<AtomicU64>,
    sessions: AtomicU64,
    listeners: AtomicU64,
    damaged_objects: AtomicU64,
    orphaned_objects: AtomicU64,
    /// The logger's counter, once logging runs.
    dropped_lines: Mutex<Arc<AtomicU64>>,
}

/// Counts a listener that accepts mail as open; closed on drop.
#[derive(Debug)]
pub(crate) struct OpenListener(Arc<Metrics>);

impl Drop for OpenListener {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts an SMTP session as open; closed on drop.
#[derive(Debug)]
pub(crate) struct OpenSession(Arc<Metrics>);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            counts: COUNTERS.iter().map(|_| AtomicU64::new(0)).collect(),
            sessions: AtomicU64::new(0),
            listeners: AtomicU64::new(0),
            damaged_objects: AtomicU64::new(0),
            orphaned_objects: AtomicU64::new(0),
            dropped_lines: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Increments a counter.
    pub(crate) fn add(&self, counter: Counter) {
        if let Some(count) = self.counts.get(counter as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the value of a counter.
    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.counts.get(counter as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Counts a listener that accepts mail as open, until the value is dropped.
    pub(crate) fn open_listener(self: &Arc<Self>) -> OpenListener {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        OpenListener(Arc::clone(self))
    }

    /// Returns true while some listener accepts mail.
    pub(crate) fn has_open_listener(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Adopts the logger's count of dropped lines.
    pub(crate) fn count_dropped_lines(&self, dropped: Arc<AtomicU64>) {
        *self.dropped_lines.lock().unwrap_or_else(PoisonError::into_inner) = dropped;
    }

    /// Counts an SMTP session as open, until the value is dropped.
    pub(crate) fn open_session(self: &Arc<Self>) -> OpenSession {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        OpenSession(Arc::clone(self))
    }

    /// Sets how many stored objects were found missing or damaged, and how many have no row but are kept.
    pub(crate) fn set_objects(&self, damaged: u64, orphans: u64) {
        self.damaged_objects.store(damaged, Ordering::Relaxed);
        self.orphaned_objects.store(orphans, Ordering::Relaxed);
    }

    /// Renders the metrics; `commits` are the database's commits and how many of them were fsynced.
    pub(crate) fn render(&self, commits: (u64, u64)) -> String {
        let mut text = String::with_capacity(4096);
        let mut line = |kind: &str, name: &str, help: &str, value: u64| {
            // Writing to a string cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        };
        for (counter, name, help) in COUNTERS {
            line("counter", name, help, self.get(*counter));
        }
        line("gauge", "mailkite_smtp_sessions", "Open SMTP sessions.", self.sessions.load(Ordering::Relaxed));
        line(
            "counter",
            "mailkite_objects_damaged_total",
            "Stored objects found missing or damaged since the start.",
            self.damaged_objects.load(Ordering::Relaxed),
        );
        line(
            "gauge",
            "mailkite_objects_orphaned",
            "Stored objects without a row kept until the operator decides.",
            self.orphaned_objects.load(Ordering::Relaxed),
        );
        line("counter", "mailkite_commits_total", "Commits of the database.", commits.0);
        line("counter", "mailkite_commits_fsynced_total", "Commits of the database that were fsynced.", commits.1);
        let dropped = self.dropped_lines.lock().unwrap_or_else(PoisonError::into_inner).load(Ordering::Relaxed);
        line(
            "counter",
            "mailkite_log_lines_dropped_total",
            "Log lines dropped because the output was blocked.",
            dropped,
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_explained_once_and_counts() {
        let metrics = Arc::new(Metrics::default());
        metrics.add(Counter::MessagesAccepted);
        metrics.add(Counter::MessagesAccepted);
        let sessions = [metrics.open_session(), metrics.open_session()];
        drop(metrics.open_session());
        let text = metrics.render((5, 2));
        for line in [
            "mailkite_messages_accepted_total 2",
            "mailkite_recipients_refused_unknown_total 0",
            "# TYPE mailkite_smtp_sessions gauge",
            "mailkite_smtp_sessions 2",
            "mailkite_commits_total 5",
            "mailkite_commits_fsynced_total 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line:?} is not in:\n{text}");
        }
        let mut helped: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        let all = helped.len();
        helped.sort_unstable();
        helped.dedup_by_key(|help| help.split(' ').next());
        assert_eq!((helped.len(), text.lines().count()), (all, 3 * all));
        drop(sessions);
        assert!(metrics.render((5, 2)).contains("mailkite_smtp_sessions 0\n"));
    }
}
