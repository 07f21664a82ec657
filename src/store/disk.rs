//! Room on the disk: sizes by kind, free pages given back, copies from before an upgrade removed.
//!
//! A deleted row leaves free pages, which later rows use. What is beyond a reserve is given back in steps of a few
//! milliseconds while nobody else writes; the file shrinks at the next checkpoint. Databases that an earlier version
//! made have no pointer maps, without which no page can be moved, and stay as long as they are until they are restored.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{Db, Error, FILE_NAME, Result};

/// Free pages that are kept: a tenth of the file, and at least this many.
const RESERVE_MIN: u64 = 1_000;
const RESERVE_SHARE: u64 = 10;
/// With fewer than this many beyond the reserve nothing is done.
const WORTHWHILE: u64 = 1_000;
/// Duration of a step, and the pages that are moved before it is looked at.
const STEP: Duration = Duration::from_millis(3);
const PAGES: u64 = 16;
/// Pause between two steps; with more commits than this meanwhile somebody else writes.
const PAUSE: Duration = Duration::from_millis(20);
const OTHERS_MAX: u64 = 2;
/// Interval of such runs, and that while there is more to give back.
const RUN_EVERY: Duration = Duration::from_secs(10);
const RUN_PAUSE: Duration = Duration::from_secs(1);
/// WAL that one run may fill before a checkpoint.
const WAL_MAX: u64 = 16 << 20;
/// Value of `PRAGMA auto_vacuum` for databases with pointer maps.
const INCREMENTAL: u64 = 2;
/// Begins the name of a copy that was made before an upgrade of the schema.
const COPY: &str = "mailkite.before-schema-";

/// Octets in a data directory, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// The database file, with the free pages.
    pub(crate) database: u64,
    pub(crate) free_pages: u64,
    pub(crate) wal: u64,
    /// Objects of mail, and of uploads.
    pub(crate) mail: u64,
    pub(crate) uploads: u64,
    /// Copies from before upgrades of the schema.
    pub(crate) schema_copies: u64,
}

/// Measures a data directory; the cost grows with the number of objects.
pub(crate) fn sizes(connection: &Connection, data_dir: &Path) -> Result<Sizes> {
    let length = |name: &str| std::fs::metadata(data_dir.join(name)).map_or(0, |found| found.len());
    let sum = |statement: &str| connection.prepare_cached(statement)?.query_row([], |row| row.get(0));
    Ok(Sizes {
        database: length(FILE_NAME),
        free_pages: figure(connection, "freelist_count")? * figure(connection, "page_size")?,
        wal: length(&format!("{FILE_NAME}-wal")),
        mail: sum("SELECT coalesce(sum(size), 0) FROM mail_data WHERE file IS NOT NULL")?,
        uploads: sum("SELECT coalesce(sum(size), 0) FROM upload")?,
        schema_copies: schema_copies(data_dir)?.iter().map(|(_, length, _)| length).sum(),
    })
}

fn figure(connection: &Connection, name: &str) -> Result<u64> {
    Ok(connection.pragma_query_value(None, name, |row| row.get(0))?)
}

/// Returns true if pages of the database can be moved.
pub(super) fn has_pointer_maps(connection: &Connection) -> Result<bool> {
    Ok(figure(connection, "auto_vacuum")? == INCREMENTAL)
}

/// Returns the number of free pages beyond the reserve that can be given back.
fn spare_pages(connection: &Connection) -> Result<u64> {
    if !has_pointer_maps(connection)? {
        return Ok(0);
    }
    let reserve = (figure(connection, "page_count")? / RESERVE_SHARE).max(RESERVE_MIN);
    Ok(figure(connection, "freelist_count")?.saturating_sub(reserve))
}

/// Gives free pages back for some milliseconds; returns their number.
fn vacuum_step(connection: &Connection) -> Result<u64> {
    let (started, mut given) = (Instant::now(), 0);
    while started.elapsed() < STEP && spare_pages(connection)? > 0 {
        let before = figure(connection, "page_count")?;
        connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        let step = before.saturating_sub(figure(connection, "page_count")?);
        if step == 0 {
            break;
        }
        given += step;
    }
    Ok(given)
}

impl Db {
    /// Gives free pages back to the disk while nothing else is written, for ever.
    pub(crate) async fn keep_small(&self) {
        let mut wait = RUN_EVERY;
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.shrink().await {
                Ok(0) => RUN_EVERY,
                Ok(pages) => {
                    tracing::debug!(pages, "gave free pages of the database back to the disk");
                    RUN_PAUSE
                }
                Err(error) => {
                    tracing::debug!(%error, "free pages of the database were not given back; trying again");
                    RUN_EVERY
                }
            };
        }
    }

    /// Removes copies from before an upgrade that were made longer than `age` ago: the new schema has served since.
    ///
    /// # Errors
    /// One cannot be removed.
    pub(crate) async fn remove_schema_copies(&self, age: Duration) -> Result<()> {
        let path = self.path().to_owned();
        let remove = move || path.parent().map_or(Ok(()), |data_dir| remove_schema_copies(data_dir, age));
        tokio::task::spawn_blocking(remove).await.unwrap_or(Err(Error::Stopped))
    }

    /// Gives free pages back to the disk until only the reserve is left, somebody else writes, or the WAL has grown
    /// by some MiB; returns their number.
    ///
    /// # Errors
    /// Those of [`Db::write`].
    async fn shrink(&self) -> Result<u64> {
        if self.read(spare_pages).await? < WORTHWHILE {
            return Ok(0);
        }
        let (mut given, wal_before) = (0, self.wal_written());
        loop {
            let before = self.commits().0;
            tokio::time::sleep(PAUSE).await;
            let is_quiet = self.commits().0 - before <= OTHERS_MAX && !self.inner.writer.is_contended();
            if !is_quiet || self.wal_written() - wal_before > WAL_MAX {
                break;
            }
            let step = self.write_nosync(vacuum_step).await?;
            given += step;
            if step == 0 {
                break;
            }
        }
        if given > 0 {
            self.inner.writer.request_checkpoint();
        }
        Ok(given)
    }
}

fn remove_schema_copies(data_dir: &Path, age: Duration) -> Result<()> {
    for (path, _, made) in schema_copies(data_dir)? {
        if made > age {
            std::fs::remove_file(&path).map_err(|error| Error::io(format!("removing {}", path.display()), error))?;
            tracing::info!(path = %path.display(), "removed the copy of the database from before an upgrade");
        }
    }
    Ok(())
}

/// Lists copies from before an upgrade with their lengths and ages.
fn schema_copies(data_dir: &Path) -> Result<Vec<(PathBuf, u64, Duration)>> {
    let entries = std::fs::read_dir(data_dir).map_err(|error| Error::io(data_dir.display().to_string(), error))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(COPY)
            && let Ok(metadata) = entry.metadata()
        {
            let age = metadata.modified().ok().and_then(|made| made.elapsed().ok()).unwrap_or_default();
            found.push((entry.path(), metadata.len(), age));
        }
    }
    Ok(found)
}
