//! Fsyncs of the WAL, on threads of their own, so that the next transactions run while the last are made durable.
//!
//! A commit has written its frames when it arrives here; an fsync of the file that begins after that covers it and all
//! before it. A checkpoint in between does no harm: SQLite fsyncs the WAL before it copies pages and the database
//! before the WAL is reset. Several fsyncs may run at once, each with its own descriptor, so that each gets the errors
//! of the file.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Maximum number of concurrent fsyncs.
pub(super) const MAX: usize = 6;
/// The same, for divisions.
pub(super) const MAX_U32: u32 = 6;
/// Stack size of a thread that only waits for the disk and answers.
const STACK: usize = 256 * 1024;

/// Called at the end of every commit: `true` is durable, `false` is not known to be.
pub(super) type Answers = Box<dyn FnOnce(bool) + Send>;

/// Listener for the end of each fsync and for the first failure.
pub(super) trait Listener: Send + Sync + 'static {
    /// Called after a successful fsync, with the numbers of the last durable commit and of the last of these that wrote
    /// anything, and with its duration.
    fn synced(&self, durable: u64, proven: u64, took: Duration);
    /// Called when one failed; nothing that waits can be trusted.
    fn failed(&self, error: &std::io::Error);
}

/// Commits whose fsync is running or about to run.
pub(super) struct Syncs {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    listener: Box<dyn Listener>,
}

#[derive(Default)]
struct State {
    /// Number of commits that need an fsync.
    committed: u64,
    /// Of these, the last that a started fsync covers …
    covered: u64,
    /// … and the last that is durable.
    durable: u64,
    /// Commits that wrote something and are not durable yet; `proven` is the last one that is.
    wrote: VecDeque<u64>,
    proven: u64,
    running: usize,
    /// In the order of the commits: the number that must be durable first, and the answers.
    waiting: VecDeque<(u64, Answers)>,
    /// Moving average of an fsync's duration.
    takes: Duration,
    failed: bool,
    ended: bool,
}

impl State {
    fn take_durable(&mut self) -> Vec<Answers> {
        while let Some(number) = self.wrote.pop_front_if(|number| *number <= self.durable) {
            self.proven = number;
        }
        let count = self.waiting.iter().take_while(|(needs, _)| *needs <= self.durable).count();
        self.waiting.drain(..count).map(|(_, answers)| answers).collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Syncs {
    /// Starts a thread for each of these descriptors of the WAL.
    ///
    /// # Errors
    /// Not a single thread can be started.
    pub(super) fn start(files: Vec<File>, listener: Box<dyn Listener>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), work: Condvar::new(), listener });
        let mut threads = Vec::new();
        let mut started = Err(std::io::Error::other("no descriptor of the WAL"));
        for file in files {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("wal-sync".to_owned()).stack_size(STACK);
            match thread.spawn(move || shared.run(&file)) {
                Ok(thread) => {
                    threads.push(thread);
                    started = Ok(());
                }
                Err(error) if started.is_err() => started = Err(error),
                // Fewer at a time are enough.
                Err(_) => break,
            }
        }
        started.map(|()| Self { shared, threads })
    }

    /// Takes over a commit; `answers` are called when it is durable or, without `sync`, when all before it are. Commits
    /// that need an fsync are numbered from 1.
    pub(super) fn commit(&self, sync: bool, wrote: bool, answers: Answers) {
        let mut state = self.shared.lock();
        state.committed += u64::from(sync);
        let number = state.committed;
        if state.failed || state.durable >= number {
            let durable = !state.failed;
            drop(state);
            return answers(durable);
        }
        state.waiting.push_back((number, answers));
        if sync && wrote {
            state.wrote.push_back(number);
        }
        drop(state);
        if sync {
            self.shared.work.notify_one();
        }
    }

    /// Returns the number of fsyncs running or about to run, and the duration of one.
    pub(super) fn load(&self) -> (usize, Duration) {
        let state = self.shared.lock();
        (state.running + usize::from(state.committed > state.covered), state.takes)
    }
}

impl Drop for Syncs {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.work.notify_all();
        // A thread that panicked has reported it itself.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    fn run(&self, file: &File) {
        let mut state = self.lock();
        loop {
            if state.committed == state.covered || state.failed {
                if state.ended {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let target = state.committed;
            state.covered = target;
            state.running += 1;
            drop(state);
            let begun = Instant::now();
            let synced = file.sync_data();
            let took = begun.elapsed();
            state = self.lock();
            state.running -= 1;
            let answers: Vec<Answers> = match &synced {
                Ok(()) if !state.failed => {
                    state.takes = if state.takes.is_zero() { took } else { (state.takes * 3 + took) / 4 };
                    state.durable = state.durable.max(target);
                    state.take_durable()
                }
                Ok(()) => Vec::new(),
                Err(_) => {
                    state.failed = true;
                    state.waiting.drain(..).map(|(_, answers)| answers).collect()
                }
            };
            let (durable, proven) = (state.durable, state.proven);
            drop(state);
            match &synced {
                Ok(()) => self.listener.synced(durable, proven, took),
                Err(error) => self.listener.failed(error),
            }
            answers.into_iter().for_each(|answer| answer(synced.is_ok()));
            state = self.lock();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Ends(Mutex<Sender<Option<u64>>>);

    impl Listener for Ends {
        fn synced(&self, durable: u64, _: u64, _: Duration) {
            self.0.lock().unwrap().send(Some(durable)).unwrap_or_default();
        }

        fn failed(&self, _: &std::io::Error) {
            self.0.lock().unwrap().send(None).unwrap_or_default();
        }
    }

    #[test]
    fn a_commit_without_an_fsync_of_its_own_waits_for_those_before_it() {
        let (ends, _ended) = channel();
        let file = tempfile::tempfile().unwrap();
        let syncs = Syncs::start(vec![file], Box::new(Ends(Mutex::new(ends)))).unwrap();
        let (said, hears) = channel();
        let answer = |name: &'static str| -> Answers {
            let said = said.clone();
            Box::new(move |durable| said.send((name, durable)).unwrap())
        };
        syncs.commit(false, false, answer("nothing is before it"));
        assert_eq!(hears.try_recv().unwrap(), ("nothing is before it", true));
        syncs.commit(true, true, answer("first"));
        syncs.commit(false, false, answer("second"));
        syncs.commit(true, true, answer("third"));
        let order: Vec<_> = (0..3).map(|_| hears.recv().unwrap()).collect();
        assert_eq!(order, [("first", true), ("second", true), ("third", true)]);
    }

    #[test]
    fn after_a_failed_fsync_nothing_is_durable_any_more() {
        let (ends, ended) = channel();
        // A pipe cannot be fsynced.
        let (pipe, _other) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(pipe));
        let syncs = Syncs::start(vec![file], Box::new(Ends(Mutex::new(ends)))).unwrap();
        let (said, hears) = channel();
        for sync in [true, false] {
            let said = said.clone();
            syncs.commit(sync, true, Box::new(move |durable| said.send(durable).unwrap()));
            assert!(!hears.recv().unwrap());
        }
        assert_eq!(ended.recv().unwrap(), None);
    }
}
