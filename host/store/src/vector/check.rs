//! Reads everything again.

use std::{collections::HashMap, sync::Arc};

use redb::ReadTransaction;

use super::{
    VectorError, VectorOptions, blocking,
    code::{Code, Fact},
    limits::VECTORS_MOST,
    memory::View,
    open::{Shared, look},
    rows::{IDS, INDEXES, PARTS, RECORDS, Record, State, TAILS, Values},
};
use crate::{
    commit::CommitError,
    core::{Core, unavailable},
    report::note,
};

/// What is in an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VectorReport {
    /// Vectors.
    pub vectors: u64,
    /// Vectors that memory has and nobody sees any more.
    pub dead: u64,
    /// Bytes of the vectors' values in the file.
    pub value_bytes: u64,
    /// Bytes in memory; 0 as long as nobody has used the index.
    pub memory_bytes: u64,
    /// What does not fit together, for people; at most `PROBLEMS` of them. Empty: all is well.
    pub problems: Vec<String>,
}

impl VectorReport {
    fn of(shared: &Shared, state: &State) -> Self {
        let value_bytes = state.vectors * (shared.options.dimensions * size_of::<f32>()) as u64;
        Self { vectors: state.vectors, value_bytes, ..Self::default() }
    }

    fn problem(&mut self, text: impl FnOnce() -> String) {
        note(&mut self.problems, text);
    }
}

/// What is in an index, which need not be open.
pub(crate) async fn report(
    core: &Arc<Core>,
    number: u32,
    thorough: bool,
) -> Result<VectorReport, CommitError> {
    let open = core.indexes.find(number);
    let shared = match open {
        Some(shared) => Some(shared),
        None => closed(core, number).await.map_err(refused)?,
    };
    let Some(shared) = shared else { return Ok(VectorReport::default()) };
    let report = if thorough { whole(core, &shared).await } else { counted(core, &shared).await };
    report.map_err(refused)
}

fn refused(error: VectorError) -> CommitError {
    match error {
        VectorError::Storage(error) => error.into(),
        other => CommitError::Unavailable(other.to_string()),
    }
}

/// An index that nobody has opened, as the file knows it; none: nothing was ever written.
async fn closed(core: &Arc<Core>, number: u32) -> Result<Option<Arc<Shared>>, VectorError> {
    let core = Arc::clone(core);
    blocking(move || {
        let read = || {
            State::read(&core.begin_read()?.open_table(INDEXES).map_err(unavailable)?, number)
                .map_err(unavailable)
        };
        let Some(State { dimensions, metric, .. }) = read()? else { return Ok(None) };
        let options = VectorOptions { dimensions, metric, indexed: Vec::new(), vectors: VECTORS_MOST };
        Ok(Some(Arc::new(Shared::new(number, options))))
    })
    .await
}

/// Only what the index knows of itself.
async fn counted(core: &Arc<Core>, shared: &Arc<Shared>) -> Result<VectorReport, VectorError> {
    let (core, shared) = (Arc::clone(core), Arc::clone(shared));
    blocking(move || {
        let view = shared.loaded().map(|memory| memory.view());
        let state = shared.state(&core.begin_read()?).map_err(unavailable)?.unwrap_or_else(|| shared.empty());
        let mut report = VectorReport::of(&shared, &state);
        if let Some(view) = view {
            report.dead = (view.len() as u64).saturating_sub(state.vectors);
            report.memory_bytes = view.bytes() as u64;
        }
        Ok(report)
    })
    .await
}

/// Reads everything and compares, memory with the file too.
pub(super) async fn whole(core: &Arc<Core>, shared: &Arc<Shared>) -> Result<VectorReport, VectorError> {
    let memory = Arc::clone(shared.memory(core).await?);
    let (core, shared) = (Arc::clone(core), Arc::clone(shared));
    blocking(move || {
        let Some((transaction, state, view)) = look(&core, &shared, &memory)? else {
            return Ok(VectorReport::default());
        };
        Ok(compare(&shared, &transaction, &state, &view).map_err(unavailable)?)
    })
    .await
}

fn compare(
    shared: &Shared,
    transaction: &ReadTransaction,
    state: &State,
    view: &View,
) -> Result<VectorReport, redb::Error> {
    let mut report = VectorReport::of(shared, state);
    report.memory_bytes = view.bytes() as u64;
    let mut memory = in_memory(state, view, &mut report);
    records(shared, transaction, state, &mut memory, &mut report)?;
    for slot in memory.keys() {
        report.problem(|| format!("memory has slot {slot}, and the file has not"));
    }
    strays(shared, transaction, &mut report)?;
    Ok(report)
}

type Codes<'a> = HashMap<u64, (&'a [i8], Fact)>;

fn in_memory<'a>(state: &State, view: &'a View, report: &mut VectorReport) -> Codes<'a> {
    let mut memory = HashMap::new();
    let mut last = None;
    for block in &view.blocks {
        block.scan(state.moment, |seen| {
            if last.is_some_and(|last| last >= seen.slot) {
                report.problem(|| format!("slot {} stands in memory out of order", seen.slot));
            }
            last = Some(seen.slot);
            memory.insert(seen.slot, (seen.code, seen.fact));
        });
    }
    report.dead = (view.len() - memory.len()) as u64;
    memory
}

/// Every record has its id, its values, and its code in memory.
fn records(
    shared: &Shared,
    transaction: &ReadTransaction,
    state: &State,
    memory: &mut Codes<'_>,
    report: &mut VectorReport,
) -> Result<(), redb::Error> {
    let values = Values::open(transaction, shared.number, shared.options.dimensions)?;
    let ids = transaction.open_table(IDS)?;
    let mut found = 0;
    for row in transaction.open_table(RECORDS)?.range((shared.number, 0)..=(shared.number, u64::MAX))? {
        let (key, row) = row?;
        let (_, slot) = key.value();
        found += 1;
        let record = Record::decode(row.value())?;
        if ids.get((shared.number, record.id.as_str()))?.map(|row| row.value()) != Some(slot) {
            report.problem(|| format!("vector {:?} in slot {slot} is not the one of its id", record.id));
        }
        if slot >= state.moment.next_slot {
            report.problem(|| format!("slot {slot} was not given yet"));
        }
        match values.read(slot) {
            Ok(values) => {
                let Code { numbers, fact } = Code::of(&values);
                if memory.remove(&slot) != Some((numbers.as_slice(), fact)) {
                    report.problem(|| format!("memory has another code in slot {slot}, or none"));
                }
            }
            Err(error) => report.problem(|| format!("the values in slot {slot}: {error}")),
        }
    }
    if found != state.vectors {
        report.problem(|| format!("the index counts {} vectors, and has {found}", state.vectors));
    }
    Ok(())
}

/// Nothing is left of vectors that have gone.
fn strays(
    shared: &Shared,
    transaction: &ReadTransaction,
    report: &mut VectorReport,
) -> Result<(), redb::Error> {
    let records = transaction.open_table(RECORDS)?;
    let number = shared.number;
    for row in transaction.open_table(IDS)?.range::<(u32, &str)>((number, "")..)? {
        let (key, slot) = row?;
        let (owner, id) = key.value();
        if owner != number {
            break;
        }
        if records.get((number, slot.value()))?.is_none() {
            report.problem(|| format!("id {id:?} has no vector"));
        }
    }
    for row in transaction.open_table(PARTS)?.range((number, 0, 0)..=(number, u64::MAX, u8::MAX))? {
        let (_, slot, _) = row?.0.value();
        if records.get((number, slot))?.is_none() {
            report.problem(|| format!("a part in slot {slot} belongs to no vector"));
        }
    }
    for row in transaction.open_table(TAILS)?.range((number, 0)..=(number, u64::MAX))? {
        let (_, slot) = row?.0.value();
        if records.get((number, slot))?.is_none() {
            report.problem(|| format!("a tail in slot {slot} belongs to no vector"));
        }
    }
    Ok(())
}
