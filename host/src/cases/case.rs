//! What a case says, with names and times put in their places.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tollgate_store::{Metric, VectorOptions};

use super::Outcome;
use super::compare::{differences, readable};

/// When a case starts that does not say: some time in 2023.
const START_MS: u64 = 1_700_000_000_000;

/// What a step names in place of a plugin to call a function of a kv store itself; the store's name comes first.
pub const KV: &str = "kv";

/// The same for a database.
pub const SQL: &str = "sql";

/// The same for a container of blobs.
pub const BLOB: &str = "blob";

/// The same for a vector index.
pub const VECTOR: &str = "vector";

/// The same for a cache.
pub const CACHE: &str = "cache";

/// A case with everything in its place but opaque values.
#[derive(Debug)]
pub struct Case {
    /// The file's name without its end.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// What is in the stores at first.
    pub before: Before,
    /// The calls.
    pub steps: Vec<Step>,
    after: After,
}

/// What is in the stores at first.
#[derive(Debug, Default, Serialize)]
pub struct Before {
    /// Values in hexadecimal, by store and key.
    pub kv: BTreeMap<String, BTreeMap<String, String>>,
    /// Statements by database.
    pub sql: BTreeMap<String, Vec<String>>,
    /// Containers that are there though nobody is granted them; in other runtimes all stores are.
    #[serde(skip)]
    pub blob: BTreeSet<String>,
    /// Vector indexes likewise, and what they take.
    #[serde(skip)]
    pub vector: BTreeMap<String, VectorOptions>,
    /// Caches likewise.
    #[serde(skip)]
    pub cache: BTreeSet<String>,
}

/// One call.
#[derive(Debug, Serialize)]
pub struct Step {
    /// The plugin, or [`KV`] and the like.
    pub plugin: String,
    /// Its function.
    pub function: String,
    /// What the clock of the stores says, in milliseconds since 1970.
    pub now_ms: u64,
    /// What it is called with.
    pub arguments: Vec<Value>,
    /// Made so many times, all at once.
    pub together: Option<usize>,
    /// What it is to answer. For calls together: how many times each answer, whichever call it goes to.
    pub answer: Value,
}

/// What is to be in the stores at the end: all keys of a store with their values, and the rows of queries.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct After {
    kv: BTreeMap<String, BTreeMap<String, Value>>,
    sql: BTreeMap<String, BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    about: String,
    #[serde(default = "start_ms")]
    start: u64,
    #[serde(default, rename = "let")]
    named: BTreeMap<String, Value>,
    #[serde(default)]
    before: RawBefore,
    steps: Vec<RawStep>,
    #[serde(default)]
    after: After,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawBefore {
    kv: BTreeMap<String, BTreeMap<String, Value>>,
    sql: BTreeMap<String, Vec<String>>,
    blob: BTreeSet<String>,
    vector: BTreeMap<String, RawIndex>,
    cache: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIndex {
    dimensions: usize,
    metric: Option<String>,
    #[serde(default)]
    indexed: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    /// Milliseconds since the start; none: as the step before.
    at: Option<u64>,
    call: String,
    #[serde(default)]
    with: Vec<Value>,
    together: Option<usize>,
    gives: Value,
}

fn start_ms() -> u64 {
    START_MS
}

impl Case {
    /// All cases of a folder, by name. A call that names no plugin goes to `plugin`.
    pub fn all(folder: &Path, plugin: Option<&str>) -> anyhow::Result<Vec<Case>> {
        let entries =
            std::fs::read_dir(folder).with_context(|| format!("cannot read folder {}", folder.display()))?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().map(|path| Case::read(path, plugin)).collect()
    }

    /// The case of a file.
    pub fn read(path: &Path, plugin: Option<&str>) -> anyhow::Result<Case> {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let text = std::fs::read_to_string(path);
        let case = text.map_err(anyhow::Error::from).and_then(|text| Case::parse(name, &text, plugin));
        case.with_context(|| path.display().to_string())
    }

    /// A case from its text; the error names the line or the step.
    pub fn parse(name: &str, text: &str, plugin: Option<&str>) -> anyhow::Result<Case> {
        let Raw { about, start, named, before, steps, after } = toml::from_str(text)?;
        ensure!(!about.is_empty(), "`about` is empty; say what the case shows");
        let before = before.encode(Names { named: &named, now_ms: start, depth: 0 })?;
        let mut at = 0;
        let mut ready = Vec::with_capacity(steps.len());
        for (number, step) in steps.iter().enumerate() {
            at = step.at.unwrap_or(at);
            let step = step.expand(&named, start.saturating_add(at), plugin);
            ready.push(step.with_context(|| format!("step {}", number + 1))?);
        }
        let names = Names { named: &named, now_ms: start.saturating_add(at), depth: 0 };
        let after = after.expand(names).context("after")?;
        Ok(Case { name: name.to_owned(), about, before, steps: ready, after })
    }

    /// The stores to look into at the end.
    pub fn kv_stores(&self) -> impl Iterator<Item = &String> {
        self.after.kv.keys()
    }

    /// The queries to ask at the end, by database.
    pub fn queries(&self) -> impl Iterator<Item = (&String, impl Iterator<Item = &String>)> {
        self.after.sql.iter().map(|(database, queries)| (database, queries.keys()))
    }

    /// What a script of another runtime needs to know to run it.
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

    /// Where what came of it differs from what it expects; a sentence of some lines for each place.
    pub fn faults(&self, outcome: &Outcome) -> Vec<String> {
        let mut faults = Vec::new();
        for (number, step) in self.steps.iter().enumerate() {
            let what = format!("step {}, {}.{}: ", number + 1, step.plugin, step.function);
            let found = outcome.answers.get(number).unwrap_or(&Value::Null);
            faults.extend(differences(&what, &step.answer, found));
        }
        for (store, expected) in &self.after.kv {
            let found = outcome.kv.get(store).into_iter().flatten();
            let found = found.map(|(key, bytes)| (key.clone(), readable(bytes, expected.get(key))));
            let what = format!("kv store {store} at the end: ");
            faults.extend(differences(&what, &json!(expected), &Value::Object(found.collect())));
        }
        for (database, queries) in &self.after.sql {
            for (query, expected) in queries {
                let found = outcome.sql.get(database).and_then(|found| found.get(query));
                let what = format!("{database} at the end, {query}: ");
                faults.extend(differences(&what, expected, found.unwrap_or(&Value::Null)));
            }
        }
        faults
    }
}

impl After {
    fn expand(mut self, names: Names<'_>) -> anyhow::Result<After> {
        for value in self.kv.values_mut().chain(self.sql.values_mut()).flat_map(BTreeMap::values_mut) {
            *value = names.expand(value)?;
        }
        Ok(self)
    }
}

impl RawIndex {
    fn options(self) -> anyhow::Result<VectorOptions> {
        let mut options = VectorOptions { indexed: self.indexed, ..VectorOptions::new(self.dimensions) };
        if let Some(wanted) = self.metric {
            let metric = Metric::NAMED.into_iter().find(|(name, _)| *name == wanted);
            let names = Metric::NAMED.map(|(name, _)| name).join(", ");
            options.metric = metric.with_context(|| format!("metric {wanted:?} is none of {names}"))?.1;
        }
        options.check()?;
        Ok(options)
    }
}

impl RawBefore {
    fn encode(self, names: Names<'_>) -> anyhow::Result<Before> {
        let mut kv: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (store, entries) in self.kv {
            for (key, value) in entries {
                let bytes = names
                    .expand(&value)
                    .and_then(|value| bytes(&value))
                    .with_context(|| format!("before, kv store {store}, key {key}"))?;
                kv.entry(store.clone()).or_default().insert(key, hex::encode(bytes));
            }
        }
        let mut vector = BTreeMap::new();
        for (name, index) in self.vector {
            let options = index.options().with_context(|| format!("before, vector index {name}"))?;
            vector.insert(name, options);
        }
        Ok(Before { kv, sql: self.sql, blob: self.blob, vector, cache: self.cache })
    }
}

/// A value of a kv store: text or bytes under that word, else as JSON.
fn bytes(value: &Value) -> anyhow::Result<Vec<u8>> {
    let single = value.as_object().filter(|fields| fields.len() == 1).and_then(|fields| fields.iter().next());
    match single {
        Some((kind, Value::String(text))) if kind == "text" => Ok(text.clone().into_bytes()),
        Some((kind, Value::String(text))) if kind == "bytes" => {
            hex::decode(text).context("`bytes` must be hexadecimal")
        }
        _ => Ok(serde_json::to_vec(value)?),
    }
}

impl RawStep {
    fn expand(
        &self,
        named: &BTreeMap<String, Value>,
        now_ms: u64,
        plugin: Option<&str>,
    ) -> anyhow::Result<Step> {
        let (plugin, function) = match (self.call.split_once('.'), plugin) {
            (Some(both), _) => both,
            (None, Some(plugin)) => (plugin, self.call.as_str()),
            (None, None) => bail!("call = {:?}: it must be `plugin.function`", self.call),
        };
        let names = Names { named, now_ms, depth: 0 };
        Ok(Step {
            plugin: plugin.to_owned(),
            function: function.to_owned(),
            now_ms,
            together: self.together,
            arguments: self.with.iter().map(|value| names.expand(value)).collect::<Result<_, _>>()?,
            answer: names.expand(&self.gives)?,
        })
    }
}

/// Names within names; more than this is a name that stands for itself.
const DEPTH: usize = 32;

#[derive(Clone, Copy)]
struct Names<'a> {
    named: &'a BTreeMap<String, Value>,
    now_ms: u64,
    depth: usize,
}

impl Names<'_> {
    /// Puts names and times in their places.
    fn expand(self, value: &Value) -> anyhow::Result<Value> {
        Ok(match value {
            Value::String(text) if text == "$now" => json!(self.now_ms),
            Value::String(text) if text == "$none" => Value::Null,
            Value::String(text) => match text.strip_prefix('$').and_then(|name| self.named.get(name)) {
                Some(_) if self.depth == DEPTH => bail!("`{text}` stands for itself"),
                Some(value) => Names { depth: self.depth + 1, ..self }.expand(value)?,
                None => value.clone(),
            },
            Value::Array(items) => items.iter().map(|item| self.expand(item)).collect::<Result<_, _>>()?,
            Value::Object(fields) => {
                let mut whole = match fields.get("like").map(|like| self.expand(like)).transpose()? {
                    Some(Value::Object(like)) => like,
                    Some(other) => bail!("like = {other}: only a record can be likened to"),
                    None => Map::new(),
                };
                for (key, value) in fields.iter().filter(|(key, _)| *key != "like") {
                    whole.insert(key.clone(), self.expand(value)?);
                }
                Value::Object(whole)
            }
            plain => plain.clone(),
        })
    }
}
