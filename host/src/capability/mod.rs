//! Puts the store behind the WIT interfaces, one capability a file.
//!
//! Each has its stores as a guest opens them, what narrows them to a grant, a conversion of the store's errors, and
//! `add_to_linker`; `view` has the rest. No host function traps or panics: whatever a guest asks for is answered.

pub mod blob;
mod budget;
pub mod cache;
mod config;
pub mod kv;
mod logging;
pub mod sql;
pub mod vector;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tollgate_store::{Cache, Container, Database, Index, Kv};
use wasmtime::component::{Linker, ResourceTable};

pub(crate) use budget::{Allowance, Budget};

use crate::plugin::limits::BLOBS_HELD;
use crate::plugin::{ComponentError, Manifest, PluginLog};
use view::Openable;

/// The stores that plugins can be granted, by name. A clone is the same set.
#[derive(Clone, Default)]
pub struct Stores {
    cache: Arc<BTreeMap<String, Cache>>,
    kv: Arc<BTreeMap<String, Kv>>,
    sql: Arc<BTreeMap<String, Database>>,
    blob: Arc<BTreeMap<String, Container>>,
    vector: Arc<BTreeMap<String, Index>>,
}

impl Stores {
    /// All stores of the host that a manifest may name.
    pub fn new(kv: BTreeMap<String, Kv>, sql: BTreeMap<String, Database>) -> Stores {
        Stores { kv: Arc::new(kv), sql: Arc::new(sql), ..Stores::default() }
    }

    /// With these blob containers too.
    pub fn with_blob(self, blob: BTreeMap<String, Container>) -> Stores {
        Stores { blob: Arc::new(blob), ..self }
    }

    /// With these vector indexes too.
    pub fn with_vector(self, vector: BTreeMap<String, Index>) -> Stores {
        Stores { vector: Arc::new(vector), ..self }
    }

    /// With these caches too.
    pub fn with_caches(self, cache: BTreeMap<String, Cache>) -> Stores {
        Stores { cache: Arc::new(cache), ..self }
    }

    /// What one plugin may open. A grant of a store that there is not is refused.
    pub(crate) fn granted(&self, manifest: &Manifest) -> Result<Granted, ComponentError> {
        let grants = &manifest.grants;
        let cache = cache::granted(&self.cache, &grants.cache)
            .map_err(|name| ComponentError::NoSuchStore { kind: "cache", name })?;
        let kv = kv::granted(&self.kv, &grants.kv)
            .map_err(|name| ComponentError::NoSuchStore { kind: "kv store", name })?;
        let sql = sql::granted(&self.sql, &grants.sql)
            .map_err(|name| ComponentError::NoSuchStore { kind: "database", name })?;
        let blob = blob::granted(&self.blob, &grants.blob)
            .map_err(|name| ComponentError::NoSuchStore { kind: "blob container", name })?;
        let vector = vector::granted(&self.vector, &grants.vector)
            .map_err(|name| ComponentError::NoSuchStore { kind: "vector index", name })?;
        let held_blobs = Arc::new(Semaphore::new(BLOBS_HELD));
        Ok(Granted { cache, kv, sql, blob, held_blobs, vector, config: manifest.config.clone() })
    }
}

/// What one plugin may open, of every capability, and its settings.
pub(crate) struct Granted {
    pub(crate) cache: Openable<cache::OpenCache>,
    pub(crate) kv: Openable<kv::OpenStore>,
    pub(crate) sql: Openable<sql::OpenDatabase>,
    pub(crate) blob: Openable<blob::OpenContainer>,
    /// Places for contents that have no container yet.
    pub(crate) held_blobs: Arc<Semaphore>,
    pub(crate) vector: Openable<vector::OpenIndex>,
    config: BTreeMap<String, String>,
}

/// What the state of an instance must have for capabilities to work.
pub(crate) trait Host: Send + 'static {
    /// What was granted, the open handles, and what is left of the running call's budget.
    fn parts(&mut self) -> (&Granted, &mut ResourceTable, &mut Budget);

    /// Where the plugin's log goes, and what is left of the running call's budget.
    fn log(&mut self) -> (&PluginLog, &mut Budget);
}

/// Links all capabilities.
pub(crate) fn add_to_linker<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    cache::add_to_linker(linker)?;
    kv::add_to_linker(linker)?;
    sql::add_to_linker(linker)?;
    blob::add_to_linker(linker)?;
    vector::add_to_linker(linker)?;
    config::add_to_linker(linker)?;
    logging::add_to_linker(linker)
}
