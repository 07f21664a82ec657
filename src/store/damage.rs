//! Suspected damage: a run that could not read the database ends, and the next start checks all of it before it serves.
//!
//! SQLite reports a failed read and a damaged page alike. A disk that failed once is no reason to stay down, and a
//! damaged file none to start again and again.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{Error, Result, audit, migrate};

/// Exists while the database is suspected.
const FILE: &str = "mailkite.check";
const TEXT: &str = "The database could not be read. The next start checks all of it.\n";

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Makes the next start check the whole database. A failure leaves that start as it would have been.
pub(crate) fn suspect(data_dir: &Path) {
    if let Err(error) = fs::write(file(data_dir), TEXT) {
        tracing::warn!(%error, "the next start will not check the database; run mailkite check");
    }
}

/// Checks the whole database if an earlier run could not read it.
///
/// # Errors
/// It is damaged, or cannot be read.
pub(super) fn check_if_suspected(connection: &Connection, data_dir: &Path, path: &Path) -> Result<()> {
    let suspected = file(data_dir);
    if !suspected.exists() {
        return Ok(());
    }
    tracing::warn!("an earlier run could not read the database: checking all of it");
    check(connection, path)?;
    tracing::info!("the database is whole: its disk may be failing");
    fs::remove_file(&suspected).map_err(|error| Error::io(suspected.display().to_string(), error))
}

/// Checks the whole database.
///
/// # Errors
/// It is damaged, or cannot be read.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<()> {
    let found = audit::quick_check(connection).map_err(|error| migrate::damaged(error, path))?;
    match found.first() {
        Some(first) => Err(migrate::damage(path, first.lines().last().unwrap_or(first))),
        None => Ok(()),
    }
}
