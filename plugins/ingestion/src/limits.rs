//! What ingestion bounds itself by.

/// Failures in a row that make an account unhealthy.
pub(crate) const UNHEALTHY_AFTER: i64 = 5;

/// Events stored in one transaction. Each may need five statements of its own, some eight kilobytes of this component's
/// memory with their parameters: 500 take a quarter of it, and a fifth of the statements that a batch may have.
pub(crate) const EVENTS_AT_ONCE: usize = 500;
