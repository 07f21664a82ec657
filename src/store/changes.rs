//! Versions of the rows that mail is routed by and that are cached outside the store: domains, routes, blocked senders.
//!
//! TEMP triggers on the writer's connection record each change, also those of cascades. The writer publishes them after
//! the commit, before its callers are answered: from then on nobody finds the earlier state in a cache. A change that
//! was rolled back may be published too, which only costs a look at the database. Other processes change none of these
//! rows while a server runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

use super::Result;
use crate::id::AccountRowId;

/// Records a change: of an account's routes or blocked senders, and with `1` of its domains too. Updates of a column
/// that no cache holds, such as the result of a route's last delivery, are none.
const TRIGGERS: &str = "
CREATE TEMP TRIGGER domain_inserted AFTER INSERT ON domain BEGIN
  SELECT record_change(NEW.account_id, 1);
END;
CREATE TEMP TRIGGER domain_deleted AFTER DELETE ON domain BEGIN
  SELECT record_change(OLD.account_id, 1);
END;
CREATE TEMP TRIGGER domain_updated AFTER UPDATE OF name, status, zero_retention, retention_days ON domain
WHEN (OLD.name, OLD.status, OLD.zero_retention, OLD.retention_days)
  IS NOT (NEW.name, NEW.status, NEW.zero_retention, NEW.retention_days) BEGIN
  SELECT record_change(NEW.account_id, 1);
END;
CREATE TEMP TRIGGER account_verified AFTER UPDATE OF email_verified ON account
WHEN OLD.email_verified <> NEW.email_verified BEGIN
  SELECT record_change(NEW.id, 1);
END;
CREATE TEMP TRIGGER route_inserted AFTER INSERT ON route BEGIN
  SELECT record_change(NEW.account_id, 0);
END;
CREATE TEMP TRIGGER route_deleted AFTER DELETE ON route BEGIN
  SELECT record_change(OLD.account_id, 0);
END;
CREATE TEMP TRIGGER route_updated
AFTER UPDATE OF domain_id, match_pattern, action, destination, ack_mode, active, is_domain_webhook, secret_sealed,
  previous_secret_sealed, previous_valid_until, on_auth_fail ON route BEGIN
  SELECT record_change(NEW.account_id, 0);
END;
CREATE TEMP TRIGGER blocked_sender_inserted AFTER INSERT ON blocked_sender BEGIN
  SELECT record_change(NEW.account_id, 0);
END;
CREATE TEMP TRIGGER blocked_sender_deleted AFTER DELETE ON blocked_sender BEGIN
  SELECT record_change(OLD.account_id, 0);
END;
";

/// Changes recorded and not yet published.
#[derive(Debug, Default)]
struct Recorded {
    domains: bool,
    accounts: BTreeSet<AccountRowId>,
}

/// The versions, and the changes that are to raise them.
#[derive(Debug, Default)]
pub(super) struct Changes {
    recorded: Mutex<Recorded>,
    domains: AtomicU64,
    routes: Mutex<HashMap<AccountRowId, u64>>,
}

impl Changes {
    /// Records the changes made by a connection from now on.
    pub(super) fn record(self: &Arc<Self>, connection: &Connection) -> Result<()> {
        let changes = Arc::clone(self);
        connection.create_scalar_function("record_change", 2, FunctionFlags::SQLITE_UTF8, move |call| {
            let (account, of_domain): (AccountRowId, bool) = (call.get(0)?, call.get(1)?);
            let mut recorded = changes.recorded();
            recorded.domains |= of_domain;
            recorded.accounts.insert(account);
            Ok(None::<i64>)
        })?;
        Ok(connection.execute_batch(TRIGGERS)?)
    }

    /// Raises the versions of everything recorded; the writer calls it when its transaction has ended.
    pub(super) fn publish(&self) {
        let recorded = std::mem::take(&mut *self.recorded());
        if recorded.accounts.is_empty() {
            return;
        }
        if recorded.domains {
            self.domains.fetch_add(1, Ordering::AcqRel);
        }
        let mut routes = self.routes();
        for account in recorded.accounts {
            let version = routes.entry(account).or_default();
            *version = version.saturating_add(1);
        }
    }

    /// Returns the version of all domains.
    pub(super) fn domains_version(&self) -> u64 {
        self.domains.load(Ordering::Acquire)
    }

    /// Returns the version of an account's routes and blocked senders.
    pub(super) fn routes_version(&self, account: AccountRowId) -> u64 {
        self.routes().get(&account).copied().unwrap_or(0)
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<AccountRowId, u64>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;
    use crate::id::RowId;

    #[test]
    fn each_change_raises_the_versions_of_its_account() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(crate::store::migrate::SCHEMA).unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        let changes = Arc::new(Changes::default());
        changes.record(&connection).unwrap();
        let versions = || (changes.domains_version(), changes.routes_version(RowId::new(1)));
        let raised = |statement: &str| -> (bool, bool) {
            let before = versions();
            connection.execute_batch(statement).unwrap();
            assert_eq!(versions(), before, "published by the writer alone: {statement}");
            changes.publish();
            let after = versions();
            (after.0 > before.0, after.1 > before.1)
        };
        let (none, routes, both) = ((false, false), (false, true), (true, true));
        for (statement, wanted) in [
            (
                "INSERT INTO account (id, public_id, email, created_at)
                 VALUES (1, 'usr_1', 'a', 1), (2, 'usr_2', 'b', 1)",
                none,
            ),
            ("UPDATE account SET email_verified = 1 WHERE id = 1", both),
            ("UPDATE account SET email_verified = 1, avatar_url = '' WHERE id = 1", none),
            (
                "INSERT INTO domain (id, public_id, account_id, name, status, created_at)
                 VALUES (1, 'dom_1', 1, 'a.test', 'pending', 1)",
                both,
            ),
            ("UPDATE domain SET status = 'pending', mx_verified = 1, checked_at = 2", none),
            ("UPDATE domain SET status = 'verified'", both),
            ("UPDATE domain SET zero_retention = 1, retention_days = NULL", both),
            (
                "INSERT INTO route (id, public_id, account_id, domain_id, match_pattern, action, created_at, updated_at)
                 VALUES (1, 'rte_1', 1, 1, '*@a.test', 'store', 1, 1)",
                routes,
            ),
            ("UPDATE route SET last_status = 'delivered', last_status_code = 200", none),
            ("UPDATE route SET active = 0", routes),
            ("UPDATE route SET secret_sealed = x'00'", routes),
            ("UPDATE route SET on_auth_fail = 'refuse'", routes),
            ("INSERT INTO blocked_sender (account_id, email, created_at) VALUES (1, 'x@y', 1)", routes),
            ("INSERT INTO blocked_sender (account_id, email, created_at) VALUES (2, 'x@y', 1)", none),
            ("DELETE FROM blocked_sender WHERE account_id = 1", routes),
            // The routes of a domain go with it, and everything with its account.
            ("DELETE FROM domain", both),
            ("INSERT INTO blocked_sender (account_id, email, created_at) VALUES (1, 'x@y', 1)", routes),
            ("DELETE FROM account WHERE id = 1", routes),
        ] {
            assert_eq!(raised(statement), wanted, "{statement}");
        }
    }
}
