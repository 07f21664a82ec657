//! The objects of a backup: linked where the file system allows it, else taken from an earlier backup, else copied.
//!
//! An object's file is written once, under a name that no other object ever has, and later only removed. So a link to
//! it never changes, and a file of the same name and length in an earlier backup is the same object.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};

use super::folder;
use crate::store;
use crate::store::Connection;
use crate::store::audit::{self, Table};
use crate::store::blobs::objects::{Object, Objects};

const FOLDER: &str = "objects";
/// Rows read per statement.
pub(super) const STEP: u32 = 1_000;
const PIECE: usize = 256 * 1024;
/// Octets copied between two fsyncs of the file system, so that the kernel never holds much to write at once.
const SYNC_EVERY: u64 = 256 << 20;

/// The way an object came into a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It was there already.
    Present,
    /// A link to the file in the data directory.
    Linked,
    /// A link to the file in an earlier backup.
    Reused,
    Copied,
    /// It is missing or damaged in the data directory, and in no earlier backup.
    Damaged,
}

/// Counts of objects by [`Added`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) linked: u64,
    pub(super) reused: u64,
    pub(super) copied: u64,
    pub(super) copied_bytes: u64,
}

impl Counts {
    pub(super) const fn total(&self) -> u64 {
        self.linked + self.reused + self.copied
    }
}

/// The objects of a backup that is being made.
#[derive(Debug)]
pub(super) struct Collection {
    objects: Objects,
    source: PathBuf,
    target: PathBuf,
    earlier: Option<PathBuf>,
    /// False once the file system refused a link: it is another one, or has no links.
    links: bool,
    folders: BTreeSet<PathBuf>,
    pub(super) counts: Counts,
    unsynced: u64,
}

impl Collection {
    /// Begins with no objects; `earlier` is a whole backup on the same file system.
    pub(super) fn new(data_dir: &Path, partial: &Path, earlier: Option<&Path>) -> anyhow::Result<Self> {
        let target = partial.join(FOLDER);
        make_folder(&target)?;
        Ok(Self {
            objects: Objects::open_read_only(data_dir),
            source: data_dir.join(FOLDER),
            links: can_link(data_dir, &target),
            target,
            earlier: earlier.map(|earlier| earlier.join(FOLDER)),
            folders: BTreeSet::new(),
            counts: Counts::default(),
            unsynced: 0,
        })
    }

    /// Returns the octets of the objects that will have to be copied.
    pub(super) fn missing_bytes(&self, connection: &Connection) -> store::Result<u64> {
        if self.links {
            return Ok(0);
        }
        let mut bytes = 0;
        for table in [Table::Mail, Table::Uploads] {
            for_each_object(connection, table, 0, |object| {
                bytes += if self.earlier(object).is_some() { 0 } else { object.size };
                Ok::<_, store::Error>(())
            })?;
        }
        Ok(bytes)
    }

    /// Adds an object.
    ///
    /// # Errors
    /// The backup cannot be written; a fault of the object itself is no error.
    pub(super) fn add(&mut self, object: &Object) -> anyhow::Result<Added> {
        check_name(object)?;
        let to = self.target.join(&object.name);
        if is_whole(&to, object) {
            return Ok(Added::Present);
        }
        self.make_parent(&to)?;
        let added = self.place(object, &to)?;
        match added {
            Added::Linked => self.counts.linked += 1,
            Added::Reused => self.counts.reused += 1,
            Added::Copied => self.counts.copied += 1,
            Added::Present | Added::Damaged => {}
        }
        Ok(added)
    }

    fn place(&mut self, object: &Object, to: &Path) -> anyhow::Result<Added> {
        let from = self.source.join(&object.name);
        if self.links && is_whole(&from, object) {
            match fs::hard_link(&from, to) {
                Ok(()) => return Ok(Added::Linked),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // This file has as many links as it may have; others do not.
                Err(error) if error.kind() == ErrorKind::TooManyLinks => {}
                Err(_) => self.links = false,
            }
        }
        if let Some(earlier) = self.earlier(object)
            && fs::hard_link(&earlier, to).is_ok()
        {
            return Ok(Added::Reused);
        }
        self.copy(object, to)
    }

    fn copy(&mut self, object: &Object, to: &Path) -> anyhow::Result<Added> {
        let mut source = match self.objects.open_object(object) {
            Err(store::Error::Damaged { .. }) => return Ok(Added::Damaged),
            opened => opened?,
        };
        let reading = || format!("reading object {}", object.name);
        let writing = || format!("writing {}", to.display());
        let mut file = folder::create(to)?;
        let (mut length, mut sum) = (0, crc32fast::Hasher::new());
        let mut piece = vec![0; PIECE];
        loop {
            let count = source.read(&mut piece).with_context(reading)?;
            let read = piece.get(..count).unwrap_or_default();
            if read.is_empty() {
                break;
            }
            sum.update(read);
            length += count as u64;
            file.write_all(read).with_context(writing)?;
        }
        let differs = object.checksum.is_some_and(|made| made != sum.finalize());
        if length != object.size || differs {
            fs::remove_file(to).with_context(writing)?;
            return Ok(Added::Damaged);
        }
        self.counts.copied_bytes += length;
        self.unsynced += length;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            rustix::fs::syncfs(&file).with_context(writing)?;
        }
        Ok(Added::Copied)
    }

    fn earlier(&self, object: &Object) -> Option<PathBuf> {
        let path = self.earlier.as_ref()?.join(&object.name);
        is_whole(&path, object).then_some(path)
    }

    fn make_parent(&mut self, path: &Path) -> anyhow::Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if !self.folders.contains(parent) {
            make_folder(parent)?;
            self.folders.insert(parent.to_owned());
        }
        Ok(())
    }

    /// Removes the objects that no row of the finished copy names: they were removed before it was made.
    pub(super) fn prune(&self, partial: &Path, connection: &Connection) -> store::Result<()> {
        let added = Objects::open_read_only(partial);
        for one in added.list(std::time::Duration::MAX)? {
            if !audit::names_object(connection, &one.name)? {
                added.remove(&one.name)?;
            }
        }
        Ok(())
    }
}

/// Calls `work` for each object that rows of a table name, by row id after `after`; returns the last row id.
pub(super) fn for_each_object<E: From<store::Error>>(
    connection: &Connection,
    table: Table,
    mut after: i64,
    mut work: impl FnMut(&Object) -> Result<(), E>,
) -> Result<i64, E> {
    loop {
        let rows = audit::list_objects(connection, table, after, STEP)?;
        let Some((last, _)) = rows.last() else { return Ok(after) };
        after = *last;
        for (_, object) in &rows {
            work(object)?;
        }
        if rows.len() < STEP as usize {
            return Ok(after);
        }
    }
}

/// Copies an object out of a backup into a data directory.
pub(super) fn restore(backup: &Path, data_dir: &Path, object: &Object) -> anyhow::Result<()> {
    check_name(object)?;
    let to = data_dir.join(FOLDER).join(&object.name);
    let parent = to.parent().ok_or_else(|| anyhow!("{} has no folder", to.display()))?;
    make_folder(parent)?;
    let mut source = Objects::open_read_only(backup).open_object(object)?;
    let mut file: File = folder::create(&to)?;
    std::io::copy(&mut source, &mut file).with_context(|| format!("writing {}", to.display()))?;
    Ok(())
}

/// Refuses a name that leads out of the folder of the objects: none that a server gave does.
fn check_name(object: &Object) -> anyhow::Result<()> {
    if Path::new(&object.name).components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(());
    }
    bail!("{:?} is no name of an object; was the database changed?", object.name)
}

fn is_whole(path: &Path, object: &Object) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == object.size)
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("writing {}", path.display()))
}

/// Returns true if files of the data directory can be linked into the backup: two mounts of one file system cannot.
fn can_link(data_dir: &Path, target: &Path) -> bool {
    let probe = target.join("probe");
    let files = ["mailkite.lock", "mailkite.mark", "mailkite.reserve"].map(|name| data_dir.join(name));
    let Some(file) = files.iter().find(|file| file.exists()) else { return false };
    let linked = fs::hard_link(file, &probe).is_ok();
    linked && fs::remove_file(&probe).is_ok()
}
