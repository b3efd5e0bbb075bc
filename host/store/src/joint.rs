//! Changes of kv stores and of an SQL database in one commit.

use crate::{
    kv::{Kv, KvError, KvWrite},
    sql::JointSql,
};

/// Changes that become visible and durable together, or not at all. Bounded like any message to the committer.
#[derive(Debug, Default)]
pub struct Joint {
    pub(crate) kv: Vec<KvWrite>,
    /// Statements on one database; then its writer submits the kv writes with its pages.
    pub(crate) sql: Option<JointSql>,
}

impl Joint {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds: write a value. Without `ttl_ms` the store's default applies.
    pub fn set(self, _kv: &Kv, _key: &str, _value: Vec<u8>, _ttl_ms: Option<u64>) -> Result<Self, KvError> {
        todo!()
    }

    /// Adds: remove a key.
    pub fn delete(self, _kv: &Kv, _key: &str) -> Result<Self, KvError> {
        todo!()
    }
}
