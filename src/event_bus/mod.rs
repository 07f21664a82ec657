//! What just happened, told to whoever listens: the terminal of `mailkite dev`, and the event streams of accounts.
//!
//! Told after the commit, never before; with nobody listening it costs nothing, and a slow listener misses some
//! instead of holding anything up.

pub(crate) mod realtime;

use tokio::sync::broadcast;

use realtime::EventBus;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Activity {
    /// A message was accepted for one recipient.
    Accepted {
        /// Its public id.
        message_id: String,
        /// Who it is from.
        from: String,
        /// The envelope recipient.
        to: String,
        /// Decoded subject.
        subject: Option<String>,
        /// Octets as received.
        size: u64,
        /// Number of attachments.
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
        /// Where it was posted.
        url: String,
        /// Number from 1.
        attempt: u32,
        /// HTTP status, if there was an answer.
        status_code: Option<u16>,
        /// Why it failed, in the words of contract 6.1.
        error: Option<&'static str>,
        /// `pending`, `delivered` or `failed`.
        status: &'static str,
        /// How long it took.
        duration_ms: u64,
        /// When it is tried again, in milliseconds since the epoch.
        next_attempt_at: Option<i64>,
    },
    /// A recipient of a message that is sent was settled or deferred.
    Sent {
        /// The message's public id; none when nothing is stored of it.
        message_id: Option<String>,
        /// Envelope sender; empty is the null reverse-path.
        from: String,
        /// The recipient.
        to: String,
        /// Subject.
        subject: Option<String>,
        /// `sent`, `deferred` or `bounced`.
        status: &'static str,
        /// Dev mode kept the mail, so it counts as sent although no host was asked.
        captured: bool,
        /// The reply, or our own sentence.
        diagnostic: String,
        /// The remote host, if one was reached.
        host: Option<String>,
        /// When it is tried again, in milliseconds since the epoch.
        next_attempt_at: Option<i64>,
    },
    /// A mail on a domain that stores nothing was posted, once and for all.
    Passed {
        /// What would be the message's public id.
        message_id: String,
        /// Where it was posted.
        url: String,
        /// HTTP status, if there was an answer.
        status_code: Option<u16>,
        /// Why it failed, in the words of contract 6.1.
        error: Option<&'static str>,
        /// `delivered` or `failed`.
        status: &'static str,
        /// How long it took.
        duration_ms: u64,
    },
}

/// Where activity is told and heard; clones share it.
#[derive(Clone, Debug)]
pub struct Feed {
    sender: broadcast::Sender<Activity>,
    /// The event streams of accounts.
    pub(crate) realtime: EventBus,
}

impl Default for Feed {
    fn default() -> Self {
        Self { sender: broadcast::channel(1024).0, realtime: EventBus::default() }
    }
}

impl Feed {
    /// Tells all listeners; `make` runs only if there is one.
    pub(crate) fn publish(&self, make: impl FnOnce() -> Activity) {
        if self.sender.receiver_count() > 0 {
            drop(self.sender.send(make()));
        }
    }

    /// Hears everything from now on.
    pub fn listen(&self) -> broadcast::Receiver<Activity> {
        self.sender.subscribe()
    }
}
