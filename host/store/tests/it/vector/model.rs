//! Random operations against a plain map, searched exactly.

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestCaseResult};
use tollgate_store::{
    Index, Metric, ReturnMetadata, Store, Target, Vector, VectorError, VectorMatch, VectorOptions,
    VectorQuery,
};

use super::support::{report, score};
use crate::support::Place;

#[derive(Clone, Debug)]
enum Step {
    Upsert(Vec<Given>),
    Insert(Vec<Given>),
    Delete(Vec<u8>),
    Get(Vec<u8>),
    Query { target: Result<[i8; 4], u8>, top_k: usize, namespace: Option<u8>, filter: Option<Asked> },
    Check,
    Reopen,
}

/// A vector. Small numbers, so that many are equally near, and some of length 0.
#[derive(Clone, Debug)]
struct Given {
    id: u8,
    values: [i8; 4],
    namespace: Option<u8>,
    kind: Option<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Equal(u8),
    Not(u8),
    Less(u8),
    Among(u8, u8),
}

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::DotProduct, Metric::Euclidean];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0u8..40;
    let values = || prop::array::uniform4(-2i8..3);
    let given = (id.clone(), values(), prop::option::of(0u8..2), prop::option::of(0u8..4))
        .prop_map(|(id, values, namespace, kind)| Given { id, values, namespace, kind });
    let asked = prop_oneof![
        (0u8..4).prop_map(Asked::Equal),
        (0u8..4).prop_map(Asked::Not),
        (0u8..4).prop_map(Asked::Less),
        (0u8..4, 0u8..4).prop_map(|(one, two)| Asked::Among(one, two)),
    ];
    let target = prop_oneof![values().prop_map(Ok), id.clone().prop_map(Err)];
    let step = prop_oneof![
        5 => prop::collection::vec(given.clone(), 0..12).prop_map(Step::Upsert),
        2 => prop::collection::vec(given, 0..3).prop_map(Step::Insert),
        3 => prop::collection::vec(id.clone(), 0..6).prop_map(Step::Delete),
        2 => prop::collection::vec(id, 0..4).prop_map(Step::Get),
        8 => (target, 1usize..50, prop::option::of(0u8..3), prop::option::of(asked)).prop_map(
            |(target, top_k, namespace, filter)| Step::Query { target, top_k, namespace, filter }
        ),
        1 => Just(Step::Check),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

impl Given {
    fn vector(&self) -> Vector {
        Vector {
            id: self.id.to_string(),
            values: self.values.map(f32::from).to_vec(),
            namespace: self.namespace.map(|namespace| namespace.to_string()),
            metadata: self.kind.map(|kind| format!(r#"{{"is": {{"kind": {kind}}}}}"#)),
        }
    }
}

impl Asked {
    fn filter(self) -> String {
        let condition = match self {
            Self::Equal(kind) => kind.to_string(),
            Self::Not(kind) => format!(r#"{{"$ne": {kind}}}"#),
            Self::Less(kind) => format!(r#"{{"$lt": {kind}}}"#),
            Self::Among(one, two) => format!(r#"{{"$in": [{one}, {two}]}}"#),
        };
        format!(r#"{{"is.kind": {condition}}}"#)
    }

    fn takes(self, kind: Option<u8>) -> bool {
        match self {
            Self::Equal(wanted) => kind == Some(wanted),
            Self::Not(wanted) => kind != Some(wanted),
            Self::Less(bound) => kind.is_some_and(|kind| kind < bound),
            Self::Among(one, two) => kind == Some(one) || kind == Some(two),
        }
    }
}

struct Checked {
    place: Place,
    store: Store,
    index: Index,
    options: VectorOptions,
    /// With the number of the writing, by which the equally near are ordered.
    model: BTreeMap<u8, (u64, Given)>,
    written: u64,
}

impl Checked {
    fn new(metric: Metric, exact_up_to: u64) -> Self {
        let place = Place::new();
        let store = place.open();
        let indexed = vec!["is.kind".to_owned()];
        let options = VectorOptions { metric, indexed, vectors: 35, exact_up_to, ..VectorOptions::new(4) };
        let index = store.index("model", options.clone()).unwrap();
        Self { place, store, index, options, model: BTreeMap::new(), written: 0 }
    }

    async fn step(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Upsert(given) => self.put(given, false).await?,
            Step::Insert(given) => self.put(given, true).await?,
            Step::Delete(ids) => {
                let there = ids.iter().filter(|id| self.model.remove(id).is_some()).count();
                let ids: Vec<String> = ids.iter().map(u8::to_string).collect();
                prop_assert_eq!(self.index.delete_by_ids(&ids).await, Ok(there));
            }
            Step::Get(ids) => {
                let expected: Vec<Vector> =
                    ids.iter().filter_map(|id| self.model.get(id)).map(|(_, given)| given.vector()).collect();
                let ids: Vec<String> = ids.iter().map(u8::to_string).collect();
                prop_assert_eq!(self.index.get_by_ids(&ids).await.unwrap(), expected);
            }
            Step::Query { target, top_k, namespace, filter } => {
                self.query(target, top_k, namespace, filter).await?
            }
            Step::Check => {
                prop_assert_eq!(report(&self.index).await.vectors, self.model.len() as u64);
            }
            Step::Reopen => {
                self.store.close().await.unwrap();
                self.store = self.place.open();
                self.index = self.store.index("model", self.options.clone()).unwrap();
            }
        }
        Ok(())
    }

    async fn put(&mut self, given: Vec<Given>, only_new: bool) -> TestCaseResult {
        let vectors = given.iter().map(Given::vector).collect();
        let put = match only_new {
            true => self.index.insert(vectors).await,
            false => self.index.upsert(vectors).await,
        };
        let ids: std::collections::BTreeSet<u8> = given.iter().map(|given| given.id).collect();
        if ids.len() < given.len() {
            prop_assert!(matches!(put, Err(VectorError::Invalid(_))));
            return Ok(());
        }
        let present = given.iter().find(|given| self.model.contains_key(&given.id));
        if let Some(present) = present.filter(|_| only_new) {
            prop_assert_eq!(put, Err(VectorError::Conflict(present.id.to_string())));
            return Ok(());
        }
        let new = ids.iter().filter(|id| !self.model.contains_key(id)).count();
        if new > 0 && self.model.len() + new > 35 {
            prop_assert!(matches!(put, Err(VectorError::TooLarge(_))));
            return Ok(());
        }
        prop_assert_eq!(put, Ok(()));
        for given in given {
            self.written += 1;
            self.model.insert(given.id, (self.written, given));
        }
        Ok(())
    }

    async fn query(
        &self,
        target: Result<[i8; 4], u8>,
        top_k: usize,
        namespace: Option<u8>,
        filter: Option<Asked>,
    ) -> TestCaseResult {
        let query = VectorQuery {
            target: match target {
                Ok(values) => Target::Values(values.map(f32::from).to_vec()),
                Err(id) => Target::Id(id.to_string()),
            },
            top_k,
            namespace: namespace.map(|namespace| namespace.to_string()),
            filter: filter.map(Asked::filter),
            return_values: true,
            return_metadata: ReturnMetadata::All,
        };
        let found = self.index.query(query).await;
        let target = target.or_else(|id| self.model.get(&id).map(|(_, given)| given.values).ok_or(id));
        let target = match target {
            Ok(target) => target.map(f32::from),
            Err(id) => {
                prop_assert_eq!(found, Err(VectorError::Absent(id.to_string())));
                return Ok(());
            }
        };
        let mut expected: Vec<(f64, &(u64, Given))> = self
            .model
            .values()
            .filter(|(_, given)| namespace.is_none_or(|namespace| given.namespace == Some(namespace)))
            .filter(|(_, given)| filter.is_none_or(|filter| filter.takes(given.kind)))
            .map(|row| (score(self.options.metric, &target, &row.1.values.map(f32::from)), row))
            .collect();
        let sign = if self.options.metric == Metric::Euclidean { 1.0 } else { -1.0 };
        expected.sort_by(|left, right| {
            (sign * left.0).total_cmp(&(sign * right.0)).then(left.1.0.cmp(&right.1.0))
        });
        let expected: Vec<VectorMatch> = expected
            .into_iter()
            .take(top_k)
            .map(|(score, (_, given))| {
                let Vector { id, values, namespace, metadata } = given.vector();
                // No difference between the two zeros.
                VectorMatch { id, score: score + 0.0, namespace, values: Some(values), metadata }
            })
            .collect();
        prop_assert_eq!(found.unwrap(), expected);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// With a graph too, whose walks come by all of so few vectors.
    #[test]
    fn an_index_behaves_like_a_map_that_is_searched_exactly(
        metric in 0usize..3,
        exact_up_to in prop_oneof![Just(20_000u64), Just(4)],
        steps in steps(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut checked = Checked::new(METRICS[metric], exact_up_to);
            for step in steps {
                checked.step(step).await?;
            }
            checked.step(Step::Check).await
        })?;
    }
}
