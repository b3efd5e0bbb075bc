//! Database files as redb values: chunks of fixed size, without their zero tails.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::limits::PAGE_BYTES;
use crate::report::wanted;

/// Key: database id << 32 | number, where number 0 is the meta value and n + 1 the chunk n.
const PAGES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("sql-pages");
/// Name of a database → its id.
const NAMES: TableDefinition<'static, &str, u32> = TableDefinition::new("sql-names");

/// Ids of files that no database has: on their way into one, or replaced. The committer removes those nobody holds.
const LEFTOVERS: TableDefinition<'static, u32, ()> = TableDefinition::new("sql-leftovers");

const META_VERSION: u8 = 1;

/// A file's meta value. The chunk size stays as it was when the file was made, whatever SQLite's page size becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) chunk_bytes: u32,
    /// Size of the file as SQLite sees it; not always a multiple of the chunk.
    pub(crate) size: u64,
}

/// What one transaction changes in one database file.
#[derive(Clone, Debug)]
pub(crate) struct PageBatch {
    pub(crate) id: u32,
    /// Set until the database's name is known to be stored.
    pub(crate) register: Option<Arc<str>>,
    pub(crate) meta: Meta,
    /// Chunks from here on are removed before the new ones are written.
    pub(crate) keep: u32,
    /// New content of chunks, each as long as the chunk size.
    pub(crate) chunks: BTreeMap<u32, Box<[u8]>>,
}

/// A change of which files there are.
#[derive(Clone, Debug)]
pub(crate) enum FileChange {
    /// A file that no database has yet; if nothing comes of it, it is removed.
    Begin {
        /// The file.
        id: u32,
    },
    /// A database has this file from now on, and the one it had is removed.
    Switch {
        /// The database.
        name: Arc<str>,
        /// The file.
        id: u32,
    },
}

/// A database file at one instant.
pub(crate) struct Snapshot {
    table: Option<ReadOnlyTable<u64, &'static [u8]>>,
    id: u32,
    pub(crate) meta: Meta,
}

impl PageBatch {
    /// Bytes that the batch brings into a commit, nearly.
    pub(crate) fn size(&self) -> usize {
        self.chunks.values().map(|chunk| chunk.len() + size_of::<u64>()).sum()
    }
}

/// Writes a batch into an open transaction of redb.
pub(crate) fn apply(transaction: &WriteTransaction, batch: &PageBatch) -> Result<(), redb::Error> {
    if let Some(name) = &batch.register {
        transaction.open_table(NAMES)?.insert(&**name, batch.id)?;
    }
    let mut table = transaction.open_table(PAGES)?;
    let old = match table.get(key(batch.id, None))? {
        Some(value) => Meta::decode(value.value())?,
        None => Meta { size: 0, ..batch.meta },
    };
    for number in batch.keep..old.chunks() {
        if !batch.chunks.contains_key(&number) {
            table.remove(key(batch.id, Some(number)))?;
        }
    }
    for (number, chunk) in &batch.chunks {
        table.insert(key(batch.id, Some(*number)), without_zero_tail(chunk))?;
    }
    if old != batch.meta {
        table.insert(key(batch.id, None), batch.meta.encode().as_slice())?;
    }
    Ok(())
}

impl FileChange {
    /// Writes the change into an open transaction of redb.
    pub(crate) fn apply(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut leftovers = transaction.open_table(LEFTOVERS)?;
        match self {
            Self::Begin { id } => {
                leftovers.insert(id, ())?;
            }
            Self::Switch { name, id } => {
                let old = transaction.open_table(NAMES)?.insert(&**name, id)?.map(|old| old.value());
                leftovers.remove(id)?;
                if let Some(old) = old.filter(|old| old != id) {
                    leftovers.insert(old, ())?;
                }
            }
        }
        Ok(())
    }
}

/// The ids of the files that no database has.
pub(crate) fn leftovers(transaction: &ReadTransaction) -> Result<Vec<u32>, redb::Error> {
    match transaction.open_table(LEFTOVERS) {
        Ok(table) => table.range::<u32>(..)?.map(|row| Ok(row?.0.value())).collect(),
        Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// The highest id of all files.
pub(crate) fn highest(transaction: &ReadTransaction) -> Result<Option<u32>, redb::Error> {
    Ok(names(transaction)?.into_values().chain(leftovers(transaction)?).max())
}

/// Removes at most so many chunks of a file that no database has, and what tells of it after the last.
pub(crate) fn remove_some(transaction: &WriteTransaction, id: u32, chunks: usize) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(PAGES)?;
    let rows = table.range(key(id, None)..=key(id, Some(u32::MAX - 1)))?.take(chunks);
    let keys = rows.map(|row| Ok(row?.0.value())).collect::<Result<Vec<_>, redb::Error>>()?;
    for key in &keys {
        table.remove(key)?;
    }
    if keys.len() < chunks {
        transaction.open_table(LEFTOVERS)?.remove(id)?;
    }
    Ok(())
}

/// Bytes that are stored of a file.
pub(crate) fn stored_bytes(
    transaction: &ReadTransaction,
    id: u32,
    stop: &AtomicBool,
) -> Result<u64, redb::Error> {
    let table = match transaction.open_table(PAGES) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = 0;
    for row in wanted(table.range(key(id, None)..=key(id, Some(u32::MAX - 1)))?, stop) {
        bytes += row?.1.value().len() as u64;
    }
    Ok(bytes)
}

/// The ids of all databases, by name.
pub(crate) fn names(transaction: &ReadTransaction) -> Result<BTreeMap<String, u32>, redb::Error> {
    let table = match transaction.open_table(NAMES) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut names = BTreeMap::new();
    for row in table.range::<&str>(..)? {
        let (name, id) = row?;
        names.insert(name.value().to_owned(), id.value());
    }
    Ok(names)
}

impl Snapshot {
    /// A file as a read transaction sees it; empty if nothing was ever committed to it.
    pub(crate) fn new(transaction: &ReadTransaction, id: u32) -> Result<Self, redb::Error> {
        let empty = Meta { chunk_bytes: PAGE_BYTES, size: 0 };
        let table = match transaction.open_table(PAGES) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Self { table: None, id, meta: empty }),
            Err(error) => return Err(error.into()),
        };
        let meta = match table.get(key(id, None))? {
            Some(value) => Meta::decode(value.value())?,
            None => empty,
        };
        Ok(Self { table: Some(table), id, meta })
    }

    /// Copies a part of the file.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), redb::Error> {
        let chunk_bytes = u64::from(self.meta.chunk_bytes);
        let (mut at, mut left) = (offset, into);
        while !left.is_empty() {
            let number = u32::try_from(at / chunk_bytes);
            let number = number.map_err(|_| redb::Error::Corrupted("size of an sql database".to_owned()))?;
            let from = at % chunk_bytes;
            let length = usize::try_from(chunk_bytes - from).unwrap_or(usize::MAX).min(left.len());
            let (piece, rest) = left.split_at_mut(length);
            self.read_chunk(number, usize::try_from(from).unwrap_or_default(), piece)?;
            at += piece.len() as u64;
            left = rest;
        }
        Ok(())
    }

    /// Copies a part of a chunk; whatever is not stored is zero.
    pub(crate) fn read_chunk(&self, number: u32, from: usize, into: &mut [u8]) -> Result<(), redb::Error> {
        let Some(table) = &self.table else {
            into.fill(0);
            return Ok(());
        };
        match table.get(key(self.id, Some(number)))? {
            Some(value) => copy_or_zero(value.value(), from, into),
            None => into.fill(0),
        }
        Ok(())
    }
}

impl Meta {
    /// How many chunks hold a file of this size.
    pub(crate) fn chunks(&self) -> u32 {
        u32::try_from(self.size.div_ceil(u64::from(self.chunk_bytes.max(1)))).unwrap_or(u32::MAX)
    }

    fn encode(self) -> [u8; 13] {
        let mut bytes = [META_VERSION; 13];
        bytes[1..5].copy_from_slice(&self.chunk_bytes.to_le_bytes());
        bytes[5..].copy_from_slice(&self.size.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, redb::Error> {
        let meta = bytes.split_first_chunk::<1>().and_then(|(version, rest)| {
            let (chunk_bytes, rest) = rest.split_first_chunk::<4>()?;
            let size: [u8; 8] = rest.try_into().ok()?;
            let chunk_bytes = u32::from_le_bytes(*chunk_bytes);
            let known = *version == [META_VERSION] && chunk_bytes > 0;
            known.then(|| Self { chunk_bytes, size: u64::from_le_bytes(size) })
        });
        meta.ok_or_else(|| redb::Error::Corrupted("meta value of an sql database".to_owned()))
    }
}

/// Copies `source[from..]` into `into` and fills the rest with zeros.
pub(crate) fn copy_or_zero(source: &[u8], from: usize, into: &mut [u8]) {
    let source = source.get(from..).unwrap_or_default();
    let length = source.len().min(into.len());
    let (head, tail) = into.split_at_mut(length);
    head.copy_from_slice(source.get(..length).unwrap_or_default());
    tail.fill(0);
}

fn key(id: u32, chunk: Option<u32>) -> u64 {
    u64::from(id) << 32 | chunk.map_or(0, |number| u64::from(number) + 1)
}

fn without_zero_tail(chunk: &[u8]) -> &[u8] {
    let end = chunk.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    chunk.get(..end).unwrap_or_default()
}

/// How many chunks and meta values are stored.
#[cfg(test)]
pub(super) fn stored(transaction: &ReadTransaction) -> Result<u64, redb::Error> {
    Ok(redb::ReadableTableMetadata::len(&transaction.open_table(PAGES)?)?)
}

/// Bytes stored, and bytes of redb's pages that hold them.
#[cfg(test)]
pub(super) fn space(transaction: &ReadTransaction) -> Result<(u64, u64), redb::Error> {
    let stats = redb::ReadableTableMetadata::stats(&transaction.open_table(PAGES)?)?;
    Ok((stats.stored_bytes(), stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes()))
}
