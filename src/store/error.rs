//! Why the store could not do what it was asked, and what became of the transaction.

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the database, or the pool has no reader free in time.
    #[error("the database is busy")]
    Busy,
    /// The disk, a quota or a file size limit is full, or the file system is read-only.
    #[error("no room on the data directory's file system: {0}")]
    Full(String),
    /// A row with this value exists; the constraint's columns are named.
    #[error("a row with the same {0} exists")]
    Conflict(String),
    /// The account has as many of something as it may (contract 1.9).
    #[error("this account may have {most} {name}, and has them")]
    Limit {
        /// What of: a key of `[limits]`.
        name: &'static str,
        /// How many it may have.
        most: u64,
    },
    /// The writer has stopped: after a failed fsync nothing may be believed until a restart.
    #[error("storage failed earlier and takes nothing more until the restart")]
    Stopped,
    /// Reading or writing a file failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done, with the path.
        context: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An object is missing, or is not what its row says.
    #[error("object {name} is {what}")]
    Damaged {
        /// The object's name.
        name: String,
        /// In which way.
        what: super::blobs::objects::Damage,
    },
    /// Anything else that SQLite says.
    #[error("database: {0}")]
    Sqlite(#[source] rusqlite::Error),
    /// A stored value does not have the form that this version writes.
    #[error("stored {0} cannot be read")]
    Corrupt(&'static str),
    /// A commit failed after it had begun, or nobody heard how it ended: the disk may hold the transaction, whole.
    #[error("it is not known whether this was stored: {0}")]
    Unknown(#[source] Box<Error>),
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is durable.
    Committed,
    /// Nothing of it is or will be on disk.
    NotCommitted,
    /// A restart may find all of it or nothing; until then nothing that it relies on may be undone.
    Unknown,
}

impl Outcome {
    /// What a result of [`Db::write`](super::Db::write) says.
    pub(crate) const fn of<T>(written: &Result<T>) -> Self {
        match written {
            Ok(_) => Self::Committed,
            Err(error) => error.outcome(),
        }
    }
}

/// What store functions return.
pub type Result<T> = std::result::Result<T, Error>;

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

/// Whether another process holds a lock.
pub(super) const fn is_busy(failure: rusqlite::ffi::Error) -> bool {
    matches!(failure.code, rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
}

/// Whether a statement found no room, or a file system that may not be written. SQLite says FULL for ENOSPC alone;
/// EFBIG and EDQUOT come as a failed write. Of a COMMIT, the writer judges otherwise.
pub(super) const fn is_no_room(failure: rusqlite::ffi::Error) -> bool {
    use rusqlite::ffi;
    matches!(failure.code, rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::ReadOnly)
        || matches!(
            failure.extended_code,
            ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE | ffi::SQLITE_IOERR_SHMSIZE
        )
}

impl Error {
    /// What became of the transaction that ended with this error. Only [`Outcome::NotCommitted`] lets anything be
    /// undone.
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
            | Self::Sqlite(_)
            | Self::Corrupt(_) => Outcome::NotCommitted,
        }
    }

    /// Whether storage failed or was not to be had, so that coming again may help: no fault of what was asked.
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
            Self::Conflict(_) | Self::Limit { .. } | Self::Damaged { .. } | Self::Corrupt(_) => false,
        }
    }

    /// Whether the database file could not be read: it is damaged, or the disk failed, for which (EIO) SQLite has the same
    /// word.
    pub(crate) fn is_unreadable(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        let code = match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            _ => None,
        };
        matches!(code, Some(Code::DatabaseCorrupt | Code::NotADatabase))
    }

    /// Whether there was no room.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Unknown(error) => error.is_full(),
            error => matches!(error, Self::Full(_)),
        }
    }

    /// An [`Error::Io`] or, when the system ran out of room, an [`Error::Full`].
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
