//! What one of two generations did while both were asked, for a comparison.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, counter};
use serde::Serialize;
use utoipa::ToSchema;

use crate::plugin::admission::Decision;
use crate::plugin::limits::{
    CANARY_FAILURES, CANARY_FAILURES_RATIO, CANARY_SAMPLES, CANARY_SLOWER, CANARY_SLOWER_LEAST,
    CANARY_WARM_UP,
};

/// Ranges of a time for each doubling of it: a time is known to a quarter.
const PARTS: usize = 4;

/// Microseconds are doubled so often at most: an hour, the longest deadline of a call.
const DOUBLINGS: usize = 32;

/// Calls of one generation.
pub(super) struct Arm {
    calls: AtomicU64,
    failures: AtomicU64,
    refusals: AtomicU64,
    times: Times,
    called: Counter,
    failed: Counter,
}

/// What an arm did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PluginSample)]
pub struct Sample {
    /// Calls that came to an end.
    pub calls: u64,
    /// Those of them that overran or were answered with an error.
    pub failures: u64,
    /// Those of them that refused somebody. They are shown and not compared: it may be what the new version is for.
    pub refusals: u64,
    /// Calls whose time was taken: those after the first ones, which start instances.
    pub timed: u64,
    /// What 99 of 100 of these took at most, in microseconds.
    pub p99_us: u64,
}

impl Arm {
    /// `version` is the metrics' word for it.
    pub(super) fn new(plugin: &str, version: &'static str) -> Arm {
        let labels = [("plugin", plugin.to_owned()), ("version", version.to_owned())];
        Arm {
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            times: Times::default(),
            called: counter!("tollgate_plugin_canary_calls_total", &labels),
            failed: counter!("tollgate_plugin_canary_failures_total", &labels),
        }
    }

    pub(super) fn note(&self, took: Duration, failed: bool) {
        self.called.increment(1);
        if self.calls.fetch_add(1, Ordering::Relaxed) >= CANARY_WARM_UP {
            self.times.note(took);
        }
        if failed {
            self.failed.increment(1);
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes note of a call that was answered.
    pub(super) fn answered(&self, took: Duration, decisions: &[Decision]) {
        self.note(took, false);
        if decisions.iter().any(|decision| matches!(decision, Decision::Deny(_))) {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn sample(&self) -> Sample {
        let counts = self.times.counts();
        Sample {
            calls: self.calls.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            refusals: self.refusals.load(Ordering::Relaxed),
            timed: counts.iter().sum(),
            p99_us: p99_us(&counts),
        }
    }
}

/// In what a generation is worse than the one before, if it is.
pub(super) fn worse(new: &Sample, old: &Sample) -> Option<String> {
    let share = |sample: &Sample, calls: u64| u128::from(sample.failures) * u128::from(calls);
    let fails = share(new, old.calls) > share(old, new.calls) * u128::from(CANARY_FAILURES_RATIO);
    if new.failures >= CANARY_FAILURES && fails {
        let (failures, calls) = (new.failures, new.calls);
        return Some(format!(
            "{failures} of {calls} calls failed, of the version before {} of {}",
            old.failures, old.calls
        ));
    }
    let enough = new.timed >= CANARY_SAMPLES && old.timed >= CANARY_SAMPLES;
    let least = u64::try_from(CANARY_SLOWER_LEAST.as_micros()).unwrap_or(u64::MAX);
    let bound = old.p99_us.saturating_mul(CANARY_SLOWER).max(old.p99_us.saturating_add(least));
    (enough && new.p99_us > bound).then(|| {
        format!(
            "it is slower: 99 of 100 calls take up to {} µs, of the version before {} µs",
            new.p99_us, old.p99_us
        )
    })
}

/// How many calls took how long: a counter for each quarter of a doubling.
struct Times([AtomicU64; PARTS * DOUBLINGS]);

impl Default for Times {
    fn default() -> Times {
        Times(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Times {
    fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let doubling = micros.ilog2() as usize;
        // The two bits behind the highest.
        let part = ((u128::from(micros) << 2 >> doubling) & 3) as usize;
        let place = (doubling * PARTS + part).min(self.0.len() - 1);
        if let Some(count) = self.0.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> Vec<u64> {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

/// The end of the range that the slowest but one in a hundred fall into; 0 when there are none.
fn p99_us(counts: &[u64]) -> u64 {
    let all: u64 = counts.iter().sum();
    let mut above = all / 100;
    for (place, count) in counts.iter().enumerate().rev() {
        if *count > above {
            let (doubling, part) = (place / PARTS, place % PARTS);
            let end = (u128::from(part as u64) + PARTS as u128 + 1) << doubling >> 2;
            return u64::try_from(end).unwrap_or(u64::MAX);
        }
        above -= count;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(calls: u64, failures: u64, took: Duration) -> Sample {
        let arm = Arm::new("guest", "new");
        for call in 0..calls + CANARY_WARM_UP {
            arm.note(took, call < failures);
        }
        arm.sample()
    }

    #[test]
    fn a_time_is_known_to_a_quarter_whatever_it_is() {
        for micros in [1, 2, 3, 7, 100, 1_000, 12_345, 3_000_000, 3_600_000_000] {
            let p99 = arm(200, 0, Duration::from_micros(micros)).p99_us;
            assert!(p99 >= micros && p99 <= micros + micros / 4 + 1, "{micros}: {p99}");
        }
        assert_eq!(arm(0, 0, Duration::ZERO).p99_us, 0);
        assert!(arm(10, 0, Duration::MAX).p99_us > 3_600_000_000);
    }

    #[test]
    fn one_slow_call_in_a_hundred_is_left_out_and_two_are_not() {
        let of = |slow: u64| {
            let arm = Arm::new("guest", "old");
            (0..CANARY_WARM_UP).for_each(|_| arm.note(Duration::from_secs(1), false));
            (0..100 - slow).for_each(|_| arm.note(Duration::from_micros(10), false));
            (0..slow).for_each(|_| arm.note(Duration::from_millis(10), false));
            arm.sample().p99_us
        };
        assert!(of(1) < 20 && of(2) > 9_000, "{} {}", of(1), of(2));
    }

    #[test]
    fn only_what_is_clearly_worse_with_enough_calls_is_worse() {
        let (quick, slow) = (Duration::from_micros(50), Duration::from_millis(5));
        let old = arm(2_000, 0, quick);
        assert_eq!(worse(&arm(CANARY_SAMPLES, 0, quick), &old), None);
        assert_eq!(worse(&arm(CANARY_SAMPLES - 1, 0, slow), &old), None);
        assert!(worse(&arm(CANARY_SAMPLES, 0, slow), &old).unwrap().contains("slower"));
        // Three times as slow, of which nobody notices anything.
        assert_eq!(worse(&arm(CANARY_SAMPLES, 0, Duration::from_micros(150)), &old), None);
        assert_eq!(worse(&arm(CANARY_SAMPLES, 0, slow), &arm(10, 0, quick)), None);
        assert_eq!(worse(&arm(100, CANARY_FAILURES - 1, quick), &old), None);
        assert!(worse(&arm(100, CANARY_FAILURES, quick), &old).unwrap().contains("failed"));
        // On a busy machine the old one fails too.
        assert_eq!(worse(&arm(100, CANARY_FAILURES, quick), &arm(1_000, 100, quick)), None);
    }
}
