//! A backup's folder: its name, its manifest, and the folder of all backups.
//!
//! A backup is made under a temporary name and renamed once it is durable, so a folder that has a backup's name is
//! whole. The manifest has the checksum of the database; the database has those of the objects.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use data_encoding::HEXLOWER;
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::Timestamp;

const MANIFEST: &str = "manifest.json";
/// Name of the configuration in a backup.
pub(super) const CONFIG: &str = "mailkite.toml";
/// Version of the layout.
pub(super) const FORMAT: u32 = 1;
/// Begins the name of a folder that is being made or removed.
const PARTIAL: &str = ".partial-";
/// Form of a backup's name: `2026-07-28T000000.000Z`.
const NAME_FORM: &str = "dddd-dd-ddTdddddd.dddZ";
const PIECE: usize = 256 * 1024;

/// A file of a backup besides the objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListedFile {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// Contents of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// Version of the program that made it.
    pub(super) mailkite: String,
    pub(super) schema: i32,
    pub(super) created_at: String,
    pub(super) messages: u64,
    pub(super) objects: u64,
    pub(super) object_bytes: u64,
    pub(super) files: Vec<ListedFile>,
    /// Objects that were missing or damaged in the data directory itself.
    pub(super) damaged: Vec<String>,
    /// Objects that were removed, with the messages they belong to, while the backup was made.
    pub(super) removed_meanwhile: Vec<String>,
}

/// The manifest's file: the checksum is that of the text of `backup`.
#[derive(Deserialize)]
struct ManifestFile<'a> {
    sha256: String,
    #[serde(borrow)]
    backup: &'a RawValue,
}

impl Manifest {
    /// Writes and fsyncs the manifest of a backup.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let body = serde_json::to_string_pretty(self)?;
        let sum = HEXLOWER.encode(digest::digest(&digest::SHA256, body.as_bytes()).as_ref());
        let text = format!("{{\n\"sha256\": \"{sum}\",\n\"backup\": {body}\n}}\n");
        let path = folder.join(MANIFEST);
        let mut file = create(&path)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(|| writing(&path))
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// It is missing, damaged, or of a later version.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(MANIFEST);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let damaged = || format!("{} is damaged", path.display());
        let file: ManifestFile = serde_json::from_str(&text).with_context(damaged)?;
        let body = file.backup.get();
        if HEXLOWER.encode(digest::digest(&digest::SHA256, body.as_bytes()).as_ref()) != file.sha256 {
            bail!("{} was changed (its checksum differs)", path.display());
        }
        let manifest: Self = serde_json::from_str(body).with_context(damaged)?;
        if manifest.format > FORMAT {
            bail!("{} is of a newer mailkite (version {}); use that one", path.display(), manifest.mailkite);
        }
        Ok(manifest)
    }

    pub(super) fn file(&self, name: &str) -> Option<&ListedFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// The locked folder of all backups.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) path: PathBuf,
    /// The lock ends with it.
    folder: File,
}

impl Destination {
    /// Opens or creates the folder, locks it, and removes what interrupted backups left.
    ///
    /// # Errors
    /// It is in the data directory, is used by another backup, or cannot be written.
    pub(super) fn open(path: &Path, data_dir: &Path) -> anyhow::Result<Self> {
        let data_dir = data_dir.canonicalize().with_context(|| format!("reading {}", data_dir.display()))?;
        // Before it is created: the nearest folder that exists decides.
        let existing = path.ancestors().find(|one| one.exists()).unwrap_or(Path::new("."));
        let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
        if existing.canonicalize().with_context(|| format!("reading {}", existing.display()))?.starts_with(&data_dir)
        {
            bail!(
                "{} is in the data directory itself; name a folder outside of {}, best on another disk",
                path.display(),
                data_dir.display()
            );
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| writing(path))?;
        let path = path.canonicalize().with_context(|| format!("reading {}", path.display()))?;
        let folder = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        match folder.try_lock() {
            // A file system without locks: two backups at once would only use more room.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => bail!("another backup into {} is running", path.display()),
        }
        let destination = Self { path, folder };
        destination.remove_partial()?;
        Ok(destination)
    }

    /// Creates the folder of a backup under its temporary name.
    pub(super) fn begin(&self, now: Timestamp) -> anyhow::Result<(PathBuf, PathBuf)> {
        let name = now.iso().replace(':', "");
        let (partial, whole) = (self.path.join(format!("{PARTIAL}{name}")), self.path.join(name));
        if whole.exists() {
            bail!("{} exists already; is the clock right?", whole.display());
        }
        DirBuilder::new().mode(0o700).create(&partial).with_context(|| writing(&partial))?;
        Ok((partial, whole))
    }

    /// Makes a backup durable, then gives it its name.
    pub(super) fn finish(&self, partial: &Path, whole: &Path) -> anyhow::Result<()> {
        self.sync()?;
        fs::rename(partial, whole).with_context(|| writing(whole))?;
        self.folder.sync_all().with_context(|| writing(&self.path))
    }

    /// Fsyncs the whole file system: one call for all the objects and their folders.
    pub(super) fn sync(&self) -> anyhow::Result<()> {
        rustix::fs::syncfs(&self.folder).with_context(|| writing(&self.path))
    }

    /// Removes the oldest backups beyond `keep`, of which `new` is the latest; returns their number.
    pub(super) fn keep(&self, keep: usize, new: &Path) -> anyhow::Result<usize> {
        let all = list(&self.path)?;
        if let Some(last) = all.last().filter(|last| *last != new) {
            bail!(
                "{} has a later name than the new backup: is the clock right? No backup was removed",
                last.display()
            );
        }
        let old = all.get(..all.len().saturating_sub(keep)).unwrap_or_default();
        for one in old {
            let name = one.file_name().unwrap_or_default().to_string_lossy();
            // From here on it is no backup any more, however long its removal takes.
            let partial = self.path.join(format!("{PARTIAL}{name}"));
            fs::rename(one, &partial).and_then(|()| fs::remove_dir_all(&partial)).with_context(|| removing(one))?;
        }
        Ok(old.len())
    }

    fn remove_partial(&self) -> anyhow::Result<()> {
        for entry in fs::read_dir(&self.path).with_context(|| format!("reading {}", self.path.display()))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                fs::remove_dir_all(entry.path()).with_context(|| removing(&entry.path()))?;
            }
        }
        Ok(())
    }
}

/// Lists the backups in a folder, oldest first.
pub(super) fn list(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?.flatten() {
        if is_name(&entry.file_name().to_string_lossy()) && entry.path().is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Returns a backup: the folder itself, or the latest one in it.
///
/// # Errors
/// There is none.
pub(super) fn find(path: &Path) -> anyhow::Result<PathBuf> {
    if path.join(MANIFEST).exists() || path.join(crate::store::FILE_NAME).exists() {
        return Ok(path.to_owned());
    }
    list(path)?.pop().with_context(|| format!("there is no backup in {}", path.display()))
}

fn is_name(name: &str) -> bool {
    let fits = |(c, form): (u8, u8)| if form == b'd' { c.is_ascii_digit() } else { c == form };
    name.len() == NAME_FORM.len() && name.bytes().zip(NAME_FORM.bytes()).all(fits)
}

/// Creates a file that nobody else can read.
pub(super) fn create(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(|| writing(path))
}

/// Measures a file of a backup; `None` if it does not exist.
pub(super) fn measure(folder: &Path, name: &str) -> anyhow::Result<Option<ListedFile>> {
    let path = folder.join(name);
    let reading = || format!("reading {}", path.display());
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(reading)?,
    };
    let (mut bytes, mut sum) = (0, digest::Context::new(&digest::SHA256));
    let mut piece = vec![0; PIECE];
    loop {
        let count = file.read(&mut piece).with_context(reading)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        sum.update(piece.get(..count).unwrap_or_default());
    }
    Ok(Some(ListedFile { name: name.to_owned(), bytes, sha256: HEXLOWER.encode(sum.finish().as_ref()) }))
}

/// Copies a file into a folder and fsyncs it; it must not exist there. Nobody else can read it.
pub(super) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut source = File::open(from).with_context(|| format!("reading {}", from.display()))?;
    let mut file = create(to)?;
    std::io::copy(&mut source, &mut file).and_then(|_| file.sync_all()).with_context(|| writing(to))
}

fn writing(path: &Path) -> String {
    format!("writing {}", path.display())
}

fn removing(path: &Path) -> String {
    format!("removing {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_named_by_its_time() {
        assert!(is_name(&Timestamp::from_millis(1_785_196_800_000).iso().replace(':', "")));
        for other in
            ["lost+found", ".partial-2026-07-28T000000.000Z", "2026-07-28T000000.000Zx", "2026-07-28T00000a.000Z"]
        {
            assert!(!is_name(other), "{other}");
        }
    }
}
