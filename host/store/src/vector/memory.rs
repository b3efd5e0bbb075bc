//! The codes of an index in memory.
//!
//! A reader has a read transaction and a view; the *moment* of the transaction says which slots of the view it sees. So a
//! reader sees exactly the vectors of its transaction, and waits for nobody. New views are made by the committer, which
//! shows new blocks in the commit that makes them count and afterwards puts blocks together, and by the builder of the
//! graph, to which the first blocks of a view belong: those stay as they are until another graph takes over with blocks of
//! its own.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{
    block::{Block, Row},
    graph::{Build, Graph, Plan},
    limits::{BLOCK_VECTORS, DEAD_PERCENT},
};

/// Which vectors a read transaction sees: those of the slots before `next_slot` that had not died at `sequence`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) sequence: u64,
    pub(super) next_slot: u64,
}

/// The memory of an index.
#[derive(Debug)]
pub(crate) struct Memory {
    view: RwLock<Arc<View>>,
    /// The committer's: vectors of the commit under way.
    arrived: Mutex<Vec<Row>>,
    /// Held while a view is made from the one before it, or a vector dies; a short time always.
    pub(super) turn: Mutex<Turn>,
    pub(super) plan: Plan,
    /// The builder's.
    pub(super) build: Mutex<Build>,
}

/// What only one thread at a time may change.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The change in which somebody died last.
    died: u64,
    /// The same of those that are committed: every transaction that begins from now on knows these deaths.
    settled: u64,
    /// Blocks of a graph that will take the place of the one in the view. Who dies, dies in both.
    pub(super) next: Vec<Arc<Block>>,
}

/// All vectors at a time, in the order of their slots.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Grows when the dead are left out. A view of the same generation before and after a transaction began has all that
    /// the transaction sees.
    pub(super) generation: u64,
    pub(super) blocks: Vec<Arc<Block>>,
    /// Of the first blocks.
    pub(super) graph: Option<Graph>,
}

impl Memory {
    /// Of the vectors that were loaded, in the order of their slots.
    pub(super) fn new(blocks: Vec<Block>, plan: Plan) -> Self {
        let blocks = blocks.into_iter().map(Arc::new).collect();
        Self {
            view: RwLock::new(Arc::new(View { blocks, ..View::default() })),
            arrived: Mutex::default(),
            turn: Mutex::default(),
            plan,
            build: Mutex::default(),
        }
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// Shows another view. Only for who has the turn since before it read the present one.
    pub(super) fn show(&self, _turn: &mut Turn, view: View) {
        *self.view.write() = Arc::new(view);
    }

    /// For the committer: a vector with a slot after all others.
    pub(super) fn add(&self, row: Row) {
        self.arrived.lock().push(row);
    }

    /// For the committer: the vector in this slot dies with this change.
    pub(super) fn remove(&self, slot: u64, sequence: u64) {
        let mut arrived = self.arrived.lock();
        if let Ok(position) = arrived.binary_search_by_key(&slot, |row| row.slot) {
            // Nobody has seen it.
            arrived.remove(position);
            return;
        }
        let mut turn = self.turn.lock();
        turn.died = sequence;
        Block::remove(&self.view().blocks, slot, sequence);
        Block::remove(&turn.next, slot, sequence);
    }

    /// For the committer, before the commit: shows what arrived.
    pub(super) fn publish(&self) {
        let arrived = std::mem::take(&mut *self.arrived.lock());
        if arrived.is_empty() {
            return;
        }
        let blocks: Vec<_> = arrived.chunks(BLOCK_VECTORS).map(|rows| Arc::new(Block::of(rows))).collect();
        let mut turn = self.turn.lock();
        let mut view = self.view().again();
        view.blocks.extend(blocks);
        self.show(&mut turn, view);
    }

    /// For the committer, after the commit: puts small blocks together and leaves the dead out, behind the blocks of the
    /// graph. Each living vector is copied a bounded number of times for what is added or removed beside it.
    pub(super) fn tidy(&self) {
        let mut turn = self.turn.lock();
        turn.settled = turn.died;
        let settled = turn.settled;
        let before = self.view();
        let kept = before.graph.as_ref().map_or(0, |graph| graph.frozen);
        let mut changed = false;
        let mut blocks: Vec<Arc<Block>> = Vec::with_capacity(before.blocks.len());
        blocks.extend(before.blocks.iter().take(kept).cloned());
        for block in before.blocks.iter().skip(kept) {
            let mut block = Arc::clone(block);
            if block.dead() * 100 > block.len() * DEAD_PERCENT {
                block = Arc::new(Block::living(&[block], settled));
                changed = true;
            }
            while blocks.len() > kept
                && let Some(last) = blocks.pop_if(|last| last.goes_with(&block))
            {
                block = Arc::new(Block::living(&[last, block], settled));
                changed = true;
            }
            if block.len() > 0 {
                blocks.push(block);
            }
        }
        if changed {
            let generation = before.generation + 1;
            self.show(&mut turn, View { generation, blocks, graph: before.graph.clone() });
        }
    }

    /// Bytes, nearly, with those of a graph that is being built.
    pub(super) fn bytes(&self) -> usize {
        // Counted without the turn, for which commits wait.
        let next = self.turn.lock().next.clone();
        self.view().bytes() + next.iter().map(|block| block.bytes()).sum::<usize>()
    }
}

impl Turn {
    /// The change up to which deaths are committed.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }
}

impl View {
    /// The same, to be changed.
    pub(super) fn again(&self) -> Self {
        Self { generation: self.generation, blocks: self.blocks.clone(), graph: self.graph.clone() }
    }

    /// Bytes in memory, nearly.
    pub(super) fn bytes(&self) -> usize {
        let walks = self.graph.as_ref().map_or(0, Graph::bytes);
        walks + self.blocks.iter().map(|block| block.bytes()).sum::<usize>()
    }

    /// Vectors that are found by the graph.
    pub(super) fn graph_vectors(&self) -> usize {
        self.graph.as_ref().map_or(0, |graph| graph.alive(&self.blocks))
    }

    /// Vectors in memory, the dead too.
    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::vector::{
        Metric,
        code::{Code, Fact},
        metadata::Cell,
        space::Space,
    };

    fn memory(exact_up_to: usize) -> Memory {
        let space = Space::new(Metric::Euclidean, 3);
        Memory::new(Vec::new(), Plan { space, exact_up_to, builder: Arc::default() })
    }

    fn row(slot: u64) -> Row {
        let code = Code { numbers: vec![slot as i8; 3], fact: Fact { scale: 1.0, norm: slot as f64 } };
        Row { slot, code, namespace: Some(slot.to_string().into()), cells: vec![Cell::Number(slot as f64)] }
    }

    fn seen(view: &View, moment: Moment) -> Vec<u64> {
        let mut found = Vec::new();
        for block in &view.blocks {
            block.scan(moment, |seen| {
                assert_eq!(seen.code, [seen.slot as i8; 3]);
                assert_eq!(seen.fact.norm, seen.slot as f64);
                assert_eq!(seen.namespace, Some(seen.slot.to_string().as_str()));
                assert_eq!(seen.cells, [Cell::Number(seen.slot as f64)]);
                found.push(seen.slot);
            });
        }
        found
    }

    /// Commits of random vectors added and removed, while a graph of them is built, if there is to be one. Every moment that
    /// a reader may still hold sees its own vectors, and memory stays near to what lives.
    fn churn(exact_up_to: usize, rounds: u64) {
        let memory = memory(exact_up_to);
        let mut state = 1u64;
        let mut random = |most: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % most
        };
        let mut living: BTreeMap<u64, ()> = BTreeMap::new();
        let mut moment = Moment::default();
        let mut held: Option<(Arc<View>, Moment, Vec<u64>)> = None;
        let (mut graphs, mut renewed) = (0, 0);
        for round in 0..rounds {
            let before = (moment, living.keys().copied().collect::<Vec<_>>());
            moment.sequence += 1;
            let added = [1, 1, 3, 700][random(4) as usize];
            for _ in 0..added {
                memory.add(row(moment.next_slot));
                living.insert(moment.next_slot, ());
                moment.next_slot += 1;
            }
            let removed = if living.len() > 5_000 { 2_000 } else { random(3) };
            for _ in 0..removed {
                let slots: Vec<u64> =
                    living.range(random(moment.next_slot)..).take(1).map(|(slot, ())| *slot).collect();
                for slot in slots {
                    living.remove(&slot);
                    memory.remove(slot, moment.sequence);
                }
            }
            memory.publish();
            for _ in 0..random(3) {
                memory.step();
            }
            // Before the commit, a reader sees what was there.
            assert_eq!(seen(&memory.view(), before.0), before.1);
            let generation = memory.view().generation;
            memory.tidy();
            for _ in 0..random(3) {
                memory.step();
            }
            let view = memory.view();
            let now: Vec<u64> = living.keys().copied().collect();
            assert_eq!(seen(&view, moment), now);
            if let Some((view, moment, slots)) = &held {
                assert_eq!(seen(view, *moment), *slots);
            }
            if round % 50 == 0 {
                held = Some((Arc::clone(&view), moment, now));
            }
            match &view.graph {
                Some(_) => {
                    graphs += 1;
                    renewed += u64::from(view.generation != generation);
                }
                None => {
                    assert!(view.len() * (100 - DEAD_PERCENT) <= living.len().max(1) * 100, "{}", view.len());
                    assert!(view.blocks.len() <= 4 * (view.len() / BLOCK_VECTORS) + 24);
                }
            }
        }
        while memory.step() {}
        // What is behind the blocks of the graph waits for the next commit.
        memory.tidy();
        let view = memory.view();
        assert!(view.len() * (100 - DEAD_PERCENT) <= living.len().max(1) * 100, "{}", view.len());
        assert!(exact_up_to > 10_000 || (graphs > rounds / 4 && renewed > 3), "{graphs} {renewed}");
    }

    #[test]
    fn every_moment_sees_its_vectors_and_churn_leaves_nothing() {
        churn(usize::MAX, 600);
    }

    #[test]
    fn the_same_holds_while_a_graph_is_built_and_renewed() {
        churn(1_000, 60);
    }

    /// A new graph takes over between the death of many and the commit that makes it count.
    #[test]
    fn who_dies_in_a_commit_under_way_is_seen_until_then() {
        let memory = memory(100);
        let before = Moment { sequence: 1, next_slot: 400 };
        (0..400).for_each(|slot| memory.add(row(slot)));
        memory.publish();
        memory.tidy();
        while memory.step() {}
        (0..200).for_each(|slot| memory.remove(slot, 2));
        let generation = memory.view().generation;
        while memory.view().generation == generation {
            assert!(memory.step());
        }
        assert_eq!(seen(&memory.view(), before), (0..400).collect::<Vec<_>>());
        memory.tidy();
        while memory.step() {}
        let (view, after) = (memory.view(), Moment { sequence: 2, next_slot: 400 });
        assert_eq!(seen(&view, after), (200..400).collect::<Vec<_>>());
        assert_eq!((view.len(), view.graph_vectors()), (200, 200));
    }

    #[test]
    fn what_comes_and_goes_in_one_commit_is_never_seen() {
        let memory = memory(usize::MAX);
        for slot in 0..3 {
            memory.add(row(slot));
        }
        memory.remove(1, 1);
        memory.publish();
        assert_eq!(seen(&memory.view(), Moment { sequence: 1, next_slot: 3 }), [0, 2]);
        assert_eq!(seen(&memory.view(), Moment::default()), [0; 0]);
    }
}
