//! The metrics of this process, and what is looked up when somebody asks for them.

mod buckets;
mod recorder;

use std::sync::OnceLock;

use metrics::{counter, gauge};
use tollgate_store::Stats;

pub(super) use recorder::Recorder;

/// The process's recorder, installed by the first call. There is one for a process, however many servers it starts.
pub(super) fn recorder() -> Recorder {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    let recorder = RECORDER.get_or_init(Recorder::default);
    // Fails from the second call on, when it is installed already.
    let _ = metrics::set_global_recorder(recorder.clone());
    recorder.clone()
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
