//! The next master key: a file beside the present one while `mailkite rotate-key` seals everything anew. After a crash
//! the database tells which of the two it was sealed with.

use std::fs::{self, File};
use std::path::Path;

use super::{FILE_NAME, Secrets, SecretsError, create};

/// File name of the next master key in the data directory.
pub(crate) const NEXT_NAME: &str = "master.key.next";

/// Creates the next master key, durably.
///
/// # Errors
/// It cannot be written.
pub(crate) fn make(data_dir: &Path) -> Result<Secrets, SecretsError> {
    let path = data_dir.join(NEXT_NAME);
    create(data_dir, &path).map_err(|error| SecretsError::Io(path.display().to_string(), error))?;
    Secrets::from_file(&path)
}

/// Reads the next master key; `None` unless a rotation was begun.
///
/// # Errors
/// It is too open, malformed or unreadable.
pub(crate) fn read(data_dir: &Path) -> Result<Option<Secrets>, SecretsError> {
    let path = data_dir.join(NEXT_NAME);
    if !path.exists() {
        return Ok(None);
    }
    Secrets::from_file(&path).map(Some)
}

/// Puts the next master key in the place of the present one, durably.
///
/// # Errors
/// It cannot be renamed.
pub(crate) fn adopt(data_dir: &Path) -> Result<(), SecretsError> {
    let (next, present) = (data_dir.join(NEXT_NAME), data_dir.join(FILE_NAME));
    let renamed = fs::rename(&next, present).and_then(|()| File::open(data_dir)?.sync_all());
    renamed.map_err(|error| SecretsError::Io(next.display().to_string(), error))
}

/// Removes a next master key that sealed nothing.
///
/// # Errors
/// It cannot be removed.
pub(crate) fn discard(data_dir: &Path) -> Result<(), SecretsError> {
    let path = data_dir.join(NEXT_NAME);
    let removed = fs::remove_file(&path).and_then(|()| File::open(data_dir)?.sync_all());
    removed.map_err(|error| SecretsError::Io(path.display().to_string(), error))
}
