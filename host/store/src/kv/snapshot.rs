//! All kv stores at one instant.

use std::{collections::VecDeque, fmt, ops::Bound, sync::Arc};

use redb::ReadOnlyTable;

use super::{
    Entry, Kv, KvError,
    key::{AsKey, text},
    named::{blocking, damaged},
    record::{ROWS, Record},
    size::SIZES,
};
use crate::{
    commit::CommitError,
    core::{Core, Open, unavailable},
    limits::{ENTRY_OVERHEAD, KEY_BYTES, SNAPSHOT_STEP_BYTES, SNAPSHOT_STEP_ROWS},
};

/// Every kv store of a file as it was at one instant between the call of `Store::snapshot` and its answer: a read-only
/// transaction. All that was acknowledged before the call is in it, and nothing of a batch, a transaction or a joint
/// commit unless all of it. What was expired then is absent, what expires later stays. A clone is the same snapshot.
///
/// Memory holds none of it; but what it shows stays in the file, which grows as long as others write. So let go of it
/// soon.
#[derive(Clone, Debug)]
pub struct Snapshot {
    rows: Rows,
    /// Keeps the committer running, and with it the file open.
    open: Arc<Open>,
}

/// The rows on disk at one instant.
#[derive(Clone)]
pub(crate) struct Rows {
    table: Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    sizes: Arc<ReadOnlyTable<u32, u64>>,
    at_ms: u64,
}

/// The entries of one store in the order of their keys' UTF-8 bytes, read step by step.
#[derive(Debug)]
pub struct Entries {
    snapshot: Snapshot,
    /// The store's id and the prefix.
    prefix: Vec<u8>,
    /// Where the next step starts; none: there is nothing more.
    from: Option<Bound<Vec<u8>>>,
    ready: VecDeque<(String, Entry)>,
}

/// What one step has read.
struct Step {
    entries: VecDeque<(String, Entry)>,
    from: Option<Bound<Vec<u8>>>,
}

impl Snapshot {
    pub(crate) fn new(rows: Rows, open: Arc<Open>) -> Self {
        Self { rows, open }
    }

    /// The instant, in milliseconds since 1970 by the store's clock.
    pub fn at_ms(&self) -> u64 {
        self.rows.at_ms
    }

    /// The value that a key had.
    pub async fn get(&self, kv: &Kv, key: &str) -> Result<Option<Entry>, KvError> {
        kv.check_file(&self.open.core)?;
        let key = kv.key(key)?.to_key();
        let (rows, core) = (self.rows.clone(), Arc::clone(&self.open.core));
        Ok(blocking(move || core.check_readable().and_then(|()| rows.get(key.bytes()))).await?)
    }

    /// The entries of a store whose keys start with `prefix`; an empty one means all.
    pub fn entries(&self, kv: &Kv, prefix: &str) -> Result<Entries, KvError> {
        kv.check_file(&self.open.core)?;
        if prefix.len() > KEY_BYTES {
            return Err(KvError::TooLarge(format!("a key has at most {KEY_BYTES} bytes")));
        }
        let prefix = kv.row(prefix);
        let from = Some(Bound::Included(prefix.clone()));
        Ok(Entries { snapshot: self.clone(), prefix, from, ready: VecDeque::new() })
    }
}

impl Entries {
    /// The next entry; none: this was all. Holds at most about 2 MiB, however large the store is. When an error came,
    /// the next call tries again.
    pub async fn next(&mut self) -> Result<Option<(String, Entry)>, KvError> {
        while self.ready.is_empty()
            && let Some(from) = self.from.clone()
        {
            let (rows, prefix) = (self.snapshot.rows.clone(), self.prefix.clone());
            let core = Arc::clone(&self.snapshot.open.core);
            let step =
                blocking(move || core.check_readable().and_then(|()| rows.step(&prefix, from))).await?;
            self.ready = step.entries;
            self.from = step.from;
        }
        Ok(self.ready.pop_front())
    }
}

impl Rows {
    /// The bytes of a store as they were counted; none: they have not been since it was opened.
    pub(crate) fn counted(&self, store: u32) -> Result<Option<u64>, CommitError> {
        Ok(self.sizes.get(store).map_err(unavailable)?.map(|bytes| bytes.value()))
    }

    /// For the committer, right after a commit.
    pub(crate) fn begin(core: &Core, at_ms: u64) -> Result<Self, CommitError> {
        let transaction = core.begin_read()?;
        let table = transaction.open_table(ROWS).map_err(unavailable)?;
        let sizes = transaction.open_table(SIZES).map_err(unavailable)?;
        Ok(Self { table: Arc::new(table), sizes: Arc::new(sizes), at_ms })
    }

    /// The instant, in milliseconds since 1970.
    pub(crate) fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// Shows the key and the row of all that a store has, expired or not.
    pub(crate) fn each(
        &self,
        store: u32,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let prefix = store.to_be_bytes();
        for row in self.table.range::<&[u8]>(prefix.as_slice()..).map_err(unavailable)? {
            let (key, row) = row.map_err(unavailable)?;
            let Some(key) = key.value().strip_prefix(prefix.as_slice()) else { break };
            visit(key, row.value())?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Entry>, CommitError> {
        let row = self.table.get(key).map_err(unavailable)?;
        row.map_or(Ok(None), |row| self.entry(row.value()))
    }

    fn entry(&self, row: &[u8]) -> Result<Option<Entry>, CommitError> {
        Ok(Record::decode(row).ok_or_else(damaged)?.entry(|| self.at_ms))
    }

    /// Reads on until it has enough.
    fn step(&self, prefix: &[u8], from: Bound<Vec<u8>>) -> Result<Step, CommitError> {
        let mut entries = VecDeque::new();
        let (mut bytes, mut last) = (0, None);
        let range = (from.as_ref().map(Vec::as_slice), Bound::Unbounded);
        for (seen, row) in self.table.range::<&[u8]>(range).map_err(unavailable)?.enumerate() {
            if seen == SNAPSHOT_STEP_ROWS || bytes >= SNAPSHOT_STEP_BYTES {
                return Ok(Step { entries, from: last.map(Bound::Excluded) });
            }
            let (key, row) = row.map_err(unavailable)?;
            let key = key.value();
            if !key.starts_with(prefix) {
                break;
            }
            if let Some(entry) = self.entry(row.value())? {
                bytes += key.len() + entry.value.len() + ENTRY_OVERHEAD;
                entries.push_back((text(key), entry));
            }
            last = Some(key.to_vec());
        }
        Ok(Step { entries, from: None })
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rows").field("at_ms", &self.at_ms).finish_non_exhaustive()
    }
}
