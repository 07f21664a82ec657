//! Brings a database to the present schema: a fresh one by `schema.sql`, an older one by steps.
//!
//! `user_version` counts the steps. A backup is made beside the database before the first step, each step is one
//! transaction, and a database from a newer version is refused: it must never be opened and "repaired".

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::{Error, Result};

/// The whole present schema.
pub const SCHEMA: &str = include_str!("../../schema.sql");
/// "mkit": marks the file as ours, so that another program's database is never taken for one.
const APPLICATION_ID: i32 = 0x6d6b_6974;

/// Step `n` brings version `n + 1` to `n + 2`; version 1 is the first released schema.
const STEPS: &[&str] = &[];

/// Why a database cannot be used by this version.
fn refused(sentence: String) -> Error {
    Error::Io { context: sentence, source: std::io::Error::other("the database was left untouched") }
}

/// The version that this program writes.
pub fn present_version() -> i32 {
    i32::try_from(STEPS.len()).unwrap_or(i32::MAX).saturating_add(1)
}

/// Creates or upgrades the schema.
///
/// # Errors
/// The file is another program's database, is damaged, or was written by a newer version.
pub fn run(connection: &mut Connection, path: &Path) -> Result<()> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if version == 0 && objects == 0 {
        return create(connection);
    }
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(refused(format!("{} is not a mailkite database", path.display())));
    }
    if version > present_version() {
        return Err(refused(format!(
            "{} was written by a newer mailkite (schema {version}, this one knows {}); install that version or restore \
             a backup",
            path.display(),
            present_version()
        )));
    }
    if version < present_version() {
        upgrade(connection, path, version)?;
    }
    Ok(())
}

fn create(connection: &mut Connection) -> Result<()> {
    // Both must be set before the first page is written.
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", present_version())?;
    transaction.commit()?;
    Ok(())
}

fn upgrade(connection: &mut Connection, path: &Path, from: i32) -> Result<()> {
    let backup = path.with_extension(format!("before-schema-{}.db", present_version()));
    if !backup.exists() {
        let partial = backup.with_extension("partial");
        connection.backup(rusqlite::MAIN_DB, &partial, None)?;
        std::fs::rename(&partial, &backup).map_err(|error| Error::io("renaming the backup", error))?;
        tracing::info!(backup = %backup.display(), "backed the database up before upgrading its schema");
    }
    let done = usize::try_from(from).unwrap_or(1).saturating_sub(1);
    for (index, step) in STEPS.iter().enumerate().skip(done) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(
            None,
            "user_version",
            i32::try_from(index).unwrap_or(i32::MAX).saturating_add(2),
        )?;
        transaction.commit()?;
    }
    Ok(())
}
