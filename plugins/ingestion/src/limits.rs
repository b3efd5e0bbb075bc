//! What ingestion bounds itself by.

/// Failures in a row that make an account unhealthy.
pub(crate) const UNHEALTHY_AFTER: i64 = 5;

/// Events stored in one transaction. Each may need five statements of its own, some eight kilobytes of this component's
/// memory with their parameters, and three for each of the three attempts that may have come before: 500 have 7,000 statements at
/// most, of the 10,000 that a batch may have.
pub(crate) const EVENTS_AT_ONCE: usize = 500;
