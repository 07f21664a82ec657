//! Connections to the database file and their configuration: the writer's, the readers', and those that look at the
//! file as it is.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{Error, Result};

/// Leaves the WAL in place when the last connection closes; every connection sets this. SQLite would move it into the
/// file and remove it, including frames whose fsync failed, and a mere read must not change what the next start finds.
///
/// # Errors
/// SQLite refuses.
pub(crate) fn keep_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

/// Creates a missing file before SQLite would make it readable for others; the files beside it get its mode.
pub(super) fn make_private(path: &Path) -> Result<()> {
    let made = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| Error::io(path.display().to_string(), error))
}

/// Makes the WAL left by an earlier process durable. After a failed fsync it may be in memory alone, where the system
/// considers it written, and be read from there as if it were stored. On a full disk it stays as it is.
pub(super) fn make_durable(connection: &Connection) -> Result<()> {
    match connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).map_err(Error::from) {
        Err(error @ (Error::Full(_) | Error::Busy)) => {
            tracing::warn!(%error, "the WAL could not be moved into the database yet");
            Ok(())
        }
        checkpointed => checkpointed,
    }
}

/// Configures the one writing connection. `mmap` stays off: an I/O error in a mapping would be a signal.
pub(super) fn configure_writer(connection: &Connection) -> Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Until the writer takes over, which fsyncs the WAL itself.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -32_768)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    // The writer checkpoints the WAL itself.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.set_prepared_statement_cache_capacity(256);
    Ok(())
}

pub(super) fn configure_reader(connection: &mut Connection) -> rusqlite::Result<()> {
    keep_wal(connection)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -4096)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Opens the database; without a WAL the file alone, since a reader would have to create one.
pub(super) fn open_as_it_is(path: &Path) -> Result<Connection> {
    let wal = path.with_extension("db-wal");
    let alone = std::fs::metadata(wal).map_or(0, |found| found.len()) == 0;
    open_uri(path, if alone { "?immutable=1" } else { "" })
}

/// Opens the database file without its WAL, even while somebody writes it.
pub(super) fn open_immutable(path: &Path) -> Result<Connection> {
    open_uri(path, "?immutable=1")
}

fn open_uri(path: &Path, parameters: &str) -> Result<Connection> {
    let name =
        percent_encoding::percent_encode(path.as_os_str().as_encoded_bytes(), percent_encoding::NON_ALPHANUMERIC);
    let uri = format!("file:{name}{parameters}");
    let connection = Connection::open_with_flags(uri, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)?;
    keep_wal(&connection)?;
    Ok(connection)
}
