//! Reads everything again.

use std::{
    collections::VecDeque,
    slice,
    sync::{Arc, atomic::AtomicBool},
};

use redb::ReadTransaction;

use super::{
    VectorError, VectorOptions,
    block::{Block, Seen},
    code::Code,
    limits::VECTORS_MOST,
    memory::{Moment, View},
    open::{Shared, look},
    rows::{IDS, INDEXES, PARTS, RECORDS, Record, State, TAILS, Values},
};
use crate::{
    commit::CommitError,
    core::{Core, unavailable},
    report::{note, wanted},
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

/// What is in an index, which need not be open. What is not in memory is not brought there.
pub(crate) fn report(
    core: &Core,
    number: u32,
    thorough: bool,
    stop: &AtomicBool,
) -> Result<VectorReport, CommitError> {
    let shared = match core.indexes.find(number) {
        Some(shared) => Some(shared),
        None => closed(core, number)?,
    };
    let Some(shared) = shared else { return Ok(VectorReport::default()) };
    if thorough { whole(core, &shared, stop) } else { counted(core, &shared) }
}

/// An index that nobody has opened, as the file knows it; none: nothing was ever written.
fn closed(core: &Core, number: u32) -> Result<Option<Arc<Shared>>, CommitError> {
    let transaction = core.begin_read()?;
    let state = State::read(&transaction.open_table(INDEXES).map_err(unavailable)?, number);
    let Some(State { dimensions, metric, .. }) = state.map_err(unavailable)? else { return Ok(None) };
    let options = VectorOptions { metric, vectors: VECTORS_MOST, ..VectorOptions::new(dimensions) };
    Ok(Some(Arc::new(Shared::new(number, options))))
}

/// Only what the index knows of itself.
fn counted(core: &Core, shared: &Shared) -> Result<VectorReport, CommitError> {
    let view = shared.loaded().map(|memory| memory.view());
    let state = shared.state(&core.begin_read()?).map_err(unavailable)?.unwrap_or_else(|| shared.empty());
    let mut report = VectorReport::of(shared, &state);
    if let Some(view) = view {
        report.dead = (view.len() as u64).saturating_sub(state.vectors);
        report.memory_bytes = view.bytes() as u64;
    }
    Ok(report)
}

/// Reads everything and compares, memory with the file too if it has the index.
pub(super) fn whole(core: &Core, shared: &Shared, stop: &AtomicBool) -> Result<VectorReport, CommitError> {
    let Some(memory) = shared.loaded() else {
        let transaction = core.begin_read()?;
        let Some(state) = shared.state(&transaction).map_err(unavailable)? else {
            return Ok(VectorReport::default());
        };
        return compare(shared, &transaction, &state, None, stop).map_err(unavailable);
    };
    let Some((transaction, state, view)) = look(core, shared, memory).map_err(refused)? else {
        return Ok(VectorReport::default());
    };
    compare(shared, &transaction, &state, Some(&view), stop).map_err(unavailable)
}

fn refused(error: VectorError) -> CommitError {
    match error {
        VectorError::Storage(error) => error.into(),
        other => CommitError::Unavailable(other.to_string()),
    }
}

fn compare(
    shared: &Shared,
    transaction: &ReadTransaction,
    state: &State,
    view: Option<&View>,
    stop: &AtomicBool,
) -> Result<VectorReport, redb::Error> {
    let mut report = VectorReport::of(shared, state);
    let mut codes = view.map(|view| Codes::of(view, state.moment));
    records(shared, transaction, state, codes.as_mut(), stop, &mut report)?;
    if let (Some(view), Some(codes)) = (view, codes) {
        report.memory_bytes = view.bytes() as u64;
        report.dead = (view.len() as u64).saturating_sub(codes.end(&mut report));
    }
    strays(shared, transaction, stop, &mut report)?;
    Ok(report)
}

/// The codes that memory has, in the order of slots; those of one block at a time.
struct Codes<'a> {
    blocks: slice::Iter<'a, Arc<Block>>,
    moment: Moment,
    here: VecDeque<Seen<'a>>,
    /// The slot before `here`.
    last: Option<u64>,
    /// How many have come.
    count: u64,
}

impl<'a> Codes<'a> {
    fn of(view: &'a View, moment: Moment) -> Self {
        Self { blocks: view.blocks.iter(), moment, here: VecDeque::new(), last: None, count: 0 }
    }

    fn next(&mut self, through: u64, report: &mut VectorReport) -> Option<Seen<'a>> {
        while self.here.is_empty() {
            self.blocks.next()?.scan(self.moment, |seen| self.here.push_back(seen));
        }
        let seen = self.here.pop_front_if(|seen| seen.slot <= through)?;
        if self.last.is_some_and(|last| last >= seen.slot) {
            report.problem(|| format!("slot {} stands in memory out of order", seen.slot));
        }
        self.last = Some(seen.slot);
        self.count += 1;
        Some(seen)
    }

    /// The one in a slot; what is before it is not in the file.
    fn find(&mut self, slot: u64, report: &mut VectorReport) -> Option<Seen<'a>> {
        while let Some(seen) = self.next(slot, report) {
            if seen.slot == slot {
                return Some(seen);
            }
            report.problem(|| format!("memory has slot {}, and the file has not", seen.slot));
        }
        None
    }

    /// What is left is not in the file either; how many there were.
    fn end(mut self, report: &mut VectorReport) -> u64 {
        while let Some(seen) = self.next(u64::MAX, report) {
            report.problem(|| format!("memory has slot {}, and the file has not", seen.slot));
        }
        self.count
    }
}

/// Every record has its id, its values, and its code in memory if the index is there.
fn records(
    shared: &Shared,
    transaction: &ReadTransaction,
    state: &State,
    mut codes: Option<&mut Codes<'_>>,
    stop: &AtomicBool,
    report: &mut VectorReport,
) -> Result<(), redb::Error> {
    let values = Values::open(transaction, shared.number, shared.options.dimensions)?;
    let ids = transaction.open_table(IDS)?;
    let mut found = 0;
    let all = (shared.number, 0)..=(shared.number, u64::MAX);
    for row in wanted(transaction.open_table(RECORDS)?.range(all)?, stop) {
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
        let known = codes.as_mut().map(|codes| codes.find(slot, report));
        match (values.read(slot), known) {
            (Ok(values), Some(seen)) => {
                let Code { numbers, fact } = Code::of(&values);
                if seen.map(|seen| (seen.code, seen.fact)) != Some((numbers.as_slice(), fact)) {
                    report.problem(|| format!("memory has another code in slot {slot}, or none"));
                }
            }
            (Ok(_), None) => {}
            (Err(error), _) => report.problem(|| format!("the values in slot {slot}: {error}")),
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
    stop: &AtomicBool,
    report: &mut VectorReport,
) -> Result<(), redb::Error> {
    let records = transaction.open_table(RECORDS)?;
    let number = shared.number;
    for row in wanted(transaction.open_table(IDS)?.range::<(u32, &str)>((number, "")..)?, stop) {
        let (key, slot) = row?;
        let (owner, id) = key.value();
        if owner != number {
            break;
        }
        if records.get((number, slot.value()))?.is_none() {
            report.problem(|| format!("id {id:?} has no vector"));
        }
    }
    let parts = (number, 0, 0)..=(number, u64::MAX, u8::MAX);
    for row in wanted(transaction.open_table(PARTS)?.range(parts)?, stop) {
        let (_, slot, _) = row?.0.value();
        if records.get((number, slot))?.is_none() {
            report.problem(|| format!("a part in slot {slot} belongs to no vector"));
        }
    }
    let tails = (number, 0)..=(number, u64::MAX);
    for row in wanted(transaction.open_table(TAILS)?.range(tails)?, stop) {
        let (_, slot) = row?.0.value();
        if records.get((number, slot))?.is_none() {
            report.problem(|| format!("a tail in slot {slot} belongs to no vector"));
        }
    }
    Ok(())
}
