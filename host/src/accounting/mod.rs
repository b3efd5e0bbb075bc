//! What the ingestion plugin has counted, for people: reports of usage, what was used of late, totals of a key, how long rows are
//! kept, and what goes with a key.
//!
//! The tables are the plugin's: where it is switched off there are none, which is no error here.

mod erasure;
mod limits;
mod recent;
mod report;
mod retention;
#[cfg(test)]
mod tests;

use tollgate_store::SqlError;

pub use erasure::{Deletion, Erasure, mark};
pub use recent::{LimitUsage, Limited, ModelUsage, Quantity, RecentUsage, Sum, Whose, recent};
pub use report::{
    Grouping, ReportError, Totals, UsageReport, UsageRow, Window, report, totals, totals_by_key,
};
pub use retention::{Pruner, Retention};

/// None where the plugin has made no tables.
fn if_counted<T>(outcome: Result<T, SqlError>) -> Result<Option<T>, SqlError> {
    match outcome {
        Err(SqlError::Invalid(text)) if text.contains("no such table") => Ok(None),
        outcome => outcome.map(Some),
    }
}
