//! The master key of a data directory, its replacement by `mailkite rotate-key`, and what a crash in between left.
//!
//! The next key is durable in a file of its own before one transaction seals everything with it, and takes the place of
//! the present one after the commit. At every instant the database opens with one of the two files, and tells which.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::secrets::{FormerKey, Secrets, SecretsError, next};
use crate::store::accounts::sessions;
use crate::store::reseal::{self, FormerKeyRow, FormerPurpose};
use crate::store::sealed::{self, FORMER_PURPOSE};
use crate::store::{self, Connection, Db};

/// Key that the secrets in a database were sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SealedWith {
    Present,
    Next,
    /// The database cannot be read, or neither of the two opens it.
    Unknown,
}

/// Derived keys of former master keys that are still of use, the latest first.
#[derive(Default)]
pub(crate) struct FormerKeys {
    pub(crate) links: Vec<FormerKey>,
    pub(crate) return_paths: Vec<FormerKey>,
    /// Stays in use: with another one, mail sent again after the rotation would not be known as a duplicate.
    pub(crate) fingerprint: Option<[u8; 32]>,
}

/// Reads the master key that the database was sealed with, also after a rotation that was cut off; changes nothing.
///
/// # Errors
/// As [`Secrets::read`].
pub(crate) fn read(data_dir: &Path) -> Result<Secrets, SecretsError> {
    match next::read(data_dir)? {
        Some(next) if sealed_with(data_dir, &next) == SealedWith::Next => Ok(next),
        _ => Secrets::read(data_dir),
    }
}

/// Ends a rotation that was cut off, forwards or backwards. The data directory is locked.
///
/// # Errors
/// A key file cannot be read or changed.
pub(crate) fn settle(data_dir: &Path) -> Result<(), SecretsError> {
    let Some(next) = next::read(data_dir)? else { return Ok(()) };
    match sealed_with(data_dir, &next) {
        SealedWith::Next => {
            // After a failed fsync the new seals may be in memory alone, and the former key is lost by the next line.
            store::make_wal_durable(data_dir).map_err(|error| {
                SecretsError::Io("the database".to_owned(), std::io::Error::other(error.to_string()))
            })?;
            next::adopt(data_dir)?;
            tracing::warn!("a rotation of the master key was cut off; it is completed now");
        }
        SealedWith::Present => {
            next::discard(data_dir)?;
            tracing::warn!("a rotation of the master key was cut off before it changed anything; run it again");
        }
        // What is wrong is found when the database is opened.
        SealedWith::Unknown => {}
    }
    Ok(())
}

fn sealed_with(data_dir: &Path, next: &Secrets) -> SealedWith {
    let Ok(sample) = store::examine(data_dir, sealed::sample) else { return SealedWith::Unknown };
    let present = || Secrets::read(data_dir);
    match sample.flatten() {
        Some((purpose, sealed)) if next.open_sealed(purpose, &sealed).is_ok() => SealedWith::Next,
        Some((purpose, sealed)) if present().is_ok_and(|key| key.open_sealed(purpose, &sealed).is_ok()) => {
            SealedWith::Present
        }
        Some(_) => SealedWith::Unknown,
        // Nothing is sealed, so nothing depends on the next one.
        None if present().is_ok() => SealedWith::Present,
        None => SealedWith::Unknown,
    }
}

/// Replaces the master key of a locked data directory; returns how many secrets are sealed anew. With `forget` nothing
/// is accepted any more that was made with the former one.
///
/// # Errors
/// A sentence; the present key stays in use unless everything was sealed with the next.
pub(crate) async fn rotate(data_dir: &Path, db: &Db, forget: bool, now: Timestamp) -> anyhow::Result<usize> {
    let present = Arc::new(Secrets::read(data_dir)?);
    present.check_fits(data_dir, db.read(sealed::sample).await?)?;
    let next = Arc::new(next::make(data_dir)?);
    let count = db.write(move |tx| reseal(tx, &present, &next, forget, now)).await?;
    next::adopt(data_dir)?;
    Ok(count)
}

fn reseal(
    tx: &Connection,
    present: &Arc<Secrets>,
    next: &Arc<Secrets>,
    forget: bool,
    now: Timestamp,
) -> store::Result<usize> {
    if forget {
        reseal::forget_former(tx)?;
    }
    let (from, to) = (Arc::clone(present), Arc::clone(next));
    let count = reseal::reseal_all(tx, move |purpose, sealed| {
        let plain = from.open_sealed(purpose, sealed).ok()?;
        Some(to.seal(purpose, &plain))
    })?;
    sessions::delete_all(tx)?;
    if forget {
        return Ok(count);
    }
    let keeps_fingerprints =
        reseal::list_former(tx)?.iter().any(|former| former.purpose == FormerPurpose::Fingerprint);
    let kept = [
        (FormerPurpose::Link, Some(present.link_key())),
        (FormerPurpose::ReturnPath, Some(present.return_path_key())),
        (FormerPurpose::Fingerprint, (!keeps_fingerprints).then(|| present.fingerprint_key())),
    ];
    for (purpose, key) in kept {
        let Some(key) = key else { continue };
        let key_sealed = next.seal(FORMER_PURPOSE, &key);
        reseal::insert_former(tx, &FormerKeyRow { purpose, key_sealed, replaced_at: now })?;
    }
    Ok(count)
}

impl FormerKeys {
    /// Reads them; those that do not open are left out, since then no secret opens, which is checked elsewhere.
    pub(crate) fn load(data_dir: &Path, secrets: &Secrets) -> store::Result<Self> {
        let rows = store::read_offline(data_dir, reseal::list_former)?.unwrap_or_default();
        let mut keys = Self::default();
        for FormerKeyRow { purpose, key_sealed, replaced_at } in rows {
            let opened = secrets.open_sealed(FORMER_PURPOSE, &key_sealed).ok();
            let Some(key) = opened.and_then(|key| <[u8; 32]>::try_from(key).ok()) else { continue };
            match purpose {
                FormerPurpose::Link => keys.links.push(FormerKey { key, replaced_at }),
                FormerPurpose::ReturnPath => keys.return_paths.push(FormerKey { key, replaced_at }),
                FormerPurpose::Fingerprint => keys.fingerprint = Some(key),
            }
        }
        Ok(keys)
    }
}
