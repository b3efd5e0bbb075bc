//! What ingestion bounds itself by.

/// Failures in a row that make an account unhealthy.
pub(crate) const UNHEALTHY_AFTER: i64 = 5;

/// Events stored in one transaction. Each may need five statements of its own, of which a batch has at most 10,000 in
/// Tollgate, and some kilobytes of this component's memory.
pub(crate) const EVENTS_AT_ONCE: usize = 1_500;
