//! The plugins this host runs: pushed, listed, rolled back, and started again after a restart.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use tollgate_store::{Clock, Store};

use super::Admissions;
use super::ingest::EventQueue;
use crate::capability::Stores;

/// What a registry stands on.
pub struct Setup {
    /// The store that plugins are granted parts of, and that keeps their versions.
    pub store: Store,
    /// The data directory; compiled code is kept in `compiled/` under it.
    pub data_dir: PathBuf,
    /// The server's secret, under which compiled code is signed.
    pub secret: Arc<[u8]>,
    /// What manifests can grant, by name.
    pub stores: Stores,
    /// The chain that the plugins with an admission hook are installed in.
    pub admissions: Admissions,
    /// The time of day, in milliseconds.
    pub clock: Clock,
    /// Bytes of events that may wait for ingestion.
    pub event_queue_bytes: u64,
    /// Plugins that do not serve, by name, though they are shipped or were pushed.
    pub disabled: Vec<String>,
}

/// Every plugin by name, each with the generation that serves. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {}

/// A version that serves now.
#[derive(Clone, Debug, Serialize)]
pub struct Pushed {
    /// The plugin's name.
    pub name: String,
    /// Number of this generation; grows with every push and rollback of any plugin.
    pub generation: u64,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
}

/// Why a push or rollback changed nothing. What served before serves on.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The component is larger than the host takes.
    #[error("the component has {size} bytes, more than {limit}")]
    TooLarge {
        /// Bytes sent.
        size: usize,
        /// Bytes taken.
        limit: usize,
    },
    /// The name is no plugin name, or not the manifest's.
    #[error("bad plugin name: {0}")]
    Name(String),
    /// The manifest is missing or wrong.
    #[error("bad manifest: {0}")]
    Manifest(String),
    /// The bytes are no component, or one that this host cannot run: wrong imports, grants or exports.
    #[error("not a plugin this host can run: {0}")]
    Component(String),
    /// It could not be instantiated, or its `init` failed, trapped or took too long.
    #[error("the new version did not start: {0}")]
    Start(String),
    /// There is no plugin of this name.
    #[error("there is no plugin {0:?}")]
    NoSuchPlugin(String),
    /// There is no such version to go back to, or the prefix fits several.
    #[error("{0}")]
    NoSuchVersion(String),
    /// The store did not answer; try again.
    #[error("the store cannot keep the version: {0}")]
    Unavailable(String),
}

/// A plugin as `list` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct PluginInfo {
    /// The plugin's name.
    pub name: String,
    /// The manifest's version.
    pub version: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// The generation that serves.
    pub generation: u64,
    /// The hooks it exports, such as `admission`.
    pub hooks: Vec<String>,
    /// `watched` while its first calls are watched, then `serving`.
    pub state: &'static str,
    /// Calls of this generation.
    pub calls: u64,
    /// Calls of this generation that trapped or overran.
    pub traps: u64,
    /// Place in the admission chain, low first.
    pub order: i64,
    /// Milliseconds since 1970, UTC, when it was pushed.
    pub pushed_ms: u64,
    /// Who pushed it.
    pub pushed_by: String,
    /// Its generations, newest first; only the last few.
    pub generations: Vec<GenerationInfo>,
}

/// One generation as the versions table has it.
#[derive(Clone, Debug, Serialize)]
pub struct GenerationInfo {
    /// Its number.
    pub generation: u64,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// Milliseconds since 1970, UTC.
    pub pushed_ms: u64,
    /// Who pushed it.
    pub pushed_by: String,
    /// `serving`, `superseded` or `rolled-back`.
    pub state: String,
    /// Why it was rolled back.
    pub reason: Option<String>,
}

impl Registry {
    /// Loads what served last, or on a fresh data directory the plugins shipped with this binary.
    pub async fn start(setup: Setup) -> anyhow::Result<Registry> {
        drop(setup);
        todo!("registry")
    }

    /// Where the gateway records requests for the ingestion hook.
    pub fn events(&self) -> EventQueue {
        todo!("registry")
    }

    /// Makes a new version serve, and returns when it does. Without a manifest the present grants stay.
    pub async fn push(
        &self,
        name: &str,
        wasm: Vec<u8>,
        manifest: Option<String>,
        pushed_by: &str,
    ) -> Result<Pushed, Refusal> {
        let _ = (name, wasm, manifest, pushed_by, &self.inner);
        todo!("registry")
    }

    /// Brings back an earlier version: the one whose digest starts with `to`, else the one that served before.
    pub async fn rollback(&self, name: &str, to: Option<&str>, pushed_by: &str) -> Result<Pushed, Refusal> {
        let _ = (name, to, pushed_by);
        todo!("registry")
    }

    /// All plugins, by order and name.
    pub async fn list(&self) -> Result<Vec<PluginInfo>, Refusal> {
        todo!("registry")
    }

    /// Runs a job now, outside its schedule, and returns its summary.
    pub async fn run_job(
        &self,
        plugin: &str,
        job: &str,
    ) -> Result<super::jobs::Report, super::jobs::JobError> {
        let _ = (plugin, job);
        todo!("registry")
    }

    /// Ends jobs, hands queued events to ingestion within a bound, and lets calls in flight end.
    pub async fn shutdown(&self) {
        todo!("registry")
    }
}
