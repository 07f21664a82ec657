//! Other processes that read the WAL, according to the system's table of locks: SQLite's readers hold locks on the
//! shared memory file. Opening that file here would be wrong: closing it would release the locks of this process.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// First and last octet that a reader of the WAL locks (SQLite's WAL_READ_LOCK); a reader of the database file alone
/// locks the octet before.
const FIRST: u64 = 124;
const LAST: u64 = 127;

/// Lists other processes that read the WAL, as `name (pid)`.
pub(super) fn others(database: &Path) -> Vec<String> {
    let Ok(shared) = std::fs::metadata(database.with_extension("db-shm")) else { return Vec::new() };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let own = std::process::id();
    let mut pids: Vec<u32> = holders(&locks, shared.ino()).into_iter().filter(|pid| *pid != own).collect();
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter()
        .map(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{} ({pid})", name.trim_end())
        })
        .collect()
}

/// Finds the holders of read locks on a file: `1: POSIX  ADVISORY  READ 4711 fe:00:131090 124 124`.
fn holders(locks: &str, inode: u64) -> Vec<u32> {
    let holder = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "READ").skip(1);
        let (pid, file) = (words.next()?.parse().ok()?, words.next()?);
        let (from, to): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let same = file.rsplit(':').next()?.parse() == Ok(inode);
        (same && from <= LAST && to >= FIRST).then_some(pid)
    };
    locks.lines().filter_map(holder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_found_by_file_and_range() {
        let locks = "1: POSIX  ADVISORY  READ 11 fe:00:131090 124 124\n\
                     2: POSIX  ADVISORY  WRITE 12 fe:00:131090 120 120\n\
                     3: POSIX  ADVISORY  READ 13 fe:00:131090 123 123\n\
                     3: -> POSIX  ADVISORY  READ 14 fe:00:131091 124 124\n\
                     4: FLOCK  ADVISORY  WRITE 15 fe:00:131090 0 EOF\n\
                     5: POSIX  ADVISORY  READ 16 fe:00:131090 126 126\n";
        assert_eq!(holders(locks, 131_090), [11, 16]);
    }
}
