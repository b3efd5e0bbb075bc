//! Reads everything again.

use std::collections::HashMap;

use redb::ReadTransaction;

use super::{
    code::{Code, Fact},
    memory::View,
    open::Shared,
    rows::{IDS, PARTS, RECORDS, Record, State, TAILS, Values},
};

/// What is in an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VectorReport {
    /// Vectors.
    pub vectors: u64,
    /// Vectors that memory has and nobody sees any more.
    pub dead: u64,
    /// What does not fit together, for people; at most `PROBLEMS` of them. Empty: all is well.
    pub problems: Vec<String>,
}

/// Problems that a report names; a damaged index may have millions.
const PROBLEMS: usize = 100;

impl VectorReport {
    fn problem(&mut self, text: impl FnOnce() -> String) {
        if self.problems.len() < PROBLEMS {
            self.problems.push(text());
        }
    }
}

pub(super) fn report(
    shared: &Shared,
    transaction: &ReadTransaction,
    state: &State,
    view: &View,
) -> Result<VectorReport, redb::Error> {
    let mut report = VectorReport { vectors: state.vectors, ..VectorReport::default() };
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
