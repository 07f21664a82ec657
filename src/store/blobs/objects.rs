//! Mail data and uploads on local disk: files are written, fsynced and renamed into place, and their folder is fsynced.
//!
//! A file is written as a [`PendingObject`] under `tmp/`; [`Objects::commit`] makes it an object under the day's
//! folder. Rows name objects, never the reverse: an object without a row was orphaned by a crash and is removed by the
//! sweep. A row also holds the length and the checksum of its object, and every reader compares them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::histogram::Histogram;
use rustix::fs::OFlags;

use super::awaited::{AwaitedNames, Hold};
use super::pending::{PendingObject, read_whole};
use crate::clock::Timestamp;
use crate::metrics::buckets;
use crate::store::{Error, Result};

const FOLDER: &str = "objects";
const PENDING: &str = "tmp";
/// Folder for files that no row names and whose removal nobody has approved.
const ORPHANED: &str = "orphaned";
/// Octets per read when an object is checked without being kept in memory.
const PIECE: usize = 64 * 1024;
/// Maximum number of damaged objects that are remembered, so that each is reported once.
const DAMAGED_MAX: usize = 10_000;

/// An object as recorded in its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) name: String,
    pub(crate) size: u64,
    /// CRC-32 computed while writing; `None` for an object of an earlier version.
    pub(crate) checksum: Option<u32>,
}

/// Way in which an object differs from its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The file does not exist.
    Missing,
    /// Its length differs: this is the actual one.
    Length(u64),
    /// The length is right, but the content differs.
    Content,
    /// The name is not a regular file but a folder, a pipe or a device.
    NoFile,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Length(length) => write!(f, "of another length ({length} octets)"),
            Self::Content => f.write_str("changed (its checksum differs)"),
            Self::NoFile => f.write_str("no file any more"),
        }
    }
}

/// Objects that readers found damaged.
#[derive(Debug, Default)]
struct Damaged {
    /// Not reported yet; a missing one may have been removed together with its row a moment ago.
    suspected: BTreeMap<String, Damage>,
    /// Already reported.
    known: BTreeMap<String, Damage>,
}

/// The object store of a data directory; clones share it.
#[derive(Clone, Debug)]
pub struct Objects {
    root: Arc<PathBuf>,
    /// The latest day whose folder is known to be durable.
    day: Arc<Mutex<String>>,
    /// Fsyncs of objects and of their folders since the start.
    fsyncs: Arc<AtomicU64>,
    /// Durations of these fsyncs, of an object together with its folder.
    fsync_times: Histogram,
    opened: Instant,
    /// Files without a row that the sweep left in place because there are too many of them.
    held_back: Arc<AtomicU64>,
    damaged: Arc<Mutex<Damaged>>,
    /// Objects that a running transaction may name.
    awaited: AwaitedNames,
}

impl Objects {
    /// Opens or creates the object store of a data directory and removes pending objects of an earlier process.
    ///
    /// # Errors
    /// A folder cannot be created or read.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let root = data_dir.join(FOLDER);
        make_folder(&root.join(PENDING))?;
        let objects = Self {
            root: Arc::new(root),
            day: Arc::default(),
            fsyncs: Arc::default(),
            fsync_times: fsync_times(),
            opened: Instant::now(),
            held_back: Arc::default(),
            damaged: Arc::default(),
            awaited: AwaitedNames::default(),
        };
        objects.clear_drafts()?;
        sync_folder(&objects.root)?;
        sync_folder(data_dir)?;
        Ok(objects)
    }

    /// Opens the object store of a data directory for reading only: nothing is created or removed.
    pub(crate) fn open_read_only(data_dir: &Path) -> Self {
        Self {
            root: Arc::new(data_dir.join(FOLDER)),
            day: Arc::default(),
            fsyncs: Arc::default(),
            fsync_times: fsync_times(),
            opened: Instant::now(),
            held_back: Arc::default(),
            damaged: Arc::default(),
            awaited: AwaitedNames::default(),
        }
    }

    fn clear_drafts(&self) -> Result<()> {
        let folder = self.root.join(PENDING);
        let entries = fs::read_dir(&folder).map_err(|error| Error::io(folder.display().to_string(), error))?;
        for entry in entries.flatten() {
            fs::remove_file(entry.path()).map_err(|error| Error::io("removing an old draft", error))?;
        }
        Ok(())
    }

    /// Creates an empty pending object. Blocks.
    ///
    /// # Errors
    /// The disk or its inodes are full, or the disk fails.
    pub(crate) fn create(&self) -> Result<PendingObject> {
        PendingObject::create(self.root.join(PENDING).join(crate::id::random_base62(20)))
    }

    /// Makes a pending object the durable object of this file name in the folder of the day. Blocks until both fsyncs
    /// are done.
    ///
    /// # Errors
    /// The disk is full or fails; then no row may name what is left.
    pub(super) fn place(&self, draft: PendingObject, file_name: &str, now: Timestamp) -> Result<(Object, Hold)> {
        let day: String = now.iso().chars().take(10).collect();
        let folder = self.root.join(&day);
        self.make_day(&day, &folder)?;
        let name = format!("{day}/{file_name}");
        let hold = self.awaited.hold(&name);
        let begun = Instant::now();
        let (size, checksum) = draft.move_to(&self.root.join(&name))?;
        sync_folder(&folder)?;
        self.fsync_times.observe(begun.elapsed().as_secs_f64());
        self.fsyncs.fetch_add(2, Ordering::Relaxed);
        Ok((Object { name, size, checksum: Some(checksum) }, hold))
    }

    /// Returns the number of fsyncs of objects and their folders since the start.
    pub fn fsyncs(&self) -> u64 {
        self.fsyncs.load(Ordering::Relaxed)
    }

    /// Returns the durations of these fsyncs.
    pub(crate) const fn fsync_times(&self) -> &Histogram {
        &self.fsync_times
    }

    /// Creates the day's folder; a second caller at midnight waits here until the folder itself is durable.
    fn make_day(&self, day: &str, folder: &Path) -> Result<()> {
        let mut known = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != day || !folder.exists() {
            make_folder(folder)?;
            sync_folder(&self.root)?;
            day.clone_into(&mut known);
        }
        Ok(())
    }

    /// Opens an object for reading and compares its length. Blocks.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is missing or has another length; any other error says nothing about the object.
    pub(crate) fn open_object(&self, object: &Object) -> Result<File> {
        let io = |error| Error::io(format!("opening object {}", object.name), error);
        let path = self.root.join(&object.name);
        // Opening a pipe must not wait for its other end.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.damaged(object, Damage::Missing)),
            Err(_) if fs::metadata(&path).is_ok_and(|found| !found.is_file()) => {
                return Err(self.damaged(object, Damage::NoFile));
            }
            Err(error) => return Err(io(error)),
        };
        let found = file.metadata().map_err(io)?;
        if !found.is_file() {
            return Err(self.damaged(object, Damage::NoFile));
        }
        if found.len() == object.size { Ok(file) } else { Err(self.damaged(object, Damage::Length(found.len()))) }
    }

    /// Reads an object into memory and compares its length and checksum. Blocks.
    ///
    /// # Errors
    /// Those of [`Objects::open_object`]; [`Error::Damaged`] also when the checksum differs.
    pub(crate) fn read_all(&self, object: &Object) -> Result<Vec<u8>> {
        let mut file = self.open_object(object)?;
        let read = read_whole(&mut file, object.size);
        let bytes = read.map_err(|error| Error::io(format!("reading object {}", object.name), error))?;
        self.compare(object, bytes.len() as u64, crc32fast::hash(&bytes))?;
        Ok(bytes)
    }

    /// Reads an object without keeping it in memory and compares its length and checksum. Blocks.
    ///
    /// # Errors
    /// Those of [`Objects::read_all`].
    pub(crate) fn check(&self, object: &Object) -> Result<()> {
        let mut file = self.open_object(object)?;
        if object.checksum.is_none() {
            return Ok(());
        }
        let (mut length, mut checksum) = (0, crc32fast::Hasher::new());
        let mut piece = vec![0; PIECE];
        loop {
            let count = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io(format!("reading object {}", object.name), error)),
            };
            length += count as u64;
            checksum.update(piece.get(..count).unwrap_or_default());
        }
        self.compare(object, length, checksum.finalize())
    }

    fn compare(&self, object: &Object, length: u64, checksum: u32) -> Result<()> {
        if length != object.size {
            return Err(self.damaged(object, Damage::Length(length)));
        }
        match object.checksum {
            Some(made) if made != checksum => Err(self.damaged(object, Damage::Content)),
            _ => Ok(()),
        }
    }

    /// Returns true if the file exists, whatever its content. Blocks.
    pub(crate) fn exists(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }

    /// Remembers an object that a reader found damaged.
    fn damaged(&self, object: &Object, what: Damage) -> Error {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if !damaged.known.contains_key(&object.name) && damaged.suspected.len() < DAMAGED_MAX {
            damaged.suspected.insert(object.name.clone(), what);
        }
        Error::Damaged { name: object.name.clone(), what }
    }

    /// Returns the objects that readers found damaged since the last call. An object removed with its row during a read
    /// is among them: check that a row still names it, then call [`Objects::confirm`].
    pub(crate) fn take_suspected(&self) -> Vec<(String, Damage)> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut damaged.suspected).into_iter().collect()
    }

    /// Counts a damaged object; returns true if it was not known before.
    pub(crate) fn confirm(&self, name: String, what: Damage) -> bool {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.known.len() < DAMAGED_MAX && damaged.known.insert(name, what).is_none()
    }

    /// Returns the number of objects found damaged since the start that are still known.
    pub(crate) fn damaged_count(&self) -> u64 {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).known.len() as u64
    }

    /// Returns true if a running transaction may name this object.
    pub(crate) fn is_awaited(&self, name: &str) -> bool {
        self.awaited.contains(name)
    }

    /// Removes an object that no row names any more, once the commit that removed the row is durable; no error if it is
    /// missing. Blocks.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing object {name}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Lists every object on disk, and removes folders that are empty and older than `age`. Blocks.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub(crate) fn list(&self, age: Duration) -> Result<Vec<ListedObject>> {
        let read = |path: &Path| fs::read_dir(path).map_err(|error| Error::io(path.display().to_string(), error));
        let modified = |entry: &fs::DirEntry| entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let mut found = Vec::new();
        if !self.root.exists() {
            return Ok(found);
        }
        for day in read(&self.root)?.flatten() {
            let day_name = day.file_name().to_string_lossy().into_owned();
            if matches!(day_name.as_str(), PENDING | ORPHANED) {
                continue;
            }
            let mut empty = true;
            for entry in read(&day.path())?.flatten() {
                empty = false;
                let name = format!("{day_name}/{}", entry.file_name().to_string_lossy());
                found.push(ListedObject { name, modified: modified(&entry) });
            }
            if empty && age_of(modified(&day)) > age {
                // No longer empty, or gone: neither matters.
                drop(fs::remove_dir(day.path()));
            }
        }
        Ok(found)
    }

    /// Returns true if a file existed before this process opened the store: this process never knew its owner.
    pub(crate) fn is_inherited(&self, found: &ListedObject) -> bool {
        age_of(found.modified) > self.opened.elapsed()
    }

    /// Sets the number of files without a row that were left in place; returns true if it changed.
    pub(crate) fn keep_orphan(&self, count: u64) -> bool {
        self.held_back.swap(count, Ordering::Relaxed) != count
    }

    /// Returns the number of files without a row that were left in place.
    pub fn kept_orphans(&self) -> u64 {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Moves an object to a folder that no sweep reads. Blocks.
    ///
    /// # Errors
    /// It cannot be moved.
    pub(crate) fn set_aside(&self, name: &str) -> Result<()> {
        let from = self.root.join(name);
        let to = self.root.join(ORPHANED).join(name);
        let io = |error| Error::io(format!("moving object {name} aside"), error);
        if let Some(folder) = to.parent() {
            make_folder(folder)?;
        }
        fs::rename(from, &to).map_err(io)
    }

    /// Returns the folder that [`Objects::set_aside`] moves objects to.
    pub(crate) fn aside(&self) -> PathBuf {
        self.root.join(ORPHANED)
    }
}

/// A file of the object store.
#[derive(Clone, Debug)]
pub(crate) struct ListedObject {
    pub(crate) name: String,
    /// Time of the last write by the system's clock, whatever the engine's clock says; `None` if it was removed
    /// meanwhile.
    modified: Option<SystemTime>,
}

impl ListedObject {
    /// Returns true if it was last written more than `age` ago.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        age_of(self.modified) > age
    }
}

/// Returns the age; zero for a file that is gone or dated in the future.
fn fsync_times() -> Histogram {
    Histogram::new(buckets::FSYNC.iter().copied())
}

fn age_of(modified: Option<SystemTime>) -> Duration {
    modified.and_then(|at| at.elapsed().ok()).unwrap_or_default()
}

fn make_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::io(format!("making {}", path.display()), error))
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| Error::io(format!("syncing {}", path.display()), error))
}
