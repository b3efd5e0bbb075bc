//! Why an SQL call failed.

use thiserror::Error;

/// Why an SQL call failed. Except for `Unavailable` nothing has changed then.
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
    /// A disk error, the deadline, or the store is closing. Nothing is known to have changed.
    #[error("unavailable: {0}")]
    Unavailable(String),
}
