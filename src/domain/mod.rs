//! Domains of accounts (contract 3): added with their keys, verified by their DNS records, checked again every day.
//! Uses `store`, `config`, `limits`, `secrets`, the `mail` formats and DNS (`net`), and knows nothing of HTTP. A rule
//! about names belongs in `name`, a DNS record in `records` (expected) and `check` (found), a rule about when a flag
//! changes in `flags`, its schedule in `recheck`, key generation in `keys`, and their rotation in `rotation`.

pub(crate) mod check;
pub(crate) mod flags;
pub(crate) mod keys;
pub(crate) mod name;
pub(crate) mod recheck;
pub(crate) mod records;
pub(crate) mod rotation;

use std::collections::HashMap;
use std::sync::Arc;

use crate::store::Connection;

use self::check::{Checker, Finding};
use self::flags::Flag;
use self::keys::{KeyError, KeyMaker};
use self::records::{Kind, Record, Status, Wanted};
use self::rotation::{Rotation, Signing};
use crate::clock::Timestamp;
use crate::config::{Config, Signup};
use crate::id::{AccountRowId, DomainId, DomainRowId, RouteId};
use crate::limits::{self, Limits};
use crate::mail::address::Domain;
use crate::secrets::Secrets;
use crate::store;
use crate::store::accounts::dkim_keys;
use crate::store::accounts::dkim_keys::{DkimKey, KeyState};
use crate::store::accounts::dns_checks;
use crate::store::accounts::dns_checks::DnsCheck;
use crate::store::accounts::domains;
use crate::store::accounts::domains::{DomainRow, Flags};
use crate::store::webhooks::routes;
use crate::store::{Db, accounts};

/// Adds, verifies and removes domains.
pub struct Domains {
    pub(crate) db: Db,
    /// Seals private keys.
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) config: Arc<Config>,
    /// Looks records up in DNS.
    pub(crate) checker: Checker,
    /// Generates key pairs.
    pub(crate) keys: KeyMaker,
    /// Limits the number of domains of an account.
    pub(crate) limits: Arc<Limits>,
}

/// A record, and what its last check found.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The record as it should be.
    pub(crate) record: Record,
    /// The record as it was found.
    pub(crate) finding: Finding,
    /// Set for the record of a key that does not sign.
    pub(crate) rotation: Option<Rotation>,
}

/// Result of a verification.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    /// The domain after the verification.
    pub(crate) domain: DomainRow,
    /// Results of this check; the stored flag where the check had no answer.
    pub(crate) checks: Flags,
}

/// Reason why a domain was not added or verified.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// The account has it already.
    #[error("the account has this domain")]
    Exists,
    /// Another account has verified it, or a domain above it.
    #[error("another account has verified this domain")]
    Taken,
    /// The keys that its present ones replaced are still needed.
    #[error("the keys replaced last are not retired yet")]
    Rotating,
    /// It was removed meanwhile.
    #[error("the domain is gone")]
    Gone,
    /// Its keys could not be generated.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Storage failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

store::transaction_error!(DomainError);

impl Domains {
    /// Adds a pending domain with its keys; `name` is in the form of [`name::parse`].
    ///
    /// # Errors
    /// The account has it, or another account has verified it.
    pub(crate) async fn add(
        &self,
        account: AccountRowId,
        name: String,
        now: Timestamp,
    ) -> Result<DomainRow, DomainError> {
        let asked = name.clone();
        // Checked before keys are generated, and again in the transaction that decides.
        let limits = Arc::clone(&self.limits);
        let looked = self.db.try_read(move |connection| {
            check_addable(connection, account, &asked)?;
            limits.admit(connection, account, limits::Kind::Domains).map_err(DomainError::from)
        });
        looked.await?;
        let keys = self.keys.make(&self.secrets, &account.to_string()).await?;
        let limits = Arc::clone(&self.limits);
        let added = self.db.try_write(move |tx| {
            check_addable(tx, account, &name)?;
            limits.admit(tx, account, limits::Kind::Domains)?;
            let domain = domains::insert(tx, account, &name, false, now)?;
            dkim_keys::insert(tx, domain.id, KeyState::Signing, &keys, records::first_selector, now)?;
            Ok::<_, DomainError>(domain)
        });
        added.await
    }

    /// Returns the five records of a domain, then those of keys that do not sign, with what the last check found.
    pub(crate) fn records(&self, connection: &Connection, domain: &DomainRow) -> store::Result<Vec<Seen>> {
        let keys = dkim_keys::list(connection, domain.id)?;
        let checks = dns_checks::list(connection, domain.id)?;
        let seen = |record: Record| {
            let check = checks.iter().find(|check| check.record == record.kind);
            let finding = check
                .map_or_else(Finding::default, |check| Finding { status: check.status, found: check.found.clone() });
            Seen { record, finding, rotation: None }
        };
        let other = |(key, record): (&DkimKey, Record)| {
            let finding = Finding { status: key.status, found: key.found.clone() };
            Seen { record, finding, rotation: Some(Rotation::of(key)) }
        };
        let five = self.wanted(domain, &keys).records().into_iter().map(seen);
        Ok(five.chain(rotation::others(&domain.name, &keys).into_iter().map(other)).collect())
    }

    /// Does the same as [`Self::records`] on a connection of its own.
    pub(crate) async fn records_of(self: &Arc<Self>, domain: DomainRow) -> store::Result<Vec<Seen>> {
        let domains = Arc::clone(self);
        self.db.read(move |connection| domains.records(connection, &domain)).await
    }

    /// Finds a domain by its name: that of the account which has verified it, else the oldest.
    pub(crate) async fn find_for_operator(&self, name: &str) -> store::Result<Option<DomainRow>> {
        let Ok(name) = Domain::parse(name) else { return Ok(None) };
        self.db.read(move |connection| domains::find_by_name(connection, name.as_str())).await
    }

    fn wanted<'w>(&'w self, domain: &'w DomainRow, keys: &'w [DkimKey]) -> Wanted<'w> {
        let Signing { rsa, ed25519 } = Signing::among(keys);
        Wanted {
            name: &domain.name,
            hostname: &self.config.hostname,
            spf_include: self.config.dns.spf_include.as_deref(),
            rsa,
            ed25519,
        }
    }

    /// Generates the keys that replace a domain's present ones once their record is found; keeps those of a rotation
    /// that waits for it.
    ///
    /// # Errors
    /// The rotation before is not over, the domain is gone, or a key could not be generated.
    pub(crate) async fn rotate(&self, domain: &DomainRow, now: Timestamp) -> Result<(), DomainError> {
        self.ensure_keys(domain.id, now).await?;
        let id = domain.id;
        if self.db.try_read(move |connection| is_rotating(connection, id)).await? {
            return Ok(());
        }
        let keys = self.keys.make(&self.secrets, &domain.account_id.to_string()).await?;
        let id = domain.public_id.clone();
        let stored = self.db.try_write(move |tx| {
            let domain = domains::find(tx, &id)?.ok_or(DomainError::Gone)?;
            if !is_rotating(tx, domain.id)? {
                let selector = |algorithm| records::dated_selector(algorithm, now);
                dkim_keys::insert(tx, domain.id, KeyState::Next, &keys, selector, now)?;
            }
            Ok(())
        });
        match stored.await {
            // Keys of this date exist already.
            Err(DomainError::Store(store::Error::Conflict(_))) => Err(DomainError::Rotating),
            stored => stored,
        }
    }

    /// Looks a domain's records up and moves its flags by the results.
    ///
    /// # Errors
    /// Another account has verified it, or it is gone; nothing was changed then.
    pub(crate) async fn verify(&self, domain: DomainRow, now: Timestamp) -> Result<Verified, DomainError> {
        let asked = domain.clone();
        // Checked before DNS is asked, and again in the transaction that decides.
        if self.db.read(move |connection| is_lost(connection, &asked)).await? {
            return Err(DomainError::Taken);
        }
        self.check(domain, IfTaken::Refuse, now).await
    }

    /// Does the same as [`Self::verify`], but a domain that another account has verified meanwhile stays pending and
    /// loses what it proved earlier.
    ///
    /// # Errors
    /// The domain is gone; nothing was changed then.
    pub(crate) async fn recheck(&self, domain: DomainRow, now: Timestamp) -> Result<Verified, DomainError> {
        self.check(domain, IfTaken::StayPending, now).await
    }

    async fn check(&self, domain: DomainRow, if_taken: IfTaken, now: Timestamp) -> Result<Verified, DomainError> {
        self.ensure_keys(domain.id, now).await?;
        let id = domain.id;
        let keys = self.db.read(move |connection| dkim_keys::list(connection, id)).await?;
        let wanted = self.wanted(&domain, &keys);
        let (findings, found) = self.look(&domain, &wanted, &keys).await;
        let open = self.config.auth.signup == Signup::Open;
        let id = domain.public_id;
        let settled = self.db.try_write(move |tx| settle(tx, &id, findings, &found, open, if_taken, now));
        let verified = match settled.await {
            Ok(verified) => verified,
            // Another account was faster.
            Err(DomainError::Store(store::Error::Conflict(_))) => return Err(DomainError::Taken),
            Err(error) => return Err(error),
        };
        Ok(verified)
    }

    /// Looks up the five records, in order, and those of all keys, by selector.
    async fn look(
        &self,
        domain: &DomainRow,
        wanted: &Wanted<'_>,
        keys: &[DkimKey],
    ) -> (Vec<Finding>, HashMap<String, Finding>) {
        let others = rotation::others(&domain.name, keys);
        let selectors = others.iter().map(|(key, _)| key.selector.clone());
        let (five, other) = if self.config.dev && name::is_for_trying(&domain.name) {
            let ok = |value| Finding { status: Status::Ok, found: vec![value] };
            let other = others.iter().map(|(key, record)| match key.state {
                KeyState::Retired => Finding { status: Status::Missing, found: Vec::new() },
                _ => ok(record.value.clone()),
            });
            (wanted.records().into_iter().map(|one| ok(one.value)).collect(), other.collect())
        } else {
            let names = others.iter().map(|(key, record)| (record.name.clone(), key.public_key.clone()));
            let names: Vec<_> = names.collect();
            let (five, other) = tokio::join!(self.checker.check(wanted), self.checker.check_keys(&names));
            (five.to_vec(), other)
        };
        let mut found: HashMap<String, Finding> = selectors.zip(other).collect();
        for (kind, finding) in records::ALL_KINDS.into_iter().zip(&five) {
            let selector = match kind {
                Kind::Dkim => wanted.rsa.selector,
                Kind::DkimEd25519 => wanted.ed25519.selector,
                Kind::Mx | Kind::Spf | Kind::Dmarc => continue,
            };
            found.insert(selector.to_owned(), finding.clone());
        }
        (five, found)
    }

    /// Removes a domain and returns the routes removed with it.
    pub(crate) async fn remove(&self, domain: &DomainRow) -> store::Result<Vec<RouteId>> {
        let id = domain.public_id.clone();
        let gone = self.db.write_removal(move |tx| {
            let Some(domain) = domains::find(tx, &id)? else { return Ok(Vec::new()) };
            let routes = routes::list(tx, domain.account_id, Some(domain.id))?;
            domains::delete(tx, &id)?;
            Ok(routes.into_iter().map(|route| route.public_id).collect())
        });
        gone.await
    }

    /// Generates the keys of a domain that has none: one older than the keys, or one made by `mailkite dev`.
    ///
    /// # Errors
    /// The domain is gone, or a key could not be generated.
    pub async fn ensure_keys(&self, domain: DomainRowId, now: Timestamp) -> Result<(), DomainError> {
        if self.db.read(move |connection| dkim_keys::find_signing_selector(connection, domain)).await?.is_some() {
            return Ok(());
        }
        let keys = self.keys.make(&self.secrets, &format!("domain {domain}")).await?;
        let stored = self.db.try_write(move |tx| {
            domains::find_by_row(tx, domain)?.ok_or(DomainError::Gone)?;
            Ok(dkim_keys::insert(tx, domain, KeyState::Signing, &keys, records::first_selector, now)?)
        });
        match stored.await {
            // Another request was faster.
            Err(DomainError::Store(store::Error::Conflict(_))) => Ok(()),
            stored => stored,
        }
    }
}

/// Returns true if the next keys of a domain wait for their record.
///
/// # Errors
/// Keys that were replaced are still needed.
fn is_rotating(connection: &Connection, domain: DomainRowId) -> Result<bool, DomainError> {
    if dkim_keys::has(connection, domain, KeyState::Retiring)? {
        return Err(DomainError::Rotating);
    }
    Ok(dkim_keys::has(connection, domain, KeyState::Next)?)
}

fn check_addable(connection: &Connection, account: AccountRowId, name: &str) -> Result<(), DomainError> {
    if domains::find_of_account(connection, account, name)?.is_some() {
        Err(DomainError::Exists)
    } else if is_taken(connection, account, name)? {
        Err(DomainError::Taken)
    } else {
        Ok(())
    }
}

/// True if another account has verified the domain or one above it (contract 3.2).
fn is_taken(connection: &Connection, account: AccountRowId, name: &str) -> store::Result<bool> {
    for name in name::with_parents(name) {
        if domains::is_held_by_another(connection, account, &name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// True if a domain can no longer be verified or sent from, because another account has verified it or one above it. A
/// verified domain keeps what it won, whoever verifies a domain above it.
pub(crate) fn is_lost(connection: &Connection, domain: &DomainRow) -> store::Result<bool> {
    Ok(!domain.verified && is_taken(connection, domain.account_id, &domain.name)?)
}

/// Treatment of a domain that another account has verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfTaken {
    Refuse,
    StayPending,
}

/// Finds the domain by its public id: during the DNS check it can be removed and its row id given to another one.
fn settle(
    tx: &Connection,
    id: &DomainId,
    mut findings: Vec<Finding>,
    found: &HashMap<String, Finding>,
    open: bool,
    if_taken: IfTaken,
    now: Timestamp,
) -> Result<Verified, DomainError> {
    let domain = domains::find(tx, id)?.ok_or(DomainError::Gone)?;
    let lost = is_lost(tx, &domain)?;
    if lost && if_taken == IfTaken::Refuse {
        return Err(DomainError::Taken);
    }
    let id = domain.id;
    if rotation::settle(tx, &domain, found, now)? {
        tracing::info!(domain = %domain.name, "the new DKIM keys are found in DNS and sign from now on");
    }
    // The keys that sign now may be others than those when DNS was asked.
    let keys = dkim_keys::list(tx, id)?;
    let Signing { rsa, ed25519 } = Signing::among(&keys);
    for (kind, finding) in records::ALL_KINDS.into_iter().zip(&mut findings) {
        let selector = match kind {
            Kind::Dkim => rsa.selector,
            Kind::DkimEd25519 => ed25519.selector,
            Kind::Mx | Kind::Spf | Kind::Dmarc => continue,
        };
        *finding = found.get(selector).cloned().unwrap_or_default();
    }
    let before = dns_checks::list(tx, id)?;
    let (mut flags, mut checks) = (domain.flags, domain.flags);
    for (kind, finding) in records::ALL_KINDS.into_iter().zip(&findings) {
        let old = before.iter().find(|check| check.record == kind);
        let set = flag_of(&mut flags, kind).is_some_and(|flag| *flag);
        let failures = old.map_or(0, |old| old.failures);
        let flag = Flag { set, failures, first_failed_at: old.and_then(|old| old.first_failed_at) };
        let flag = flag.after(finding.status, now);
        if let Some(stored) = flag_of(&mut flags, kind) {
            *stored = flag.set;
        }
        if let (Some(result), true) = (flag_of(&mut checks, kind), finding.status != Status::Unchecked) {
            *result = finding.status == Status::Ok;
        }
        let check = DnsCheck {
            record: kind,
            status: finding.status,
            found: finding.found.clone(),
            failures: flag.failures,
            first_failed_at: flag.first_failed_at,
        };
        dns_checks::put(tx, id, &check)?;
    }
    // An MX record may still name this host for the account that had the domain before, so every account but the
    // installation's first, whoever may sign up today, must show a record of its own; a domain keeps what it won
    // without one. With open sign-up every account must show it.
    let by_mx = !open && (accounts::is_first(tx, domain.account_id)? || (domain.verified && !domain.flags.dkim));
    if lost {
        flags = Flags::default();
    }
    let holds = |flags: Flags| flags.mx && (flags.dkim || by_mx);
    // A flag that outlives its record keeps what a domain has but wins nothing: the name may have a new owner by now.
    let verified = holds(flags) && (domain.verified || holds(checks)) && !lost;
    domains::set_checked(tx, id, flags, verified, now)?;
    if verified && !domain.verified {
        domains::clear_flags_of_others(tx, domain.account_id, &domain.name)?;
    }
    let domain = domains::find_by_row(tx, id)?.ok_or(store::Error::Corrupt("domain"))?;
    Ok(Verified { domain, checks })
}

/// Returns the flag that a record moves; the Ed25519 key moves none.
const fn flag_of(flags: &mut Flags, kind: Kind) -> Option<&mut bool> {
    match kind {
        Kind::Mx => Some(&mut flags.mx),
        Kind::Spf => Some(&mut flags.spf),
        Kind::Dkim => Some(&mut flags.dkim),
        Kind::Dmarc => Some(&mut flags.dmarc),
        Kind::DkimEd25519 => None,
    }
}
