//! Room reserved for a full disk, so that removals can be written when nothing else can.
//!
//! A file of some MiB lies beside the database. Before the disk is full the writer frees its room and refuses
//! transactions that add content, until there is room for the file again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

const FILE_NAME: &str = "mailkite.reserve";
/// Its size is this share of the disk …
const SHARE: u64 = 16;
/// … within these bounds.
const SIZE_MIN: u64 = 256 << 10;
const SIZE_MAX: u64 = 4 << 20;
/// With less free room than this the disk counts as full: one batch of transactions may need as much.
const LOW: u64 = 1 << 20;

/// The reserve of a data directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    size: u64,
    spent: AtomicBool,
}

impl Reserve {
    /// Allocates the reserve, as far as there is room.
    pub(crate) fn open(data_dir: &Path) -> Self {
        let total = rustix::fs::statvfs(data_dir).map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
        let size = (total / SHARE).clamp(SIZE_MIN, SIZE_MAX);
        let reserve = Self { path: data_dir.join(FILE_NAME), size, spent: AtomicBool::new(false) };
        reserve.lay_in();
        reserve.check_free_space();
        reserve
    }

    /// Returns true if the disk is full and the reserve was freed: nothing may be added.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire)
    }

    /// Returns true if it was freed and little of it is left.
    pub(crate) fn is_nearly_used(&self) -> bool {
        self.is_spent() && self.free() < self.size / 4
    }

    /// Frees the reserve if the disk is about to be full.
    pub(crate) fn check_free_space(&self) {
        if !self.is_spent() && self.free() < LOW {
            self.spend();
        }
    }

    /// Frees the reserve because a write found no room.
    pub(crate) fn spend(&self) {
        if self.spent.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::warn!("the disk is full: nothing new is taken until there is room; what removes goes on");
        if let Err(error) = OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(0)) {
            tracing::warn!(%error, path = %self.path.display(), "the reserve for a full disk could not be given back");
        }
    }

    /// Allocates it again once there is room for it and more.
    pub(crate) fn restore(&self) {
        if self.is_spent() && self.free() >= self.size.saturating_add(2 * LOW) {
            self.lay_in();
            if !self.is_spent() {
                tracing::info!("there is room again");
            }
        }
    }

    fn lay_in(&self) {
        let full = match self.allocate() {
            Ok(()) => false,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOSPC | Errno::DQUOT) => true,
                // Continue without one, on a file system that cannot allocate, or under a file size limit of the
                // process.
                _ => {
                    tracing::debug!(%error, path = %self.path.display(), "no room is reserved for a full disk");
                    false
                }
            },
        };
        self.spent.store(full, Ordering::Release);
    }

    fn allocate(&self) -> std::io::Result<()> {
        let file: File = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        let found = file.metadata()?;
        if found.len() == self.size && found.blocks().saturating_mul(512) >= self.size {
            return Ok(());
        }
        file.set_len(0)?;
        let allocated = fallocate(&file, FallocateFlags::empty(), 0, self.size);
        if allocated.is_err() {
            // Some file systems keep the part that they could allocate, which is all that is left of a full disk.
            file.set_len(0)?;
        }
        Ok(allocated?)
    }

    fn free(&self) -> u64 {
        // Free room of the folder's file system: somebody may have removed the file.
        let folder = self.path.parent().unwrap_or(&self.path);
        rustix::fs::statvfs(folder).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn its_room_is_taken_given_back_and_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(dir.path());
        let length = || std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().len();
        assert!(!reserve.is_spent() && (SIZE_MIN..=SIZE_MAX).contains(&length()));
        reserve.spend();
        assert!(reserve.is_spent() && length() == 0);
        reserve.restore();
        assert!(!reserve.is_spent() && length() > 0, "this disk has room");
    }
}
