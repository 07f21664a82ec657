//! The data directory: created 0700, on a local file system, locked by the one process that uses it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const LOCK_NAME: &str = "mailkite.lock";
/// The content of the lock file once a database was made beside it.
const IN_USE: &[u8] = b"This data directory has a database. Without it nothing is started anew.\n";

/// File systems whose locks or shared memory SQLite's WAL cannot rely on, by the magic numbers of `statfs(2)`.
const NETWORK_FILE_SYSTEMS: &[(u32, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB2"),
    (0xff53_4d42, "CIFS"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x7461_636f, "OCFS2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0116_1970, "GFS2"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x786f_4256, "a VirtualBox shared folder"),
];
const FUSE: u32 = 0x6573_5546;
/// FUSE file systems that keep files on this machine; any other (sshfs, s3fs, glusterfs …) may be remote.
const LOCAL_FUSE: &[&str] = &["fuseblk", "virtiofs", "fuse.fuse-overlayfs", "fuse.gocryptfs"];

/// The reasons why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// The path is not a directory.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// Others have access.
    #[error("{path} is open to others (mode {mode:o}); it holds mail and keys, so run: chmod 700 {path}")]
    TooOpen { path: String, mode: u32 },
    /// It is on a network file system.
    #[error(
        "{path} is on {kind}: the database needs locks and fsync that network file systems do not \
        guarantee; use a local disk"
    )]
    Network {
        path: String,
        /// The kind of file system.
        kind: String,
    },
    /// It belongs to another user.
    #[error(
        "{path} belongs to user {owner}, but mailkite runs as user {user}; run it as that user: sudo -u '#{owner}' …"
    )]
    Foreign {
        path: String,
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// Another process uses it.
    #[error("{0} is in use by another mailkite process")]
    Locked(PathBuf),
    /// The database is gone.
    #[error(
        "{0} is missing or empty, although this data directory was in use; mailkite does not start anew over its \
         mail. Put the database back or restore a backup; to see what is left and start with it, run: mailkite recover"
    )]
    DatabaseLost(PathBuf),
    /// A system call failed.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
}

/// A data directory that this process has locked.
#[derive(Debug)]
pub(crate) struct DataDir {
    /// The lock is released with this value or the process, whichever ends first.
    lock: File,
    /// A lock on the directory itself, which cannot be removed unnoticed as the lock file can; `None` where the file
    /// system has no such locks.
    _directory: Option<File>,
}

impl DataDir {
    /// Creates the directory if necessary, checks it and locks it.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        if !path.exists() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| DataDirError::Io(format!("making {}", path.display()), error))?;
        }
        Self::inspect(path)?;
        check_owner(path)?;
        let directory = lock_directory(path)?;
        let lock = path.join(LOCK_NAME);
        let io = |error| DataDirError::Io(lock.display().to_string(), error);
        let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&lock).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { lock: file, _directory: directory }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// Refuses a database file that is missing or empty where there was one before.
    ///
    /// # Errors
    /// The database is lost.
    pub(crate) fn check_database(&self, file: &Path) -> Result<(), DataDirError> {
        check_not_lost(self.lock.metadata(), file)
    }

    /// Checks as [`DataDir::check_database`] does, without the lock.
    ///
    /// # Errors
    /// The database is lost.
    pub(crate) fn inspect_database(path: &Path, file: &Path) -> Result<(), DataDirError> {
        check_not_lost(fs::metadata(path.join(LOCK_NAME)), file)
    }

    /// Records that there is a database from now on.
    ///
    /// # Errors
    /// The lock file cannot be written.
    pub(crate) fn record_database(&self) -> Result<(), DataDirError> {
        let io = |error| DataDirError::Io(LOCK_NAME.to_owned(), error);
        if self.lock.metadata().map_err(io)?.len() == 0 {
            (&self.lock).write_all(IN_USE).and_then(|()| self.lock.sync_all()).map_err(io)?;
        }
        Ok(())
    }

    /// Records that there is no database any more, so that a new one may be made.
    ///
    /// # Errors
    /// The lock file cannot be written.
    pub(crate) fn forget_database(&self) -> Result<(), DataDirError> {
        let io = |error| DataDirError::Io(LOCK_NAME.to_owned(), error);
        self.lock.set_len(0).and_then(|()| self.lock.sync_all()).map_err(io)
    }

    /// Checks an existing directory without locking or changing it.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(crate) fn inspect(path: &Path) -> Result<(), DataDirError> {
        let metadata = fs::metadata(path).map_err(|error| DataDirError::Io(path.display().to_string(), error))?;
        if !metadata.is_dir() {
            return Err(DataDirError::NotADirectory(path.to_owned()));
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(DataDirError::TooOpen { path: path.display().to_string(), mode });
        }
        match network_file_system(path)? {
            Some(kind) => Err(DataDirError::Network { path: path.display().to_string(), kind }),
            None => Ok(()),
        }
    }

    /// Returns the free octets of the directory's file system.
    ///
    /// # Errors
    /// The system call fails.
    pub(crate) fn free_bytes(path: &Path) -> std::io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Returns true if the file system is not mounted read-only and reports some free space.
    pub(crate) fn has_room(path: &Path) -> bool {
        const MIN_FREE: u64 = 1 << 20;
        rustix::fs::statvfs(path).is_ok_and(|stat| {
            let writable = !stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
            writable && stat.f_bavail.saturating_mul(stat.f_frsize) >= MIN_FREE
        })
    }

    /// Returns the size of the directory's file system in octets.
    ///
    /// # Errors
    /// The system call fails.
    pub(crate) fn total_bytes(path: &Path) -> std::io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }
}

fn lock_directory(path: &Path) -> Result<Option<File>, DataDirError> {
    let directory =
        File::open(path).map_err(|error| DataDirError::Io(format!("opening {}", path.display()), error))?;
    match directory.try_lock() {
        Ok(()) => Ok(Some(directory)),
        Err(TryLockError::WouldBlock) => Err(DataDirError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "the file system cannot lock directories; the lock file alone has to do");
            Ok(None)
        }
    }
}

/// Fails when the lock file says that there was a database, and the file is missing or empty.
fn check_not_lost(lock: std::io::Result<fs::Metadata>, file: &Path) -> Result<(), DataDirError> {
    let length = |metadata: std::io::Result<fs::Metadata>| metadata.map_or(0, |metadata| metadata.len());
    let lost = length(lock) > 0 && length(fs::metadata(file)) == 0;
    if lost { Err(DataDirError::DatabaseLost(file.to_owned())) } else { Ok(()) }
}

/// Checks the owner: files that root makes in another user's directory would later be inaccessible to that user.
fn check_owner(path: &Path) -> Result<(), DataDirError> {
    let metadata = fs::metadata(path).map_err(|error| DataDirError::Io(path.display().to_string(), error))?;
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == user {
        return Ok(());
    }
    Err(DataDirError::Foreign { path: path.display().to_string(), owner, user })
}

/// Returns the kind of network file system that a directory is on, if any.
fn network_file_system(path: &Path) -> Result<Option<String>, DataDirError> {
    let io = |error| DataDirError::Io(path.display().to_string(), error);
    let stat = rustix::fs::statfs(path).map_err(|error| io(error.into()))?;
    // The field's type differs between architectures; its low 32 bits are the magic number everywhere.
    let magic = u32::try_from(stat.f_type & 0xffff_ffff).unwrap_or_default();
    if magic == FUSE {
        let device = fs::metadata(path).map_err(io)?.dev();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let kind = mounted_as(&mounts, device).unwrap_or("fuse").to_owned();
        return Ok((!LOCAL_FUSE.contains(&kind.as_str())).then(|| format!("FUSE ({kind})")));
    }
    let known = NETWORK_FILE_SYSTEMS.iter().find(|(number, _)| *number == magic);
    Ok(known.map(|(_, kind)| (*kind).to_owned()))
}

/// Returns the type of the file system on `device`, from the lines of proc_pid_mountinfo(5).
fn mounted_as(mounts: &str, device: u64) -> Option<&str> {
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&number))?;
    line.split_once(" - ")?.1.split(' ').next()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn one_process_alone_holds_a_data_directory() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let held = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Locked(_))));
        fs::remove_file(path.join(LOCK_NAME)).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Locked(_))), "its lock file was removed");
        drop(held);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_database_that_was_there_is_missed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let database = path.join("mailkite.db");
        let held = DataDir::open(&path).unwrap();
        held.check_database(&database).unwrap();
        fs::write(&database, "x").unwrap();
        held.record_database().unwrap();
        drop(held);
        let held = DataDir::open(&path).unwrap();
        held.check_database(&database).unwrap();
        fs::write(&database, "").unwrap();
        assert!(matches!(held.check_database(&database), Err(DataDirError::DatabaseLost(_))));
    }

    #[test]
    fn a_directory_that_others_read_is_refused_with_the_way_out() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = DataDir::open(parent.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn the_type_of_a_mount_is_found_by_its_device() {
        let mounts = "36 35 98:0 / /mnt1 rw,noatime master:1 - ext3 /dev/root rw\n\
                      57 35 0:48 / /home/me/far rw,nosuid - fuse.sshfs me@far:/ rw,user_id=1000\n";
        assert_eq!(mounted_as(mounts, rustix::fs::makedev(0, 48)), Some("fuse.sshfs"));
        assert_eq!(mounted_as(mounts, rustix::fs::makedev(98, 0)), Some("ext3"));
        assert_eq!(mounted_as(mounts, rustix::fs::makedev(1, 1)), None);
        let here = std::env::temp_dir();
        assert_eq!(network_file_system(&here).unwrap(), None, "{} is no place for tests", here.display());
    }
}
