//! Every limit of the gateway, with its reason.

use std::time::Duration;

/// Largest request body: a prompt of a million tokens with a few pictures in it, yet thousands of them fit into memory.
pub const BODY_BYTES: usize = 10 * 1024 * 1024;

/// Bytes of the bodies of all requests together, or sixteen of the largest where an operator allows larger ones. A body is held
/// until an upstream has answered. Past it requests are told to come again: 50 of the largest, or thousands of long prompts.
pub(super) const BODIES_BYTES: usize = 512 * 1024 * 1024;

/// The part of that memory which one client's key may take: one that keeps its bodies waiting must not refuse everybody else.
pub(super) const BODIES_PART_OF_KEY: usize = 4;

/// How much of a body that nobody reads is read and thrown away before the answer, so that a client that only reads after
/// it has written sees the answer and not a reset.
pub(super) const DISCARD_BYTES: usize = 64 * 1024 * 1024;

/// Longest time spent on throwing a body away.
pub(super) const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Accounts that a request's row in the log names with what refused them: enough to see why, whatever their number.
pub(super) const REFUSALS_NAMED: usize = 8;

/// Longest silence of a client in that time: one that sends nothing is not about to miss its answer.
pub(super) const DISCARD_SILENCE: Duration = Duration::from_secs(1);

/// Time for a whole request body: 10 MB over 1.4 Mbit/s. A client that is slower holds memory for nothing.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// How often an upstream is asked over HTTP/2 whether it is still there, while something is under way.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long its answer to that may take; then the connection is closed, and what was under way fails.
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time to reach an upstream. A healthy one takes less than a second; after this the next account is worth more.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time to the head of a streamed answer, which starts as soon as the prompt is read.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time to the head of a plain answer, which comes only when all of it has been generated.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Longest silence of an upstream in mid-answer; reasoning models pause for tens of seconds between events.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Longest time a client may leave an answer unread, since it holds an upstream connection and two leases.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time from arrival to the last byte: the longest answers of today end well before.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(1_800);

/// Longest user and password of a proxy: what SOCKS5 has room for.
pub(super) const PROXY_CREDENTIAL_BYTES: usize = 255;

/// Leases are renewed this often: three chances within a lease of a minute.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(20);

/// How often running requests are looked over for renewal and timeouts; the grain of those.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Upstreams that one request may be sent to. A third failure in a row says more about the request than the accounts.
pub(super) const ATTEMPTS: usize = 3;

/// Accounts that one request may ask admission for; past it, everything is busy.
pub(super) const CANDIDATES: usize = 16;

/// Requests that may wait for a place on an account: enough for a moment's rush, and few enough that all of them have their
/// answers before their clients give up.
pub const QUEUE_REQUESTS: usize = 64;

/// Most that can be set: whoever frees a place looks through them for the first who can use it.
pub const QUEUE_REQUESTS_MOST: usize = 1_000;

/// How long a request waits for a place: an answer takes seconds, and a client that hears nothing for longer is better told.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// The part of the queue that the requests of one client's key may take: one that sends more than there is room for must not
/// keep everybody else out.
pub(super) const QUEUE_PART_OF_KEY: usize = 2;

/// How long a session without a request stays on its account: as long as the caches of upstreams, some of which keep an hour.
pub(super) const SESSION_IDLE: Duration = Duration::from_secs(60 * 60);

/// Sessions whose accounts are known: some hundred bytes each, and more than have a request within an hour on one machine.
pub(super) const SESSIONS: u64 = 50_000;

/// Longest model name; longer ones are nobody's model, and the name ends up in counters and rows.
pub(super) const MODEL_BYTES: usize = 256;

/// Longest message about a request's body: what is wrong in it is repeated there, which may be all of it.
pub(super) const PROBLEM_BYTES: usize = 512;

/// Longest user agent and error message kept in the log.
pub(super) const LOGGED_BYTES: usize = 512;

/// Tokens assumed for an answer when the request does not bound it.
pub(super) const DEFAULT_OUTPUT_TOKENS: u64 = 1_024;

/// Bytes of text a token is taken for: low, so that the estimate errs upwards.
pub(super) const BYTES_PER_TOKEN: u64 = 3;

/// Largest estimate, so that sums of it cannot overflow anywhere.
pub(super) const ESTIMATE_MAX: u64 = u32::MAX as u64;

/// Longest event of a stream that is kept to be read as a whole; in a longer one, such as a `response.completed` that
/// repeats a large answer, only usage is looked for. Fuzz targets have a short one, to come across it thousands of times a
/// second.
pub(super) const LINE_BYTES: usize = if cfg!(feature = "fuzzing") { 512 } else { 1024 * 1024 };

/// Longest event of a stream that is held back until it is seen whether it tells nothing but usage; real ones of that kind
/// are a few hundred bytes.
pub(super) const HELD_BYTES: usize = 16 * 1024;

/// Longest entry of a plain answer that is looked at, such as `usage`; real ones are a few hundred bytes. Likewise.
pub(super) const ENTRY_BYTES: usize = if cfg!(feature = "fuzzing") { 256 } else { 16 * 1024 };

/// Bytes of an encoded answer that are decoded at once: gzip makes at most a thousand times as many of them.
pub(super) const DECODE_BYTES: usize = 1024;

/// Bytes that one piece of an encoded answer may be when decoded. A piece has up to some hundred KiB, of text that gzip makes
/// ten or twenty times smaller; one that is more was made to keep a worker busy, at some milliseconds for each MiB.
pub(super) const DECODED_BYTES: usize = 16 << 20;

/// How much of an upstream's error answer is read for its message when another account is tried.
pub(super) const ERROR_BYTES: usize = 16 * 1024;

/// Time to read that error answer.
pub(super) const ERROR_TIMEOUT: Duration = Duration::from_secs(2);

/// How fast an account's measured latency is forgotten, so that one that was slow is tried again.
pub(super) const LATENCY_DECAY: Duration = Duration::from_secs(10);

/// Latency that a failure counts as: a refused connection is quick and must not look attractive.
pub(super) const FAILURE_LATENCY: Duration = Duration::from_secs(5);

/// Idle upstream connections kept for each host.
pub(super) const IDLE_CONNECTIONS: usize = 256;

/// How long they are kept: shorter than what common load balancers allow, so that a reused one is rarely dead.
pub(super) const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(50);

/// How often it is looked whether accounts are to be asked if they answer; the grain of that.
pub(super) const HEALTH_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Shortest interval of asking accounts: a provider that is asked more often takes it for an attack.
pub const HEALTH_INTERVAL_LEAST: Duration = Duration::from_secs(1);

/// Time for an account to answer that question; a healthy one takes less than a second.
pub(super) const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Accounts that are asked at once, so that a thousand of them take no thousand connections.
pub(super) const HEALTH_AT_ONCE: usize = 16;

/// How long an upstream's own list of models is believed.
pub(super) const MODELS_TTL: Duration = Duration::from_secs(300);

/// How long an upstream that did not list its models is not asked again: it must not slow down every client, and its
/// models should be back soon after it is.
pub(super) const MODELS_FAILED_TTL: Duration = Duration::from_secs(10);

/// Time for asking an upstream for its models; without an answer they are left out.
pub(super) const MODELS_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest list of models read from an upstream.
pub(super) const MODELS_BYTES: usize = 1024 * 1024;

/// Time for the head of a request, and for the pause between two on one connection. Longer than the 5 s for which
/// common clients reuse a connection, short against clients that drip.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of a request: room for long keys and cookies.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// Most headers of a request; SDKs send about twenty.
pub(super) const HEADERS: usize = 128;

/// Connections at once; more wait in the kernel's backlog.
pub(super) const CONNECTIONS: usize = 16_384;

/// Streams at once on one HTTP/2 connection.
pub(super) const STREAMS: u32 = 256;

/// How long a connection may refuse to take written bytes.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long answers in flight may go on after the order to stop.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
