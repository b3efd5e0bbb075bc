//! Runs a case: the real plugin runtime over stores of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::home::Home;
use super::opaque::{Opaque, hand_back, name_opaque, tally};
use super::{BLOB, CACHE, Case, KV, Outcome, SQL, Step, VECTOR, blobs, caches, stores, values, vectors};
use crate::capability::Stores;
use crate::plugin::{CallError, Engine, Generation, Identity, Manifest};

/// A plugin ready to be started over any stores.
pub struct Plugin {
    component: Component,
    manifest: Manifest,
    identity: Identity,
}

impl Plugin {
    /// Compiles a component; `manifest` is the text of its `plugin.toml`.
    pub fn load(engine: &Engine, wasm: &[u8], manifest: &str) -> anyhow::Result<Plugin> {
        Ok(Plugin {
            component: engine.compile(wasm)?,
            manifest: Manifest::parse(manifest)?,
            identity: Identity { digest: hex::encode(Sha256::digest(wasm)), number: 1 },
        })
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The SHA-256 of its component, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.identity.digest
    }

    pub(super) fn start(&self, engine: &Engine, stores: &Stores) -> anyhow::Result<Generation> {
        let Plugin { component, manifest, identity } = self;
        Ok(Generation::new(engine, component, manifest.clone(), identity.clone(), stores)?)
    }
}

/// Runs a case with the plugins there are, by name. An error is the case's own: it calls what there is not.
pub async fn run(
    engine: &Engine,
    plugins: &BTreeMap<String, Plugin>,
    case: &Case,
) -> anyhow::Result<Outcome> {
    let home = Home::new(plugins.values().map(|plugin| &plugin.manifest.grants), &case.before)?;
    let stores = home.stores();
    let mut started = BTreeMap::new();
    for (name, plugin) in plugins {
        let generation = plugin.start(engine, &stores).with_context(|| format!("plugin {name}"))?;
        started.insert(name.as_str(), generation);
    }
    home.set_clock(case.steps.first().map_or(0, |step| step.now_ms));
    home.prepare(&case.before).await.context("before")?;
    let mut opaque = Opaque::new();
    let mut answers = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        let answer = make_step(&home, &started, step, &mut opaque).await;
        answers.push(answer.with_context(|| format!("step {}, {}", number + 1, step.function))?);
    }
    let mut outcome = Outcome { answers, kv: BTreeMap::new(), sql: BTreeMap::new() };
    for store in case.kv_stores() {
        outcome.kv.insert(store.clone(), home.contents(store).await?);
    }
    for (database, queries) in case.queries() {
        let mut found = BTreeMap::new();
        for query in queries {
            found.insert(query.clone(), home.rows(database, query).await?);
        }
        outcome.sql.insert(database.clone(), found);
    }
    home.close().await?;
    Ok(outcome)
}

async fn make_step(
    home: &Home,
    started: &BTreeMap<&str, Generation>,
    step: &Step,
    opaque: &mut Opaque,
) -> anyhow::Result<Value> {
    home.set_clock(step.now_ms);
    let arguments: Vec<Value> =
        step.arguments.iter().map(|value| hand_back(value, opaque)).collect::<Result<_, _>>()?;
    let call = async || match (step.plugin.as_str(), arguments.split_first()) {
        (KV, Some((Value::String(store), arguments))) => {
            stores::call_kv(home.kv(store)?, &step.function, arguments).await
        }
        (SQL, Some((Value::String(store), arguments))) => {
            stores::call_sql(home.sql(store)?, &step.function, arguments).await
        }
        (BLOB, Some((Value::String(store), arguments))) => {
            blobs::call(home.blob(store)?, &step.function, arguments).await
        }
        (VECTOR, Some((Value::String(store), arguments))) => {
            vectors::call(home.vector(store)?, &step.function, arguments).await
        }
        (CACHE, Some((Value::String(store), arguments))) => {
            caches::call(home.cache(store)?, &step.function, arguments)
        }
        (KV | SQL | BLOB | VECTOR | CACHE, _) => bail!("the first of `with` is the store's name"),
        (name, _) => {
            let there = || started.keys().copied().collect::<Vec<_>>().join(", ");
            let plugin = started.get(name);
            let plugin =
                plugin.with_context(|| format!("there is no plugin {name}; there is {}", there()))?;
            call_hook(plugin, step, &arguments).await
        }
    };
    let Some(times) = step.together else {
        return Ok(name_opaque(&step.answer, call().await?, opaque));
    };
    let answers = join_all((0..times).map(|_| call())).await;
    tally(&step.answer, answers.into_iter().collect::<Result<_, _>>()?)
}

async fn call_hook(plugin: &Generation, step: &Step, arguments: &[Value]) -> anyhow::Result<Value> {
    let now_ms = step.now_ms;
    let answer = match (step.function.as_str(), arguments) {
        ("init", []) => plugin.init().await.map(|()| Value::Null),
        ("admit", [request, subjects]) => {
            let subjects = items(subjects)?.iter().map(values::subject).collect::<Result<_, _>>()?;
            let decisions = plugin.admit(Arc::new(values::request(request, now_ms)?), subjects).await;
            decisions.map(|decisions| decisions.into_iter().map(values::decision).collect())
        }
        ("settle", [settlements]) => {
            let settlements = items(settlements)?.iter().map(|value| values::settlement(value, now_ms));
            plugin.settle(Arc::new(settlements.collect::<Result<_, _>>()?)).await.map(|()| Value::Null)
        }
        ("ingest", [batch]) => {
            let batch = items(batch)?.iter().map(|value| values::event(value, now_ms));
            plugin.ingest(batch.collect::<Result<_, _>>()?).await.map(values::receipt)
        }
        ("schedule", []) => match plugin.schedule().await {
            Ok(jobs) => return Ok(jobs.into_iter().map(values::job).collect()),
            Err(error) => Err(error),
        },
        ("run", [Value::String(name)]) => plugin.run_job(name, now_ms).await.map(values::report),
        ("run", [Value::String(name), budget]) => {
            let deadline_ms = plugin.manifest().limits.job_deadline.as_millis();
            ensure!(
                u128::from(values::number(budget, "deadline-ms")?) == deadline_ms,
                "deadline-ms: the manifest's is {deadline_ms}"
            );
            plugin.run_job(name, values::number(budget, "now-ms")?).await.map(values::report)
        }
        (function, _) => bail!("there is no call of {function} with {} arguments", arguments.len()),
    };
    Ok(match answer {
        Ok(value) => json!({ "ok": value }),
        Err(CallError::Guest(text)) => json!({ "err": text }),
        Err(other) => json!({ "failed": other.to_string() }),
    })
}

/// The items of an argument that is a list.
pub(super) fn items(value: &Value) -> anyhow::Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("{value} must be a list"))
}
