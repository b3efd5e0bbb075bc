//! Opening and closing a store.

use std::{fmt, path::Path, sync::Arc};

use thiserror::Error;

use crate::{
    CommitError, Joint, Kv, KvError, KvOptions, Queue, QueueError, Stats,
    core::Core,
    sql::{Database, Databases, SqlError},
};

/// Milliseconds since 1970, from wherever the caller takes the time.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How a store is opened.
pub struct Options {
    /// redb's page cache, in bytes.
    pub cache_bytes: usize,
    /// Clean kv values kept in memory, in bytes, over all named stores; 0 keeps none.
    pub kv_cache_bytes: u64,
    /// The time; expiry goes by it.
    pub clock: Clock,
    /// A second fsync for each commit, against a crash that forges redb's checksum.
    pub two_phase: bool,
    /// Storage in place of the file, for tests that inject faults; the path is then unused.
    pub backend: Option<Box<dyn redb::StorageBackend>>,
}

/// Why a store does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process, or another store of this one, has the file open.
    #[error("the store is already open")]
    AlreadyOpen,
    /// The file cannot be read as a store.
    #[error("cannot open the store: {0}")]
    Storage(String),
}

/// Named kv stores, SQL databases and queues in one file. A clone is the same store.
#[derive(Clone)]
pub struct Store {
    #[expect(dead_code, reason = "skeleton")]
    core: Arc<Core>,
    databases: Arc<Databases>,
}

impl Store {
    /// Opens the file, or creates it; after a crash it is recovered first. Blocks.
    pub fn open(_path: &Path, _options: Options) -> Result<Self, OpenError> {
        todo!()
    }

    /// Opens a named kv store, or creates it. Blocks shortly for the first time of a name.
    pub fn kv(&self, _name: &str, _options: KvOptions) -> Result<Kv, KvError> {
        todo!()
    }

    /// Opens a named SQL database, or creates it; the same name twice is the same writer. Blocks shortly for the first time of
    /// a name.
    pub fn database(&self, name: &str) -> Result<Database, SqlError> {
        self.databases.open(&self.core, name)
    }

    /// Opens a named queue, or creates it.
    pub fn queue(&self, _name: &str, _capacity_bytes: u64) -> Result<Queue, QueueError> {
        todo!()
    }

    /// Makes all changes visible and durable together, or none.
    pub async fn commit(&self, _joint: Joint) -> Result<(), CommitError> {
        todo!()
    }

    /// Everything accepted so far is on disk when this returns.
    pub async fn flush(&self) -> Result<(), CommitError> {
        todo!()
    }

    /// Figures.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Writes what waits and releases the file. Everything asked afterwards is unavailable.
    pub async fn close(&self) -> Result<(), CommitError> {
        todo!()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        todo!()
    }
}
