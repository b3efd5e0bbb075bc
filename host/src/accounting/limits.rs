//! Bounds of what is read and removed at once.

use std::time::Duration;

/// Rows of a report: more than anybody reads, and some megabytes of JSON.
pub(super) const REPORT_ROWS: usize = 10_000;

/// Rows removed in one transaction: some milliseconds of the writer, for which events wait.
pub(super) const PRUNED_AT_ONCE: i64 = 500;

/// Between two of them, so that a large table does not take the writer from everybody else.
pub(super) const PRUNE_PAUSE: Duration = Duration::from_millis(20);

/// Until old rows are looked for again. Days are what people keep.
pub(super) const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// Until a table that refused is tried again.
pub(super) const PRUNE_AGAIN: Duration = Duration::from_secs(60);

/// Days of a report that names no first one. A day of many keys has many rows, and a query's time is bounded.
pub(super) const REPORT_DAYS: u64 = 30;

/// Models of what was used of late, for people; anybody can invent names.
pub(super) const RECENT_MODELS: usize = 1_000;

/// What one query reads of the log of the last 24 hours: with a thousand requests a second some seconds.
pub(super) const RECENT_STEP_MS: u64 = 3_600_000;

/// Rows that one step of a deletion looks at: some ten milliseconds of the writer.
pub(super) const WALKED_ROWS: i64 = 5_000;

/// Deletions that are shown and worked on at once, and entries of a policy that go at once; the store's own limit of a list.
pub(super) const ERASED_KEYS: u32 = 1_000;

/// How long after the deletion of a key its requests may still end: the longest time that one can be given.
pub(super) const LATE: Duration = Duration::from_millis(crate::config::limits::TIMEOUT_MOST_MS);
