//! Why an SQL call failed.

use std::time::{Duration, Instant};

use rusqlite::{Error, ErrorCode};
use thiserror::Error;

use super::limits::{LIKE_PATTERN_BYTES, TEMPORARY_BYTES, TRANSACTION_BYTES, VALUE_BYTES};
use crate::{CommitError, StorageError};

/// Why an SQL call failed. Except for `Unavailable` and `Storage` nothing has changed then.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SqlError {
    /// The access does not cover what the statement touches, or nobody may do it; the text says what.
    #[error("access denied: {0}")]
    AccessDenied(String),
    /// A statement, a result or a transaction is over its limit; the text names the limit.
    #[error("too large: {0}")]
    TooLarge(String),
    /// A concurrent change won; nothing has changed, and a retry may succeed.
    #[error("conflict")]
    Conflict,
    /// The statement is wrong, or a constraint forbids what it does; the text says what.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The deadline, or want of memory. Nothing is known to have changed.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The disk failed or the store is closed. Nothing is known to have changed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

const NOT_EMPTY: &str = "the database is not empty, and the import is not to replace what is in it";
const OVERLONG: &str = "the call ran longer than its turn";

impl SqlError {
    pub(super) fn closing() -> Self {
        Self::Storage(StorageError::Closed)
    }

    pub(super) fn not_empty() -> Self {
        Self::Invalid(NOT_EMPTY.to_owned())
    }

    /// Whether an import was refused because it would have replaced something.
    pub fn is_not_empty(&self) -> bool {
        matches!(self, Self::Invalid(text) if text == NOT_EMPTY)
    }

    pub(super) fn no_more_files() -> Self {
        Self::TooLarge("the numbers of database files are used up".to_owned())
    }

    pub(super) fn deadline() -> Self {
        Self::Unavailable("the deadline has passed".to_owned())
    }

    /// The error of a call that was ended before its deadline is that its turn was over.
    pub(super) fn within(self, deadline: Instant, turn: Duration) -> Self {
        if self != Self::deadline() || Instant::now() >= deadline {
            return self;
        }
        Self::Unavailable(format!("{OVERLONG} of {} ms", turn.as_millis()))
    }

    /// Whether the call was ended since it ran longer than its turn.
    pub fn is_overlong(&self) -> bool {
        matches!(self, Self::Unavailable(text) if text.starts_with(OVERLONG))
    }
}

impl From<CommitError> for SqlError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::TooLarge(text) => Self::TooLarge(text),
            CommitError::Conflict => Self::Conflict,
            CommitError::Invalid(text) => Self::Invalid(text),
            CommitError::AccessDenied => Self::AccessDenied("commit".to_owned()),
            CommitError::Unavailable(text) => Self::Unavailable(text),
            CommitError::Storage(error) => Self::Storage(error),
        }
    }
}

impl From<SqlError> for CommitError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::TooLarge(text) => Self::TooLarge(text),
            SqlError::Conflict => Self::Conflict,
            SqlError::Invalid(text) => Self::Invalid(text),
            SqlError::AccessDenied(_) => Self::AccessDenied,
            SqlError::Unavailable(text) => Self::Unavailable(text),
            SqlError::Storage(error) => Self::Storage(error),
        }
    }
}

/// What an error of SQLite means to a caller.
pub(super) fn explain(error: &Error) -> SqlError {
    let text = match error {
        Error::SqliteFailure(_, Some(text)) => text.clone(),
        Error::SqlInputError { msg, .. } => msg.clone(),
        Error::MultipleStatement => "a call runs one statement; give several to one batch".to_owned(),
        other => other.to_string(),
    };
    if text.starts_with("LIKE or GLOB pattern") {
        return SqlError::TooLarge(format!(
            "the pattern of a LIKE or GLOB has at most {LIKE_PATTERN_BYTES} bytes"
        ));
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::AuthorizationForStatementDenied) => SqlError::AccessDenied(text),
        Some(ErrorCode::TooBig) => {
            SqlError::TooLarge(format!("a value or row has at most {VALUE_BYTES} bytes ({text})"))
        }
        Some(ErrorCode::DiskFull) => SqlError::TooLarge(format!(
            "a transaction writes at most {TRANSACTION_BYTES} bytes, with {TEMPORARY_BYTES} bytes of temporary files"
        )),
        Some(ErrorCode::OperationInterrupted) => SqlError::deadline(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SqlError::Conflict,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StorageError::Corrupt(text).into(),
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::InternalMalfunction,
        ) => StorageError::Io(text).into(),
        Some(ErrorCode::OutOfMemory) => SqlError::Unavailable(text),
        _ => SqlError::Invalid(text),
    }
}
