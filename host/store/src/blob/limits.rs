//! Limits of blobs, with their reasons.

use std::time::Duration;

/// Bytes of an object by default; a container can have another limit. More than nearly every image or document has.
pub const OBJECT_BYTES: u64 = 100 << 20;

/// Bytes of the longest object that a container can be configured for. An object's size is not bounded by memory, but
/// one that fills the disk is a mistake.
pub const OBJECT_BYTES_MAX: u64 = 1 << 40;

/// Bytes of a key: what S3 and R2 take.
pub const KEY_BYTES: usize = 1_024;

/// Bytes of a content type, and of a cache control: real ones have less than half.
pub const HEADER_BYTES: usize = 256;

/// Entries of user metadata: each becomes a header.
pub const METADATA_ENTRIES: usize = 32;

/// Bytes of a name of user metadata.
pub const METADATA_NAME_BYTES: usize = 64;

/// Bytes of all user metadata of an object, names and values: what S3 takes, and what fits into a server's header limit.
pub const METADATA_BYTES: usize = 2_048;

/// Entity tags in one precondition.
pub const ETAGS: usize = 16;

/// Objects and prefixes in one page of a list, and keys in one removal. Bounds the time and memory of one call.
pub const LIST_ITEMS: usize = 1_000;

/// Bytes of a delimiter; nearly always it is `/`.
pub const DELIMITER_BYTES: usize = 16;

/// What redb needs in a page beside the one value in it: a key of 37 bytes, the value's end, the page's head.
pub const PAGE_OVERHEAD: usize = 64;

/// Bytes of a page of redb.
pub const PAGE_BYTES: usize = 4_096;

/// Bytes of a chunk: with redb's overhead a little under a power of two, since redb rounds a value's pages up to one.
/// Smaller chunks make more rows, larger ones let a short range read more and an edit share less.
pub const CHUNK_BYTES: usize = (128 << 10) - PAGE_OVERHEAD;

/// Rows that a chunk is cut into at most, when it is not as long as its pages: each halves what the last leaves empty.
pub const CHUNK_PARTS: usize = 4;

/// Bytes of the end of a chunk that goes into a row beside others, in one page, rather than into a page of its own.
pub const TAIL_BYTES: usize = 1_024;

/// Bytes of a file that are read at once to hash it, and of what a reader of a file answers: as for chunks.
pub const HASH_BYTES: usize = CHUNK_BYTES;

/// Bytes of a sample that says whether a chunk is worth compressing.
pub const SAMPLE_BYTES: usize = 4_096;

/// zstd's level: 1 is nearly as small as its default for text and images, in half the time.
pub const COMPRESSION_LEVEL: i32 = 1;

/// Bytes that an upload gathers before it hands them to the committer. An upload holds this up to three times: gathered,
/// prepared and on its way. Far under `MESSAGE_BYTES`, so that other writers seldom wait behind it.
pub const UPLOAD_BYTES: usize = 32 * CHUNK_BYTES;

/// Messages of uploads that wait for the committer at once; more uploads wait with theirs, so that uploads never fill the
/// committer's inbox.
pub const UPLOADS_WAITING: usize = 4;

/// Chunks that one step of collection takes off contents that nobody needs any more, on the committer's time: some
/// milliseconds.
pub const COLLECT_CHUNKS: usize = 256;

/// Contents that one step of collection looks at: those that are still being read or uploaded are passed over.
pub const COLLECT_SCAN: usize = 1_000;

/// Chunks, or contents, that a check compares at once, in some 25 MB of memory. For more the list of chunks of all contents is
/// read again, a few thousandths of what the chunks themselves have.
pub const CHECK_AT_ONCE: usize = 1 << 18;

/// Time between steps of collection.
pub const COLLECT_EVERY: Duration = Duration::from_secs(1);

/// Time to the next step when there is more to collect.
pub const COLLECT_SOON: Duration = Duration::from_millis(50);
