//! Commits that fail on purpose, at a chosen moment, for tests of unknown outcomes.
//!
//! Only a test that holds the [`Db`](crate::store::Db) arms it; otherwise it costs a commit one atomic load.

use std::sync::atomic::{AtomicU8, Ordering};

use rusqlite::ffi;

use super::Durability;

/// Moment at which a commit fails, and the resulting content of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// No frame could be written: the disk holds nothing.
    Before = 1,
    /// The fsync failed, and the frames never reached the disk.
    SyncLost = 2,
    /// The fsync failed, but the disk holds everything.
    SyncKept = 3,
    /// The fsync succeeded; the index of the WAL could not grow.
    After = 4,
    /// The fsync succeeded; the writer's thread ends before it answers.
    Panic = 5,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 5] = [Self::Before, Self::SyncLost, Self::SyncKept, Self::After, Self::Panic];

    /// Ends the open transaction as a COMMIT with this fault would.
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

/// Fault of the next commit that is fsynced, if one is armed.
#[derive(Debug, Default)]
pub struct Faults(AtomicU8);

impl Faults {
    /// Makes the next fsynced commit fail.
    pub fn arm(&self, fault: Fault) {
        self.0.store(fault as u8, Ordering::Release);
    }

    /// Returns true until the armed fault has occurred.
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
