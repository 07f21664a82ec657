//! Directory of the domains and route tables that recipients are looked up in, kept in memory and read again when they
//! change.
//!
//! A change evicts the entries of its own account only. Tables with regexes are compiled off the async threads, one at
//! a time per account and few at a time in all; a request for another account's routes does not wait for that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::route::{self, BadMatch, Pattern, Route, RouteTable};
use crate::id::{AccountRowId, DomainRowId, RouteId};
use crate::store::webhooks::routes::RouteRow;
use crate::store::{self, Db};
use crate::webhook;

/// Maximum number of domains kept; a flood of made-up ones hardly displaces those that are asked for often.
const MAX_DOMAINS: u64 = 10_000;
/// Memory limit of all route tables together, in bytes; above it the least recently used ones are evicted.
const MAX_TABLE_BYTES: u64 = 64 << 20;
/// Regex sets compiled at a time, and matched at a time.
const AT_A_TIME: usize = 1;

/// A domain that mail is received for now or later.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The account that the domain belongs to.
    pub(crate) account: AccountRowId,
    /// Row of the domain; none for the host name itself.
    pub(crate) domain: Option<DomainRowId>,
    /// True once mail is received for it.
    pub(crate) verified: bool,
}

/// Reason why a regex was not checked, or may not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegexError {
    #[error(transparent)]
    Match(#[from] BadMatch),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The directory; clones share its caches.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    db: Db,
    /// By name, each with the version of the directory that it was read at.
    domains: Cache<String, (u64, Option<Entry>)>,
    tables: Cache<AccountRowId, Arc<RouteTable>>,
    /// Locks of accounts: the holder builds the account's table, or changes its regexes.
    turns: Arc<Mutex<HashMap<AccountRowId, Arc<AsyncMutex<()>>>>>,
    compiling: Arc<Semaphore>,
    matching: Arc<Semaphore>,
}

/// Exclusive right to change the regexes of an account until it is dropped.
#[derive(Debug)]
pub(crate) struct RegexTurn {
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl Directory {
    /// Creates an empty directory over a database.
    pub(crate) fn new(db: Db) -> Self {
        Self {
            db,
            domains: Cache::new(MAX_DOMAINS),
            tables: table_cache(MAX_TABLE_BYTES),
            turns: Arc::default(),
            compiling: Arc::new(Semaphore::new(AT_A_TIME)),
            matching: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// Returns the entry of a domain, given as A-label in lower case.
    pub(crate) async fn find(&self, domain: &str) -> store::Result<Option<Entry>> {
        let version = self.db.domains_version();
        if let Some((_, known)) = self.domains.get(domain).filter(|(at, _)| *at == version) {
            return Ok(known);
        }
        let name = domain.to_owned();
        let found = self.db.read(move |connection| {
            let Some(row) = store::accounts::domains::find_by_name(connection, &name)? else { return Ok(None) };
            // No mail is received for an account whose e-mail is not proven.
            let proven =
                store::accounts::find_by_row(connection, row.account_id)?.is_some_and(|one| one.email_verified);
            Ok(Some(Entry { account: row.account_id, domain: Some(row.id), verified: row.verified && proven }))
        });
        let entry = found.await?;
        self.domains.insert(domain.to_owned(), (version, entry.clone()));
        Ok(entry)
    }

    /// Returns the entry that the operator's own addresses resolve to, once there is an owner. No route reaches an
    /// address that lies on no domain of the account (contract 4.1).
    pub(crate) async fn owner(&self) -> store::Result<Option<Entry>> {
        let owner = self.db.read(store::accounts::find_owner).await?;
        Ok(owner.map(|account| Entry { account: account.id, domain: None, verified: true }))
    }

    /// Returns the routes of an account that match a recipient (lower-cased), oldest first, with the version of the
    /// route table.
    pub(crate) async fn matching(
        &self,
        account: AccountRowId,
        address: &str,
    ) -> store::Result<(Vec<Arc<Route>>, u64)> {
        let table = self.table(account).await?;
        Ok((self.matched(&table, address).await?, table.version()))
    }

    /// Returns the matching ones of the given routes, bypassing the cache.
    ///
    /// # Errors
    /// The process ends.
    pub(crate) async fn matching_of(&self, rows: Vec<RouteRow>, address: &str) -> store::Result<Vec<Arc<Route>>> {
        let table = Arc::new(self.make(rows, None).await?);
        self.matched(&table, address).await
    }

    async fn matched(&self, table: &Arc<RouteTable>, address: &str) -> store::Result<Vec<Arc<Route>>> {
        let Some(turn) = table.regex_lock() else { return Ok(table.matching(address)) };
        let _turn = turn.lock().await;
        let _permit = self.matching.acquire().await;
        let (table, address) = (Arc::clone(table), address.to_owned());
        let matching = tokio::task::spawn_blocking(move || table.matching(&address));
        matching.await.map_err(|_| store::Error::Stopped)
    }

    /// Checks that an account may have a route with this regex in addition to its present ones, `except` excluded; the
    /// lock is held until the route is stored.
    ///
    /// # Errors
    /// It does not compile, alone or together with the others, or storage failed.
    pub(crate) async fn check_regex(
        &self,
        account: AccountRowId,
        text: &str,
        except: Option<RouteId>,
    ) -> Result<RegexTurn, RegexError> {
        let turn = self.account_lock(account).lock_owned().await;
        let rows = self.db.read(move |connection| store::webhooks::routes::list(connection, account, None)).await?;
        let _permit = self.compiling.acquire().await;
        let text = text.to_owned();
        let checked = tokio::task::spawn_blocking(move || {
            Pattern::parse(&text)?;
            let others = rows.iter().filter(|row| except.as_ref() != Some(&row.public_id));
            route::check_together(others.map(|row| row.match_pattern.as_str()).chain([text.as_str()]))
        });
        checked.await.map_err(|_| store::Error::Stopped)??;
        Ok(RegexTurn { _turn: turn })
    }

    async fn table(&self, account: AccountRowId) -> store::Result<Arc<RouteTable>> {
        let present = |table: &Arc<RouteTable>| table.version() == self.db.routes_version(account);
        if let Some(known) = self.tables.get(&account).filter(present) {
            return Ok(known);
        }
        let turn = self.account_lock(account);
        let _turn = turn.lock().await;
        // The previous holder of the lock may have built it.
        let known = self.tables.get(&account);
        if let Some(known) = known.clone().filter(present) {
            return Ok(known);
        }
        let version = self.db.routes_version(account);
        let rows = self.db.read(move |connection| store::webhooks::routes::list_active(connection, account)).await?;
        let table = Arc::new(self.make(rows, known).await?.at_version(version));
        self.tables.insert(account, Arc::clone(&table));
        Ok(table)
    }

    async fn make(&self, rows: Vec<RouteRow>, previous: Option<Arc<RouteTable>>) -> store::Result<RouteTable> {
        if !RouteTable::is_slow_to_make(&rows) {
            return Ok(RouteTable::new(rows, webhook::flow_of, None));
        }
        let _permit = self.compiling.acquire().await;
        let making =
            tokio::task::spawn_blocking(move || RouteTable::new(rows, webhook::flow_of, previous.as_deref()));
        making.await.map_err(|_| store::Error::Stopped)
    }

    /// Returns the lock of an account; locks that nobody waits for are removed.
    fn account_lock(&self, account: AccountRowId) -> Arc<AsyncMutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() > 64 {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(turns.entry(account).or_default())
    }
}

/// Creates an empty cache of route tables, which together take at most this many bytes.
fn table_cache(max_bytes: u64) -> Cache<AccountRowId, Arc<RouteTable>> {
    let bytes = |_: &AccountRowId, table: &Arc<RouteTable>| u32::try_from(table.memory_size()).unwrap_or(u32::MAX);
    Cache::builder().weigher(bytes).max_capacity(max_bytes).eviction_policy(EvictionPolicy::lru()).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RowId;

    #[test]
    fn the_tables_asked_for_longest_ago_go_first() {
        let one = RouteTable::default().memory_size();
        let tables = table_cache(u64::try_from(3 * one).unwrap_or(u64::MAX));
        let put = |account| {
            tables.insert(RowId::new(account), Arc::default());
            tables.run_pending_tasks();
        };
        (0..3).for_each(put);
        assert!(tables.get(&RowId::new(0)).is_some());
        put(3);
        assert!(tables.weighted_size() <= u64::try_from(3 * one).unwrap_or(0));
        let is_cached = |account| tables.contains_key(&RowId::new(account));
        assert_eq!([0, 1, 2, 3].map(is_cached), [true, false, true, true]);
    }
}
