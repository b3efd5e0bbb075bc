//! The stores of one case, under a clock that the case moves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use tollgate_store::{
    Acknowledge, BlobOptions, Cache, CacheOptions, Container, Database, Index, Kv, KvOptions, Options,
    SetOptions, Statement, Store, VectorOptions,
};

use super::Before;
use super::stores::real;
use crate::capability::Stores;
use crate::plugin::Grants;

/// Keys read at once.
const PAGE: u32 = 1_000;

/// Dimensions of a vector index of which a case says nothing: those of many embedding models.
const DIMENSIONS: usize = 1_024;

/// A store in a folder that goes with it.
pub(super) struct Home {
    store: Store,
    now_ms: Arc<AtomicU64>,
    kv: BTreeMap<String, Kv>,
    sql: BTreeMap<String, Database>,
    blob: BTreeMap<String, Container>,
    vector: BTreeMap<String, Index>,
    cache: BTreeMap<String, Cache>,
    _folder: tempfile::TempDir,
}

impl Home {
    /// Empty stores of all the names that are granted to somebody; containers, vector indexes and caches that `before` names too,
    /// and indexes as it has them.
    pub(super) fn new<'a>(grants: impl Iterator<Item = &'a Grants>, before: &Before) -> anyhow::Result<Home> {
        Home::with(grants, before, Acknowledge::Durable)
    }

    /// The same, with kv stores that acknowledge writes so.
    pub(super) fn with<'a>(
        grants: impl Iterator<Item = &'a Grants>,
        before: &Before,
        acknowledge: Acknowledge,
    ) -> anyhow::Result<Home> {
        let now_ms = Arc::new(AtomicU64::new(0));
        let clock = now_ms.clone();
        let options =
            Options { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..Options::default() };
        let folder = tempfile::tempdir()?;
        let store = Store::open(&folder.path().join("store.redb"), options)?;
        let mut home = Home {
            store,
            now_ms,
            kv: BTreeMap::new(),
            sql: BTreeMap::new(),
            blob: BTreeMap::new(),
            vector: BTreeMap::new(),
            cache: BTreeMap::new(),
            _folder: folder,
        };
        for grants in grants {
            for name in grants.kv.keys() {
                let options = KvOptions { acknowledge, default_ttl_ms: None, limit_bytes: None };
                home.kv.insert(name.clone(), home.store.kv(name, options)?);
            }
            for name in grants.sql.keys() {
                home.sql.insert(name.clone(), home.store.database(name)?);
            }
            for name in grants.blob.keys() {
                home.open_container(name)?;
            }
            for name in grants.vector.keys() {
                home.open_index(name, before.vector.get(name))?;
            }
            for name in grants.cache.keys() {
                home.open_cache(name)?;
            }
        }
        for name in &before.blob {
            home.open_container(name)?;
        }
        for (name, options) in &before.vector {
            home.open_index(name, Some(options))?;
        }
        for name in &before.cache {
            home.open_cache(name)?;
        }
        Ok(home)
    }

    fn open_container(&mut self, name: &str) -> anyhow::Result<()> {
        self.blob.insert(name.to_owned(), self.store.container(name, BlobOptions::default())?);
        Ok(())
    }

    fn open_index(&mut self, name: &str, options: Option<&VectorOptions>) -> anyhow::Result<()> {
        let options = options.cloned().unwrap_or_else(|| VectorOptions::new(DIMENSIONS));
        self.vector.insert(name.to_owned(), self.store.index(name, options)?);
        Ok(())
    }

    fn open_cache(&mut self, name: &str) -> anyhow::Result<()> {
        self.cache.insert(name.to_owned(), self.store.cache(name, CacheOptions::default())?);
        Ok(())
    }

    /// What plugins are granted them from.
    pub(super) fn stores(&self) -> Stores {
        Stores::new(self.kv.clone(), self.sql.clone())
            .with_blob(self.blob.clone())
            .with_vector(self.vector.clone())
            .with_caches(self.cache.clone())
    }

    pub(super) fn set_clock(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// A kv store by name.
    pub(super) fn kv(&self, name: &str) -> anyhow::Result<&Kv> {
        self.kv.get(name).ok_or_else(|| not_granted("kv store", name, self.kv.keys()))
    }

    /// A database by name.
    pub(super) fn sql(&self, name: &str) -> anyhow::Result<&Database> {
        self.sql.get(name).ok_or_else(|| not_granted("database", name, self.sql.keys()))
    }

    /// A container by name.
    pub(super) fn blob(&self, name: &str) -> anyhow::Result<&Container> {
        self.blob.get(name).ok_or_else(|| not_granted("container", name, self.blob.keys()))
    }

    /// A vector index by name.
    pub(super) fn vector(&self, name: &str) -> anyhow::Result<&Index> {
        self.vector.get(name).ok_or_else(|| not_granted("vector index", name, self.vector.keys()))
    }

    /// A cache by name.
    pub(super) fn cache(&self, name: &str) -> anyhow::Result<&Cache> {
        self.cache.get(name).ok_or_else(|| not_granted("cache", name, self.cache.keys()))
    }

    pub(super) async fn prepare(&self, before: &Before) -> anyhow::Result<()> {
        for (store, entries) in &before.kv {
            for (key, value) in entries {
                let options = SetOptions { ttl_ms: None, if_absent: false };
                let set = self.kv(store)?.set(key, hex::decode(value)?, options).await;
                set.with_context(|| format!("kv store {store}, key {key:?}"))?;
            }
        }
        for (database, statements) in &before.sql {
            for sql in statements {
                let done = self.sql(database)?.execute(Statement::new(sql, Vec::new())).await;
                done.with_context(|| format!("database {database}: {sql}"))?;
            }
        }
        Ok(())
    }

    /// All keys of a store with their values in hexadecimal.
    pub(super) async fn contents(&self, store: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let kv = self.kv(store)?;
        let mut contents = BTreeMap::new();
        let mut cursor = None;
        loop {
            let page = kv.list_keys(None, cursor.as_deref(), PAGE).await?;
            for key in page.keys {
                if let Some(entry) = kv.get(&key).await? {
                    contents.insert(key, hex::encode(&entry.value));
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(contents);
            }
        }
    }

    /// The rows of a query.
    pub(super) async fn rows(&self, database: &str, sql: &str) -> anyhow::Result<Value> {
        let outcome = self.sql(database)?.query(Statement::new(sql, Vec::new())).await;
        let rows = outcome.with_context(|| format!("database {database}: {sql}"))?.rows;
        Ok(rows.into_iter().map(|row| row.into_iter().map(cell).collect::<Value>()).collect())
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(self.store.close().await?)
    }
}

fn not_granted<'a>(kind: &str, name: &str, there: impl Iterator<Item = &'a String>) -> anyhow::Error {
    let there: Vec<&str> = there.map(String::as_str).collect();
    anyhow!("no manifest grants {kind} {name:?}; granted are: {}", there.join(", "))
}

fn cell(value: tollgate_store::Value) -> Value {
    match value {
        tollgate_store::Value::Null => Value::Null,
        tollgate_store::Value::Integer(integer) => json!(integer),
        tollgate_store::Value::Real(number) => real(number),
        tollgate_store::Value::Text(text) => json!(text),
        tollgate_store::Value::Blob(bytes) => json!({ "bytes": hex::encode(bytes) }),
    }
}
