//! Key-value stores.

use std::sync::Arc;

use thiserror::Error;

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
}

/// Why a call failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KvError {
    /// A key, value or list is over its limit; the text names the limit.
    #[error("too large: {0}")]
    TooLarge(String),
    /// A concurrent change won; nothing has changed.
    #[error("conflict")]
    Conflict,
    /// The call itself is wrong.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The store cannot answer now; nothing is known to have changed.
    #[error("unavailable: {0}")]
    Unavailable(String),
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

/// A write to a kv store inside of a joint commit.
#[derive(Debug)]
pub(crate) struct KvWrite {}

/// A named kv store. A clone is the same store. Its functions need a tokio runtime; they are ready at once whenever
/// memory answers, and go to a blocking thread when the disk is needed.
#[derive(Clone, Debug)]
pub struct Kv {}

impl Kv {
    /// The value of a key.
    pub async fn get(&self, _key: &str) -> Result<Option<Entry>, KvError> {
        todo!()
    }

    /// The values of several keys, in the order asked.
    pub async fn get_many(&self, _keys: &[String]) -> Result<Vec<Option<Entry>>, KvError> {
        todo!()
    }

    /// Writes a value. False: `if_absent` was asked, and the key is there.
    pub async fn set(&self, _key: &str, _value: Vec<u8>, _options: SetOptions) -> Result<bool, KvError> {
        todo!()
    }

    /// Writes several values; after a crash all of them are there, or none.
    pub async fn set_many(
        &self,
        _entries: Vec<(String, Vec<u8>)>,
        _ttl_ms: Option<u64>,
    ) -> Result<(), KvError> {
        todo!()
    }

    /// Removes a key; an absent one is no error.
    pub async fn delete(&self, _key: &str) -> Result<(), KvError> {
        todo!()
    }

    /// Removes several keys; after a crash all of them are gone, or none.
    pub async fn delete_many(&self, _keys: &[String]) -> Result<(), KvError> {
        todo!()
    }

    /// Whether a key is there.
    pub async fn exists(&self, _key: &str) -> Result<bool, KvError> {
        todo!()
    }

    /// Keys that start with `prefix`, after `cursor`, at most `limit` (1 to 1,000) of them.
    pub async fn list_keys(
        &self,
        _prefix: Option<&str>,
        _cursor: Option<&str>,
        _limit: u32,
    ) -> Result<Page, KvError> {
        todo!()
    }

    /// Adds to a decimal number and returns the sum; an absent key counts as 0. `ttl_ms` applies when this creates
    /// the key; afterwards the expiry stays as it is.
    pub async fn increment(&self, _key: &str, _delta: i64, _ttl_ms: Option<u64>) -> Result<i64, KvError> {
        todo!()
    }

    /// Writes a value only if the key still has the expected version (none: only if it is absent).
    pub async fn swap(
        &self,
        _key: &str,
        _expected: Option<u64>,
        _value: Vec<u8>,
        _ttl_ms: Option<u64>,
    ) -> Result<Swapped, KvError> {
        todo!()
    }
}
