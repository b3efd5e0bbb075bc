//! What is not on disk yet, which is the truth for its keys, and the cache of clean values behind it.
//!
//! An entry leaves the overlay only when a commit made it durable and nobody wrote the key meanwhile; in the same
//! breath, under the lock of its shard, it becomes a clean value. While an entry stands here the cache may hold an
//! older value of the key, which nobody sees. A value read from disk becomes a clean value only if no entry left the
//! shard since before it was read: else it may be older than what left.

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

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<Key, Slot, CarriedHash>,
    /// Keys of the slots that no commit has collected since they were written.
    dirty: Vec<Key>,
    /// How often an entry has left.
    removed: u64,
}

#[derive(Debug)]
struct Slot {
    record: Record,
    dirty: bool,
}

/// A record read from disk, with what is needed to know later whether it is still the truth.
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
    pub(crate) fn peek(&self, key: &dyn AsKey) -> Option<Record> {
        if let Some(slot) = self.shard(key)?.slots.get(key) {
            return Some(slot.record.clone());
        }
        self.clean.get(key)
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
        let present = match shard.slots.get(key) {
            Some(slot) => Some(slot.record.clone()),
            None => match loaded {
                Some(loaded) if loaded.removed == shard.removed => Some(loaded.record.clone()),
                _ => self.clean.get(key),
            },
        };
        let Some(present) = present else { return Ok(Step::Load) };
        let (write, result) = decide(&present)?;
        if let Some(record) = write {
            self.write(&mut shard, key, record);
        }
        Ok(Step::Done(result))
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
        if shard.removed == loaded.removed && !shard.slots.contains_key(key) {
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
            found.extend(
                shard
                    .slots
                    .iter()
                    .filter(|(key, _)| matches(key.bytes()))
                    .map(|(key, slot)| (key.clone(), slot.record.clone())),
            );
        }
        found
    }

    /// For the committer: everything written since the last time.
    pub(crate) fn collect(&self) -> Vec<(Key, Record)> {
        let mut collected = Vec::new();
        let _alone = self.gate.write();
        for shard in &self.shards {
            let mut shard = shard.lock();
            for key in std::mem::take(&mut shard.dirty) {
                if let Some(slot) = shard.slots.get_mut(&key) {
                    slot.dirty = false;
                    collected.push((key, slot.record.clone()));
                }
            }
        }
        collected
    }

    /// For the committer: these are on disk.
    pub(crate) fn committed(&self, written: Vec<(Key, Record)>) {
        for (key, record) in written {
            let Some(mut shard) = self.shard(&key) else { continue };
            if shard.slots.get(&key).is_some_and(|slot| slot.record.version == record.version) {
                self.turn_clean(&mut shard, key, record);
            }
        }
    }

    /// For the committer: a write of a joint commit is on disk and becomes visible, later than whatever was written
    /// to the key before. Call it before `committed`.
    pub(crate) fn publish(&self, write: &KvWrite, version: u64, next_version: impl FnOnce() -> u64) {
        let Some(mut shard) = self.shard(&write.key) else { return };
        let record = write.record(version);
        match shard.slots.get(&write.key).map(|slot| (slot.dirty, slot.record.version)) {
            None | Some((false, _)) => self.turn_clean(&mut shard, write.key.clone(), record),
            Some((true, present)) => {
                // Somebody wrote the key after this commit collected. The entry stays for the next commit, with the
                // joint value, and a version over the one that was seen.
                let version = if present < version { version } else { next_version() };
                self.write(&mut shard, &write.key, write.record(version));
            }
        }
    }

    fn shard(&self, key: &dyn AsKey) -> Option<MutexGuard<'_, Shard>> {
        // Bits that neither the map's buckets nor its tags are made from.
        let index = (key.hash() >> 40) as usize % SHARDS;
        self.shards.get(index).map(Mutex::lock)
    }

    fn write(&self, shard: &mut Shard, key: &dyn AsKey, record: Record) {
        let added = cost(key, &record);
        if let Some(slot) = shard.slots.get_mut(key) {
            let freed = cost(key, &slot.record);
            slot.record = record;
            if !std::mem::replace(&mut slot.dirty, true)
                && let Some((key, _)) = shard.slots.get_key_value(key)
            {
                shard.dirty.push(key.clone());
            }
            self.bytes.fetch_add(added, Ordering::Relaxed);
            self.bytes.fetch_sub(freed, Ordering::Relaxed);
        } else {
            let key = key.to_key();
            shard.dirty.push(key.clone());
            shard.slots.insert(key, Slot { record, dirty: true });
            self.bytes.fetch_add(added, Ordering::Relaxed);
        }
    }

    /// The record is on disk and the truth: the key's entry leaves, and the record becomes a clean value.
    fn turn_clean(&self, shard: &mut Shard, key: Key, record: Record) {
        if let Some(slot) = shard.slots.remove(&key) {
            self.bytes.fetch_sub(cost(&key, &slot.record), Ordering::Relaxed);
        }
        shard.removed += 1;
        self.clean.insert(key, record);
    }
}

fn cost(key: &dyn AsKey, record: &Record) -> usize {
    key.bytes().len() + record.value_bytes() + ENTRY_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::key::Keys;

    const CACHE: u64 = 1 << 20;

    fn record(value: u8, version: u64) -> Record {
        Record { value: Some([value].into()), version, expires_ms: 0 }
    }

    fn write_joint(key: &dyn AsKey, value: u8) -> KvWrite {
        KvWrite { key: key.to_key(), value: Some([value].into()), expires_ms: 0 }
    }

    fn overlay(clean_bytes: u64) -> (Overlay, Key) {
        let key = Keys::default().key(1, "k").unwrap().to_key();
        (Overlay::new(clean_bytes, Arc::default()), key)
    }

    fn shown(overlay: &Overlay, key: &Key) -> Option<(u8, u64)> {
        let record = overlay.peek(key)?;
        Some((record.value.map_or(0, |value| value[0]), record.version))
    }

    fn commit(overlay: &Overlay) -> usize {
        let collected = overlay.collect();
        let rows = collected.len();
        overlay.committed(collected);
        rows
    }

    #[test]
    fn what_was_read_before_an_entry_left_is_neither_cached_nor_built_upon() {
        for clean_bytes in [0, CACHE] {
            let (overlay, key) = overlay(clean_bytes);
            let old = Loaded { record: Record::ABSENT, removed: overlay.removed(&key) };
            overlay.put(&key, || record(1, 1)).unwrap();
            overlay.offer(&key, &old);
            assert_eq!(shown(&overlay, &key), Some((1, 1)));
            commit(&overlay);
            overlay.offer(&key, &old);
            assert_eq!(shown(&overlay, &key), (clean_bytes > 0).then_some((1, 1)));
            overlay.clean.invalidate(&key);
            overlay.offer(&key, &old);
            assert_eq!(shown(&overlay, &key), None);
            let step = overlay.update(&key, Some(&old), |_| Ok::<_, CommitError>((None, ())));
            assert!(matches!(step, Ok(Step::Load)));
        }
    }

    #[test]
    fn what_is_read_while_nothing_leaves_is_cached_and_built_upon() {
        let (overlay, key) = overlay(CACHE);
        let loaded = Loaded { record: record(1, 1), removed: overlay.removed(&key) };
        let step =
            overlay.update(&key, Some(&loaded), |present| Ok::<_, CommitError>((None, present.version)));
        assert!(matches!(step, Ok(Step::Done(1))));
        assert_eq!(shown(&overlay, &key), None);
        overlay.offer(&key, &loaded);
        assert_eq!(shown(&overlay, &key), Some((1, 1)));
    }

    #[test]
    fn an_entry_written_during_a_commit_stays_for_the_next() {
        let (overlay, key) = overlay(0);
        overlay.put(&key, || record(1, 1)).unwrap();
        let collected = overlay.collect();
        overlay.put(&key, || record(2, 2)).unwrap();
        overlay.committed(collected);
        assert_eq!(shown(&overlay, &key), Some((2, 2)));
        assert_eq!(commit(&overlay), 1);
        assert_eq!((shown(&overlay, &key), overlay.bytes()), (None, 0));
        assert_eq!(commit(&overlay), 0);
    }

    #[test]
    fn a_joint_write_replaces_what_the_same_commit_wrote() {
        let (overlay, key) = overlay(CACHE);
        overlay.put(&key, || record(1, 1)).unwrap();
        let collected = overlay.collect();
        overlay.publish(&write_joint(&key, 9), 2, || unreachable!());
        overlay.committed(collected);
        assert_eq!(shown(&overlay, &key), Some((9, 2)));
        assert_eq!((commit(&overlay), overlay.bytes()), (0, 0));
    }

    #[test]
    fn a_joint_write_replaces_what_was_written_during_its_commit_with_a_newer_version() {
        for (during, expected) in [(5, 6), (1, 2)] {
            let (overlay, key) = overlay(0);
            let collected = overlay.collect();
            overlay.put(&key, || record(1, during)).unwrap();
            overlay.publish(&write_joint(&key, 9), 2, || 6);
            overlay.committed(collected);
            assert_eq!(shown(&overlay, &key), Some((9, expected)));
            assert_eq!(commit(&overlay), 1);
        }
    }

    #[test]
    fn nothing_is_taken_once_the_store_is_down() {
        let (overlay, key) = overlay(CACHE);
        overlay.health.close();
        assert!(overlay.put(&key, || record(1, 1)).is_err());
        let loaded = Loaded { record: Record::ABSENT, removed: 0 };
        assert!(overlay.update(&key, Some(&loaded), |_| Ok::<_, CommitError>((None, ()))).is_err());
        assert_eq!(commit(&overlay), 0);
    }
}
