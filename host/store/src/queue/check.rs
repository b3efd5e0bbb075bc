//! Counts everything again.

use std::sync::atomic::AtomicBool;

use redb::ReadTransaction;

use super::rows::{CHUNKS, REMOVED, each_after};
use crate::report::{note, wanted};

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

/// Reads all rows of a queue, one after the other.
pub(crate) fn report(
    transaction: &ReadTransaction,
    queue: u32,
    stop: &AtomicBool,
) -> Result<QueueReport, redb::Error> {
    let removed = transaction.open_table(REMOVED)?.get(queue)?.map_or(0, |removed| removed.value());
    let (mut report, mut before) = (QueueReport::default(), None);
    for row in wanted(transaction.open_table(CHUNKS)?.range((queue, 0)..=(queue, u64::MAX))?, stop) {
        let (key, row) = row?;
        let (_, first) = key.value();
        let last = each_after(removed, first, row.value(), |_, event| {
            report.events += 1;
            report.event_bytes += event.len() as u64;
        })?;
        report.rows += 1;
        report.dead_rows += u64::from(last <= removed);
        if before.is_some_and(|before| before >= first) {
            note(&mut report.problems, || format!("event {first} stands in two rows"));
        }
        before = Some(last);
    }
    Ok(report)
}
