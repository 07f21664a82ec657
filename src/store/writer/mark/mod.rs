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

mod evidence;
mod file;
mod wal;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use crate::clock::Clock;
use crate::store::{Error, FILE_NAME, Result};
use evidence::is_empty;
pub(crate) use evidence::{Evidence, MarkFile, Missing, forget, inspect};
pub(crate) use file::MARK_NAME;
use file::{Mark, PLACE};
use wal::{FRAME_HEADER, Frame, WAL_HEADER, frames, wal_path, word};

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
