//! Counts everything again.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use redb::{ReadTransaction, ReadableTable};
use sha2::{Digest, Sha256};

use super::{
    chunk::Hash,
    limits::CHUNK_BYTES,
    rows::{self, CHUNKS, CONTENTS, OBJECTS, PARTS, RELEASED, Record, TAILS, hashes},
};
use crate::report::note;

/// What is in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobReport {
    /// Objects.
    pub objects: u64,
    /// Bytes of the objects, as they were uploaded.
    pub object_bytes: u64,
    /// Contents that no object has: uploads under way, and what waits to be collected.
    pub released: u64,
    /// Chunks, each counted once.
    pub chunks: u64,
    /// Places in contents where chunks stand.
    pub references: u64,
    /// Bytes that are stored of the chunks.
    pub stored_bytes: u64,
    /// What does not fit together, for people; at most `PROBLEMS` of them. Empty: all is well.
    pub problems: Vec<String>,
}

impl BlobReport {
    fn problem(&mut self, text: impl FnOnce() -> String) {
        note(&mut self.problems, text);
    }
}

pub(crate) fn report(
    transaction: &ReadTransaction,
    container: u32,
    bytes: bool,
    stop: &AtomicBool,
) -> Result<BlobReport, redb::Error> {
    let mut report = BlobReport::default();
    let mut contents = contents(transaction, container)?;
    let mut found: HashMap<Hash, u64> = HashMap::new();
    for hash in contents.values().flatten() {
        *found.entry(*hash).or_default() += 1;
    }
    report.references = found.values().sum();
    objects(transaction, container, &mut contents, &mut report)?;
    for row in transaction.open_table(RELEASED)?.range((container, 0)..=(container, u64::MAX))? {
        let (_, content) = row?.0.value();
        report.released += 1;
        contents.remove(&content);
    }
    for content in contents.keys() {
        report.problem(|| format!("content {content} belongs to nothing"));
    }
    let bytes = bytes.then_some(stop);
    chunks(transaction, container, found, bytes, &mut report)?;
    Ok(report)
}

fn contents(transaction: &ReadTransaction, container: u32) -> Result<HashMap<u64, Vec<Hash>>, redb::Error> {
    let mut contents: HashMap<u64, Vec<Hash>> = HashMap::new();
    let all = (container, 0, 0)..=(container, u64::MAX, u64::MAX);
    for row in transaction.open_table(CONTENTS)?.range(all)? {
        let (key, row) = row?;
        let (_, content, _) = key.value();
        contents.entry(content).or_default().extend_from_slice(hashes(row.value())?);
    }
    Ok(contents)
}

/// Every object has its content, of the right length.
fn objects(
    transaction: &ReadTransaction,
    container: u32,
    contents: &mut HashMap<u64, Vec<Hash>>,
    report: &mut BlobReport,
) -> Result<(), redb::Error> {
    for row in transaction.open_table(OBJECTS)?.range::<(u32, &str)>((container, "")..)? {
        let (key, row) = row?;
        let (owner, key) = key.value();
        if owner != container {
            break;
        }
        let record = Record::decode(row.value())?;
        report.objects += 1;
        report.object_bytes += record.size;
        let chunks = contents.remove(&record.content).unwrap_or_default().len() as u64;
        let expected = record.size.div_ceil(u64::from(record.chunk_bytes));
        if chunks != expected {
            report.problem(|| format!("object {key:?} has {chunks} chunks, not {expected}"));
        }
    }
    Ok(())
}

/// Every chunk counts the places where it stands, and has its bytes, if those are compared until they are not wanted any more.
fn chunks(
    transaction: &ReadTransaction,
    container: u32,
    mut found: HashMap<Hash, u64>,
    bytes: Option<&AtomicBool>,
    report: &mut BlobReport,
) -> Result<(), redb::Error> {
    let (parts, tails) = (transaction.open_table(PARTS)?, transaction.open_table(TAILS)?);
    for row in transaction.open_table(CHUNKS)?.range((container, &[0; 32])..=(container, &[u8::MAX; 32]))? {
        let (key, row) = row?;
        let (_, hash) = key.value();
        let (references, _, stored) = row.value();
        report.chunks += 1;
        report.stored_bytes += u64::from(stored);
        let places = found.remove(hash).unwrap_or_default();
        if references != places || references == 0 {
            report.problem(|| format!("a chunk counts {references} references, and has {places}"));
        }
        // The bytes take by far the longest; nobody sees the report of a check that is given up.
        let bytes = bytes.is_some_and(|stop| !stop.load(Ordering::Relaxed));
        if bytes && !is_whole(&parts, &tails, container, hash, row.value())? {
            report.problem(|| "a chunk has not the bytes that were uploaded".to_owned());
        }
    }
    for places in found.into_values() {
        report.problem(|| format!("a chunk is missing, and has {places} references"));
    }
    let rows_of_parts = parts.range((container, &[0; 32], 0)..=(container, &[u8::MAX; 32], u8::MAX))?;
    let known = transaction.open_table(CHUNKS)?;
    for row in rows_of_parts {
        let key = row?.0;
        let (_, hash, _) = key.value();
        if known.get((container, hash))?.is_none() {
            report.problem(|| "a part belongs to no chunk".to_owned());
        }
    }
    for row in tails.range((container, &[0; 32])..=(container, &[u8::MAX; 32]))? {
        let key = row?.0;
        if known.get(key.value())?.is_none() {
            report.problem(|| "a tail belongs to no chunk".to_owned());
        }
    }
    Ok(())
}

fn is_whole(
    parts: &impl ReadableTable<(u32, &'static Hash, u8), &'static [u8]>,
    tails: &impl ReadableTable<(u32, &'static Hash), &'static [u8]>,
    container: u32,
    hash: &Hash,
    row: (u64, u8, u32),
) -> Result<bool, redb::Error> {
    let (codec, stored) = rows::stored(row)?;
    let Ok(stored) = rows::read_stored(parts, tails, container, hash, stored) else { return Ok(false) };
    let raw = codec.decode(stored, CHUNK_BYTES);
    Ok(raw.is_some_and(|raw| Sha256::digest(&raw).as_slice() == hash))
}
