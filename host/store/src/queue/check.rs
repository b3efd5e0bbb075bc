//! Counts everything again.

use redb::ReadTransaction;

use super::rows::Stored;
use crate::report::note;

/// What is in a queue, on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueReport {
    /// Events that are not removed.
    pub events: u64,
    /// Their bytes.
    pub event_bytes: u64,
    /// Rows, each of some events.
    pub rows: u64,
    /// Rows whose events are all removed, which go with one of the next commits.
    pub dead_rows: u64,
    /// What does not fit together, for people; at most `PROBLEMS` of them. Empty: all is well.
    pub problems: Vec<String>,
}

/// Reads all rows of a queue; some bytes of memory for each event.
pub(crate) fn report(transaction: &ReadTransaction, queue: u32) -> Result<QueueReport, redb::Error> {
    let Stored { removed, rows, sizes } = Stored::load(transaction, queue)?;
    let mut report = QueueReport {
        events: sizes.len() as u64,
        event_bytes: sizes.iter().map(|(_, bytes)| u64::from(*bytes)).sum(),
        rows: rows.len() as u64,
        dead_rows: rows.iter().filter(|row| *row.end() <= removed).count() as u64,
        problems: Vec::new(),
    };
    for (before, after) in rows.iter().zip(rows.iter().skip(1)) {
        if before.end() >= after.start() {
            note(&mut report.problems, || format!("event {} stands in two rows", after.start()));
        }
    }
    Ok(report)
}
