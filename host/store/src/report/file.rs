//! What the file is made of.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use redb::{ReadableTableMetadata as _, TableHandle as _};

use super::{go_on, reading};
use crate::{
    StorageError, Store,
    commit::CommitError,
    core::{Core, unavailable},
};

/// What the file is made of. What is neither stored, metadata nor fragmented is free, or redb's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileReport {
    /// Where the file is; none for a storage in its place.
    pub path: Option<PathBuf>,
    /// Bytes of the file; none for a storage in its place.
    pub file_bytes: Option<u64>,
    /// The tables of all kinds of stores, in the order of their names.
    pub tables: Vec<TableReport>,
}

/// A table of redb: all named stores of a kind share theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableReport {
    /// Its name.
    pub name: String,
    /// Rows.
    pub rows: u64,
    /// Bytes of keys and values.
    pub stored_bytes: u64,
    /// Bytes of what leads to them.
    pub metadata_bytes: u64,
    /// Bytes of its pages that hold nothing.
    pub fragmented_bytes: u64,
}

impl FileReport {
    /// Bytes that redb may use again, or that a compaction gives back, with redb's own few.
    pub fn free_bytes(&self) -> Option<u64> {
        let used = |table: &TableReport| table.stored_bytes + table.metadata_bytes + table.fragmented_bytes;
        Some(self.file_bytes?.saturating_sub(self.tables.iter().map(used).sum()))
    }
}

impl Store {
    /// What the file is made of, at one instant. It reads the whole file once. When the future is dropped it ends with the
    /// table it is at, and `place` is dropped only then.
    pub async fn file_report(&self, place: impl Send + 'static) -> Result<FileReport, CommitError> {
        let core = Arc::clone(&self.open.core);
        reading(place, move |stop| {
            let tables = tables(&core, stop)?;
            let file_bytes =
                core.path.as_ref().map(|path| path.metadata().map(|file| file.len())).transpose();
            let io = |error: std::io::Error| CommitError::Storage(StorageError::Io(error.to_string()));
            Ok(FileReport { path: core.path.clone(), file_bytes: file_bytes.map_err(io)?, tables })
        })
        .await
    }
}

fn tables(core: &Core, stop: &AtomicBool) -> Result<Vec<TableReport>, CommitError> {
    let transaction = core.begin_read()?;
    let mut tables = Vec::new();
    for handle in transaction.list_tables().map_err(unavailable)? {
        go_on(stop)?;
        let name = handle.name().to_owned();
        let table = transaction.open_untyped_table(handle).map_err(unavailable)?;
        let stats = table.stats().map_err(unavailable)?;
        tables.push(TableReport {
            name,
            rows: table.len().map_err(unavailable)?,
            stored_bytes: stats.stored_bytes(),
            metadata_bytes: stats.metadata_bytes(),
            fragmented_bytes: stats.fragmented_bytes(),
        });
    }
    tables.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    Ok(tables)
}
