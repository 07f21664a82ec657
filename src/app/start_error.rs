//! Why the server did not start, and whether another start may succeed.

use crate::process::data_dir::DataDirError;
use crate::secrets::SecretsError;

/// The reason why the server did not start or stopped by itself; a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another start may succeed: an address was in use, the disk was full, an fsync failed.
    #[error("{0}")]
    Failed(String),
    /// Every start fails until the operator acts: the database is damaged, the master key is another one.
    #[error("{0}")]
    Refused(String),
}

impl StartError {
    pub(super) fn because(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    pub(super) fn refused(error: impl std::fmt::Display) -> Self {
        Self::Refused(error.to_string())
    }

    /// Prefixes the setting that the error is about.
    pub(super) fn of<E: std::fmt::Display>(key: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Failed(format!("{key}: {error}"))
    }
}

impl From<DataDirError> for StartError {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::Locked(_) | DataDirError::Io(..) => Self::because(error),
            _ => Self::refused(error),
        }
    }
}

impl From<SecretsError> for StartError {
    fn from(error: SecretsError) -> Self {
        match error {
            SecretsError::Io(..) => Self::because(error),
            _ => Self::refused(error),
        }
    }
}
