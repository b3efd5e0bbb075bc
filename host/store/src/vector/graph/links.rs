//! Who is linked with whom.

use std::{
    iter,
    sync::atomic::{AtomicU32, Ordering},
};

use super::nodes::Node;
use crate::vector::limits::{LEVELS, LINKS};

/// Links of the nodes of one block. Lists have a fixed room and end with the first that is `NONE`.
#[derive(Debug)]
pub(in crate::vector) struct Links {
    /// On the lowest level, where a node has twice as many.
    base: Box<[AtomicU32]>,
    /// Above it.
    upper: Box<[AtomicU32]>,
    /// For each node, how many lists there are in `upper` before its own; and their number at the end.
    starts: Box<[u32]>,
}

const NONE: u32 = u32::MAX;

/// Links of a node on a level at most.
pub(super) fn room(level: usize) -> usize {
    if level == 0 { 2 * LINKS } else { LINKS }
}

impl Links {
    /// For vectors in these slots, without links.
    pub(in crate::vector) fn new(slots: &[u64]) -> Self {
        let mut starts = Vec::with_capacity(slots.len() + 1);
        let mut lists = 0;
        starts.push(lists);
        for slot in slots {
            lists += level(*slot);
            starts.push(lists);
        }
        let empty = |lists: usize, room: usize| (0..lists * room).map(|_| AtomicU32::new(NONE)).collect();
        let (base, upper) = (empty(slots.len(), room(0)), empty(lists as usize, room(1)));
        Self { base, upper, starts: starts.into() }
    }

    /// The highest level of a node.
    pub(super) fn level(&self, position: usize) -> usize {
        self.above(position).map_or(0, |(_, lists)| lists)
    }

    /// Who a node is linked with.
    pub(super) fn of(&self, position: usize, level: usize) -> impl Iterator<Item = Node> + '_ {
        let links = self.list(position, level).iter().map(|link| link.load(Ordering::Relaxed));
        links.take_while(|link| *link != NONE).map(Node)
    }

    /// Writes a list anew; nodes beyond its room are left out.
    pub(super) fn set(&self, position: usize, level: usize, nodes: impl Iterator<Item = Node>) {
        let links = nodes.map(|node| node.0).chain(iter::repeat(NONE));
        for (place, link) in self.list(position, level).iter().zip(links) {
            place.store(link, Ordering::Relaxed);
        }
    }

    /// Adds a link, unless the list is full.
    pub(super) fn add(&self, position: usize, level: usize, node: Node) -> bool {
        let mut places = self.list(position, level).iter();
        let free = places.find(|place| place.load(Ordering::Relaxed) == NONE);
        free.inspect(|place| place.store(node.0, Ordering::Relaxed)).is_some()
    }

    pub(in crate::vector) fn bytes(&self) -> usize {
        (self.base.len() + self.upper.len() + self.starts.len()) * size_of::<u32>()
    }

    /// None where there is no such list.
    fn list(&self, position: usize, level: usize) -> &[AtomicU32] {
        let list = match level.checked_sub(1) {
            None => self.base.get(position * room(0)..(position + 1) * room(0)),
            Some(above) => self.above(position).filter(|(_, lists)| above < *lists).and_then(|(first, _)| {
                let first = (first + above) * room(level);
                self.upper.get(first..first + room(level))
            }),
        };
        list.unwrap_or_default()
    }

    /// A node's first list above the lowest level, and how many it has there.
    fn above(&self, position: usize) -> Option<(usize, usize)> {
        let (first, next) = (*self.starts.get(position)?, *self.starts.get(position + 1)?);
        Some((first as usize, next.saturating_sub(first) as usize))
    }
}

/// The highest level of the node for a slot: each has a sixteenth of the nodes under it. It looks like chance, and is the
/// same whenever the graph is built.
fn level(slot: u64) -> u32 {
    (scatter(slot).trailing_zeros() / LINKS.ilog2()).min(LEVELS)
}

/// A number that looks random.
pub(super) fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_holds_its_own_links_up_to_its_room() {
        let slots: Vec<u64> = (0..1_000).collect();
        let links = Links::new(&slots);
        let of = |position, level| links.of(position, level).map(|node| node.0).collect::<Vec<_>>();
        let mut counts = [0; LEVELS as usize + 1];
        for position in 0..slots.len() {
            for (level, count) in counts.iter_mut().enumerate().take(links.level(position) + 1) {
                *count += 1;
                for link in 0..room(level) {
                    assert!(links.add(position, level, Node((position * 100 + level * 40 + link) as u32)));
                }
                assert!(!links.add(position, level, Node(7)));
            }
            assert!(of(position, links.level(position) + 1).is_empty());
            assert!(!links.add(position, links.level(position) + 1, Node(7)));
        }
        for position in 0..slots.len() {
            for level in 0..=links.level(position) {
                let first = (position * 100 + level * 40) as u32;
                assert_eq!(of(position, level), (first..first + room(level) as u32).collect::<Vec<_>>());
            }
        }
        // A sixteenth goes up from each level.
        assert!((30..100).contains(&counts[1]) && (1..15).contains(&counts[2]), "{counts:?}");
        links.set(3, 0, [5, 6].into_iter().map(Node));
        assert_eq!(of(3, 0), [5, 6]);
        links.set(3, 0, (0..99).map(Node));
        assert_eq!(of(3, 0), (0..room(0) as u32).collect::<Vec<_>>());
        assert_eq!((of(1_000, 0), links.level(1_000)), (vec![], 0));
    }
}
