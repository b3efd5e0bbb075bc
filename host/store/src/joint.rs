//! Changes of kv stores and of an SQL database in one commit.

use crate::{
    kv::{Kv, KvError, KvWrite},
    sql::JointSql,
};

/// Changes that become visible and durable together, or not at all. Bounded like any message to the committer. A write
/// to a kv store counts as made when the commit is done: it replaces what was written to the key meanwhile.
#[derive(Debug, Default)]
pub struct Joint {
    pub(crate) kv: Vec<KvWrite>,
    pub(crate) stores: Vec<Kv>,
    /// Statements on one database; then its writer submits the kv writes with its pages.
    pub(crate) sql: Option<JointSql>,
}

impl Joint {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds: write a value. Without `ttl_ms` the store's default applies.
    pub fn set(mut self, kv: &Kv, key: &str, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<Self, KvError> {
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
}
