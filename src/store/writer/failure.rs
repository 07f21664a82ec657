//! The failure that stops the writer for good.

/// Reason why storage stopped: nothing is written any more until a restart reads the disk again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The kernel may have dropped the pages that it could not write.
    #[error(
        "an fsync of the database's log failed ({0}); nothing can be trusted until a restart reads the disk again"
    )]
    Sync(String),
    /// It is not known what the disk holds of a transaction.
    #[error("the database could not commit ({0}); a restart reads from the disk what was stored")]
    Commit(String),
    /// The file is damaged, or the disk fails.
    #[error("the database could not be read ({0}); the next start checks all of it")]
    Unreadable(String),
    /// A fault of this program.
    #[error("the database's thread panicked, which is a bug; the log has its message")]
    Panicked,
}
