//! Blocks: some vectors in memory, in the order of their slots.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{
    code::{Code, Fact},
    graph::Links,
    limits::BLOCK_VECTORS,
    memory::Moment,
    metadata::Cell,
};

/// A vector as it is in memory.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) slot: u64,
    pub(super) code: Code,
    pub(super) namespace: Option<Arc<str>>,
    pub(super) cells: Vec<Cell>,
}

/// A number of vectors. They never change but for their time of death.
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
    /// Once the block belongs to a graph.
    links: OnceLock<Links>,
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

impl Block {
    pub(super) fn of(rows: &[Row]) -> Self {
        let mut block = Self::default();
        for row in rows {
            let seen = Seen {
                slot: row.slot,
                code: &row.code.numbers,
                fact: row.code.fact,
                namespace: None,
                cells: &row.cells,
            };
            block.push(seen, row.namespace.clone(), 0);
        }
        block
    }

    /// Some blocks as one, without whom no transaction sees that begins from now on: those who died up to the change
    /// `settled`. Nobody dies meanwhile.
    pub(super) fn living(blocks: &[Arc<Self>], settled: u64) -> Self {
        let mut living = Self::default();
        for block in blocks {
            let each = block.each();
            for (position, namespace) in block.namespaces.iter().enumerate() {
                let died = block.died_at(position);
                if died == 0 || died > settled {
                    let Some(seen) = block.seen(position, each) else { continue };
                    living.push(seen, namespace.clone(), died);
                }
            }
        }
        living
    }

    fn push(&mut self, seen: Seen<'_>, namespace: Option<Arc<str>>, died: u64) {
        self.slots.push(seen.slot);
        self.codes.extend_from_slice(seen.code);
        self.facts.push(seen.fact);
        self.namespaces.push(namespace);
        self.cells.extend_from_slice(seen.cells);
        self.died.push(AtomicU64::new(died));
        *self.dead.get_mut() += usize::from(died != 0);
    }

    /// Of some blocks the one that has this slot, if it is there, dies with this change.
    pub(super) fn remove(blocks: &[Arc<Self>], slot: u64, sequence: u64) {
        let after = blocks.partition_point(|block| block.slots.first().is_some_and(|first| *first <= slot));
        let Some(block) = after.checked_sub(1).and_then(|position| blocks.get(position)) else { return };
        let Ok(position) = block.slots.binary_search(&slot) else { return };
        if let Some(died) = block.died.get(position) {
            died.store(sequence, Ordering::Release);
            block.dead.fetch_add(1, Ordering::Relaxed);
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

    /// One vector, if the moment sees it.
    pub(super) fn look(&self, position: usize, moment: Moment) -> Option<Seen<'_>> {
        if self.is_seen(position, moment) { self.seen(position, self.each()) } else { None }
    }

    /// What vectors are compared by. `dimensions`: numbers of each code, which a walk knows without a division.
    pub(super) fn code(&self, position: usize, dimensions: usize) -> Option<(&[i8], Fact)> {
        let first = position * dimensions;
        Some((self.codes.get(first..first + dimensions)?, *self.facts.get(position)?))
    }

    pub(super) fn slot(&self, position: usize) -> Option<u64> {
        self.slots.get(position).copied()
    }

    /// Makes the block one of a graph, with nobody linked yet.
    pub(super) fn link(&self) {
        self.links.get_or_init(|| Links::new(&self.slots));
    }

    pub(super) fn links(&self) -> Option<&Links> {
        self.links.get()
    }

    /// Numbers of a code, and indexed properties, of each vector.
    fn each(&self) -> [usize; 2] {
        [self.codes.len(), self.cells.len()].map(|length| length.checked_div(self.len()).unwrap_or(0))
    }

    pub(super) fn is_seen(&self, position: usize, moment: Moment) -> bool {
        let died = self.died_at(position);
        let slot = self.slot(position).unwrap_or(u64::MAX);
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

    pub(super) fn dead(&self) -> usize {
        self.dead.load(Ordering::Relaxed)
    }

    pub(super) fn alive(&self) -> usize {
        self.len().saturating_sub(self.dead())
    }

    /// Whether it is put together with the next: they fit into one block, and the next is not much smaller. Else each
    /// vector that arrives alone would have a large block copied.
    pub(super) fn goes_with(&self, next: &Self) -> bool {
        let [this, next] = [self, next].map(Self::alive);
        this + next <= BLOCK_VECTORS && 2 * next >= this
    }

    pub(super) fn bytes(&self) -> usize {
        let namespaces = self.namespaces.iter().flatten().map(|namespace| namespace.len()).sum::<usize>();
        let each =
            size_of::<u64>() + size_of::<Fact>() + size_of::<Option<Arc<str>>>() + size_of::<AtomicU64>();
        let links = self.links().map_or(0, Links::bytes);
        let cells = self.cells.iter().map(Cell::size).sum::<usize>();
        self.codes.len() + self.len() * each + namespaces + cells + links
    }
}
