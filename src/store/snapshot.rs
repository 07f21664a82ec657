//! A consistent copy of the database while a server writes it: one read transaction, from naming objects to the last
//! page.
//!
//! A copy in several transactions would begin anew at each commit of another process. While the one transaction is
//! open the WAL is not reset, so it grows by what is committed meanwhile; commits themselves never wait for a reader.
//! A reader may see a commit some milliseconds before its fsync: the copy may then hold what was never promised, which
//! does no harm, and it holds everything that was.

use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, Transaction};

use super::connection::{configure_reader, make_private};
use super::disk::has_pointer_maps;
use super::{Error, FILE_NAME, Result};

/// Pages copied between two reports of progress.
const PAGES: i32 = 4_096;

/// A database to copy.
#[derive(Debug)]
pub(crate) struct Source(Connection);

/// A database as of one moment.
#[derive(Debug)]
pub(crate) struct Snapshot<'s>(Transaction<'s>);

impl Source {
    /// Opens the database in `data_dir`, also while a server has it open; `None` when there is none.
    pub(crate) fn open(data_dir: &Path) -> Result<Option<Self>> {
        let path = data_dir.join(FILE_NAME);
        if std::fs::metadata(&path).map_or(0, |found| found.len()) == 0 {
            return Ok(None);
        }
        let mut connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        configure_reader(&mut connection)?;
        Ok(Some(Self(connection)))
    }

    /// Returns the connection, each statement of which sees the present state.
    pub(crate) const fn connection(&self) -> &Connection {
        &self.0
    }

    /// Returns the octets that a copy takes.
    pub(crate) fn size(&self) -> Result<u64> {
        let figure = |name: &str| self.0.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
        Ok(figure("page_count")?.saturating_mul(figure("page_size")?))
    }

    /// Begins a snapshot.
    pub(crate) fn begin(&self) -> Result<Snapshot<'_>> {
        let transaction = self.0.unchecked_transaction()?;
        // The transaction begins with its first read.
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(Snapshot(transaction))
    }
}

impl Snapshot<'_> {
    /// Returns the connection, all statements of which see the same state.
    pub(crate) fn connection(&self) -> &Connection {
        &self.0
    }

    /// Copies every page into a new file, which the caller fsyncs; `progress` is called with the pages copied so far
    /// and with their number. Blocks.
    pub(crate) fn copy_to(&self, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        make_private(path)?;
        let mut copy = Connection::open(path)?;
        // An interrupted copy is removed, never repaired.
        copy.pragma_update(None, "journal_mode", "OFF")?;
        copy.pragma_update(None, "synchronous", "OFF")?;
        let backup = Backup::new(&self.0, &mut copy)?;
        loop {
            match backup.step(PAGES)? {
                StepResult::Busy | StepResult::Locked => return Err(Error::Busy),
                step => {
                    let at = backup.progress();
                    let pages = |count: i32| u64::try_from(count).unwrap_or(0);
                    progress(pages(at.pagecount.saturating_sub(at.remaining)), pages(at.pagecount));
                    if step == StepResult::Done {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Gives a copy that nobody uses pointer maps, if an earlier version made the database without, so that it can give
/// free pages back. Blocks; needs as much room again.
pub(crate) fn add_pointer_maps(path: &Path) -> Result<()> {
    let connection = Connection::open(path)?;
    if has_pointer_maps(&connection)? {
        return Ok(());
    }
    connection.pragma_update(None, "journal_mode", "OFF")?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.execute_batch("VACUUM")?;
    Ok(())
}
