//! How long what holds.

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;

/// After 401 or 403: the credentials are wrong or revoked, which only a person repairs.
pub(crate) const REFUSED_MS: u64 = 1_800 * SECOND_MS;

/// After 402: the account has no credit, which only a person repairs.
pub(crate) const UNPAID_MS: u64 = 1_800 * SECOND_MS;

/// After 429 without a retry-after.
pub(crate) const THROTTLED_MS: u64 = 60 * SECOND_MS;

/// After 429 for a day's limit or a longer one, at most: by then a day has begun anew wherever the upstream is, and what is over
/// a longer time is tried again once a day.
pub(crate) const EXHAUSTED_MS: u64 = 24 * 60 * MINUTE_MS;

/// What a retry-after may otherwise ask for at least and at most; the most is also how often a limit without one is tried.
pub(crate) const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = SECOND_MS..=1_800 * SECOND_MS;

/// After 503: usually over soon.
pub(crate) const UNAVAILABLE_MS: u64 = 60 * SECOND_MS;

/// After 529: the upstream says that it is overloaded.
pub(crate) const OVERLOADED_MS: u64 = 600 * SECOND_MS;

/// After any other 5xx.
pub(crate) const BROKEN_MS: u64 = 300 * SECOND_MS;

/// After `STRIKES` requests in a row without a whole answer.
pub(crate) const SILENT_MS: u64 = 60 * SECOND_MS;

/// Timeouts and broken connections in a row until they count; a single one may be the request's own fault.
pub(crate) const STRIKES: usize = 3;

/// Strikes that are remembered, so that a settlement that comes twice does not count twice.
pub(crate) const STRIKES_KEPT: usize = 8;

/// After this long without another one, strikes are forgotten.
pub(crate) const STRIKES_TTL_MS: u64 = 10 * MINUTE_MS;

/// How long after its end an entry stays half-open, letting through one request at a time. With nothing tried for this
/// long the entry is gone.
pub(crate) const RECOVERY_MS: u64 = 10 * MINUTE_MS;

/// How long a probe may go without being settled or renewed until another request may try.
pub(crate) const PROBE_MS: u64 = 60 * SECOND_MS;

/// Bytes of a kv key; a model whose key would be longer cannot be blacklisted.
pub(crate) const KEY_BYTES: usize = 512;
