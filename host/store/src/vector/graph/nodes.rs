//! The nodes of a graph, and how near they are to one another.

use std::{cmp::Ordering, sync::Arc};

use super::links::Links;
use crate::vector::{
    block::Block,
    limits::BLOCK_VECTORS,
    space::{Aim, Space},
};

/// A vector of the graph: the number of its block, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(pub(super) u32);

impl Node {
    /// None beyond what a graph can have.
    pub(super) fn new(block: usize, position: usize) -> Option<Self> {
        let number = u32::try_from(block * BLOCK_VECTORS + position).ok()?;
        // The last number stands for no link.
        (number < u32::MAX).then_some(Self(number))
    }

    pub(super) fn block(self) -> usize {
        self.0 as usize / BLOCK_VECTORS
    }

    pub(super) fn position(self) -> usize {
        self.0 as usize % BLOCK_VECTORS
    }
}

/// A node that a walk has come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) nearness: f64,
    pub(super) node: Node,
}

impl Eq for Found {}

/// The nearer is the greater.
impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nearness.total_cmp(&other.nearness).then(self.node.cmp(&other.node))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The nodes of some blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nodes<'a> {
    pub(super) blocks: &'a [Arc<Block>],
    pub(super) space: Space,
}

impl<'a> Nodes<'a> {
    pub(super) fn aim(&self, node: Node) -> Option<Aim<'a>> {
        let (code, fact) = self.blocks.get(node.block())?.code(node.position(), self.space.dimensions())?;
        Some(Aim { code, fact })
    }

    pub(super) fn found(&self, aim: Aim<'_>, node: Node) -> Option<Found> {
        Some(Found { nearness: self.space.nearness(aim, self.aim(node)?), node })
    }

    /// The links of its block; none: it is not of these nodes.
    pub(super) fn links(&self, node: Node) -> Option<&'a Links> {
        self.blocks.get(node.block())?.links()
    }

    /// Who a node is linked with on a level.
    pub(super) fn neighbours(&self, node: Node, level: usize) -> impl Iterator<Item = Node> + 'a {
        self.links(node).into_iter().flat_map(move |links| links.of(node.position(), level))
    }

    /// Whether nodes have the same code: they are as near to whatever there is.
    pub(super) fn are_twins(&self, left: Node, right: Node) -> bool {
        let [left, right] = [left, right].map(|node| self.aim(node));
        left.zip(right).is_some_and(|(left, right)| left.fact == right.fact && left.code == right.code)
    }

    /// Has the processor read what a node is compared by.
    pub(super) fn prefetch(&self, node: Node) {
        if let Some(aim) = self.aim(node) {
            self.space.prefetch(aim);
        }
    }
}
