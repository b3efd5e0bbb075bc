//! Versions that answer a share of the requests before they serve.
//!
//! A canary stands in the versions as one that was taken back, until it is promoted: so a server that ends in any way begins
//! again with the version before.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use utoipa::ToSchema;

use super::{Inner, Push, Pushed, Refusal, Registry, log};
use crate::plugin::limits::{
    CANARY_FOR_MOST, CANARY_LOOK, CANARY_PROMOTE_CALLS, ROLLBACK_PAUSE_MAX, ROLLBACK_PAUSE_MIN,
};
use crate::plugin::rollout::{self, Loaded};
use crate::plugin::versions::{Replaced, State, Version};
use crate::plugin::{Canary, Sample, Share};

/// How a new version is tried.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// What it answers.
    pub share: Share,
    /// After so long without being worse than the version before it serves by itself; none: it waits for `promote`.
    pub promote_after: Option<Duration>,
}

/// A canary as `inspect` shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = PluginCanary)]
pub struct CanaryInfo {
    /// Its generation.
    pub generation: u64,
    /// SHA-256 of its component, in hexadecimal.
    pub digest: String,
    /// The share of the requests that it answers.
    #[schema(value_type = String)]
    pub share: Share,
    /// Milliseconds since 1970, UTC, when it began.
    pub began_ms: u64,
    /// Milliseconds after which it serves by itself.
    pub promote_after_ms: Option<u64>,
    /// What it did so far.
    pub new: Sample,
    /// What the version that serves did meanwhile.
    pub old: Sample,
}

/// A canary that runs.
pub(super) struct Running {
    version: Arc<Version>,
    loaded: Loaded,
    canary: Arc<Canary>,
    trial: Trial,
    /// Ends it, one way or the other. It goes away with this.
    _watch: AbortOnDropHandle<()>,
}

impl Running {
    pub(super) fn info(&self) -> CanaryInfo {
        let (new, old) = self.canary.samples();
        let after = self.trial.promote_after;
        CanaryInfo {
            generation: self.version.generation,
            digest: self.version.digest.clone(),
            share: self.trial.share,
            began_ms: self.version.pushed_ms,
            promote_after_ms: after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            new,
            old,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.version.generation
    }
}

impl Registry {
    /// Makes a canary the version that serves. Goes on when the caller is dropped.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchVersion`] when none runs. [`Refusal::Route`] and [`Refusal::Ingesting`] when another plugin has its place by
    /// now, [`Refusal::Unavailable`] when the store does not answer; then it runs on.
    pub async fn promote(&self, name: &str) -> Result<Pushed, Refusal> {
        let (registry, name) = (self.clone(), name.to_owned());
        let promote = async move {
            let _turn = registry.inner.turn(&name).lock_owned().await;
            registry.inner.promote(&name, None).await
        };
        tokio::spawn(promote).await.unwrap_or_else(|error| Err(Refusal::Unavailable(error.to_string())))
    }
}

impl Inner {
    /// Lets a new version answer a share of the requests. It is taken back by itself when it traps, fails or is slower than the
    /// version before. To be called in the plugin's turn.
    pub(super) async fn push_canary(
        self: &Arc<Self>,
        name: &str,
        push: Push,
        trial: Trial,
        pushed_by: &str,
    ) -> Result<Pushed, Refusal> {
        if trial.promote_after.is_some_and(|after| after.is_zero() || after > CANARY_FOR_MOST) {
            let most = CANARY_FOR_MOST.as_secs() / 86_400;
            return Err(Refusal::Canary(format!(
                "it can be promoted after a time from a second to {most} days"
            )));
        }
        let Some(plugin) = self.plugins.plugin(name) else {
            return Err(Refusal::Canary(format!("{name:?} is new: there is no version to stand by")));
        };
        let (version, loaded) = self.prepare(name, push, pushed_by).await?;
        if !(loaded.generation.hooks().admission && plugin.current().hooks().admission) {
            return Err(Refusal::Canary(format!("only policies can: {name:?} has no admissions to share")));
        }
        self.plugins.check_route(&loaded.generation)?;
        rollout::init(&loaded.generation).await?;
        let share = trial.share;
        self.versions.record_canary(&version, &format!("a canary of {share} that was not promoted")).await?;
        let version = Arc::new(version);
        let canary = plugin.start_share(loaded.generation.clone(), share);
        let watch = watch(Arc::downgrade(self), version.clone(), canary.clone(), trial);
        let _watch = AbortOnDropHandle::new(tokio::spawn(watch));
        let running = Running { version: version.clone(), loaded, canary, trial, _watch };
        self.show_share(name, share.ratio());
        // A canary of before has ended with the start of this one, and its row says so already.
        if let Some(serving) = self.plugins.by_name.write().get_mut(name) {
            serving.canary = Some(running);
        }
        let (generation, digest) = (version.generation, version.digest.clone());
        Ok(Pushed { name: name.to_owned(), generation, digest, canary: Some(share) })
    }

    /// Makes the canary serve; with a number only if it is of that generation. A refusal leaves it running. To be called in the
    /// plugin's turn, without which nobody ends it.
    async fn promote(self: &Arc<Self>, name: &str, only: Option<u64>) -> Result<Pushed, Refusal> {
        let (version, loaded) = self.running(name, only)?;
        // Other plugins may have come since it began.
        self.plugins.check_route(&loaded.generation)?;
        self.plugins.check_events(&loaded.generation)?;
        // It is watched for a burst of traps from here on, with all of the requests.
        let version = Version { pushed_ms: (self.clock)(), ..(*version).clone() };
        self.versions.record(&version, Replaced::Superseded).await?;
        let (generation, digest) = (version.generation, version.digest.clone());
        let pushed = Pushed { name: name.to_owned(), generation, digest, canary: None };
        self.swap(version, loaded);
        let result = Ok(pushed);
        log("canary", name, &result);
        result
    }

    /// The canary that runs; with a number only if it is of that generation.
    fn running(&self, name: &str, only: Option<u64>) -> Result<(Arc<Version>, Loaded), Refusal> {
        let plugins = self.plugins.by_name.read();
        let serving = plugins.get(name).ok_or_else(|| Refusal::NoSuchPlugin(name.to_owned()))?;
        let running = serving.canary.as_ref();
        let running = running.filter(|running| only.is_none_or(|only| running.generation() == only));
        let running = running.ok_or_else(|| Refusal::NoSuchVersion(format!("{name:?} has no canary")))?;
        Ok((running.version.clone(), running.loaded.clone()))
    }

    /// Takes a canary back; with a number only if it is of that generation. False: none runs. To be called in the plugin's turn.
    pub(super) async fn end_canary(&self, name: &str, only: Option<u64>, reason: &str) -> bool {
        let Some(running) = self.plugins.by_name.write().get_mut(name).and_then(|serving| {
            let running =
                serving.canary.take_if(|running| only.is_none_or(|only| running.generation() == only))?;
            serving.plugin.abandon();
            Some(running)
        }) else {
            return false;
        };
        self.show_share(name, 0.0);
        let generation = running.generation();
        tracing::warn!(plugin = name, generation, reason, "the canary is taken back");
        // Without the reason the row still says that it was not promoted.
        if let Err(error) = self.versions.explain(generation, reason).await {
            tracing::warn!(plugin = name, generation, %error, "cannot write down why the canary was taken back");
        }
        true
    }

    /// What a share's end means for the metrics; a swap ends one too.
    pub(super) fn show_share(&self, name: &str, ratio: f64) {
        metrics::gauge!("tollgate_plugin_canary_share", "plugin" => name.to_owned()).set(ratio);
    }

    /// Shows the canary that runs as one in the history.
    pub(super) fn mark_canary(&self, name: &str, generations: &mut [Version]) {
        let plugins = self.plugins.by_name.read();
        let canary = plugins.get(name).and_then(|serving| serving.canary.as_ref()).map(Running::generation);
        for version in generations.iter_mut().filter(|version| Some(version.generation) == canary) {
            (version.state, version.reason) = (State::Canary, None);
        }
    }
}

/// Ends a canary when it fails or is worse than the version before, or when its time is over. What it decides is done by another
/// task, since this one ends with the canary. One that cannot be promoted is watched on and tried again.
async fn watch(inner: Weak<Inner>, version: Arc<Version>, canary: Arc<Canary>, trial: Trial) {
    let (mut since, mut wait) = (Instant::now(), trial.promote_after);
    let mut pause = ROLLBACK_PAUSE_MIN;
    loop {
        canary.ended(CANARY_LOOK).await;
        let is_over = wait.is_some_and(|wait| since.elapsed() >= wait);
        let may_serve = is_over && canary.samples().0.calls >= CANARY_PROMOTE_CALLS;
        if canary.fault().is_none() && !may_serve {
            continue;
        }
        let concluded = tokio::spawn(conclude(inner.clone(), version.clone(), canary.clone())).await;
        let Ok(Err(error)) = concluded else { return };
        let (plugin, generation) = (&version.name, version.generation);
        tracing::error!(plugin, generation, %error, "the canary cannot be promoted by itself yet");
        (since, wait) = (Instant::now(), Some(pause));
        pause = (pause * 2).min(ROLLBACK_PAUSE_MAX);
    }
}

/// Takes a canary back that must not serve, and else promotes it.
async fn conclude(inner: Weak<Inner>, version: Arc<Version>, canary: Arc<Canary>) -> Result<(), Refusal> {
    let Some(inner) = inner.upgrade() else { return Ok(()) };
    let (name, generation) = (&version.name, Some(version.generation));
    let _turn = inner.turn(name).lock_owned().await;
    // It may have failed while another had the turn.
    let Some(reason) = canary.fault() else {
        inner.promote(name, generation).await?;
        inner.own_changes.note("plugin promote", name);
        return Ok(());
    };
    if inner.end_canary(name, generation, &reason).await {
        metrics::counter!("tollgate_plugin_rollbacks_total", "plugin" => name.clone()).increment(1);
        inner.own_changes.note("plugin rollback", name);
    }
    Ok(())
}
