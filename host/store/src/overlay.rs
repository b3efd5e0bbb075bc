//! What is not on disk yet, which is the truth for its keys, and the cache of clean values behind it.
//!
//! An entry leaves the overlay only when a commit made it durable and nobody wrote the key meanwhile; in the same
//! breath, under the lock of its shard, it becomes a clean value. While an entry stands here the cache may hold an
//! older value of the key, which nobody sees. A value read from disk becomes a clean value only if no entry left the
//! shard since before it was read: else it may be older than what left.
//!
//! A commit takes what stands here at one instant, with all shards locked; what a transaction or a joint commit writes
//! appears at one instant too. So no commit has a part of it, and no snapshot shows one.

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use moka::sync::Cache;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use crate::{
    commit::CommitError,
    health::Health,
    kv::{
        KvWrite,
        key::{AsKey, Carried, Key},
        record::Record,
    },
    limits::{ENTRY_OVERHEAD, OVERLAY_BYTES, SHARDS},
};

type CarriedHash = BuildHasherDefault<Carried>;

/// Entries that wait for the disk, and clean values.
#[derive(Debug)]
pub(crate) struct Overlay {
    shards: Vec<Mutex<Shard>>,
    /// Held shared while keys are written that must go into the same commit, alone while a commit collects.
    gate: RwLock<()>,
    bytes: AtomicUsize,
    clean: Cache<Key, Record, CarriedHash>,
    health: Arc<Health>,
}

type Entries = HashMap<Key, Record, CarriedHash>;

#[derive(Debug, Default)]
struct Shard {
    /// Written since the last commit collected.
    open: Entries,
    /// On the way to the disk: empty unless a commit is under way. An entry in `open` counts more.
    sealed: Entries,
    /// How often an entry has left.
    removed: u64,
}

/// Shards that are locked together.
struct Held<'a> {
    shards: Vec<Option<MutexGuard<'a, Shard>>>,
}

/// A record, with what is needed to know later whether it is still the truth.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) record: Record,
    pub(crate) removed: u64,
}

/// What came of an update in memory.
#[derive(Debug)]
pub(crate) enum Step<T> {
    Done(T),
    /// Memory does not know the key: load it and come again.
    Load,
}

/// What a transaction has read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) loaded: Loaded,
    /// Whether the key was there: its record may have been expired.
    pub(crate) there: bool,
}

/// What came of a transaction in memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// Everything was as it was read, and is written.
    Done,
    /// Something was not.
    Changed,
    /// Memory does not know these keys any more: load them and come again.
    Load(Vec<Key>),
}

/// Everything that a commit takes from here.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) rows: Vec<(Key, Record)>,
    /// When it was taken, in milliseconds since 1970: at this time exactly this was visible.
    pub(crate) at_ms: u64,
}

impl Overlay {
    pub(crate) fn new(clean_bytes: u64, health: Arc<Health>) -> Self {
        let clean = Cache::builder()
            .max_capacity(clean_bytes)
            .weigher(|key: &Key, record: &Record| u32::try_from(cost(key, record)).unwrap_or(u32::MAX))
            .build_with_hasher(CarriedHash::default());
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, gate: RwLock::new(()), bytes: AtomicUsize::new(0), clean, health }
    }

    /// What memory knows about a key.
    pub(crate) fn peek(&self, key: &dyn AsKey) -> Option<Loaded> {
        let removed = {
            let shard = self.shard(key)?;
            if let Some(record) = shard.get(key) {
                return Some(Loaded { record: record.clone(), removed: shard.removed });
            }
            shard.removed
        };
        Some(Loaded { record: self.clean.get(key)?, removed })
    }

    /// Writes a key, whatever stands there.
    pub(crate) fn put(&self, key: &dyn AsKey, record: impl FnOnce() -> Record) -> Result<(), CommitError> {
        let Some(mut shard) = self.shard(key) else { return Ok(()) };
        self.health.check()?;
        // The version is taken under the lock, so that versions of a key grow.
        self.write(&mut shard, key, record());
        Ok(())
    }

    /// Writes a key depending on what stands there, as one step.
    pub(crate) fn update<T, E: From<CommitError>>(
        &self,
        key: &dyn AsKey,
        loaded: Option<&Loaded>,
        decide: impl FnOnce(&Record) -> Result<(Option<Record>, T), E>,
    ) -> Result<Step<T>, E> {
        let Some(mut shard) = self.shard(key) else { return Ok(Step::Load) };
        self.health.check()?;
        let Some(present) = self.present(&shard, key, loaded) else { return Ok(Step::Load) };
        let (write, result) = decide(&present)?;
        if let Some(record) = write {
            self.write(&mut shard, key, record);
        }
        Ok(Step::Done(result))
    }

    /// Makes all writes at one instant, if everything that was read is then as it was read.
    pub(crate) fn transact(
        &self,
        reads: &HashMap<Key, Read>,
        writes: &[KvWrite],
        now_ms: impl FnOnce() -> u64,
        next_version: impl Fn() -> u64,
    ) -> Result<Checked, CommitError> {
        let mut held = self.lock(reads.keys().chain(writes.iter().map(|write| &write.key)).map(place));
        self.health.check()?;
        let now_ms = now_ms();
        let mut unknown = Vec::new();
        for (key, read) in reads {
            let Some(shard) = held.shard(key) else { continue };
            match self.present(shard, key, Some(&read.loaded)) {
                Some(present) if read.still(&present, now_ms) => {}
                Some(_) => return Ok(Checked::Changed),
                None => unknown.push(key.clone()),
            }
        }
        if !unknown.is_empty() {
            return Ok(Checked::Load(unknown));
        }
        for write in writes {
            let Some(shard) = held.shard(&write.key) else { continue };
            self.write(shard, &write.key, write.record(next_version()));
        }
        Ok(Checked::Done)
    }

    /// Keys written while this is held go into the same commit.
    pub(crate) fn together(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read()
    }

    /// To be noted before reading the key from disk.
    pub(crate) fn removed(&self, key: &dyn AsKey) -> u64 {
        self.shard(key).map_or(0, |shard| shard.removed)
    }

    /// Offers what was read from disk to the cache.
    pub(crate) fn offer(&self, key: &Key, loaded: &Loaded) {
        let Some(shard) = self.shard(key) else { return };
        if shard.removed == loaded.removed && shard.get(key).is_none() {
            self.clean.insert(key.clone(), loaded.record.clone());
        }
    }

    /// Whether writers have to wait for the committer.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes() > OVERLAY_BYTES
    }

    /// Bytes of the entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the clean values, as far as known.
    pub(crate) fn clean_bytes(&self) -> u64 {
        self.clean.weighted_size()
    }

    /// Entries with keys that `matches` takes, in no order.
    pub(crate) fn matching(&self, matches: impl Fn(&[u8]) -> bool) -> Vec<(Key, Record)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let sealed = shard.sealed.iter().filter(|(key, _)| !shard.open.contains_key(*key));
            found.extend(
                shard
                    .open
                    .iter()
                    .chain(sealed)
                    .filter(|(key, _)| matches(key.bytes()))
                    .map(|(key, record)| (key.clone(), record.clone())),
            );
        }
        found
    }

    /// For the committer: everything written since the last time. `committed` must have followed the last time.
    pub(crate) fn collect(&self, now_ms: impl FnOnce() -> u64) -> Taken {
        let at_ms = {
            let _alone = self.gate.write();
            let mut held = self.lock(0..SHARDS);
            for shard in held.shards.iter_mut().flatten() {
                let shard = &mut **shard;
                std::mem::swap(&mut shard.open, &mut shard.sealed);
            }
            now_ms()
        };
        let mut rows = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            rows.extend(shard.sealed.iter().map(|(key, record)| (key.clone(), record.clone())));
        }
        Taken { rows, at_ms }
    }

    /// For the committer: the writes of joint commits are on disk and become visible, later than whatever was written
    /// to their keys before. Call it before `committed`, which takes their keys too.
    pub(crate) fn publish(&self, joint: &[(&KvWrite, u64)], next_version: impl Fn() -> u64) {
        let mut held = self.lock(joint.iter().map(|(write, _)| place(&write.key)));
        for (write, version) in joint {
            let Some(shard) = held.shard(&write.key) else { continue };
            match shard.open.get(&write.key).map(|record| record.version) {
                None => self.account(&write.key, write.record(*version), &mut shard.sealed),
                Some(present) => {
                    // Somebody wrote the key after this commit collected. The entry stays for the next commit, with the
                    // joint value, and a version over the one that was seen.
                    let version = if present < *version { *version } else { next_version() };
                    self.write(shard, &write.key, write.record(version));
                }
            }
        }
    }

    /// For the committer: these are on disk.
    pub(crate) fn committed<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        for key in keys {
            let Some(mut shard) = self.shard(key) else { continue };
            let Some((key, record)) = shard.sealed.remove_entry(key) else { continue };
            self.bytes.fetch_sub(cost(&key, &record), Ordering::Relaxed);
            if !shard.open.contains_key(&key) {
                shard.removed += 1;
                self.clean.insert(key, record);
            }
        }
    }

    fn shard(&self, key: &dyn AsKey) -> Option<MutexGuard<'_, Shard>> {
        self.shards.get(place(key)).map(Mutex::lock)
    }

    /// Locks shards together. It never waits for one while it holds another: whoever has that one may be a thread that
    /// seldom runs, and everybody would wait with it.
    fn lock(&self, places: impl Iterator<Item = usize>) -> Held<'_> {
        let mut wanted = [false; SHARDS];
        for place in places {
            if let Some(wanted) = wanted.get_mut(place) {
                *wanted = true;
            }
        }
        loop {
            let mut shards = Vec::with_capacity(SHARDS);
            let mut busy = None;
            for (shard, wanted) in self.shards.iter().zip(wanted) {
                let guard = if wanted { shard.try_lock() } else { None };
                if wanted && guard.is_none() {
                    busy = Some(shard);
                    break;
                }
                shards.push(guard);
            }
            match busy {
                None => return Held { shards },
                Some(shard) => {
                    drop(shards);
                    drop(shard.lock());
                }
            }
        }
    }

    /// The truth about a key, as far as memory knows it.
    fn present(&self, shard: &Shard, key: &dyn AsKey, loaded: Option<&Loaded>) -> Option<Record> {
        match (shard.get(key), loaded) {
            (Some(record), _) => Some(record.clone()),
            (None, Some(loaded)) if loaded.removed == shard.removed => Some(loaded.record.clone()),
            (None, _) => self.clean.get(key),
        }
    }

    fn write(&self, shard: &mut Shard, key: &dyn AsKey, record: Record) {
        self.account(key, record, &mut shard.open);
    }

    /// Puts an entry into a map, and its bytes into the count.
    fn account(&self, key: &dyn AsKey, record: Record, entries: &mut Entries) {
        self.bytes.fetch_add(cost(key, &record), Ordering::Relaxed);
        if let Some(present) = entries.get_mut(key) {
            self.bytes.fetch_sub(cost(key, present), Ordering::Relaxed);
            *present = record;
        } else {
            entries.insert(key.to_key(), record);
        }
    }
}

impl Shard {
    fn get(&self, key: &dyn AsKey) -> Option<&Record> {
        self.open.get(key).or_else(|| self.sealed.get(key))
    }
}

impl Held<'_> {
    /// The shard of a key, which is among those that were locked.
    fn shard(&mut self, key: &dyn AsKey) -> Option<&mut Shard> {
        self.shards.get_mut(place(key))?.as_deref_mut()
    }
}

impl Read {
    pub(crate) fn new(loaded: Loaded, now_ms: u64) -> Self {
        let there = !loaded.record.is_gone(now_ms);
        Self { loaded, there }
    }

    /// Whether a record shows what was read.
    pub(crate) fn still(&self, present: &Record, now_ms: u64) -> bool {
        let there = !present.is_gone(now_ms);
        there == self.there && (!there || present.version == self.loaded.record.version)
    }
}

/// The shard of a key, from bits that neither the maps' buckets nor their tags are made from.
fn place(key: &(impl AsKey + ?Sized)) -> usize {
    (key.hash() >> 40) as usize % SHARDS
}

fn cost(key: &dyn AsKey, record: &Record) -> usize {
    key.bytes().len() + record.value_bytes() + ENTRY_OVERHEAD
}

#[cfg(test)]
mod tests;
