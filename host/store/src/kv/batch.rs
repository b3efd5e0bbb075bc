//! Writes to several kv stores, made together.

use std::{collections::HashMap, sync::Arc};

use super::{Acknowledge, Kv, KvError, KvWrite, key::Key};
use crate::{
    core::{Core, Open},
    limits::{TRANSACTION_BYTES, TRANSACTION_ITEMS},
};

/// Writes to kv stores of one file that become visible at one instant and durable in one commit, all or none. They are
/// acknowledged at once if all its stores are relaxed, and when they are on disk otherwise. Has at most 1,000 keys and
/// 8 MiB.
#[derive(Debug)]
pub struct Batch {
    open: Arc<Open>,
    /// In the order added, each key once.
    writes: Vec<KvWrite>,
    places: HashMap<Key, usize>,
    bytes: usize,
    /// Those it writes to, each once.
    stores: Vec<Kv>,
    durable: bool,
}

impl Batch {
    pub(crate) fn new(open: Arc<Open>) -> Self {
        Self {
            open,
            writes: Vec::new(),
            places: HashMap::new(),
            bytes: 0,
            stores: Vec::new(),
            durable: false,
        }
    }

    /// Adds: write a value; replaces what was added for the key before. Without `ttl_ms` the store's default applies,
    /// and the time starts now. After an error the batch is as before.
    pub fn set(&mut self, kv: &Kv, key: &str, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<(), KvError> {
        self.add(kv, key, Some(value), ttl_ms)
    }

    /// Adds: remove a key; replaces what was added for it before.
    pub fn delete(&mut self, kv: &Kv, key: &str) -> Result<(), KvError> {
        self.add(kv, key, None, None)
    }

    /// Makes the writes, and is empty afterwards. When it refuses (`Full`: a store may not have them), nothing was written and the batch is as before; when
    /// the storage fails after that (`Storage`), it is not known what is on disk.
    pub async fn write(&mut self) -> Result<(), KvError> {
        self.room().await?;
        let core = &self.open.core;
        core.overlay.transact(&HashMap::new(), &self.writes, || core.now_ms(), || core.next_version())?;
        let written = self.acknowledge_by();
        self.reset();
        Ok(self.open.core.acknowledge(written).await?)
    }

    /// Forgets what was added.
    pub fn reset(&mut self) {
        *self = Self::new(Arc::clone(&self.open));
    }

    /// How many keys it writes.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.open.core
    }

    /// What was added for a key.
    pub(super) fn added(&self, key: &Key) -> Option<&KvWrite> {
        self.writes.get(*self.places.get(key)?)
    }

    pub(super) fn writes(&self) -> &[KvWrite] {
        &self.writes
    }

    /// Waits until memory takes more, and takes the room in its stores.
    pub(super) async fn room(&self) -> Result<(), KvError> {
        self.open.core.room().await?;
        for kv in &self.stores {
            let own = || self.writes.iter().filter(|write| kv.has(write));
            let bytes = own().map(KvWrite::written).sum();
            kv.take_for(bytes, || own().map(|write| (write.key.clone(), write.written()))).await?;
        }
        Ok(())
    }

    /// The strictest of its stores counts.
    pub(super) fn acknowledge_by(&self) -> Acknowledge {
        if self.durable { Acknowledge::Durable } else { Acknowledge::Relaxed }
    }

    fn add(
        &mut self,
        kv: &Kv,
        key: &str,
        value: Option<Vec<u8>>,
        ttl_ms: Option<u64>,
    ) -> Result<(), KvError> {
        kv.check_file(&self.open.core)?;
        let write = kv.write(key, value, ttl_ms)?;
        let place = self.places.get(&write.key).copied();
        let replaced = place.and_then(|place| self.writes.get(place)).map_or(0, KvWrite::size);
        if place.is_none() && self.writes.len() >= TRANSACTION_ITEMS {
            return Err(KvError::TooLarge(format!("a batch has at most {TRANSACTION_ITEMS} keys")));
        }
        let bytes = self.bytes - replaced + write.size();
        if bytes > TRANSACTION_BYTES {
            return Err(KvError::TooLarge(format!("a batch has at most {TRANSACTION_BYTES} bytes")));
        }
        match place.and_then(|place| self.writes.get_mut(place)) {
            Some(present) => *present = write,
            None => {
                self.places.insert(write.key.clone(), self.writes.len());
                self.writes.push(write);
            }
        }
        self.bytes = bytes;
        if !self.stores.iter().any(|known| known.is(kv)) {
            self.stores.push(kv.clone());
        }
        self.durable |= kv.options().acknowledge == Acknowledge::Durable;
        Ok(())
    }
}
