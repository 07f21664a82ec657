//! Compares a database with its mark before it is opened for writing: a start that finds less than was promised
//! refuses.

use std::fs::{self, File};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::file::{MARK_NAME, Mark};
use super::wal::{frames, page_checksum, read_salts, wal_path};
use crate::store::connection::{keep_wal, open_immutable};
use crate::store::{Error, FILE_NAME, Result};

/// Maximum number of resets of the WAL since the mark was written: each increments its first salt by one.
const MAX_RESETS: u32 = 1 << 16;

/// State of the files before SQLite opens them: closing a file later in this process would release SQLite's locks.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(super) mark: Option<Mark>,
    /// True if there is a mark that cannot be read.
    unreadable: bool,
    /// Generation of the database file without its WAL; `None` if it cannot be read that way.
    pub(super) file: Option<i64>,
    /// True if the database file holds the page of the last frame, or of the last one that was fsynced.
    has_page: bool,
    /// Salts of the WAL beside it, if there is one.
    salts: Option<(u32, u32)>,
}

/// Missing part of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Everything.
    Database,
    /// Newer data: it is an older database, or another.
    Older,
    /// The WAL: there is none, or it is another one.
    Wal,
    /// The end of the WAL: frames that exist, and that existed.
    WalEnd(u32, u32),
    /// The mark, which shows whether anything is missing.
    Mark,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Database => write!(f, "{FILE_NAME} is missing or empty"),
            Self::Older => write!(f, "{FILE_NAME} is older than what was promised from it, or another database"),
            Self::Wal => {
                write!(
                    f,
                    "{FILE_NAME}-wal is missing or another one, and what was committed to it is not in {FILE_NAME}"
                )
            }
            Self::Mark => {
                write!(f, "{MARK_NAME} is damaged, so that nobody knows whether {FILE_NAME} is all that was promised")
            }
            Self::WalEnd(have, had) => {
                write!(f, "{FILE_NAME}-wal is cut or damaged: {have} of {had} committed pages can be read")
            }
        }
    }
}

/// Result of comparing a database with its mark.
#[derive(Clone, Debug)]
pub(crate) struct MarkFile {
    /// Time at which the mark was written, in milliseconds of the epoch; `None`: there is no mark.
    pub(crate) promised_at: Option<i64>,
    /// Missing part, if any.
    pub(crate) missing: Option<Missing>,
}

/// Compares the database in `data_dir`, which nobody has open, with its mark. Changes neither.
///
/// # Errors
/// The database cannot be read.
pub(crate) fn inspect(data_dir: &Path) -> Result<MarkFile> {
    let evidence = Evidence::gather(data_dir);
    let promised_at = evidence.mark.map(|mark| mark.at);
    if evidence.mark.is_none() {
        return Ok(MarkFile { promised_at, missing: evidence.unreadable.then_some(Missing::Mark) });
    }
    let path = data_dir.join(FILE_NAME);
    if is_empty(&path) {
        return Ok(MarkFile { promised_at, missing: Some(Missing::Database) });
    }
    let connection = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    keep_wal(&connection)?;
    Ok(MarkFile { promised_at, missing: evidence.missing(&connection)? })
}

/// Removes the mark: the next start accepts the database as it is, and creates a new mark.
///
/// # Errors
/// It cannot be removed.
pub(crate) fn forget(data_dir: &Path) -> Result<()> {
    let path = data_dir.join(MARK_NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", path.display()), error))
        }
        _ => crate::store::blobs::objects::sync_folder(data_dir),
    }
}

pub(super) fn is_empty(path: &Path) -> bool {
    fs::metadata(path).map_or(0, |found| found.len()) == 0
}

impl Evidence {
    /// Reads the files; call it before this process opens the database.
    pub(crate) fn gather(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE_NAME);
        let read = Mark::read(data_dir);
        let unreadable = read.is_err();
        let mark = read.unwrap_or_default();
        let frames = mark.map(|mark| [mark.frame, mark.seen]).into_iter().flatten().flatten();
        let mut held = frames.map(|frame| page_checksum(&path, frame.page) == Some(frame.checksum));
        let has_page = held.any(|is_held| is_held);
        Self {
            mark,
            unreadable,
            has_page,
            salts: File::open(wal_path(&path)).ok().and_then(|wal| read_salts(&wal)),
            file: if is_empty(&path) { None } else { file_generation(&path) },
        }
    }

    /// Refuses a database that is behind its mark.
    ///
    /// # Errors
    /// An explanation with the way out.
    pub(crate) fn check(&self, data_dir: &Path, connection: Option<&Connection>) -> Result<()> {
        let missing = match connection {
            None => (self.mark.is_some() || self.unreadable).then_some(Missing::Database),
            Some(connection) => self.missing(connection)?,
        };
        let Some(missing) = missing else { return Ok(()) };
        let dir = data_dir.display();
        let would = if missing == Missing::Mark { "might" } else { "would" };
        Err(Error::Refused(format!(
            "{missing} ({dir}). Acknowledged mail {would} be lost, so nothing is started: put back the {FILE_NAME} and \
             {FILE_NAME}-wal that belong together, or restore a backup; what is there, and how to start with it, says: \
             mailkite recover"
        )))
    }

    fn missing(&self, connection: &Connection) -> Result<Option<Missing>> {
        let Some(mark) = self.mark else { return Ok(self.unreadable.then_some(Missing::Mark)) };
        // Reading the row also reads the WAL.
        let (database, generation) = read_row(connection)?.unwrap_or_default();
        if (mark.database != 0 && database != mark.database) || generation < mark.generation {
            return Ok(Some(match (mark.frame, self.salts) {
                (Some(frame), Some(salts)) if salts == frame.salts => {
                    Missing::WalEnd(frames(connection)?, frame.number)
                }
                (Some(_), None) => Missing::Wal,
                _ => Missing::Older,
            }));
        }
        if self.file.is_some_and(|file| file < mark.base) {
            return Ok(Some(Missing::Older));
        }
        let Some(frame) = mark.frame else { return Ok(None) };
        Ok(match self.salts {
            Some(salts) if salts == frame.salts => {
                let have = frames(connection)?;
                (have < frame.number).then_some(Missing::WalEnd(have, frame.number))
            }
            // The WAL was reset, which happens only once all of it is in the database file.
            Some((first, _)) if (1..=MAX_RESETS).contains(&first.wrapping_sub(frame.salts.0)) => {
                self.file.is_some_and(|file| file < mark.generation).then_some(Missing::Wal)
            }
            // The last process to close the database moved all of it into the file, or it is lost.
            _ => (!self.has_page).then_some(Missing::Wal),
        })
    }
}

/// Returns the generation in the database file, regardless of its WAL; 0 before there was a mark.
fn file_generation(path: &Path) -> Option<i64> {
    let connection = open_immutable(path).ok()?;
    read_row(&connection).ok().map(|row| row.map_or(0, |(_, generation)| generation))
}

fn read_row(connection: &Connection) -> Result<Option<(i64, i64)>> {
    let known =
        connection.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'mark'")?.exists([])?;
    if !known {
        return Ok(None);
    }
    let row = connection
        .query_row("SELECT database_id, generation FROM mark", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(row)
}
