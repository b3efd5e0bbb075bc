//! Limits of vectors, with their reasons.

/// Dimensions of an index at most: more than any embedding model in use has, and a page of 1,000 vectors still fits into
/// some megabytes.
pub const DIMENSIONS: usize = 4_096;

/// Vectors of an index by default: at 1,024 dimensions a good hundred megabytes of memory, which a small machine has.
pub const VECTORS: u64 = 100_000;

/// Vectors that an index can be configured for. A scan of as many takes a third of a second, and their codes some ten
/// gigabytes at 1,024 dimensions; beyond it the scan is the wrong way to search.
pub const VECTORS_MOST: u64 = 10_000_000;

/// Bytes of an id: as of a kv key, so that one name can stand for both.
pub const ID_BYTES: usize = 512;

/// Bytes of the name of a namespace: what Vectorize takes.
pub const NAMESPACE_BYTES: usize = 64;

/// Bytes of the metadata of a vector, as JSON: what Vectorize takes.
pub const METADATA_BYTES: usize = 10 << 10;

/// Bytes of a name in metadata: what Vectorize takes.
pub const PROPERTY_BYTES: usize = 512;

/// Indexed properties of an index: their values are in memory, for each vector. What Vectorize takes.
pub const INDEXED: usize = 10;

/// Bytes of a text in an indexed property that filters compare; the rest does not count. Ids, kinds, dates and most
/// addresses have fewer, and this much stays in memory for each vector.
pub const INDEXED_TEXT_BYTES: usize = 256;

/// Bytes of a filter, as JSON: what Vectorize takes. A filter is tried on each vector.
pub const FILTER_BYTES: usize = 2_048;

/// Values that one `$in` or `$nin` of a filter lists, for the same reason.
pub const FILTER_VALUES: usize = 100;

/// Matches that a query answers at most: what Vectorize takes. With metadata they are a few megabytes.
pub const TOP_K: usize = 100;

/// Vectors of one upsert or insert, and ids of one removal. Bounds the time of one commit.
pub const LIST_ITEMS: usize = 1_000;

/// Ids of one `get_by_ids`: with values and metadata they are a few megabytes.
pub const GET_IDS: usize = 100;

/// Vectors of a block in memory: a megabyte at 1,024 dimensions. Larger blocks are copied for longer when they are cleaned.
pub const BLOCK_VECTORS: usize = 1_024;

/// A block is cleaned when more than this part of it is dead, in hundredths. It bounds the memory and the time of a scan
/// that dead vectors cost, and how often a living one is copied.
pub const DEAD_PERCENT: usize = 30;

/// Candidates that are compared exactly at least, for each match wanted, and for a query of one match.
pub const CANDIDATES_EACH: usize = 3;

/// Candidates that are compared exactly at least, however few matches are wanted.
pub const CANDIDATES_LEAST: usize = 30;

/// Candidates that are compared exactly at most: each is read from the file, in a microsecond or two.
pub const CANDIDATES_MOST: usize = 1_000;

/// How many standard deviations the rounding of codes is trusted to stay within. Five are once in two million, and more
/// than the worst case up to eight dimensions.
pub const ROUNDING_DEVIATIONS: f64 = 5.0;

/// Every so many queries one is compared with an exact search in a sample, once it is answered.
pub const SAMPLE_EVERY: u64 = 256;

/// Vectors of such a sample: some milliseconds of a blocking thread.
pub const SAMPLE_VECTORS: usize = 4_096;

/// Bytes of a page of redb.
pub const PAGE_BYTES: usize = 4_096;

/// What redb needs in a page beside the one value in it.
pub const PAGE_OVERHEAD: usize = 64;

/// Bytes of a vector's values in a row of its own page. redb rounds a value's pages up to a power of two: 1,024 dimensions
/// in one row would take twice their bytes. What is left of them shares its pages with others.
pub const PART_BYTES: usize = PAGE_BYTES - PAGE_OVERHEAD;
