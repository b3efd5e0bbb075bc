//! Caches: volatile stores, which may forget anything at any time and never answer what is old.
//!
//! Each priority has room of its own, on moka, so that entries of one never push out those of another; within it those
//! that are used often stay. A cache is not in the file and is empty after a restart.

mod named;
mod strategy;

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use thiserror::Error;

pub use self::{
    named::Cache,
    strategy::{Priority, Strategy},
};
use crate::{
    Clock,
    limits::{CACHE_ENTRIES, CACHE_ROOM_BYTES, CACHES, NAME_BYTES},
};

/// How a named cache behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Entries of each priority, at most.
    pub entries: u64,
    /// Bytes of each priority's entries, keys and overhead among them, at most.
    pub bytes: u64,
    /// Expiry and priority of entries written without one.
    pub strategy: Strategy,
    /// Whether the strategy's expiry follows the hit rate.
    pub adaptive: bool,
}

/// Why a call failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CacheError {
    /// A key, value or list is over its limit; the text names the limit.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The call itself is wrong.
    #[error("invalid: {0}")]
    Invalid(String),
}

/// How `set` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSet {
    /// Milliseconds until the key is absent, at most a day; none: as the cache's strategy has it.
    pub ttl_ms: Option<u64>,
    /// Whose room it takes; none: as the cache's strategy has it.
    pub priority: Option<Priority>,
}

/// Figures of a cache since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CacheStats {
    /// Entries it holds; an expired one counts until it is removed.
    pub entries: u64,
    /// Entries that expired and were removed.
    pub expired: u64,
    /// Bytes it holds: keys, values and a little overhead for each entry.
    pub bytes: u64,
    /// Keys that were asked for and there.
    pub hits: u64,
    /// Keys that were asked for and absent.
    pub misses: u64,
    /// Milliseconds that an entry written without an expiry now lives.
    pub ttl_ms: u64,
}

impl CacheStats {
    /// The part of the asked keys that were there, from 0 to 1; 0 when none was asked for.
    pub fn hit_rate(&self) -> f64 {
        let asked = self.hits + self.misses;
        if asked == 0 { 0.0 } else { self.hits as f64 / asked as f64 }
    }
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { entries: CACHE_ENTRIES, bytes: CACHE_ROOM_BYTES, strategy: Strategy::REQUEST, adaptive: false }
    }
}

/// The open caches of a store, by name.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    open: Mutex<HashMap<String, Cache>>,
}

impl Caches {
    /// The options of a name's first opening stand.
    pub(crate) fn open(&self, name: &str, options: CacheOptions, clock: &Clock) -> Result<Cache, CacheError> {
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(CacheError::Invalid(format!("a name has 1 to {NAME_BYTES} bytes")));
        }
        let mut open = self.open.lock();
        if let Some(cache) = open.get(name) {
            return Ok(cache.clone());
        }
        if open.len() >= CACHES {
            return Err(CacheError::TooLarge(format!("a store has at most {CACHES} caches")));
        }
        let cache = Cache::new(options, Arc::clone(clock))?;
        open.insert(name.to_owned(), cache.clone());
        Ok(cache)
    }
}
