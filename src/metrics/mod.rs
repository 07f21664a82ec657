//! Events of the server, counted and timed for `/metrics`. Pure: atomics, and text made of them.
//!
//! [`Metrics`] has the events that several modules count; a part with figures of its own (the database, the memory
//! budget, the job engine) keeps them and implements [`Expose`]. `docs/metrics.md` lists every series. Labels belong
//! to `labels`, buckets to `buckets`, the format to `exposition`.

pub(crate) mod buckets;
mod by;
mod exposition;
mod labels;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

use by::{CounterBy, CounterByTwo, HistogramBy};
pub(crate) use exposition::{Expose, Exposition, Format, text};
use labels::Label as _;
pub(crate) use labels::{
    MessageRefused, RateLimit, RecipientRefused, RemoteOutcome, Service, StatusSubject, WebhookAnswer,
};

macro_rules! counters {
    ($($name:ident = $metric:literal, $help:literal;)*) => {
        /// The counters without a label, since the start.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Counter {
            $(#[doc = $help] $name,)*
        }

        const COUNTERS: &[(Counter, &str, &str)] = &[$((Counter::$name, $metric, $help),)*];
    };
}

counters! {
    SessionsRefused = "mailkite_smtp_sessions_refused_total", "SMTP connections refused by a cap.";
    MessagesAccepted = "mailkite_messages_accepted_total", "SMTP transactions answered 250 after the data.";
    WebhooksDelivered = "mailkite_webhook_attempts_delivered_total", "Webhook attempts that succeeded.";
    WebhooksRejected = "mailkite_webhook_attempts_failed_total", "Webhook attempts that failed.";
    MessagesSubmitted = "mailkite_messages_submitted_total", "Messages accepted to be sent.";
    RecipientsSent = "mailkite_recipients_sent_total", "Recipients that a remote host accepted.";
    RecipientsDeferred = "mailkite_recipients_deferred_total", "Attempts deferred by a remote host, or because none was reached.";
    RecipientsBounced = "mailkite_recipients_bounced_total", "Recipients refused for good or given up.";
}

#[derive(Debug)]
pub(crate) struct Metrics {
    counts: Vec<AtomicU64>,
    /// SMTP sessions opened and open, by service.
    opened: AtomicU64,
    open: [AtomicU64; Service::WORDS.len()],
    listeners: AtomicU64,
    damaged_objects: AtomicU64,
    orphaned_objects: AtomicU64,
    /// The logger's counter, once logging runs.
    dropped_lines: Mutex<Arc<AtomicU64>>,
    pub(crate) recipients_refused: CounterByTwo<Service, RecipientRefused>,
    pub(crate) messages_refused: CounterByTwo<Service, MessageRefused>,
    pub(crate) credentials_failed: CounterBy<Service>,
    pub(crate) rate_limited: CounterBy<RateLimit>,
    pub(crate) webhook_attempts: CounterBy<WebhookAnswer>,
    pub(crate) remote_deliveries: CounterByTwo<RemoteOutcome, StatusSubject>,
    accept: HistogramBy<Service>,
    mail_to_webhook: Histogram,
    webhook_attempt: Histogram,
    remote_delivery: Histogram,
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
pub(crate) struct OpenSession(Arc<Metrics>, Service);

impl Drop for OpenSession {
    fn drop(&mut self) {
        if let Some(open) = self.0.open.get(self.1.index()) {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = |buckets: &[f64]| Histogram::new(buckets.iter().copied());
        Self {
            counts: COUNTERS.iter().map(|_| AtomicU64::new(0)).collect(),
            opened: AtomicU64::new(0),
            open: [const { AtomicU64::new(0) }; Service::WORDS.len()],
            listeners: AtomicU64::new(0),
            damaged_objects: AtomicU64::new(0),
            orphaned_objects: AtomicU64::new(0),
            dropped_lines: Mutex::default(),
            recipients_refused: CounterByTwo::default(),
            messages_refused: CounterByTwo::default(),
            credentials_failed: CounterBy::default(),
            rate_limited: CounterBy::default(),
            webhook_attempts: CounterBy::default(),
            remote_deliveries: CounterByTwo::default(),
            accept: HistogramBy::new(buckets::ACCEPT, Service::SMTP),
            mail_to_webhook: histogram(buckets::MAIL_TO_WEBHOOK),
            webhook_attempt: histogram(buckets::WEBHOOK),
            remote_delivery: histogram(buckets::REMOTE_DELIVERY),
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

    fn get(&self, counter: Counter) -> u64 {
        self.counts.get(counter as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Notes the time from the end of the data until the reply 250.
    pub(crate) fn accepted_within(&self, service: Service, took: Duration) {
        self.accept.observe(service, took.as_secs_f64());
    }

    /// Notes a webhook attempt.
    pub(crate) fn webhook_attempted(&self, answer: WebhookAnswer, took: Duration) {
        self.webhook_attempts.add(answer);
        self.webhook_attempt.observe(took.as_secs_f64());
    }

    /// Notes the time from the acceptance of a mail until the end of its first webhook attempt.
    pub(crate) fn webhook_reached_after(&self, took: Duration) {
        self.mail_to_webhook.observe(took.as_secs_f64());
    }

    /// Notes the duration of an attempt to deliver to a remote host.
    pub(crate) fn remote_delivery_took(&self, took: Duration) {
        self.remote_delivery.observe(took.as_secs_f64());
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

    /// Counts an SMTP session as opened, and as open until the value is dropped.
    pub(crate) fn open_session(self: &Arc<Self>, service: Service) -> OpenSession {
        self.opened.fetch_add(1, Ordering::Relaxed);
        if let Some(open) = self.open.get(service.index()) {
            open.fetch_add(1, Ordering::Relaxed);
        }
        OpenSession(Arc::clone(self), service)
    }

    /// Sets how many stored objects were found missing or damaged, and how many have no row but are kept.
    pub(crate) fn set_objects(&self, damaged: u64, orphans: u64) {
        self.damaged_objects.store(damaged, Ordering::Relaxed);
        self.orphaned_objects.store(orphans, Ordering::Relaxed);
    }

    /// Writes the figures of single reasons, which were there before those with labels.
    fn expose_single_reasons(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        use MessageRefused as Message;
        let recipients = |reason| self.recipients_refused.sum(reason);
        let messages = |reason| self.messages_refused.sum(reason);
        let credentials = |service| self.credentials_failed.get(service);
        for (name, help, value) in [
            (
                "mailkite_recipients_refused_relay_total",
                "Recipients refused: not one of our domains.",
                recipients(RecipientRefused::Relay),
            ),
            (
                "mailkite_recipients_refused_unknown_total",
                "Recipients refused: no route matches.",
                recipients(RecipientRefused::Unknown),
            ),
            (
                "mailkite_messages_refused_bare_newline_total",
                "Messages refused for a bare CR or LF.",
                messages(Message::BareNewline),
            ),
            (
                "mailkite_messages_refused_too_large_total",
                "Messages refused for their size.",
                messages(Message::TooLarge),
            ),
            (
                "mailkite_messages_refused_report_total",
                "Messages to SRS addresses refused that do not report on forwarded mail.",
                messages(Message::NotAReport),
            ),
            ("mailkite_messages_refused_loop_total", "Messages refused because they loop.", messages(Message::Loop)),
            (
                "mailkite_messages_refused_storage_full_total",
                "Messages refused because the disk is full.",
                messages(Message::StorageFull),
            ),
            (
                "mailkite_messages_refused_storage_total",
                "Messages refused because storage failed or was slow.",
                messages(Message::Storage),
            ),
            (
                "mailkite_smtp_logins_refused_total",
                "AUTH with an invalid key.",
                credentials(Service::Submission) + credentials(Service::Submissions),
            ),
        ] {
            exposition.counter(name, help, value)?;
        }
        Ok(())
    }
}

impl Expose for Metrics {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        for (counter, name, help) in COUNTERS {
            exposition.counter(name, help, self.get(*counter))?;
        }
        self.expose_single_reasons(exposition)?;
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let opened = load(&self.opened);
        exposition.counter_beside_gauge("mailkite_smtp_sessions_total", "SMTP sessions opened.", opened)?;
        exposition.gauge("mailkite_smtp_sessions", "Open SMTP sessions.", self.open.iter().map(load).sum::<u64>())?;
        let smtp = Service::WORDS.iter().zip(&self.open).take(Service::SMTP);
        let open = smtp.map(|(word, open)| ([(Service::KEY, *word)], load(open)));
        exposition.gauges("mailkite_sessions", "Open SMTP sessions, by service.", open)?;
        let listeners = load(&self.listeners);
        exposition.gauge("mailkite_smtp_listeners", "Listeners on which mail is received.", listeners)?;
        exposition.counter(
            "mailkite_objects_damaged_total",
            "Stored objects found missing or damaged since the start.",
            load(&self.damaged_objects),
        )?;
        exposition.gauge(
            "mailkite_objects_orphaned",
            "Stored objects without a row kept until the operator decides.",
            load(&self.orphaned_objects),
        )?;
        let dropped = load(&self.dropped_lines.lock().unwrap_or_else(PoisonError::into_inner));
        let help = "Log lines dropped because the output was blocked.";
        exposition.counter("mailkite_log_lines_dropped_total", help, dropped)?;
        let e = exposition;
        self.recipients_refused.expose(e, "mailkite_recipients_refused_total", "Recipients refused, by reason.")?;
        self.messages_refused.expose(e, "mailkite_messages_refused_total", "Messages refused, by reason.")?;
        self.credentials_failed.expose(
            e,
            "mailkite_credentials_failed_total",
            "Wrong passwords, keys and tokens.",
        )?;
        self.rate_limited.expose(e, "mailkite_rate_limited_total", "Requests refused by a rate limit.")?;
        self.webhook_attempts.expose(e, "mailkite_webhook_attempts_total", "Webhook attempts, by their end.")?;
        self.remote_deliveries.expose(
            e,
            "mailkite_remote_deliveries_total",
            "Recipients in attempts to deliver to remote hosts, by outcome and subject of the status code.",
        )?;
        self.accept.expose(
            e,
            "mailkite_accept_duration_seconds",
            "Time from the end of the data until the reply 250, which means that the mail is on disk.",
        )?;
        e.histogram(
            "mailkite_mail_to_webhook_seconds",
            "Time from the acceptance of a mail until the end of its first webhook attempt.",
            &self.mail_to_webhook,
        )?;
        let help = "Duration of a webhook attempt.";
        e.histogram("mailkite_webhook_attempt_duration_seconds", help, &self.webhook_attempt)?;
        let help = "Duration of an attempt to deliver to a remote host.";
        e.histogram("mailkite_remote_delivery_duration_seconds", help, &self.remote_delivery)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn every_figure_is_explained_once_and_counts() {
        let metrics = Arc::new(Metrics::default());
        metrics.add(Counter::MessagesAccepted);
        metrics.add(Counter::MessagesAccepted);
        let shown = || text(Format::Prometheus, vec![Box::new(Arc::clone(&metrics))]).unwrap();
        let sessions = [metrics.open_session(Service::Smtp), metrics.open_session(Service::Submission)];
        drop(metrics.open_session(Service::Smtp));
        metrics.recipients_refused.add(Service::Smtp, RecipientRefused::Relay);
        metrics.messages_refused.add(Service::Submissions, MessageRefused::TooLarge);
        metrics.messages_refused.add(Service::Smtp, MessageRefused::TooLarge);
        metrics.credentials_failed.add(Service::Submission);
        metrics.credentials_failed.add(Service::Http);
        metrics.accepted_within(Service::Smtp, Duration::from_millis(3));
        let text = shown();
        for line in [
            "mailkite_messages_accepted_total 2",
            "mailkite_recipients_refused_unknown_total 0",
            "mailkite_recipients_refused_relay_total 1",
            "mailkite_recipients_refused_total{service=\"smtp\",reason=\"relay\"} 1",
            "mailkite_messages_refused_too_large_total 2",
            "mailkite_messages_refused_total{service=\"submissions\",reason=\"too_large\"} 1",
            "mailkite_smtp_logins_refused_total 1",
            "# TYPE mailkite_smtp_sessions gauge",
            "mailkite_smtp_sessions 2",
            "mailkite_smtp_sessions_total 3",
            "mailkite_sessions{service=\"submission\"} 1",
            "mailkite_accept_duration_seconds_bucket{service=\"smtp\",le=\"0.0025\"} 0",
            "mailkite_accept_duration_seconds_bucket{service=\"smtp\",le=\"0.005\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line:?} is not in:\n{text}");
        }
        let mut helped: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        let all = helped.len();
        helped.sort_unstable();
        helped.dedup_by_key(|help| help.split(' ').next());
        assert_eq!((helped.len(), text.matches("# TYPE ").count()), (all, all));
        drop(sessions);
        assert!(shown().contains("mailkite_smtp_sessions 0\n"));
    }
}
