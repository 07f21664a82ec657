//! Limits per account: the one place that decides if an account may have one more of something.
//!
//! [`Limits::admit`] counts in the transaction that adds the row, so that concurrent requests cannot exceed a limit
//! together. [`Limits::take_request`] is the one rate of an account, for its requests and for messages it forwards.
//! The values are the configuration's `[limits]`; refusals are counted for `/metrics`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use crate::clock::Timestamp;
use crate::config;
use crate::id::AccountRowId;
use crate::metrics::{Expose, Exposition};
use crate::rate_limit::TokenBuckets;
use crate::store::accounts::limits::{CountedRow, count, stored_bytes};
use crate::store::{self, Connection, Error};

/// An account that had this much room a short time ago is not checked again for each recipient.
const AMPLE_ROOM_BYTES: u64 = 64 << 20;
const CACHE_TTL: Duration = Duration::from_secs(10);
/// Accounts whose stored bytes are cached; beyond them all are read again.
const MAX_CACHED: u64 = 10_000;

/// Something limited per account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Routes,
    /// Routes whose match is a regex.
    RegexRoutes,
    /// Routes that run for one recipient.
    FanOut,
    /// Messages that one message becomes by forwarding within this server.
    LocalCopies,
    Domains,
    /// API keys restricted to one domain.
    ScopedKeys,
    Templates,
    /// Uploaded files.
    Uploads,
    /// Scheduled messages.
    Scheduled,
    /// Suppressed addresses.
    Suppressions,
    /// Blocked senders.
    BlockedSenders,
    /// Responses remembered by Idempotency-Key.
    IdempotencyKeys,
    /// Bytes stored.
    StorageBytes,
    /// Requests per second.
    Requests,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::Routes,
        Self::RegexRoutes,
        Self::FanOut,
        Self::LocalCopies,
        Self::Domains,
        Self::ScopedKeys,
        Self::Templates,
        Self::Uploads,
        Self::Scheduled,
        Self::Suppressions,
        Self::BlockedSenders,
        Self::IdempotencyKeys,
        Self::StorageBytes,
        Self::Requests,
    ];

    /// Returns its key in `[limits]`, which is also its label in `/metrics`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Routes => "routes",
            Self::RegexRoutes => "regex_routes",
            Self::FanOut => "fan_out",
            Self::LocalCopies => "local_copies",
            Self::Domains => "domains",
            Self::ScopedKeys => "scoped_keys",
            Self::Templates => "templates",
            Self::Uploads => "uploads",
            Self::Scheduled => "scheduled",
            Self::Suppressions => "suppressions",
            Self::BlockedSenders => "blocked_senders",
            Self::IdempotencyKeys => "idempotency_keys",
            Self::StorageBytes => "storage_bytes",
            Self::Requests => "requests_per_second",
        }
    }

    /// Returns the rows that count towards it; `None` for limits that do not count rows.
    const fn counted_rows(self) -> Option<CountedRow> {
        match self {
            Self::Routes => Some(CountedRow::Routes),
            Self::RegexRoutes => Some(CountedRow::RegexRoutes),
            Self::Domains => Some(CountedRow::Domains),
            Self::ScopedKeys => Some(CountedRow::ScopedKeys),
            Self::Templates => Some(CountedRow::Templates),
            Self::Uploads => Some(CountedRow::Uploads),
            Self::Scheduled => Some(CountedRow::Scheduled),
            Self::Suppressions => Some(CountedRow::Suppressions),
            Self::BlockedSenders => Some(CountedRow::BlockedSenders),
            Self::IdempotencyKeys => Some(CountedRow::IdempotencyKeys),
            Self::FanOut | Self::LocalCopies | Self::StorageBytes | Self::Requests => None,
        }
    }
}

/// The limits of accounts and their counters of refusals; shared by `Arc`.
#[derive(Debug)]
pub struct Limits {
    config: config::Limits,
    requests: TokenBuckets,
    refused: [AtomicU64; Kind::ALL.len()],
    /// The stored bytes of accounts, and when they were read.
    cache: Cache<AccountRowId, (Instant, Stored)>,
}

/// The stored bytes of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Bytes of messages, files, templates, captures and all else it stores.
    pub(crate) used: u64,
    /// The limit; `None`: no limit.
    pub(crate) most: Option<u64>,
}

impl Stored {
    const fn has_room_for(self, more: u64) -> bool {
        match self.most {
            Some(most) => self.used.saturating_add(more) <= most,
            None => true,
        }
    }

    const fn is_full(self) -> bool {
        !self.has_room_for(1)
    }
}

impl Limits {
    /// Takes the values of the configuration.
    pub fn new(config: config::Limits) -> Self {
        let requests = TokenBuckets::new(config.requests_per_second);
        Self {
            config,
            requests,
            refused: [const { AtomicU64::new(0) }; Kind::ALL.len()],
            cache: Cache::new(MAX_CACHED),
        }
    }

    /// Returns the limit of an account; `None`: no limit.
    pub(crate) fn most(&self, kind: Kind) -> Option<u64> {
        let table = &self.config;
        let most = match kind {
            Kind::Routes => table.routes,
            Kind::RegexRoutes => table.regex_routes,
            Kind::FanOut => table.fan_out,
            Kind::LocalCopies => table.local_copies,
            Kind::Domains => table.domains,
            Kind::ScopedKeys => table.scoped_keys,
            Kind::Templates => table.templates,
            Kind::Uploads => table.uploads,
            Kind::Scheduled => table.scheduled,
            Kind::Suppressions => table.suppressions,
            Kind::BlockedSenders => table.blocked_senders,
            Kind::IdempotencyKeys => table.idempotency_keys,
            Kind::Requests => table.requests_per_second,
            Kind::StorageBytes => return Some(table.storage_bytes).filter(|most| *most > 0),
        };
        Some(u64::from(most)).filter(|most| *most > 0)
    }

    /// Takes a request of an account, or a message that it forwards, from its rate. The caller counts the refusal,
    /// once.
    ///
    /// # Errors
    /// The rate is exceeded; contains the seconds until the next request is allowed.
    pub(crate) fn take_request(&self, account: AccountRowId, now: Timestamp) -> Result<(), u64> {
        self.requests.take(&account.to_string(), now)
    }

    /// Refunds a request that came to nothing.
    pub(crate) fn refund_request(&self, account: AccountRowId) {
        self.requests.refund(&account.to_string());
    }

    /// Admits one more of `kind`, which the same transaction adds.
    ///
    /// # Errors
    /// [`Error::Limit`] if the account has as many as it may, or storage failed.
    pub(crate) fn admit(&self, tx: &Connection, account: AccountRowId, kind: Kind) -> store::Result<()> {
        self.admit_many(tx, account, kind, 1)
    }

    /// Admits `more` at once, as [`Limits::admit`] does.
    ///
    /// # Errors
    /// As [`Limits::admit`].
    pub(crate) fn admit_many(
        &self,
        tx: &Connection,
        account: AccountRowId,
        kind: Kind,
        more: u64,
    ) -> store::Result<()> {
        let (Some(most), Some(counted)) = (self.most(kind), kind.counted_rows()) else { return Ok(()) };
        if count(tx, account, counted, most)?.saturating_add(more) <= most {
            return Ok(());
        }
        self.count_refused(kind, 1);
        Err(Error::Limit { name: kind.as_str(), most })
    }

    /// Reads the stored bytes of an account, and caches them.
    pub(crate) fn stored(&self, connection: &Connection, account: AccountRowId) -> store::Result<Stored> {
        let (used, owner) = stored_bytes(connection, account)?;
        let most = if owner { self.config.owner_storage_bytes } else { self.config.storage_bytes };
        let stored = Stored { used, most: Some(most).filter(|most| *most > 0) };
        self.cache.insert(account, (Instant::now(), stored));
        Ok(stored)
    }

    /// Admits `more` bytes, which the same transaction stores.
    ///
    /// # Errors
    /// [`Error::Limit`] if they exceed the limit, or storage failed.
    pub(crate) fn admit_bytes(&self, tx: &Connection, account: AccountRowId, more: u64) -> store::Result<()> {
        let stored = self.stored(tx, account)?;
        if stored.has_room_for(more) { Ok(()) } else { Err(self.refuse_bytes(stored)) }
    }

    /// Admits arriving mail. It may exceed the remaining room, but an account that is full takes none: the decision
    /// about a recipient must not depend on a size that is not known yet.
    ///
    /// # Errors
    /// As [`Limits::admit_bytes`].
    pub(crate) fn admit_mail(&self, connection: &Connection, account: AccountRowId) -> store::Result<()> {
        // The owner's account usually has no limit, and most mail.
        if self.cached(account, |stored| stored.most.is_none()) {
            return Ok(());
        }
        let stored = self.stored(connection, account)?;
        if stored.is_full() { Err(self.refuse_bytes(stored)) } else { Ok(()) }
    }

    /// Returns true if the account had ample room a short time ago.
    pub(crate) fn recently_had_room(&self, account: AccountRowId) -> bool {
        self.cached(account, |stored| stored.has_room_for(AMPLE_ROOM_BYTES))
    }

    fn cached(&self, account: AccountRowId, so: impl FnOnce(&Stored) -> bool) -> bool {
        self.cache.get(&account).is_some_and(|(at, stored)| at.elapsed() < CACHE_TTL && so(&stored))
    }

    fn refuse_bytes(&self, stored: Stored) -> Error {
        self.count_refused(Kind::StorageBytes, 1);
        Error::Limit { name: Kind::StorageBytes.as_str(), most: stored.most.unwrap_or(u64::MAX) }
    }

    /// Counts refusals because of this limit.
    pub(crate) fn count_refused(&self, kind: Kind, count: usize) {
        if let Some(total) = self.refused.get(kind as usize) {
            total.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

impl Expose for Limits {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let refused = Kind::ALL.iter().zip(&self.refused);
        exposition.counters(
            "mailkite_limit_reached_total",
            "Refusals because an account reached its limit.",
            refused.map(|(kind, count)| ([("limit", kind.as_str())], count.load(Ordering::Relaxed))),
        )?;
        let full = self.cache.iter().filter(|(_, (_, stored))| stored.is_full()).count();
        exposition.gauge("mailkite_accounts_full", "Accounts that were full when last checked.", full)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;
    use crate::metrics::{Format, text};

    #[test]
    fn every_kind_counts_under_its_own_name() {
        let limits = Limits::new(config::Limits::default());
        for (place, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(place, *kind as usize);
            limits.count_refused(*kind, 1);
        }
        limits.count_refused(Kind::Templates, 1);
        let text = text(Format::Prometheus, vec![Box::new(limits)]).unwrap();
        assert!(text.contains("\nmailkite_limit_reached_total{limit=\"templates\"} 2\n"), "{text}");
        assert_eq!(text.matches("} 1\n").count(), Kind::ALL.len() - 1, "{text}");
    }

    #[test]
    fn nought_is_no_limit() {
        let limits = Limits::new(config::Limits { routes: 0, domains: 7, ..config::Limits::default() });
        assert_eq!((limits.most(Kind::Routes), limits.most(Kind::Domains)), (None, Some(7)));
    }
}
