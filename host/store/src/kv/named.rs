//! The functions of a named store.

use std::{collections::HashSet, sync::Arc};

use super::{
    Batch, Entry, KvError, KvOptions, KvWrite, Page, SetOptions, Swapped, Transaction,
    key::{AsKey, Key, KeyBuffer, text_bytes},
    list,
    presence::Presence,
    record::{ROWS, Record},
    size::Size,
};
use crate::{
    StorageError,
    commit::{CommitError, ended},
    core::{Core, Open, unavailable},
    error::guarded,
    limits::{LIST_ITEMS, MESSAGE_BYTES, VALUE_BYTES},
    names::Kind,
    overlay::{Loaded, Step},
};

/// A named kv store. A clone is the same store. Its functions need a tokio runtime; they are ready at once whenever
/// memory answers, and go to a blocking thread when the disk is needed.
#[derive(Clone, Debug)]
pub struct Kv {
    store: u32,
    options: KvOptions,
    present: Arc<Presence>,
    size: Arc<Size>,
    core: Arc<Core>,
    /// Keeps the committer running.
    open: Arc<Open>,
}

impl Kv {
    /// Reads the store's first keys when it is opened for the first time.
    pub(crate) fn open(open: Arc<Open>, name: &str, options: KvOptions) -> Result<Self, KvError> {
        let core = Arc::clone(&open.core);
        core.health.check()?;
        let store = core.names.number(Kind::Kv, name).map_err(KvError::Invalid)?;
        let present = guarded(|| core.presences.of(&core, store))?;
        let size = guarded(|| core.sizes.of(&core, store))?;
        Ok(Self { store, options, present, size, core, open })
    }

    /// Bytes of its keys and values on disk, those that have expired and are not swept away yet too.
    pub fn bytes(&self) -> u64 {
        self.size.on_disk()
    }

    /// Begins to read and write kv stores of this one's file as one step.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(Arc::clone(&self.open))
    }

    /// An empty batch of writes to kv stores of this one's file.
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.open))
    }

    /// The value of a key.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, KvError> {
        let key = self.key(key)?;
        if !self.present.may_have(key.hash()) {
            return Ok(None);
        }
        let record = match self.core.overlay.peek(&key) {
            Some(loaded) => loaded,
            None => self.load(key.to_key()).await?,
        }
        .record;
        Ok(self.entry(&record))
    }

    /// The values of several keys, in the order asked; together at most 8 MiB.
    pub async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, KvError> {
        check_items(keys.len())?;
        let mut entries = vec![None; keys.len()];
        let mut places = Vec::new();
        let mut missing = Vec::new();
        let mut bytes = 0;
        for (place, key) in keys.iter().enumerate() {
            let key = self.key(key)?;
            if !self.present.may_have(key.hash()) {
                continue;
            }
            match (self.core.overlay.peek(&key), entries.get_mut(place)) {
                (Some(Loaded { record, .. }), Some(entry)) => {
                    bytes += record.value_bytes();
                    *entry = self.entry(&record);
                }
                _ => {
                    places.push(place);
                    missing.push(key.to_key());
                }
            }
        }
        check_bytes(bytes)?;
        if !missing.is_empty() {
            for (place, loaded) in
                places.into_iter().zip(self.load_many(missing, MESSAGE_BYTES - bytes).await?)
            {
                if let Some(entry) = entries.get_mut(place) {
                    *entry = self.entry(&loaded.record);
                }
            }
        }
        Ok(entries)
    }

    /// Writes a value, whatever stands there; its version.
    pub async fn put(&self, key: &str, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<u64, KvError> {
        let key = self.key(key)?;
        let value = checked_value(value)?;
        let expires_ms = self.expires_ms(ttl_ms);
        self.room().await?;
        let bytes = text_bytes(key.bytes()) + value.len();
        self.take_for(bytes, || std::iter::once((key.to_key(), bytes))).await?;
        self.present.note(key.hash());
        let mut version = 0;
        self.core.overlay.put(&key, || {
            let record = self.record(Some(value), expires_ms);
            version = record.version;
            record
        })?;
        self.acknowledge().await?;
        Ok(version)
    }

    /// Writes a value. False: `if_absent` was asked, and the key is there.
    pub async fn set(&self, key: &str, value: Vec<u8>, options: SetOptions) -> Result<bool, KvError> {
        if !options.if_absent {
            return self.put(key, value, options.ttl_ms).await.map(|_| true);
        }
        let key_bytes = key.len();
        let key = self.key(key)?;
        let value = checked_value(value)?;
        let expires_ms = self.expires_ms(options.ttl_ms);
        let written = self
            .update(&key, |present| {
                let absent = self.entry(present).is_none();
                if absent {
                    self.take(key_bytes + value.len())?;
                }
                Ok((absent.then(|| self.record(Some(Arc::clone(&value)), expires_ms)), absent))
            })
            .await?;
        if written {
            self.acknowledge().await?;
        }
        Ok(written)
    }

    /// Writes several values with one expiry; after a crash all of them are there, or none.
    pub async fn set_many(
        &self,
        entries: Vec<(String, Vec<u8>)>,
        ttl_ms: Option<u64>,
    ) -> Result<(), KvError> {
        check_items(entries.len())?;
        let bytes = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        check_bytes(bytes)?;
        let expires_ms = self.expires_ms(ttl_ms);
        let mut writes = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.key(&key)?;
            let value = checked_value(value)?;
            self.present.note(key.hash());
            writes.push((key.to_key(), Some(value)));
        }
        self.write_many(writes, expires_ms).await
    }

    /// Removes a key; an absent one is no error.
    pub async fn delete(&self, key: &str) -> Result<(), KvError> {
        let key = self.key(key)?;
        self.room().await?;
        self.core.overlay.put(&key, || self.record(None, 0))?;
        self.acknowledge().await
    }

    /// Removes several keys; after a crash all of them are gone, or none.
    pub async fn delete_many(&self, keys: &[String]) -> Result<(), KvError> {
        check_items(keys.len())?;
        let mut writes = Vec::with_capacity(keys.len());
        for key in keys {
            writes.push((self.key(key)?.to_key(), None));
        }
        self.write_many(writes, 0).await
    }

    /// Whether a key is there.
    pub async fn exists(&self, key: &str) -> Result<bool, KvError> {
        Ok(self.get(key).await?.is_some())
    }

    /// Keys that start with `prefix`, after `cursor`, at most `limit` (1 to 1,000) of them.
    pub async fn list_keys(
        &self,
        prefix: Option<&str>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page, KvError> {
        let range = list::Range::new(self.store, prefix, cursor, limit)?;
        let core = Arc::clone(&self.core);
        Ok(blocking(move || list::page(&core, &range)).await?)
    }

    /// Adds to a decimal number and returns the sum; an absent key counts as 0. `ttl_ms` applies when this creates
    /// the key; afterwards the expiry stays as it is.
    pub async fn increment(&self, key: &str, delta: i64, ttl_ms: Option<u64>) -> Result<i64, KvError> {
        let key_bytes = key.len();
        let key = self.key(key)?;
        let sum = self
            .update(&key, |present| {
                let (number, expires_ms) = match self.entry(present) {
                    Some(entry) => (decimal(&entry.value)?, present.expires_ms),
                    None => {
                        self.take(key_bytes + size_of::<u64>())?;
                        (0, self.expires_ms(ttl_ms))
                    }
                };
                let sum = number
                    .checked_add(delta)
                    .ok_or_else(|| KvError::Invalid("the sum is out of range".to_owned()))?;
                Ok((Some(self.record(Some(sum.to_string().into_bytes().into()), expires_ms)), sum))
            })
            .await?;
        self.acknowledge().await?;
        Ok(sum)
    }

    /// Writes a value only if the key still has the expected version (none: only if it is absent).
    pub async fn swap(
        &self,
        key: &str,
        expected: Option<u64>,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Result<Swapped, KvError> {
        let key_bytes = key.len();
        let key = self.key(key)?;
        let value = checked_value(value)?;
        let expires_ms = self.expires_ms(ttl_ms);
        let swapped = self
            .update(&key, |present| {
                let present = self.entry(present);
                if present.as_ref().map(|entry| entry.version) != expected {
                    return Ok((None, Swapped::Stale(present)));
                }
                // What does not grow is written into a full store too: counters go on.
                match present.map(|present| present.value.len()) {
                    Some(before) if value.len() <= before => {}
                    Some(before) => self.take(value.len() - before)?,
                    None => self.take(key_bytes + value.len())?,
                }
                let record = self.record(Some(Arc::clone(&value)), expires_ms);
                let version = record.version;
                Ok((Some(record), Swapped::Swapped(version)))
            })
            .await?;
        if matches!(swapped, Swapped::Swapped(_)) {
            self.acknowledge().await?;
        }
        Ok(swapped)
    }

    /// A write to be made together with others, which takes the room for it when it is made.
    pub(crate) fn write(
        &self,
        key: &str,
        value: Option<Vec<u8>>,
        ttl_ms: Option<u64>,
    ) -> Result<KvWrite, KvError> {
        let key = self.key(key)?.to_key();
        let value = value.map(checked_value).transpose()?;
        self.present.note(key.hash());
        Ok(KvWrite { key, value, expires_ms: self.expires_ms(ttl_ms) })
    }

    /// What is read of a key in a transaction.
    pub(super) async fn read(&self, key: &KeyBuffer) -> Result<Loaded, KvError> {
        match self.known_absent(key).or_else(|| self.core.overlay.peek(key)) {
            Some(loaded) => Ok(loaded),
            None => self.load(key.to_key()).await,
        }
    }

    /// Whether the other is the same store of this file, under the same options.
    pub(super) fn is(&self, other: &Kv) -> bool {
        (self.store, self.options) == (other.store, other.options)
    }

    /// Whether a write is one to this store.
    pub(super) fn has(&self, write: &KvWrite) -> bool {
        write.key.bytes().starts_with(&self.store.to_be_bytes())
    }

    pub(super) fn options(&self) -> KvOptions {
        self.options
    }

    /// The row's key for a prefix of keys.
    pub(super) fn row(&self, prefix: &str) -> Vec<u8> {
        [&self.store.to_be_bytes(), prefix.as_bytes()].concat()
    }

    /// Refuses stores of another file.
    pub(super) fn check_file(&self, core: &Arc<Core>) -> Result<(), KvError> {
        if self.belongs_to(core) {
            return Ok(());
        }
        Err(KvError::Invalid("this kv store belongs to another file".to_owned()))
    }

    /// Whether this is a store of that heart.
    pub(crate) fn belongs_to(&self, core: &Arc<Core>) -> bool {
        Arc::ptr_eq(&self.core, core)
    }

    pub(super) fn key(&self, key: &str) -> Result<KeyBuffer, KvError> {
        self.core.keys.key(self.store, key)
    }

    fn entry(&self, record: &Record) -> Option<Entry> {
        record.entry(|| self.core.now_ms())
    }

    /// A record with the next version: to be made under the lock of its shard.
    fn record(&self, value: Option<Arc<[u8]>>, expires_ms: u64) -> Record {
        Record { value, version: self.core.next_version(), expires_ms }
    }

    fn expires_ms(&self, ttl_ms: Option<u64>) -> u64 {
        ttl_ms
            .or(self.options.default_ttl_ms)
            .map_or(0, |ttl_ms| self.core.now_ms().saturating_add(ttl_ms).max(1))
    }

    /// Takes the room for writes of this store: whole, and where that is refused, for what they have more than what they
    /// replace, at last once more when what waits is on disk. Nothing is waited for as long as there is room.
    pub(super) async fn take_for<I: Iterator<Item = (Key, usize)>>(
        &self,
        bytes: usize,
        writes: impl Fn() -> I,
    ) -> Result<(), KvError> {
        if self.take(bytes).is_ok() {
            return Ok(());
        }
        if self.take(self.growth(writes()).await?).is_ok() {
            return Ok(());
        }
        self.core.submit(Vec::new()).await?;
        self.take(self.growth(writes()).await?)
    }

    /// By how much writes make the store larger.
    async fn growth(&self, writes: impl Iterator<Item = (Key, usize)>) -> Result<usize, KvError> {
        let (mut written, mut replaced, mut known) = (0_usize, 0_usize, HashSet::new());
        for (key, bytes) in writes {
            let record = match self.core.overlay.peek(&key) {
                Some(loaded) => loaded.record,
                None => self.load(key.clone()).await?.record,
            };
            written = written.saturating_add(bytes);
            let before = record.value.map_or(0, |value| text_bytes(key.bytes()) + value.len());
            // A key that is written twice replaces what is there but once.
            if known.insert(key) {
                replaced = replaced.saturating_add(before);
            }
        }
        Ok(written.saturating_sub(replaced))
    }

    /// Counts bytes that are about to be written; refuses those that the store may not have any more.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), KvError> {
        let Some(limit) = self.options.limit_bytes else { return Ok(()) };
        if bytes == 0 || self.size.take(bytes as u64, limit) {
            return Ok(());
        }
        let present = self.bytes();
        Err(KvError::Full(format!("the store has {present} of the {limit} bytes that it may have")))
    }

    /// Waits until the overlay takes more.
    async fn room(&self) -> Result<(), KvError> {
        Ok(self.core.room().await?)
    }

    /// Waits for the disk, if this store says so.
    async fn acknowledge(&self) -> Result<(), KvError> {
        Ok(self.core.acknowledge(self.options.acknowledge).await?)
    }

    async fn update<T>(
        &self,
        key: &KeyBuffer,
        decide: impl Fn(&Record) -> Result<(Option<Record>, T), KvError>,
    ) -> Result<T, KvError> {
        self.room().await?;
        let mut loaded = self.known_absent(key);
        self.present.note(key.hash());
        let mut waited = false;
        // Comes around again only when a commit ended between loading and now, hence not for ever.
        loop {
            match self.core.overlay.update(key, loaded.as_ref(), &decide) {
                // What waits for the disk may count more than it has.
                Err(KvError::Full(_)) if !waited => {
                    waited = true;
                    self.core.submit(Vec::new()).await?;
                }
                Err(error) => return Err(error),
                Ok(Step::Done(result)) => return Ok(result),
                Ok(Step::Load) => loaded = Some(self.load(key.to_key()).await?),
            }
        }
    }

    /// What the disk would say of a key that was never written.
    fn known_absent(&self, key: &KeyBuffer) -> Option<Loaded> {
        if self.present.may_have(key.hash()) {
            return None;
        }
        // Noted before the filter is asked: who wrote the key and saw it leave the overlay since then changed the count,
        // and who did so earlier has noted the key.
        let removed = self.core.overlay.removed(key);
        (!self.present.may_have(key.hash())).then_some(Loaded { record: Record::ABSENT, removed })
    }

    async fn write_many(
        &self,
        writes: Vec<(Key, Option<Arc<[u8]>>)>,
        expires_ms: u64,
    ) -> Result<(), KvError> {
        self.room().await?;
        let written = |(key, value): &(Key, Option<Arc<[u8]>>)| {
            let bytes = value.as_ref().map_or(0, |value| text_bytes(key.bytes()) + value.len());
            (key.clone(), bytes)
        };
        let bytes = writes.iter().map(|write| written(write).1).sum();
        self.take_for(bytes, || writes.iter().map(written)).await?;
        {
            let _together = self.core.overlay.together();
            for (key, value) in writes {
                self.core.overlay.put(&key, || self.record(value, expires_ms))?;
            }
        }
        self.acknowledge().await
    }

    async fn load(&self, key: Key) -> Result<Loaded, KvError> {
        let loaded = self.load_many(vec![key], VALUE_BYTES).await?.pop();
        Ok(loaded.unwrap_or(Loaded { record: Record::ABSENT, removed: 0 }))
    }

    /// Values of together at most so many bytes: loaded one by one, so that it never holds more.
    async fn load_many(&self, keys: Vec<Key>, bytes: usize) -> Result<Vec<Loaded>, KvError> {
        let core = Arc::clone(&self.core);
        Ok(blocking(move || load(&core, &keys, bytes)).await?)
    }
}

pub(super) fn load(core: &Core, keys: &[Key], mut bytes: usize) -> Result<Vec<Loaded>, CommitError> {
    let removed: Vec<u64> = keys.iter().map(|key| core.overlay.removed(key)).collect();
    // After the counts were noted: what leaves the overlay from now on may not be in the snapshot.
    let transaction = core.begin_read()?;
    let table = transaction.open_table(ROWS).map_err(unavailable)?;
    let mut all = Vec::with_capacity(keys.len());
    for (key, removed) in keys.iter().zip(removed) {
        let row = table.get(key.bytes()).map_err(unavailable)?;
        let record = match row {
            None => Record::ABSENT,
            Some(row) => Record::decode(row.value()).ok_or_else(damaged)?,
        };
        bytes =
            bytes.checked_sub(record.value_bytes()).ok_or_else(|| CommitError::TooLarge(too_many_bytes()))?;
        let loaded = Loaded { record, removed };
        core.overlay.offer(key, &loaded);
        all.push(loaded);
    }
    Ok(all)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CommitError> + Send + 'static,
) -> Result<T, CommitError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ended(&error)))
}

pub(super) fn damaged() -> CommitError {
    StorageError::Corrupt("a row of a kv store is damaged".to_owned()).into()
}

fn checked_value(value: Vec<u8>) -> Result<Arc<[u8]>, KvError> {
    if value.len() > VALUE_BYTES {
        return Err(KvError::TooLarge(format!("a value has at most {VALUE_BYTES} bytes")));
    }
    Ok(value.into())
}

fn check_items(items: usize) -> Result<(), KvError> {
    if items > LIST_ITEMS {
        return Err(KvError::TooLarge(format!("a list has at most {LIST_ITEMS} items")));
    }
    Ok(())
}

fn check_bytes(bytes: usize) -> Result<(), KvError> {
    if bytes > MESSAGE_BYTES {
        return Err(KvError::TooLarge(too_many_bytes()));
    }
    Ok(())
}

fn too_many_bytes() -> String {
    format!("a list has at most {MESSAGE_BYTES} bytes")
}

fn decimal(value: &[u8]) -> Result<i64, KvError> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| KvError::Invalid("the value is no decimal number".to_owned()))
}
