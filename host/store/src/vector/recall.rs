//! How many of the nearest vectors queries really find, measured on some of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    Metric,
    block::Seen,
    code::Code,
    limits::{SAMPLE_COMPARED, SAMPLE_EVERY, SAMPLE_VECTORS},
    memory::{Moment, View},
    rows::Values,
    search::{Near, Wanted},
    space::{Aim, Space},
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

    /// Looks at some vectors of the index, and counts those that are as near as the farthest match, and how many of them are
    /// matches. With a few matches only, all that the query takes is near enough.
    pub(super) fn take(&self, number: u64, sample: &Sample) -> Result<(), redb::Error> {
        let farthest = sample.answered.last().filter(|_| sample.answered.len() == sample.wanted.top_k);
        let (mut nearest, mut found) = (0, 0);
        for slot in sample.slots(number, farthest) {
            if let Some(farthest) = farthest {
                let nearness = sample.metric.exact(&sample.wanted.values, &sample.values.read(slot)?);
                if nearness < farthest.nearness || (nearness == farthest.nearness && slot > farthest.slot) {
                    continue;
                }
            }
            nearest += 1;
            found += u64::from(sample.answered.iter().any(|near| near.slot == slot));
        }
        self.nearest.fetch_add(nearest, Ordering::Relaxed);
        self.found.fetch_add(found, Ordering::Relaxed);
        Ok(())
    }
}

impl Sample {
    /// Slots that the query might have found, as far as rounded vectors can tell, from another place of the index each time.
    fn slots(&self, number: u64, farthest: Option<&Near>) -> Vec<u64> {
        let blocks = &self.view.blocks;
        let code = Code::of(&self.wanted.values);
        let aim = Aim { code: &code.numbers, fact: code.fact };
        let space = Space::new(self.metric, self.wanted.values.len());
        let may_be_near = |seen: &Seen<'_>| {
            let nearness = space.nearness(aim, Aim { code: seen.code, fact: seen.fact });
            let uncertainty = space.uncertainty(aim.fact, seen.fact);
            farthest.is_none_or(|farthest| nearness + uncertainty >= farthest.nearness)
        };
        // A fraction that is far from simple ones leads to every place.
        let start = (number as f64 * 0.618_033_988_749_895).fract() * blocks.len() as f64;
        let (mut slots, mut vectors) = (Vec::new(), 0);
        for block in blocks.iter().cycle().skip(start as usize).take(blocks.len()) {
            block.scan(self.moment, |seen| {
                if self.wanted.takes(&seen) && may_be_near(&seen) {
                    slots.push(seen.slot);
                }
            });
            vectors += block.len();
            if vectors >= SAMPLE_VECTORS || slots.len() >= SAMPLE_COMPARED {
                slots.truncate(SAMPLE_COMPARED);
                break;
            }
        }
        slots
    }
}
