//! Named kv stores, SQL databases, queues, blob containers and vector indexes in one redb file, and caches beside it.
//!
//! One committer thread owns the write transaction and groups whatever waits into one commit. Writes that are not
//! committed yet live in the overlay, which is the truth for them; clean kv values are cached by moka.

mod backend;
pub mod blob;
pub mod cache;
pub mod commit;
pub mod compact;
mod core;
mod error;
mod health;
mod inbox;
mod joint;
pub mod kv;
pub mod limits;
mod names;
mod overlay;
pub mod queue;
mod ram;
pub mod report;
pub mod sql;
mod stats;
mod store;
pub mod vector;

pub use blob::{
    BlobError, BlobInfo, BlobList, BlobOptions, BlobPage, BlobReport, ByteRange, Container, Etags,
    GetOptions, Got, Precondition, Prepared, PutOptions, Reader, Unmet, Upload,
};
pub use cache::{Cache, CacheError, CacheOptions, CacheSet, CacheStats, Priority, Strategy};
pub use commit::CommitError;
pub use compact::{Compacted, Compaction};
pub use error::StorageError;
pub use joint::Joint;
pub use kv::{
    Acknowledge, Batch, Entries, Entry, Kv, KvError, KvOptions, KvReport, Page, SetOptions, Snapshot,
    Swapped, Transaction,
};
pub use queue::{Queue, QueueError, QueueReport};
pub use report::{FileReport, StoreKind, StoreReport, TableReport};
pub use sql::{Access, Database, Outcome, Pages, SqlError, SqlReport, Statement, TableGrant, Value};
pub use stats::Stats;
pub use store::{Clock, OpenError, Options, Store};
pub use vector::{
    Index, Metric, PreparedVectors, ReturnMetadata, Target, Vector, VectorError, VectorInfo, VectorMatch,
    VectorOptions, VectorQuery, VectorReport,
};
