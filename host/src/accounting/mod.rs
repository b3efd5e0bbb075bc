//! What the ingestion plugin has counted, for people: reports of usage, totals of a key, and how long rows are kept.
//!
//! The tables are the plugin's: where it is switched off there are none, which is no error here.

mod limits;
mod report;
mod retention;
#[cfg(test)]
mod tests;

use tollgate_store::{Outcome, SqlError};

pub use report::{Grouping, ReportError, Totals, UsageReport, UsageRow, Window, report, totals};
pub use retention::{Pruner, Retention};

/// None where the plugin has made no tables.
fn if_counted(outcome: Result<Outcome, SqlError>) -> Result<Option<Outcome>, SqlError> {
    match outcome {
        Err(SqlError::Invalid(text)) if text.contains("no such table") => Ok(None),
        outcome => outcome.map(Some),
    }
}
