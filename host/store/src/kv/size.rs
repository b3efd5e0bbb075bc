//! How many bytes each kv store has on disk, counted as its rows are written and kept by the commit that writes them, so
//! that a store can be bounded without looking through it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use redb::{ReadableDatabase as _, ReadableTable, TableDefinition, WriteTransaction};

use super::record::{HEADER_BYTES, ROWS};
use crate::{
    commit::CommitError,
    core::{Core, unavailable},
};

/// A store's number to the bytes of its keys and values.
pub(super) const SIZES: TableDefinition<'_, u32, u64> = TableDefinition::new("kv-sizes");

/// The sizes that are known, by the store's number.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    known: Mutex<HashMap<u32, Arc<Size>>>,
}

/// The bytes of a store.
#[derive(Debug, Default)]
pub(crate) struct Size {
    disk: AtomicU64,
    /// At most what is written and not on disk yet: what a write replaces is not taken off before its commit.
    waiting: AtomicU64,
}

/// What waited when a commit began, which is on disk when it has ended.
pub(crate) struct Waiting(Vec<(Arc<Size>, u64)>);

/// What the rows of a commit change.
#[derive(Debug, Default)]
pub(crate) struct Changes(HashMap<u32, i64>);

/// The sizes while a commit is made, which nobody begins to count meanwhile.
pub(crate) struct Held<'a> {
    known: MutexGuard<'a, HashMap<u32, Arc<Size>>>,
    next: Vec<(Arc<Size>, u64)>,
}

impl Sizes {
    /// Reads them when the store is opened. Those that a program wrote past which did not count are forgotten.
    pub(crate) fn load(transaction: &WriteTransaction, are_whole: bool) -> Result<Self, redb::Error> {
        let mut table = transaction.open_table(SIZES)?;
        if !are_whole {
            table.retain(|_, _| false)?;
        }
        let mut known = HashMap::new();
        for row in table.iter()? {
            let (store, bytes) = row?;
            known.insert(store.value(), Arc::new(Size::new(bytes.value())));
        }
        Ok(Self { known: Mutex::new(known) })
    }

    /// The size of a store, which is counted where it is not known.
    pub(crate) fn of(&self, core: &Core, store: u32) -> Result<Arc<Size>, CommitError> {
        let mut known = self.known.lock();
        if let Some(size) = known.get(&store) {
            return Ok(Arc::clone(size));
        }
        let size = Arc::new(Size::new(counted(core, store)?));
        known.insert(store, Arc::clone(&size));
        Ok(size)
    }

    /// For the committer: from before it writes rows until `Held::committed`.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held { known: self.known.lock(), next: Vec::new() }
    }

    /// For the committer, before it collects: a write counts as waiting before it can be collected.
    pub(crate) fn waiting(&self) -> Waiting {
        let known = self.known.lock();
        let waiting = known.values().map(|size| (Arc::clone(size), size.waiting.load(Ordering::Acquire)));
        Waiting(waiting.filter(|(_, bytes)| *bytes > 0).collect())
    }
}

impl Size {
    fn new(disk: u64) -> Self {
        Self { disk: AtomicU64::new(disk), waiting: AtomicU64::default() }
    }

    /// Bytes on disk.
    pub(super) fn on_disk(&self) -> u64 {
        self.disk.load(Ordering::Acquire)
    }

    /// Counts bytes that are about to be written, if all together stay within a limit.
    pub(super) fn take(&self, bytes: u64, limit: u64) -> bool {
        let taken = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            let waiting = waiting.checked_add(bytes)?;
            // Looked at after what waits: a commit adds its bytes there before it takes them off here.
            (self.on_disk().saturating_add(waiting) <= limit).then_some(waiting)
        });
        taken.is_ok()
    }
}

impl Waiting {
    /// It is on disk, and its bytes are counted there.
    pub(crate) fn committed(self) {
        for (size, bytes) in self.0 {
            size.waiting.fetch_sub(bytes, Ordering::AcqRel);
        }
    }
}

impl Changes {
    /// Takes note of a row that is written or removed, and of the length of the row that it replaces.
    pub(crate) fn add(&mut self, key: &[u8], written: Option<usize>, replaced: Option<usize>) {
        let Some((store, key)) = key.split_first_chunk::<4>() else { return };
        let bytes = |row: Option<usize>| row.map_or(0, |row| size(key.len(), row)).cast_signed();
        let change = bytes(written).saturating_sub(bytes(replaced));
        if change != 0 {
            let sum = self.0.entry(u32::from_be_bytes(*store)).or_default();
            *sum = sum.saturating_add(change);
        }
    }
}

impl Held<'_> {
    /// Writes the sizes that change.
    pub(crate) fn write(
        &mut self,
        transaction: &WriteTransaction,
        changes: Changes,
    ) -> Result<(), redb::Error> {
        if changes.0.is_empty() {
            return Ok(());
        }
        let mut table = transaction.open_table(SIZES)?;
        for (store, change) in changes.0 {
            // One that is not known is counted when it is opened.
            let Some(size) = self.known.get(&store) else { continue };
            let bytes = size.on_disk().saturating_add_signed(change);
            table.insert(store, bytes)?;
            self.next.push((Arc::clone(size), bytes));
        }
        Ok(())
    }

    /// They are on disk.
    pub(crate) fn committed(self) {
        for (size, bytes) in self.next {
            size.disk.store(bytes, Ordering::Release);
        }
    }
}

/// The bytes that a row counts: its key without the store's number, and its value.
fn size(key: usize, row: usize) -> u64 {
    key.saturating_add(row.saturating_sub(HEADER_BYTES)) as u64
}

fn counted(core: &Core, store: u32) -> Result<u64, CommitError> {
    let prefix = store.to_be_bytes();
    // Not by `begin_read`, which waits for a commit to become visible: that commit waits for the sizes, and none is under way.
    let transaction = match &*core.database.read() {
        Some(database) => database.begin_read().map_err(unavailable)?,
        None => return Err(core.health.reason()),
    };
    let table = transaction.open_table(ROWS).map_err(unavailable)?;
    let mut bytes = 0_u64;
    for row in table.range(prefix.as_slice()..).map_err(unavailable)? {
        let (key, row) = row.map_err(unavailable)?;
        let Some(key) = key.value().strip_prefix(&prefix) else { break };
        bytes = bytes.saturating_add(size(key.len(), row.value().len()));
    }
    Ok(bytes)
}
