//! The read connections: a few at most, opened on demand and closed after some idle time. The pool has no thread of its
//! own: idle connections are closed whenever one is taken or returned.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::connection::configure_reader;
use super::{Error, Result};

const MOST: usize = 6;
/// Time after which an idle reader closes its connection and frees its cache. One stays open.
const IDLE: Duration = Duration::from_secs(30);
/// Maximum wait for a reader.
const WAIT: Duration = Duration::from_secs(10);
/// Delay between two attempts to open a connection, for example while no descriptor is free.
const RETRY: Duration = Duration::from_millis(50);

/// The readers of a database.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The last one used is the next to be used.
    idle: Vec<(Connection, Instant)>,
    /// Number of open connections, including those in use.
    open: usize,
}

/// A connection in use, returned to the pool when dropped.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Option<Connection>,
    readers: Arc<Readers>,
}

impl Readers {
    /// Opens the first connection.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>> {
        let state = State { idle: vec![(connect(path)?, Instant::now())], open: 1 };
        Ok(Arc::new(Self { path: path.to_owned(), state: Mutex::new(state), returned: Condvar::new() }))
    }

    /// Takes a connection, and waits for one if necessary. Blocks.
    ///
    /// # Errors
    /// [`Error::Busy`], or the reason why none could be opened in all that time.
    pub(super) fn get(self: &Arc<Self>) -> Result<Reader> {
        let (until, mut failed) = (Instant::now() + WAIT, Error::Busy);
        let mut state = self.lock();
        loop {
            let connection = match state.idle.pop() {
                Some((connection, _)) => Some(connection),
                None if state.open < MOST => {
                    state.open += 1;
                    drop(state);
                    let opened = connect(&self.path);
                    state = self.lock();
                    state.open -= usize::from(opened.is_err());
                    opened.map_err(|error| failed = error).ok()
                }
                None => None,
            };
            let left = until.saturating_duration_since(Instant::now());
            match connection {
                Some(connection) => {
                    return Ok(Reader { connection: Some(connection), readers: Arc::clone(self) });
                }
                None if left.is_zero() => return Err(failed),
                None => {
                    let wait = if state.open < MOST { left.min(RETRY) } else { left };
                    state = self.returned.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_back(&self, connection: Connection) {
        let now = Instant::now();
        let mut closed = Vec::new();
        let mut state = self.lock();
        // A transaction left open would keep reading its old state for ever.
        if connection.is_autocommit() {
            state.idle.push((connection, now));
        } else {
            closed.push(connection);
        }
        // Those idle longest are in front.
        while state.idle.len() > 1 && state.idle.first().is_some_and(|(_, since)| now.duration_since(*since) > IDLE) {
            closed.push(state.idle.remove(0).0);
        }
        state.open -= closed.len();
        drop(state);
        self.returned.notify_one();
    }
}

impl Reader {
    /// Returns the connection.
    ///
    /// # Errors
    /// [`Error::Stopped`] once it was returned to the pool.
    pub(super) fn connection(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or(Error::Stopped)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.connection.take().into_iter().for_each(|connection| self.readers.take_back(connection));
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    configure_reader(&mut connection)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn readers_are_few_and_go_when_they_have_nothing_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
        let readers = Readers::open(&path).unwrap();
        let mut taken: Vec<Reader> = (0..MOST).map(|_| readers.get().unwrap()).collect();
        let others = Arc::clone(&readers);
        let waiting = std::thread::spawn(move || others.get().is_ok());
        // A connection left in a transaction is not used again.
        taken.first().unwrap().connection().unwrap().execute_batch("BEGIN").unwrap();
        drop(taken.remove(0));
        assert!(waiting.join().unwrap(), "whoever waits gets the place of one that was given back");
        drop(taken);
        assert_eq!(readers.lock().open, MOST);
        let long_ago = Instant::now().checked_sub(IDLE * 2).unwrap();
        readers.lock().idle.iter_mut().for_each(|(_, since)| *since = long_ago);
        drop(readers.get().unwrap());
        let state = readers.lock();
        assert_eq!((state.open, state.idle.len()), (1, 1));
    }
}
