//! Pages of SQL databases as rows of redb tables.

use redb::WriteTransaction;

/// What one SQLite transaction changed in one database.
#[derive(Debug, Default)]
pub(crate) struct PageBatch {
    /// Which database.
    pub(crate) db_id: u32,
    /// Number and content of each page written.
    pub(crate) pages: Vec<(u32, Vec<u8>)>,
    /// Pages above this number are removed.
    pub(crate) truncate_to: Option<u32>,
    /// The database's own row: codec, chunk size, size in bytes.
    pub(crate) meta: Vec<u8>,
}

impl PageBatch {
    /// Bytes that the batch brings into a commit.
    pub(crate) fn size(&self) -> usize {
        self.meta.len() + self.pages.iter().map(|(_, page)| page.len() + size_of::<u64>()).sum::<usize>()
    }
}

/// Writes a batch into the committer's transaction. Any error is an error of the storage.
pub(crate) fn apply(_transaction: &WriteTransaction, _batch: &PageBatch) -> Result<(), redb::Error> {
    Err(redb::Error::Corrupted("sql pages are not written yet".to_owned()))
}
