//! The database: one writer thread with group commit, a pool of readers, one file per table.
//!
//! The only folder that contains SQL or names `rusqlite`; it uses `id`, `clock` and `mail`. Store functions are free
//! functions over a [`Connection`] with names that read as sentences, so that a transaction reads as the list of its
//! promises. A new table gets a file in the group it belongs to and a step in [`migrate`]; mail data beside the
//! database belongs in [`blobs`].
//!
//! Every function returns [`Error`] when storage fails; only other failures are documented.

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod balance;
pub(crate) mod blobs;
mod changes;
mod connection;
mod damage;
pub(crate) mod disk;
mod error;
pub(crate) mod figures;
mod ids;
pub(crate) mod jobs;
pub(crate) mod messages;
pub(crate) mod migrate;
mod offline;
mod pool;
pub(crate) mod reseal;
pub(crate) mod sealed;
pub(crate) mod search;
pub(crate) mod sending;
pub(crate) mod snapshot;
pub(crate) mod stored_enum;
pub(crate) mod webhooks;
pub(crate) mod writer;

use crate::id::AccountRowId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use rusqlite::Connection;
use rusqlite::OpenFlags;
use tokio::sync::{Semaphore, watch};

use blobs::naming::UnconfirmedObjects;
use changes::Changes;
use connection::{configure_writer, keep_wal, make_durable, make_private};
pub(crate) use damage::suspect as suspect_damage;
pub use error::Result;
pub(crate) use error::{Error, Outcome, TransactionError, transaction_error};
use error::{is_busy, is_no_room, is_unreadable};
pub(crate) use offline::{examine, inspect, make_wal_durable, open_unused, read_offline, write_from_cli};
use pool::Readers;
pub(crate) use writer::Failure;
use writer::mark::{Evidence, Keeper};
use writer::reserve::Reserve;
use writer::{Durability, Room, Urgency, Writer};

/// File name of the database inside the data directory.
pub const FILE_NAME: &str = "mailkite.db";

/// Reads that take longer are interrupted, so that no query delays the WAL's reset for long.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// While readers hold the WAL at this many times the size at which it should be reset, reads get less time.
const WAL_BOUND: u64 = 4;
const READ_DEADLINE_LARGE: Duration = Duration::from_secs(1);

/// Time that the last checkpoint waits for readers.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// Pause between two background reads while the writer is contended.
const BACKGROUND_READ_PAUSE: Duration = Duration::from_millis(1);
/// Maximum time that a background read waits for its turn.
const TURN_MAX: Duration = Duration::from_millis(100);

/// The open database; clones share it.
#[derive(Clone, Debug)]
pub struct Db {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    writer: Writer,
    readers: Arc<Readers>,
    /// Running reads, with their start times.
    reading: writer::Queue,
    /// Permits one commit probe at a time.
    probes: Semaphore,
    /// Queue of [`Db::read_background`].
    turns: Arc<Semaphore>,
    /// Objects whose transaction failed with an unknown outcome.
    unconfirmed: UnconfirmedObjects,
    changes: Arc<Changes>,
    mark: Arc<Keeper>,
    reserve: Arc<Reserve>,
    path: PathBuf,
}

impl Db {
    /// Opens or creates the database in `data_dir`, brings its schema up to date and starts the writer.
    ///
    /// # Errors
    /// The file is not a database, is damaged, comes from a newer version, or cannot be opened or written.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(FILE_NAME);
        let evidence = Evidence::gather(data_dir);
        if std::fs::metadata(&path).map_or(0, |found| found.len()) == 0 {
            evidence.check(data_dir, None)?;
        }
        make_private(&path)?;
        // First of all: when the disk is full, its room is needed by the next steps.
        let reserve = Arc::new(Reserve::open(data_dir));
        let connection = open_writer(data_dir, &path, &evidence).map_err(|error| migrate::damaged(error, &path))?;
        make_durable(&connection)?;
        damage::check_if_suspected(&connection, data_dir, &path)?;
        let mark = Arc::new(Keeper::begin(&connection, data_dir, &evidence)?);
        let readers = Readers::open(&path)?;
        let changes = Arc::<Changes>::default();
        changes.record(&connection)?;
        let writer = Writer::start(connection, &path, Arc::clone(&mark), Arc::clone(&reserve), Arc::clone(&changes))?;
        let turns = Arc::new(Semaphore::new(1));
        let inner = Inner {
            writer,
            readers,
            reading: writer::Queue::default(),
            probes: Semaphore::new(1),
            turns,
            unconfirmed: UnconfirmedObjects::default(),
            changes,
            mark,
            reserve,
            path,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs `work` in a transaction of its own and returns once its outcome is on disk.
    ///
    /// Transactions that wait at the same time share one commit and one fsync; one that fails is rolled back alone.
    ///
    /// # Errors
    /// The error of `work` or of the commit; [`Error::outcome`] says whether it is certain that nothing was stored.
    pub async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.try_write(work).await
    }

    /// Does the same as [`Db::write`] for work that has reasons of its own to refuse; they undo it too.
    ///
    /// # Errors
    /// The error of `work`, or one made of those of [`Db::write`].
    pub(crate) async fn try_write<T, E, F>(&self, work: F) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: TransactionError,
        F: FnOnce(&Connection) -> std::result::Result<T, E> + Send + 'static,
    {
        self.inner.writer.run(Durability::Power, Urgency::Now, Room::Free, work).await
    }

    /// Does the same as [`Db::write`], also while the disk is full: for transactions that remove content, and for
    /// sign-in.
    ///
    /// # Errors
    /// Those of [`Db::write`].
    pub(crate) async fn write_removal<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.try_write_removal(work).await
    }

    /// Does the same as [`Db::write_removal`] for work that has reasons of its own to refuse; they undo it too.
    ///
    /// # Errors
    /// Those of [`Db::try_write`].
    pub(crate) async fn try_write_removal<T, E, F>(&self, work: F) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: TransactionError,
        F: FnOnce(&Connection) -> std::result::Result<T, E> + Send + 'static,
    {
        self.inner.writer.run(Durability::Power, Urgency::Now, Room::Rest, work).await
    }

    /// Returns true while the disk is full and nothing new may be stored.
    pub(crate) fn is_full(&self) -> bool {
        self.inner.reserve.is_spent()
    }

    /// Returns once all earlier commits are on disk, and all transactions that waited for that have ended.
    ///
    /// # Errors
    /// Those of [`Db::write`].
    pub(crate) async fn sync(&self) -> Result<()> {
        // A commit that writes nothing is not fsynced.
        let version = |tx: &Connection| {
            let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok(tx.pragma_update(None, "user_version", version)?)
        };
        self.inner.writer.run(Durability::Power, Urgency::Soon, Room::Rest, version).await
    }

    /// Does the same as [`Db::write`], but a power cut soon after may undo it; a crash of the process alone does not.
    ///
    /// For work that can safely be repeated: claims and settlements of jobs (at least once), the search index. The
    /// order of commits is kept: a later [`Db::write`] makes everything before it durable too.
    ///
    /// # Errors
    /// Those of [`Db::write`].
    pub(crate) async fn write_nosync<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.inner.writer.run(Durability::Process, Urgency::Now, Room::Reserve, work).await
    }

    /// Does the same as [`Db::write_nosync`], but may wait some milliseconds, so that it costs no commit of its own
    /// while mail arrives: for settlements, which nobody waits for.
    ///
    /// # Errors
    /// Those of [`Db::write`].
    pub(crate) async fn write_lazy<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.inner.writer.run(Durability::Process, Urgency::Soon, Room::Reserve, work).await
    }

    /// Runs `work` on a read-only connection off the async threads; all its statements see one state of the database.
    /// It may be some milliseconds ahead of the state that a power cut would leave: see [`Db::until_durable`].
    ///
    /// # Errors
    /// The error of `work`, or [`Error::Busy`] when no reader was free in time.
    pub async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.try_read(work).await
    }

    /// Does the same as [`Db::read`] for work that has reasons of its own to refuse.
    ///
    /// # Errors
    /// The error of `work`, or one made of those of [`Db::read`].
    pub(crate) async fn try_read<T, E, F>(&self, work: F) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: TransactionError,
        F: FnOnce(&Connection) -> std::result::Result<T, E> + Send + 'static,
    {
        let db = self.clone();
        let read = tokio::task::spawn_blocking(move || db.try_read_now(work)).await;
        read.unwrap_or_else(|_| Err(Error::Stopped.into()))
    }

    /// Does the same as [`Db::read`], for lists and other reads of many rows: while the writer is contended, they run
    /// one at a time with a pause after each, so that heavy readers slow mail down only a little.
    ///
    /// # Errors
    /// Those of [`Db::read`].
    pub(crate) async fn read_background<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        if !self.inner.writer.is_contended() {
            return self.read(work).await;
        }
        let turn = tokio::time::timeout(TURN_MAX, Arc::clone(&self.inner.turns).acquire_owned()).await;
        let outcome = self.read(work).await;
        tokio::spawn(async move {
            tokio::time::sleep(BACKGROUND_READ_PAUSE).await;
            drop(turn);
        });
        outcome
    }

    /// Does the same as [`Db::read`] on the calling thread, which must be allowed to block.
    ///
    /// # Errors
    /// Those of [`Db::read`].
    pub(crate) fn read_now<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.try_read_now(work)
    }

    fn try_read_now<T, E: TransactionError>(
        &self,
        work: impl FnOnce(&Connection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let reader = self.inner.readers.get()?;
        let connection = reader.connection()?;
        let _reading = self.inner.reading.enter();
        let started = std::time::Instant::now();
        let counts = Arc::clone(self.inner.writer.counts());
        let is_late = move || {
            let most = if counts.wal_marks() >= WAL_BOUND { READ_DEADLINE_LARGE } else { READ_DEADLINE };
            started.elapsed() > most
        };
        connection.progress_handler(10_000, Some(is_late)).map_err(Error::from)?;
        // All statements see one state, and the locks of the WAL are taken once instead of for each of them.
        let snapshot = connection.unchecked_transaction().map_err(Error::from)?;
        work(&snapshot)
    }

    /// Returns a number that changes whenever a domain may have changed its owner or status.
    pub(crate) fn domains_version(&self) -> u64 {
        self.inner.changes.domains_version()
    }

    /// Returns a number that changes whenever a route or a blocked sender of the account may have changed.
    pub fn routes_version(&self, account: AccountRowId) -> u64 {
        self.inner.changes.routes_version(account)
    }

    /// Returns the number of commits that the writer has made, and of those with an fsync.
    pub(crate) fn commits(&self) -> (u64, u64) {
        self.inner.writer.commits()
    }

    /// Returns the switch that makes commits fail, for tests.
    pub fn faults(&self) -> &writer::faults::Faults {
        self.inner.writer.faults()
    }

    /// Receives the failure of storage: from then on nothing is accepted, and the process should end.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<Failure>> {
        self.inner.writer.failure()
    }

    /// Returns true while the writer accepts work.
    pub(crate) fn is_healthy(&self) -> bool {
        self.inner.writer.failure().borrow().is_none()
    }

    /// Moves everything committed into the database file, so that it is complete without its WAL: the last step of an
    /// orderly shutdown. Nothing is lost without it either; the next start reads the WAL.
    ///
    /// # Errors
    /// Somebody still reads. After a storage failure the WAL stays as it is.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        self.inner.mark.raise_next();
        // If there is no room for it, the mark keeps its earlier content.
        drop(self.write(|_| Ok(())).await);
        if !self.is_healthy() {
            return Err(Error::Stopped);
        }
        let path = self.inner.path.clone();
        let mark = Arc::clone(&self.inner.mark);
        let settled = tokio::task::spawn_blocking(move || {
            let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            keep_wal(&connection)?;
            connection.busy_timeout(SETTLE_MAX)?;
            let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            if busy {
                return Err(Error::Busy);
            }
            mark.seal();
            Ok(())
        });
        settled.await.unwrap_or(Err(Error::Stopped))
    }

    /// Ends the writer, and returns once its threads have closed the database, so that it can be opened again in this
    /// process. Otherwise they close it a moment after the last clone is dropped.
    pub async fn close(self) {
        // If the runtime ends meanwhile, the threads end with the process.
        drop(tokio::task::spawn_blocking(move || self.inner.writer.end()).await);
    }

    /// Returns the path of the database file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

fn open_writer(data_dir: &Path, path: &Path, evidence: &Evidence) -> Result<Connection> {
    let mut connection = Connection::open(path)?;
    keep_wal(&connection)?;
    evidence.check(data_dir, Some(&connection))?;
    migrate::run(&mut connection, path)?;
    configure_writer(&connection)?;
    Ok(connection)
}

/// Returns a number that changes whenever another connection than this one has committed.
pub(crate) fn data_version(connection: &Connection) -> Result<i64> {
    Ok(connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
}

/// Formats row ids as a parameter of `json_each`, which is how a statement takes a list.
fn id_list<K>(ids: &[crate::id::RowId<K>]) -> String {
    let ids: Vec<String> = ids.iter().map(crate::id::RowId::to_string).collect();
    format!("[{}]", ids.join(","))
}
