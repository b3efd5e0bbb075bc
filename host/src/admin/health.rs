//! `/health`: what an operator looks at first.

use axum::Json as Answer;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::error::ApiError;

/// How the server does.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`, or `critical` where the store takes no writes.
    status: &'static str,
    version: &'static str,
    uptime_ms: u64,
    store: StoreHealth,
    plugins: Vec<PluginHealth>,
}

/// How the store does.
#[derive(Serialize, ToSchema)]
struct StoreHealth {
    /// Whether it takes writes.
    writable: bool,
    /// Commits since the start.
    commits: u64,
    /// Microseconds that the last commit's oldest write waited for the disk.
    lag_us: u64,
    /// The most that it was.
    max_lag_us: u64,
    /// What is in memory and not on disk yet.
    overlay_bytes: u64,
    /// What waits to be committed.
    waiting_bytes: u64,
}

/// How a plugin does.
#[derive(Serialize, ToSchema)]
struct PluginHealth {
    name: String,
    generation: u64,
    /// `watched` while a burst of traps would roll it back, then `serving`.
    state: &'static str,
    /// Calls of this generation.
    calls: u64,
    /// Those of them that trapped or overran.
    traps: u64,
}

/// How store and plugins do.
#[utoipa::path(get, path = "/health", responses((status = 200, body = Health)))]
pub(super) async fn health(State(admin): State<Shared>) -> Result<Answer<Health>, ApiError> {
    let stats = admin.store.stats();
    let plugins = admin.registry.list().await?;
    let plugins = plugins.into_iter().map(|plugin| PluginHealth {
        name: plugin.name,
        generation: plugin.generation,
        state: plugin.state,
        calls: plugin.calls,
        traps: plugin.traps,
    });
    Ok(Answer(Health {
        status: if stats.poisoned { "critical" } else { "ok" },
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: u64::try_from(admin.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        store: StoreHealth {
            writable: !stats.poisoned,
            commits: stats.commits,
            lag_us: stats.lag_us,
            max_lag_us: stats.max_lag_us,
            overlay_bytes: stats.overlay_bytes,
            waiting_bytes: stats.waiting_bytes,
        },
        plugins: plugins.collect(),
    }))
}
