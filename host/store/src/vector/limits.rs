//! Limits of vectors, with their reasons.

/// Dimensions of an index at most: more than any embedding model in use has, and a page of 1,000 vectors still fits into
/// some megabytes.
pub const DIMENSIONS: usize = 4_096;

/// Vectors of an index by default: at 1,024 dimensions a good hundred megabytes of memory, which a small machine has.
pub const VECTORS: u64 = 100_000;

/// Vectors that an index can be configured for. Their codes are some ten gigabytes at 1,024 dimensions, and a scan of as
/// many, when there is no graph yet, takes a third of a second.
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

/// Vectors up to which an index has no graph, by default: a scan of as many takes half a millisecond at 1,024 dimensions.
pub const EXACT_UP_TO: u64 = 20_000;

/// The least of it that an index can be configured for: a graph of as many as fit into a block saves nothing.
pub const EXACT_UP_TO_LEAST: u64 = 1_000;

/// Links of a node of the graph on each level, and half of those on the lowest: the usual number, 130 bytes a vector. With
/// twice as many the graph takes twice the memory and time to build, for the recall that a third more effort gives.
pub const LINKS: usize = 16;

/// Levels of the graph above the lowest at most. Each has a sixteenth of the nodes of the one under it.
pub const LEVELS: u32 = 6;

/// How many of the nearest a new node is linked from: more cost time in proportion and hardly better the graph.
pub const BUILD_EFFORT: usize = 128;

/// Links that a new node has at least where there are as many others near: fewer lead to too few, and more than a walk comes
/// by from elsewhere cost the time of each walk.
pub const LINKS_LEAST: usize = LINKS / 2;

/// Nodes of the very same code that hang under one of them at most. They lead nowhere else, and must not take the places of
/// those that do.
pub const TWINS: usize = 4;

/// How much the builder of graphs gives way to other threads, as `nice` counts: a tenth of the time of a processor that
/// others want too.
pub const BUILDER_NICE: i32 = 10;

/// How many of the nearest a walk through a graph of up to `EFFORT_VECTORS` keeps: with 91,160 sentences it finds 99 of 100.
/// By dot products it keeps twice as many: long vectors are near everything, and walks end among them (of 30,000 sentences
/// whose lengths differ by a third, 94 of 100 were found with this effort and 96 with more than twice as much).
pub const EFFORT: f64 = 96.0;

/// The effort grows from here on.
pub const EFFORT_VECTORS: f64 = 100_000.0;

/// By this power of the vectors: 258 at a million.
pub const EFFORT_GROWTH: f64 = 0.43;

/// A walk whose nearest are too close together for rounded vectors to tell apart is made again with so many times the
/// effort, up to `CANDIDATES_MOST`.
pub const WIDER: usize = 3;

/// Nodes of the graph that tell how many vectors a filter takes.
pub const SAMPLED_NODES: u64 = 1_024;

/// Half of `exact_up_to` vectors are scanned rather than walked to, and more with the root of what the graph has over so
/// many times `exact_up_to`: 30,000 of a million, where both were measured to take as long.
pub const SCANNED_GROWTH: f64 = 5.5;

/// A walk that came by more than this part of the graph gives way to a scan, which takes as long: its filter takes fewer
/// vectors than the sample said, or what it looks for is far from everything.
pub const WALK_PART: usize = 4;

/// It may always come by so many for each of the nearest that it keeps: all links of each.
pub const WALK_EACH: usize = 32;

/// A block is cleaned when more than this part of it is dead, in hundredths, and so is a graph. It bounds the memory and the
/// time of a search that dead vectors cost, and how often a living one is copied.
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

/// Vectors of such a sample: their codes are scanned in two milliseconds at 1,024 dimensions, for each query some
/// microseconds of a blocking thread.
pub const SAMPLE_VECTORS: usize = 65_536;

/// Those of a sample that are compared by their values, each read from the file, at most: most are far by their codes.
pub const SAMPLE_COMPARED: usize = 4_096;

/// Bytes of a page of redb.
pub const PAGE_BYTES: usize = 4_096;

/// What redb needs in a page beside the one value in it.
pub const PAGE_OVERHEAD: usize = 64;

/// Bytes of a vector's values in a row of its own page. redb rounds a value's pages up to a power of two: 1,024 dimensions
/// in one row would take twice their bytes. What is left of them shares its pages with others.
pub const PART_BYTES: usize = PAGE_BYTES - PAGE_OVERHEAD;
