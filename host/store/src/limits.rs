//! Every limit of the store, with its reason.

use std::time::Duration;

/// Bytes of redb's page cache by default: fits a small machine; set more on a large one.
pub const CACHE_BYTES: usize = 32 << 20;

/// Bytes of clean kv values in memory by default, for the same reason.
pub const KV_CACHE_BYTES: u64 = 32 << 20;

/// Bytes of a kv key. Keys are compared and copied on every call; the contract promises this much.
pub const KEY_BYTES: usize = 512;

/// Bytes of a kv value. What is larger belongs into a blob; the contract promises this much.
pub const VALUE_BYTES: usize = 1 << 20;

/// Items of a list argument, and keys of a page. Bounds the time and memory of one call.
pub const LIST_ITEMS: usize = 1_000;

/// Bytes of one list argument, of the values that one call answers, and of one message to the committer: what a single
/// writer can make all others wait for. About 40 ms of writing on a slow disk.
pub const MESSAGE_BYTES: usize = 8 << 20;

/// Bytes of messages that go into one commit; more wait for the next, so that no commit takes seconds.
pub const GROUP_BYTES: usize = 32 << 20;

/// Bytes of messages that may wait. Writers wait for their answer, so this is only met when very many write at once;
/// they are then told to come again rather than fill the memory.
pub const INBOX_BYTES: usize = 128 << 20;

/// Bytes counted for a message beside its content, so that many empty ones are bounded too.
pub const MESSAGE_OVERHEAD: usize = 128;

/// Bytes of kv entries that may wait for the disk; writers wait above it. A commit of this much takes well under a
/// second, and a small machine has this much to spare.
pub const OVERLAY_BYTES: usize = 64 << 20;

/// Bytes counted for an entry in memory beside key and value: map slot, reference counts, dirty list.
pub const ENTRY_OVERHEAD: usize = 160;

/// How long a relaxed write waits for company. It is promised to be on disk within 50 ms; the rest is for the commit
/// that runs already and for its own.
pub const RELAXED_FLUSH_AFTER: Duration = Duration::from_millis(20);

/// Shards of the overlay: enough that two cores seldom meet in one, few enough to walk through for each commit.
pub const SHARDS: usize = 64;

/// Bytes of the name of a store or queue.
pub const NAME_BYTES: usize = 128;

/// Names of stores and queues in one file. Names come from configuration and code, so this only stops a mistake.
pub const NAMES: usize = 100_000;

/// Bits of the filter that knows which keys of a store are absent: 8 KiB for each store that is open.
pub const PRESENCE_BITS: usize = 1 << 16;

/// Keys of a store that are read into its filter when it is opened, in a few milliseconds. With so many the filter is
/// wrong about one absent key in seventy; a store with more has no use for it.
pub const PRESENCE_KEYS: usize = 4_096;

/// Rows that one sweep looks at for expiry, on the committer's time: under a millisecond from memory.
pub const SWEEP_ROWS: usize = 1_000;

/// Time between sweeps.
pub const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Time to the next sweep when the last found a good part of its rows expired.
pub const SWEEP_SOON: Duration = Duration::from_millis(100);

/// Rows one call of `list_keys` looks at before it returns a short page: bounds the time spent on expired rows.
pub const LIST_SCAN_ROWS: usize = 100_000;

/// Keys that a transaction reads, and keys that it or a batch writes: all of them are locked together for a moment, and
/// with each further read all others are looked at again.
pub const TRANSACTION_ITEMS: usize = 1_000;

/// Bytes that a transaction reads and keeps, and bytes that it or a batch writes; as for one message to the committer.
pub const TRANSACTION_BYTES: usize = MESSAGE_BYTES;

/// How often a transaction looks at what it read before it gives way. Another look is needed each time a commit ends
/// during the look before and memory has let go of a value it needs.
pub const TRANSACTION_CHECKS: usize = 16;

/// Rows that one step through a snapshot looks at: a few milliseconds of a blocking thread.
pub const SNAPSHOT_STEP_ROWS: usize = 10_000;

/// Bytes of entries at which a step through a snapshot ends; the last value comes on top.
pub const SNAPSHOT_STEP_BYTES: usize = 1 << 20;

/// Entries of each priority in a cache by default.
pub const CACHE_ENTRIES: u64 = 1_000;

/// Entries of each priority in a cache at most: with their overhead a few dozen megabytes.
pub const CACHE_ENTRIES_MOST: u64 = 100_000;

/// Bytes of each priority in a cache by default: 8 KiB for each of its entries.
pub const CACHE_ROOM_BYTES: u64 = 8 << 20;

/// Bytes of each priority in a cache at most; keeps a mistyped unit from asking for more memory than the machine has.
pub const CACHE_ROOM_BYTES_MOST: u64 = 1 << 30;

/// Caches of one store. Names come from configuration and code, so this only stops a mistake.
pub const CACHES: usize = 1_000;

/// Longest life of an entry in a cache: what is wanted for longer belongs into a kv store.
pub const CACHE_TTL_MOST_MS: u64 = 24 * 60 * 60_000;

/// Shortest life that a low hit rate leaves to entries: under it the entries would be gone before they are asked for.
pub const CACHE_TTL_LEAST_MS: u64 = 1_000;

/// Lookups after which a cache looks at its hit rate: enough that chance does not decide.
pub const ADAPT_LOOKUPS: u64 = 1_000;

/// How often a strategy's expiry is doubled, or halved: from an eighth to eight times of what was configured, so that
/// what an operator chose is still recognised.
pub const ADAPT_DOUBLINGS: i32 = 3;

/// Bytes of one event in a queue: an event is a record of a request, not its body.
pub const EVENT_BYTES: usize = 1 << 20;

/// Bytes counted for an event beside its content: its places in memory.
pub const EVENT_OVERHEAD: u64 = 64;

/// Bytes of events one row holds: far fewer rows to write and remove than one for each event.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Bytes of durable events that a queue keeps in memory for its reader, who is normally right behind.
pub const TAIL_BYTES: usize = 4 << 20;

/// Problems that a report of a store names; a damaged store may have millions.
pub const PROBLEMS: usize = 100;

/// Rows of a queue that one commit removes; removing is redb's weak side.
pub const REMOVE_ROWS: usize = 256;
