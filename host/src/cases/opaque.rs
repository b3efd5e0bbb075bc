//! Names for what only a plugin understands, such as a ticket: an answer gives a name its value, which a later step hands
//! back or answers again.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Value, json};

use super::compare::same;

/// The values that names have been given so far.
pub(super) type Opaque = BTreeMap<String, Value>;

/// Whether this stands for something opaque.
pub(super) fn is_name(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with('$'))
}

/// Puts what is opaque in the places of its names.
pub(super) fn hand_back(value: &Value, opaque: &Opaque) -> anyhow::Result<Value> {
    Ok(match value {
        Value::String(name) if is_name(value) => opaque
            .get(name)
            .with_context(|| format!("`{name}` is neither in [let] nor in an answer before"))?
            .clone(),
        Value::Array(items) => items.iter().map(|item| hand_back(item, opaque)).collect::<Result<_, _>>()?,
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| Ok((key.clone(), hand_back(value, opaque)?)))
            .collect::<anyhow::Result<_>>()?,
        plain => plain.clone(),
    })
}

/// Takes what is opaque under the names that are expected in its places; another value than before keeps its own.
pub(super) fn name_opaque(expected: &Value, found: Value, opaque: &mut Opaque) -> Value {
    match (expected, found) {
        (Value::String(name), found) if is_name(expected) && (found.is_string() || found.is_u64()) => {
            if *opaque.entry(name.clone()).or_insert_with(|| found.clone()) == found {
                expected.clone()
            } else {
                found
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            let expected = expected.iter().chain(std::iter::repeat(&Value::Null));
            expected.zip(found).map(|(expected, found)| name_opaque(expected, found, opaque)).collect()
        }
        (Value::Object(expected), Value::Object(found)) => {
            let named = found.into_iter().map(|(key, found)| {
                let expected = expected.get(&key).unwrap_or(&Value::Null);
                (key, name_opaque(expected, found, opaque))
            });
            named.collect()
        }
        (_, found) => found,
    }
}

/// How many times each of the expected answers was given, and those that nobody expected.
pub(super) fn tally(expected: &Value, mut answers: Vec<Value>) -> anyhow::Result<Value> {
    let alternatives = expected.as_array().context("`gives` of calls together must be a list")?;
    let mut tallied = Vec::new();
    for alternative in alternatives {
        let answer =
            alternative.get("answer").context("`gives` of calls together has `times` and `answer`")?;
        let all = answers.len();
        answers.retain(|found| !same(answer, &name_opaque(answer, found.clone(), &mut BTreeMap::new())));
        tallied.push(json!({ "times": all - answers.len(), "answer": answer }));
    }
    tallied.extend(answers);
    Ok(Value::Array(tallied))
}
