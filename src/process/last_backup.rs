//! The time of the last backup, noted in the data directory for whoever watches it.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::clock::Timestamp;

const FILE_NAME: &str = "mailkite.backup";

/// Notes that a backup of the data directory is complete.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn record(data_dir: &Path, at: Timestamp) -> std::io::Result<()> {
    let path = data_dir.join(FILE_NAME);
    let new = path.with_extension("backup.new");
    // Of a note that was cut off. A link that the server's user left is not followed: root may run this.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{}", at.as_millis())?;
    file.sync_all()?;
    // Root backs up what the server's user is to read.
    let owner = fs::metadata(data_dir)?;
    if owner.uid() != file.metadata()?.uid() {
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    fs::rename(new, path)
}

/// Returns the time of the last complete backup; `None` if there was none, or nobody noted it.
pub(crate) fn read(data_dir: &Path) -> Option<Timestamp> {
    let text = fs::read_to_string(data_dir.join(FILE_NAME)).ok()?;
    text.trim().parse().ok().map(Timestamp::from_millis)
}
