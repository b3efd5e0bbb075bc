//! Counts everything again.

use std::{
    collections::HashMap,
    ops::{Bound, RangeInclusive},
    sync::atomic::AtomicBool,
};

use redb::{ReadTransaction, ReadableTable};
use sha2::{Digest, Sha256};

use super::{
    chunk::Hash,
    folder::Folder,
    limits::{CHECK_AT_ONCE, CHUNK_BYTES},
    rows::{self, CHUNKS, CONTENTS, FILES, OBJECTS, PARTS, RELEASED, Record, TAILS, hashes},
};
use crate::{
    CommitError,
    core::unavailable,
    report::{note, wanted},
};

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
    /// Bytes that are stored of the chunks and files.
    pub stored_bytes: u64,
    /// What does not fit together, for people; at most `PROBLEMS` of them. Empty: all is well.
    pub problems: Vec<String>,
}

impl BlobReport {
    fn problem(&mut self, text: impl FnOnce() -> String) {
        note(&mut self.problems, text);
    }
}

/// Counts what `begin` shows at first, and looks again at what it shows later, where a file may have gone meanwhile.
pub(crate) fn report(
    begin: &dyn Fn() -> Result<ReadTransaction, CommitError>,
    folder: Option<&Folder>,
    container: u32,
    thorough: bool,
    stop: &AtomicBool,
) -> Result<BlobReport, CommitError> {
    let (transaction, report) = (&begin()?, BlobReport::default());
    let mut reading = Reading { transaction, begin, folder, container, stop, at_once: CHECK_AT_ONCE, report };
    reading.count()?;
    if thorough {
        reading.contents()?;
        reading.chunks().map_err(unavailable)?;
        reading.strays().map_err(unavailable)?;
    }
    Ok(reading.report)
}

struct Reading<'a> {
    transaction: &'a ReadTransaction,
    begin: &'a dyn Fn() -> Result<ReadTransaction, CommitError>,
    /// None: what is in files is not looked at.
    folder: Option<&'a Folder>,
    container: u32,
    stop: &'a AtomicBool,
    /// How many chunks, or contents, are in memory at once.
    at_once: usize,
    report: BlobReport,
}

/// How often each chunk should stand in contents, and how often it was found there.
type Places = HashMap<Hash, (u64, u64)>;

impl Reading<'_> {
    fn count(&mut self) -> Result<(), CommitError> {
        self.count_objects()?;
        self.count_chunks().map_err(unavailable)
    }

    fn count_objects(&mut self) -> Result<(), CommitError> {
        self.objects(|report, _, record| {
            report.objects += 1;
            report.object_bytes += record.size;
            if record.is_file() {
                report.stored_bytes += record.size;
            }
            Ok(())
        })
    }

    fn count_chunks(&mut self) -> Result<(), redb::Error> {
        let mut released = 0;
        self.released((self.container, 0)..=(self.container, u64::MAX), |_| released += 1)?;
        self.report.released = released;
        let all = (self.container, &[0; 32])..=(self.container, &[u8::MAX; 32]);
        for row in wanted(self.transaction.open_table(CHUNKS)?.range(all)?, self.stop) {
            let (references, _, stored) = row?.1.value();
            self.report.chunks += 1;
            self.report.references += references;
            self.report.stored_bytes += u64::from(stored);
        }
        Ok(())
    }

    fn objects(
        &mut self,
        mut visit: impl FnMut(&mut BlobReport, &str, Record) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let all = self.transaction.open_table(OBJECTS).map_err(unavailable)?;
        let rows = all.range::<(u32, &str)>((self.container, "")..).map_err(unavailable)?;
        for row in wanted(rows, self.stop) {
            let (key, row) = row.map_err(unavailable)?;
            let (owner, key) = key.value();
            if owner != self.container {
                break;
            }
            visit(&mut self.report, key, Record::decode(row.value()).map_err(unavailable)?)?;
        }
        Ok(())
    }

    fn released(
        &self,
        contents: RangeInclusive<(u32, u64)>,
        mut visit: impl FnMut(u64),
    ) -> Result<(), redb::Error> {
        for row in wanted(self.transaction.open_table(RELEASED)?.range(contents)?, self.stop) {
            let (_, content) = row?.0.value();
            visit(content);
        }
        Ok(())
    }

    /// Every object has its content, of the right length, and every other content is released. Files are read.
    fn contents(&mut self) -> Result<(), CommitError> {
        let (folder, container, begin, stop) = (self.folder, self.container, self.begin, self.stop);
        let mut next = Some(0);
        while let Some(first) = next {
            let (last, mut lengths) = self.lengths(first).map_err(unavailable)?;
            self.objects(|report, key, record| {
                if !(first..=last).contains(&record.content) {
                    return Ok(());
                }
                let found = lengths.remove(&record.content);
                if record.is_file() {
                    let problem = match (found, folder) {
                        (None, _) => Some("its file is not noted"),
                        (_, None) => None,
                        (_, Some(folder)) => {
                            folder.problem(record.content, &record.sha256, stop).map_err(unavailable)?
                        }
                    };
                    if let Some(problem) = problem
                        && has_still(&begin()?, container, key, record.content).map_err(unavailable)?
                    {
                        report.problem(|| format!("object {key:?}: {problem}"));
                    }
                    return Ok(());
                }
                let chunks = found.unwrap_or_default();
                let expected = record.size.div_ceil(u64::from(record.chunk_bytes));
                if chunks != expected {
                    report.problem(|| format!("object {key:?} has {chunks} chunks, not {expected}"));
                }
                Ok(())
            })?;
            let released = (self.container, first)..=(self.container, last);
            let forget = |content| {
                lengths.remove(&content);
            };
            self.released(released, forget).map_err(unavailable)?;
            for content in lengths.keys() {
                self.report.problem(|| format!("content {content} belongs to nothing"));
            }
            next = last.checked_add(1);
        }
        Ok(())
    }

    /// The number of chunks of contents from `first` on (of one that is a file: none), of as many as are compared at once, and
    /// up to which these are all.
    fn lengths(&self, first: u64) -> Result<(u64, HashMap<u64, u64>), redb::Error> {
        let (mut last, mut lengths) = self.files(first)?;
        let files = lengths.len();
        let all = (self.container, first, 0)..=(self.container, u64::MAX, u64::MAX);
        for row in wanted(self.transaction.open_table(CONTENTS)?.range(all)?, self.stop) {
            let (key, row) = row?;
            let (_, content, _) = key.value();
            if content > last {
                break;
            }
            if lengths.len() == files + self.at_once && !lengths.contains_key(&content) {
                last = content.saturating_sub(1);
                lengths.retain(|content, _| *content <= last);
                break;
            }
            *lengths.entry(content).or_default() += hashes(row.value())?.len() as u64;
        }
        Ok((last, lengths))
    }

    /// Likewise, of the files alone.
    fn files(&self, first: u64) -> Result<(u64, HashMap<u64, u64>), redb::Error> {
        let mut files = HashMap::new();
        for row in wanted(self.transaction.open_table(FILES)?.range(first..)?, self.stop) {
            let (content, container) = row?;
            if container.value() != self.container {
                continue;
            }
            if files.len() == self.at_once {
                return Ok((content.value().saturating_sub(1), files));
            }
            files.insert(content.value(), 0);
        }
        Ok((u64::MAX, files))
    }

    /// Every chunk has its bytes and counts the places where it stands, and every chunk that stands somewhere is there.
    fn chunks(&mut self) -> Result<(), redb::Error> {
        let mut after = None;
        loop {
            let (through, mut places) = self.stored(after)?;
            let is_here = |hash: &Hash| {
                after.is_none_or(|after| *hash > after) && through.is_none_or(|through| *hash <= through)
            };
            let all = (self.container, 0, 0)..=(self.container, u64::MAX, u64::MAX);
            for row in wanted(self.transaction.open_table(CONTENTS)?.range(all)?, self.stop) {
                let (key, row) = row?;
                for hash in hashes(row.value())?.iter().filter(|hash| is_here(hash)) {
                    let (_, content, _) = key.value();
                    match places.get_mut(hash) {
                        Some((_, found)) => *found += 1,
                        None => self.report.problem(|| format!("a chunk of content {content} is missing")),
                    }
                }
            }
            for (counted, found) in places.values() {
                if counted != found || *counted == 0 {
                    self.report.problem(|| format!("a chunk counts {counted} references, and has {found}"));
                }
            }
            if through.is_none() {
                return Ok(());
            }
            after = through;
        }
    }

    /// The chunks behind `after`, as many as are compared at once, and the last of them; none: these are all that are left.
    fn stored(&mut self, after: Option<Hash>) -> Result<(Option<Hash>, Places), redb::Error> {
        let (parts, tails) = (self.transaction.open_table(PARTS)?, self.transaction.open_table(TAILS)?);
        let low = match &after {
            Some(after) => Bound::Excluded((self.container, after)),
            None => Bound::Included((self.container, &[0; 32])),
        };
        let all = (low, Bound::Included((self.container, &[u8::MAX; 32])));
        let mut places = Places::new();
        for row in wanted(self.transaction.open_table(CHUNKS)?.range(all)?, self.stop) {
            let (key, row) = row?;
            let (_, hash) = key.value();
            if !is_whole(&parts, &tails, self.container, hash, row.value())? {
                self.report.problem(|| "a chunk has not the bytes that were uploaded".to_owned());
            }
            let (references, ..) = row.value();
            places.insert(*hash, (references, 0));
            if places.len() == self.at_once {
                return Ok((Some(*hash), places));
            }
        }
        Ok((None, places))
    }

    /// Nothing is left of chunks that have gone.
    fn strays(&mut self) -> Result<(), redb::Error> {
        let known = self.transaction.open_table(CHUNKS)?;
        let parts = (self.container, &[0; 32], 0)..=(self.container, &[u8::MAX; 32], u8::MAX);
        for row in wanted(self.transaction.open_table(PARTS)?.range(parts)?, self.stop) {
            let key = row?.0;
            let (_, hash, _) = key.value();
            if known.get((self.container, hash))?.is_none() {
                self.report.problem(|| "a part belongs to no chunk".to_owned());
            }
        }
        let tails = (self.container, &[0; 32])..=(self.container, &[u8::MAX; 32]);
        for row in wanted(self.transaction.open_table(TAILS)?.range(tails)?, self.stop) {
            let key = row?.0;
            if known.get(key.value())?.is_none() {
                self.report.problem(|| "a tail belongs to no chunk".to_owned());
            }
        }
        Ok(())
    }
}

/// Whether an object has this content also now: one that was removed or replaced meanwhile has no file to keep, though an
/// earlier snapshot has its row.
fn has_still(
    transaction: &ReadTransaction,
    container: u32,
    key: &str,
    content: u64,
) -> Result<bool, redb::Error> {
    let objects = transaction.open_table(OBJECTS)?;
    let Some(row) = objects.get((container, key))? else { return Ok(false) };
    Ok(Record::decode(row.value())?.content == content)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use redb::{Database, ReadableDatabase};

    use super::*;
    use crate::{BlobOptions, Options, Precondition, PutOptions, Store, core::Core, names::Kind};

    fn hash(byte: u8) -> Hash {
        Sha256::digest(vec![byte; CHUNK_BYTES]).into()
    }

    fn problems(database: &Database, container: u32, at_once: usize) -> Vec<String> {
        let begin = || database.begin_read().map_err(unavailable);
        let transaction = begin().unwrap();
        let (stop, report) = (AtomicBool::new(false), BlobReport::default());
        let mut reading = Reading {
            transaction: &transaction,
            begin: &begin,
            folder: None,
            container,
            stop: &stop,
            at_once,
            report,
        };
        reading.contents().unwrap();
        reading.chunks().unwrap();
        reading.strays().unwrap();
        reading.report.problems.sort();
        reading.report.problems
    }

    /// A content loses its object, a chunk its row, and another its count.
    fn damage(database: &Database, container: u32) -> u64 {
        let write = database.begin_write().unwrap();
        let content = {
            let mut contents = write.open_table(CONTENTS).unwrap();
            let (key, hashes) =
                contents.pop_first().unwrap().map(|(key, row)| (key.value(), row.value().to_vec())).unwrap();
            contents.insert((container, 1_000, 0), hashes.as_slice()).unwrap();
            let mut chunks = write.open_table(CHUNKS).unwrap();
            let (_, codec, stored) = chunks.remove((container, &hash(5))).unwrap().unwrap().value();
            chunks.insert((container, &hash(4)), (7, codec, stored)).unwrap();
            key.1
        };
        write.commit().unwrap();
        content
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn however_little_is_compared_at_once_the_same_is_found() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store");
        let store = Store::open(&path, Options::default()).unwrap();
        let images = store.container("images", BlobOptions::default()).unwrap();
        for (key, chunks) in [("a", [1, 2, 3].as_slice()), ("b", &[3, 4]), ("c", &[5]), ("d", &[])] {
            let content = chunks.iter().flat_map(|byte| vec![*byte; CHUNK_BYTES]).collect::<Vec<_>>();
            images.put(key, &content, PutOptions::default()).await.unwrap();
        }
        let container = store.open.core.names.find(Kind::Blob, "images").unwrap();
        drop(images);
        store.close().await.unwrap();
        drop(store);
        let database = Database::open(&path).unwrap();
        for at_once in [1, 2, 3, 100] {
            assert_eq!(problems(&database, container, at_once), [""; 0], "{at_once}");
        }
        let first = damage(&database, container);
        let expected = [
            "a chunk counts 7 references, and has 1".to_owned(),
            format!("a chunk of content {} is missing", first + 2),
            "a tail belongs to no chunk".to_owned(),
            "content 1000 belongs to nothing".to_owned(),
            "object \"a\" has 0 chunks, not 3".to_owned(),
        ];
        for at_once in [1, 2, 3, 100] {
            let found = problems(&database, container, at_once);
            let found: Vec<_> =
                found.into_iter().filter(|problem| !problem.contains("not the bytes")).collect();
            assert_eq!(found, expected, "{at_once}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_object_that_goes_while_files_are_read_is_no_problem() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("blobs");
        let options = Options { blob_folder: Some(folder.clone()), ..Options::default() };
        let store = Store::open(&home.path().join("store"), options).unwrap();
        let images =
            store.container("images", BlobOptions { files: true, ..BlobOptions::default() }).unwrap();
        for key in ["removed", "replaced", "stays"] {
            images.put(key, key.as_bytes(), PutOptions::default()).await.unwrap();
        }
        let core = Arc::clone(&store.open.core);
        let before = core.begin_read().unwrap();
        images.delete("removed", Precondition::default()).await.unwrap();
        images.put("replaced", b"anew", PutOptions::default()).await.unwrap();
        while std::fs::read_dir(&folder).unwrap().count() != 2 {
            tokio::task::yield_now().await;
        }
        let container = core.names.find(Kind::Blob, "images").unwrap();
        let problems = |begin: &dyn Fn() -> Result<ReadTransaction, CommitError>| {
            let (stop, report) = (AtomicBool::new(false), BlobReport::default());
            let folder = core.folder.as_deref();
            let mut reading =
                Reading { transaction: &before, begin, folder, container, stop: &stop, at_once: 100, report };
            reading.contents().unwrap();
            reading.report.problems
        };
        assert_eq!(problems(&|| core.begin_read()), [""; 0]);
        std::fs::remove_file(folder.join(format!("{:016x}", content_of(&core, container, "stays")))).unwrap();
        assert_eq!(problems(&|| core.begin_read()), ["object \"stays\": its file is missing"]);
    }

    fn content_of(core: &Core, container: u32, key: &str) -> u64 {
        let objects = core.begin_read().unwrap().open_table(OBJECTS).unwrap();
        let row = objects.get((container, key)).unwrap().unwrap();
        Record::decode(row.value()).unwrap().content
    }
}
