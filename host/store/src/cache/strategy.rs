//! How long entries live, and how that follows the use that is made of them.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::limits::{ADAPT_DOUBLINGS, ADAPT_LOOKUPS, CACHE_TTL_LEAST_MS, CACHE_TTL_MOST_MS};

/// Whose room an entry takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// For what is cheap to make again.
    Low,
    /// For the rest.
    Medium,
    /// For what everybody needs and is dear to make again.
    High,
}

/// Expiry and priority of entries written without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// Milliseconds that an entry lives.
    pub ttl_ms: u64,
    /// Its priority.
    pub priority: Priority,
}

impl Strategy {
    /// Lists of models: an hour, high.
    pub const MODEL_LIST: Self = Self { ttl_ms: 60 * 60_000, priority: Priority::High };
    /// The health of upstreams: five minutes, medium.
    pub const HEALTH: Self = Self { ttl_ms: 5 * 60_000, priority: Priority::Medium };
    /// Metrics of keys: ten minutes, low.
    pub const KEY_METRICS: Self = Self { ttl_ms: 10 * 60_000, priority: Priority::Low };
    /// What belongs to requests: a minute, low.
    pub const REQUEST: Self = Self { ttl_ms: 60_000, priority: Priority::Low };

    /// All of them, by the names that a configuration has for them.
    pub const NAMED: [(&str, Self); 4] = [
        ("model-list", Self::MODEL_LIST),
        ("health", Self::HEALTH),
        ("key-metrics", Self::KEY_METRICS),
        ("request", Self::REQUEST),
    ];
}

/// Counts what is found, and from it how often a strategy's expiry is doubled (below zero: halved).
#[derive(Debug, Default)]
pub(super) struct Use {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    /// Lookups and hits since the last look at the rate.
    window: AtomicU64,
    window_hits: AtomicU64,
    doublings: AtomicI32,
}

impl Use {
    /// Takes note of a lookup. After a number of them, a rate over 80 % doubles the expiry, for what is there is wanted,
    /// and one under 20 % halves it.
    pub(super) fn note(&self, hit: bool) {
        let (total, window_hits) = if hit { (&self.hits, 1) } else { (&self.misses, 0) };
        total.fetch_add(1, Ordering::Relaxed);
        self.window_hits.fetch_add(window_hits, Ordering::Relaxed);
        if self.window.fetch_add(1, Ordering::Relaxed) + 1 != ADAPT_LOOKUPS {
            return;
        }
        let hits = self.window_hits.swap(0, Ordering::Relaxed);
        self.window.store(0, Ordering::Relaxed);
        let change = i32::from(hits * 100 > ADAPT_LOOKUPS * 80) - i32::from(hits * 100 < ADAPT_LOOKUPS * 20);
        // Only the one who came to the end of a window is here.
        let doublings = self.doublings.load(Ordering::Relaxed) + change;
        self.doublings.store(doublings.clamp(-ADAPT_DOUBLINGS, ADAPT_DOUBLINGS), Ordering::Relaxed);
    }

    /// A strategy's expiry as the use made of the cache has it.
    pub(super) fn adapted(&self, ttl_ms: u64) -> u64 {
        let doublings = self.doublings.load(Ordering::Relaxed);
        let factor = 1_u64 << doublings.unsigned_abs().min(32);
        let adapted = if doublings < 0 { ttl_ms / factor } else { ttl_ms.saturating_mul(factor) };
        // A strategy outside of the bounds stays where it is.
        adapted.clamp(ttl_ms.min(CACHE_TTL_LEAST_MS), ttl_ms.max(CACHE_TTL_MOST_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(of: &Use, hits: u64) {
        (0..ADAPT_LOOKUPS).for_each(|lookup| of.note(lookup < hits));
    }

    #[test]
    fn expiry_doubles_over_80_percent_and_halves_under_20() {
        for (percent, expected) in
            [(100, 20_000), (81, 20_000), (80, 10_000), (20, 10_000), (19, 5_000), (0, 5_000)]
        {
            let uses = Use::default();
            window(&uses, ADAPT_LOOKUPS * percent / 100);
            assert_eq!(uses.adapted(10_000), expected, "{percent} %");
            assert_eq!(uses.hits.into_inner(), ADAPT_LOOKUPS * percent / 100);
        }
    }

    #[test]
    fn expiry_stays_within_its_bounds_and_comes_back() {
        let uses = Use::default();
        (0..50).for_each(|_| window(&uses, ADAPT_LOOKUPS));
        assert_eq!(uses.adapted(10_000), 80_000);
        assert_eq!(uses.adapted(Strategy::MODEL_LIST.ttl_ms * 10), CACHE_TTL_MOST_MS.min(80 * 3_600_000));
        (0..50).for_each(|_| window(&uses, 0));
        assert_eq!((uses.adapted(10_000), uses.adapted(2_000)), (1_250, CACHE_TTL_LEAST_MS));
        assert_eq!(uses.adapted(10), 10);
        (0..3).for_each(|_| window(&uses, ADAPT_LOOKUPS));
        assert_eq!(uses.adapted(10_000), 10_000);
    }
}
