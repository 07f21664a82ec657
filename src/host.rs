//! The process and its host: limits that a server wants raised, signals it must survive.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one; thousands of sessions and attempts each hold a descriptor.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files was not raised");
    }
}

/// Makes a write beyond `RLIMIT_FSIZE` an error (a full disk to the caller) instead of the end of the process.
///
/// # Errors
/// The signal cannot be caught.
pub fn survive_file_size_limit() -> std::io::Result<()> {
    /// `SIGXFSZ` on every Linux architecture that Rust's tier 1 names.
    const SIGXFSZ: i32 = 25;
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(SIGXFSZ)).map(drop)
}

/// How many files the process may have open.
pub fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
