//! What is told of plugins.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::canary::CanaryInfo;
use crate::plugin::versions::Version;
use crate::plugin::{Generation, Share};

/// A version that serves now, or its share of the requests.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Pushed {
    /// The plugin's name.
    pub name: String,
    /// Number of this generation; grows with every push and rollback of any plugin.
    pub generation: u64,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// The share of the requests that it answers; none: it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub canary: Option<Share>,
}

/// A plugin as `list` shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Plugin)]
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
    /// `watched` while a burst of traps would roll it back, then `serving`.
    pub state: &'static str,
    /// Calls of this generation since it was loaded.
    pub calls: u64,
    /// Those of them that trapped or overran.
    pub traps: u64,
    /// Those of them that the plugin answered with an error.
    pub errors: u64,
    /// Place in the admission chain, low first.
    pub order: i64,
    /// What it may touch: a line for each grant.
    pub grants: Vec<String>,
    /// Milliseconds since 1970, UTC, when it was pushed.
    pub pushed_ms: u64,
    /// Who pushed it; `shipped` for what came with the binary.
    pub pushed_by: String,
    /// A later version that answers a share of the requests.
    pub canary: Option<CanaryInfo>,
    /// Its generations that are kept, newest first; in a list of plugins only the last of them.
    pub generations: Vec<Version>,
}

/// What is there to be shown of a plugin.
pub(super) struct Shown {
    pub(super) generation: Arc<Generation>,
    pub(super) version: Arc<Version>,
    pub(super) watched: bool,
    pub(super) canary: Option<CanaryInfo>,
}

/// A plugin as a list shows it.
pub(super) fn info(
    Shown { generation, version, watched, canary }: Shown,
    generations: Vec<Version>,
) -> PluginInfo {
    let counters = generation.counters();
    PluginInfo {
        name: version.name.clone(),
        version: generation.manifest().version.clone(),
        digest: version.digest.clone(),
        generation: version.generation,
        hooks: generation.hooks().names().into_iter().map(str::to_owned).collect(),
        state: if watched { "watched" } else { "serving" },
        calls: counters.calls,
        traps: counters.traps,
        errors: counters.errors,
        order: generation.manifest().order.into(),
        grants: generation.manifest().grants.lines(),
        pushed_ms: version.pushed_ms,
        pushed_by: version.pushed_by.clone(),
        canary,
        generations,
    }
}
