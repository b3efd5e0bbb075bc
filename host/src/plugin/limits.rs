//! Every limit of the runtime, with its reason.
//!
//! The ones a manifest may set are defaults with a maximum; the others hold for every plugin. What a plugin runs into is
//! counted in `tollgate_plugin_limit_hits_total`. Keys, values, lists, statements and results of a store are bounded for
//! everybody: [`kv`] and [`sql`]. What a plugin may keep in a kv store in all is the store's limit, of the configuration
//! ([`KV_LIMIT_BYTES`](crate::config::limits::KV_LIMIT_BYTES)).

use std::time::Duration;

pub use tollgate_store::limits as kv;
pub use tollgate_store::sql::limits as sql;

/// Bytes of a component. The largest policy in Rust we know, with regex and JSON, has 1 MiB, one that carries a JavaScript
/// engine 12 MiB, one with a Python 18 MiB.
pub const COMPONENT_BYTES: usize = 32 << 20;

/// Processor time that compiling one component may take, in whole seconds. What a compiler made takes up to 1 s a MiB; code
/// made to be slow takes far longer (140 KB of nested loops 78 s).
pub const COMPILE_CPU: Duration = Duration::from_secs(60);

/// Memory that compiling one component may take.
pub const COMPILE_BYTES: u64 = 2 << 30;

/// Bytes that a policy in Rust should stay under; `tollgate plugin check` notes what is larger. The shipped ones have 57 to 93 KB, and
/// a component is compiled while an operator waits for the push.
pub const COMPONENT_BYTES_AIM: usize = 100_000;

/// Components within components, and types within types: compilers nest two or three deep, and composing tools a few more.
pub const COMPONENT_DEPTH: usize = 16;

/// Components and modules in a component; a large composition has some dozens.
pub const COMPONENT_PARTS: usize = 1_000;

/// Bytes of a manifest; a generous one has 2 KiB.
pub const MANIFEST_BYTES: usize = 64 << 10;

/// Bytes of a plugin's name: it stands in metrics, paths and tables.
pub const NAME_BYTES: usize = 64;

/// Grants in one manifest, so that checking them stays cheap.
pub const GRANTS: usize = 64;

/// Linear memory of one instance unless the manifest says otherwise: fifteen times what a policy uses.
pub const MEMORY_BYTES: usize = 16 << 20;

/// The most linear memory that a manifest may ask for; the pooling allocator's slots are this large.
pub const MEMORY_BYTES_MAX: usize = 64 << 20;

/// Linear memory of all instances of a plugin together unless the manifest says otherwise: the default instances with four
/// times what a policy uses. Every instance may grow to its own limit, but not all of them at once.
pub const TOTAL_MEMORY_BYTES: usize = 256 << 20;

/// The most of it that a manifest may ask for.
pub const TOTAL_MEMORY_BYTES_MAX: usize = 1 << 30;

/// Stack of a guest; a deeper recursion is a trap. The engine's own stack of a call is four times this, for host calls.
pub const STACK_BYTES: usize = 512 << 10;

/// Elements of one table of an instance, that is, functions called through pointers; a Rust policy has a few hundred.
pub const TABLE_ELEMENTS: usize = 20_000;

/// An admit call: a client notices more than this. All deadlines count the time in which the guest runs, in ticks.
pub const ADMIT_DEADLINE: Duration = Duration::from_millis(20);

/// What a call may take beyond its deadline by the clock on the wall, for waiting: on a starved machine or a slow disk
/// twenty milliseconds pass without the guest having run at all, and a request refused is worse than one that is late.
pub const WAITING: Duration = Duration::from_millis(500);

/// A settle call of up to `SETTLE_BATCH` settlements.
pub const SETTLE_DEADLINE: Duration = Duration::from_millis(50);

/// An ingest call: one durable batch of SQL, with room for a slow disk.
pub const INGEST_DEADLINE: Duration = Duration::from_secs(5);

/// An init call: creates tables and indexes, perhaps over many rows.
pub const INIT_DEADLINE: Duration = Duration::from_secs(10);

/// One run of a job unless the manifest says otherwise.
pub const JOB_DEADLINE: Duration = Duration::from_secs(60);

/// Running time of the answer to one request under a plugin's route, unless the manifest says otherwise: a slow page in an
/// interpreted language.
pub const HTTP_DEADLINE: Duration = Duration::from_secs(5);

/// A schedule call, which only lists jobs; but it is the first call of an instance, and on a busy machine an interpreter takes
/// some hundred milliseconds for that.
pub const SCHEDULE_DEADLINE: Duration = Duration::from_secs(2);

/// The longest deadline that a manifest may ask for, for any hook.
pub const DEADLINE_MAX: Duration = Duration::from_secs(3_600);

/// Calls of one generation at once, and so its instances in use, unless the manifest says otherwise. A policy call takes
/// microseconds, so that only slow hosts ever come near.
pub const INSTANCES: u32 = 64;

/// The most instances that a manifest may ask for: a quarter of the engine's, so that no plugin starves the others.
pub const INSTANCES_MAX: u32 = ENGINE_INSTANCES / 4;

/// Instances of all plugins together. Each costs 24 KiB of resident memory once used, and address space.
pub const ENGINE_INSTANCES: u32 = 1_024;

/// Core instances, memories and tables for each component instance: a Rust component has three, one and two.
pub const PARTS_PER_INSTANCE: u32 = 4;

/// Linear memories of one component: its program's, and a small one of what other languages' tools put before it. An
/// instance's limit counts them together.
pub const MEMORIES_PER_COMPONENT: u32 = 2;

/// Memory maps of one warm instance (4) and its stack (2), against `vm.max_map_count`.
pub const MAPS_PER_INSTANCE: u32 = 6;

/// Idle instances that each worker keeps for a generation: calls rarely wait, so that few are ever open at once.
pub const IDLE_PER_WORKER: usize = 8;

/// Calls after which an instance is replaced, so that a slow leak in a guest stays small. At 37 µs an instance this is
/// under 4 ns a call.
pub const CALLS_PER_INSTANCE: u32 = 10_000;

/// Bytes that one host call may bring from a guest, and one call's answer: a full batch of SQL statements, which take
/// about twice the room here.
pub const HOST_CALL_BYTES: usize = 32 << 20;

/// Host calls within one call off a request's way (`ingest`, `run`, `init`). At 0.3 µs each this bounds what a job does
/// within its deadline.
pub const HOST_CALLS: u32 = 1_000_000;

/// Host calls within one `admit`, `settle` or `schedule`: a batch of settlements makes two for each of 64.
pub const POLICY_HOST_CALLS: u32 = 20_000;

/// Bytes that one call off a request's way may have the host read, write or answer in all: as much as the memory that a
/// manifest may ask for. A job that needs more goes in several runs.
pub const HOST_BYTES: usize = MEMORY_BYTES_MAX;

/// The same for `admit`, `settle` and `schedule`. The host's copying is not the guest's running time, so that the deadline
/// does not bound it: this much takes some milliseconds. A full batch of quota's settlements moves 400 KiB.
pub const POLICY_HOST_BYTES: usize = 8 << 20;

/// How long one SQL call of a plugin may hold the one writer of its database, or a reader. A batch of 1,024 events took 50
/// ms, a full one has four times as many; ingestion's deadline of 5 s must leave room for waiting behind another plugin's call.
pub const SQL_TURN: Duration = Duration::from_secs(2);

/// The same for `init`, which may build an index over many rows while an operator waits.
pub const INIT_SQL_TURN: Duration = INIT_DEADLINE;

/// SQL calls of one plugin on one database at the same time: half of the readers, so that looking up a client's key never
/// waits for a plugin's long query. More wait within the time of their call.
pub const SQL_CALLS_AT_ONCE: usize = 2;

/// Bytes of an object that one `get` answers: as much as the budget of a policy. Longer ones are read piece by piece.
pub const BLOB_GET_BYTES: usize = 8 << 20;

/// Bytes of a piece that a reader answers; eight chunks of the store.
pub const BLOB_PIECE_BYTES: usize = 1 << 20;

/// Readers of one plugin on one container at the same time: each may hold a piece and a chunk of an object.
pub const BLOB_READERS: usize = 32;

/// Writers of one plugin on one container at the same time: each may hold 12 MiB in the host, gathered, prepared and on the way
/// to the disk.
pub const BLOB_WRITERS: usize = 4;

/// Bytes of a content that `wasi:blobstore` has been given before it is told which object it becomes: as much as one `put` of an
/// object in memory has in a policy's budget. Other hosts take 1 MB.
pub const BLOB_HELD_BYTES: usize = 8 << 20;

/// Contents of one plugin that hold bytes so: together no more than its writers may hold on one container.
pub const BLOBS_HELD: usize = BLOB_WRITERS;

/// Bytes that a guest may write to a stream of `wasi:blobstore` at once; the store gathers them.
pub const BLOB_STREAM_BYTES: usize = 64 << 10;

/// Queries of one plugin on one vector index at the same time: each takes a core while it scans. More wait within the time of
/// their call.
pub const VECTOR_QUERIES_AT_ONCE: usize = 2;

/// Items in a list argument of a kv call, and keys in a page; `wit/storage/kv.wit` promises it.
pub const LIST_ITEMS: usize = 1_000;

/// Statements in one SQL batch: the ingestion plugin's largest have 7,000.
pub const BATCH_STATEMENTS: usize = 10_000;

/// Handles (stores, streams, pollables) that an instance may hold open.
pub const HANDLES: usize = 256;

/// Bytes of a plugin's route.
pub const ROUTE_BYTES: usize = 128;

/// Requests that all plugins together answer under their routes at once: a quarter of the engine's instances, which those of
/// slow clients may hold for minutes, so that policies always find theirs.
pub const HTTP_CALLS: usize = ENGINE_INSTANCES as usize / 4;

/// Time to the head of an answer.
pub const HTTP_HEAD: Duration = Duration::from_secs(60);

/// Time from a request's arrival to the last byte of its answer: a client that reads slowly holds an instance as long.
pub const HTTP_TOTAL: Duration = Duration::from_secs(300);

/// Milliseconds after which a client may try again for whom there was no room.
pub const HTTP_RETRY_AFTER: u64 = 1_000;

/// How long a guest may wait for the next bytes of a request's body.
pub const HTTP_SILENCE: Duration = Duration::from_secs(30);

/// Bytes of a request's body, and of an answer to a request that a plugin sent. It streams, so that no memory holds them: what
/// never ends is just cut off.
pub const HTTP_BODY_BYTES: usize = 100 << 20;

/// Bytes of an answer's body, for the same reason.
pub const HTTP_ANSWER_BYTES: u64 = 1 << 30;

/// Bytes that a guest may write to an answer at once. Two of these may wait for a slow client, for each of the answers that
/// an instance has handles for.
pub const HTTP_CHUNK_BYTES: usize = 16 << 10;

/// Bytes of the method, authority or path of a request that a guest makes: as much as servers take. It counts as
/// the instance's memory.
pub const HTTP_TEXT_BYTES: usize = 8 << 10;

/// Memory of one set of headers: some hundred of them. What an instance has of them counts as its memory.
pub const HTTP_FIELDS_BYTES: usize = 32 << 10;

/// Requests that one plugin may have sent and not yet read the answers of.
pub const HTTP_SENDS: usize = 32;

/// Time to reach a host that a plugin sends a request to.
pub const HTTP_CONNECT: Duration = Duration::from_secs(10);

/// Connections to one host that are kept for the next requests of a plugin.
pub const HTTP_IDLE_CONNECTIONS: usize = 4;

/// How long they are kept.
pub const HTTP_KEPT_IDLE: Duration = Duration::from_secs(30);

/// Random bytes in one call.
pub const RANDOM_BYTES: u64 = 64 << 10;

/// Bytes of a ticket; it lies in memory as long as the request runs.
pub const TICKET_BYTES: usize = 1 << 10;

/// Bytes of each text of a denial, an error or a report that a guest gives; longer ones are cut. They go to clients and logs.
pub const TEXT_BYTES: usize = 1 << 10;

/// Subjects in one admit call.
pub const SUBJECTS: usize = 64;

/// Milliseconds by which a request's time may lie back when plugins are asked about it: one bucket of the quota's minute.
pub const REQUEST_AGE_MS: u64 = 1_000;

/// Leases open or waiting for settlement. Each place costs nothing until it is used; this bounds what a flood of
/// requests or a hanging plugin can pile up.
pub const SETTLE_QUEUE: usize = 32_768;

/// Settlements in one settle call: larger batches save nothing more.
pub const SETTLE_BATCH: usize = 64;

/// Under load a batch gathers this long before the next is sent; after a pause it goes at once.
pub const SETTLE_LINGER: Duration = Duration::from_millis(1);

/// Times a settlement is tried in a batch; then once more alone, then it is counted as lost.
pub const SETTLE_ATTEMPTS: u32 = 3;

/// Wait before a settlement is tried again.
pub const SETTLE_RETRY_WAIT: Duration = Duration::from_millis(20);

/// How long the settler waits for a batch; it goes on beside then. A batch of quota's takes some 0.3 ms.
pub const SETTLE_PATIENCE: Duration = Duration::from_millis(5);

/// Batches that go on beside; while there are more, settling waits. A plugin whose every call hangs leaves room for seven
/// thousand settlements a second.
pub const SETTLE_BESIDE: usize = 64;

/// Batches of one plugin that are tried again at once after a trap or an overrun; what fails so beyond them is lost, or a
/// plugin that always does would hold up the settling of all.
pub const SETTLE_RETRIES: usize = 4;

/// How long a shutdown waits for the settlements still open.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// Lines of a plugin's stdout and stderr that go to the log in one second; the rest is counted and dropped.
pub const LOG_LINES_PER_SECOND: u32 = 50;

/// Bytes of one line of it; longer ones are broken.
pub const LOG_LINE_BYTES: usize = 4 << 10;

/// Lines of each plugin that are kept in memory for `tollgate plugin logs`: some screens.
pub const LOG_KEPT_LINES: usize = 1_000;

/// Bytes of them: more than a hundred of the longest lines.
pub const LOG_KEPT_BYTES: usize = 512 << 10;

/// How long an answer waits for new lines of a plugin, at most: a stopping server waits for it.
pub const LOG_WAIT: Duration = Duration::from_secs(2);

/// Length of the engine's tick while a guest is slow, which bounds how late a deadline interrupts it.
pub const TICK: Duration = Duration::from_millis(1);

/// Length of a tick while all guests are quick. A guest that becomes slow keeps its worker for up to two of these, and is
/// ended that much later, once; then the ticks are short. At 20 µs each, short ones all the time took 6 % of a busy server's
/// processor time.
pub const CALM_TICK: Duration = Duration::from_millis(4);

/// Length of a tick while nothing is called: what a guest may overrun that wakes up from a long wait.
pub const IDLE_TICK: Duration = Duration::from_millis(100);

/// How long the ticks stay short after a guest was slow, and calm after a call.
pub const PACE_KEPT: Duration = Duration::from_secs(1);

/// Processor time after which a call leaves the worker of its request, counted from its first tick, and which a call in the
/// slow lane may use and count as quick. A policy takes microseconds; two of these and a tick are the longest that a request
/// may wait behind one that has been hostile lately.
pub const QUICK_CALL: Duration = Duration::from_millis(1);

/// Bytes that the host may move for a call that counts as quick: under a millisecond of copying, and five times what a full
/// batch of quota's settlements moves.
pub const QUICK_BYTES: usize = 2 << 20;

/// Calls of a hook that start in the slow lane after one that was slow: a hostile guest spends a tick of a worker on one in
/// so many, and one that was slow by accident is back within moments.
pub const SUSPECT_CALLS: u32 = 64;

/// How long a call that is only suspected waits in a slow lane in which nobody has a turn; then it goes back to its worker.
/// A policy's whole call may take as long.
pub const LANE_PATIENCE: Duration = Duration::from_millis(20);

/// Threads of the slow lane: so that the long calls of two plugins do not wait for each other. They run when a processor has
/// nothing else to do (`SCHED_IDLE`): with a niceness of 19 a neighbour's p99 was still three times its quiet value.
pub const LANE_THREADS: usize = 2;

/// Calls of one plugin that run in the slow lane at the same time; more take turns of a tick.
pub const LANE_TURNS: usize = 1;

/// Memory of a freed slot that is cleared and kept rather than given back to the system: what a policy has touched.
pub const KEEP_RESIDENT_BYTES: usize = 256 << 10;

/// Freed slots that keep such memory; instances are replaced rarely, so few are ever waiting.
pub const WARM_SLOTS: u32 = 16;

/// Frames of a guest's backtrace in a trap's text.
pub const BACKTRACE_FRAMES: usize = 8;

// Rollout.

/// Bytes of compiled code kept on disk: a few hundred versions of a policy of 100 KB, or a dozen of the largest.
pub const MAX_COMPILED_BYTES: u64 = 256 << 20;

/// Keys that can be trusted: each of them is tried with each signature of a component, 50 µs a try.
pub const TRUSTED_KEYS: usize = 64;

/// Signatures of a component, and sets of them: several people, and perhaps several tools, sign one.
pub const SIGNATURES: u32 = 16;

/// Bytes of the signatures of a component together: that many, with identifiers of keys and hashes of parts.
pub const SIGNATURE_BYTES: usize = 64 << 10;

/// Versions of a plugin that are kept, to look at and to roll back to: some weeks of them, and at 18 MiB, which one from
/// Python has, no more of the disk than a machine has.
pub const KEPT_VERSIONS: u32 = 10;

/// Fewest versions that can be kept: the one that serves and the one that takes its place when it fails.
pub const KEPT_VERSIONS_LEAST: u32 = 2;

/// Most versions that can be kept: all that the generations below can be of.
pub const KEPT_VERSIONS_MOST: u32 = KEPT_GENERATIONS;

/// Generations kept in the tables for each plugin, each a push or rollback of one of those versions.
pub const KEPT_GENERATIONS: u32 = 100;

/// Generations of a plugin that are read at most: those, and the four that stay however old they are. The one that serves,
/// those that would take its place, and the one that says that its component was shipped.
pub const READ_GENERATIONS: u32 = KEPT_GENERATIONS + 4;

/// Generations of each plugin that a list shows; asked for alone, a plugin shows all.
pub const LISTED_GENERATIONS: u32 = 10;

/// Admissions that a new version answers while the old one stands by.
pub const CANARY_CALLS: u32 = 64;

/// Canaries that a push starts when one only overran its deadline.
pub const CANARY_ATTEMPTS: u32 = 3;

/// How long a push waits for the canary's first call; without traffic there is nothing to watch.
pub const CANARY_FIRST_WAIT: Duration = Duration::from_millis(50);

/// How long a push waits for the rest of the canary's calls, once there was one; the deadline of a call comes on top,
/// up to `CANARY_CALL_WAIT`.
pub const CANARY_WAIT: Duration = Duration::from_millis(1_000);

/// The most that a long deadline adds to `CANARY_WAIT`.
pub const CANARY_CALL_WAIT: Duration = Duration::from_secs(10);

/// Rollbacks and promotions by themselves that may wait to be written into the audit log: there is one a plugin at a time.
pub const OWN_CHANGES: usize = 64;

/// The largest share of the requests that a canary can have, in percent: it is compared with the version before, which needs
/// as many.
pub const CANARY_SHARE_MOST: u16 = 50;

/// The longest time after which a canary can be promoted by itself: a canary nobody remembers is no use.
pub const CANARY_FOR_MOST: Duration = Duration::from_secs(30 * 86_400);

/// How often a canary that has a share is compared with the version before.
pub const CANARY_LOOK: Duration = Duration::from_secs(1);

/// Calls of a canary without which it is not promoted by itself, however long it has run: nobody has seen it work.
pub const CANARY_PROMOTE_CALLS: u64 = 20;

/// Calls whose time is not taken: they start instances, 64 at most, which takes milliseconds in some languages.
pub const CANARY_WARM_UP: u64 = 100;

/// Calls, of the canary and of the version before, without which their times are not compared: the slowest of a hundred are five.
pub const CANARY_SAMPLES: u64 = 500;

/// How many times as slow as the version before a canary must be to be rolled back. On a machine that is busy the slowest calls
/// of one version vary by half.
pub const CANARY_SLOWER: u64 = 2;

/// How much slower it must be at least: of less no client notices anything.
pub const CANARY_SLOWER_LEAST: Duration = Duration::from_millis(1);

/// Overruns and errors of a canary without which their share is not compared. A trap is one too many.
pub const CANARY_FAILURES: u64 = 5;

/// How many times as often as the version before a canary must fail to be rolled back.
pub const CANARY_FAILURES_RATIO: u64 = 2;

/// Traps and overruns of a new version within `BURST_WINDOW` that roll it back: more than an unlucky input or two, and
/// fewer than the attempts at an event that ingestion fails on.
pub const BURST_TRAPS: u64 = 5;

/// They count as a burst only if they are at least one in so many calls, so that a busy host's odd overrun does not.
pub const BURST_CALLS_PER_TRAP: u64 = 10;

/// The time in which a burst happens.
pub const BURST_WINDOW: Duration = Duration::from_secs(10);

/// How often traps are looked at when none is reported.
pub const BURST_CHECK: Duration = Duration::from_secs(1);

/// How long after a push a burst rolls back. Later the version is proven, and traps come from something else.
pub const WATCH: Duration = Duration::from_secs(3_600);

/// Pause after a rollback or promotion by itself that failed, since the store did not answer, no earlier version loads or another
/// plugin has the place; doubles up to `ROLLBACK_PAUSE_MAX`.
pub const ROLLBACK_PAUSE_MIN: Duration = Duration::from_millis(500);

/// Longest pause between attempts of a rollback.
pub const ROLLBACK_PAUSE_MAX: Duration = Duration::from_secs(60);

// Ingestion.

/// How long events gather before a call of `ingest`, unless a full batch is there: a call costs a durable commit and the
/// pages that it touches, shared by as many events as there are. With 50 ms and 1,024 events a request cost 5 µs of CPU
/// more. They are durable in the queue meanwhile, and in the tables this much later.
pub const INGEST_GATHER: Duration = Duration::from_millis(200);

/// Events in one call of `ingest`: what a busy machine sees while they gather, few enough for 5 s on a slow disk.
pub const INGEST_BATCH_EVENTS: usize = 4_096;

/// Bytes of queued events in one call of `ingest`; passed into the guest they take a few times that.
pub const INGEST_BATCH_BYTES: usize = 1 << 20;

/// Times that a batch is tried whole before its events are tried one by one.
pub const INGEST_BATCH_ATTEMPTS: u32 = 2;

/// Times that a batch finds ingestion unavailable before its events are tried one by one: it may only be too much for a
/// slow disk within the deadline. A single event waits as long as it takes.
pub const INGEST_BATCH_WAITS: u32 = 5;

/// Times that a single event is tried before it is set aside: with the pauses between, about three seconds.
pub const INGEST_EVENT_ATTEMPTS: u32 = 6;

/// First pause after a failed `ingest`; doubles up to `INGEST_PAUSE_MAX`.
pub const INGEST_PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest pause between attempts of `ingest`.
pub const INGEST_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long a shutdown waits for queued events to be ingested; what is left is durable and comes first after the restart.
pub const INGEST_FLUSH: Duration = Duration::from_secs(5);

/// Bytes of one text of an event; longer ones (a user agent, an upstream's error) are cut.
pub const MAX_EVENT_TEXT_BYTES: usize = 4 << 10;

// Jobs.

/// Jobs that one plugin may have; more are a mistake.
pub const MAX_JOBS: usize = 64;

/// Shortest time between two runs of a job.
pub const MIN_JOB_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for a job's first run, so that one with a long interval runs even where restarts are frequent.
pub const MAX_FIRST_JOB_WAIT: Duration = Duration::from_secs(60);

/// Longest sleep of the scheduler, after which it looks at the wall clock again, since that may be set.
pub const MAX_JOB_SLEEP: Duration = Duration::from_secs(60);
