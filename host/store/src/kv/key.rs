//! Keys as rows have them, hashed once and looked up without an allocation.

use std::{
    borrow::Borrow,
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use foldhash::quality::RandomState;

use super::KvError;
use crate::limits::KEY_BYTES;

/// Bytes of the store's id before the key's own.
const ID_BYTES: usize = size_of::<u32>();

/// Rows of nearly all keys fit; longer ones are put together on the heap.
const INLINE_BYTES: usize = 128;

/// A row's key with its hash: the store's id, big-endian, and the key's UTF-8 bytes.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    hash: u64,
    bytes: Arc<[u8]>,
}

/// Puts keys together on the stack and hashes them.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    hasher: RandomState,
}

impl Keys {
    /// The row's key for a key of a store.
    pub(crate) fn key(&self, store: u32, key: &str) -> Result<KeyBuffer, KvError> {
        if key.is_empty() {
            return Err(KvError::Invalid("a key must not be empty".to_owned()));
        }
        if key.len() > KEY_BYTES {
            return Err(KvError::TooLarge(format!("a key has at most {KEY_BYTES} bytes")));
        }
        let mut buffer = KeyBuffer { hash: 0, content: Content::new(store, key.as_bytes()) };
        buffer.hash = self.hash(buffer.bytes());
        Ok(buffer)
    }

    /// The hash of a row's key.
    pub(crate) fn hash(&self, row: &[u8]) -> u64 {
        self.hasher.hash_one(row)
    }
}

/// A key for looking up.
#[derive(Debug)]
pub(crate) struct KeyBuffer {
    hash: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Inline([u8; INLINE_BYTES], usize),
    Heap(Vec<u8>),
}

impl Content {
    fn new(store: u32, key: &[u8]) -> Self {
        let length = ID_BYTES + key.len();
        let mut inline = [0; INLINE_BYTES];
        if let Some(place) = inline.get_mut(..length) {
            let (id, rest) = place.split_at_mut(ID_BYTES);
            id.copy_from_slice(&store.to_be_bytes());
            rest.copy_from_slice(key);
            return Self::Inline(inline, length);
        }
        Self::Heap([&store.to_be_bytes(), key].concat())
    }
}

/// What `Key` and `KeyBuffer` have in common, so that a map of the one is asked with the other.
pub(crate) trait AsKey: Send + Sync {
    fn hash(&self) -> u64;
    fn bytes(&self) -> &[u8];
    /// One to keep.
    fn to_key(&self) -> Key;
}

impl AsKey for Key {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn to_key(&self) -> Key {
        self.clone()
    }
}

impl AsKey for KeyBuffer {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Inline(bytes, length) => bytes.get(..*length).unwrap_or_default(),
            Content::Heap(bytes) => bytes,
        }
    }

    fn to_key(&self) -> Key {
        Key { hash: self.hash, bytes: self.bytes().into() }
    }
}

impl<'a> Borrow<dyn AsKey + 'a> for Key {
    fn borrow(&self) -> &(dyn AsKey + 'a) {
        self
    }
}

impl Hash for dyn AsKey + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(AsKey::hash(self));
    }
}

impl PartialEq for dyn AsKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        AsKey::hash(self) == AsKey::hash(other) && self.bytes() == other.bytes()
    }
}

impl Eq for dyn AsKey + '_ {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for Key {}

/// The key itself, from a row's key.
pub(crate) fn text(row: &[u8]) -> String {
    String::from_utf8_lossy(row.get(ID_BYTES..).unwrap_or_default()).into_owned()
}

/// Bytes of the key itself, from a row's key.
pub(super) fn text_bytes(row: &[u8]) -> usize {
    row.len().saturating_sub(ID_BYTES)
}

/// Passes on the hash that a key carries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried(u64);

impl Hasher for Carried {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}
