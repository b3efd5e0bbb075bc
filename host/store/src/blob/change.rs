//! What the committer does to blobs.

use std::sync::{Arc, OnceLock};

use redb::{ReadableTable, WriteTransaction};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Precondition,
    chunk::{Chunk, Hash, lay_out},
    folder::Draft,
    lease::Lease,
    rows::{self, CHUNKS, CONTENTS, FILES, OBJECTS, PARTS, RELEASED, Record, TAILS, damaged},
};

/// A change of one container, part of a message.
#[derive(Debug)]
pub(crate) struct BlobChange {
    pub(super) container: u32,
    pub(super) step: Step,
    /// Held until the change is durable, even if whoever asked for it has gone.
    pub(super) _lease: Option<Arc<Lease>>,
    /// Among the messages of uploads that wait for the committer; likewise.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Adds chunks to a content, which is released until it is published.
    Append { content: u64, first: u64, chunks: Vec<Chunk> },
    /// Puts an object with a content under a key. The draft is the content's file, if it is one.
    Publish {
        key: String,
        record: Record,
        precondition: Precondition,
        decided: Decided,
        draft: Option<Arc<Draft>>,
    },
    /// Removes objects. The precondition is for each.
    Remove { keys: Vec<String>, precondition: Precondition, decided: Decided },
}

/// What the committer decided, for whoever waits for the commit.
pub(super) type Decided = Arc<OnceLock<Decision>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Published, or so many objects removed.
    Done(usize),
    /// The precondition does not hold.
    Refused,
}

impl BlobChange {
    /// Bytes that it brings into a commit, nearly.
    pub(crate) fn size(&self) -> usize {
        match &self.step {
            Step::Append { chunks, .. } => {
                chunks.iter().map(|chunk| chunk.stored.len() + size_of::<Hash>()).sum()
            }
            Step::Publish { key, record, .. } => key.len() + record.encode().len(),
            Step::Remove { keys, .. } => keys.iter().map(String::len).sum(),
        }
    }

    /// Writes it into the committer's transaction. True: there is something to collect now.
    pub(crate) fn apply(&self, transaction: &WriteTransaction) -> Result<bool, redb::Error> {
        match &self.step {
            Step::Append { content, first, chunks } => {
                self.append(transaction, *content, *first, chunks)?;
                Ok(false)
            }
            Step::Publish { key, record, precondition, decided, draft } => {
                let present = rows::record(&transaction.open_table(OBJECTS)?, self.container, key)?;
                if !holds(precondition, present.as_ref()) {
                    decide(decided, Decision::Refused);
                    return Ok(true);
                }
                match draft {
                    Some(draft) => {
                        draft.publish();
                        transaction.open_table(FILES)?.insert(record.content, self.container)?;
                    }
                    None => self.take(transaction, record)?,
                }
                self.publish(transaction, key, record)?;
                decide(decided, Decision::Done(1));
                Ok(present.is_some())
            }
            Step::Remove { keys, precondition, decided } => {
                let decision = self.remove(transaction, keys, precondition)?;
                decide(decided, decision);
                Ok(decision != Decision::Refused)
            }
        }
    }

    fn append(
        &self,
        transaction: &WriteTransaction,
        content: u64,
        first: u64,
        chunks: &[Chunk],
    ) -> Result<(), redb::Error> {
        transaction.open_table(RELEASED)?.insert((self.container, content), ())?;
        let hashes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.hash).collect();
        transaction.open_table(CONTENTS)?.insert((self.container, content, first), hashes.as_slice())?;
        let mut known = transaction.open_table(CHUNKS)?;
        let mut parts = transaction.open_table(PARTS)?;
        let mut tails = transaction.open_table(TAILS)?;
        for chunk in chunks {
            let key = (self.container, &chunk.hash);
            let present = known.get(key)?.map(|row| row.value());
            if let Some((references, codec, stored)) = present {
                known.insert(key, (references + 1, codec, stored))?;
                continue;
            }
            let stored = u32::try_from(chunk.stored.len()).map_err(|_| damaged("a chunk"))?;
            known.insert(key, (1, chunk.codec as u8, stored))?;
            let layout = lay_out(&chunk.stored);
            for (number, part) in (0..).zip(layout.parts) {
                parts.insert((self.container, &chunk.hash, number), part)?;
            }
            if let Some(tail) = layout.tail {
                tails.insert(key, tail)?;
            }
        }
        Ok(())
    }

    /// Takes what was uploaded from among the released.
    fn take(&self, transaction: &WriteTransaction, record: &Record) -> Result<(), redb::Error> {
        let whole = transaction.open_table(RELEASED)?.remove((self.container, record.content))?.is_some();
        if whole || record.size == 0 { Ok(()) } else { Err(damaged("an upload")) }
    }

    fn publish(&self, transaction: &WriteTransaction, key: &str, record: &Record) -> Result<(), redb::Error> {
        let mut objects = transaction.open_table(OBJECTS)?;
        let before = objects.insert((self.container, key), record.encode().as_slice())?;
        if let Some(before) = before {
            let content = Record::decode(before.value())?.content;
            transaction.open_table(RELEASED)?.insert((self.container, content), ())?;
        }
        Ok(())
    }

    fn remove(
        &self,
        transaction: &WriteTransaction,
        keys: &[String],
        precondition: &Precondition,
    ) -> Result<Decision, redb::Error> {
        let mut objects = transaction.open_table(OBJECTS)?;
        if !precondition.is_none() {
            for key in keys {
                if !holds(precondition, rows::record(&objects, self.container, key)?.as_ref()) {
                    return Ok(Decision::Refused);
                }
            }
        }
        let mut released = transaction.open_table(RELEASED)?;
        let mut removed = 0;
        for key in keys {
            if let Some(row) = objects.remove((self.container, key.as_str()))? {
                released.insert((self.container, Record::decode(row.value())?.content), ())?;
                removed += 1;
            }
        }
        Ok(Decision::Done(removed))
    }
}

fn holds(precondition: &Precondition, present: Option<&Record>) -> bool {
    precondition.unmet(present.map(Record::etag).as_deref()).is_none()
}

/// The first decision stands: a change is applied once.
fn decide(decided: &Decided, decision: Decision) {
    let _ = decided.set(decision);
}
