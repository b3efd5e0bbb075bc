//! Indexes that are open, and how they come into memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    thread,
};

use parking_lot::Mutex;
use redb::ReadTransaction;
use tokio::sync::{OnceCell, Semaphore};

use super::{
    VectorError, VectorOptions,
    block::{Block, Row},
    code::Code,
    graph::{Builder, Plan},
    limits::BLOCK_VECTORS,
    memory::{Memory, Moment, View},
    metadata::{self, Property},
    recall::Recall,
    rows::{INDEXES, RECORDS, Record, State, Values},
    space::Space,
};
use crate::{
    commit::{ended, gone},
    core::{Core, unavailable},
};

/// The indexes of an open store.
#[derive(Debug)]
pub(crate) struct Indexes {
    open: Mutex<HashMap<u32, Arc<Shared>>>,
    /// One permit for each search that runs: more of them than cores would only take turns, and hold up what else needs a
    /// blocking thread.
    pub(super) searches: Arc<Semaphore>,
    builder: Arc<Builder>,
}

/// What the handles of an index share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) number: u32,
    pub(super) options: VectorOptions,
    pub(super) indexed: Vec<Property>,
    pub(super) recall: Recall,
    memory: OnceCell<Arc<Memory>>,
}

impl Default for Indexes {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { open: Mutex::default(), searches: Arc::new(Semaphore::new(cores)), builder: Arc::default() }
    }
}

impl Indexes {
    /// The store is closed: no graph is built any more.
    pub(crate) fn end(&self) {
        self.builder.close();
    }

    /// The index of this number, if it is open.
    pub(super) fn find(&self, number: u32) -> Option<Arc<Shared>> {
        self.open.lock().get(&number).cloned()
    }

    /// The same for the same number, and only with the options that it has.
    pub(super) fn open(
        &self,
        core: &Core,
        number: u32,
        options: VectorOptions,
    ) -> Result<Arc<Shared>, VectorError> {
        let mut open = self.open.lock();
        match open.entry(number) {
            Entry::Occupied(present) => {
                if present.get().options != options {
                    let text = "the index is open with other options";
                    return Err(VectorError::Invalid(text.to_owned()));
                }
                Ok(Arc::clone(present.get()))
            }
            Entry::Vacant(place) => {
                let shared = Arc::new(Shared::new(number, options));
                shared.check(core)?;
                Ok(Arc::clone(place.insert(shared)))
            }
        }
    }
}

impl Shared {
    pub(super) fn new(number: u32, options: VectorOptions) -> Self {
        let indexed = options.indexed.iter().map(|name| Property { name: name.clone() }).collect();
        Self { number, options, indexed, recall: Recall::default(), memory: OnceCell::new() }
    }

    /// As it is before its first vector.
    pub(super) fn empty(&self) -> State {
        let VectorOptions { dimensions, metric, .. } = self.options;
        State { dimensions, metric, moment: Moment::default(), vectors: 0 }
    }

    /// An index with vectors keeps its dimensions and its metric.
    fn check(&self, core: &Core) -> Result<(), VectorError> {
        let transaction = core.begin_read()?;
        let Some(state) = self.state(&transaction).map_err(unavailable)? else { return Ok(()) };
        let VectorOptions { dimensions, metric, .. } = self.options;
        if (state.dimensions, state.metric) == (dimensions, metric) {
            return Ok(());
        }
        let [found, wanted] = [(state.dimensions, state.metric), (dimensions, metric)]
            .map(|(dimensions, metric)| format!("{dimensions} dimensions and metric {}", metric.name()));
        Err(VectorError::Invalid(format!(
            "the index was made with {found}, not {wanted}; give it another name"
        )))
    }

    /// None: nothing was ever written.
    pub(super) fn state(&self, transaction: &ReadTransaction) -> Result<Option<State>, redb::Error> {
        State::read(&transaction.open_table(INDEXES)?, self.number)
    }

    /// Its memory, read from the file the first time. No change is submitted before that, so nothing is missed.
    pub(super) async fn memory(self: &Arc<Self>, core: &Arc<Core>) -> Result<&Arc<Memory>, VectorError> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory);
        }
        // In a task: a load whose asker has gone goes on, so that the next one does not begin it again.
        let (shared, core) = (Arc::clone(self), Arc::clone(core));
        let loaded =
            tokio::spawn(async move { shared.memory.get_or_try_init(|| shared.read(core)).await.map(drop) });
        loaded.await.map_err(|error| ended(&error))??;
        self.memory.get().ok_or_else(|| gone().into())
    }

    /// Its memory, if it was read already.
    pub(super) fn loaded(&self) -> Option<&Arc<Memory>> {
        self.memory.get()
    }

    async fn read(self: &Arc<Self>, core: Arc<Core>) -> Result<Arc<Memory>, VectorError> {
        let shared = Arc::clone(self);
        super::blocking(move || {
            let transaction = core.begin_read()?;
            let blocks = shared.load(&transaction).map_err(unavailable)?;
            let memory = Arc::new(Memory::new(blocks, shared.plan(&core.indexes)));
            Builder::visit(&memory);
            Ok(memory)
        })
        .await
    }

    fn plan(&self, indexes: &Indexes) -> Plan {
        let VectorOptions { dimensions, metric, exact_up_to, .. } = self.options;
        Plan {
            space: Space::new(metric, dimensions),
            exact_up_to: usize::try_from(exact_up_to).unwrap_or(usize::MAX),
            builder: Arc::clone(&indexes.builder),
        }
    }

    fn load(&self, transaction: &ReadTransaction) -> Result<Vec<Block>, redb::Error> {
        let values = Values::open(transaction, self.number, self.options.dimensions)?;
        let (mut blocks, mut rows) = (Vec::new(), Vec::with_capacity(BLOCK_VECTORS));
        for row in transaction.open_table(RECORDS)?.range((self.number, 0)..=(self.number, u64::MAX))? {
            let (key, record) = row?;
            let (_, slot) = key.value();
            rows.push(self.row(slot, Record::decode(record.value())?, &values.read(slot)?));
            if rows.len() == BLOCK_VECTORS {
                blocks.push(Block::of(&rows));
                rows.clear();
            }
        }
        if !rows.is_empty() {
            blocks.push(Block::of(&rows));
        }
        Ok(blocks)
    }

    fn row(&self, slot: u64, record: Record, values: &[f32]) -> Row {
        // Nothing to filter by in what this version would not have taken.
        let metadata = record.metadata.filter(|_| !self.indexed.is_empty());
        let metadata = metadata.and_then(|text| metadata::parse(&text).ok());
        Row {
            slot,
            code: Code::of(values),
            namespace: record.namespace.map(Into::into),
            cells: Property::cells(&self.indexed, metadata.as_ref()),
        }
    }
}

/// What a search reads.
type Look = (ReadTransaction, State, Arc<View>);

/// A transaction, and a view that has all it sees; none: nothing was ever written.
pub(super) fn look(core: &Core, shared: &Shared, memory: &Memory) -> Result<Option<Look>, VectorError> {
    // Comes around again only when the committer has just left dead vectors out, hence not for ever.
    loop {
        let before = memory.view().generation;
        let transaction = core.begin_read()?;
        let Some(state) = shared.state(&transaction).map_err(unavailable)? else { return Ok(None) };
        let view = memory.view();
        if view.generation == before {
            return Ok(Some((transaction, state, view)));
        }
    }
}
