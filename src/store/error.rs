//! Errors of the store, and the resulting state of the transaction.

/// Error of a store function.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the database, or no reader became free in time.
    #[error("the database is busy")]
    Busy,
    /// The disk, a quota or a file size limit is full, or the file system is read-only.
    #[error("no room on the data directory's file system: {0}")]
    Full(String),
    /// A row with this value exists; the columns of the constraint are named.
    #[error("a row with the same {0} exists")]
    Conflict(String),
    /// The account has as many of something as it may (contract 1.9).
    #[error("this account may have {most} {name}, and has them")]
    Limit {
        /// Kind of row, as a key of `[limits]`.
        name: &'static str,
        /// The limit.
        most: u64,
    },
    /// The writer has stopped: after a failed fsync nothing can be trusted until a restart.
    #[error("storage failed earlier and takes nothing more until the restart")]
    Stopped,
    /// Reading or writing a file failed.
    #[error("{context}: {source}")]
    Io {
        /// Operation that failed, with the path.
        context: String,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// An object is missing, or does not match its row.
    #[error("object {name} is {what}")]
    Damaged {
        name: String,
        /// Kind of damage.
        what: super::blobs::objects::Damage,
    },
    /// This program must not open the database: it is damaged, newer, or another program's.
    #[error("{0}; the database was left untouched")]
    Refused(String),
    /// Any other error of SQLite.
    #[error("database: {0}{way_out}", way_out = way_out(.0))]
    Sqlite(#[source] rusqlite::Error),
    /// A stored value does not have the form that this version writes.
    #[error("stored {0} cannot be read")]
    Corrupt(&'static str),
    /// A commit failed after it had begun, or its result was never received: the disk may hold the whole transaction.
    #[error("it is not known whether this was stored: {0}")]
    Unknown(#[source] Box<Error>),
}

fn way_out(error: &rusqlite::Error) -> &'static str {
    if is_unreadable(error) { "; the file is damaged, or its disk fails: run mailkite check" } else { "" }
}

/// Final state of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is durable.
    Committed,
    /// Nothing of it is or will be on disk.
    NotCommitted,
    /// A restart may find all of it or nothing; until then nothing that it relies on may be removed.
    Unknown,
}

impl Outcome {
    /// Returns the outcome of a [`Db::write`](super::Db::write) by its result.
    pub(crate) const fn of<T>(written: &Result<T>) -> Self {
        match written {
            Ok(_) => Self::Committed,
            Err(error) => error.outcome(),
        }
    }
}

/// Result of store functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Error that the work of a transaction may return; it undoes what the work has written.
pub(crate) trait TransactionError: From<Error> + Send + 'static {
    /// Returns the store's error that it was made of, if it still has it.
    fn storage(&self) -> Option<&Error>;
}

impl TransactionError for Error {
    fn storage(&self) -> Option<&Error> {
        Some(self)
    }
}

/// Implements [`TransactionError`] for an error that has the store's as its variant `Store`.
macro_rules! transaction_error {
    ($name:ty) => {
        impl crate::store::TransactionError for $name {
            fn storage(&self) -> Option<&crate::store::Error> {
                match self {
                    Self::Store(error) => Some(error),
                    _ => None,
                }
            }
        }
    };
}

pub(crate) use transaction_error;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ffi;
        if let rusqlite::Error::FromSqlConversionFailure(_, _, cause) = &error
            && let Some(unknown) = cause.downcast_ref::<super::stored_enum::UnknownWord>()
        {
            return Self::Corrupt(unknown.0);
        }
        let rusqlite::Error::SqliteFailure(failure, message) = &error else {
            return Self::Sqlite(error);
        };
        let text = message.clone().unwrap_or_default();
        if is_busy(*failure) {
            return Self::Busy;
        }
        if is_no_room(*failure) {
            return Self::Full(text);
        }
        match failure.extended_code {
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY => {
                Self::Conflict(text.rsplit(": ").next().unwrap_or_default().to_owned())
            }
            _ => Self::Sqlite(error),
        }
    }
}

/// Returns true if another process holds a lock.
pub(super) const fn is_busy(failure: rusqlite::ffi::Error) -> bool {
    matches!(failure.code, rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
}

/// Returns true if the database file could not be read.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode as Code;
    matches!(error.sqlite_error_code(), Some(Code::DatabaseCorrupt | Code::NotADatabase))
}

/// Returns true if a statement found no room, or a read-only file system. SQLite reports FULL for ENOSPC alone; EFBIG
/// and EDQUOT appear as a failed write. The writer judges a COMMIT differently.
pub(super) const fn is_no_room(failure: rusqlite::ffi::Error) -> bool {
    use rusqlite::ffi;
    matches!(failure.code, rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::ReadOnly)
        || matches!(
            failure.extended_code,
            ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE | ffi::SQLITE_IOERR_SHMSIZE
        )
}

impl Error {
    /// Returns the outcome of the transaction that ended with this error. Only [`Outcome::NotCommitted`] permits
    /// undoing anything.
    pub(crate) const fn outcome(&self) -> Outcome {
        match self {
            Self::Unknown(_) => Outcome::Unknown,
            Self::Busy
            | Self::Full(_)
            | Self::Conflict(_)
            | Self::Stopped
            | Self::Limit { .. }
            | Self::Io { .. }
            | Self::Damaged { .. }
            | Self::Refused(_)
            | Self::Sqlite(_)
            | Self::Corrupt(_) => Outcome::NotCommitted,
        }
    }

    /// Returns true if storage failed or was unavailable, so that a retry may help: the request was not at fault.
    pub(crate) fn is_storage_trouble(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        match self {
            Self::Busy | Self::Full(_) | Self::Stopped | Self::Io { .. } | Self::Unknown(_) => true,
            Self::Sqlite(_) if self.is_unreadable() => true,
            Self::Sqlite(error) => error.sqlite_error_code().is_some_and(|code| {
                matches!(
                    code,
                    Code::SystemIoFailure
                        | Code::CannotOpen
                        | Code::OutOfMemory
                        | Code::OperationInterrupted
                        | Code::OperationAborted
                        | Code::FileLockingProtocolFailed
                )
            }),
            Self::Conflict(_) | Self::Limit { .. } | Self::Damaged { .. } | Self::Refused(_) | Self::Corrupt(_) => {
                false
            }
        }
    }

    /// Returns true if the database file could not be read: it is damaged, or the disk failed (EIO), which SQLite
    /// reports with the same code.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Sqlite(error) if is_unreadable(error))
    }

    /// Returns true if there was no room.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Unknown(error) => error.is_full(),
            error => matches!(error, Self::Full(_)),
        }
    }

    /// Returns an [`Error::Io`] or, when the file system is full, an [`Error::Full`].
    pub(crate) fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match source.kind() {
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge | Kind::ReadOnlyFilesystem => {
                Self::Full(format!("{}: {source}", context.into()))
            }
            _ => Self::Io { context: context.into(), source },
        }
    }
}
