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
