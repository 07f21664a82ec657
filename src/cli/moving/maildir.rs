//! The maildir format: a file for each mail, written in `tmp` and renamed to `cur`. Its name begins with the time and
//! ends with its flags; its time of change is the time of the mail, as IMAP servers expect it.

use std::fs::{self, DirBuilder, File, OpenOptions, ReadDir};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, OFlags};

use super::{Found, OutgoingMail, Sink, Source};
use crate::clock::Timestamp;
use crate::inbound::import::{ImportedMail, MAX_MAIL};

/// Seconds since 1970 in the name of a file: from 2001, when they got their tenth digit.
const PLAUSIBLE: std::ops::Range<i64> = 1_000_000_000..100_000_000_000;

pub(super) struct Writer {
    folder: PathBuf,
}

impl Writer {
    /// Makes the folder, which must not exist or be empty.
    pub(super) fn create(folder: &Path) -> anyhow::Result<Self> {
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} is not empty; choose another name", folder.display());
        }
        for below in ["tmp", "new", "cur"] {
            let path = folder.join(below);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.with_context(|| format!("making {}", path.display()))?;
        }
        Ok(Self { folder: folder.to_owned() })
    }
}

impl Sink for Writer {
    fn write(&mut self, mail: OutgoingMail<'_>) -> anyhow::Result<()> {
        let at = mail.row.received_at;
        let millis = at.as_millis().rem_euclid(1000);
        let name = format!("{}.M{millis:03}_{}.mailkite,S={}", at.as_secs(), mail.row.public_id, mail.octets);
        let draft = self.folder.join("tmp").join(&name);
        let write = |mail: OutgoingMail<'_>| {
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
            std::io::copy(mail.data, &mut file)?;
            let since = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0));
            file.set_modified(UNIX_EPOCH + since)?;
            // S: seen. Nothing of it is new.
            fs::rename(&draft, self.folder.join("cur").join(format!("{name}:2,S")))
        };
        write(mail).with_context(|| format!("writing {}", draft.display()))
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        let folder = File::open(&self.folder)?;
        Ok(rustix::fs::syncfs(&folder)?)
    }
}

pub(super) struct Reader {
    /// Folders still to be read, the first one last.
    folders: Vec<PathBuf>,
    entries: Option<ReadDir>,
}

impl Reader {
    /// Opens a maildir: its folders `cur` and `new`, not those of other mailboxes below it.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let folders: Vec<PathBuf> = ["new", "cur"].map(|name| folder.join(name)).into_iter().collect();
        // A link could lead to files that are no mail; root may run this.
        let is_own = |folder: &PathBuf| folder.symlink_metadata().is_ok_and(|found| found.is_dir());
        let folders: Vec<PathBuf> = folders.into_iter().filter(is_own).collect();
        if folders.is_empty() {
            bail!("{} is no maildir: it has neither cur nor new", folder.display());
        }
        Ok(Self { folders, entries: None })
    }

    fn next_file(&mut self) -> anyhow::Result<Option<PathBuf>> {
        loop {
            let Some(entries) = &mut self.entries else {
                let Some(folder) = self.folders.pop() else { return Ok(None) };
                if folder.is_dir() {
                    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
                    self.entries = Some(entries);
                }
                continue;
            };
            let Some(entry) = entries.next() else {
                self.entries = None;
                continue;
            };
            let entry = entry?;
            if entry.file_type()?.is_file() && !entry.file_name().as_encoded_bytes().starts_with(b".") {
                return Ok(Some(entry.path()));
            }
        }
    }
}

impl Source for Reader {
    fn next(&mut self) -> anyhow::Result<Option<Found>> {
        let Some(path) = self.next_file()? else { return Ok(None) };
        let reading = || format!("reading {}", path.display());
        let no_link = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, no_link, Mode::empty()).with_context(reading)?);
        let metadata = file.metadata().with_context(reading)?;
        let mut data = Vec::new();
        file.take(MAX_MAIL as u64 + 1).read_to_end(&mut data).with_context(reading)?;
        if data.len() > MAX_MAIL {
            return Ok(Some(Found::TooLarge));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let received_at = time_of_name(&name).or_else(|| metadata.modified().ok().map(Timestamp::from));
        Ok(Some(Found::Mail(ImportedMail { received_at, mail_from: None, recipient: None, data })))
    }
}

/// Returns the time that the name of a file begins with, with the milliseconds or microseconds behind an `M`.
fn time_of_name(name: &str) -> Option<Timestamp> {
    let mut parts = name.split('.');
    let seconds: i64 = parts.next()?.parse().ok().filter(|seconds| PLAUSIBLE.contains(seconds))?;
    let fraction = parts.next().and_then(|part| part.strip_prefix('M')).unwrap_or_default();
    let digits: String = fraction.chars().take_while(char::is_ascii_digit).collect();
    let number: i64 = digits.parse().unwrap_or(0);
    let millis = if digits.len() <= 3 { number } else { number / 1000 };
    Some(Timestamp::from_millis(seconds * 1000 + millis.clamp(0, 999)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_time() {
        let millis = |name: &str| time_of_name(name).map(Timestamp::as_millis);
        assert_eq!(millis("1785196800.M042_msg_1.mailkite,S=3:2,S"), Some(1_785_196_800_042));
        assert_eq!(millis("1785196800.M123456P789.host:2,"), Some(1_785_196_800_123));
        assert_eq!(millis("1785196800.789_1.host"), Some(1_785_196_800_000));
        assert_eq!((millis("17.M1"), millis("mail.eml"), millis("")), (None, None, None));
    }
}
