//! What a generation has done, for the rollout that watches it and for the metrics.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

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

/// A limit that guests run into; its name is the label `limit` of `tollgate_plugin_limit_hits_total`. What each is
/// stands in [`limits`](super::limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Linear memory of one instance.
    Memory,
    /// Linear memory of all instances of the plugin.
    TotalMemory,
    /// Elements of a table.
    Table,
    /// The stack, by recursion.
    Stack,
    /// Running time of a call.
    Deadline,
    /// Time of a call with its waiting.
    Waiting,
    /// Calls at once.
    Instances,
    /// Host calls in one call.
    HostCalls,
    /// Bytes through host calls in one call.
    HostBytes,
    /// Bytes from the guest in one host call, or in its answer.
    CallBytes,
    /// Open handles.
    Handles,
    /// A key, value, list or statement of a store.
    Size,
    /// Time of one SQL call.
    SqlTurn,
    /// A store or table that was not granted.
    Grant,
    /// Lines of log in one second.
    LogLines,
    /// Bytes of a ticket.
    Ticket,
    /// Requests that are sent at once.
    Sends,
    /// Bytes of a kv store.
    StoreBytes,
}

impl Limit {
    const ALL: [Limit; 18] = [
        Limit::Memory,
        Limit::TotalMemory,
        Limit::Table,
        Limit::Stack,
        Limit::Deadline,
        Limit::Waiting,
        Limit::Instances,
        Limit::HostCalls,
        Limit::HostBytes,
        Limit::CallBytes,
        Limit::Handles,
        Limit::Size,
        Limit::SqlTurn,
        Limit::Grant,
        Limit::LogLines,
        Limit::Ticket,
        Limit::Sends,
        Limit::StoreBytes,
    ];

    fn name(self) -> &'static str {
        match self {
            Limit::Memory => "memory",
            Limit::TotalMemory => "total-memory",
            Limit::Table => "table",
            Limit::Stack => "stack",
            Limit::Deadline => "deadline",
            Limit::Waiting => "waiting",
            Limit::Instances => "instances",
            Limit::HostCalls => "host-calls",
            Limit::HostBytes => "host-bytes",
            Limit::CallBytes => "call-bytes",
            Limit::Handles => "handles",
            Limit::Size => "size",
            Limit::SqlTurn => "sql-turn",
            Limit::Grant => "grant",
            Limit::LogLines => "log-lines",
            Limit::Ticket => "ticket",
            Limit::Sends => "sends",
            Limit::StoreBytes => "store-bytes",
        }
    }
}

/// What the instances of one generation use and run into, all of them together.
pub(crate) struct Tally {
    hits: [Counter; Limit::ALL.len()],
    host_calls: Counter,
    host_bytes: Counter,
    lines_dropped: Counter,
    memory: AtomicUsize,
    most_memory: AtomicUsize,
    most_memory_shown: Gauge,
}

impl Tally {
    pub(crate) fn new(plugin: &str) -> Tally {
        let label = [("plugin", plugin.to_owned())];
        let hits = |limit: Limit| {
            let labels = [("plugin", plugin.to_owned()), ("limit", limit.name().to_owned())];
            counter!("tollgate_plugin_limit_hits_total", &labels)
        };
        Tally {
            hits: Limit::ALL.map(hits),
            host_calls: counter!("tollgate_plugin_host_calls_total", &label),
            host_bytes: counter!("tollgate_plugin_host_bytes_total", &label),
            lines_dropped: counter!("tollgate_plugin_log_lines_dropped_total", &label),
            memory: AtomicUsize::new(0),
            most_memory: AtomicUsize::new(0),
            most_memory_shown: gauge!("tollgate_plugin_memory_bytes_max", &label),
        }
    }

    pub(crate) fn hit(&self, limit: Limit) {
        if let Some(counter) = self.hits.get(limit as usize) {
            counter.increment(1);
        }
    }

    /// Counts what one call had the host do.
    pub(crate) fn used(&self, host_calls: u32, host_bytes: usize) {
        self.host_calls.increment(host_calls.into());
        self.host_bytes.increment(host_bytes as u64);
    }

    pub(crate) fn line_dropped(&self) {
        self.hit(Limit::LogLines);
        self.lines_dropped.increment(1);
    }

    /// Takes linear memory, unless all instances have so much together.
    pub(crate) fn take_memory(&self, bytes: usize, most: usize) -> bool {
        let add = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= most);
        let Ok(before) = self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) else {
            return false;
        };
        let now = before + bytes;
        if self.most_memory.fetch_max(now, Ordering::Relaxed) < now {
            #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
            self.most_memory_shown.set(now as f64);
        }
        true
    }

    /// Linear memory of all instances, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    pub(crate) fn give_memory(&self, bytes: usize) {
        self.memory.fetch_sub(bytes, Ordering::Relaxed);
    }
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
