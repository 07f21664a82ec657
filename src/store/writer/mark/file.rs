//! The file of the high-water mark: two slots of text, of which the later valid one counts.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::wal::Frame;

/// File name of the mark inside the data directory.
pub(crate) const MARK_NAME: &str = "mailkite.mark";

/// Octets of one of the two slots in the file; they are written alternately, so that a torn write leaves the other.
pub(super) const PLACE: usize = 512;

/// State of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) sequence: u64,
    pub(super) database: i64,
    pub(super) generation: i64,
    /// Generation that the database file held, without its WAL, when that WAL began.
    pub(super) base: i64,
    /// Time of writing in milliseconds of the epoch.
    pub(super) at: i64,
    /// The last frame that was fsynced; `None`: everything was in the database file.
    pub(super) frame: Option<Frame>,
    /// The last frame: no promise, but it shows that nothing is missing when the WAL was moved into the database file.
    pub(super) seen: Option<Frame>,
}

/// The file cannot be read, or both slots are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Mark {
    pub(super) fn to_line(self) -> String {
        let words = |frame: Option<Frame>| {
            let frame = frame.unwrap_or(Frame { salts: (0, 0), number: 0, page: 0, checksum: 0 });
            format!("{} {} {} {} {}", frame.salts.0, frame.salts.1, frame.number, frame.page, frame.checksum)
        };
        let Self { sequence, database, generation, base, at, frame, seen } = self;
        let (frame, seen) = (words(frame), words(seen));
        let text = format!("mailkite 1 {sequence} {database} {generation} {base} {at} {frame} {seen}");
        let sum = crc32fast::hash(text.as_bytes());
        format!("{:<width$}\n", format!("{text} {sum}"), width = PLACE - 1)
    }

    fn of_line(place: &[u8]) -> Option<Self> {
        let line = str::from_utf8(place).ok()?.trim_end();
        let (text, sum) = line.rsplit_once(' ')?;
        if sum.parse::<u32>().ok() != Some(crc32fast::hash(text.as_bytes())) {
            return None;
        }
        let mut words = text.strip_prefix("mailkite 1 ")?.split(' ');
        let mut next = || words.next()?.parse::<i64>().ok();
        let (sequence, database, generation, base, at) = (next()?, next()?, next()?, next()?, next()?);
        let mut small = || u32::try_from(next()?).ok();
        let mut frame = || {
            let frame = Frame { salts: (small()?, small()?), number: small()?, page: small()?, checksum: small()? };
            Some((frame.number > 0).then_some(frame))
        };
        let (frame, seen) = (frame()?, frame()?);
        Some(Self { sequence: u64::try_from(sequence).ok()?, database, generation, base, at, frame, seen })
    }

    /// Reads the later of the two slots; `None` without the file.
    ///
    /// # Errors
    /// The file cannot be read, or both slots are damaged.
    pub(super) fn read(data_dir: &Path) -> std::result::Result<Option<Self>, Unreadable> {
        match fs::read(data_dir.join(MARK_NAME)) {
            Ok(bytes) => {
                let marks = bytes.chunks(PLACE).filter_map(Self::of_line);
                marks.max_by_key(|mark| mark.sequence).map(Some).ok_or(Unreadable)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(_) => Err(Unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn a_torn_place_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let frame = Frame { salts: (u32::MAX, 7), number: 3, page: 9, checksum: 11 };
        let earlier =
            Mark { sequence: 1, database: 5, generation: 2, base: 1, at: 4, frame: Some(frame), seen: None };
        let later = Mark { sequence: 2, frame: None, ..earlier };
        let mut bytes = [later.to_line(), earlier.to_line()].concat().into_bytes();
        assert_eq!(bytes.len(), 2 * PLACE);
        fs::write(dir.path().join(MARK_NAME), &bytes).unwrap();
        assert_eq!(Mark::read(dir.path()), Ok(Some(later)));
        bytes.iter_mut().skip(20).take(20).for_each(|octet| *octet = b'x');
        fs::write(dir.path().join(MARK_NAME), &bytes).unwrap();
        assert_eq!(Mark::read(dir.path()), Ok(Some(earlier)));
        fs::write(dir.path().join(MARK_NAME), "").unwrap();
        assert_eq!(Mark::read(dir.path()), Err(Unreadable), "it is never empty");
        fs::remove_file(dir.path().join(MARK_NAME)).unwrap();
        assert_eq!(Mark::read(dir.path()), Ok(None));
    }
}
