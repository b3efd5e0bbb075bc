//! The functions of a named cache.

use std::{
    fmt,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::quality::RandomState;
use moka::{Expiry, notification::RemovalCause, sync::Cache as Room};
use parking_lot::{Mutex, MutexGuard};

use super::{CacheError, CacheOptions, CacheSet, CacheStats, strategy::Use};
use crate::{
    Clock,
    limits::{
        CACHE_ENTRIES_MOST, CACHE_ROOM_BYTES_MOST, CACHE_TTL_MOST_MS, ENTRY_OVERHEAD, KEY_BYTES, LIST_ITEMS,
        MESSAGE_BYTES, SHARDS, VALUE_BYTES,
    },
};

type Entries = Room<Arc<str>, Value, RandomState>;

/// A named cache. A clone is the same cache. No function waits for anything but memory.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    options: CacheOptions,
    /// One for each priority.
    rooms: [Entries; 3],
    /// Writers of a key hold its lock, so that it stands in one room at most.
    writing: Vec<Mutex<()>>,
    hasher: RandomState,
    uses: Use,
    counts: Arc<Counts>,
    clock: Clock,
}

#[derive(Default)]
struct Counts {
    expired: AtomicU64,
    /// Of all entries; one that is replaced or evicted counts until moka's next round.
    bytes: AtomicU64,
}

/// What an entry weighs at least.
const ENTRY_WEIGHT: u64 = 1_024;

#[derive(Clone)]
struct Value {
    bytes: Arc<[u8]>,
    /// Milliseconds since 1970: the truth about its expiry.
    expires_ms: u64,
    ttl_ms: u64,
}

/// Tells moka when an entry can go. It may be late by its own clock.
struct Ttl;

impl Expiry<Arc<str>, Value> for Ttl {
    fn expire_after_create(&self, _: &Arc<str>, value: &Value, _: Instant) -> Option<Duration> {
        Some(Duration::from_millis(value.ttl_ms))
    }

    fn expire_after_update(
        &self,
        _: &Arc<str>,
        value: &Value,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(Duration::from_millis(value.ttl_ms))
    }
}

impl Cache {
    pub(crate) fn new(options: CacheOptions, clock: Clock) -> Result<Self, CacheError> {
        if !(1..=CACHE_ENTRIES_MOST).contains(&options.entries) {
            return Err(CacheError::Invalid(format!("a cache has 1 to {CACHE_ENTRIES_MOST} entries")));
        }
        if !(1..=CACHE_ROOM_BYTES_MOST).contains(&options.bytes) {
            return Err(CacheError::Invalid(format!("a cache has 1 to {CACHE_ROOM_BYTES_MOST} bytes")));
        }
        let (hasher, counts) = (RandomState::default(), Arc::<Counts>::default());
        let rooms = [(); 3].map(|()| room(&options, &hasher, &counts));
        let writing = (0..SHARDS).map(|_| Mutex::default()).collect();
        let inner = Inner { options, rooms, writing, hasher, uses: Use::default(), counts, clock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Arc<[u8]>>, CacheError> {
        check_key(key)?;
        let found = self.inner.find(key);
        self.inner.uses.note(found.is_some());
        Ok(found)
    }

    /// The values of several keys, in the order asked; together at most 8 MiB.
    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Arc<[u8]>>>, CacheError> {
        check_items(keys.len())?;
        let mut bytes = 0;
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let value = self.get(key)?;
            bytes += value.as_ref().map_or(0, |value| value.len());
            check_bytes(bytes)?;
            values.push(value);
        }
        Ok(values)
    }

    /// Writes a value. It may be forgotten at once if everything there is used more often.
    pub fn set(&self, key: &str, value: Vec<u8>, options: CacheSet) -> Result<(), CacheError> {
        self.inner.check(key, value.len())?;
        self.inner.put(key, value, options);
        Ok(())
    }

    /// Writes several values, all or (when one is refused) none.
    pub fn set_many(&self, entries: Vec<(String, Vec<u8>)>, options: CacheSet) -> Result<(), CacheError> {
        check_items(entries.len())?;
        check_bytes(entries.iter().map(|(key, value)| key.len() + value.len()).sum())?;
        entries.iter().try_for_each(|(key, value)| self.inner.check(key, value.len()))?;
        for (key, value) in entries {
            self.inner.put(&key, value, options);
        }
        Ok(())
    }

    /// Removes a key; an absent one is no error.
    pub fn delete(&self, key: &str) -> Result<(), CacheError> {
        check_key(key)?;
        let _writing = self.inner.writing(key);
        self.inner.rooms.iter().for_each(|room| room.invalidate(key));
        Ok(())
    }

    /// Fills the cache before it is used: writes what is not there yet, so that it never replaces what is newer.
    pub fn warm_up(
        &self,
        entries: impl IntoIterator<Item = (String, Vec<u8>)>,
        options: CacheSet,
    ) -> Result<(), CacheError> {
        for (key, value) in entries {
            self.inner.check(&key, value.len())?;
            let _writing = self.inner.writing(&key);
            if self.inner.find(&key).is_none() {
                self.inner.place(&key, value, options);
            }
        }
        Ok(())
    }

    /// Removes what is expired and what is too much, of which the functions above do a part each.
    pub fn clean(&self) {
        self.inner.rooms.iter().for_each(Entries::run_pending_tasks);
    }

    /// Figures. It cleans first, so that they are exact.
    pub fn stats(&self) -> CacheStats {
        self.clean();
        let Inner { rooms, uses, counts, .. } = &*self.inner;
        CacheStats {
            entries: rooms.iter().map(Entries::entry_count).sum(),
            expired: counts.expired.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            hits: uses.hits.load(Ordering::Relaxed),
            misses: uses.misses.load(Ordering::Relaxed),
            ttl_ms: self.inner.default_ttl_ms(),
        }
    }
}

impl Inner {
    fn find(&self, key: &str) -> Option<Arc<[u8]>> {
        let (room, value) = self.rooms.iter().find_map(|room| Some((room, room.get(key)?)))?;
        if value.expires_ms > (self.clock)() {
            return Some(value.bytes);
        }
        // Whoever writes the key just now may lose it by this, as a cache may.
        if room.remove(key).is_some() {
            self.counts.expired.fetch_add(1, Ordering::Relaxed);
        }
        None
    }

    fn put(&self, key: &str, value: Vec<u8>, options: CacheSet) {
        let _writing = self.writing(key);
        self.place(key, value, options);
    }

    /// Puts an entry into its room. The caller holds the lock of its key.
    fn place(&self, key: &str, value: Vec<u8>, options: CacheSet) {
        let ttl_ms = options.ttl_ms.unwrap_or_else(|| self.default_ttl_ms()).min(CACHE_TTL_MOST_MS);
        let priority = options.priority.unwrap_or(self.options.strategy.priority);
        let value = Value { bytes: value.into(), expires_ms: (self.clock)().saturating_add(ttl_ms), ttl_ms };
        for (number, room) in self.rooms.iter().enumerate() {
            // Before the new value is there: nobody finds the old one after it.
            if number != priority as usize {
                room.invalidate(key);
            }
        }
        if let Some(room) = self.rooms.get(priority as usize) {
            self.counts.bytes.fetch_add(cost(key, &value), Ordering::Relaxed);
            room.insert(key.into(), value);
        }
    }

    fn default_ttl_ms(&self) -> u64 {
        let ttl_ms = self.options.strategy.ttl_ms;
        if self.options.adaptive { self.uses.adapted(ttl_ms) } else { ttl_ms }
    }

    fn writing(&self, key: &str) -> Option<MutexGuard<'_, ()>> {
        let place = self.hasher.hash_one(key) as usize % SHARDS;
        self.writing.get(place).map(Mutex::lock)
    }

    fn check(&self, key: &str, value: usize) -> Result<(), CacheError> {
        check_key(key)?;
        if value > VALUE_BYTES {
            return Err(CacheError::TooLarge(format!("a value has at most {VALUE_BYTES} bytes")));
        }
        let (most, entry) = (self.options.bytes, (key.len() + value + ENTRY_OVERHEAD) as u64);
        if entry > most {
            return Err(CacheError::TooLarge(format!(
                "this cache has room for {most} bytes, an entry's overhead among them"
            )));
        }
        Ok(())
    }
}

/// moka bounds a room by one sum of weights, so a weight is the part of the room that an entry takes: of its entries or of
/// its bytes, whichever is more.
fn room(options: &CacheOptions, hasher: &RandomState, counts: &Arc<Counts>) -> Entries {
    let CacheOptions { entries, bytes, .. } = *options;
    let capacity = entries * ENTRY_WEIGHT;
    let weigh = move |key: &Arc<str>, value: &Value| {
        let of_bytes = u128::from(cost(key, value)) * u128::from(capacity) / u128::from(bytes) + 1;
        u32::try_from(of_bytes.max(u128::from(ENTRY_WEIGHT))).unwrap_or(u32::MAX)
    };
    let counts = Arc::clone(counts);
    let leaves = move |key: Arc<Arc<str>>, value: Value, cause: RemovalCause| {
        counts.bytes.fetch_sub(cost(&key, &value), Ordering::Relaxed);
        if cause == RemovalCause::Expired {
            counts.expired.fetch_add(1, Ordering::Relaxed);
        }
    };
    Room::builder()
        .max_capacity(capacity)
        .weigher(weigh)
        .expire_after(Ttl)
        .eviction_listener(leaves)
        .build_with_hasher(hasher.clone())
}

fn cost(key: &str, value: &Value) -> u64 {
    (key.len() + value.bytes.len() + ENTRY_OVERHEAD) as u64
}

fn check_key(key: &str) -> Result<(), CacheError> {
    if key.is_empty() {
        return Err(CacheError::Invalid("a key must not be empty".to_owned()));
    }
    if key.len() > KEY_BYTES {
        return Err(CacheError::TooLarge(format!("a key has at most {KEY_BYTES} bytes")));
    }
    Ok(())
}

fn check_items(items: usize) -> Result<(), CacheError> {
    if items > LIST_ITEMS {
        return Err(CacheError::TooLarge(format!("a list has at most {LIST_ITEMS} items")));
    }
    Ok(())
}

fn check_bytes(bytes: usize) -> Result<(), CacheError> {
    if bytes > MESSAGE_BYTES {
        return Err(CacheError::TooLarge(format!("a list has at most {MESSAGE_BYTES} bytes")));
    }
    Ok(())
}

impl fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cache").field("options", &self.inner.options).finish_non_exhaustive()
    }
}
