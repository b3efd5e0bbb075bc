//! Changes of kv stores, of blob containers, of vector indexes and of an SQL database in one commit.

use crate::{
    BlobError, Prepared, PreparedVectors,
    commit::Change,
    kv::{Kv, KvError, KvWrite},
    sql::JointSql,
};

/// Changes that become visible and durable together, or not at all. Bounded like any message to the committer. A write
/// to a kv store counts as made when the commit is done: it replaces what was written to the key meanwhile.
#[derive(Debug, Default)]
pub struct Joint {
    pub(crate) kv: Vec<KvWrite>,
    pub(crate) stores: Vec<Kv>,
    pub(crate) blobs: Vec<Prepared>,
    pub(crate) vectors: Vec<PreparedVectors>,
    /// Statements on one database; then its writer submits the kv writes with its pages.
    pub(crate) sql: Option<JointSql>,
}

impl Joint {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds: write a value. Without `ttl_ms` the store's default applies. A full store refuses it here, whatever it replaces.
    pub fn set(mut self, kv: &Kv, key: &str, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<Self, KvError> {
        kv.take(key.len().saturating_add(value.len()))?;
        self.kv.push(kv.write(key, Some(value), ttl_ms)?);
        self.stores.push(kv.clone());
        Ok(self)
    }

    /// Adds: remove a key.
    pub fn delete(mut self, kv: &Kv, key: &str) -> Result<Self, KvError> {
        self.kv.push(kv.write(key, None, None)?);
        self.stores.push(kv.clone());
        Ok(self)
    }

    /// Adds: publish an upload, whatever stands under its key.
    pub fn publish(mut self, upload: Prepared) -> Result<Self, BlobError> {
        if !upload.is_unconditional() {
            let text = "an upload with a precondition cannot be part of a joint commit";
            return Err(BlobError::Invalid(text.to_owned()));
        }
        self.blobs.push(upload);
        Ok(self)
    }

    /// Adds: write or remove vectors.
    pub fn vectors(mut self, prepared: PreparedVectors) -> Self {
        self.vectors.push(prepared);
        self
    }
}

/// What is handed to the committer beside pages.
pub(crate) fn changes(kv: Vec<KvWrite>, blobs: Vec<Prepared>, vectors: Vec<PreparedVectors>) -> Vec<Change> {
    let kv = (!kv.is_empty()).then_some(Change::Kv(kv));
    let blobs = blobs.into_iter().flat_map(|upload| upload.changes);
    let vectors = vectors.into_iter().map(|prepared| Change::Vector(prepared.change));
    kv.into_iter().chain(blobs).chain(vectors).collect()
}
