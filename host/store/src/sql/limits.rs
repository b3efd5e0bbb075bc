//! Every limit of the SQL side, with its reason.

use std::time::Duration;

/// Bytes of one statement's text. Hand-written and generated statements stay far below; parsing time grows with it.
pub const STATEMENT_BYTES: usize = 256 * 1024;

/// Parameters of one statement: a multi-row insert of some hundred rows of the widest table we have.
pub const PARAMETERS: usize = 8_192;

/// Statements of one batch. Those of the gateway's request log have up to 2,600; beyond it, nobody else would get a turn.
pub const BATCH_STATEMENTS: usize = 10_000;

/// Bytes of a value, a row, or a batch's texts and parameters. A plugin's component (a few MiB) fits into a row.
pub const VALUE_BYTES: usize = 16 * 1024 * 1024;

/// Bytes that SQLite may allocate in this process, for all connections of all databases. One statement can ask for a
/// value of `VALUE_BYTES` in each of two thousand columns; it fails here, before the machine does.
pub const HEAP_BYTES: i64 = 256 * 1024 * 1024;

/// Bytes from which on page caches no longer grow, so that the rest of the heap is for statements.
pub const HEAP_CACHES_BYTES: i64 = 192 * 1024 * 1024;

/// Rows of one result. A result is handed over whole, so it is bounded like a page of an API; larger ones come in pages.
pub const RESULT_ROWS: usize = 100_000;

/// Bytes of one result, its columns' names included: what a few dozen callers at once may hold on a small machine.
pub const RESULT_BYTES: usize = 32 * 1024 * 1024;

/// Bytes that the name of a column counts beside its text.
pub const COLUMN_BYTES: usize = 24;

/// Rows of one page of a large result: enough that the way from page to page costs little beside the rows.
pub const PAGE_ROWS: usize = 1_000;

/// Bytes at which a page of a large result is full. Two pages are in memory for each reader; the last row comes on top.
pub const PAGE_BYTES_MOST: usize = 1024 * 1024;

/// Results of a database that are read page by page at once. Each holds a connection, a thread and a snapshot for as long
/// as its reader takes; more wait for their turn.
pub const PAGED_READS: usize = 4;

/// Bytes of pages that one transaction may write. They wait in memory until the commit and hold up the committer for
/// some hundred milliseconds at this size.
pub const TRANSACTION_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of temporary files (sorting, materialised subqueries, VACUUM's copy) of all connections of a database; they live
/// in memory, because nothing of ours may touch the host's files.
pub const TEMPORARY_BYTES: u64 = 96 * 1024 * 1024;

/// How long a call may take when it does not say itself. Longer reads keep redb from reusing pages; longer writes keep
/// everybody else waiting.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Virtual machine steps between two looks at the deadline: a few microseconds, or as many functions of the largest values,
/// some milliseconds each.
pub const STEPS_BETWEEN_CHECKS: i32 = 256;

/// Work of a function of ours between two looks at the deadline, about a nanosecond each.
pub const FUNCTION_WORK: usize = 1024 * 1024;

/// Bytes of the pattern of a LIKE or GLOB, which may be compared at every byte of a value in one step: some seconds for a
/// value of `VALUE_BYTES`. D1 has 50.
pub const LIKE_PATTERN_BYTES: usize = 256;

/// Arguments of one function, each of which may have `VALUE_BYTES` and is read in the same step. D1 has 32.
pub const FUNCTION_ARGUMENTS: usize = 127;

/// Different characters that a trim takes away; each is remembered while it runs.
pub const TRIM_CHARACTERS: usize = 65_536;

/// Product of the bytes of the two arguments of json_patch, which compares each name of one with each of the other in one
/// step: a second at most.
pub const JSON_PATCH_PRODUCT: usize = 1024 * 1024 * 1024;

/// Reader connections of a database. Readers compete for two to eight cores; more only cost memory.
pub const READERS: usize = 4;

/// SQLite's page cache of one reader. Any commit empties it, so a large one does not pay; redb's cache lies below.
pub const READER_CACHE_KIB: i64 = 2 * 1024;

/// SQLite's page cache of the writer, which nobody else invalidates.
pub const WRITER_CACHE_KIB: i64 = 8 * 1024;

/// Sets of rules that a database remembers beside those in use, so that the statements prepared under them are found again.
pub const ACCESSES: usize = 256;

/// Prepared statements that a connection keeps: all of the host's and of a few plugins.
pub const CACHED_STATEMENTS: usize = 128;

/// Write calls that may wait for the writer; more wait outside, in their callers.
pub const WRITER_QUEUE: usize = 1_024;

/// Write calls that share one commit: beyond it the fsync is paid for, and a failure would repeat too much work.
pub const GROUP_CALLS: usize = 256;

/// Bytes of texts and parameters after which no further call joins a commit.
pub const GROUP_BYTES: usize = 1024 * 1024;

/// Time after which no further call joins a commit, so that the first ones do not wait for the last.
pub const GROUP_TIME: Duration = Duration::from_millis(5);

/// SQLite's page size of a new database, and the size of the chunks in redb.
pub const PAGE_BYTES: u32 = 4_096;

/// Bytes at the end of each page that SQLite leaves alone. They stay zero and are not stored, so that a whole chunk with
/// its key fits into one leaf of redb; without them it takes two, and the file is twice as large.
pub const RESERVED_BYTES: i32 = 32;

/// Bytes of one commit of an import. It holds up the committer for some tens of milliseconds.
pub const IMPORT_COMMIT_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of a file that is imported: far more than anybody would put into one store, and far from the highest chunk.
pub const IMPORT_BYTES: u64 = 1024 * 1024 * 1024 * 1024;

/// Bytes of one piece of an export, which is in memory at once: a few milliseconds of a blocking thread.
pub const EXPORT_PIECE_BYTES: usize = 1024 * 1024;

/// Exports of a database at once; each keeps old pages as long as it lasts.
pub const EXPORTS: usize = 2;

/// Chunks of a file nobody has any more that one commit removes: a few milliseconds of the committer.
pub const LEFTOVER_CHUNKS: usize = 2_048;

/// Time to the next look for such files.
pub const LEFTOVERS_EVERY: Duration = Duration::from_secs(1);

/// Time to the next step while there is one.
pub const LEFTOVERS_SOON: Duration = Duration::from_millis(20);

/// Time for SQLite's own check of a database: some hundred gigabytes. It keeps old pages as long as it lasts.
pub const CHECK_TIME: Duration = Duration::from_secs(60 * 60);

/// Time for counting the rows of a table: some ten million. A report does without the count of a larger one.
pub const COUNT_TIME: Duration = Duration::from_secs(2);

/// Databases of a store: each has a writer thread and its connections.
pub const DATABASES: usize = 64;

/// Bytes of a database's name.
pub const NAME_BYTES: usize = 128;
