//! The named kv stores, databases, blob containers and caches of a server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tollgate_store::{Acknowledge, BlobOptions, Cache, Container, Database, Kv, KvOptions, Store};

use crate::config::{self, Config};

/// kv stores that the shipped plugins use, and when their writes are acknowledged: a forgotten ban would be a breach,
/// a forgotten count of the last 50 ms is not.
const SHIPPED: [(&str, config::Acknowledge); 3] = [
    ("blacklist", config::Acknowledge::Durable),
    ("quota", config::Acknowledge::Relaxed),
    ("hot-keys", config::Acknowledge::Relaxed),
];

/// How long an expired entry may stay in a cache that nobody uses.
const CLEAN_EVERY: Duration = Duration::from_secs(5 * 60);

/// The database with the gateway's tables.
pub(super) const GATEWAY: &str = "gateway";

/// The host's own kv store, granted to nobody and shown to nobody.
pub(super) const HOST: &str = "host.tollgate";

/// The stores by name.
pub(super) struct Named {
    pub(super) kv: BTreeMap<String, Kv>,
    pub(super) sql: BTreeMap<String, Database>,
    pub(super) blob: BTreeMap<String, Container>,
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
    let mut blob = BTreeMap::new();
    for (name, configured) in &config.blob {
        let opened = store
            .container(name, blob_options(configured))
            .with_context(|| format!("cannot open blob container `{name}`"))?;
        blob.insert(name.clone(), opened);
    }
    let mut cache = BTreeMap::new();
    for (name, options) in &config.cache {
        let opened = store.cache(name, *options).with_context(|| format!("cannot open cache `{name}`"))?;
        cache.insert(name.clone(), opened);
    }
    Ok(Named { kv, sql, blob, cache })
}

fn blob_options(configured: &config::BlobContainer) -> BlobOptions {
    let defaults = BlobOptions::default();
    BlobOptions {
        object_bytes: configured.object_limit_bytes.unwrap_or(defaults.object_bytes),
        content_types: configured.content_types.clone(),
        cache_control: configured.cache_control.clone(),
    }
}

/// Removes what has expired in caches that nobody uses, until the server stops; use removes it too.
pub(super) async fn clean(caches: BTreeMap<String, Cache>, stopping: CancellationToken) {
    while stopping.run_until_cancelled(tokio::time::sleep(CLEAN_EVERY)).await.is_some() {
        caches.values().for_each(Cache::clean);
    }
}

fn options(setting: config::KvStore) -> KvOptions {
    let acknowledge = match setting.acknowledge {
        Some(config::Acknowledge::Relaxed) => Acknowledge::Relaxed,
        Some(config::Acknowledge::Durable) | None => Acknowledge::Durable,
    };
    KvOptions { acknowledge, default_ttl_ms: setting.default_ttl_ms }
}
