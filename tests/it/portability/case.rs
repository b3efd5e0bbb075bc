//! A case: calls of hooks with what they are to answer, and what is to be in the stores at the end.
//!
//! WIT values are written as JSON: records and enums by the WIT's names, a variant as `{"case": payload}`, a result as
//! `{"ok": …}` or `{"err": …}`, an absent option as `null`, bytes in hexadecimal, a number beyond 2^53 as text.
//! `"$now"` is the step's time, `"$name"` what `let` says, and `{"like": "$name", …}` that with changes. A name that
//! `let` does not know stands for something opaque, such as a ticket: a step's answer gives it its value, which a later
//! step hands back or answers again. In the stores at the end it is a value that is the same in all runtimes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::support::component::shipped;

/// A case with everything in its place but opaque values.
pub struct Case {
    pub name: String,
    pub before: Before,
    pub steps: Vec<Step>,
    after: After,
}

/// What is in the stores at first: JSON values by store and key, and statements by database.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Before {
    pub kv: BTreeMap<String, BTreeMap<String, Value>>,
    pub sql: BTreeMap<String, Vec<String>>,
}

/// What is to be in the stores at the end: all keys of a store with their values, and the rows of queries.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct After {
    kv: BTreeMap<String, BTreeMap<String, Value>>,
    sql: BTreeMap<String, BTreeMap<String, Value>>,
}

/// One call.
#[derive(Serialize)]
pub struct Step {
    pub plugin: String,
    pub function: String,
    /// What the clock of the stores says, in milliseconds since 1970.
    pub now_ms: u64,
    pub arguments: Vec<Value>,
    /// Made so many times, all at once.
    pub together: Option<usize>,
    /// What it is to answer. For calls together: how many times each answer, whichever call it goes to.
    pub answer: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// What the case shows; for people.
    about: String,
    /// When it starts, in milliseconds since 1970.
    start: u64,
    #[serde(default, rename = "let")]
    named: BTreeMap<String, Value>,
    #[serde(default)]
    before: Before,
    steps: Vec<RawStep>,
    #[serde(default)]
    after: After,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    /// Milliseconds since the start.
    at: u64,
    /// `plugin.function`, or `kv.function` or `sql.function` for one of a store itself
    call: String,
    #[serde(default)]
    with: Vec<Value>,
    together: Option<usize>,
    gives: Value,
}

/// What a runtime made of all cases.
#[derive(Deserialize)]
pub struct Transcript {
    /// The SHA-256 of the component of each plugin, as the runtime read it.
    pub digests: BTreeMap<String, String>,
    pub cases: BTreeMap<String, Outcome>,
}

/// What a runtime made of one case.
#[derive(Deserialize)]
pub struct Outcome {
    /// The answer of each step, with what is opaque under its names.
    pub answers: Vec<Value>,
    /// The values of all keys of a store, in hexadecimal.
    pub kv: BTreeMap<String, BTreeMap<String, String>>,
    /// The rows of each query.
    pub sql: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Case {
    /// All cases, by name.
    pub fn all() -> Vec<Case> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/portability/cases");
        let mut paths: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| Case::read(path)).collect()
    }

    fn read(path: &Path) -> Case {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(path).unwrap();
        let raw: Raw = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!raw.about.is_empty(), "{name} does not say what it shows");
        let steps = raw.steps.iter().map(|step| {
            let (plugin, function) = step.call.split_once('.').expect("a call is `plugin.function`");
            let now_ms = raw.start + step.at;
            Step {
                plugin: plugin.to_owned(),
                function: function.to_owned(),
                now_ms,
                together: step.together,
                arguments: step.with.iter().map(|value| expand(value, &raw.named, now_ms)).collect(),
                answer: expand(&step.gives, &raw.named, now_ms),
            }
        });
        Case { name, steps: steps.collect(), before: raw.before, after: raw.after }
    }

    /// The stores to look into at the end.
    pub fn kv_stores(&self) -> impl Iterator<Item = &String> {
        self.after.kv.keys()
    }

    /// The queries to ask at the end, by database.
    pub fn queries(&self) -> impl Iterator<Item = (&String, impl Iterator<Item = &String>)> {
        self.after.sql.iter().map(|(database, queries)| (database, queries.keys()))
    }

    /// What a script needs to know to run it.
    pub fn for_scripts(&self) -> Value {
        let queries: Map<String, Value> = self
            .queries()
            .map(|(database, texts)| (database.clone(), texts.map(|text| json!(text)).collect()))
            .collect();
        json!({
            "name": self.name,
            "before": self.before,
            "steps": self.steps,
            "stores": self.kv_stores().collect::<Vec<_>>(),
            "queries": queries,
        })
    }

    /// Where a runtime differs from what is expected.
    pub fn faults(&self, transcript: &Transcript) -> Vec<String> {
        let name = &self.name;
        let Some(outcome) = transcript.cases.get(name) else { return vec![format!("{name}: did not run")] };
        let mut faults = Vec::new();
        let mut compare = |what: String, expected: &Value, found: &Value| {
            if expected != found {
                faults.push(format!("{name}: {what}\n  expected {expected}\n  found    {found}"));
            }
        };
        for (number, step) in self.steps.iter().enumerate() {
            let what = format!("step {}, {}.{}", number + 1, step.plugin, step.function);
            compare(what, &step.answer, outcome.answers.get(number).unwrap_or(&Value::Null));
        }
        for (store, expected) in &self.after.kv {
            let found = outcome.kv.get(store).into_iter().flatten();
            let found: Map<_, _> =
                found.map(|(key, bytes)| (key.clone(), readable(bytes, expected.get(key)))).collect();
            compare(format!("kv store {store}"), &json!(expected), &Value::Object(found));
        }
        for (database, queries) in &self.after.sql {
            for (query, expected) in queries {
                let found = outcome.sql.get(database).and_then(|found| found.get(query));
                compare(format!("{database}: {query}"), expected, found.unwrap_or(&Value::Null));
            }
        }
        faults
    }
}

/// What a step names in place of a plugin to call a function of a store itself; the store's name comes first.
pub const KV: &str = "kv";
pub const SQL: &str = "sql";

/// The plugins that the cases call, with the digests of their components as their stamps say.
pub fn stamped(cases: &[Case]) -> BTreeMap<String, String> {
    let plugins: BTreeSet<&String> = cases
        .iter()
        .flat_map(|case| &case.steps)
        .map(|step| &step.plugin)
        .filter(|plugin| *plugin != KV && *plugin != SQL)
        .collect();
    let digest = |plugin: &str| {
        let stamp = std::fs::read_to_string(shipped(plugin).with_extension("stamp")).unwrap();
        let stamp: toml::Table = stamp.parse().unwrap();
        stamp["wasm"].as_str().unwrap().to_owned()
    };
    plugins.into_iter().map(|plugin| (plugin.clone(), digest(plugin))).collect()
}

/// Whether this stands for something opaque.
pub fn is_name(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with('$'))
}

/// Puts names and times in their places.
fn expand(value: &Value, named: &BTreeMap<String, Value>, now_ms: u64) -> Value {
    let expand_all = |value: &Value| expand(value, named, now_ms);
    match value {
        Value::String(text) if text == "$now" => json!(now_ms),
        Value::String(text) => match text.strip_prefix('$').and_then(|name| named.get(name)) {
            Some(value) => expand_all(value),
            None => value.clone(),
        },
        Value::Array(items) => items.iter().map(expand_all).collect(),
        Value::Object(fields) => {
            let mut whole = match fields.get("like").map(expand_all) {
                Some(Value::Object(like)) => like,
                Some(other) => panic!("{other} is nothing to be like"),
                None => Map::new(),
            };
            for (key, value) in fields.iter().filter(|(key, _)| *key != "like") {
                whole.insert(key.clone(), expand_all(value));
            }
            Value::Object(whole)
        }
        plain => plain.clone(),
    }
}

/// A value of a kv store as a case writes it: JSON where it is JSON, else text or bytes; or just the name expected.
fn readable(bytes: &str, expected: Option<&Value>) -> Value {
    if let Some(name) = expected.filter(|expected| is_name(expected)) {
        return name.clone();
    }
    let decoded = hex::decode(bytes).unwrap();
    serde_json::from_slice(&decoded).unwrap_or_else(|_| match String::from_utf8(decoded) {
        Ok(text) if text.chars().all(|letter| letter == '\n' || !letter.is_control()) => {
            json!({ "text": text })
        }
        _ => json!({ "bytes": bytes }),
    })
}
