//! Reading objects: a chunk at a time, each in a read transaction of its own, or as much of a file.

use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::{Arc, atomic::AtomicBool},
};

use redb::ReadTransaction;
use sha2::{Digest, Sha256};

use super::{
    BlobError, BlobInfo, ByteRange, GetOptions, Unmet,
    chunk::Hash,
    container::{Container, blocking},
    folder::{digest, unreadable},
    lease::Lease,
    limits::HASH_BYTES,
    rows::{self, CHUNKS, CONTENTS, OBJECTS, PARTS, Record, TAILS, damaged, hashes},
};
use crate::{
    StorageError,
    core::{Core, unavailable},
};

/// What `get` found.
#[derive(Debug)]
pub enum Got {
    /// The object, to be read.
    Found(Reader),
    /// There is no object, and the precondition does not mind.
    Absent,
    /// The precondition does not hold for what is there (none: nothing).
    Unmet(Unmet, Option<BlobInfo>),
}

/// An object that is being read, as it was when it was opened, whatever becomes of it meanwhile.
#[derive(Debug)]
pub struct Reader {
    info: BlobInfo,
    range: Range<u64>,
    /// Read with the object itself.
    first: Option<Vec<u8>>,
    rest: Rest,
}

/// What is still to be read. A clone serves a blocking thread.
#[derive(Clone, Debug)]
struct Rest {
    container: Container,
    content: u64,
    chunk_bytes: u64,
    size: u64,
    verify: bool,
    range: Range<u64>,
    /// The content, if it is a file. It is closed before the lease ends: closing the last handle of a file without a name
    /// would remove it here, which may take long.
    file: Option<Arc<File>>,
    /// None if nothing is left.
    _lease: Option<Arc<Lease>>,
}

impl Reader {
    /// The object.
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// The bytes that are read: all of them, or the range asked, cut to the object.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The next bytes, at most a chunk of them (`limits::CHUNK_BYTES`); none at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, BlobError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.rest.range.is_empty() {
            return Ok(None);
        }
        let rest = self.rest.clone();
        let bytes = blocking(move || {
            let transaction = rest.container.core.begin_read()?;
            Ok(rest.read(&transaction).map_err(unavailable)?)
        })
        .await?;
        self.rest.advance(bytes.len());
        Ok(Some(bytes))
    }

    /// Everything that is left, for what is known to be small.
    pub async fn read_all(mut self) -> Result<Vec<u8>, BlobError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

/// Looks the object up, and reads its first bytes in the same transaction; if there are more, takes a lease on them.
pub(super) fn open(container: &Container, key: &str, options: GetOptions) -> Result<Got, BlobError> {
    let core = &container.core;
    let mut transaction = core.begin_read()?;
    let mut lease: Option<Arc<Lease>> = None;
    let mut leased = None;
    // Comes around again only when a commit has just replaced the object, hence not for ever.
    loop {
        let objects = transaction.open_table(OBJECTS).map_err(unavailable)?;
        let record = rows::record(&objects, container.number, key).map_err(unavailable)?;
        let etag = record.as_ref().map(Record::etag);
        if let Some(unmet) = options.precondition.unmet(etag.as_deref()) {
            return Ok(Got::Unmet(unmet, record.map(|record| record.info(key))));
        }
        let Some(record) = record else { return Ok(Got::Absent) };
        let range = resolve(options.range, record.size)?;
        let mut rest = Rest {
            container: container.clone(),
            content: record.content,
            chunk_bytes: if record.is_file() { HASH_BYTES as u64 } else { u64::from(record.chunk_bytes) },
            size: record.size,
            verify: options.verify,
            range: range.clone(),
            file: None,
            _lease: None,
        };
        let needs_file = record.is_file() && !range.is_empty();
        let needs_lease = needs_file || !rest.is_last();
        if needs_lease && leased != Some(record.content) {
            lease = Some(Arc::new(core.leases.take(record.content)));
            leased = Some(record.content);
            // Who sees the object after the lease stood can rely on it.
            transaction = core.begin_read()?;
            continue;
        }
        if needs_file {
            rest.file = Some(open_file(core, &record, options.verify)?);
        }
        let mut first = None;
        if !range.is_empty() {
            let bytes = rest.read(&transaction).map_err(unavailable)?;
            rest.advance(bytes.len());
            first = Some(bytes);
        }
        rest._lease = lease.filter(|_| !rest.range.is_empty());
        return Ok(Got::Found(Reader { info: record.info(key), range, first, rest }));
    }
}

/// The file of an object. Its bytes are compared with their hash now, if at all.
fn open_file(core: &Core, record: &Record, verify: bool) -> Result<Arc<File>, BlobError> {
    let missing = || StorageError::Corrupt("the folder of an object's file is not given".to_owned());
    let file = core.folder.as_ref().ok_or_else(missing)?.open(record.content)?;
    let hash = || digest(&file, &AtomicBool::new(false)).map_err(|error| unavailable(unreadable(error)));
    if verify && hash()? != record.sha256 {
        return Err(StorageError::Corrupt("a file has not the bytes that were uploaded".to_owned()).into());
    }
    Ok(Arc::new(file))
}

/// The bytes that a range stands for in an object of this size.
fn resolve(range: Option<ByteRange>, size: u64) -> Result<Range<u64>, BlobError> {
    let range = match range {
        None => return Ok(0..size),
        Some(ByteRange::From { offset, length }) => {
            offset..length.map_or(size, |length| offset.saturating_add(length).min(size))
        }
        Some(ByteRange::Last(bytes)) => size.saturating_sub(bytes)..size,
    };
    if range.start >= size || range.is_empty() {
        return Err(BlobError::OutOfRange(size));
    }
    Ok(range)
}

impl Rest {
    /// Whether one read brings all that is left.
    fn is_last(&self) -> bool {
        self.range.is_empty()
            || self.range.start / self.chunk_bytes == (self.range.end - 1) / self.chunk_bytes
    }

    fn advance(&mut self, bytes: usize) {
        self.range.start = self.range.start.saturating_add(bytes as u64).min(self.range.end);
        if self.range.is_empty() {
            self.file = None;
            self._lease = None;
        }
    }

    /// The next bytes: what of the range lies in one chunk.
    fn read(&self, transaction: &ReadTransaction) -> Result<Vec<u8>, redb::Error> {
        let index = self.range.start / self.chunk_bytes;
        let begin = index * self.chunk_bytes;
        let length = self.chunk_bytes.min(self.size.saturating_sub(begin)) as usize;
        let from = (self.range.start - begin) as usize;
        let to = length.min((self.range.end - begin) as usize);
        if let Some(file) = &self.file {
            let mut bytes = vec![0; to - from];
            file.read_exact_at(&mut bytes, self.range.start).map_err(unreadable)?;
            return Ok(bytes);
        }
        let hash = self.hash(transaction, index)?;
        let mut chunk = self.chunk(transaction, &hash, length)?;
        chunk.truncate(to);
        chunk.drain(..from);
        Ok(chunk)
    }

    fn hash(&self, transaction: &ReadTransaction, index: u64) -> Result<Hash, redb::Error> {
        let contents = transaction.open_table(CONTENTS)?;
        let key = |chunk| (self.container.number, self.content, chunk);
        let (key, row) =
            contents.range(key(0)..=key(index))?.next_back().ok_or_else(|| damaged("a content"))??;
        let (_, _, first) = key.value();
        let hash = hashes(row.value())?.get((index - first) as usize).copied();
        hash.ok_or_else(|| damaged("a content"))
    }

    fn chunk(
        &self,
        transaction: &ReadTransaction,
        hash: &Hash,
        length: usize,
    ) -> Result<Vec<u8>, redb::Error> {
        let chunk = read_chunk(transaction, self.container.number, hash, length)?;
        if self.verify && Sha256::digest(&chunk).as_slice() != hash {
            return Err(redb::Error::Corrupted("a chunk has not the bytes that were uploaded".to_owned()));
        }
        Ok(chunk)
    }
}

/// A chunk of this length, as it was uploaded.
fn read_chunk(
    transaction: &ReadTransaction,
    container: u32,
    hash: &Hash,
    length: usize,
) -> Result<Vec<u8>, redb::Error> {
    let row = transaction.open_table(CHUNKS)?.get((container, hash))?.map(|row| row.value());
    let (codec, stored) = rows::stored(row.ok_or_else(|| damaged("a chunk"))?)?;
    let (parts, tails) = (transaction.open_table(PARTS)?, transaction.open_table(TAILS)?);
    let stored = rows::read_stored(&parts, &tails, container, hash, stored)?;
    let chunk = codec.decode(stored, length).filter(|chunk| chunk.len() == length);
    chunk.ok_or_else(|| damaged("a chunk"))
}
