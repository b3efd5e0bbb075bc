//! What a generation has done, for the rollout that watches it and for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use super::generation::{CallError, Hook};

/// What a generation has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls started.
    pub calls: u64,
    /// Calls that ended in a trap or over the deadline.
    pub traps: u64,
    /// Calls that the guest answered with an error.
    pub errors: u64,
}

pub(super) struct Meter {
    calls: AtomicU64,
    traps: AtomicU64,
    errors: AtomicU64,
    hooks: [HookMeter; Hook::ALL.len()],
}

/// Handles of the metrics of one hook, looked up once.
struct HookMeter {
    calls: Counter,
    seconds: Histogram,
    traps: Counter,
    overruns: Counter,
    errors: Counter,
    busy: Counter,
}

impl Meter {
    pub(super) fn new(plugin: &str) -> Meter {
        let hooks = Hook::ALL.map(|hook| {
            let labels = [("plugin", plugin.to_owned()), ("hook", hook.name().to_owned())];
            HookMeter {
                calls: counter!("tollgate_plugin_calls_total", &labels),
                seconds: histogram!("tollgate_plugin_call_seconds", &labels),
                traps: counter!("tollgate_plugin_traps_total", &labels),
                overruns: counter!("tollgate_plugin_deadline_overruns_total", &labels),
                errors: counter!("tollgate_plugin_errors_total", &labels),
                busy: counter!("tollgate_plugin_busy_total", &labels),
            }
        });
        Meter { calls: AtomicU64::new(0), traps: AtomicU64::new(0), errors: AtomicU64::new(0), hooks }
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            calls: self.calls.load(Ordering::Relaxed),
            traps: self.traps.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }

    pub(super) fn started(&self, hook: Hook) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(meter) = self.hooks.get(hook as usize) {
            meter.calls.increment(1);
        }
    }

    pub(super) fn ended(&self, hook: Hook, took: Duration) {
        if let Some(meter) = self.hooks.get(hook as usize) {
            meter.seconds.record(took.as_secs_f64());
        }
    }

    pub(super) fn failed(&self, hook: Hook, error: &CallError) {
        let Some(meter) = self.hooks.get(hook as usize) else { return };
        match error {
            CallError::Trap(_) => {
                self.traps.fetch_add(1, Ordering::Relaxed);
                meter.traps.increment(1);
            }
            CallError::Deadline(_) => {
                self.traps.fetch_add(1, Ordering::Relaxed);
                meter.overruns.increment(1);
            }
            CallError::Guest(_) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                meter.errors.increment(1);
            }
            CallError::Busy => meter.busy.increment(1),
            CallError::NoHook(_) => {}
        }
    }
}
