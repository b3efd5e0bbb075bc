//! The plugins this host runs: pushed, listed, rolled back, and started again after a restart.

mod canary;
mod configure;
mod info;
mod own;
mod serving;
mod start;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio_util::task::AbortOnDropHandle;
use tollgate_store::{Clock, Store};

pub use self::canary::{CanaryInfo, Trial};
pub use self::configure::Settings;
pub use self::info::{PluginInfo, Pushed};
use self::info::{Shown, info};
use self::own::OwnChanges;
use self::serving::{Plugins, Serving};
use super::background::Background;
use super::ingest::{EventQueue, Ingestion};
use super::jobs::{JobError, Jobs, Report};
use super::limits::{
    INGEST_FLUSH, LISTED_GENERATIONS, LOG_WAIT, READ_GENERATIONS, ROLLBACK_PAUSE_MAX, ROLLBACK_PAUSE_MIN,
    WATCH,
};
pub use super::rollout::Refusal;
use super::rollout::{self, Loaded, Loader};
use super::versions::{Replaced, State, Version, Versions};
use super::{ActivePlugin, Admissions, Compiler, Counters, Generation, Lines, Mounts, PublicKey, watch};
use crate::capability::Stores;

/// What a registry stands on.
pub struct Setup {
    /// Versions and dead letters are kept in its database `gateway`, events in its queue `events`.
    pub store: Store,
    /// The data directory; compiled code is kept in `compiled/` under it.
    pub data_dir: PathBuf,
    /// The server's secret, under which compiled code is signed.
    pub secret: Arc<[u8]>,
    /// Where components are compiled.
    pub compiler: Compiler,
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
    /// Versions of each plugin that are kept.
    pub keep_versions: u32,
    /// Whose signature a component needs; empty: none is needed.
    pub trusted_keys: Vec<PublicKey>,
}

/// Every plugin by name, each with the generation that serves. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    versions: Versions,
    loader: Loader,
    admissions: Admissions,
    plugins: Arc<Plugins>,
    jobs: Jobs,
    ingestion: Ingestion,
    /// Where ingestion and jobs run. After them: dropped with the rest, it ends when they have been told to.
    background: Background,
    disabled: Vec<String>,
    last_generation: AtomicU64,
    own_changes: OwnChanges,
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    mounts: Mounts,
}

/// What is pushed.
pub struct Push {
    /// The component.
    pub wasm: Vec<u8>,
    /// The text of its `plugin.toml`; none: the present one stays.
    pub manifest: Option<String>,
    /// Whether the manifest may grant more than the present one. That of a new plugin may in any case.
    pub may_grant: bool,
    /// How it is tried; none: it serves at once.
    pub trial: Option<Trial>,
}

/// How a new generation is brought to serve.
struct Entrance<'a> {
    init: bool,
    canary: bool,
    replaced: Replaced<'a>,
}

impl Registry {
    /// The admission chain over these plugins; it follows every push.
    pub fn admissions(&self) -> Admissions {
        self.inner.admissions.clone()
    }

    /// The routes under which these plugins answer; they follow every push.
    pub fn mounts(&self) -> Mounts {
        self.inner.mounts.clone()
    }

    /// Where the gateway records requests for the ingestion hook.
    pub fn events(&self) -> EventQueue {
        self.inner.ingestion.events()
    }

    /// Makes a new version serve, and returns when it does. Without a manifest the present grants stay. Goes on when the
    /// caller is dropped.
    pub async fn push(
        &self,
        name: &str,
        wasm: Vec<u8>,
        manifest: Option<String>,
        pushed_by: &str,
    ) -> Result<Pushed, Refusal> {
        self.push_as(name, Push { wasm, manifest, may_grant: true, trial: None }, pushed_by).await
    }

    /// Makes a new version serve, or answer a share of the requests, and returns when it does. Goes on when the caller is dropped.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with it, see [`Refusal`]; what served serves on.
    pub async fn push_as(&self, name: &str, push: Push, pushed_by: &str) -> Result<Pushed, Refusal> {
        let (registry, name, pushed_by) = (self.clone(), name.to_owned(), pushed_by.to_owned());
        let push = async move {
            let _turn = registry.inner.turn(&name).lock_owned().await;
            let result = match push.trial {
                Some(trial) => registry.inner.push_canary(&name, push, trial, &pushed_by).await,
                None => registry.inner.push(&name, push, &pushed_by).await,
            };
            log("push", &name, &result);
            result
        };
        tokio::spawn(push).await.unwrap_or_else(|error| Err(Refusal::Unavailable(error.to_string())))
    }

    /// Brings back an earlier version: the one whose digest starts with `to`, else the one that served before. Goes on
    /// when the caller is dropped.
    pub async fn rollback(&self, name: &str, to: Option<&str>, pushed_by: &str) -> Result<Pushed, Refusal> {
        let (registry, name, pushed_by) = (self.clone(), name.to_owned(), pushed_by.to_owned());
        let to = to.map(str::to_lowercase);
        let rollback = async move {
            let _turn = registry.inner.turn(&name).lock_owned().await;
            let result = registry.inner.roll_back(&name, to.as_deref(), &pushed_by).await;
            log("rollback", &name, &result);
            result
        };
        tokio::spawn(rollback).await.unwrap_or_else(|error| Err(Refusal::Unavailable(error.to_string())))
    }

    /// All plugins, by place in the chain and name.
    pub async fn list(&self) -> Result<Vec<PluginInfo>, Refusal> {
        let serving = self.inner.plugins.all();
        let mut infos = Vec::with_capacity(serving.len());
        for shown in serving {
            infos.push(self.inner.info(shown, LISTED_GENERATIONS).await?);
        }
        infos.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        Ok(infos)
    }

    /// One of them.
    pub async fn plugin(&self, name: &str) -> Result<PluginInfo, Refusal> {
        let serving = self.inner.plugins.all();
        let found = serving.into_iter().find(|shown| shown.version.name == name);
        self.inner.info(found.ok_or_else(|| Refusal::NoSuchPlugin(name.to_owned()))?, READ_GENERATIONS).await
    }

    /// The text of the manifest that a plugin serves with.
    pub fn manifest(&self, name: &str) -> Option<String> {
        self.inner.plugins.version(name).map(|version| version.manifest.clone())
    }

    /// What a plugin said after line `after`; where there is nothing yet, once it says something or `wait` is over.
    pub async fn logs(&self, name: &str, after: u64, wait: Duration) -> Result<Lines, Refusal> {
        let plugin = self.inner.plugins.plugin(name).ok_or_else(|| Refusal::NoSuchPlugin(name.to_owned()))?;
        let ring = self.inner.loader.engine.logs().of(plugin.current().name());
        Ok(ring.wait_after(after, wait.min(LOG_WAIT)).await)
    }

    /// Runs a job now, outside its schedule.
    pub async fn run_job(&self, plugin: &str, job: &str) -> Result<Report, JobError> {
        match self.inner.plugins.plugin(plugin) {
            Some(active) => self.inner.jobs.run_now(&active, job).await,
            None => Err(JobError::NoSuchJob { plugin: plugin.to_owned(), job: job.to_owned() }),
        }
    }

    /// For the end, after the chain's own: gives queued events to ingestion within a bound, ends jobs.
    pub async fn shutdown(&self) {
        if !self.inner.ingestion.flush(INGEST_FLUSH).await {
            tracing::warn!("events are left in the queue for the next start");
        }
        self.inner.ingestion.stop().await;
        self.inner.jobs.stop().await;
        self.inner.background.stop().await;
    }
}

impl Inner {
    async fn push(self: &Arc<Self>, name: &str, push: Push, pushed_by: &str) -> Result<Pushed, Refusal> {
        let (version, loaded) = self.prepare(name, push, pushed_by).await?;
        self.end_canary(name, None, &format!("{pushed_by} pushed another version")).await;
        let entrance = Entrance { init: true, canary: true, replaced: Replaced::Superseded };
        self.enter(version, loaded, entrance).await
    }

    /// Takes in a component that was sent: it is loaded and kept, and nothing calls it yet.
    async fn prepare(
        &self,
        name: &str,
        Push { wasm, manifest, may_grant, .. }: Push,
        pushed_by: &str,
    ) -> Result<(Version, Loaded), Refusal> {
        if self.disabled.iter().any(|disabled| disabled == name) {
            return Err(Refusal::Name(format!("{name:?} is disabled in the configuration")));
        }
        let present = self.plugins.version(name);
        let manifest = match (manifest, &present) {
            (Some(manifest), _) => manifest,
            (None, Some(present)) => present.manifest.clone(),
            (None, None) => return Err(Refusal::Manifest(format!("{name:?} is new, so it needs one"))),
        };
        let grants = rollout::read_manifest(name, &manifest)?.grants;
        if let Some(present) = present.filter(|_| !may_grant) {
            let more = grants.beyond(&rollout::read_manifest(name, &present.manifest)?.grants);
            if !more.is_empty() {
                return Err(Refusal::Grants(more));
            }
        }
        super::component::check_bytes(&wasm)?;
        let wasm: Arc<[u8]> = wasm.into();
        let version = self.new_version(name, hex::encode(Sha256::digest(&wasm)), manifest, pushed_by);
        let loaded = self.loader.load(&version, wasm.clone()).await?;
        self.plugins.check_events(&loaded.generation)?;
        self.versions.keep_component(&version.digest, &wasm).await?;
        Ok((version, loaded))
    }

    async fn roll_back(
        self: &Arc<Self>,
        name: &str,
        to: Option<&str>,
        pushed_by: &str,
    ) -> Result<Pushed, Refusal> {
        let present = self.plugins.version(name).ok_or_else(|| Refusal::NoSuchPlugin(name.to_owned()))?;
        let ended = self.end_canary(name, None, &format!("rolled back by {pushed_by}")).await;
        if ended && to.is_none() {
            // What was pushed last is undone.
            let (generation, digest) = (present.generation, present.digest.clone());
            return Ok(Pushed { name: name.to_owned(), generation, digest, canary: None });
        }
        let history = self.versions.history(name, READ_GENERATIONS).await?;
        let target = match to {
            Some(prefix) => with_digest(&history, prefix)?,
            None => before(&history, &present)
                .ok_or_else(|| Refusal::NoSuchVersion(format!("{name:?} has no earlier version")))?,
        };
        let (digest, manifest) = (target.digest.clone(), target.manifest.clone());
        let version = self.new_version(name, digest, manifest, pushed_by);
        let loaded = self.load(&version).await?;
        let reason = format!("rolled back by {pushed_by}");
        // Its `init` ran when it was new, and who rolls back is in a hurry.
        let entrance =
            Entrance { init: false, canary: false, replaced: Replaced::RolledBack { reason: &reason } };
        self.enter(version, loaded, entrance).await
    }

    /// Takes back generation `bad` of itself, so that the version before it serves again.
    async fn take_back(self: &Arc<Self>, name: &str, bad: u64, reason: &str) -> Result<(), Refusal> {
        let _turn = self.turn(name).lock_owned().await;
        let Some(present) = self.plugins.version(name).filter(|version| version.generation == bad) else {
            return Ok(());
        };
        self.end_canary(name, None, "the version beside it is rolled back").await;
        let history = self.versions.history(name, READ_GENERATIONS).await?;
        let Some((good, loaded)) = self.newest_that_loads(older(&history, &present)).await? else {
            tracing::error!(
                plugin = name,
                generation = bad,
                reason,
                "there is no earlier version to roll back to"
            );
            return Ok(());
        };
        self.versions.take_back(&present, good.generation, reason).await?;
        tracing::error!(plugin = name, generation = bad, to = good.generation, reason, "rolled back");
        metrics::counter!("tollgate_plugin_rollbacks_total", "plugin" => name.to_owned()).increment(1);
        self.own_changes.note("plugin rollback", name);
        self.swap(Version { state: State::Serving, ..good.clone() }, loaded);
        Ok(())
    }

    /// The first of these versions that can be loaded, and none if there are none; the error is the last one's.
    async fn newest_that_loads<'a>(
        &self,
        versions: impl Iterator<Item = &'a Version> + Send,
    ) -> Result<Option<(&'a Version, Loaded)>, Refusal> {
        let mut refusal = None;
        for version in versions {
            match self.load(version).await {
                Ok(loaded) => return Ok(Some((version, loaded))),
                Err(error) => {
                    let (plugin, generation) = (&version.name, version.generation);
                    tracing::error!(plugin, generation, %error, "cannot load an earlier version");
                    refusal = Some(error);
                }
            }
        }
        refusal.map_or(Ok(None), Err)
    }

    async fn load(&self, version: &Version) -> Result<Loaded, Refusal> {
        let wasm = self.versions.component(&version.digest).await?;
        self.loader.load(version, wasm.into()).await
    }

    /// Brings a loaded version to serve. It is durable before the pointer is swapped.
    async fn enter(
        self: &Arc<Self>,
        version: Version,
        loaded: Loaded,
        entrance: Entrance<'_>,
    ) -> Result<Pushed, Refusal> {
        self.plugins.check_route(&loaded.generation)?;
        if entrance.init {
            rollout::init(&loaded.generation).await?;
        }
        let present = self.plugins.plugin(&version.name);
        if let Some(plugin) = present.as_ref().filter(|_| entrance.canary) {
            rollout::canary(plugin, &loaded.generation).await?;
        }
        if let Err(error) = self.versions.record(&version, entrance.replaced).await {
            if let Some(plugin) = present {
                plugin.abandon();
            }
            return Err(error.into());
        }
        let pushed = Pushed {
            name: version.name.clone(),
            generation: version.generation,
            digest: version.digest.clone(),
            canary: None,
        };
        self.swap(version, loaded);
        Ok(pushed)
    }

    /// The generation serves from here on; calls in flight end on the old one, which goes away with the last of them.
    fn swap(self: &Arc<Self>, version: Version, loaded: Loaded) {
        let Loaded { generation, schedule } = loaded;
        let version = Arc::new(version);
        let plugin = match self.plugins.plugin(&version.name) {
            Some(plugin) => {
                plugin.promote(generation.clone());
                plugin
            }
            None => ActivePlugin::new(generation.clone()),
        };
        self.jobs.follow(&plugin, schedule);
        let watch = self.watch(&version, generation);
        self.show_share(&version.name, 0.0);
        let serving = Serving { plugin, version: version.clone(), watch, canary: None };
        metrics::gauge!("tollgate_plugin_generation", "plugin" => version.name.clone())
            .set(u32::try_from(version.generation).unwrap_or(u32::MAX));
        self.plugins.by_name.write().insert(version.name.clone(), serving);
        self.install();
    }

    async fn info(&self, shown: Shown, generations: u32) -> Result<PluginInfo, Refusal> {
        let name = &shown.version.name;
        let mut generations = self.versions.history(name, generations).await?;
        self.mark_canary(name, &mut generations);
        Ok(info(shown, generations))
    }

    /// Tells the admission chain and the routes what there is now.
    fn install(&self) {
        let plugins = self.plugins.by_name.read();
        self.mounts.install(plugins.values().map(|serving| &serving.plugin));
        self.admissions.install(plugins.values().map(|serving| serving.plugin.clone()).collect());
    }

    fn watch(
        self: &Arc<Self>,
        version: &Arc<Version>,
        generation: Arc<Generation>,
    ) -> Option<AbortOnDropHandle<()>> {
        let age = Duration::from_millis((self.clock)().saturating_sub(version.pushed_ms));
        let left = WATCH.checked_sub(age)?;
        // Now and not when the task first runs: it serves already.
        let before = generation.counters();
        let watch = watch_one(Arc::downgrade(self), version.clone(), generation, before, left);
        Some(AbortOnDropHandle::new(tokio::spawn(watch)))
    }

    fn new_version(&self, name: &str, digest: String, manifest: String, pushed_by: &str) -> Version {
        Version {
            generation: self.last_generation.fetch_add(1, Ordering::Relaxed) + 1,
            name: name.to_owned(),
            digest,
            manifest,
            pushed_ms: (self.clock)(),
            pushed_by: pushed_by.to_owned(),
            state: State::Serving,
            reason: None,
        }
    }

    /// One push or rollback of a plugin at a time.
    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(name.to_owned()).or_default().clone()
    }
}

/// Rolls back when a burst of traps comes. The task that rolls back is another: this one ends with its generation. It tries
/// until it has, or the version no longer serves.
async fn watch_one(
    inner: Weak<Inner>,
    version: Arc<Version>,
    generation: Arc<Generation>,
    before: Counters,
    within: Duration,
) {
    let Some(reason) = watch::burst(&generation, before, within).await else { return };
    drop(generation);
    tokio::spawn(async move {
        let mut pause = ROLLBACK_PAUSE_MIN;
        while let Some(inner) = inner.upgrade() {
            let Err(error) = inner.take_back(&version.name, version.generation, &reason).await else {
                return;
            };
            tracing::error!(plugin = version.name, %error, reason, "cannot roll back yet");
            // A server that stops does not wait for the next attempt.
            drop(inner);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ROLLBACK_PAUSE_MAX);
        }
    });
}

/// The newest version whose digest starts with `prefix`. One that was rolled back, as any canary that was not promoted, only
/// where there is no other: its manifest may grant what was not to stay granted.
fn with_digest<'a>(history: &'a [Version], prefix: &str) -> Result<&'a Version, Refusal> {
    let refusal =
        |found: &str| Refusal::NoSuchVersion(format!("{found} a digest that starts with {prefix:?}"));
    let found = || history.iter().filter(|version| version.digest.starts_with(prefix));
    let stayed = found().find(|version| version.state != State::RolledBack);
    let newest = stayed.or_else(|| found().next()).ok_or_else(|| refusal("no version kept has"))?;
    if found().any(|other| other.digest != newest.digest) {
        return Err(refusal("several versions have"));
    }
    Ok(newest)
}

/// The version that served before `present` and is not the same again. One that was rolled back does not come back.
fn before<'a>(history: &'a [Version], present: &Version) -> Option<&'a Version> {
    older(history, present).next()
}

/// All such versions, newest first.
fn older<'a>(history: &'a [Version], present: &Version) -> impl Iterator<Item = &'a Version> {
    history.iter().filter(|version| {
        version.generation < present.generation
            && version.state == State::Superseded
            && (&version.digest, &version.manifest) != (&present.digest, &present.manifest)
    })
}

fn log(what: &str, name: &str, result: &Result<Pushed, Refusal>) {
    match result {
        Ok(Pushed { generation, digest, canary: None, .. }) => {
            tracing::info!(plugin = name, generation, digest, "{what} serves")
        }
        Ok(Pushed { generation, digest, canary: Some(share), .. }) => {
            tracing::info!(plugin = name, generation, digest, %share, "{what} begins")
        }
        Err(reason) => tracing::warn!(plugin = name, %reason, "{what} refused"),
    }
}

#[cfg(test)]
mod tests;
