//! Who receives what: domains and route tables, kept in memory and read again when they change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::route::RouteTable;
use crate::egress::Target;
use crate::store::{self, Db};

/// Entries kept at most; a flood of made-up domains only empties the memory.
const MAX_ENTRIES: usize = 10_000;

/// A domain that mail is received for, or will be.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The account that holds it.
    pub account: i64,
    /// Its row; none for the host name itself.
    pub domain: Option<i64>,
    /// Whether mail is received already.
    pub verified: bool,
    /// The account's routes.
    pub routes: Arc<RouteTable>,
}

#[derive(Debug, Default)]
struct Memory {
    version: u64,
    domains: HashMap<String, Option<Entry>>,
    accounts: HashMap<i64, Arc<RouteTable>>,
}

/// The directory; clones share its memory.
#[derive(Clone, Debug)]
pub struct Directory {
    db: Db,
    memory: Arc<Mutex<Memory>>,
}

impl Directory {
    /// An empty directory over a database.
    pub fn new(db: Db) -> Self {
        Self { db, memory: Arc::default() }
    }

    /// The entry of a domain, given as A-label in lower case.
    ///
    /// # Errors
    /// Storage trouble.
    pub async fn find(&self, domain: &str) -> store::Result<Option<Entry>> {
        let version = self.db.directory_version();
        if let Some(known) = self.known(version, domain) {
            return Ok(known);
        }
        let name = domain.to_owned();
        let found = self.db.read(move |connection| store::domains::find_by_name(connection, &name)).await?;
        let entry = match found {
            None => None,
            Some(row) => Some(Entry {
                account: row.account_id,
                domain: Some(row.id),
                verified: row.verified,
                routes: self.routes(version, row.account_id).await?,
            }),
        };
        self.remember(version, domain, entry.clone());
        Ok(entry)
    }

    /// What the operator's own addresses resolve to, once there is an owner.
    ///
    /// # Errors
    /// Storage trouble.
    pub async fn owner(&self) -> store::Result<Option<Entry>> {
        let owner = self.db.read(store::accounts::find_owner).await?;
        Ok(owner.map(|account| Entry {
            account: account.id,
            domain: None,
            verified: true,
            // No route reaches an address that lies on no domain of the account (contract 4.1).
            routes: Arc::default(),
        }))
    }

    async fn routes(&self, version: u64, account: i64) -> store::Result<Arc<RouteTable>> {
        if let Some(known) = self.with(version, |memory| memory.accounts.get(&account).cloned()) {
            return Ok(known);
        }
        let rows = self.db.read(move |connection| store::routes::list_active(connection, account)).await?;
        let table = Arc::new(RouteTable::new(rows, Target::lane_of).as_of(version));
        self.with(version, |memory| memory.accounts.insert(account, Arc::clone(&table)));
        Ok(table)
    }

    fn known(&self, version: u64, domain: &str) -> Option<Option<Entry>> {
        self.with(version, |memory| memory.domains.get(domain).cloned())
    }

    fn remember(&self, version: u64, domain: &str, entry: Option<Entry>) {
        self.with(version, |memory| {
            if memory.domains.len() >= MAX_ENTRIES {
                memory.domains.clear();
            }
            memory.domains.insert(domain.to_owned(), entry);
        });
    }

    /// The memory as of `version`: an older one is emptied first, and nothing old enters a newer one.
    fn with<T>(&self, version: u64, act: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.version < version {
            *memory = Memory { version, ..Memory::default() };
        }
        if memory.version > version {
            return act(&mut Memory::default());
        }
        act(&mut memory)
    }
}
