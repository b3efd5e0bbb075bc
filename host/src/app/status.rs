//! `/healthz`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::sync::Mutex;
use tollgate_store::{Kv, SetOptions, Store};

use super::metrics::{self, Recorder};
use crate::plugin::{Admissions, EventQueue, Registry};

/// Longest time a write may take before the store counts as stuck.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer is believed: whoever asks more often does not make the disk work.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// What the answers are made from.
pub(super) struct Status {
    pub(super) store: Store,
    pub(super) host: Kv,
    /// Those whose bytes are told.
    pub(super) kv: BTreeMap<String, Kv>,
    pub(super) registry: Registry,
    pub(super) events: EventQueue,
    pub(super) admissions: Admissions,
    pub(super) metrics: Recorder,
    pub(super) probed: Mutex<Option<(Instant, Result<(), String>)>>,
}

/// The three routes; none needs a token.
pub(super) fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(status)
}

async fn ready(State(status): State<Arc<Status>>) -> impl IntoResponse {
    // The lock is held over the probe, so that many askers make one write.
    let mut probed = status.probed.lock().await;
    let known = probed.clone().filter(|(when, _)| when.elapsed() < PROBE_EVERY);
    let result = match known {
        Some((_, result)) => result,
        None => {
            let result = probe(&status).await;
            *probed = Some((Instant::now(), result.clone()));
            result
        }
    };
    match result {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn probe(status: &Status) -> Result<(), String> {
    let work = async {
        let write = status.host.set("ready", Vec::new(), SetOptions::default()).await;
        write.map_err(|error| format!("the store does not take writes: {error}"))?;
        let plugins = status.registry.list().await;
        plugins.map(drop).map_err(|error| format!("the plugins are not there: {error}"))
    };
    match tokio::time::timeout(PROBE_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err("the store is stuck".to_owned()),
    }
}

async fn render(State(status): State<Arc<Status>>) -> impl IntoResponse {
    metrics::observe_store(&status.store.stats());
    metrics::observe_leases(status.admissions.open_leases());
    for (name, kv) in &status.kv {
        metrics::observe_kv(name, kv.bytes());
    }
    status.events.observe();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], status.metrics.render())
}
