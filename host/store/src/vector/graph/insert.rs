//! How a node comes into a graph.

use std::sync::atomic::AtomicBool;

use super::{
    Entry,
    links::{room, scatter},
    nodes::{Found, Node, Nodes},
    walk::{Bounds, Walk},
};
use crate::vector::{
    limits::{BUILD_EFFORT, LINKS, LINKS_LEAST, TWINS},
    space::Aim,
};

impl Nodes<'_> {
    /// Links a node with those that are near it, and them with it; the entry afterwards. One thread at a time. `stop` leaves
    /// the node without links.
    pub(super) fn insert(
        &self,
        walk: &mut Walk,
        entry: Option<Entry>,
        node: Node,
        stop: &AtomicBool,
    ) -> Option<Entry> {
        let (Some(aim), Some(links)) = (self.aim(node), self.links(node)) else { return entry };
        let level = links.level(node.position());
        let Some(before) = entry else { return Some(Entry { node, level }) };
        let Some(mut from) = self.descend(aim, before, level) else { return entry };
        let mut levels = Vec::with_capacity(level + 1);
        for level in (0..=level.min(before.level)).rev() {
            let bounds = Bounds { effort: BUILD_EFFORT, nodes: usize::MAX, copies: 0, stop };
            // Not itself, if it was begun before.
            let Some(near) = self.walk(walk, aim, from, level, bounds, |found| found != node) else {
                return entry;
            };
            from = near.first().copied().unwrap_or(from);
            levels.push((level, near));
        }
        let mut near = levels.iter().flat_map(|(_, near)| near);
        if let Some(twin) = near.find(|found| self.are_twins(found.node, node)) {
            self.hang(twin.node, node);
            return entry;
        }
        for (level, near) in levels {
            let chosen = self.choose(node, near, LINKS);
            links.set(node.position(), level, chosen.iter().map(|found| found.node));
            for found in chosen {
                self.link(found.node, Found { nearness: found.nearness, node }, level);
            }
        }
        if level > before.level { Some(Entry { node, level }) } else { entry }
    }

    /// Hangs a copy under the first node of its code, or under another copy, on the lowest level. Nothing else leads to
    /// copies, and nothing from them to others: however many there are, they take no place among what is near.
    fn hang(&self, first: Node, node: Node) {
        let mut above = first;
        loop {
            // Only down to later ones, so that it ends.
            let under =
                self.neighbours(above, 0).filter(|copy| *copy > above && self.are_twins(above, *copy));
            let mut copies: Vec<Node> = under.collect();
            if copies.contains(&node) {
                return;
            }
            if copies.len() < TWINS {
                break;
            }
            copies.sort_unstable();
            let pick = scatter(u64::from(above.0) << 32 | u64::from(node.0)) % copies.len() as u64;
            let Some(copy) = copies.get(pick as usize) else { return };
            above = *copy;
        }
        let found = self.aim(above).and_then(|aim| self.found(aim, node));
        if let Some(found) = found {
            self.link(above, found, 0);
        }
    }

    /// Links a node with a new one. When it has no more room, it chooses again.
    fn link(&self, node: Node, new: Found, level: usize) {
        let (Some(aim), Some(links)) = (self.aim(node), self.links(node)) else { return };
        let known = links.of(node.position(), level).any(|neighbour| neighbour == new.node);
        if known || links.add(node.position(), level, new.node) {
            return;
        }
        let before = self.neighbours(node, level).filter_map(|neighbour| self.found(aim, neighbour));
        let chosen = self.choose(node, before.chain([new]).collect(), room(level));
        links.set(node.position(), level, chosen.iter().map(|found| found.node));
    }

    /// Of some nodes those to link with: its copies, and the nearest without those that are nearer to another one chosen
    /// than to the node itself, since a walk comes to them from there. So links lead into all directions. What is near to
    /// all, as a long vector by dot products, would leave no others: then it is chosen again from those left out.
    fn choose(&self, node: Node, near: Vec<Found>, most: usize) -> Vec<Found> {
        let copy = |found: &Found| self.are_twins(found.node, node);
        let (mut chosen, mut left): (Vec<Found>, Vec<Found>) = near.into_iter().partition(copy);
        let most = most.saturating_sub(chosen.len());
        // Of the equally near by chance, or all would choose the same, and some would be chosen by nobody.
        let chance = |found: &Found| scatter(u64::from(found.node.0) << 32 | u64::from(node.0));
        left.sort_unstable_by(|left, right| {
            right.nearness.total_cmp(&left.nearness).then_with(|| chance(left).cmp(&chance(right)))
        });
        let copies = chosen.len();
        while chosen.len() < copies + most.min(LINKS_LEAST) && !left.is_empty() {
            let most = copies + most - chosen.len();
            let mut round: Vec<(Found, Aim<'_>)> = Vec::with_capacity(most);
            left.retain(|found| {
                let Some(own) = self.aim(found.node) else { return false };
                let nearer =
                    |(_, other): &(Found, Aim<'_>)| self.space.nearness(*other, own) > found.nearness;
                if round.len() == most || round.iter().any(nearer) {
                    return true;
                }
                round.push((*found, own));
                false
            });
            chosen.extend(round.into_iter().map(|(found, _)| found));
        }
        chosen
    }
}
