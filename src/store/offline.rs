//! Access to the database of a data directory from the command line, with or without a server that has it open.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::connection::{configure_reader, keep_wal, open_as_it_is};
use super::{Error, FILE_NAME, Result, damage, migrate};

/// Checks that this program can open the database in `data_dir`, if there is one, and that all of it can be read;
/// changes and creates nothing.
///
/// # Errors
/// An explanation why it cannot.
pub(crate) fn inspect(data_dir: &Path) -> Result<()> {
    let path = data_dir.join(FILE_NAME);
    if std::fs::metadata(&path).map_or(0, |found| found.len()) == 0 {
        return Ok(());
    }
    open_as_it_is(&path)
        .and_then(|connection| {
            migrate::check_openable(&connection, &path)?;
            damage::check(&connection, &path)
        })
        .map_err(|error| migrate::damaged(error, &path))
}

/// Runs `work` on the database in `data_dir` as it is; changes and creates nothing. `None` when there is none.
///
/// # Errors
/// It cannot be opened or read, or the error of `work`.
pub(crate) fn examine<T>(data_dir: &Path, work: impl FnOnce(&Connection) -> Result<T>) -> Result<Option<T>> {
    open_unused(data_dir)?.map(|connection| work(&connection)).transpose()
}

/// Opens the database in `data_dir`, or in a backup, for reading as it is; `None` when there is none.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn open_unused(data_dir: &Path) -> Result<Option<Connection>> {
    let path = data_dir.join(FILE_NAME);
    path.exists().then(|| open_as_it_is(&path)).transpose()
}

/// Makes everything that the database in `data_dir` shows durable. No server has it open.
///
/// # Errors
/// It cannot be opened or written; then what it shows may be in memory alone.
pub(crate) fn make_wal_durable(data_dir: &Path) -> Result<()> {
    let path = data_dir.join(FILE_NAME);
    let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    keep_wal(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get(0))?;
    if busy == 0 { Ok(()) } else { Err(Error::Busy) }
}

/// Runs `work` on the database in `data_dir` as it is, also while a server has it open; `None` when there is none.
///
/// # Errors
/// It cannot be opened or read, or the error of `work`.
pub(crate) fn read_offline<T>(data_dir: &Path, work: impl FnOnce(&Connection) -> Result<T>) -> Result<Option<T>> {
    let path = data_dir.join(FILE_NAME);
    if !path.exists() {
        return Ok(None);
    }
    let mut connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    configure_reader(&mut connection)?;
    work(&connection).map(Some)
}

/// Runs `work` in a transaction of its own on the database in `data_dir`, also while a server has it open and detects
/// the change by [`super::data_version`]; `None` when there is none.
///
/// # Errors
/// It cannot be opened or written, has another schema than this program, or the error of `work`.
pub(crate) fn write_from_cli<T>(data_dir: &Path, work: impl FnOnce(&Connection) -> Result<T>) -> Result<Option<T>> {
    let path = data_dir.join(FILE_NAME);
    if !path.exists() {
        return Ok(None);
    }
    let mut connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    keep_wal(&connection)?;
    migrate::check_present(&connection, &path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let outcome = work(&transaction)?;
    transaction.commit().map_err(|error| Error::Unknown(Box::new(error.into())))?;
    Ok(Some(outcome))
}
