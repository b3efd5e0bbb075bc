//! `/health`: what an operator looks at first.

use axum::Json as Answer;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;
use super::error::ApiError;

/// How store and plugins do.
#[utoipa::path(get, path = "/health", responses((status = 200, body = Value)))]
pub(super) async fn health(State(admin): State<Shared>) -> Result<Answer<Value>, ApiError> {
    let stats = admin.store.stats();
    let plugins = admin.registry.list().await?;
    let plugins: Vec<_> = plugins
        .iter()
        .map(|plugin| {
            json!({
                "name": plugin.name,
                "generation": plugin.generation,
                "state": plugin.state,
                "calls": plugin.calls,
                "traps": plugin.traps,
            })
        })
        .collect();
    let uptime_ms = u64::try_from(admin.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Answer(json!({
        "status": if stats.poisoned { "critical" } else { "ok" },
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": uptime_ms,
        "store": {
            "writable": !stats.poisoned,
            "commits": stats.commits,
            "lag_us": stats.lag_us,
            "max_lag_us": stats.max_lag_us,
            "overlay_bytes": stats.overlay_bytes,
            "waiting_bytes": stats.waiting_bytes,
        },
        "plugins": plugins,
    })))
}
