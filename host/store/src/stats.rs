//! Figures of a running store.

/// What a store has done and what waits in it. Counters start at 0 when the store is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// redb commits made.
    pub commits: u64,
    /// Rows of kv stores written or removed by commits.
    pub kv_writes: u64,
    /// Longest time, in microseconds, from a write to the end of its commit, in the latest commit.
    pub lag_us: u64,
    /// The same, greatest since the store was opened.
    pub max_lag_us: u64,
    /// Microseconds the latest commit took.
    pub commit_us: u64,
    /// Bytes of kv entries that are not on disk yet.
    pub overlay_bytes: u64,
    /// Bytes of clean kv values in memory, as far as known.
    pub cache_bytes: u64,
    /// Bytes of messages that wait for the committer.
    pub waiting_bytes: u64,
    /// Whether a storage error stopped all writing.
    pub poisoned: bool,
}
