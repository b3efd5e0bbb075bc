//! How a node comes into a graph.

use std::sync::atomic::AtomicBool;

use super::{
    Entry,
    links::{room, scatter},
    nodes::{Found, Node, Nodes},
    walk::{Bounds, Walk},
};
use crate::vector::{
    limits::{BUILD_EFFORT, LINKS, TWINS},
    space::Aim,
};

/// A node that may be linked with another.
#[derive(Clone, Copy)]
struct Chosen<'a> {
    found: Found,
    aim: Aim<'a>,
    /// It has the same code, so that it says nothing about where others lie.
    twin: bool,
}

impl Nodes<'_> {
    /// Links a node with those that are near it, and them with it; the entry afterwards. One thread at a time. `stop` leaves
    /// the node with fewer links than it could have.
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
        for level in (0..=level.min(before.level)).rev() {
            let bounds = Bounds { effort: BUILD_EFFORT, nodes: usize::MAX, stop };
            // Not itself, if it was begun before.
            let Some(near) = self.walk(walk, aim, from, level, bounds, |found| found != node) else { break };
            from = near.first().copied().unwrap_or(from);
            let chosen = self.choose(node, aim, near, LINKS);
            links.set(node.position(), level, chosen.iter().map(|found| found.node));
            for found in chosen {
                self.link(found.node, Found { nearness: found.nearness, node }, level);
            }
        }
        if level > before.level { Some(Entry { node, level }) } else { entry }
    }

    /// Links a node with a new one. When it has no more room, it chooses again.
    fn link(&self, node: Node, new: Found, level: usize) {
        let (Some(aim), Some(links)) = (self.aim(node), self.links(node)) else { return };
        let known = links.of(node.position(), level).any(|neighbour| neighbour == new.node);
        if known || links.add(node.position(), level, new.node) {
            return;
        }
        let before = self.neighbours(node, level).filter_map(|neighbour| self.found(aim, neighbour));
        let chosen = self.choose(node, aim, before.chain([new]).collect(), room(level));
        links.set(node.position(), level, chosen.iter().map(|found| found.node));
    }

    /// Of some nodes those to link with: the nearest, without those that are nearer to another one chosen than to the node
    /// itself, since a walk comes to them from there. So links lead into all directions.
    fn choose(&self, node: Node, aim: Aim<'_>, mut near: Vec<Found>, most: usize) -> Vec<Found> {
        // Of the equally near by chance, or all would choose the same, and some would be chosen by nobody.
        let chance = |found: &Found| scatter(u64::from(found.node.0) << 32 | u64::from(node.0));
        near.sort_unstable_by(|left, right| {
            right.nearness.total_cmp(&left.nearness).then_with(|| chance(left).cmp(&chance(right)))
        });
        let mut chosen: Vec<Chosen<'_>> = Vec::with_capacity(most);
        let mut twins = 0;
        for found in near {
            if chosen.len() == most {
                break;
            }
            let Some(own) = self.aim(found.node) else { continue };
            let twin = own.code == aim.code && own.fact == aim.fact;
            let nearer =
                |other: &Chosen<'_>| !other.twin && self.space.nearness(other.aim, own) > found.nearness;
            if twin {
                twins += 1;
            }
            if (twin && twins <= TWINS) || (!twin && !chosen.iter().any(nearer)) {
                chosen.push(Chosen { found, aim: own, twin });
            }
        }
        chosen.into_iter().map(|chosen| chosen.found).collect()
    }
}
