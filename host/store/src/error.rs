//! Why the storage does not answer.

use std::{
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
};

use thiserror::Error;

/// Why the storage does not answer: what a caller can tell apart, and the reason for people. Except for `Closed` nothing
/// is acknowledged after the first of these that a write met, until the store is opened again; that one is then the answer
/// to everything. It is not known whether the writes it answers are on disk.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StorageError {
    /// The store was closed, by its owner.
    #[error("the store is closed")]
    Closed,
    /// The disk, or the quota of its user, is full.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// What is on disk is not what was written.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// The disk failed otherwise.
    #[error("the disk failed: {0}")]
    Io(String),
}

impl From<redb::Error> for StorageError {
    fn from(error: redb::Error) -> Self {
        match &error {
            redb::Error::DatabaseClosed => Self::Closed,
            redb::Error::Io(io) if is_full(io.kind()) => Self::DiskFull(io.to_string()),
            redb::Error::Io(io) => Self::Io(io.to_string()),
            redb::Error::Corrupted(text) => Self::Corrupt(text.clone()),
            redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::UpgradeRequired(_) => Self::Corrupt(error.to_string()),
            other => Self::Io(other.to_string()),
        }
    }
}

impl StorageError {
    /// What comes of a panic of redb, which meets damaged pages in this way too.
    pub(crate) fn panicked() -> Self {
        Self::Corrupt("it could not be read without a panic".to_owned())
    }
}

/// Does work on the file so that nothing the file contains ends the thread.
pub(crate) fn guarded<T, E: From<StorageError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(StorageError::panicked().into()))
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}
