//! Plugins that the configuration names, and what the registry does without an order.

use std::path::Path;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::admin::Trail;
use crate::config::Plugin;
use crate::plugin::Registry;

/// Who is named in the audit log for what nobody asked for.
const ACTOR: &str = "host";

/// Writes down the rollbacks and promotions that happen by themselves, until the server stops.
pub(super) async fn record_own_changes(registry: Registry, trail: Trail, stopping: CancellationToken) {
    let Some(mut changes) = registry.own_changes() else { return };
    // The channel ends with the registry.
    drop(registry);
    while let Some(Some(change)) = stopping.run_until_cancelled(changes.recv()).await {
        trail.record(ACTOR, change.action, &change.plugin, None).await;
    }
}

/// Pushes each configured component that is not the one that serves, or serves with another manifest. A refusal stops the
/// start: an operator who configures a policy must not find it missing.
pub(super) async fn push_configured(registry: &Registry, configured: &[Plugin]) -> anyhow::Result<()> {
    let serving = registry.list().await?;
    for plugin in configured.iter().filter(|plugin| plugin.enabled) {
        let Some(file) = &plugin.file else { continue };
        let wasm = read(file).await?;
        let digest = hex::encode(Sha256::digest(&wasm));
        let manifest = match &plugin.manifest {
            Some(path) => Some(String::from_utf8(read(path).await?).context("the manifest is not UTF-8")?),
            None => None,
        };
        let serves = serving.iter().any(|info| info.name == plugin.name && info.digest == digest);
        let present = registry.manifest(&plugin.name);
        if serves && manifest.as_ref().is_none_or(|manifest| present.as_ref() == Some(manifest)) {
            continue;
        }
        let pushed = registry.push(&plugin.name, wasm, manifest, "configuration").await;
        let pushed = pushed.with_context(|| format!("plugin `{}` from {}", plugin.name, file.display()))?;
        tracing::info!(plugin = pushed.name, generation = pushed.generation, "pushed a configured plugin");
    }
    Ok(())
}

async fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    tokio::fs::read(path).await.with_context(|| format!("cannot read {}", path.display()))
}
