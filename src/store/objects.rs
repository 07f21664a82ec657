//! Mail data and uploads on local disk: files that are written, fsynced, renamed into place, and their folder fsynced.
//!
//! A file is written as a draft under `tmp/`; [`Objects::keep`] makes it an object under the day's folder. Rows name
//! objects, never the other way round: an object without a row is a crash's orphan and goes in the sweep.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Error, Result};
use crate::clock::Timestamp;
use crate::id::{MessageId, UploadId};
use crate::memory;

const FOLDER: &str = "objects";
const DRAFTS: &str = "tmp";

/// The object store of a data directory; clones share it.
#[derive(Clone, Debug)]
pub struct Objects {
    root: Arc<PathBuf>,
    /// The latest day whose folder is known to be durable.
    day: Arc<Mutex<String>>,
    /// Fsyncs of objects and of their folders since the start.
    fsyncs: Arc<AtomicU64>,
}

/// A file that is being written; it disappears with this value unless it is kept.
#[derive(Debug)]
pub struct Draft {
    file: File,
    path: PathBuf,
    length: u64,
    kept: bool,
}

/// Mail data as it was received: small in memory, large in a draft.
#[derive(Debug)]
pub enum MailData {
    /// All of it.
    Memory(Vec<u8>),
    /// In a file of the object store, not yet fsynced.
    Spooled(Draft),
}

impl MailData {
    /// Octets as received.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Spooled(draft) => draft.length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Draft {
    /// Adds to the end. Blocks.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("writing mail data", error))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Octets written.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All of it, in memory. Blocks.
    ///
    /// # Errors
    /// The disk fails.
    pub fn read_all(&mut self) -> Result<Vec<u8>> {
        let read = |draft: &mut Self| {
            draft.file.seek(SeekFrom::Start(0))?;
            read_whole(&mut draft.file, draft.length)
        };
        read(self).map_err(|error| Error::io("reading mail data back", error))
    }
}

impl Drop for Draft {
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
        make_folder(&root.join(DRAFTS))?;
        let objects = Self { root: Arc::new(root), day: Arc::default(), fsyncs: Arc::default() };
        objects.clear_drafts()?;
        sync_folder(&objects.root)?;
        sync_folder(data_dir)?;
        Ok(objects)
    }

    fn clear_drafts(&self) -> Result<()> {
        let folder = self.root.join(DRAFTS);
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
    pub fn draft(&self) -> Result<Draft> {
        let path = self.root.join(DRAFTS).join(crate::id::random_base62(20));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::io("making a file for mail data", error))?;
        Ok(Draft { file, path, length: 0, kept: false })
    }

    /// Makes a draft the durable object of a message and returns its name. Blocks until both fsyncs are done.
    ///
    /// # Errors
    /// The disk is full or fails; then there is no object.
    pub fn keep(&self, draft: Draft, id: &MessageId, now: Timestamp) -> Result<String> {
        self.place(draft, &format!("{id}.eml"), now)
    }

    /// Makes a draft the durable object of an upload, as [`Objects::keep`] does for a message.
    ///
    /// # Errors
    /// The disk is full or fails; then there is no object.
    pub fn keep_upload(&self, draft: Draft, id: &UploadId, now: Timestamp) -> Result<String> {
        self.place(draft, &format!("{id}.bin"), now)
    }

    fn place(&self, mut draft: Draft, file_name: &str, now: Timestamp) -> Result<String> {
        let day: String = now.iso().chars().take(10).collect();
        let folder = self.root.join(&day);
        self.make_day(&day, &folder)?;
        let name = format!("{day}/{file_name}");
        draft.file.sync_all().map_err(|error| Error::io("syncing mail data", error))?;
        fs::rename(&draft.path, self.root.join(&name)).map_err(|error| Error::io("placing mail data", error))?;
        draft.kept = true;
        sync_folder(&folder)?;
        self.fsyncs.fetch_add(2, Ordering::Relaxed);
        Ok(name)
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

    /// Opens an object for reading. Blocks.
    ///
    /// # Errors
    /// It is missing or cannot be read.
    pub fn open_object(&self, name: &str) -> Result<File> {
        File::open(self.root.join(name)).map_err(|error| Error::io(format!("opening object {name}"), error))
    }

    /// All of an object, in memory. Blocks.
    ///
    /// # Errors
    /// It is missing or cannot be read.
    pub fn read_all(&self, name: &str) -> Result<Vec<u8>> {
        let read = || {
            let mut file = File::open(self.root.join(name))?;
            let length = file.metadata()?.len();
            read_whole(&mut file, length)
        };
        read().map_err(|error| Error::io(format!("reading object {name}"), error))
    }

    /// Removes an object; a missing one is fine. Blocks.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing object {name}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Names of objects that were last written more than `age` ago, and removes folders that are empty. Blocks.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn list_older_than(&self, age: Duration) -> Result<Vec<String>> {
        let read = |path: &Path| fs::read_dir(path).map_err(|error| Error::io(path.display().to_string(), error));
        let limit = SystemTimeBefore::new(age);
        let mut names = Vec::new();
        for day in read(&self.root)?.flatten() {
            let day_name = day.file_name().to_string_lossy().into_owned();
            if day_name == DRAFTS {
                continue;
            }
            let mut empty = true;
            for entry in read(&day.path())?.flatten() {
                empty = false;
                if limit.is_past(&entry) {
                    names.push(format!("{day_name}/{}", entry.file_name().to_string_lossy()));
                }
            }
            if empty && limit.is_past(&day) {
                // Not empty any more, or gone: both are fine.
                drop(fs::remove_dir(day.path()));
            }
        }
        Ok(names)
    }
}

/// Compares file times, which come from the system's clock whatever the engine's clock says.
struct SystemTimeBefore(Duration);

impl SystemTimeBefore {
    const fn new(age: Duration) -> Self {
        Self(age)
    }

    fn is_past(&self, entry: &fs::DirEntry) -> bool {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        modified.is_ok_and(|at: SystemTime| at.elapsed().is_ok_and(|elapsed| elapsed > self.0))
    }
}

fn read_whole(file: &mut File, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(memory::returned(usize::try_from(length).unwrap_or(0)));
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

fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| Error::io(format!("syncing {}", path.display()), error))
}
