//! What ingestion bounds itself by.

/// Failures in a row that make an account unhealthy.
pub(crate) const UNHEALTHY_AFTER: i64 = 5;
