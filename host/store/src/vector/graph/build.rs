//! What is built: when a graph begins, grows, is made anew or goes, in steps of one block.

use std::{mem, sync::Arc};

use super::{
    Builder, Entry, Graph,
    nodes::{Node, Nodes},
    walk::Walk,
};
use crate::vector::{
    block::Block,
    limits::{BLOCK_VECTORS, DEAD_PERCENT, SCANNED_GROWTH},
    memory::{Memory, View},
    space::Space,
};

/// What the memory of an index knows about graphs.
#[derive(Clone, Debug)]
pub(in crate::vector) struct Plan {
    pub(in crate::vector) space: Space,
    /// There is no graph up to so many vectors.
    pub(in crate::vector) exact_up_to: usize,
    pub(in crate::vector) builder: Arc<Builder>,
}

/// What the builder remembers of an index.
#[derive(Debug, Default)]
pub(in crate::vector) struct Build {
    walk: Walk,
    /// While a graph is made anew.
    anew: Option<Anew>,
}

/// A graph that will take the place of another, with blocks of its own.
#[derive(Clone, Copy, Debug, Default)]
struct Anew {
    /// How many blocks of the other one were copied.
    copied: usize,
    entry: Option<Entry>,
    /// Too few are left: their blocks are copied for no graph.
    dissolved: bool,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// To take in another block.
    Extend,
    /// To leave out the dead.
    Renew,
}

impl Plan {
    /// So many of the vectors of a graph are scanned rather than walked to. It grows with the root of their number, since a
    /// walk passes by the more the fewer it may return, and a scan by all.
    pub(super) fn scanned(&self, vectors: usize) -> usize {
        let growth = (vectors as f64 / (self.exact_up_to as f64 * SCANNED_GROWTH)).max(1.0).sqrt();
        ((self.exact_up_to / 2) as f64 * growth) as usize
    }

    /// A block of more vectors is taken into the graph; a smaller one waits for others to be put together with.
    fn whole(&self) -> usize {
        self.exact_up_to.min(BLOCK_VECTORS) / 2
    }

    fn due(&self, view: &View) -> Option<Due> {
        let (frozen, behind) =
            view.blocks.split_at_checked(view.graph.as_ref().map_or(0, |graph| graph.frozen))?;
        let count = |blocks: &[Arc<Block>]| {
            blocks.iter().fold((0, 0), |(alive, all), block| (alive + block.alive(), all + block.len()))
        };
        let ((alive, all), (alive_behind, _)) = (count(frozen), count(behind));
        let living = alive + alive_behind;
        let Some(graph) = &view.graph else {
            return (living > self.exact_up_to && self.is_ready(behind)).then_some(Due::Extend);
        };
        if living < self.exact_up_to / 2 || (all - alive) * 100 > all * DEAD_PERCENT {
            return Some(Due::Renew);
        }
        (graph.covered < graph.frozen || self.is_ready(behind)).then_some(Due::Extend)
    }

    /// Whether the first of these blocks is whole, or will not become so because of those behind it.
    fn is_ready(&self, blocks: &[Arc<Block>]) -> bool {
        let all: usize = blocks.iter().map(|block| block.len()).sum();
        blocks.first().is_some_and(|block| block.len() > self.whole() || all > 4 * self.whole())
    }
}

impl Memory {
    /// Whether the builder has anything to do.
    pub(super) fn is_due(&self) -> bool {
        !self.plan.builder.is_closed() && self.plan.due(&self.view()).is_some()
    }

    /// For the builder: takes one step; false: there is none to take.
    pub(in crate::vector) fn step(&self) -> bool {
        if self.plan.builder.is_closed() {
            return false;
        }
        let mut build = self.build.lock();
        // Taken out, so that a step that panics leaves none behind that it had half made.
        let mut anew = match build.anew.take() {
            Some(anew) => anew,
            None => match self.plan.due(&self.view()) {
                None => return false,
                Some(Due::Extend) => {
                    self.extend(&mut build.walk);
                    return true;
                }
                Some(Due::Renew) => self.begin_anew(),
            },
        };
        if !self.renew(&mut build.walk, &mut anew) {
            build.anew = Some(anew);
        }
        true
    }

    /// Takes the next block into the graph.
    fn extend(&self, walk: &mut Walk) {
        let Some(view) = self.freeze() else { return };
        let Some(graph) = &view.graph else { return };
        let Some(blocks) = view.blocks.get(..graph.frozen) else { return };
        let entry = self.insert(walk, blocks, graph.entry);
        if self.plan.builder.is_closed() {
            return;
        }
        let mut turn = self.turn.lock();
        let mut view = self.view().again();
        if let Some(graph) = &mut view.graph {
            graph.covered = graph.frozen;
            graph.entry = entry;
            graph.vectors += blocks.last().map_or(0, |block| block.len());
        }
        self.show(&mut turn, view);
    }

    /// Gives the block behind those of the graph to it, unless it has one already that is not in it whole.
    fn freeze(&self) -> Option<Arc<View>> {
        let mut turn = self.turn.lock();
        let mut view = self.view().again();
        let mut graph = view.graph.take().unwrap_or_default();
        if graph.covered == graph.frozen {
            let blocks = view.blocks.get(graph.frozen..).filter(|blocks| self.plan.is_ready(blocks))?;
            blocks.first()?.link();
            graph.frozen += 1;
        }
        view.graph = Some(graph);
        self.show(&mut turn, view);
        Some(self.view())
    }

    /// Inserts the vectors of the last block.
    fn insert(&self, walk: &mut Walk, blocks: &[Arc<Block>], mut entry: Option<Entry>) -> Option<Entry> {
        let nodes = Nodes { blocks, space: self.plan.space };
        let last = blocks.len().checked_sub(1)?;
        for position in 0..blocks.get(last)?.len() {
            if self.plan.builder.is_closed() {
                break;
            }
            entry = nodes.insert(walk, entry, Node::new(last, position)?, self.plan.builder.closed());
        }
        entry
    }

    fn begin_anew(&self) -> Anew {
        // Of one that ended in a panic; freed without the turn.
        let left = mem::take(&mut self.turn.lock().next);
        drop(left);
        let alive: usize = self.view().blocks.iter().map(|block| block.alive()).sum();
        Anew { dissolved: alive < self.plan.exact_up_to / 2, ..Anew::default() }
    }

    /// Copies the living of some blocks of the graph into one for the next; true: that was the last step.
    fn renew(&self, walk: &mut Walk, anew: &mut Anew) -> bool {
        let next = {
            let mut turn = self.turn.lock();
            let view = self.view();
            let frozen = view.graph.as_ref().map_or(0, |graph| graph.frozen);
            let left = view.blocks.get(anew.copied..frozen).unwrap_or_default();
            // By all that they have: who died and is not settled is copied too.
            let mut vectors = 0;
            let fits = |block: &&Arc<Block>| {
                vectors += block.len();
                vectors <= BLOCK_VECTORS
            };
            let count = left.iter().take_while(fits).count();
            let block = Arc::new(Block::living(left.get(..count).unwrap_or_default(), turn.settled()));
            anew.copied += count;
            if block.len() == 0 {
                None
            } else {
                turn.next.push(block);
                Some(turn.next.clone())
            }
        };
        if let Some(blocks) = next.filter(|_| !anew.dissolved) {
            if let Some(block) = blocks.last() {
                block.link();
            }
            anew.entry = self.insert(walk, &blocks, anew.entry);
        }
        self.replace(*anew)
    }

    /// Has the graph that was made anew take over, once it is whole.
    fn replace(&self, anew: Anew) -> bool {
        // Dropped after the turn: commits need not wait until the old graph is freed.
        let view;
        let mut turn = self.turn.lock();
        view = self.view();
        let frozen = view.graph.as_ref().map_or(0, |graph| graph.frozen);
        if anew.copied < frozen || self.plan.builder.is_closed() {
            return false;
        }
        let mut blocks = mem::take(&mut turn.next);
        let graph = Graph {
            frozen: blocks.len(),
            covered: blocks.len(),
            vectors: blocks.iter().map(|block| block.len()).sum(),
            entry: anew.entry,
            ..Graph::default()
        };
        blocks.extend(view.blocks.iter().skip(frozen).cloned());
        let graph = (!anew.dissolved).then_some(graph);
        self.show(&mut turn, View { generation: view.generation + 1, blocks, graph });
        true
    }
}
