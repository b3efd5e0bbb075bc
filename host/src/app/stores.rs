//! The named kv stores, databases, blob containers, vector indexes and caches of a server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tollgate_store::{
    Acknowledge, BlobOptions, Cache, Clock, Container, Database, Index, Kv, KvOptions, Store,
};

use crate::config::{self, Config};
use crate::data::{self, Blob};
use crate::tokens::Known;

/// kv stores that the shipped plugins use, and when their writes are acknowledged: a forgotten ban would be a breach,
/// a forgotten count of the last 50 ms is not.
const SHIPPED: [(&str, config::Acknowledge); 3] = [
    ("blacklist", config::Acknowledge::Durable),
    ("quota", config::Acknowledge::Relaxed),
    ("hot-keys", config::Acknowledge::Relaxed),
];

/// How long an expired entry may stay in a cache that nobody uses.
const CLEAN_EVERY: Duration = Duration::from_secs(5 * 60);

pub(super) use crate::config::GATEWAY_DATABASE as GATEWAY;
pub(super) use crate::config::HOST_KV as HOST;

/// Behind a container's name, the name of the container of its parts: configured names have no `/`.
const PARTS: &str = "/parts";

/// The stores by name.
pub(super) struct Named {
    pub(super) kv: BTreeMap<String, Kv>,
    pub(super) sql: BTreeMap<String, Database>,
    pub(super) blob: BTreeMap<String, Container>,
    /// For each container, what there is of uploads in parts.
    pub(super) parts: BTreeMap<String, Container>,
    pub(super) vector: BTreeMap<String, Index>,
    pub(super) cache: BTreeMap<String, Cache>,
}

/// Opens what is shipped and what is configured.
pub(super) fn open(store: &Store, config: &Config) -> anyhow::Result<Named> {
    let mut settings: BTreeMap<&str, config::KvStore> = BTreeMap::new();
    for (name, acknowledge) in SHIPPED {
        settings.insert(name, config::KvStore { acknowledge: Some(acknowledge), default_ttl_ms: None });
    }
    for (name, configured) in &config.kv {
        let setting = settings.entry(name).or_default();
        setting.acknowledge = configured.acknowledge.or(setting.acknowledge);
        setting.default_ttl_ms = configured.default_ttl_ms;
    }
    let mut kv = BTreeMap::new();
    for (name, setting) in settings {
        let opened =
            store.kv(name, options(setting)).with_context(|| format!("cannot open kv store `{name}`"))?;
        kv.insert(name.to_owned(), opened);
    }
    let mut sql = BTreeMap::new();
    for name in std::iter::once(GATEWAY).chain(config.sql.keys().map(String::as_str)) {
        let opened = store.database(name).with_context(|| format!("cannot open database `{name}`"))?;
        sql.insert(name.to_owned(), opened);
    }
    let (mut blob, mut parts) = (BTreeMap::new(), BTreeMap::new());
    for (name, configured) in &config.blob {
        let options = blob_options(configured);
        let part_options = BlobOptions { object_bytes: options.object_bytes, ..BlobOptions::default() };
        let open = |name: &str, options| {
            store.container(name, options).with_context(|| format!("cannot open blob container `{name}`"))
        };
        blob.insert(name.clone(), open(name, options)?);
        parts.insert(name.clone(), open(&format!("{name}{PARTS}"), part_options)?);
    }
    let mut vector = BTreeMap::new();
    for (name, options) in &config.vector {
        let opened = store
            .index(name, options.clone())
            .with_context(|| format!("cannot open vector index `{name}`"))?;
        vector.insert(name.clone(), opened);
    }
    let mut cache = BTreeMap::new();
    for (name, options) in &config.cache {
        let opened = store.cache(name, *options).with_context(|| format!("cannot open cache `{name}`"))?;
        cache.insert(name.clone(), opened);
    }
    Ok(Named { kv, sql, blob, parts, vector, cache })
}

fn blob_options(configured: &config::BlobContainer) -> BlobOptions {
    let defaults = BlobOptions::default();
    BlobOptions {
        object_bytes: configured.object_limit_bytes.unwrap_or(defaults.object_bytes),
        content_types: configured.content_types.clone(),
        cache_control: configured.cache_control.clone(),
    }
}

/// Reads the vectors of all indexes into memory, one index after the other, so that no request waits for it.
pub(super) async fn load(indexes: BTreeMap<String, Index>, stopping: CancellationToken) {
    for (name, index) in indexes {
        // An index that cannot be read answers so whenever it is used.
        if let Some(Err(error)) = stopping.run_until_cancelled(index.load()).await {
            tracing::error!(index = name, %error, "cannot load a vector index");
        }
    }
}

/// Removes what has expired in caches that nobody uses, until the server stops; use removes it too.
pub(super) async fn clean(caches: BTreeMap<String, Cache>, stopping: CancellationToken) {
    while stopping.run_until_cancelled(tokio::time::sleep(CLEAN_EVERY)).await.is_some() {
        caches.values().for_each(Cache::clean);
    }
}

impl Named {
    /// What data tokens can name.
    pub(super) fn known(&self) -> Known {
        Known {
            kv: self.kv.keys().cloned().collect(),
            blob: self.blob.keys().cloned().collect(),
            sql: self.sql.keys().cloned().collect(),
            vector: self.vector.keys().cloned().collect(),
            rules: GATEWAY.to_owned(),
        }
    }

    /// The containers with their parts.
    pub(super) fn blobs(&self) -> BTreeMap<String, Blob> {
        let both = self.blob.iter().zip(self.parts.values());
        both.map(|((name, objects), parts)| (name.clone(), Blob::new(objects.clone(), parts.clone())))
            .collect()
    }
}

/// Removes what nobody completed of uploads in parts, at the start and then now and again, until the server stops.
pub(super) async fn sweep(blobs: BTreeMap<String, Blob>, clock: Clock, stopping: CancellationToken) {
    loop {
        for (name, blob) in &blobs {
            if let Err(error) = data::sweep(blob, clock()).await {
                tracing::warn!(container = name, %error, "forgotten uploads could not be removed");
            }
        }
        if stopping.run_until_cancelled(tokio::time::sleep(data::SWEEP_EVERY)).await.is_none() {
            return;
        }
    }
}

fn options(setting: config::KvStore) -> KvOptions {
    let acknowledge = match setting.acknowledge {
        Some(config::Acknowledge::Relaxed) => Acknowledge::Relaxed,
        Some(config::Acknowledge::Durable) | None => Acknowledge::Durable,
    };
    KvOptions { acknowledge, default_ttl_ms: setting.default_ttl_ms }
}
