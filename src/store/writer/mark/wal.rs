//! Parts of the WAL that the mark records (SQLite's file format, section 4): its salts, and its committed frames.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

/// Octets of the WAL's header and of each frame's header (SQLite's file format, section 4).
pub(super) const WAL_HEADER: usize = 32;
pub(super) const FRAME_HEADER: usize = 24;

/// A committed frame of the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Random values that distinguish one WAL from the next.
    pub(super) salts: (u32, u32),
    /// Frame number, from 1.
    pub(super) number: u32,
    /// Page of the database that it holds, and the CRC-32 of that.
    pub(super) page: u32,
    pub(super) checksum: u32,
}

pub(super) fn wal_path(database: &Path) -> PathBuf {
    database.with_extension("db-wal")
}

pub(super) fn read_salts(wal: &File) -> Option<(u32, u32)> {
    let mut header = [0; WAL_HEADER];
    wal.read_exact_at(&mut header, 0).ok()?;
    Some((word(&header, 16)?, word(&header, 20)?))
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Returns the checksum of a page in the database file; `None` if it has none of this number.
pub(super) fn page_checksum(database: &Path, page: u32) -> Option<u32> {
    let file = File::open(database).ok()?;
    let mut header = [0; 18];
    file.read_exact_at(&mut header, 0).ok()?;
    let size = match u16::from_be_bytes([*header.get(16)?, *header.get(17)?]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    file.read_exact_at(&mut bytes, u64::from(page.checked_sub(1)?) * size).ok()?;
    Some(crc32fast::hash(&bytes))
}

/// Returns the number of committed frames in the WAL.
pub(super) fn frames(connection: &Connection) -> rusqlite::Result<u32> {
    let frames: i64 = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?.query_row([], |row| row.get(1))?;
    Ok(u32::try_from(frames).unwrap_or(0))
}
