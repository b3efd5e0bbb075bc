//! Filters of a vector index.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tollgate_store::{Index, Target, Vector, VectorOptions, VectorQuery};

use super::store::Stored;

/// What vectors have, in one of the two properties that filters may name.
const KINDS: [&str; 10] = ["null", "true", "false", "0", "-1.5", "1e300", "\"\"", "\"a\"", "\"b\"", "[1]"];

thread_local! {
    static STORED: (Stored, Index) = {
        let stored = Stored::new();
        let indexed = vec!["kind".to_owned(), "size.width".to_owned()];
        let options = VectorOptions { indexed, ..VectorOptions::new(2) };
        let index = stored.store.index("fuzz", options).unwrap();
        let one = |number: usize, kind: &str| Vector {
            id: number.to_string(),
            values: vec![1.0, 1.0],
            namespace: None,
            metadata: Some(format!("{{\"kind\":{kind},\"size\":{{\"width\":{}}}}}", number % 3)),
        };
        let vectors = KINDS.iter().enumerate().map(|(number, kind)| one(number, kind)).collect();
        stored.runtime.block_on(index.upsert(vectors)).unwrap();
        (stored, index)
    };
}

/// A filter takes what each of its conditions takes, and an operator all that its opposite does not.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some(taken) = taken(text) else { return };
    let filter: Map<String, Value> = serde_json::from_str(text).unwrap();
    let mut by_each: BTreeSet<String> = (0..KINDS.len()).map(|number| number.to_string()).collect();
    for (property, condition) in &filter {
        let one = |condition: Value| taken_by(property, condition);
        let Value::Object(operators) = condition else {
            by_each = &by_each & &one(condition.clone());
            continue;
        };
        for (operator, operand) in operators {
            let found = one(json!({ operator: operand }));
            let opposite = match operator.as_str() {
                "$eq" => Some("$ne"),
                "$in" => Some("$nin"),
                _ => None,
            };
            if let Some(opposite) = opposite {
                let others = one(json!({ opposite: operand }));
                assert!(found.is_disjoint(&others) && found.len() + others.len() == KINDS.len());
            }
            by_each = &by_each & &found;
        }
    }
    assert_eq!(taken, by_each);
}

fn taken_by(property: &str, condition: Value) -> BTreeSet<String> {
    taken(&json!({ property: condition }).to_string()).unwrap()
}

/// The vectors that a filter takes, unless it is refused.
fn taken(filter: &str) -> Option<BTreeSet<String>> {
    let mut query = VectorQuery::new(Target::Values(vec![1.0, 1.0]));
    query.top_k = KINDS.len();
    query.filter = Some(filter.to_owned());
    let matches = STORED.with(|(stored, index)| stored.runtime.block_on(index.query(query))).ok()?;
    Some(matches.into_iter().map(|found| found.id).collect())
}
