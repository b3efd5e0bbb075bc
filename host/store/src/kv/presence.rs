//! Which keys of a store are surely absent: a Bloom filter (B. Bloom, 1970) over everything that was ever written.
//!
//! Policies ask, for each request, about keys that hardly ever exist, such as entries of a blacklist. The filter answers
//! from two words of memory where the cache would have to be asked. It only grows: a removed key, or one that was never
//! written for want of a matching version, costs nothing but the look that it no longer saves.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::record::ROWS;
use crate::{
    commit::CommitError,
    core::{Core, unavailable},
    limits::{PRESENCE_BITS, PRESENCE_KEYS},
};

/// One filter for each store that is open, by the store's id.
#[derive(Debug, Default)]
pub(crate) struct Presences {
    known: Mutex<HashMap<u32, Arc<Presence>>>,
}

/// The filter of one store.
#[derive(Debug)]
pub(crate) struct Presence {
    words: Box<[AtomicU64]>,
    /// There were too many keys to note them all: nothing is surely absent.
    all: AtomicBool,
}

impl Presences {
    /// The filter of a store. Its first opening notes the keys on disk, before anybody can write others.
    pub(crate) fn of(&self, core: &Core, store: u32) -> Result<Arc<Presence>, CommitError> {
        let mut known = self.known.lock();
        if let Some(presence) = known.get(&store) {
            return Ok(Arc::clone(presence));
        }
        let presence = Presence::empty();
        presence.read(core, store)?;
        let presence = Arc::new(presence);
        known.insert(store, Arc::clone(&presence));
        Ok(presence)
    }
}

impl Presence {
    fn empty() -> Self {
        let words = (0..PRESENCE_BITS / u64::BITS as usize).map(|_| AtomicU64::new(0)).collect();
        Self { words, all: AtomicBool::new(false) }
    }

    /// Whether a key may be there; no is certain.
    pub(crate) fn may_have(&self, hash: u64) -> bool {
        self.all.load(Ordering::Relaxed)
            || places(hash).all(|(word, bit)| {
                self.words.get(word).is_none_or(|word| word.load(Ordering::Relaxed) & bit != 0)
            })
    }

    /// Notes a key that is about to be written.
    pub(crate) fn note(&self, hash: u64) {
        for (word, bit) in places(hash) {
            if let Some(word) = self.words.get(word)
                && word.load(Ordering::Relaxed) & bit == 0
            {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    fn read(&self, core: &Core, store: u32) -> Result<(), CommitError> {
        let prefix = store.to_be_bytes();
        let transaction = core.begin_read()?;
        let table = transaction.open_table(ROWS).map_err(unavailable)?;
        for (place, row) in table.range(prefix.as_slice()..).map_err(unavailable)?.enumerate() {
            let (key, _) = row.map_err(unavailable)?;
            if !key.value().starts_with(&prefix) {
                break;
            }
            if place >= PRESENCE_KEYS {
                self.all.store(true, Ordering::Relaxed);
                break;
            }
            self.note(core.keys.hash(key.value()));
        }
        Ok(())
    }
}

/// Word and bit of the two places of a key, from the two halves of its hash.
fn places(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    [hash as u32, (hash >> 32) as u32].into_iter().map(|half| {
        let place = half as usize % PRESENCE_BITS;
        (place / u64::BITS as usize, 1 << (place % u64::BITS as usize))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::key::{AsKey, Keys};

    fn hashes(keys: &Keys, from: usize, to: usize) -> impl Iterator<Item = u64> {
        (from..to).map(|number| keys.key(1, &format!("key {number}")).unwrap().hash())
    }

    #[test]
    fn what_was_noted_may_be_there_and_nearly_nothing_else() {
        let (keys, presence) = (Keys::default(), Presence::empty());
        assert!(hashes(&keys, 0, 100).all(|hash| !presence.may_have(hash)));
        hashes(&keys, 0, PRESENCE_KEYS).for_each(|hash| presence.note(hash));
        assert!(hashes(&keys, 0, PRESENCE_KEYS).all(|hash| presence.may_have(hash)));
        let wrong = hashes(&keys, PRESENCE_KEYS, 2 * PRESENCE_KEYS).filter(|hash| presence.may_have(*hash));
        assert!(wrong.count() < PRESENCE_KEYS / 20);
    }
}
