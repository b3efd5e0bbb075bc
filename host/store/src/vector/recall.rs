//! How many of the nearest vectors queries really find, measured on some of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    Metric,
    limits::{SAMPLE_EVERY, SAMPLE_VECTORS},
    memory::{Moment, View},
    rows::Values,
    search::{Near, Wanted},
};

/// What samples have come to since the index was opened.
#[derive(Debug, Default)]
pub(super) struct Recall {
    queries: AtomicU64,
    nearest: AtomicU64,
    found: AtomicU64,
}

/// A query that was answered, with what it saw.
pub(super) struct Sample {
    pub(super) view: Arc<View>,
    pub(super) moment: Moment,
    pub(super) values: Values,
    pub(super) metric: Metric,
    pub(super) wanted: Wanted,
    pub(super) answered: Vec<Near>,
}

impl Recall {
    /// Counts a query; the number says that it is to be sampled.
    pub(super) fn query(&self) -> Option<u64> {
        let number = self.queries.fetch_add(1, Ordering::Relaxed);
        number.is_multiple_of(SAMPLE_EVERY).then_some(number / SAMPLE_EVERY)
    }

    /// The share of the nearest vectors that were found; none: nothing has been sampled.
    pub(super) fn share(&self) -> Option<f64> {
        let nearest = self.nearest.load(Ordering::Relaxed);
        (nearest > 0).then(|| self.found.load(Ordering::Relaxed) as f64 / nearest as f64)
    }

    /// Compares some vectors of the index exactly, and counts those that are as near as the farthest match, and how many
    /// of them are matches. With a few matches only, all that the query takes is near enough.
    pub(super) fn take(&self, number: u64, sample: &Sample) -> Result<(), redb::Error> {
        let farthest = match sample.answered.last() {
            Some(last) if sample.answered.len() == sample.wanted.top_k => *last,
            _ => Near { slot: u64::MAX, nearness: f64::NEG_INFINITY },
        };
        let (mut nearest, mut found) = (0, 0);
        for slot in sample.slots(number) {
            let nearness = sample.metric.exact(&sample.wanted.values, &sample.values.read(slot)?);
            if nearness > farthest.nearness || (nearness == farthest.nearness && slot <= farthest.slot) {
                nearest += 1;
                found += u64::from(sample.answered.iter().any(|near| near.slot == slot));
            }
        }
        self.nearest.fetch_add(nearest, Ordering::Relaxed);
        self.found.fetch_add(found, Ordering::Relaxed);
        Ok(())
    }
}

impl Sample {
    /// Slots that the query might have found, from another place of the index each time.
    fn slots(&self, number: u64) -> Vec<u64> {
        let blocks = &self.view.blocks;
        // A fraction that is far from simple ones leads to every place.
        let start = (number as f64 * 0.618_033_988_749_895).fract() * blocks.len() as f64;
        let mut slots = Vec::new();
        for block in blocks.iter().cycle().skip(start as usize).take(blocks.len()) {
            block.scan(self.moment, |seen| {
                if self.wanted.takes(&seen) {
                    slots.push(seen.slot);
                }
            });
            if slots.len() >= SAMPLE_VECTORS {
                slots.truncate(SAMPLE_VECTORS);
                break;
            }
        }
        slots
    }
}
