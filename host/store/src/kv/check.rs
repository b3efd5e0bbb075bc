//! Counts everything again.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{record::Record, snapshot::Rows};
use crate::{
    commit::CommitError,
    core::Core,
    limits::{KEY_BYTES, VALUE_BYTES},
    report::{go_on, note},
};

/// What is in a kv store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvReport {
    /// Keys that have a value.
    pub keys: u64,
    /// Bytes of these keys.
    pub key_bytes: u64,
    /// Bytes of their values.
    pub value_bytes: u64,
    /// Of these keys, those that expire one day.
    pub expiring: u64,
    /// Rows that have expired and are not swept away yet.
    pub expired: u64,
    /// What does not fit together, for people; at most `PROBLEMS` of them. Empty: all is well.
    pub problems: Vec<String>,
}

/// Walks through all rows of a store.
pub(crate) fn report(
    core: &Core,
    rows: &Rows,
    store: u32,
    stop: &AtomicBool,
) -> Result<KvReport, CommitError> {
    let mut report = KvReport::default();
    let next_version = core.versions.load(Ordering::Relaxed);
    let mut bytes = 0;
    rows.each(store, |key, row| {
        go_on(stop)?;
        let shown = || String::from_utf8_lossy(key).chars().take(64).collect::<String>();
        let problems = &mut report.problems;
        let Some((version, expires_ms, value_bytes)) = Record::header(row) else {
            note(problems, || format!("the row of key {:?} is damaged", shown()));
            return Ok(());
        };
        if !(1..=KEY_BYTES).contains(&key.len()) || std::str::from_utf8(key).is_err() {
            note(problems, || format!("{:?} cannot be a key", shown()));
        }
        if value_bytes > VALUE_BYTES {
            note(problems, || format!("the value of key {:?} has {value_bytes} bytes", shown()));
        }
        if !(1..next_version).contains(&version) {
            note(problems, || format!("key {:?} has version {version}, which was never given", shown()));
        }
        bytes += (key.len() + value_bytes) as u64;
        if (1..=rows.at_ms()).contains(&expires_ms) {
            report.expired += 1;
            return Ok(());
        }
        report.keys += 1;
        report.key_bytes += key.len() as u64;
        report.value_bytes += value_bytes as u64;
        report.expiring += u64::from(expires_ms != 0);
        Ok(())
    })?;
    if let Some(counted) = rows.counted(store)?.filter(|counted| *counted != bytes) {
        note(&mut report.problems, || format!("{counted} bytes are counted where the rows have {bytes}"));
    }
    Ok(report)
}
