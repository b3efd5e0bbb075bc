//! What ingestion bounds itself by.

/// Rows in one insert. Three rows of 26 columns are 78 parameters, under the 100 that the narrowest host of this
/// dialect binds; longer inserts were no faster, because the statement is prepared once.
pub(crate) const ROWS_PER_INSERT: usize = 3;

/// Failures in a row that make an account unhealthy.
pub(crate) const UNHEALTHY_AFTER: i64 = 5;
