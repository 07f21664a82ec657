//! Inbound mail: who a recipient is, what its routes are, whether the sender is who it says, and acceptance.
//!
//! The SMTP door asks [`Inbound::resolve`] at RCPT and [`Inbound::receive`] after the data; the API hands in a message
//! with [`Inbound::inject`]. Nothing else enters.

pub(crate) mod directory;
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
use crate::event_bus::Feed;
use crate::id::AccountRowId;
use crate::jobs::Jobs;
use crate::limits::Limits;
use crate::memory_budget::{Door, MemoryBudget, Reservation};
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

/// After a full disk was met, mail is refused before DATA for so long, then one is let through to see.
const FULL_WAIT: Duration = Duration::from_secs(2);
/// Mail that is smaller is read at once.
const PARSE_FREELY: usize = 64 * 1024;
/// How long a session waits for its turn to be read before the sender is asked to come again. Senders wait ten minutes
/// (RFC 5321 §4.5.3.2.6), and sending it all again costs more than waiting.
const PARSE_WAIT: Duration = Duration::from_secs(180);

/// What the pipeline is built from.
pub(crate) struct Dependencies {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// What time it is.
    pub(crate) clock: Clock,
    /// The database.
    pub(crate) db: Db,
    /// Mail data on disk.
    pub(crate) objects: Objects,
    /// The bell of the job engine.
    pub(crate) jobs: Jobs,
    /// What it has for the first attempts of webhooks.
    pub(crate) fresh: FirstAttemptCache,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// What one account may have.
    pub(crate) limits: Arc<Limits>,
    /// Who wants to hear of it.
    pub(crate) feed: Feed,
    /// SPF, DKIM, DMARC and ARC.
    pub(crate) verifier: Verifier,
    /// rspamd, if configured.
    pub(crate) spam: Option<SpamCheck>,
    /// What large mail is read within.
    pub(crate) memory: MemoryBudget,
    /// Takes what routes forward, and reads what comes back.
    pub(crate) outbound: Outbound,
    /// The key that duplicate suppression hashes with.
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
    fresh: FirstAttemptCache,
    metrics: Arc<Metrics>,
    limits: Arc<Limits>,
    feed: Feed,
    verifier: Verifier,
    spam: Option<SpamCheck>,
    outbound: Outbound,
    directory: Directory,
    fingerprint_key: hmac::Key,
    memory: MemoryBudget,
    /// Epoch milliseconds until which there is known to be no room.
    full_until: AtomicI64,
}

impl Inbound {
    /// The pipeline over its parts.
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
            fresh: parts.fresh,
            metrics: parts.metrics,
            limits: parts.limits,
            feed: parts.feed,
            verifier: parts.verifier,
            spam: parts.spam,
            outbound: parts.outbound,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Which routes a recipient reaches.
    pub(crate) fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    /// Where large mail data is written while it arrives.
    pub(crate) fn objects(&self) -> &Objects {
        &self.shared.objects
    }

    /// Waits until mail data of this size may be read into memory, where it is held while the answer lives: large mail
    /// takes turns, by the account whose it is.
    ///
    /// # Errors
    /// [`ReceiveError::Busy`]: the turn did not come in time.
    pub(crate) async fn acquire_parse_permit(
        &self,
        account: AccountRowId,
        size: u64,
    ) -> Result<Option<Reservation>, ReceiveError> {
        let octets = usize::try_from(size).unwrap_or(usize::MAX);
        if octets < PARSE_FREELY {
            return Ok(None);
        }
        let mut turn = self.shared.memory.reservation_of(Door::Parsing, account);
        turn.wait_within(octets, PARSE_WAIT).await.map_err(|_| {
            tracing::warn!("a message waited too long for its turn and was refused");
            ReceiveError::Busy
        })?;
        Ok(Some(turn))
    }

    /// Whether a store that was full a moment ago should not be asked again yet.
    pub(crate) fn is_full(&self) -> bool {
        if self.shared.db.is_full() {
            return true;
        }
        let until = Timestamp::from_millis(self.shared.full_until.load(Ordering::Relaxed));
        let left = until.since(self.shared.clock.now());
        // A clock that was set back leaves more of it than there ever is.
        !left.is_zero() && left <= FULL_WAIT
    }

    fn note_full(&self, now: Timestamp) {
        self.shared.full_until.store(now.plus(FULL_WAIT).as_millis(), Ordering::Relaxed);
    }
}
