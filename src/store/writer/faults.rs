//! Commits that fail on purpose, at a chosen moment: what the tests of unknown outcomes walk through.
//!
//! Nothing arms it but a test that holds the [`Db`](crate::store::Db); a commit asks one atomic.

use std::sync::atomic::{AtomicU8, Ordering};

use rusqlite::ffi;

use super::Durability;

/// When a commit fails, and what the disk holds then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// No frame could be written: the disk holds nothing.
    Before = 1,
    /// The fsync failed, and the frames never reached the disk.
    SyncLost = 2,
    /// The fsync failed, but the disk holds all of it.
    SyncKept = 3,
    /// The fsync was done; the index of the WAL could not grow.
    After = 4,
    /// The fsync was done; the writer's thread ends before it answers.
    Panic = 5,
}

impl Fault {
    /// Every one of them.
    pub const ALL: [Self; 5] = [Self::Before, Self::SyncLost, Self::SyncKept, Self::After, Self::Panic];

    /// Ends the open transaction as a COMMIT with this fault does.
    pub(crate) fn commit(self, execute: impl Fn(&str) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        let (statement, code) = match self {
            Self::Before => ("ROLLBACK", ffi::SQLITE_FULL),
            Self::SyncLost => ("ROLLBACK", ffi::SQLITE_IOERR_FSYNC),
            Self::SyncKept => ("COMMIT", ffi::SQLITE_IOERR_FSYNC),
            Self::After | Self::Panic => ("COMMIT", ffi::SQLITE_IOERR_SHMSIZE),
        };
        execute(statement)?;
        if self == Self::Panic {
            std::panic::resume_unwind(Box::new("a fault of a test"));
        }
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }
}

/// The fault of the next commit that is fsynced, if one is armed.
#[derive(Debug, Default)]
pub struct Faults(AtomicU8);

impl Faults {
    /// Makes the next commit fail that is fsynced.
    pub fn arm(&self, fault: Fault) {
        self.0.store(fault as u8, Ordering::Release);
    }

    /// Whether the fault that was armed has not come yet.
    pub fn is_armed(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    pub(crate) fn take(&self, durability: Durability) -> Option<Fault> {
        if self.0.load(Ordering::Relaxed) == 0 || durability != Durability::Power {
            return None;
        }
        let armed = self.0.swap(0, Ordering::AcqRel);
        Fault::ALL.into_iter().find(|fault| *fault as u8 == armed)
    }
}
