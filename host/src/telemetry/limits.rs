//! Every limit of telemetry, with its reason.

use std::time::Duration;

/// Spans that may wait to be sent, each of about a kilobyte: seconds of full load while the collector is away. Past it they
/// are dropped and counted.
pub(super) const SPANS_WAITING: usize = 8_192;

/// Spans of one message, as OpenTelemetry's own SDKs have it: collectors take some megabytes at once, this is half of one.
pub(super) const BATCH_SPANS: usize = 512;

/// How long a span waits for others to be sent with it.
pub(super) const SEND_EVERY: Duration = Duration::from_secs(1);

/// Time for a collector to take a message, as OpenTelemetry has it.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Time to reach a collector; one in the same network takes milliseconds.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a message is tried that a collector could not take at the moment. Then it is dropped: newer spans say more.
pub(super) const ATTEMPTS: u32 = 5;

/// The pause before the second attempt; each further one is twice as long.
pub(super) const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// The longest pause, also where a collector asks for more.
pub(super) const PAUSE_MOST: Duration = Duration::from_secs(30);

/// Time for the spans that wait when the server stops; whoever stops it does not wait for a collector that is away.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer that is read: it says how many spans were not taken, and why.
pub(super) const ANSWER_BYTES: usize = 64 * 1024;

/// What is logged of a collector's own words: a sentence or two.
pub(super) const REASON_BYTES: usize = 256;

/// Headers for the collector that can be set.
pub const HEADERS_MOST: usize = 32;
