//! Blobs: objects of any length in named containers.
//!
//! An object is a key with a *content*, a numbered row of chunks. Chunks are stored once for each container, by their
//! hash, and count the places they stand in. A content that no object has (because it is being uploaded, or its
//! object was removed or replaced) stands among the released ones, from where it is taken apart in small steps unless
//! somebody holds a lease on it. Every decision is the committer's. In a container with `files` the content is a file
//! beside the store instead, and all the rest is the same.

mod change;
mod check;
mod chunk;
pub(crate) mod collect;
mod condition;
mod container;
pub(crate) mod folder;
pub(crate) mod lease;
pub mod limits;
mod list;
mod reader;
mod rows;
mod upload;

use thiserror::Error;

pub(crate) use self::{change::BlobChange, check::report, rows::create_tables};
pub use self::{
    check::BlobReport,
    condition::{Etags, Precondition, Unmet},
    container::Container,
    list::{BlobList, BlobPage},
    reader::{Got, Reader},
    upload::{Prepared, Upload},
};
use crate::{StorageError, commit::CommitError};

/// How a container behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobOptions {
    /// Bytes of an object at most.
    pub object_bytes: u64,
    /// Content types that are taken, such as `image/png` or `image/*`; none: all.
    pub content_types: Vec<String>,
    /// `cache-control` of objects written without one.
    pub cache_control: Option<String>,
    /// Contents are files of their own, plain bytes in the store's folder, and not chunks in its file. It is for what is
    /// written from now on; what is there stays as it is.
    pub files: bool,
}

impl Default for BlobOptions {
    fn default() -> Self {
        Self {
            object_bytes: limits::OBJECT_BYTES,
            content_types: Vec::new(),
            cache_control: None,
            files: false,
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BlobError {
    /// An object, key, list or metadata is over its limit; the text names the limit.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The precondition does not hold; nothing has changed.
    #[error("the precondition does not hold")]
    PreconditionFailed,
    /// Nothing of the object is in the range asked; it has this many bytes.
    #[error("the range is outside of the object, which has {0} bytes")]
    OutOfRange(u64),
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

impl From<CommitError> for BlobError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::TooLarge(text) => Self::TooLarge(text),
            CommitError::Invalid(text) => Self::Invalid(text),
            CommitError::Unavailable(text) => Self::Unavailable(text),
            CommitError::Storage(error) => Self::Storage(error),
            other => Self::Invalid(other.to_string()),
        }
    }
}

/// What an upload says of its object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Its media type; none: `application/octet-stream`.
    pub content_type: Option<String>,
    /// How long it may be cached, as HTTP says it; none: as the container has it.
    pub cache_control: Option<String>,
    /// Names (`a-z`, `0-9`, `-`) with values of one's own.
    pub metadata: Vec<(String, String)>,
    /// What has to hold for the object under the key when the upload is published.
    pub precondition: Precondition,
}

/// An object without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its key.
    pub key: String,
    /// Its length, in bytes.
    pub size: u64,
    /// SHA-256 of the content, in hexadecimal: equal contents have equal tags.
    pub etag: String,
    /// When it was published, in milliseconds since 1970.
    pub uploaded_ms: u64,
    /// Its media type.
    pub content_type: String,
    /// How long it may be cached.
    pub cache_control: Option<String>,
    /// Names and values of one's own.
    pub metadata: Vec<(String, String)>,
}

/// A part of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From an offset on, at most so many bytes (none: to the end).
    From {
        /// The first byte.
        offset: u64,
        /// Bytes at most.
        length: Option<u64>,
    },
    /// The last bytes.
    Last(u64),
}

/// How an object is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// Which part; none: the whole.
    pub range: Option<ByteRange>,
    /// What has to hold for the object.
    pub precondition: Precondition,
    /// Compare every chunk with its hash, and fail rather than answer a byte that the disk has changed. A content that is
    /// a file is read twice for it, whatever the range.
    pub verify: bool,
}
