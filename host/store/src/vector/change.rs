//! What the committer does to vectors.

use std::sync::{Arc, OnceLock};

use redb::{ReadableTable, WriteTransaction};

use super::{
    block::Row,
    code::Code,
    graph::Builder,
    memory::Memory,
    metadata::Cell,
    open::Shared,
    rows::{self, IDS, INDEXES, RECORDS, Record, State},
};

/// A change of one index, part of a message.
#[derive(Debug)]
pub(crate) struct VectorChange {
    pub(super) shared: Arc<Shared>,
    pub(super) memory: Arc<Memory>,
    pub(super) step: Step,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Writes vectors; with `only_new`, if no id is there yet. `most`: how many vectors the index may then have.
    Put { vectors: Vec<Prepared>, only_new: bool, most: u64, decided: Decided },
    /// Removes vectors.
    Remove { ids: Vec<String>, decided: Decided },
}

/// A vector that was checked, with what memory keeps of it.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) record: Record,
    pub(super) values: Vec<f32>,
    pub(super) code: Code,
    pub(super) namespace: Option<Arc<str>>,
    pub(super) cells: Vec<Cell>,
}

/// What the committer decided, for whoever waits for the commit.
pub(super) type Decided = Arc<OnceLock<Decision>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// So many vectors were written or removed.
    Done(usize),
    /// The vector with this id is there already.
    Present(String),
    /// The index would have more vectors than it may.
    Full,
}

impl VectorChange {
    /// Bytes that it brings into a commit, nearly.
    pub(crate) fn size(&self) -> usize {
        match &self.step {
            Step::Put { vectors, .. } => vectors.iter().map(Prepared::size).sum(),
            Step::Remove { ids, .. } => ids.iter().map(String::len).sum(),
        }
    }

    /// Writes it into the committer's transaction, and into memory, where nobody sees it before it is committed.
    pub(crate) fn apply(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let index = self.shared.number;
        let mut table = transaction.open_table(INDEXES)?;
        let mut state = State::read(&table, index)?.unwrap_or_else(|| self.shared.empty());
        let (decision, decided) = match &self.step {
            Step::Put { vectors, only_new, most, decided } => {
                (self.put(transaction, &mut state, vectors, *only_new, *most)?, decided)
            }
            Step::Remove { ids, decided } => (self.remove(transaction, &mut state, ids)?, decided),
        };
        table.insert(index, state.row())?;
        // The first decision stands: a change is applied once.
        let _ = decided.set(decision);
        Ok(())
    }

    fn put(
        &self,
        transaction: &WriteTransaction,
        state: &mut State,
        vectors: &[Prepared],
        only_new: bool,
        most: u64,
    ) -> Result<Decision, redb::Error> {
        let index = self.shared.number;
        let mut ids = transaction.open_table(IDS)?;
        let mut present = 0;
        for vector in vectors {
            if ids.get((index, vector.record.id.as_str()))?.is_some() {
                if only_new {
                    return Ok(Decision::Present(vector.record.id.clone()));
                }
                present += 1;
            }
        }
        if state.vectors + (vectors.len() - present) as u64 > most && present < vectors.len() {
            return Ok(Decision::Full);
        }
        state.moment.sequence += 1;
        for vector in vectors {
            let slot = state.moment.next_slot;
            state.moment.next_slot += 1;
            let before = ids.insert((index, vector.record.id.as_str()), slot)?.map(|row| row.value());
            match before {
                Some(before) => self.clear(transaction, state, before)?,
                None => state.vectors += 1,
            }
            transaction.open_table(RECORDS)?.insert((index, slot), vector.record.encode().as_slice())?;
            rows::write_values(transaction, index, slot, &vector.values)?;
            let (code, namespace, cells) =
                (vector.code.clone(), vector.namespace.clone(), vector.cells.clone());
            self.memory.add(Row { slot, code, namespace, cells });
        }
        Ok(Decision::Done(vectors.len()))
    }

    fn remove(
        &self,
        transaction: &WriteTransaction,
        state: &mut State,
        removed: &[String],
    ) -> Result<Decision, redb::Error> {
        let mut ids = transaction.open_table(IDS)?;
        state.moment.sequence += 1;
        let before = state.vectors;
        for id in removed {
            let slot = ids.remove((self.shared.number, id.as_str()))?.map(|row| row.value());
            if let Some(slot) = slot {
                self.clear(transaction, state, slot)?;
                state.vectors = state.vectors.saturating_sub(1);
            }
        }
        Ok(Decision::Done((before - state.vectors) as usize))
    }

    /// Removes what is in a slot.
    fn clear(&self, transaction: &WriteTransaction, state: &State, slot: u64) -> Result<(), redb::Error> {
        transaction.open_table(RECORDS)?.remove((self.shared.number, slot))?;
        rows::remove_values(transaction, self.shared.number, slot, state.dimensions)?;
        self.memory.remove(slot, state.moment.sequence);
        Ok(())
    }
}

impl Prepared {
    fn size(&self) -> usize {
        let cells: usize = self.cells.iter().map(Cell::size).sum();
        self.record.size() + self.values.len() * size_of::<f32>() + self.code.numbers.len() + cells
    }
}

/// The indexes that a commit changes.
#[derive(Debug, Default)]
pub(crate) struct Touched<'a>(Vec<&'a Arc<Memory>>);

impl<'a> Touched<'a> {
    pub(crate) fn add(&mut self, change: &'a VectorChange) {
        if !self.0.iter().any(|memory| Arc::ptr_eq(memory, &change.memory)) {
            self.0.push(&change.memory);
        }
    }

    /// Before the commit: a reader that sees the commit finds its vectors.
    pub(crate) fn publish(&self) {
        self.0.iter().for_each(|memory| memory.publish());
    }

    /// After the commit.
    pub(crate) fn tidy(&self) {
        for memory in &self.0 {
            memory.tidy();
            Builder::visit(memory);
        }
    }
}
