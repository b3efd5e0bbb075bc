//! Every limit of the data API, with its reason. What a store takes is limited by the store itself.

use std::time::Duration;

/// Largest JSON body: many values of a kv store, or a batch of statements.
pub(super) const JSON_BYTES: usize = 4 * 1024 * 1024;

/// Memory that a byte of JSON may come to while it is read: `0,` becomes a parameter of 32 bytes. All other lists are
/// bounded by their number, and what is no value is refused at its first byte.
pub(super) const JSON_WEIGHT: usize = 16;

/// Largest JSON body that is read where it comes: some tenths of a millisecond. A larger one is read off the runtime's threads.
pub(super) const JSON_LIGHT_BYTES: usize = 64 * 1024;

/// Memory for request bodies that are read whole, over all requests. Past it a request waits for its turn, and is told to
/// come again.
pub(super) const MEMORY_BYTES: usize = 128 * 1024 * 1024;

/// Memory for JSON that is being read, over all requests: two of the largest bodies. It is held for some tens of milliseconds
/// and never while a client is waited for.
pub(super) const PARSING_BYTES: usize = 2 * JSON_BYTES * JSON_WEIGHT;

/// What an answer is sent in, and how much of each is not counted: an answer to most requests.
pub(super) const ANSWER_PIECE_BYTES: usize = 64 * 1024;

/// Memory for answers, over all requests, until their clients have taken them: two of the largest, 8 MiB of values of which
/// each byte is six of JSON, and some others. Whoever finds none is told to come again.
pub(super) const ANSWERS_BYTES: usize = 128 * 1024 * 1024;

/// Longest time that a client may take for a whole answer from memory: 48 MiB at 100 KiB a second.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(8 * 60);

/// Reads of many keys at once: each may hold 8 MiB of values until they are written as an answer.
pub(super) const KV_READS: usize = 16;

/// How long a request waits for its turn, for memory or for a place, before it is told to come again.
pub(super) const TURN_WAIT: Duration = Duration::from_secs(5);

/// Time for a whole body that is read into memory; as for the gateway's.
pub(super) const BODY_TIME: Duration = Duration::from_secs(60);

/// Uploads of objects at once: each holds up to three times `UPLOAD_BYTES` of the store, 12 MiB.
pub(super) const UPLOADS: usize = 16;

/// An upload must bring this much...
pub(super) const PACE_BYTES: usize = 64 * 1024;

/// ...within this time of waiting for the client: a client that drips holds a place for nothing.
pub(super) const PACE_TIME: Duration = Duration::from_secs(30);

/// Answers with large objects at once: each holds some chunks of 128 KiB, and a lease on its object.
pub(super) const DOWNLOADS: usize = 256;

/// Longest time that a client may take for a chunk of an answer, since it holds a place and a lease: 2 KiB a second.
pub(super) const STALL_TIME: Duration = Duration::from_secs(60);

/// Longest life of a kv entry: a hundred years, as in the configuration.
pub(super) const TTL_MOST_MS: u64 = crate::config::limits::TTL_MOST_MS;

/// How often a conditional write looks again when others write the same key meanwhile.
pub(super) const ATTEMPTS: usize = 16;

/// Entries of a page when none is asked for.
pub(super) const PAGE: u32 = 100;

/// Entries of a page at most; the stores' own limit.
pub(super) const PAGE_MOST: u32 = 1_000;

/// Parts of a multipart upload; what S3 takes.
pub(super) const PARTS: u32 = 10_000;

/// Multipart uploads of a container that are not complete; more are a client that forgets its own.
pub(super) const MULTIPARTS: usize = 100;

/// How long an upload may bring nothing before it gives way to another, where there is no room: longer than any outage that
/// a client waits for.
pub(super) const MULTIPART_IDLE: Duration = Duration::from_secs(6 * 60 * 60);

/// How long a multipart upload may stay incomplete.
pub(super) const MULTIPART_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often forgotten multipart uploads are looked for.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// Time for an SQL call, waiting for a reader or the writer included.
pub(super) const SQL_DEADLINE: Duration = Duration::from_secs(10);

/// Time that a call may keep a database's one writer, or a reader, to itself; as for plugins.
pub(super) const SQL_TURN: Duration = Duration::from_secs(2);

/// Calls of a database at once: half of its readers, so that looking up a client's key never waits for them.
pub(super) const SQL_CALLS_OF_ONE: usize = 2;

/// Calls of all databases at once: each may hold a whole result of 32 MiB.
pub(super) const SQL_CALLS: usize = 16;

/// Parameters of one call, 4 MiB of values: a full batch with 131 for each statement.
pub(super) const SQL_PARAMETERS: usize = 128 * 1024;

/// Statements of one batch.
pub(super) const SQL_BATCH: usize = 1_000;

/// Bytes of the values and names of columns of one answer, as for many keys of kv. Larger ones are asked for in pieces.
pub(super) const SQL_RESULT_BYTES: usize = 8 * 1024 * 1024;

/// Calls of all vector indexes at once: each may hold the vectors of a body, 8 MiB as numbers, or a hundred of an answer.
/// Searches beyond the machine's cores wait within the store.
pub(super) const VECTOR_CALLS: usize = 16;
