//! A walk through a graph, towards what is near.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use parking_lot::Mutex;

use super::{
    Entry,
    nodes::{Found, Node, Nodes},
};
use crate::vector::{limits::BLOCK_VECTORS, space::Aim};

/// What a walk remembers; made once and used for many.
#[derive(Debug, Default)]
pub(super) struct Walk {
    visited: Visited,
    /// Come by, and not gone on from.
    open: BinaryHeap<Found>,
    /// The nearest of those that are wanted.
    found: BinaryHeap<Reverse<Found>>,
    /// Links of one node that are new.
    fresh: Vec<Node>,
    /// Copies of one node that are not looked at yet.
    copies: Vec<Node>,
}

/// Nodes that a walk came by, by the number of the walk; forgotten all at once by another number.
#[derive(Debug, Default)]
struct Visited {
    walk: u16,
    stamps: Vec<u16>,
    count: usize,
}

/// How far a walk goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    /// How many of the nearest it keeps.
    pub(super) effort: usize,
    /// Nodes that it comes by at most.
    pub(super) nodes: usize,
    /// Copies that it keeps of each node at most: with all of many it would have no room for others.
    pub(super) copies: usize,
    /// Ends it early.
    pub(super) stop: &'a AtomicBool,
}

/// Walks that nobody takes at present.
#[derive(Debug)]
pub(super) struct Walks {
    idle: Mutex<Vec<Walk>>,
    /// As many are kept as may search at a time.
    most: usize,
}

impl Default for Walks {
    fn default() -> Self {
        // Asked once: the system reads files to tell.
        let most = thread::available_parallelism().map_or(1, usize::from);
        Self { idle: Mutex::default(), most }
    }
}

impl Walks {
    pub(super) fn take(&self) -> Walk {
        self.idle.lock().pop().unwrap_or_default()
    }

    pub(super) fn put(&self, walk: Walk) {
        let mut idle = self.idle.lock();
        if idle.len() < self.most {
            idle.push(walk);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.idle.lock().iter().map(|walk| walk.visited.stamps.len() * size_of::<u16>()).sum()
    }
}

impl Nodes<'_> {
    /// From the entry down to a level above the lowest or to the lowest: a node there that is near.
    pub(super) fn descend(&self, aim: Aim<'_>, entry: Entry, level: usize) -> Option<Found> {
        let mut here = self.found(aim, entry.node)?;
        for level in (level + 1..=entry.level).rev() {
            loop {
                let near = self.neighbours(here.node, level).filter_map(|node| self.found(aim, node)).max();
                match near.filter(|near| near.nearness > here.nearness) {
                    Some(near) => here = near,
                    None => break,
                }
            }
        }
        Some(here)
    }

    /// The nearest on a level of those that are wanted, nearest first; it begins at a node. None: it was ended early.
    pub(super) fn walk(
        &self,
        walk: &mut Walk,
        aim: Aim<'_>,
        from: Found,
        level: usize,
        bounds: Bounds<'_>,
        mut wanted: impl FnMut(Node) -> bool,
    ) -> Option<Vec<Found>> {
        walk.begin(self.blocks.len() * BLOCK_VECTORS);
        walk.visited.add(from.node);
        walk.open.push(from);
        if wanted(from.node) {
            walk.found.push(Reverse(from));
        }
        while let Some(next) = walk.open.pop() {
            if walk.floor(bounds.effort).is_some_and(|floor| next.nearness < floor) {
                break;
            }
            if walk.visited.count > bounds.nodes || bounds.stop.load(Ordering::Relaxed) {
                return None;
            }
            walk.fresh.clear();
            for node in self.neighbours(next.node, level) {
                if walk.visited.add(node) {
                    self.prefetch(node);
                    walk.fresh.push(node);
                }
            }
            for place in 0..walk.fresh.len() {
                let Some(found) = walk.fresh.get(place).and_then(|node| self.found(aim, *node)) else {
                    continue;
                };
                // Only copies are linked with what has their code.
                if found.nearness == next.nearness && self.are_twins(found.node, next.node) {
                    walk.copies.push(found.node);
                    continue;
                }
                if walk.floor(bounds.effort).is_some_and(|floor| found.nearness <= floor) {
                    continue;
                }
                walk.open.push(found);
                if wanted(found.node) {
                    walk.keep(found, bounds.effort);
                }
            }
            self.gather(walk, next.nearness, bounds, &mut wanted);
        }
        let mut found: Vec<Found> = walk.found.drain().map(|Reverse(found)| found).collect();
        found.sort_unstable_by(|left, right| right.cmp(left));
        Some(found)
    }

    /// Keeps copies of a node, and those that hang under them.
    fn gather(
        &self,
        walk: &mut Walk,
        nearness: f64,
        bounds: Bounds<'_>,
        wanted: &mut impl FnMut(Node) -> bool,
    ) {
        let mut left = bounds.copies;
        while left > 0
            && walk.visited.count <= bounds.nodes
            && walk.floor(bounds.effort).is_none_or(|floor| nearness > floor)
            && let Some(node) = walk.copies.pop()
        {
            if wanted(node) {
                walk.keep(Found { nearness, node }, bounds.effort);
                left -= 1;
            }
            for copy in self.neighbours(node, 0) {
                if walk.visited.add(copy) {
                    walk.copies.push(copy);
                }
            }
        }
        walk.copies.clear();
    }
}

impl Walk {
    fn begin(&mut self, nodes: usize) {
        self.open.clear();
        self.found.clear();
        self.copies.clear();
        self.visited.begin(nodes);
    }

    fn keep(&mut self, found: Found, effort: usize) {
        self.found.push(Reverse(found));
        if self.found.len() > effort {
            self.found.pop();
        }
    }

    /// What does not come nearer than this is of no use; none: any is.
    fn floor(&self, effort: usize) -> Option<f64> {
        let farthest = self.found.peek().filter(|_| self.found.len() >= effort);
        farthest.map(|Reverse(farthest)| farthest.nearness)
    }
}

impl Visited {
    fn begin(&mut self, nodes: usize) {
        self.count = 0;
        self.stamps.resize(self.stamps.len().max(nodes), 0);
        self.walk = self.walk.wrapping_add(1);
        if self.walk == 0 {
            self.stamps.fill(0);
            self.walk = 1;
        }
    }

    /// True the first time. A node beyond those of the walk was never new.
    fn add(&mut self, node: Node) -> bool {
        let walk = self.walk;
        let Some(stamp) = self.stamps.get_mut(node.0 as usize).filter(|stamp| **stamp != walk) else {
            return false;
        };
        *stamp = walk;
        self.count += 1;
        true
    }
}
