//! What a query takes from the graph.

use std::sync::{Arc, atomic::AtomicBool};

use super::{
    Graph, Plan,
    links::scatter,
    nodes::{Found, Node, Nodes},
    walk::Bounds,
};
use crate::vector::{
    Metric,
    block::Block,
    limits::{
        CANDIDATES_EACH, CANDIDATES_MOST, EFFORT, EFFORT_GROWTH, EFFORT_VECTORS, SAMPLED_NODES, WALK_EACH,
        WALK_PART, WIDER,
    },
    memory::{Moment, View},
    search::Wanted,
    space::{Aim, Space},
};

/// A vector that may be one of the nearest.
#[derive(Clone, Copy, Debug)]
pub(in crate::vector) struct Candidate {
    pub(in crate::vector) slot: u64,
    pub(in crate::vector) nearness: f64,
    /// How far the nearness may be off.
    pub(in crate::vector) uncertainty: f64,
}

/// What a graph has for a query: candidates, and the blocks that need no scan.
#[derive(Debug)]
pub(in crate::vector) struct Answered {
    pub(in crate::vector) candidates: Vec<Candidate>,
    pub(in crate::vector) blocks: usize,
}

/// A query in a graph.
struct Query<'a> {
    graph: &'a Graph,
    nodes: Nodes<'a>,
    aim: Aim<'a>,
    wanted: &'a Wanted,
    moment: Moment,
    stop: &'a AtomicBool,
}

/// Candidates from the graph of a view; none: a scan finds them in less time, or there is no graph.
pub(in crate::vector) fn find(
    view: &View,
    plan: &Plan,
    wanted: &Wanted,
    moment: Moment,
    aim: Aim<'_>,
    stop: &AtomicBool,
) -> Option<Answered> {
    let graph = view.graph.as_ref()?;
    let blocks = view.blocks.get(..graph.frozen)?;
    let nodes = Nodes { blocks, space: plan.space };
    let query = Query { graph, nodes, aim, wanted, moment, stop };
    if query.matching() <= plan.scanned(graph.vectors) {
        return None;
    }
    let found = query.near()?;
    let candidates = found.into_iter().filter_map(|found| query.candidate(found)).collect();
    Some(Answered { candidates, blocks: graph.covered })
}

impl Query<'_> {
    /// Vectors of the graph that the query takes, nearly: by a sample when it does not take all.
    fn matching(&self) -> usize {
        let vectors = self.graph.vectors;
        if self.wanted.takes_all() {
            return vectors;
        }
        let covered = self.covered();
        let pick = |number: u64, of: usize| (scatter(number) % of.max(1) as u64) as usize;
        let taken = |number: &u64| {
            let block = covered.get(pick(2 * number, covered.len()));
            block.is_some_and(|block| self.takes(block, pick(2 * number + 1, block.len())))
        };
        vectors * (0..SAMPLED_NODES).filter(taken).count() / SAMPLED_NODES as usize
    }

    fn covered(&self) -> &[Arc<Block>] {
        self.nodes.blocks.get(..self.graph.covered).unwrap_or_default()
    }

    fn takes(&self, block: &Block, position: usize) -> bool {
        if self.wanted.takes_all() {
            return block.is_seen(position, self.moment);
        }
        block.look(position, self.moment).is_some_and(|seen| self.wanted.takes(&seen))
    }

    /// The nearest that a walk finds, nearest first, and those that are as near as far as rounded vectors can tell. None: it
    /// found fewer than it looked for, or came by so many that a scan would have been as quick.
    fn near(&self) -> Option<Vec<Found>> {
        let entry = self.graph.entry?;
        let from = self.nodes.descend(self.aim, entry, 0)?;
        let covered = self.covered();
        let wanted =
            |node: Node| covered.get(node.block()).is_some_and(|block| self.takes(block, node.position()));
        let mut effort = effort(self.nodes.space, self.graph.vectors, self.wanted.top_k);
        let mut walk = self.graph.walks.take();
        let found = loop {
            let nodes = (self.graph.vectors / WALK_PART).max(effort * WALK_EACH);
            let bounds = Bounds { effort, nodes, copies: self.wanted.top_k, stop: self.stop };
            let found = self.nodes.walk(&mut walk, self.aim, from, 0, bounds, wanted);
            // One that found fewer ran out of links, and tells nothing about what they do not lead to.
            let Some(found) = found.filter(|found| found.len() >= effort) else { break None };
            if effort >= CANDIDATES_MOST || self.is_certain(&found) {
                break Some(found);
            }
            effort = (effort * WIDER).min(CANDIDATES_MOST);
        };
        self.graph.walks.put(walk);
        found
    }

    /// Whether what is farther than all these cannot be one of those wanted, however it was rounded.
    fn is_certain(&self, found: &[Found]) -> bool {
        let at = |place: Option<usize>| self.candidate(*found.get(place?)?);
        let (Some(last), Some(farthest)) =
            (at(self.wanted.top_k.checked_sub(1)), at(found.len().checked_sub(1)))
        else {
            return true;
        };
        farthest.nearness + farthest.uncertainty < last.nearness - last.uncertainty
    }

    fn candidate(&self, found: Found) -> Option<Candidate> {
        let slot = self.nodes.blocks.get(found.node.block())?.slot(found.node.position())?;
        let fact = self.nodes.aim(found.node)?.fact;
        let uncertainty = self.nodes.space.uncertainty(self.aim.fact, fact);
        Some(Candidate { slot, nearness: found.nearness, uncertainty })
    }
}

/// How many of the nearest a walk keeps: enough for what is wanted, and more in larger graphs, whose walks pass by more.
fn effort(space: Space, vectors: usize, top_k: usize) -> usize {
    let growth = (vectors as f64 / EFFORT_VECTORS).max(1.0).powf(EFFORT_GROWTH);
    let least = if space.metric() == Metric::DotProduct { 2.0 * EFFORT } else { EFFORT };
    ((least * growth) as usize).max(top_k * CANDIDATES_EACH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effort_grows_with_the_vectors_and_with_what_is_wanted() {
        let [cosine, dot] = [Metric::Cosine, Metric::DotProduct].map(|metric| Space::new(metric, 3));
        let sizes = [20_000, 100_000, 500_000, 1_000_000, 10_000_000];
        assert_eq!(sizes.map(|vectors| effort(cosine, vectors, 10)), [96, 96, 191, 258, 695]);
        assert_eq!(effort(cosine, 20_000, 100), 300);
        assert_eq!(effort(dot, 20_000, 10), 192);
    }
}
