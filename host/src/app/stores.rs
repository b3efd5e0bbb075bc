//! The named kv stores, databases, blob containers, vector indexes and caches of a server.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tollgate_store::{
    Acknowledge, BlobOptions, Cache, Clock, Container, Database, Index, Kv, KvOptions, OpenError, Options,
    Store,
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

/// Those of them in which policies keep something of a client under `client:ID`.
pub(super) const OF_CLIENTS: [&str; 2] = ["blacklist", "quota"];

/// Pages of stores in memory that are kept a second time; a page is there anyway.
const MEMORY_CACHE_BYTES: usize = 4 << 20;

/// The store's file in the data directory.
pub(super) const STORE: &str = "tollgate.redb";

/// The folder of blobs in files in the data directory.
const BLOBS: &str = "blobs";

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

/// Opens the store of everything that is not configured otherwise. Blocks: recovery after a crash reads the whole file.
pub(super) fn main(data: &Path, config: &Config, clock: &Clock) -> anyhow::Result<Store> {
    let path = data.join(STORE);
    if config.storage.engine == config::Engine::Memory {
        if config.retention.request_logs.is_none() {
            tracing::warn!(
                "everything is in memory, and the log of requests fills it: set `request_logs_days` in [retention]"
            );
        }
        if path.exists() {
            tracing::warn!(path = %path.display(), "everything is in memory: the file of earlier starts is left alone");
        }
        return in_memory(config, clock).context("cannot make the store in memory");
    }
    let options = Options {
        cache_bytes: config.storage.page_cache_bytes,
        kv_cache_bytes: config.storage.kv_cache_bytes,
        clock: clock.clone(),
        two_phase: config.storage.two_phase,
        blob_folder: Some(data.join(BLOBS)),
        ..Options::default()
    };
    Store::open(&path, options).with_context(|| format!("cannot open {}", path.display()))
}

/// Opens what is shipped and what is configured.
pub(super) fn open(main: &Store, config: &Config, clock: &Clock) -> anyhow::Result<Named> {
    let memory = memory(config, clock).context("cannot make the stores in memory")?;
    let store = |engine| match (engine, &memory) {
        (config::Engine::Memory, Some(memory)) => memory,
        _ => main,
    };
    let mut settings: BTreeMap<&str, config::KvStore> = BTreeMap::new();
    for (name, acknowledge) in SHIPPED {
        settings.insert(name, config::KvStore { acknowledge: Some(acknowledge), ..Default::default() });
    }
    for (name, configured) in &config.kv {
        let setting = settings.entry(name).or_default();
        setting.acknowledge = configured.acknowledge.or(setting.acknowledge);
        setting.default_ttl_ms = configured.default_ttl_ms;
        setting.limit_bytes = configured.limit_bytes;
        setting.engine = configured.engine;
    }
    let mut kv = BTreeMap::new();
    for (name, setting) in settings {
        let opened = store(setting.engine).kv(name, options(setting, &config.storage));
        let opened = opened.with_context(|| format!("cannot open kv store `{name}`"))?;
        kv.insert(name.to_owned(), opened);
    }
    let mut sql = BTreeMap::new();
    let configured = config.sql.iter().map(|(name, database)| (name.as_str(), database.engine));
    for (name, engine) in std::iter::once((GATEWAY, config::Engine::Redb)).chain(configured) {
        let opened =
            store(engine).database(name).with_context(|| format!("cannot open database `{name}`"))?;
        sql.insert(name.to_owned(), opened);
    }
    let (mut blob, mut parts) = (BTreeMap::new(), BTreeMap::new());
    for (name, configured) in &config.blob {
        let options = blob_options(configured);
        let part_options = BlobOptions {
            object_bytes: options.object_bytes,
            files: options.files,
            ..BlobOptions::default()
        };
        let open = |name: &str, options| {
            let opened = store(configured.engine).container(name, options);
            opened.with_context(|| format!("cannot open blob container `{name}`"))
        };
        blob.insert(name.clone(), open(name, options)?);
        parts.insert(name.clone(), open(&format!("{name}{PARTS}"), part_options)?);
    }
    let mut vector = BTreeMap::new();
    for (name, configured) in &config.vector {
        let opened = store(configured.engine)
            .index(name, configured.options.clone())
            .with_context(|| format!("cannot open vector index `{name}`"))?;
        vector.insert(name.clone(), opened);
    }
    let mut cache = BTreeMap::new();
    for (name, options) in &config.cache {
        let opened = main.cache(name, *options).with_context(|| format!("cannot open cache `{name}`"))?;
        cache.insert(name.clone(), opened);
    }
    Ok(Named { kv, sql, blob, parts, vector, cache })
}

/// The store of all that is configured to be in memory, if anything is and not everything; its handles keep it.
fn memory(config: &Config, clock: &Clock) -> Result<Option<Store>, OpenError> {
    let engines = config.kv.values().map(|kv| kv.engine);
    let engines = engines.chain(config.sql.values().map(|database| database.engine));
    let engines = engines.chain(config.blob.values().map(|container| container.engine));
    let mut engines = engines.chain(config.vector.values().map(|index| index.engine));
    let is_all = config.storage.engine == config::Engine::Memory;
    if is_all || !engines.any(|engine| engine == config::Engine::Memory) {
        return Ok(None);
    }
    in_memory(config, clock).map(Some)
}

fn in_memory(config: &Config, clock: &Clock) -> Result<Store, OpenError> {
    let options = Options {
        cache_bytes: MEMORY_CACHE_BYTES,
        kv_cache_bytes: config.storage.kv_cache_bytes,
        clock: clock.clone(),
        ..Options::default()
    };
    Store::in_memory(options, config.storage.memory_bytes)
}

fn blob_options(configured: &config::BlobContainer) -> BlobOptions {
    let defaults = BlobOptions::default();
    BlobOptions {
        object_bytes: configured.object_limit_bytes.unwrap_or(defaults.object_bytes),
        content_types: configured.content_types.clone(),
        cache_control: configured.cache_control.clone(),
        files: configured.engine == config::Engine::Files,
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

fn options(setting: config::KvStore, storage: &config::Storage) -> KvOptions {
    let acknowledge = match setting.acknowledge {
        Some(config::Acknowledge::Relaxed) => Acknowledge::Relaxed,
        Some(config::Acknowledge::Durable) | None => Acknowledge::Durable,
    };
    let is_in_memory = [setting.engine, storage.engine].contains(&config::Engine::Memory);
    let limit_bytes = Some(setting.limit_bytes.unwrap_or(match is_in_memory {
        true => storage.memory_bytes / config::limits::MEMORY_SHARES,
        false => config::limits::KV_LIMIT_BYTES,
    }));
    KvOptions { acknowledge, default_ttl_ms: setting.default_ttl_ms, limit_bytes }
}
