//! The high-water mark: a small file beside the lock that records the state of the database as of its last promise.
//!
//! SQLite accepts a database without its WAL, with a truncated or an older one, or an older file, as complete. The mark
//! is written after each commit and promises what was fsynced, never earlier, so a power cut or `kill -9` leaves it at
//! or below the state on disk, and a start that finds less refuses. It is fsynced when the WAL is reset, and at an
//! orderly shutdown.
//!
//! It contains the database's own number; a generation, a row that is raised at each start, each time the WAL is reset
//! and at each stop; the generation that the database file itself held when the present WAL began; and the last
//! committed frames of the WAL with the checksums of their pages.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _};

use crate::clock::Clock;
use crate::store::{Error, FILE_NAME, Result};

/// File name of the mark inside the data directory.
pub(crate) const MARK_NAME: &str = "mailkite.mark";

/// Octets of one of the two slots in the file; they are written alternately, so that a torn write leaves the other.
const PLACE: usize = 512;
/// Octets of the WAL's header and of each frame's header (SQLite's file format, section 4).
const WAL_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Maximum number of resets of the WAL since the mark was written: each increments its first salt by one.
const MAX_RESETS: u32 = 1 << 16;

/// A committed frame of the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    /// Random values that distinguish one WAL from the next.
    salts: (u32, u32),
    /// Frame number, from 1.
    number: u32,
    /// Page of the database that it holds, and the CRC-32 of that.
    page: u32,
    checksum: u32,
}

/// State of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    sequence: u64,
    database: i64,
    generation: i64,
    /// Generation that the database file held, without its WAL, when that WAL began.
    base: i64,
    /// Time of writing in milliseconds of the epoch.
    at: i64,
    /// The last frame that was fsynced; `None`: everything was in the database file.
    frame: Option<Frame>,
    /// The last frame: no promise, but it shows that nothing is missing when the WAL was moved into the database file.
    seen: Option<Frame>,
}

impl Mark {
    fn to_line(self) -> String {
        let words = |frame: Option<Frame>| {
            let frame = frame.unwrap_or(Frame { salts: (0, 0), number: 0, page: 0, checksum: 0 });
            format!("{} {} {} {} {}", frame.salts.0, frame.salts.1, frame.number, frame.page, frame.checksum)
        };
        let Self { sequence, database, generation, base, at, frame, seen } = self;
        let (frame, seen) = (words(frame), words(seen));
        let text = format!("mailkite 1 {sequence} {database} {generation} {base} {at} {frame} {seen}");
        let sum = crc32fast::hash(text.as_bytes());
        format!("{:<width$}\n", format!("{text} {sum}"), width = PLACE - 1)
    }

    fn of_line(place: &[u8]) -> Option<Self> {
        let line = str::from_utf8(place).ok()?.trim_end();
        let (text, sum) = line.rsplit_once(' ')?;
        if sum.parse::<u32>().ok() != Some(crc32fast::hash(text.as_bytes())) {
            return None;
        }
        let mut words = text.strip_prefix("mailkite 1 ")?.split(' ');
        let mut next = || words.next()?.parse::<i64>().ok();
        let (sequence, database, generation, base, at) = (next()?, next()?, next()?, next()?, next()?);
        let mut small = || u32::try_from(next()?).ok();
        let mut frame = || {
            let frame = Frame { salts: (small()?, small()?), number: small()?, page: small()?, checksum: small()? };
            Some((frame.number > 0).then_some(frame))
        };
        let (frame, seen) = (frame()?, frame()?);
        Some(Self { sequence: u64::try_from(sequence).ok()?, database, generation, base, at, frame, seen })
    }

    /// Reads the later of the two slots; `None` without the file.
    ///
    /// # Errors
    /// The file cannot be read, or both slots are damaged.
    fn read(data_dir: &Path) -> std::result::Result<Option<Self>, Missing> {
        match fs::read(data_dir.join(MARK_NAME)) {
            Ok(bytes) => {
                let marks = bytes.chunks(PLACE).filter_map(Self::of_line);
                marks.max_by_key(|mark| mark.sequence).map(Some).ok_or(Missing::Mark)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(_) => Err(Missing::Mark),
        }
    }
}

/// State of the files before SQLite opens them: closing a file later in this process would release SQLite's locks.
#[derive(Debug)]
pub(crate) struct Evidence {
    mark: Option<Mark>,
    /// True if there is a mark that cannot be read.
    unreadable: bool,
    /// Generation of the database file without its WAL; `None` if it cannot be read that way.
    file: Option<i64>,
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

/// Leaves the WAL in place when the last connection closes; every connection sets this. SQLite would move it into the
/// file and remove it, including frames whose fsync failed, and a mere read must not change what the next start finds.
///
/// # Errors
/// SQLite refuses.
pub(crate) fn keep_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

fn is_empty(path: &Path) -> bool {
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
        Err(crate::store::migrate::refused(format!(
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

fn wal_path(database: &Path) -> PathBuf {
    database.with_extension("db-wal")
}

fn read_salts(wal: &File) -> Option<(u32, u32)> {
    let mut header = [0; WAL_HEADER];
    wal.read_exact_at(&mut header, 0).ok()?;
    Some((word(&header, 16)?, word(&header, 20)?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn page_checksum(database: &Path, page: u32) -> Option<u32> {
    let file = File::open(database).ok()?;
    let mut header = [0; 18];
    file.read_exact_at(&mut header, 0).ok()?;
    let size = match u16::from_be_bytes([*header.get(16)?, *header.get(17)?]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    file.read_exact_at(&mut bytes, u64::from(page.checked_sub(1)?) * size).ok()?;
    Some(crc32fast::hash(&bytes))
}

/// Returns the generation in the database file, regardless of its WAL; 0 before there was a mark.
fn file_generation(path: &Path) -> Option<i64> {
    let connection = crate::store::open_immutable(path).ok()?;
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

/// Returns the number of committed frames in the WAL.
fn frames(connection: &Connection) -> rusqlite::Result<u32> {
    let frames: i64 = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?.query_row([], |row| row.get(1))?;
    Ok(u32::try_from(frames).unwrap_or(0))
}

/// Writes the mark of an open database.
#[derive(Debug)]
pub(crate) struct Keeper(Mutex<State>);

#[derive(Debug)]
struct State {
    data_dir: PathBuf,
    mark: Mark,
    /// The mark as of the last durable commit, which is the one written.
    promised: Mark,
    /// The mark at each commit that waits for its fsync, with true if the mark itself is worth an fsync.
    waiting: VecDeque<(u64, Mark, bool)>,
    file: Option<File>,
    wal: Option<File>,
    page_size: usize,
    /// True if the next transaction raises the generation.
    is_due: bool,
    /// Database number and generation set by the transaction that is being committed.
    raised: Option<(i64, i64)>,
    /// True once a failure was reported.
    failed: bool,
}

impl Keeper {
    /// Starts the mark of a database that was just opened, checked and upgraded to the present schema.
    ///
    /// Neither a full nor a read-only disk prevents opening: the mark stays as it was.
    pub(crate) fn begin(connection: &Connection, data_dir: &Path, evidence: &Evidence) -> Result<Self> {
        let known = evidence.mark.unwrap_or_default();
        let page_size: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let mark = Mark { base: evidence.file.unwrap_or(0), ..known };
        let mut state = State {
            data_dir: data_dir.to_owned(),
            mark,
            promised: mark,
            waiting: VecDeque::new(),
            file: None,
            wal: None,
            page_size: usize::try_from(page_size).unwrap_or(0),
            is_due: true,
            raised: None,
            failed: false,
        };
        let raised = connection.unchecked_transaction().and_then(|transaction| {
            state.raise(&transaction)?;
            transaction.commit()
        });
        match raised {
            // It was fsynced: the writer has not taken over yet.
            Ok(()) => {
                state.committed(connection, Some(0));
                state.durable(0);
            }
            Err(error) => {
                state.raised = None;
                tracing::warn!(%error, "the mark of the database could not be raised; the next commit tries again");
            }
        }
        Ok(Self(Mutex::new(state)))
    }

    /// Raises the generation in the open transaction, when that is due.
    pub(crate) fn raise(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.lock(|state| state.raise(connection))
    }

    /// Records a committed transaction with the number of its fsync, which is still pending; `None`: it needs none.
    pub(crate) fn committed(&self, connection: &Connection, number: Option<u64>) {
        self.lock(|state| state.committed(connection, number));
    }

    /// Records that all fsyncs up to this number are done.
    pub(crate) fn durable(&self, number: u64) {
        self.lock(|state| state.durable(number));
    }

    /// Records that the transaction was not committed.
    pub(crate) fn rolled_back(&self) {
        self.lock(|state| state.raised = None);
    }

    /// Makes the next transaction raise the generation.
    pub(crate) fn raise_next(&self) {
        self.lock(|state| state.is_due = true);
    }

    /// Writes the state after the last commit, without a promise: the writer accepts no more.
    pub(crate) fn end(&self) {
        self.lock(|state| state.write(true));
    }

    /// Writes the last mark of an orderly shutdown: everything is in the database file, and the WAL is empty.
    pub(crate) fn seal(&self) {
        self.lock(|state| {
            if is_empty(&wal_path(&state.data_dir.join(FILE_NAME))) {
                state.mark = Mark { base: state.mark.generation, frame: None, seen: None, ..state.mark };
                state.promised = state.mark;
                state.waiting.clear();
                state.write(true);
            }
        });
    }

    fn lock<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn raise(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.is_due {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(
            "UPDATE mark SET generation = generation + 1,
                             database_id = iif(database_id = 0, (random() & 9223372036854775807) | 1, database_id)
             RETURNING database_id, generation",
        )?;
        self.raised = Some(statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?);
        Ok(())
    }

    fn committed(&mut self, connection: &Connection, number: Option<u64>) {
        let raised = self.raised.take();
        self.is_due &= raised.is_none();
        let frame = match self.read_frame(connection) {
            Ok(frame) => frame,
            Err(error) => return self.complain(&error),
        };
        let anew = self.mark.seen.is_some_and(|last| last.salts != frame.salts);
        if anew && raised.is_none() {
            // The whole previous WAL is in the database file, with the generation that was raised in it.
            self.mark.base = self.mark.generation;
            self.is_due = true;
        }
        if let Some((database, generation)) = raised {
            self.mark.database = database;
            self.mark.generation = generation;
        }
        self.mark.seen = Some(frame);
        let Some(number) = number else { return self.write(false) };
        self.mark.frame = Some(frame);
        self.waiting.push_back((number, self.mark, anew || raised.is_some()));
    }

    fn durable(&mut self, number: u64) {
        let mut sync = None;
        while let Some((_, mark, worth)) = self.waiting.pop_front_if(|(waits, ..)| *waits <= number) {
            self.promised = mark;
            sync = Some(sync.unwrap_or(false) | worth);
        }
        if let Some(sync) = sync {
            self.write(sync);
        }
    }

    /// Reads the last committed frame.
    fn read_frame(&mut self, connection: &Connection) -> Result<Frame> {
        let number = frames(connection)?;
        let io = |error| Error::io("reading the WAL", error);
        let wal = match self.wal.take() {
            Some(wal) => wal,
            None => File::open(wal_path(&self.data_dir.join(FILE_NAME))).map_err(io)?,
        };
        let mut bytes = vec![0; FRAME_HEADER + self.page_size];
        let before = u64::from(number.saturating_sub(1)) * bytes.len() as u64;
        wal.read_exact_at(&mut bytes, WAL_HEADER as u64 + before).map_err(io)?;
        let frame = || {
            let (page, salts) = (word(&bytes, 0)?, (word(&bytes, 8)?, word(&bytes, 12)?));
            Some(Frame { salts, number, page, checksum: crc32fast::hash(bytes.get(FRAME_HEADER..)?) })
        };
        let frame = frame().ok_or(Error::Corrupt("WAL"))?;
        self.wal = Some(wal);
        Ok(frame)
    }

    fn write(&mut self, sync: bool) {
        if let Err(error) = self.try_write(sync) {
            self.complain(&Error::io(MARK_NAME, error));
        }
    }

    fn try_write(&mut self, sync: bool) -> std::io::Result<()> {
        self.mark.sequence += 1;
        self.mark.at = Clock::System.now().as_millis();
        let path = self.data_dir.join(MARK_NAME);
        let opened = match self.file.take() {
            Some(file) => Ok(file),
            None => OpenOptions::new().write(true).open(&path),
        };
        // A new file is complete before it gets its name: one that exists and cannot be read was damaged.
        let (file, fresh) = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut new = OpenOptions::new();
                new.create(true).truncate(true).write(true).mode(0o600);
                (new.open(path.with_extension("mark.new"))?, true)
            }
            opened => (opened?, false),
        };
        let place = (self.mark.sequence % 2) * PLACE as u64;
        let Mark { sequence, at, seen, .. } = self.mark;
        let mark = Mark { sequence, at, seen, ..self.promised };
        file.write_all_at(mark.to_line().as_bytes(), place)?;
        if sync {
            file.sync_data()?;
        }
        if fresh {
            file.sync_all()?;
            fs::rename(path.with_extension("mark.new"), path)?;
            File::open(&self.data_dir)?.sync_all()?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn complain(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.failed, true) {
            tracing::warn!(%error, "the mark of the database could not be written; it stays where it was");
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn a_torn_place_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let frame = Frame { salts: (u32::MAX, 7), number: 3, page: 9, checksum: 11 };
        let earlier =
            Mark { sequence: 1, database: 5, generation: 2, base: 1, at: 4, frame: Some(frame), seen: None };
        let later = Mark { sequence: 2, frame: None, ..earlier };
        let mut bytes = [later.to_line(), earlier.to_line()].concat().into_bytes();
        assert_eq!(bytes.len(), 2 * PLACE);
        fs::write(dir.path().join(MARK_NAME), &bytes).unwrap();
        assert_eq!(Mark::read(dir.path()), Ok(Some(later)));
        bytes.iter_mut().skip(20).take(20).for_each(|octet| *octet = b'x');
        fs::write(dir.path().join(MARK_NAME), &bytes).unwrap();
        assert_eq!(Mark::read(dir.path()), Ok(Some(earlier)));
        fs::write(dir.path().join(MARK_NAME), "").unwrap();
        assert_eq!(Mark::read(dir.path()), Err(Missing::Mark), "it is never empty");
        fs::remove_file(dir.path().join(MARK_NAME)).unwrap();
        assert_eq!(Mark::read(dir.path()), Ok(None));
    }
}
