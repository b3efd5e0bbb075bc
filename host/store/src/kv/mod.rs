//! Key-value stores.

mod batch;
mod check;
pub(crate) mod key;
mod list;
mod named;
pub(crate) mod presence;
pub(crate) mod record;
pub(crate) mod size;
pub(crate) mod snapshot;
pub(crate) mod sweep;
mod transaction;

use std::sync::Arc;

use thiserror::Error;

pub(crate) use self::check::report;
pub use self::{
    batch::Batch,
    check::KvReport,
    named::Kv,
    snapshot::{Entries, Snapshot},
    transaction::Transaction,
};
use self::{
    key::{AsKey, Key},
    record::Record,
};
use crate::{StorageError, commit::CommitError};

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// When it is on disk.
    #[default]
    Durable,
    /// At once; it is on disk within 50 ms, so that a crash forgets at most that much.
    Relaxed,
}

/// How a named kv store behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvOptions {
    /// When writes are acknowledged.
    pub acknowledge: Acknowledge,
    /// Expiry of values written without one, in milliseconds; none: they stay.
    pub default_ttl_ms: Option<u64>,
    /// Bytes of keys and values that the store may have, expired ones until they are swept away too; none: as many as come.
    /// What waits for the disk counts too; when that makes the store full, a write waits for the commit.
    pub limit_bytes: Option<u64>,
}

/// Why a call failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KvError {
    /// A key, value or list is over its limit; the text names the limit.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The store has all the bytes that it may have; the text names the limit.
    #[error("full: {0}")]
    Full(String),
    /// A concurrent change won; nothing has changed.
    #[error("conflict")]
    Conflict,
    /// The call itself is wrong.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The store cannot answer now; nothing is known to have changed.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The disk failed or the store is closed; what a write changed is not known.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<CommitError> for KvError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::TooLarge(text) => Self::TooLarge(text),
            CommitError::Conflict => Self::Conflict,
            CommitError::Invalid(text) => Self::Invalid(text),
            CommitError::Unavailable(text) => Self::Unavailable(text),
            CommitError::Storage(error) => Self::Storage(error),
            CommitError::AccessDenied => Self::Invalid(error.to_string()),
        }
    }
}

/// A value as it stands in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Arc<[u8]>,
    /// Grows with each write, and is never used twice.
    pub version: u64,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// How `set` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// Milliseconds until the key is absent; none: the store's default.
    pub ttl_ms: Option<u64>,
    /// Write only if the key is absent.
    pub if_absent: bool,
}

/// One page of keys, in the order of their UTF-8 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys.
    pub keys: Vec<String>,
    /// Where the next page starts; none: this was the last. A page may be short, even empty, and not be the last.
    pub cursor: Option<String>,
}

/// What `swap` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// Written, with this version.
    Swapped(u64),
    /// Not written: this stands there.
    Stale(Option<Entry>),
}

/// A write to a kv store that is made together with others.
#[derive(Clone, Debug)]
pub(crate) struct KvWrite {
    pub(crate) key: Key,
    /// None removes the key.
    pub(crate) value: Option<Arc<[u8]>>,
    /// Milliseconds since 1970; 0: never.
    pub(crate) expires_ms: u64,
}

impl KvWrite {
    /// What the key then stands for.
    pub(crate) fn record(&self, version: u64) -> Record {
        Record { value: self.value.clone(), version, expires_ms: self.expires_ms }
    }

    /// Bytes that its store then has of it.
    pub(super) fn written(&self) -> usize {
        self.value.as_ref().map_or(0, |value| key::text_bytes(self.key.bytes()) + value.len())
    }

    /// Bytes that it brings into a commit.
    pub(crate) fn size(&self) -> usize {
        self.key.bytes().len() + self.value.as_ref().map_or(0, |value| value.len())
    }
}
