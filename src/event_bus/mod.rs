//! Publishes what just happened: to the terminal of `mailkite dev`, ([`realtime`]) to the event streams of accounts,
//! and ([`mail_log`]) to the log.
//!
//! Events are published after the commit, never before. Without subscribers publishing costs nothing, and a slow
//! subscriber misses events instead of holding anything up. It uses level 0 alone; a new event for the terminal is a
//! variant of [`Activity`], a change of the streams belongs in [`realtime`], a line about mail in [`mail_log`].

pub(crate) mod mail_log;
pub(crate) mod realtime;

use tokio::sync::broadcast;

use realtime::EventBus;

/// An event of the whole server.
#[derive(Clone, Debug)]
pub enum Activity {
    /// A message was accepted for one recipient.
    Accepted {
        /// The message's public id.
        message_id: String,
        /// The From address.
        from: String,
        /// The envelope recipient.
        to: String,
        /// Decoded subject.
        subject: Option<String>,
        /// The number of attachments.
        size: u64,
        /// The number of webhooks that will be called.
        attachments: usize,
        /// Webhooks that will be called.
        deliveries: usize,
    },
    /// A webhook attempt was made and recorded.
    Attempted {
        /// The delivery's public id.
        delivery_id: String,
        /// The message's public id.
        message_id: String,
        /// The webhook's URL.
        url: String,
        /// The attempt's number, from 1.
        attempt: u32,
        /// The HTTP status, if there was a response.
        status_code: Option<u16>,
        /// The reason for a failure, as in contract 6.1.
        error: Option<&'static str>,
        /// `pending`, `delivered` or `failed`.
        status: &'static str,
        /// The duration of the attempt in milliseconds.
        duration_ms: u64,
        /// The time of the next attempt, in milliseconds since the epoch.
        next_attempt_at: Option<i64>,
    },
    /// A recipient of outgoing mail was settled or deferred.
    Sent {
        /// The message's public id; `None` when nothing of it is stored.
        message_id: Option<String>,
        /// The envelope sender; empty is the null reverse-path.
        from: String,
        /// The recipient.
        to: String,
        /// The subject.
        subject: Option<String>,
        /// `sent`, `deferred` or `bounced`.
        status: &'static str,
        /// Dev mode kept the mail, so it counts as sent although no host was asked.
        captured: bool,
        /// The remote host's reply, or our own sentence.
        diagnostic: String,
        /// The remote host, if one was reached.
        host: Option<String>,
        /// The time of the next attempt, in milliseconds since the epoch.
        next_attempt_at: Option<i64>,
    },
    /// Mail to a zero-retention domain was posted, in its only attempt.
    ZeroRetentionAttempted {
        /// The public id that the message would have.
        message_id: String,
        /// The webhook's URL.
        url: String,
        /// The HTTP status, if there was a response.
        status_code: Option<u16>,
        /// The reason for a failure, as in contract 6.1.
        error: Option<&'static str>,
        /// `delivered` or `failed`.
        status: &'static str,
        /// The duration of the attempt in milliseconds.
        duration_ms: u64,
    },
}

/// Publishes activity; clones share the subscribers.
#[derive(Clone, Debug)]
pub struct Publisher {
    sender: broadcast::Sender<Activity>,
    /// The event streams of accounts.
    pub(crate) realtime: EventBus,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { sender: broadcast::channel(1024).0, realtime: EventBus::default() }
    }
}

impl Publisher {
    /// Publishes an event; `make` runs only if there is a subscriber.
    pub(crate) fn publish(&self, make: impl FnOnce() -> Activity) {
        if self.sender.receiver_count() > 0 {
            drop(self.sender.send(make()));
        }
    }

    /// Subscribes to all events from now on.
    pub fn listen(&self) -> broadcast::Receiver<Activity> {
        self.sender.subscribe()
    }
}
