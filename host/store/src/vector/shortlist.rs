//! The candidates of a scan: those that may be among the nearest, as far as rounded vectors can tell.

use super::limits::{CANDIDATES_EACH, CANDIDATES_LEAST, CANDIDATES_MOST};

/// Gathers candidates and lets go of those that others have left behind for certain.
#[derive(Debug)]
pub(super) struct Shortlist {
    /// How many nearest are wanted.
    wanted: usize,
    least: usize,
    /// What cannot come as near as this is left out.
    floor: f64,
    found: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    slot: u64,
    /// The nearest that it can be.
    best: f64,
    /// The farthest that it can be.
    worst: f64,
}

/// Candidates that are gathered before the list is cut: each cut costs about as much as reading so many.
const GATHERED: usize = 4 * CANDIDATES_MOST;

impl Shortlist {
    pub(super) fn new(wanted: usize) -> Self {
        let least = (wanted * CANDIDATES_EACH).clamp(CANDIDATES_LEAST, CANDIDATES_MOST);
        Self { wanted, least, floor: f64::NEG_INFINITY, found: Vec::new() }
    }

    /// Takes a vector with a nearness that may be off by so much.
    pub(super) fn add(&mut self, slot: u64, nearness: f64, uncertainty: f64) {
        let best = nearness + uncertainty;
        if best < self.floor {
            return;
        }
        self.found.push(Candidate { slot, best, worst: nearness - uncertainty });
        if self.found.len() >= GATHERED {
            self.cut();
        }
    }

    /// The slots that are left, in their order.
    pub(super) fn slots(mut self) -> Vec<u64> {
        self.cut();
        let mut slots: Vec<u64> = self.found.into_iter().map(|candidate| candidate.slot).collect();
        slots.sort_unstable();
        slots
    }

    fn cut(&mut self) {
        let Some(last) = self.wanted.checked_sub(1).filter(|last| *last < self.found.len()) else { return };
        let (_, farthest, _) =
            self.found.select_nth_unstable_by(last, |left, right| right.worst.total_cmp(&left.worst));
        let certain = farthest.worst;
        self.found.sort_unstable_by(|left, right| right.best.total_cmp(&left.best));
        let possible = self.found.partition_point(|candidate| candidate.best >= certain);
        let kept = possible.clamp(self.least, CANDIDATES_MOST);
        self.found.truncate(kept);
        // Who is under the last of those kept would be cut the next time.
        let last = self.found.last().map_or(certain, |candidate| candidate.best);
        self.floor = if kept == possible { certain } else { last };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in no order, each once.
    fn shuffled(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |number| number * 7_919 % count)
    }

    #[test]
    fn the_nearest_are_kept_with_those_that_may_be_nearer() {
        let mut list = Shortlist::new(10);
        // Nearness is the slot; each may be off by 50, so the last 110 may be among the last ten.
        for slot in shuffled(100_003) {
            list.add(slot, slot as f64, 50.0);
        }
        assert_eq!(list.slots(), (100_003 - 110..100_003).collect::<Vec<_>>());
    }

    #[test]
    fn a_list_has_its_least_and_its_most() {
        for (uncertainty, kept) in [(0.0, CANDIDATES_LEAST), (1e9, CANDIDATES_MOST)] {
            let mut list = Shortlist::new(3);
            for slot in shuffled(20_011) {
                list.add(slot, slot as f64, uncertainty);
            }
            let slots = list.slots();
            assert_eq!(slots.len(), kept);
            assert!(slots.contains(&20_010) && slots.contains(&20_009) && slots.contains(&20_008));
        }
        let mut list = Shortlist::new(100);
        list.add(1, 0.0, 0.0);
        assert_eq!(list.slots(), [1]);
    }
}
