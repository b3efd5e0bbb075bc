//! Metrics in Prometheus' text form.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tollgate_store::Stats;

/// From a policy call of microseconds to an answer of minutes.
const SECONDS: [f64; 16] = [
    0.000_01, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];

/// How often histograms move their samples into buckets; in between they grow.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The process's recorder, installed by the first call. There is one for a process, however many servers it starts.
pub(super) fn recorder() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?;
    let recorder = builder.build_recorder();
    let handle = HANDLE.get_or_init(|| recorder.handle());
    // Fails when another thread was faster, and then that one's recorder is the one in HANDLE.
    let _ = metrics::set_global_recorder(recorder);
    Ok(handle.clone())
}

/// Brings the store's figures up to date.
pub(super) fn observe_store(stats: &Stats) {
    counter!("tollgate_store_commits_total").absolute(stats.commits);
    counter!("tollgate_store_kv_writes_total").absolute(stats.kv_writes);
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    for (name, value) in [
        ("tollgate_store_commit_lag_microseconds", stats.lag_us),
        ("tollgate_store_commit_lag_microseconds_max", stats.max_lag_us),
        ("tollgate_store_commit_microseconds", stats.commit_us),
        ("tollgate_store_overlay_bytes", stats.overlay_bytes),
        ("tollgate_store_cache_bytes", stats.cache_bytes),
        ("tollgate_store_waiting_bytes", stats.waiting_bytes),
    ] {
        gauge!(name).set(value as f64);
    }
    gauge!("tollgate_store_poisoned").set(if stats.poisoned { 1.0 } else { 0.0 });
}

/// Brings the bytes of a kv store up to date.
pub(super) fn observe_kv(name: &str, bytes: u64) {
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    gauge!("tollgate_kv_bytes", "store" => name.to_owned()).set(bytes as f64);
}

/// Brings the number of leases that are not settled up to date.
pub(super) fn observe_leases(open: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    gauge!("tollgate_leases_open").set(open as f64);
}

/// Keeps the histograms small until the server stops.
pub(super) async fn upkeep(handle: PrometheusHandle, stopping: CancellationToken) {
    while stopping.run_until_cancelled(tokio::time::sleep(UPKEEP_EVERY)).await.is_some() {
        handle.run_upkeep();
    }
}
