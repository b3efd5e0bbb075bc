//! Answering a query: candidates from memory, then the exact order from the values in the file.

use std::sync::atomic::{AtomicBool, Ordering};

use redb::ReadTransaction;

use super::{
    Metric, VectorMatch,
    block::Seen,
    code::Code,
    filter::Filter,
    graph::{self, Candidate, Plan},
    memory::{Moment, View},
    metadata::{self, Property},
    rows::{RECORDS, Values, damaged, record},
    shortlist::Shortlist,
    space::Aim,
};

/// What a query wants of an index.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) values: Vec<f32>,
    pub(super) top_k: usize,
    pub(super) namespace: Option<String>,
    pub(super) filter: Option<Filter>,
}

impl Wanted {
    /// Whether it takes every vector.
    pub(super) fn takes_all(&self) -> bool {
        self.namespace.is_none() && self.filter.is_none()
    }

    /// Whether a vector is in the namespace and passes the filter.
    pub(super) fn takes(&self, seen: &Seen<'_>) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| seen.namespace == Some(namespace))
            && self.filter.as_ref().is_none_or(|filter| filter.takes(seen.cells))
    }
}

/// The slots that may be nearest, in their order. The exact order is made afterwards: a scan may be wrong about the order,
/// but leaves none of the nearest out; the graph may leave out a few. Ends early, with whatever it has, once `stop` is set.
pub(super) fn candidates(
    view: &View,
    plan: &Plan,
    wanted: &Wanted,
    moment: Moment,
    stop: &AtomicBool,
) -> Vec<u64> {
    let code = Code::of(&wanted.values);
    let aim = Aim { code: &code.numbers, fact: code.fact };
    let space = plan.space;
    let mut list = Shortlist::new(wanted.top_k);
    let mut scanned = view.blocks.as_slice();
    if let Some(answered) = graph::find(view, plan, wanted, moment, aim, stop) {
        for Candidate { slot, nearness, uncertainty } in answered.candidates {
            list.add(slot, nearness, uncertainty);
        }
        scanned = scanned.get(answered.blocks..).unwrap_or_default();
    }
    for block in scanned {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        block.scan(moment, |seen| {
            if wanted.takes(&seen) {
                let nearness = space.nearness(aim, Aim { code: seen.code, fact: seen.fact });
                list.add(seen.slot, nearness, space.uncertainty(aim.fact, seen.fact));
            }
        });
    }
    list.slots()
}

/// A vector that was compared exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Near {
    pub(super) slot: u64,
    pub(super) nearness: f64,
}

/// Puts slots in the exact order, nearest first, and of the equally near the older first; keeps as many as wanted.
pub(super) fn nearest(
    values: &Values,
    wanted: &Wanted,
    metric: Metric,
    slots: Vec<u64>,
) -> Result<Vec<Near>, redb::Error> {
    let mut near = Vec::with_capacity(slots.len());
    for slot in slots {
        near.push(Near { slot, nearness: metric.exact(&wanted.values, &values.read(slot)?) });
    }
    near.sort_by(|left, right| right.nearness.total_cmp(&left.nearness).then(left.slot.cmp(&right.slot)));
    near.truncate(wanted.top_k);
    Ok(near)
}

/// What of the metadata of matches is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReturnMetadata {
    /// Nothing.
    #[default]
    None,
    /// The indexed properties.
    Indexed,
    /// All of it, as it was written.
    All,
}

/// What is answered of the vectors found.
#[derive(Clone, Debug)]
pub(super) struct Answer<'a> {
    pub(super) index: u32,
    pub(super) metric: Metric,
    pub(super) values: bool,
    pub(super) metadata: ReturnMetadata,
    pub(super) indexed: &'a [Property],
}

impl Answer<'_> {
    pub(super) fn matches(
        &self,
        transaction: &ReadTransaction,
        values: &Values,
        near: &[Near],
    ) -> Result<Vec<VectorMatch>, redb::Error> {
        let records = transaction.open_table(RECORDS)?;
        let answer = |near: &Near| {
            let record = record(&records, self.index, near.slot)?;
            Ok(VectorMatch {
                id: record.id,
                score: self.metric.score(near.nearness),
                namespace: record.namespace,
                values: if self.values { Some(values.read(near.slot)?) } else { None },
                metadata: self.metadata(record.metadata)?,
            })
        };
        near.iter().map(answer).collect()
    }

    fn metadata(&self, text: Option<String>) -> Result<Option<String>, redb::Error> {
        match (self.metadata, text) {
            (ReturnMetadata::None, _) | (_, None) => Ok(None),
            (ReturnMetadata::All, text) => Ok(text),
            (ReturnMetadata::Indexed, Some(text)) => {
                let metadata = metadata::parse(&text).map_err(|_| damaged("a vector"))?;
                Ok(Property::pick(self.indexed, &metadata))
            }
        }
    }
}
