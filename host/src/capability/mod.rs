//! Puts the store behind the WIT interfaces, one capability a file.

pub mod kv;
pub mod sql;

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate_store::{Database, Kv};
use wasmtime::component::Linker;

use crate::plugin::instance::HostState;

/// The stores that plugins can be granted, by name. A clone is the same set.
#[derive(Clone, Default)]
pub struct Stores {
    kv: Arc<BTreeMap<String, Kv>>,
    sql: Arc<BTreeMap<String, Database>>,
}

impl Stores {
    /// All stores of the host that a manifest may name.
    pub fn new(kv: BTreeMap<String, Kv>, sql: BTreeMap<String, Database>) -> Stores {
        Stores { kv: Arc::new(kv), sql: Arc::new(sql) }
    }
}

/// Links all capabilities.
pub(crate) fn add_to_linker(_linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    Ok(())
}
