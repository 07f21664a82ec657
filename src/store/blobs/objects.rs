//! Mail data and uploads on local disk: files that are written, fsynced, renamed into place, and their folder fsynced.
//!
//! A file is written as a draft under `tmp/`; [`Objects::commit`] makes it an object under the day's folder. Rows name
//! objects, never the other way round: an object without a row is a crash's orphan and goes in the sweep. A row also
//! knows the length and the checksum that its object had, and every reader compares.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::OFlags;

use super::uncommitted::{Names, UncommittedObject};
use crate::clock::Timestamp;
use crate::id::{MessageId, UploadId};
use crate::store::{Error, Result};

const FOLDER: &str = "objects";
const PENDING: &str = "tmp";
/// Files that no row names and that nobody has allowed to be removed.
const ORPHANED: &str = "orphaned";
/// Octets read at a time where an object is only looked through.
const PIECE: usize = 64 * 1024;
/// Names of damaged objects that are remembered, so that each is told of once.
const DAMAGED_MAX: usize = 10_000;

/// An object as its row knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// Its name.
    pub(crate) name: String,
    /// Octets.
    pub(crate) size: u64,
    /// CRC-32 of them, made while they were written; `None` of an object of an earlier version.
    pub(crate) checksum: Option<u32>,
}

/// In which way an object is not what its row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// There is no such file.
    Missing,
    /// It has another length: this one.
    Length(u64),
    /// It has the right length and other octets.
    Content,
    /// What stands in its place is no file: a folder, a pipe, a device.
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

/// Objects that a reader found damaged.
#[derive(Debug, Default)]
struct Damaged {
    /// Not told of yet; a missing one may have been removed together with its row a moment ago.
    suspected: BTreeMap<String, Damage>,
    /// Told of.
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
    opened: Instant,
    /// Files without a row that the sweep leaves where they are: too many of them.
    held_back: Arc<AtomicU64>,
    damaged: Arc<Mutex<Damaged>>,
    /// Objects that a transaction may come to name.
    placed: Names,
}

/// A file that is being written; it disappears with this value unless it is kept.
#[derive(Debug)]
pub(crate) struct PendingObject {
    file: File,
    path: PathBuf,
    length: u64,
    checksum: crc32fast::Hasher,
    kept: bool,
}

/// Mail data as it was received: small in memory, large in a draft.
#[derive(Debug)]
pub(crate) enum MailData {
    /// All of it.
    Memory(Vec<u8>),
    /// In a file of the object store, not yet fsynced.
    Spooled(PendingObject),
}

impl MailData {
    /// Octets as received.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Spooled(draft) => draft.length,
        }
    }
}

impl PendingObject {
    /// Adds to the end. Blocks.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("writing mail data", error))?;
        self.length += bytes.len() as u64;
        self.checksum.update(bytes);
        Ok(())
    }

    /// Octets written.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// All of it, in memory. Blocks.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn read_all(&mut self) -> Result<Vec<u8>> {
        let read = |draft: &mut Self| {
            draft.file.seek(SeekFrom::Start(0))?;
            read_whole(&mut draft.file, draft.length)
        };
        read(self).map_err(|error| Error::io("reading mail data back", error))
    }
}

impl Drop for PendingObject {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an abandoned draft was not removed");
        }
    }
}

impl Objects {
    /// Opens or creates the object store of a data directory and clears the drafts of an earlier process.
    ///
    /// # Errors
    /// A folder cannot be made or read.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let root = data_dir.join(FOLDER);
        make_folder(&root.join(PENDING))?;
        let objects = Self {
            root: Arc::new(root),
            day: Arc::default(),
            fsyncs: Arc::default(),
            opened: Instant::now(),
            held_back: Arc::default(),
            damaged: Arc::default(),
            placed: Names::default(),
        };
        objects.clear_drafts()?;
        sync_folder(&objects.root)?;
        sync_folder(data_dir)?;
        Ok(objects)
    }

    /// The object store of a data directory as it stands, for who only looks: nothing is made or cleared.
    pub(crate) fn open_read_only(data_dir: &Path) -> Self {
        Self {
            root: Arc::new(data_dir.join(FOLDER)),
            day: Arc::default(),
            fsyncs: Arc::default(),
            opened: Instant::now(),
            held_back: Arc::default(),
            damaged: Arc::default(),
            placed: Names::default(),
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

    /// A new, empty draft. Blocks.
    ///
    /// # Errors
    /// The disk or its inodes are full, or it fails.
    pub(crate) fn create(&self) -> Result<PendingObject> {
        let path = self.root.join(PENDING).join(crate::id::random_base62(20));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::io("making a file for mail data", error))?;
        Ok(PendingObject { file, path, length: 0, checksum: crc32fast::Hasher::new(), kept: false })
    }

    /// Makes a draft the durable object of a message. Blocks until both fsyncs are done.
    ///
    /// # Errors
    /// The disk is full or fails; no row may name what is left then.
    pub(crate) fn commit(&self, draft: PendingObject, id: &MessageId, now: Timestamp) -> Result<UncommittedObject> {
        self.place(draft, &format!("{id}.eml"), now)
    }

    /// Makes a draft the durable object of an upload, as [`Objects::commit`] does for a message.
    ///
    /// # Errors
    /// As for [`Objects::commit`].
    pub(crate) fn commit_upload(
        &self,
        draft: PendingObject,
        id: &UploadId,
        now: Timestamp,
    ) -> Result<UncommittedObject> {
        self.place(draft, &format!("{id}.bin"), now)
    }

    fn place(&self, mut draft: PendingObject, file_name: &str, now: Timestamp) -> Result<UncommittedObject> {
        let day: String = now.iso().chars().take(10).collect();
        let folder = self.root.join(&day);
        self.make_day(&day, &folder)?;
        let name = format!("{day}/{file_name}");
        let hold = self.placed.hold(&name);
        draft.file.sync_all().map_err(|error| Error::io("syncing mail data", error))?;
        fs::rename(&draft.path, self.root.join(&name)).map_err(|error| Error::io("placing mail data", error))?;
        draft.kept = true;
        sync_folder(&folder)?;
        self.fsyncs.fetch_add(2, Ordering::Relaxed);
        let object = Object { name, size: draft.length, checksum: Some(draft.checksum.clone().finalize()) };
        Ok(UncommittedObject::new(self.clone(), object, hold))
    }

    /// Fsyncs of objects and of their folders since the start.
    pub fn fsyncs(&self) -> u64 {
        self.fsyncs.load(Ordering::Relaxed)
    }

    /// Whoever comes second at midnight waits here until the folder itself is durable.
    fn make_day(&self, day: &str, folder: &Path) -> Result<()> {
        let mut known = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != day || !folder.exists() {
            make_folder(folder)?;
            sync_folder(&self.root)?;
            day.clone_into(&mut known);
        }
        Ok(())
    }

    /// Opens an object for reading, its length compared. Blocks.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is missing or has another length; anything else says nothing about the object.
    pub(crate) fn open_object(&self, object: &Object) -> Result<File> {
        let io = |error| Error::io(format!("opening object {}", object.name), error);
        let path = self.root.join(&object.name);
        // Nobody waits for the other end of a pipe.
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

    /// All of an object, in memory, length and checksum compared. Blocks.
    ///
    /// # Errors
    /// As for [`Objects::open_object`]; [`Error::Damaged`] also when its checksum differs.
    pub(crate) fn read_all(&self, object: &Object) -> Result<Vec<u8>> {
        let mut file = self.open_object(object)?;
        let read = read_whole(&mut file, object.size);
        let bytes = read.map_err(|error| Error::io(format!("reading object {}", object.name), error))?;
        self.compare(object, bytes.len() as u64, crc32fast::hash(&bytes))?;
        Ok(bytes)
    }

    /// Looks through a whole object without holding it; length and checksum compared. Blocks.
    ///
    /// # Errors
    /// As for [`Objects::read_all`].
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

    /// Whether the file is there, whatever is in it. Blocks.
    pub(crate) fn exists(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }

    /// Remembers that a reader met a damaged object.
    fn damaged(&self, object: &Object, what: Damage) -> Error {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if !damaged.known.contains_key(&object.name) && damaged.suspected.len() < DAMAGED_MAX {
            damaged.suspected.insert(object.name.clone(), what);
        }
        Error::Damaged { name: object.name.clone(), what }
    }

    /// The objects that readers found damaged since this was asked last. An object that was removed with its row while
    /// somebody read it is among them: ask whether a row still names it, then [`Objects::confirm`].
    pub(crate) fn take_suspected(&self) -> Vec<(String, Damage)> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut damaged.suspected).into_iter().collect()
    }

    /// Counts a damaged object; whether that is news.
    pub(crate) fn confirm(&self, name: String, what: Damage) -> bool {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.known.len() < DAMAGED_MAX && damaged.known.insert(name, what).is_none()
    }

    /// How many objects were found damaged since the start, and still are there to be asked for.
    pub(crate) fn damaged_count(&self) -> u64 {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).known.len() as u64
    }

    /// Whether a transaction under way may come to name this object.
    pub(crate) fn is_awaited(&self, name: &str) -> bool {
        self.placed.contains(name)
    }

    /// Removes an object that no row names any more, once the commit that says so is durable; a missing one is fine.
    /// Blocks.
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

    /// Every object that is on disk, and removes folders that are empty and older than `age`. Blocks.
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
                // Not empty any more, or gone: both are fine.
                drop(fs::remove_dir(day.path()));
            }
        }
        Ok(found)
    }

    /// Whether a file was there before this process opened the store: what it belongs to, this process never knew.
    pub(crate) fn is_inherited(&self, found: &ListedObject) -> bool {
        age_of(found.modified) > self.opened.elapsed()
    }

    /// Says how many files without a row were left where they are; whether that is news.
    pub(crate) fn keep_orphan(&self, count: u64) -> bool {
        self.held_back.swap(count, Ordering::Relaxed) != count
    }

    /// How many files without a row were left where they are.
    pub fn kept_orphans(&self) -> u64 {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Moves an object out of the way, where no sweep finds it. Blocks.
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

    /// Where [`Objects::set_aside`] puts them.
    pub(crate) fn aside(&self) -> PathBuf {
        self.root.join(ORPHANED)
    }
}

/// A file of the object store.
#[derive(Clone, Debug)]
pub(crate) struct ListedObject {
    /// The object's name.
    pub(crate) name: String,
    /// When it was last written, by the system's clock, whatever the engine's clock says; `None`: it went meanwhile.
    modified: Option<SystemTime>,
}

impl ListedObject {
    /// Whether it was last written more than `age` ago.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        age_of(self.modified) > age
    }
}

/// How long ago; not at all for what is gone or comes from the future.
fn age_of(modified: Option<SystemTime>) -> Duration {
    modified.and_then(|at| at.elapsed().ok()).unwrap_or_default()
}

fn read_whole(file: &mut File, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn make_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::io(format!("making {}", path.display()), error))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| Error::io(format!("syncing {}", path.display()), error))
}
