//! Rotation of a domain's DKIM keys with overlap (contract 3.9): the new keys sign once their record is found, and the
//! former ones stay published until no mail that they signed can be on its way.

use std::collections::HashMap;
use std::time::Duration;

use super::check::Finding;
use super::records::{self, PublicKey, Record, Status};
use crate::clock::Timestamp;
use crate::store::accounts::dkim_keys::{self, Algorithm, DkimKey, KeyState};
use crate::store::accounts::domains::DomainRow;
use crate::store::{Connection, Result};

/// Time from the last mail that keys signed to their retirement: others retry for up to five days (RFC 5321 §4.5.4.1).
const TRANSIT: Duration = Duration::from_secs(7 * 86_400);

/// Part that a key's record has in a rotation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    pub(crate) state: KeyState,
    /// Earliest time at which the record of a retiring key may be removed.
    pub(crate) removable_at: Option<Timestamp>,
}

impl Rotation {
    /// Returns the part of a key that does not sign.
    pub(super) fn of(key: &DkimKey) -> Self {
        Self { state: key.state, removable_at: key.needed_at.map(|needed| needed.plus(TRANSIT)) }
    }
}

/// Keys of a domain that sign.
pub(super) struct Signing<'k> {
    pub(super) rsa: PublicKey<'k>,
    pub(super) ed25519: PublicKey<'k>,
}

impl<'k> Signing<'k> {
    /// Finds them among all; empty where there are none yet.
    pub(super) fn among(keys: &'k [DkimKey]) -> Self {
        let find = |algorithm| {
            let key = keys.iter().find(|key| key.state == KeyState::Signing && key.algorithm == algorithm);
            key.map_or(PublicKey { selector: "", value: "" }, |key| PublicKey {
                selector: &key.selector,
                value: &key.public_key,
            })
        };
        Self { rsa: find(Algorithm::Rsa), ed25519: find(Algorithm::Ed25519) }
    }
}

/// Returns the keys that do not sign, with their records.
pub(super) fn others<'k>(domain: &str, keys: &'k [DkimKey]) -> Vec<(&'k DkimKey, Record)> {
    let other = keys.iter().filter(|key| key.state != KeyState::Signing);
    other
        .map(|key| {
            let public = PublicKey { selector: &key.selector, value: &key.public_key };
            let mut record = records::key_record(domain, key.algorithm, public);
            record.optional |= key.state == KeyState::Retired;
            (key, record)
        })
        .collect()
}

/// Moves a domain's rotation by what DNS has of its keys, by selector, and stores that. Returns true if the next keys
/// sign now.
pub(super) fn settle(
    tx: &Connection,
    domain: &DomainRow,
    found: &HashMap<String, Finding>,
    now: Timestamp,
) -> Result<bool> {
    let keys = dkim_keys::list(tx, domain.id)?;
    for key in &keys {
        let Some(finding) = found.get(&key.selector) else { continue };
        if key.state == KeyState::Retired && finding.status == Status::Missing {
            dkim_keys::delete_retired(tx, domain.id, &key.selector)?;
        } else {
            dkim_keys::set_found(tx, domain.id, &key.selector, finding.status, &finding.found)?;
        }
    }
    let is_found = |key: &DkimKey| found.get(&key.selector).is_some_and(|finding| finding.status == Status::Ok);
    let mut next = keys.iter().filter(|key| key.state == KeyState::Next && key.algorithm == Algorithm::Rsa);
    let switches = next.any(is_found);
    if switches {
        dkim_keys::switch(tx, domain.id, now)?;
    } else if let Some(needed) = keys.iter().find_map(|key| key.needed_at) {
        if dkim_keys::is_needed(tx, domain.account_id, domain.id, needed)? {
            dkim_keys::set_needed(tx, domain.id, now)?;
        } else if now >= needed.plus(TRANSIT) {
            dkim_keys::retire(tx, domain.id)?;
        }
    }
    Ok(switches)
}
