//! Takes apart the contents that nobody needs any more, in small steps.
//!
//! Why no reader loses a chunk: a reader takes its lease while it sees the object, and then looks again. If the object is
//! still there, the lease stood before any commit released the content; and a step takes only contents that a commit
//! before it has released, after asking for leases.

use std::time::Instant;

use redb::{ReadableTable, WriteTransaction};

use super::{
    chunk::Hash,
    folder::{Folder, Strays},
    limits::{COLLECT_CHUNKS, COLLECT_EVERY, COLLECT_SCAN, COLLECT_SOON},
    rows::{CHUNKS, CONTENTS, FILES, PARTS, RELEASED, TAILS, damaged, hashes},
};
use crate::{
    commit::CommitError,
    core::{Core, EPOCH_SHIFT, unavailable},
};

/// The committer's own: walks through the released contents again and again.
#[derive(Debug)]
pub(crate) struct Collector {
    /// The last content of the step before.
    cursor: Option<(u32, u64)>,
    strays: Option<Strays>,
    due: Instant,
}

/// Released contents that no one holds, of which the next commit takes chunks.
#[derive(Debug, Default)]
pub(crate) struct Collectable(Vec<Released>);

#[derive(Debug)]
struct Released {
    container: u32,
    content: u64,
    is_file: bool,
}

impl Collector {
    /// The first step is due at once: a crash may have left something.
    pub(crate) fn new(core: &Core) -> Self {
        let strays = core.folder.as_ref().map(|folder| folder.strays(core.epoch << EPOCH_SHIFT));
        Self { cursor: None, strays, due: Instant::now() }
    }

    /// When the next step is to be made.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// There is something to collect.
    pub(crate) fn soon(&mut self) {
        self.due = self.due.min(Instant::now() + COLLECT_SOON);
    }

    /// What to collect, when it is time.
    pub(crate) fn step(&mut self, core: &Core) -> Result<Collectable, CommitError> {
        if Instant::now() < self.due {
            return Ok(Collectable::default());
        }
        let found = self.scan(core).map_err(unavailable)?;
        let tidying = core.folder.as_ref().is_some_and(Folder::tidy);
        let more = !found.is_empty() || self.cursor.is_some() || self.strays.is_some() || tidying;
        self.due = Instant::now() + if more { COLLECT_SOON } else { COLLECT_EVERY };
        Ok(found)
    }

    fn scan(&mut self, core: &Core) -> Result<Collectable, redb::Error> {
        use redb::ReadableDatabase;
        let transaction = {
            let database = core.database.read();
            database.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_read()?
        };
        let files = transaction.open_table(FILES)?;
        if let Some((strays, folder)) = self.strays.as_mut().zip(core.folder.as_ref())
            && strays.step(folder, &files, COLLECT_SCAN)?
        {
            self.strays = None;
        }
        let table = transaction.open_table(RELEASED)?;
        let mut free = Vec::new();
        let mut seen = 0;
        let from = self.cursor.take().map_or((0, 0), |(container, content)| (container, content + 1));
        for row in table.range(from..)?.take(COLLECT_SCAN) {
            let (container, content) = row?.0.value();
            seen += 1;
            let is_file = files.get(content)?.is_some();
            // Without the folder its file would stay for ever.
            if !core.leases.is_held(content) && (!is_file || core.folder.is_some()) {
                free.push(Released { container, content, is_file });
            }
            if free.len() == COLLECT_CHUNKS {
                // What of them the step does not come to is found again, once the walk is around.
                break;
            }
            if seen == COLLECT_SCAN {
                self.cursor = Some((container, content));
            }
        }
        Ok(Collectable(free))
    }
}

impl Collectable {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes chunks off the contents, in the committer's transaction, before anything else releases a content in it.
    /// Returns the contents whose files are to be removed after the commit.
    pub(crate) fn take_apart(&self, transaction: &WriteTransaction) -> Result<Vec<u64>, redb::Error> {
        let mut files = Vec::new();
        let mut left = COLLECT_CHUNKS;
        for &Released { container, content, is_file } in &self.0 {
            if left == 0 {
                break;
            }
            if is_file {
                transaction.open_table(FILES)?.remove(content)?;
                files.push(content);
            }
            let rows = rows_of(transaction, container, content, left)?;
            for (first, hashes) in &rows {
                transaction.open_table(CONTENTS)?.remove((container, content, *first))?;
                release(transaction, container, hashes)?;
                left = left.saturating_sub(hashes.len());
            }
            if left == 0 {
                break;
            }
            transaction.open_table(RELEASED)?.remove((container, content))?;
            // An empty content costs something too.
            left -= 1;
        }
        Ok(files)
    }
}

type Row = (u64, Vec<Hash>);

/// Rows of a content with together so many chunks, or a little more.
fn rows_of(
    transaction: &WriteTransaction,
    container: u32,
    content: u64,
    chunks: usize,
) -> Result<Vec<Row>, redb::Error> {
    let contents = transaction.open_table(CONTENTS)?;
    let mut rows = Vec::new();
    let mut found = 0;
    for row in contents.range((container, content, 0)..=(container, content, u64::MAX))? {
        if found >= chunks {
            break;
        }
        let (key, row) = row?;
        let (_, _, first) = key.value();
        let hashes = hashes(row.value())?.to_vec();
        found += hashes.len();
        rows.push((first, hashes));
    }
    Ok(rows)
}

/// Takes one reference off each chunk, and removes those that have none left.
fn release(transaction: &WriteTransaction, container: u32, hashes: &[Hash]) -> Result<(), redb::Error> {
    let mut known = transaction.open_table(CHUNKS)?;
    let mut parts = transaction.open_table(PARTS)?;
    let mut tails = transaction.open_table(TAILS)?;
    for hash in hashes {
        let key = (container, hash);
        let (references, codec, stored) =
            known.get(key)?.map(|row| row.value()).ok_or_else(|| damaged("a chunk"))?;
        if references > 1 {
            known.insert(key, (references - 1, codec, stored))?;
            continue;
        }
        known.remove(key)?;
        tails.remove(key)?;
        let mut number = 0;
        while parts.remove((container, hash, number))?.is_some() {
            number += 1;
        }
    }
    Ok(())
}
