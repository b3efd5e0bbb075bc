//! What ingestion bounds itself by.

use crate::schema::COLUMNS;

/// Parameters of one statement: what the narrowest host of this dialect binds.
const PARAMETERS: usize = 100;

/// Rows in one insert; longer inserts were no faster, because the statement is prepared once.
pub(crate) const ROWS_PER_INSERT: usize = PARAMETERS / COLUMNS.len();

/// Failures in a row that make an account unhealthy.
pub(crate) const UNHEALTHY_AFTER: i64 = 5;
