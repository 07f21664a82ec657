//! Inbound mail: resolves recipients, matches routes, verifies the sender and accepts messages. The SMTP server calls
//! [`Inbound::resolve`] at RCPT and [`Inbound::receive`] after the data, the API injects a message with
//! [`Inbound::inject`], and nothing else enters; it may use every module but `http`, `smtp_server` and those above
//! them. A change of the answer to RCPT belongs in `recipients`, of route matching in `route` and `directory`, of SPF,
//! DKIM, DMARC and ARC in `verify`, of the accepting transaction in `receive`, and of the spam check in `spam`.

pub(crate) mod directory;
pub(crate) mod import;
pub(crate) mod inject;
mod local;
pub(crate) mod receive;
pub(crate) mod recipients;
pub(crate) mod route;
pub(crate) mod spam;
pub(crate) mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ring::hmac;

use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::event_bus::Publisher;
use crate::id::AccountRowId;
use crate::jobs::Jobs;
use crate::limits::Limits;
use crate::memory_budget::{Consumer, MemoryBudget, Reservation};
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::store::Db;
use crate::store::blobs::objects::Objects;
use crate::webhook::attempt::first_attempt_cache::FirstAttemptCache;

use directory::Directory;
pub(crate) use receive::ReceiveError;
pub(crate) use recipients::{Recipient, RecipientRefusal};
use spam::SpamCheck;
use verify::Verifier;

/// Time during which mail is refused before DATA after the disk was found full; then one message is let through as a
/// test.
const FULL_WAIT: Duration = Duration::from_secs(2);
/// Mail below this size is read without a permit.
const PARSE_FREELY: usize = 64 * 1024;
/// Time for which a session waits for a permit to read its mail before the sender is asked to retry. Senders wait ten
/// minutes (RFC 5321 §4.5.3.2.6), and sending everything again costs more than waiting.
const PARSE_WAIT: Duration = Duration::from_secs(180);

/// Components from which the pipeline is built.
pub(crate) struct Dependencies {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Clock,
    pub(crate) db: Db,
    /// Mail data on disk.
    pub(crate) objects: Objects,
    /// Notifies the job engine.
    pub(crate) jobs: Jobs,
    /// Deliveries kept in memory for their first attempts.
    pub(crate) first_attempt_cache: FirstAttemptCache,
    pub(crate) metrics: Arc<Metrics>,
    /// Limits of one account.
    pub(crate) limits: Arc<Limits>,
    /// Publishes accepted messages to subscribers.
    pub(crate) publisher: Publisher,
    /// Verifies SPF, DKIM, DMARC and ARC.
    pub(crate) verifier: Verifier,
    /// Queries rspamd, if configured.
    pub(crate) spam: Option<SpamCheck>,
    /// Memory budget for reading large mail.
    pub(crate) memory: MemoryBudget,
    /// Takes mail that routes forward, and reads the reports that come back.
    pub(crate) outbound: Outbound,
    /// Key of the hashes for duplicate suppression.
    pub(crate) fingerprint_key: [u8; 32],
}

/// The pipeline; clones share it.
#[derive(Clone)]
pub(crate) struct Inbound {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    clock: Clock,
    db: Db,
    objects: Objects,
    jobs: Jobs,
    first_attempt_cache: FirstAttemptCache,
    metrics: Arc<Metrics>,
    limits: Arc<Limits>,
    publisher: Publisher,
    verifier: Verifier,
    spam: Option<SpamCheck>,
    outbound: Outbound,
    directory: Directory,
    fingerprint_key: hmac::Key,
    memory: MemoryBudget,
    /// Epoch milliseconds until which the disk is assumed to be full.
    full_until: AtomicI64,
}

impl Inbound {
    /// Builds the pipeline from its components.
    pub(crate) fn new(parts: Dependencies) -> Self {
        let directory = Directory::new(parts.db.clone());
        let shared = Shared {
            directory,
            fingerprint_key: hmac::Key::new(hmac::HMAC_SHA256, &parts.fingerprint_key),
            memory: parts.memory,
            full_until: AtomicI64::new(0),
            config: parts.config,
            clock: parts.clock,
            db: parts.db,
            objects: parts.objects,
            jobs: parts.jobs,
            first_attempt_cache: parts.first_attempt_cache,
            metrics: parts.metrics,
            limits: parts.limits,
            publisher: parts.publisher,
            verifier: parts.verifier,
            spam: parts.spam,
            outbound: parts.outbound,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the directory of domains and routes.
    pub(crate) fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    /// Returns the store to which large mail data is written while it arrives.
    pub(crate) fn objects(&self) -> &Objects {
        &self.shared.objects
    }

    /// Waits until mail data of this size may be read into memory, where it is held as long as the permit lives: large
    /// mail takes turns by account.
    ///
    /// # Errors
    /// [`ReceiveError::Busy`] if the permit was not granted in time.
    pub(crate) async fn acquire_parse_permit(
        &self,
        account: Option<AccountRowId>,
        size: u64,
    ) -> Result<Option<Reservation>, ReceiveError> {
        let octets = usize::try_from(size).unwrap_or(usize::MAX);
        if octets < PARSE_FREELY {
            return Ok(None);
        }
        let mut turn = match account {
            Some(account) => self.shared.memory.reservation_of(Consumer::Parsing, account),
            None => self.shared.memory.reservation(Consumer::Parsing),
        };
        turn.wait_within(octets, PARSE_WAIT).await.map_err(|_| ReceiveError::Busy)?;
        Ok(Some(turn))
    }

    /// True if a store that was full a moment ago should not be tried again yet.
    pub(crate) fn is_full(&self) -> bool {
        if self.shared.db.is_full() {
            return true;
        }
        let until = Timestamp::from_millis(self.shared.full_until.load(Ordering::Relaxed));
        let left = until.since(self.shared.clock.now());
        // After the clock was set back, more time may be left than the full wait; ignore that.
        !left.is_zero() && left <= FULL_WAIT
    }

    fn note_full(&self, now: Timestamp) {
        self.shared.full_until.store(now.plus(FULL_WAIT).as_millis(), Ordering::Relaxed);
    }
}
