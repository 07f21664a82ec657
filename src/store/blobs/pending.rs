//! Files that are being written under `tmp/`, and mail data that is still in memory or in such a file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::store::{Error, Result};

/// A file being written; it is deleted when this value is dropped, unless it was committed.
#[derive(Debug)]
pub(crate) struct PendingObject {
    file: File,
    path: PathBuf,
    length: u64,
    checksum: crc32fast::Hasher,
    kept: bool,
}

/// Mail data as received: small in memory, large in a pending object.
#[derive(Debug)]
pub(crate) enum MailData {
    /// The complete data.
    Memory(Vec<u8>),
    /// In a file of the object store, not yet fsynced.
    Spooled(PendingObject),
}

impl MailData {
    /// Returns the octets received.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Spooled(draft) => draft.length,
        }
    }
}

impl PendingObject {
    /// Creates the file. Blocks.
    ///
    /// # Errors
    /// The disk or its inodes are full, or the disk fails.
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::io("making a file for mail data", error))?;
        Ok(Self { file, path, length: 0, checksum: crc32fast::Hasher::new(), kept: false })
    }

    /// Fsyncs the file and renames it to `path`; returns its length and checksum. The caller fsyncs the folder. Blocks.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub(super) fn move_to(mut self, path: &Path) -> Result<(u64, u32)> {
        self.file.sync_all().map_err(|error| Error::io("syncing mail data", error))?;
        fs::rename(&self.path, path).map_err(|error| Error::io("placing mail data", error))?;
        self.kept = true;
        Ok((self.length, self.checksum.clone().finalize()))
    }

    /// Appends bytes. Blocks.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("writing mail data", error))?;
        self.length += bytes.len() as u64;
        self.checksum.update(bytes);
        Ok(())
    }

    /// Returns the octets written.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Reads everything into memory. Blocks.
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

/// Reads a file of this length to its end.
pub(super) fn read_whole(file: &mut File, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
