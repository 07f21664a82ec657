//! What one account may have: the one place that says whether it may have one more of something.
//!
//! [`Limits::admit`] counts in the transaction that adds the row, so that requests side by side cannot pass a limit
//! together. [`Limits::take_request`] is the one rate of an account, for its requests and for what it forwards. Values
//! are `[limits]`' of the configuration; what was refused is counted for `/metrics`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::id::AccountRowId;
use crate::store::Connection;

use crate::clock::Timestamp;
use crate::config;
use crate::rate_limit::TokenBuckets;
use crate::store::accounts::limits::{CountedRow, count, stored_bytes};
use crate::store::{self, Error};

/// While an account had so much room not long ago, a recipient of it is taken without another look.
const ROOMY_BYTES: u64 = 64 << 20;
const ROOMY_FOR: Duration = Duration::from_secs(10);
/// Accounts whose bytes are remembered; beyond them all are looked at again.
const MAX_SEEN: usize = 10_000;

/// Something that an account may have so many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Routes.
    Routes,
    /// Routes whose match is a regex.
    RegexRoutes,
    /// Routes that run for one recipient.
    FanOut,
    /// Messages that one message becomes by forwarding within this server.
    LocalCopies,
    /// Domains.
    Domains,
    /// Keys for one domain.
    ScopedKeys,
    /// Templates.
    Templates,
    /// Uploaded files.
    Uploads,
    /// Messages that wait for their time.
    Scheduled,
    /// Suppressed addresses.
    Suppressions,
    /// Blocked senders.
    BlockedSenders,
    /// Answers remembered for their Idempotency-Key.
    IdempotencyKeys,
    /// Bytes.
    StorageBytes,
    /// Requests a second.
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

    /// Its key in `[limits]`, which is also its label in `/metrics`.
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

    /// Which rows are counted for it; none when it is no number of rows.
    const fn counted(self) -> Option<CountedRow> {
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

/// The limits of accounts, and how often each was met; shared by `Arc`.
#[derive(Debug)]
pub struct Limits {
    table: config::Limits,
    requests: TokenBuckets,
    refused: [AtomicU64; Kind::ALL.len()],
    /// When the bytes of an account were last looked at, and what they were.
    seen: Mutex<HashMap<AccountRowId, (Instant, Stored)>>,
}

/// The bytes that an account has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Bytes of messages, files, templates, captures and what else it keeps.
    pub(crate) used: u64,
    /// How many it may have; none: any number.
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
    /// With the values of the configuration.
    pub fn new(table: config::Limits) -> Self {
        let requests = TokenBuckets::new(table.requests_per_second);
        Self { table, requests, refused: [const { AtomicU64::new(0) }; Kind::ALL.len()], seen: Mutex::default() }
    }

    /// How many an account may have; `None`: any number.
    pub(crate) fn most(&self, kind: Kind) -> Option<u64> {
        let table = &self.table;
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

    /// Counts a request of an account, or a message that it forwards, against its rate. Who is refused counts that, once.
    ///
    /// # Errors
    /// It is beyond its rate; so many seconds later it is not.
    pub(crate) fn take_request(&self, account: AccountRowId, now: Timestamp) -> Result<(), u64> {
        self.requests.take(&account.to_string(), now)
    }

    /// Gives back what a request took that came to nothing.
    pub(crate) fn give_request_back(&self, account: AccountRowId) {
        self.requests.refund(&account.to_string());
    }

    /// Lets an account have one more, which the same transaction adds.
    ///
    /// # Errors
    /// [`Error::Limit`]: it has as many as it may; or storage trouble.
    pub(crate) fn admit(&self, tx: &Connection, account: AccountRowId, kind: Kind) -> store::Result<()> {
        self.admit_many(tx, account, kind, 1)
    }

    /// As [`Limits::admit`], for so many more.
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
        let (Some(most), Some(counted)) = (self.most(kind), kind.counted()) else { return Ok(()) };
        if count(tx, account, counted, most)?.saturating_add(more) <= most {
            return Ok(());
        }
        self.note_refused(kind, 1);
        Err(Error::Limit { name: kind.as_str(), most })
    }

    /// The bytes that an account has stored, and may have.
    ///
    /// # Errors
    /// Storage trouble.
    pub(crate) fn stored(&self, connection: &Connection, account: AccountRowId) -> store::Result<Stored> {
        let (used, owner) = stored_bytes(connection, account)?;
        let most = if owner { self.table.owner_storage_bytes } else { self.table.storage_bytes };
        let stored = Stored { used, most: Some(most).filter(|most| *most > 0) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_SEEN && !seen.contains_key(&account) {
            seen.clear();
        }
        seen.insert(account, (Instant::now(), stored));
        Ok(stored)
    }

    /// Lets an account store so many more bytes, which the same transaction does.
    ///
    /// # Errors
    /// [`Error::Limit`]: they are more than it may have; or storage trouble.
    pub(crate) fn admit_bytes(&self, tx: &Connection, account: AccountRowId, more: u64) -> store::Result<()> {
        let stored = self.stored(tx, account)?;
        if stored.has_room_for(more) { Ok(()) } else { Err(self.full(stored)) }
    }

    /// As [`Limits::admit_bytes`], for mail that arrives: it may be more than what is left, but nothing arrives at an
    /// account that is full, so that whether a recipient is taken does not depend on a size that is not known yet.
    ///
    /// # Errors
    /// As [`Limits::admit_bytes`].
    pub(crate) fn admit_mail(&self, connection: &Connection, account: AccountRowId) -> store::Result<()> {
        // The account of who runs the server has no limit as a rule, and most mail.
        if self.saw(account, |stored| stored.most.is_none()) {
            return Ok(());
        }
        let stored = self.stored(connection, account)?;
        if stored.is_full() { Err(self.full(stored)) } else { Ok(()) }
    }

    /// Whether an account surely has room for a mail, as seen a moment ago.
    pub(crate) fn was_roomy(&self, account: AccountRowId) -> bool {
        self.saw(account, |stored| stored.has_room_for(ROOMY_BYTES))
    }

    fn saw(&self, account: AccountRowId, so: impl FnOnce(&Stored) -> bool) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&account).is_some_and(|(at, stored)| at.elapsed() < ROOMY_FOR && so(stored))
    }

    fn full(&self, stored: Stored) -> Error {
        self.note_refused(Kind::StorageBytes, 1);
        Error::Limit { name: Kind::StorageBytes.as_str(), most: stored.most.unwrap_or(u64::MAX) }
    }

    /// Counts so many things that were not done because of this limit.
    pub(crate) fn note_refused(&self, kind: Kind, count: usize) {
        if let Some(total) = self.refused.get(kind as usize) {
            total.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// The figures in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        let name = "mailkite_limit_reached_total";
        let mut text = format!("# HELP {name} What was refused because an account has as much as it may.\n");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# TYPE {name} counter");
        for (kind, count) in Kind::ALL.iter().zip(&self.refused) {
            let _ = writeln!(text, "{name}{{limit=\"{}\"}} {}", kind.as_str(), count.load(Ordering::Relaxed));
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let full = seen.values().filter(|(_, stored)| stored.is_full()).count();
        let name = "mailkite_accounts_full";
        let _ = writeln!(text, "# HELP {name} Accounts that had no room left when last looked at.");
        let _ = writeln!(text, "# TYPE {name} gauge\n{name} {full}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_counts_under_its_own_name() {
        let limits = Limits::new(config::Limits::default());
        for (place, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(place, *kind as usize);
            limits.note_refused(*kind, 1);
        }
        limits.note_refused(Kind::Templates, 1);
        let text = limits.render();
        assert!(text.contains("\nmailkite_limit_reached_total{limit=\"templates\"} 2\n"), "{text}");
        assert_eq!(text.matches("} 1\n").count(), Kind::ALL.len() - 1, "{text}");
    }

    #[test]
    fn nought_is_no_limit() {
        let limits = Limits::new(config::Limits { routes: 0, domains: 7, ..config::Limits::default() });
        assert_eq!((limits.most(Kind::Routes), limits.most(Kind::Domains)), (None, Some(7)));
    }
}
