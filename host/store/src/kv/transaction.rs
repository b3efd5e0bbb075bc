//! Reads and writes of several kv stores as one step.

use std::{collections::HashMap, sync::Arc};

use super::{
    Batch, Kv, KvError,
    key::{AsKey, Key},
    named::{blocking, load},
};
use crate::{
    commit::CommitError,
    core::{Core, Open},
    limits::{TRANSACTION_BYTES, TRANSACTION_CHECKS, TRANSACTION_ITEMS},
    overlay::{Checked, Read},
};

/// Reads and writes of kv stores of one file that count as one step: at the instant of `commit` everything that was read
/// still stands as it was read, and everything written appears. Nobody waits for a transaction; the one that comes too
/// late is told `Conflict`, has changed nothing, and is to be run again from its start by whoever began it. To drop it is
/// to roll it back.
///
/// What `get` answers was there together with all that it answered before, so that work half done never sees a state that
/// never was. Reads at most 1,000 keys and 8 MiB, and writes as a `Batch` does.
#[derive(Debug)]
pub struct Transaction {
    writes: Batch,
    reads: HashMap<Key, Read>,
    read_bytes: usize,
}

impl Transaction {
    pub(crate) fn new(open: Arc<Open>) -> Self {
        Self { writes: Batch::new(open), reads: HashMap::new(), read_bytes: 0 }
    }

    /// The value of a key: what this transaction wrote there, else what stands there.
    pub async fn get(&mut self, kv: &Kv, key: &str) -> Result<Option<Arc<[u8]>>, KvError> {
        kv.check_file(self.writes.core())?;
        let buffer = kv.key(key)?;
        let key = buffer.to_key();
        let core = Arc::clone(self.writes.core());
        if let Some(write) = self.writes.added(&key) {
            return Ok(write.record(0).entry(|| core.now_ms()).map(|entry| entry.value));
        }
        let first = self.reads.is_empty();
        if !self.reads.contains_key(&key) {
            if self.reads.len() >= TRANSACTION_ITEMS {
                let text = format!("a transaction reads at most {TRANSACTION_ITEMS} keys");
                return Err(KvError::TooLarge(text));
            }
            let loaded = kv.read(&buffer).await?;
            let bytes = self.read_bytes + loaded.record.value_bytes();
            if bytes > TRANSACTION_BYTES {
                let text = format!("a transaction reads at most {TRANSACTION_BYTES} bytes");
                return Err(KvError::TooLarge(text));
            }
            self.read_bytes = bytes;
            self.reads.insert(key.clone(), Read::new(loaded, core.now_ms()));
        }
        if !first {
            self.settle(false).await?;
        }
        let read = self.reads.get(&key).filter(|read| read.there);
        Ok(read.and_then(|read| read.loaded.record.value.clone()))
    }

    /// Writes a value, when the transaction is committed. Without `ttl_ms` the store's default applies, and the time
    /// starts now.
    pub fn set(&mut self, kv: &Kv, key: &str, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<(), KvError> {
        self.writes.set(kv, key, value, ttl_ms)
    }

    /// Removes a key, when the transaction is committed.
    pub fn delete(&mut self, kv: &Kv, key: &str) -> Result<(), KvError> {
        self.writes.delete(kv, key)
    }

    /// Makes the writes, if everything read still stands; acknowledged as a `Batch` is. `Conflict`: something does not,
    /// and nothing has changed; so with `Full`, for which a store may not have what is written. When the storage fails after that (`Storage`), it is not known what is on disk.
    pub async fn commit(mut self) -> Result<(), KvError> {
        self.writes.room().await?;
        self.settle(true).await?;
        if self.writes.is_empty() {
            return Ok(());
        }
        Ok(self.writes.core().acknowledge(self.writes.acknowledge_by()).await?)
    }

    /// Forgets everything; nothing has changed.
    pub fn roll_back(self) {}

    /// Makes the writes, or none, if everything read stands at that instant.
    async fn settle(&mut self, write: bool) -> Result<(), KvError> {
        let core = Arc::clone(self.writes.core());
        for _ in 0..TRANSACTION_CHECKS {
            let writes = if write { self.writes.writes() } else { &[] };
            match core.overlay.transact(&self.reads, writes, || core.now_ms(), || core.next_version())? {
                Checked::Done => return Ok(()),
                Checked::Changed => return Err(KvError::Conflict),
                Checked::Load(keys) => self.load(&core, keys).await?,
            }
        }
        Err(KvError::Conflict)
    }

    /// Reads again what memory does not know any more.
    async fn load(&mut self, core: &Arc<Core>, keys: Vec<Key>) -> Result<(), KvError> {
        let (shared, asked) = (Arc::clone(core), keys.clone());
        let loaded = match blocking(move || load(&shared, &asked, TRANSACTION_BYTES)).await {
            // They had fewer bytes before.
            Err(CommitError::TooLarge(_)) => return Err(KvError::Conflict),
            loaded => loaded?,
        };
        let now_ms = core.now_ms();
        for (key, loaded) in keys.iter().zip(loaded) {
            let Some(read) = self.reads.get_mut(key) else { continue };
            if !read.still(&loaded.record, now_ms) {
                return Err(KvError::Conflict);
            }
            read.loaded = loaded;
        }
        Ok(())
    }
}
