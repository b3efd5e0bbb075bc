//! The configuration: `tollgate.toml` read, checked and turned into plain values that the rest can rely on.
//!
//! Every key is read through [`reader`], which knows where it stood: whatever is wrong is reported with its file, its
//! line and the nearest right key, all problems of a file at once. Nothing here opens a socket or a store.

mod accounts;
mod error;
pub mod limits;
mod parse;
mod reader;
mod stores;
mod telemetry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate_store::{CacheOptions, VectorOptions};

use crate::accounting::Retention;
use crate::gateway::{AccountSpec, Price, Settings};
use crate::plugin::PublicKey;
use crate::plugin::limits::KEPT_VERSIONS;
use crate::secret::Secret;

pub use error::{ConfigError, Problem};
pub(crate) use reader::check_name;

/// Everything `tollgate serve` can be told. [`Config::default`] is what runs without a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the gateway listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The data directory, created when it is missing.
    pub data: PathBuf,
    /// Threads that serve requests; none: one for each core.
    pub workers: Option<usize>,
    /// What is logged, as `TOLLGATE_LOG` has it, which counts more; none: `info`.
    pub log: Option<String>,
    /// How requests are proxied.
    pub gateway: Settings,
    /// How much the store may keep in memory, and how it commits.
    pub storage: Storage,
    /// Where the master key of what is kept encrypted comes from.
    pub secrets: MasterKeySource,
    /// How long changes are kept in the audit log.
    pub audit_keep: Duration,
    /// How long the request log and statistics are kept.
    pub retention: Retention,
    /// Where traces go; none: there are none.
    pub telemetry: Option<crate::telemetry::Settings>,
    /// Upstream accounts beside those in the store; without any the demo upstream serves.
    pub accounts: Vec<AccountSpec>,
    /// Models, or patterns of them, and what they cost.
    pub prices: Vec<(String, Price)>,
    /// Plugins beyond, or in place of, the shipped ones.
    pub plugins: Vec<Plugin>,
    /// What holds for all plugins.
    pub plugin_settings: PluginSettings,
    /// Named kv stores by name.
    pub kv: BTreeMap<String, KvStore>,
    /// SQL databases by name.
    pub sql: BTreeMap<String, SqlDatabase>,
    /// Blob containers by name.
    pub blob: BTreeMap<String, BlobContainer>,
    /// Vector indexes by name.
    pub vector: BTreeMap<String, VectorIndex>,
    /// Caches by name.
    pub cache: BTreeMap<String, CacheOptions>,
}

/// Memory and durability of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// Where everything is, whatever the engines of named stores say: in the one file, or in memory.
    pub engine: Engine,
    /// Memory for redb's pages, in bytes.
    pub page_cache_bytes: usize,
    /// Memory for kv values, over all stores, in bytes.
    pub kv_cache_bytes: u64,
    /// Bytes of request events that may wait for ingestion; past it the gateway answers 503.
    pub event_queue_bytes: u64,
    /// Two fsyncs a commit, so that recovery trusts no checksum.
    pub two_phase: bool,
    /// Bytes of all that is in memory by its engine, together.
    pub memory_bytes: u64,
}

/// `[secrets]`: where the master key comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MasterKeySource {
    /// A file beside the data, made at the first start.
    #[default]
    Beside,
    /// `key_file`: made at the first start where it is not there.
    File(PathBuf),
    /// `key_env`, or what was asked for.
    Given {
        /// Its hexadecimal digits, 64.
        digits: Secret,
        /// What messages call the place that it came from.
        origin: String,
    },
    /// `key_prompt`: asked for at the start.
    Prompt,
}

/// One `[[plugin]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// Name it runs under; a shipped plugin's name stands for that one.
    pub name: String,
    /// The component, pushed at the start when its digest is not the running one.
    pub file: Option<PathBuf>,
    /// Its `plugin.toml`.
    pub manifest: Option<PathBuf>,
    /// Whether it serves at all.
    pub enabled: bool,
}

/// `[plugins]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginSettings {
    /// Versions of each plugin that are kept, the one that serves among them.
    pub keep_versions: u32,
    /// Whose signature a component needs; empty: none is needed.
    pub trusted_keys: Vec<PublicKey>,
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self { keep_versions: KEPT_VERSIONS, trusted_keys: Vec::new() }
    }
}

/// When a kv write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// When it is on disk.
    Durable,
    /// At once; it is on disk within 50 ms.
    Relaxed,
}

/// Where a named store keeps what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// In the one file, by redb.
    #[default]
    Redb,
    /// In memory: gone when the server stops.
    Memory,
    /// Contents of blobs as files of their own, all the rest in the one file.
    Files,
}

impl Engine {
    /// Those of every kind of store, by their names.
    pub const NAMED: [(&'static str, Self); 2] = [("redb", Self::Redb), ("memory", Self::Memory)];

    /// Those of blob containers, by their names.
    pub const OF_BLOBS: [(&'static str, Self); 3] =
        [("redb", Self::Redb), ("memory", Self::Memory), ("files", Self::Files)];
}

/// One `[kv.NAME]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvStore {
    /// Where its entries are.
    pub engine: Engine,
    /// When its writes are acknowledged; none: as the store's user has it, and durable for a store of one's own.
    pub acknowledge: Option<Acknowledge>,
    /// Life of an entry whose writer names none, in milliseconds; none: it stays.
    pub default_ttl_ms: Option<u64>,
    /// Bytes of its keys and values; none: [`limits::KV_LIMIT_BYTES`], in memory a share of it by [`limits::MEMORY_SHARES`].
    pub limit_bytes: Option<u64>,
}

/// The database with the gateway's own tables; it is always there.
pub const GATEWAY_DATABASE: &str = "gateway";

/// The host's own kv store, granted to nobody and shown to nobody; no configuration can name it.
pub const HOST_KV: &str = "host.tollgate";

/// One `[sql.NAME]`: a database that exists from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SqlDatabase {
    /// Where its pages are.
    pub engine: Engine,
}

/// One `[blob.NAME]`: a container that exists from the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlobContainer {
    /// Where its objects are.
    pub engine: Engine,
    /// Bytes of an object at most; none: the store's default, 100 MiB.
    pub object_limit_bytes: Option<u64>,
    /// Content types that are taken, such as `image/png` or `image/*`; empty: all.
    pub content_types: Vec<String>,
    /// `cache-control` of objects written without one.
    pub cache_control: Option<String>,
}

/// One `[vector.NAME]`: an index that exists from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorIndex {
    /// Where its vectors are; they are searched in memory anyway.
    pub engine: Engine,
    /// What it takes.
    pub options: VectorOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: limits::LISTEN,
            data: PathBuf::from(limits::DATA),
            workers: None,
            log: None,
            gateway: Settings::default(),
            storage: Storage::default(),
            secrets: MasterKeySource::default(),
            audit_keep: limits::AUDIT_KEEP,
            retention: Retention::default(),
            telemetry: None,
            accounts: Vec::new(),
            prices: Vec::new(),
            plugins: Vec::new(),
            plugin_settings: PluginSettings::default(),
            kv: BTreeMap::new(),
            sql: BTreeMap::new(),
            blob: BTreeMap::new(),
            vector: BTreeMap::new(),
            cache: BTreeMap::new(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            page_cache_bytes: limits::PAGE_CACHE_BYTES,
            kv_cache_bytes: limits::KV_CACHE_BYTES,
            event_queue_bytes: limits::EVENT_QUEUE_BYTES,
            two_phase: false,
            memory_bytes: limits::MEMORY_BYTES,
        }
    }
}

impl Config {
    /// Reads a configuration file. Relative paths in it count from its own directory; `api_key_env` is looked up in
    /// this process's environment.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let directory = path.parent().unwrap_or(Path::new(""));
        parse::parse(&text, &file, directory, &|name| std::env::var(name).ok())
    }

    /// Reads a configuration from `text`; `file` is what problems call it, `environment` looks up variables.
    pub fn parse(
        text: &str,
        file: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        parse::parse(text, file, Path::new(""), environment)
    }
}
