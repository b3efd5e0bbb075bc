//! The cases in Tollgate: the real plugin runtime over a real store.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tollgate::capability::Stores;
use tollgate::plugin::{CallError, Engine, Generation, Identity, Manifest, SqlGrant};
use tollgate_store::{Acknowledge, Database, Kv, KvOptions, Options, SetOptions, Statement, Store};

use super::case::{Case, KV, Outcome, SQL, Step, Transcript, is_name, stamped};
use super::{stores, values};
use crate::support::component::shipped;

/// A plugin ready to be started over any stores.
struct Plugin {
    component: wasmtime::component::Component,
    manifest: Manifest,
    identity: Identity,
}

/// The stores of one case, under a clock that the case moves.
struct Home {
    store: Store,
    now_ms: Arc<AtomicU64>,
    kv: BTreeMap<String, Kv>,
    sql: BTreeMap<String, Database>,
    _directory: tempfile::TempDir,
}

pub async fn run(cases: &[Case]) -> Transcript {
    let engine = Engine::new().unwrap();
    let plugins: BTreeMap<String, Plugin> =
        stamped(cases).into_keys().map(|name| (name.clone(), Plugin::load(&engine, &name))).collect();
    let digests = plugins.iter().map(|(name, plugin)| (name.clone(), plugin.identity.digest.clone()));
    let mut transcript = Transcript { digests: digests.collect(), cases: BTreeMap::new() };
    for case in cases {
        transcript.cases.insert(case.name.clone(), run_case(&engine, &plugins, case).await);
    }
    transcript
}

impl Plugin {
    fn load(engine: &Engine, name: &str) -> Plugin {
        let wasm = std::fs::read(shipped(name)).unwrap();
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/{name}/plugin.toml"));
        Plugin {
            component: engine.compile(&wasm).unwrap(),
            manifest: Manifest::parse(&std::fs::read_to_string(manifest).unwrap()).unwrap(),
            identity: Identity { digest: hex::encode(Sha256::digest(&wasm)), number: 1 },
        }
    }
}

impl Home {
    fn new<'a>(manifests: impl Iterator<Item = &'a Manifest>) -> Home {
        let now_ms = Arc::new(AtomicU64::new(0));
        let clock = now_ms.clone();
        let options =
            Options { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..Options::default() };
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.redb"), options).unwrap();
        let mut home =
            Home { store, now_ms, kv: BTreeMap::new(), sql: BTreeMap::new(), _directory: directory };
        for manifest in manifests {
            for name in manifest.grants.kv.keys() {
                let options = KvOptions { acknowledge: Acknowledge::Durable, default_ttl_ms: None };
                home.kv.insert(name.clone(), home.store.kv(name, options).unwrap());
            }
            for (name, grant) in &manifest.grants.sql {
                assert!(matches!(grant, SqlGrant::Tables(_)), "a shipped plugin needs no whole database");
                home.sql.insert(name.clone(), home.store.database(name).unwrap());
            }
        }
        home
    }

    async fn prepare(&self, case: &Case) {
        for (store, entries) in &case.before.kv {
            for (key, value) in entries {
                let options = SetOptions { ttl_ms: None, if_absent: false };
                self.kv[store].set(key, serde_json::to_vec(value).unwrap(), options).await.unwrap();
            }
        }
        for (database, statements) in &case.before.sql {
            for sql in statements {
                self.sql[database].execute(Statement::new(sql, Vec::new())).await.unwrap();
            }
        }
    }

    async fn contents(&self, store: &str) -> BTreeMap<String, String> {
        let kv = &self.kv[store];
        let page = kv.list_keys(None, None, 1_000).await.unwrap();
        assert_eq!(page.cursor, None, "a case with so many keys needs another reader");
        let mut contents = BTreeMap::new();
        for key in page.keys {
            let entry = kv.get(&key).await.unwrap().unwrap();
            contents.insert(key, hex::encode(&entry.value));
        }
        contents
    }

    async fn rows(&self, database: &str, sql: &str) -> Value {
        let outcome = self.sql[database].query(Statement::new(sql, Vec::new())).await.unwrap();
        outcome.rows.into_iter().map(|row| row.into_iter().map(cell).collect::<Value>()).collect()
    }
}

/// A whole real is written without its fraction, as JavaScript does.
fn cell(value: tollgate_store::Value) -> Value {
    match value {
        tollgate_store::Value::Null => Value::Null,
        tollgate_store::Value::Integer(integer) => json!(integer),
        tollgate_store::Value::Real(real) if real.fract() == 0.0 => json!(real as i64),
        tollgate_store::Value::Real(real) => json!(real),
        tollgate_store::Value::Text(text) => json!(text),
        tollgate_store::Value::Blob(bytes) => json!({ "bytes": hex::encode(bytes) }),
    }
}

async fn run_case(engine: &Engine, plugins: &BTreeMap<String, Plugin>, case: &Case) -> Outcome {
    let home = Home::new(plugins.values().map(|plugin| &plugin.manifest));
    let granted = Stores::new(home.kv.clone(), home.sql.clone());
    let start = |plugin: &Plugin| {
        let Plugin { component, manifest, identity } = plugin;
        Generation::new(engine, component, manifest.clone(), identity.clone(), &granted).unwrap()
    };
    let started: BTreeMap<&String, Generation> =
        plugins.iter().map(|(name, plugin)| (name, start(plugin))).collect();
    home.now_ms.store(case.steps.first().map_or(0, |step| step.now_ms), Ordering::Relaxed);
    home.prepare(case).await;
    let mut opaque = BTreeMap::new();
    let mut answers = Vec::new();
    for step in &case.steps {
        home.now_ms.store(step.now_ms, Ordering::Relaxed);
        let arguments = step.arguments.iter().map(|value| hand_back(value, &opaque)).collect::<Vec<_>>();
        let call = async || match arguments.split_first() {
            Some((Value::String(store), arguments)) if step.plugin == KV => {
                stores::call_kv(&home.kv[store], &step.function, arguments).await
            }
            Some((Value::String(store), arguments)) if step.plugin == SQL => {
                stores::call_sql(&home.sql[store], &step.function, arguments).await
            }
            _ => call(&started[&step.plugin], step, &arguments).await,
        };
        answers.push(match step.together {
            Some(times) => tally(&step.answer, join_all((0..times).map(|_| call())).await),
            None => name_opaque(&step.answer, call().await, &mut opaque),
        });
    }
    let mut outcome = Outcome { answers, kv: BTreeMap::new(), sql: BTreeMap::new() };
    for store in case.kv_stores() {
        outcome.kv.insert(store.clone(), home.contents(store).await);
    }
    for (database, queries) in case.queries() {
        let mut found = BTreeMap::new();
        for query in queries {
            found.insert(query.clone(), home.rows(database, query).await);
        }
        outcome.sql.insert(database.clone(), found);
    }
    home.store.close().await.unwrap();
    outcome
}

async fn call(plugin: &Generation, step: &Step, arguments: &[Value]) -> Value {
    let items = |value: &Value| value.as_array().unwrap().clone();
    let answer = match (step.function.as_str(), arguments) {
        ("init", []) => plugin.init().await.map(|()| Value::Null),
        ("admit", [request, subjects]) => {
            let subjects = items(subjects).iter().map(values::subject).collect();
            let decisions = plugin.admit(Arc::new(values::request(request)), subjects).await;
            decisions.map(|decisions| decisions.into_iter().map(values::decision).collect())
        }
        ("settle", [settlements]) => {
            let settlements = items(settlements).iter().map(values::settlement).collect();
            plugin.settle(Arc::new(settlements)).await.map(|()| Value::Null)
        }
        ("ingest", [batch]) => {
            let batch: Vec<_> = items(batch).iter().map(values::event).collect();
            plugin.ingest(batch.into()).await.map(values::receipt)
        }
        ("schedule", []) => {
            let jobs = plugin.schedule().await.unwrap();
            return jobs.into_iter().map(values::job).collect();
        }
        ("run", [Value::String(name), budget]) => {
            let deadline_ms = plugin.manifest().limits.job_deadline.as_millis();
            assert_eq!(u128::from(values::number(budget, "deadline-ms")), deadline_ms);
            plugin.run_job(name, values::number(budget, "now-ms")).await.map(values::report)
        }
        (function, _) => panic!("no such call: {function} with {} arguments", arguments.len()),
    };
    match answer {
        Ok(value) => json!({ "ok": value }),
        Err(CallError::Guest(text)) => json!({ "err": text }),
        Err(other) => json!({ "failed": other.to_string() }),
    }
}

/// How many times each of the expected answers was given, and those that nobody expected.
fn tally(expected: &Value, mut answers: Vec<Value>) -> Value {
    let mut tallied = Vec::new();
    for alternative in expected.as_array().unwrap() {
        let answer = &alternative["answer"];
        let all = answers.len();
        answers.retain(|found| name_opaque(answer, found.clone(), &mut BTreeMap::new()) != *answer);
        tallied.push(json!({ "times": all - answers.len(), "answer": answer }));
    }
    tallied.extend(answers);
    Value::Array(tallied)
}

/// Puts what is opaque in the places of its names.
fn hand_back(value: &Value, opaque: &BTreeMap<String, Value>) -> Value {
    match value {
        Value::String(name) if is_name(value) => opaque[name].clone(),
        Value::Array(items) => items.iter().map(|item| hand_back(item, opaque)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), hand_back(value, opaque))).collect()
        }
        plain => plain.clone(),
    }
}

/// Takes what is opaque under the names that are expected in its places; another value than before keeps its own.
fn name_opaque(expected: &Value, found: Value, opaque: &mut BTreeMap<String, Value>) -> Value {
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
