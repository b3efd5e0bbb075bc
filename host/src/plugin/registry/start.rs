//! What serves after a start: what served last, and what the binary brings.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::own::OwnChanges;
use super::{Entrance, Inner, Plugins, Registry, Setup};
use crate::plugin::background::Background;
use crate::plugin::compiled::Compiled;
use crate::plugin::ingest::Ingestion;
use crate::plugin::jobs::Jobs;
use crate::plugin::limits::READ_GENERATIONS;
use crate::plugin::rollout::{Loader, Refusal};
use crate::plugin::shipped::{PUSHED_BY, SHIPPED, Shipped};
use crate::plugin::signature::Trust;
use crate::plugin::versions::{Replaced, State, Version, Versions};
use crate::plugin::{Engine, Manifest, Mounts};

impl Registry {
    /// Loads what served last, and what this binary ships and no operator has replaced.
    ///
    /// A plugin that cannot be loaded any more gives way to its next older version; where none loads the start fails,
    /// since a gateway without one of its policies would admit what it must not.
    pub async fn start(setup: Setup) -> anyhow::Result<Registry> {
        Registry::start_with(setup, SHIPPED).await
    }

    pub(super) async fn start_with(setup: Setup, shipped: &[Shipped]) -> anyhow::Result<Registry> {
        let engine = Engine::new()?;
        let directory = setup.data_dir.join("compiled");
        let compiled = Compiled::open(&directory, &setup.secret, setup.compiler, &engine);
        let compiled = compiled.context("cannot open the compiled code")?;
        let database = setup.store.database("gateway").context("cannot open database gateway")?;
        let versions = Versions::open(&setup.store, database.clone(), setup.keep_versions).await;
        let versions = versions.context("cannot open the plugins' versions")?;
        let plugins = Arc::new(Plugins::default());
        let (clock, sink) = (setup.clock.clone(), plugins.clone());
        let events =
            setup.store.queue("events", setup.event_queue_bytes).context("cannot open queue events")?;
        let background = Background::start().context("cannot start the background thread")?;
        let ingestion =
            Ingestion::start(background.handle(), setup.store, database, events, sink, clock.clone()).await?;
        let inner = Arc::new(Inner {
            last_generation: AtomicU64::new(versions.last_generation().await?),
            own_changes: OwnChanges::default(),
            versions,
            loader: Loader {
                engine,
                compiled,
                stores: setup.stores,
                trust: Trust::new(setup.trusted_keys, shipped),
            },
            admissions: setup.admissions,
            plugins,
            jobs: Jobs::new(background.handle().clone(), clock.clone()),
            ingestion,
            background,
            disabled: setup.disabled,
            turns: Mutex::default(),
            mounts: Mounts::default(),
            clock,
        });
        inner.bring_back(shipped).await?;
        for shipped in shipped {
            inner.bring_shipped(shipped).await?;
        }
        inner.plugins.complete.cancel();
        Ok(Registry { inner })
    }
}

impl Inner {
    async fn bring_back(self: &Arc<Self>, shipped: &[Shipped]) -> anyhow::Result<()> {
        let ships = |name: &str| shipped.iter().any(|shipped| shipped.is(name));
        for version in self.versions.serving().await? {
            if self.disabled.contains(&version.name) {
                continue;
            }
            match self.load(&version).await {
                Ok(loaded) => self.swap(version, loaded),
                // Nothing is wrong with the version: the next start may have it.
                Err(error @ Refusal::Unavailable(_)) => {
                    return Err(error).with_context(|| format!("cannot start plugin {:?}", version.name));
                }
                Err(Refusal::Untrusted(_)) if ships(&version.name) && self.was_shipped(&version).await? => {
                    let (plugin, generation) = (version.name, version.generation);
                    tracing::warn!(
                        plugin,
                        generation,
                        "an earlier binary brought it and nobody has signed it: this one's takes its place"
                    );
                }
                Err(error) => self.bring_older(&version, error).await?,
            }
        }
        Ok(())
    }

    /// Whether an earlier binary brought its component, whoever has configured or rolled back to it since.
    async fn was_shipped(&self, version: &Version) -> anyhow::Result<bool> {
        let history = self.versions.history(&version.name, READ_GENERATIONS).await?;
        Ok(history.iter().any(|other| other.digest == version.digest && other.pushed_by == PUSHED_BY))
    }

    async fn bring_older(self: &Arc<Self>, bad: &Version, refusal: Refusal) -> anyhow::Result<()> {
        tracing::error!(plugin = bad.name, generation = bad.generation, %refusal, "cannot load what served last");
        let history = self.versions.history(&bad.name, READ_GENERATIONS).await?;
        let older = history.into_iter().filter(|version| {
            version.generation < bad.generation
                && version.state == State::Superseded
                && version.digest != bad.digest
        });
        for version in older {
            let Ok(loaded) = self.load(&version).await else { continue };
            self.versions
                .take_back(bad, version.generation, &format!("could not be loaded: {refusal}"))
                .await?;
            tracing::error!(
                plugin = version.name,
                generation = version.generation,
                "an older version serves"
            );
            self.swap(version, loaded);
            return Ok(());
        }
        Err(refusal).with_context(|| format!("no version of plugin {:?} can be loaded", bad.name))
    }

    /// Brings in what the binary ships, unless an operator's version stands there, or this one failed before.
    async fn bring_shipped(self: &Arc<Self>, shipped: &Shipped) -> anyhow::Result<()> {
        let name = Manifest::parse(shipped.manifest).context("a shipped manifest is wrong")?.name;
        if self.disabled.contains(&name) {
            return Ok(());
        }
        let digest = hex::encode(Sha256::digest(shipped.wasm));
        let is_this = |version: &Version| version.digest == digest && version.manifest == shipped.manifest;
        let present = self.plugins.version(&name);
        if present.as_ref().is_some_and(|present| present.pushed_by != PUSHED_BY || is_this(present)) {
            return Ok(());
        }
        let history = self.versions.history(&name, READ_GENERATIONS).await?;
        // What an operator has tried may only have been interrupted: a canary stands as taken back until its promotion.
        let failed = |version: &Version| {
            is_this(version) && version.pushed_by == PUSHED_BY && version.state == State::RolledBack
        };
        if present.is_some() && history.iter().any(failed) {
            tracing::warn!(
                plugin = name,
                digest,
                "the shipped version was rolled back before, the present one serves on"
            );
            return Ok(());
        }
        let entered = self.enter_shipped(&name, digest.clone(), shipped).await;
        match entered {
            Ok(()) => Ok(()),
            Err(error) if present.is_some() => {
                tracing::error!(plugin = name, %error, "the shipped version is refused, the present one serves on");
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("the shipped plugin {name:?} is refused")),
        }
    }

    async fn enter_shipped(
        self: &Arc<Self>,
        name: &str,
        digest: String,
        shipped: &Shipped,
    ) -> Result<(), Refusal> {
        let version = self.new_version(name, digest, shipped.manifest.to_owned(), PUSHED_BY);
        let loaded = self.loader.load(&version, shipped.wasm.into()).await?;
        self.versions.keep_component(&version.digest, shipped.wasm).await?;
        let entrance = Entrance { init: true, canary: false, replaced: Replaced::Superseded };
        self.enter(version, loaded, entrance).await.map(drop)
    }
}
