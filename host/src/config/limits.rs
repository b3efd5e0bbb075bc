//! Defaults and bounds of the configuration, each with its reason; the gateway's defaults are in its own limits.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Only this machine, until somebody decides otherwise: a gateway holds keys that cost money.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Beside whoever starts it, so that a first run needs no rights and leaves nothing hidden.
pub const DATA: &str = "tollgate-data";

/// More could not be buffered for a retry on a small machine.
pub const BODY_LIMIT_MOST_BYTES: u64 = 512 * 1024 * 1024;

/// Longest timeout that can be set: a day.
pub const TIMEOUT_MOST_MS: u64 = 24 * 60 * 60 * 1000;

/// Fits a small machine; the tables of a busy day are read mostly from their newest pages.
pub const PAGE_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Counters of some 10,000 keys with room to spare.
pub const KV_CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// About 100,000 events: minutes of full load with ingestion standing still.
pub const EVENT_QUEUE_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of keys and values of one kv store: a million subjects of quota, and little enough for most disks. Whoever needs more
/// says so; a plugin that fills its store meets this before the disk is full.
pub const KV_LIMIT_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// What a small machine can spare for stores that it may forget.
pub const MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// How many of its kv stores fill the memory of all stores in memory, unless their own limits say otherwise: a full memory takes
/// no more writes of any, so that one that is filled leaves the most of it to the others.
pub const MEMORY_SHARES: u64 = 4;

/// An empty store takes some of it already.
pub const MEMORY_LEAST_BYTES: u64 = 16 * 1024 * 1024;

/// Keeps a mistyped unit from asking for more memory than any machine has.
pub const CACHE_MOST_BYTES: u64 = 1 << 40;

/// The longest object that the store takes.
pub const OBJECT_MOST_BYTES: u64 = tollgate_store::blob::limits::OBJECT_BYTES_MAX;

/// A year, after which few ask who changed what.
pub const AUDIT_KEEP: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Longest time that rows of a log are kept, unless for good, in days: a hundred years.
pub const KEEP_MOST_DAYS: u64 = 36_500;

/// Largest text of certificates: a bundle of all public authorities has about as much.
pub const CA_MOST_BYTES: u64 = 256 * 1_024;

/// Beyond it threads only cost memory.
pub const WORKERS_MOST: u64 = 1024;

/// Names end up in metrics, paths of the admin API and log lines.
pub const NAME_MOST_BYTES: usize = 64;

/// A hundred years; keeps sums of milliseconds far from overflowing.
pub const TTL_MOST_MS: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// Limits beyond what any upstream grants; they must also fit SQLite's signed integers.
pub const RATE_MOST: u64 = 1 << 53;

/// Requests at once on one account: more than a server has connections for.
pub const CONCURRENCY_MOST: u64 = 1_000_000;

/// Shares of one priority stay comparable.
pub const WEIGHT_MOST: u64 = 1_000_000;

/// Longest model name or pattern: no request names a longer one.
pub const MODEL_MOST_BYTES: usize = 256;
