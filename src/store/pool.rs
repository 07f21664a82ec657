//! The connections that read: a few at most, opened when they are needed, closed when they have had nothing to do for
//! a while. It has no thread of its own: whoever comes or goes closes what is idle.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::{Error, Result, configure_reader};

const MOST: usize = 6;
/// How long a reader that has nothing to do keeps its connection, and with it what is in its cache. One stays.
const IDLE: Duration = Duration::from_secs(30);
/// How long anybody waits for a reader.
const WAIT: Duration = Duration::from_secs(10);
/// Between two tries to open one, such as without a descriptor to be had.
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
    /// Of all, those in use included.
    open: usize,
}

/// A connection in use, which goes back with this value.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Option<Connection>,
    readers: Arc<Readers>,
}

impl Readers {
    /// Opens the first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>> {
        let state = State { idle: vec![(connect(path)?, Instant::now())], open: 1 };
        Ok(Arc::new(Self { path: path.to_owned(), state: Mutex::new(state), returned: Condvar::new() }))
    }

    /// Takes one, and waits for it if need be. Blocks.
    ///
    /// # Errors
    /// [`Error::Busy`], or why none could be opened in all that time.
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
        // A transaction that did not end would read the state of then for ever.
        if connection.is_autocommit() {
            state.idle.push((connection, now));
        } else {
            closed.push(connection);
        }
        // Those that wait longest are in front.
        while state.idle.len() > 1 && state.idle.first().is_some_and(|(_, since)| now.duration_since(*since) > IDLE) {
            closed.push(state.idle.remove(0).0);
        }
        state.open -= closed.len();
        drop(state);
        self.returned.notify_one();
    }
}

impl Reader {
    /// The connection.
    ///
    /// # Errors
    /// [`Error::Stopped`] once it was given back.
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
        // One that is left in a transaction is not used again.
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
