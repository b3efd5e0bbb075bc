//! The codes of an index in memory.
//!
//! Blocks never change but for one thing: a vector's time of death. The committer alone makes new blocks, and shows them
//! in a new view before the commit that makes them count. A reader has a read transaction and a view; the *moment* of the
//! transaction says which slots of the view it sees. So a reader sees exactly the vectors of its transaction, and neither
//! waits for the other.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::{Mutex, RwLock};

use super::{
    code::{Code, Fact},
    limits::{BLOCK_VECTORS, DEAD_PERCENT},
    metadata::Cell,
};

/// Which vectors a read transaction sees: those of the slots before `next_slot` that had not died at `sequence`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) sequence: u64,
    pub(super) next_slot: u64,
}

/// A vector as it is in memory.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) slot: u64,
    pub(super) code: Code,
    pub(super) namespace: Option<Arc<str>>,
    pub(super) cells: Vec<Cell>,
}

/// The memory of an index.
#[derive(Debug)]
pub(crate) struct Memory {
    view: RwLock<Arc<View>>,
    /// The committer's: vectors of the commit under way.
    arrived: Mutex<Vec<Row>>,
}

/// All vectors at a time, in the order of their slots.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Grows when the dead are left out. A view of the same generation before and after a transaction began has all that
    /// the transaction sees.
    pub(super) generation: u64,
    pub(super) blocks: Vec<Arc<Block>>,
}

/// A number of vectors.
#[derive(Debug, Default)]
pub(super) struct Block {
    slots: Vec<u64>,
    codes: Vec<i8>,
    facts: Vec<Fact>,
    namespaces: Vec<Option<Arc<str>>>,
    /// For each vector, of each indexed property.
    cells: Vec<Cell>,
    /// The sequence of the change that removed it; 0: none.
    died: Vec<AtomicU64>,
    dead: AtomicUsize,
}

/// A vector that a scan comes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) slot: u64,
    pub(super) code: &'a [i8],
    pub(super) fact: Fact,
    pub(super) namespace: Option<&'a str>,
    pub(super) cells: &'a [Cell],
}

impl Memory {
    /// Of the vectors that were loaded, in the order of their slots.
    pub(super) fn new(blocks: Vec<Block>) -> Self {
        let blocks = blocks.into_iter().map(Arc::new).collect();
        Self { view: RwLock::new(Arc::new(View { generation: 0, blocks })), arrived: Mutex::default() }
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
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
        let view = self.view();
        let after =
            view.blocks.partition_point(|block| block.slots.first().is_some_and(|first| *first <= slot));
        if let Some(block) = after.checked_sub(1).and_then(|position| view.blocks.get(position)) {
            block.remove(slot, sequence);
        }
    }

    /// For the committer, before the commit: shows what arrived.
    pub(super) fn publish(&self) {
        let arrived = std::mem::take(&mut *self.arrived.lock());
        if arrived.is_empty() {
            return;
        }
        let before = self.view();
        let mut blocks = before.blocks.clone();
        blocks.extend(arrived.chunks(BLOCK_VECTORS).map(|rows| Arc::new(Block::of(rows))));
        *self.view.write() = Arc::new(View { generation: before.generation, blocks });
    }

    /// For the committer, after the commit: puts small blocks together and leaves the dead out. Each living vector is
    /// copied a bounded number of times for what is added or removed beside it.
    pub(super) fn tidy(&self) {
        let before = self.view();
        let mut changed = false;
        let mut blocks: Vec<Arc<Block>> = Vec::with_capacity(before.blocks.len());
        for block in &before.blocks {
            let mut block = Arc::clone(block);
            if block.dead() * 100 > block.len() * DEAD_PERCENT {
                block = Arc::new(Block::living(&[&block]));
                changed = true;
            }
            while let Some(last) = blocks.pop_if(|last| last.goes_with(&block)) {
                block = Arc::new(Block::living(&[&last, &block]));
                changed = true;
            }
            if block.len() > 0 {
                blocks.push(block);
            }
        }
        if changed {
            *self.view.write() = Arc::new(View { generation: before.generation + 1, blocks });
        }
    }
}

impl View {
    /// Bytes in memory, nearly.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes()).sum()
    }

    /// Vectors in memory, the dead too.
    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum()
    }
}

impl Block {
    pub(super) fn of(rows: &[Row]) -> Self {
        let mut block = Self::default();
        for row in rows {
            block.push(Seen {
                slot: row.slot,
                code: &row.code.numbers,
                fact: row.code.fact,
                namespace: None,
                cells: &row.cells,
            });
            block.namespaces.push(row.namespace.clone());
        }
        block
    }

    /// The living of some blocks. The committer kills nobody meanwhile.
    fn living(blocks: &[&Arc<Self>]) -> Self {
        let mut living = Self::default();
        for block in blocks {
            let each = block.each();
            for (position, namespace) in block.namespaces.iter().enumerate() {
                if let Some(seen) = block.seen(position, each).filter(|_| block.died_at(position) == 0) {
                    living.push(seen);
                    living.namespaces.push(namespace.clone());
                }
            }
        }
        living
    }

    /// Everything but the namespace, which its owner shares.
    fn push(&mut self, seen: Seen<'_>) {
        self.slots.push(seen.slot);
        self.codes.extend_from_slice(seen.code);
        self.facts.push(seen.fact);
        self.cells.extend_from_slice(seen.cells);
        self.died.push(AtomicU64::new(0));
    }

    fn remove(&self, slot: u64, sequence: u64) {
        let Ok(position) = self.slots.binary_search(&slot) else { return };
        if let Some(died) = self.died.get(position) {
            died.store(sequence, Ordering::Release);
            self.dead.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Comes by every vector that the moment sees.
    pub(super) fn scan<'a>(&'a self, moment: Moment, mut visit: impl FnMut(Seen<'a>)) {
        let each = self.each();
        for position in 0..self.len() {
            if self.is_seen(position, moment)
                && let Some(seen) = self.seen(position, each)
            {
                visit(seen);
            }
        }
    }

    /// Numbers of a code, and indexed properties, of each vector.
    fn each(&self) -> [usize; 2] {
        [self.codes.len(), self.cells.len()].map(|length| length.checked_div(self.len()).unwrap_or(0))
    }

    fn is_seen(&self, position: usize, moment: Moment) -> bool {
        let died = self.died_at(position);
        let slot = self.slots.get(position).copied().unwrap_or(u64::MAX);
        slot < moment.next_slot && (died == 0 || died > moment.sequence)
    }

    fn died_at(&self, position: usize) -> u64 {
        self.died.get(position).map_or(1, |died| died.load(Ordering::Acquire))
    }

    fn seen(&self, position: usize, [numbers, cells]: [usize; 2]) -> Option<Seen<'_>> {
        Some(Seen {
            slot: *self.slots.get(position)?,
            code: self.codes.get(position * numbers..(position + 1) * numbers)?,
            fact: *self.facts.get(position)?,
            namespace: self.namespaces.get(position)?.as_deref(),
            cells: self.cells.get(position * cells..(position + 1) * cells)?,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn dead(&self) -> usize {
        self.dead.load(Ordering::Relaxed)
    }

    /// Whether it is put together with the next: they fit into one block, and the next is not much smaller. Else each
    /// vector that arrives alone would have a large block copied.
    fn goes_with(&self, next: &Self) -> bool {
        let [this, next] = [self, next].map(|block| block.len() - block.dead());
        this + next <= BLOCK_VECTORS && 2 * next >= this
    }

    fn bytes(&self) -> usize {
        let namespaces = self.namespaces.iter().flatten().map(|namespace| namespace.len()).sum::<usize>();
        let each =
            size_of::<u64>() + size_of::<Fact>() + size_of::<Option<Arc<str>>>() + size_of::<AtomicU64>();
        self.codes.len() + self.len() * each + namespaces + self.cells.iter().map(Cell::size).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

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

    /// Commits of random vectors added and removed. Every moment that a reader may still hold sees its own vectors, and
    /// memory stays near to what lives.
    #[test]
    fn every_moment_sees_its_vectors_and_churn_leaves_nothing() {
        let memory = Memory::new(Vec::new());
        let mut state = 1u64;
        let mut random = |most: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % most
        };
        let mut living: BTreeMap<u64, ()> = BTreeMap::new();
        let mut moment = Moment::default();
        let mut held: Option<(Arc<View>, Moment, Vec<u64>)> = None;
        for round in 0..600 {
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
            // Before the commit, a reader sees what was there.
            assert_eq!(seen(&memory.view(), before.0), before.1);
            memory.tidy();
            let view = memory.view();
            let now: Vec<u64> = living.keys().copied().collect();
            assert_eq!(seen(&view, moment), now);
            assert!(view.len() * (100 - DEAD_PERCENT) <= living.len().max(1) * 100, "{}", view.len());
            assert!(view.blocks.len() <= 4 * (view.len() / BLOCK_VECTORS) + 24, "{}", view.blocks.len());
            if let Some((view, moment, slots)) = &held {
                assert_eq!(seen(view, *moment), *slots);
            }
            if round % 50 == 0 {
                held = Some((view, moment, now));
            }
        }
    }

    #[test]
    fn what_comes_and_goes_in_one_commit_is_never_seen() {
        let memory = Memory::new(Vec::new());
        for slot in 0..3 {
            memory.add(row(slot));
        }
        memory.remove(1, 1);
        memory.publish();
        assert_eq!(seen(&memory.view(), Moment { sequence: 1, next_slot: 3 }), [0, 2]);
        assert_eq!(seen(&memory.view(), Moment::default()), [0; 0]);
    }
}
