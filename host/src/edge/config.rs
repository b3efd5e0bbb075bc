//! What a project's own files say: which plugins there are, where their stores lie, what Cloudflare binds.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Part, Runtime};
use crate::plugin::{Access, Manifest, OnError, SqlGrant};

/// Cloudflare's runtime of this day: all that the kit needs, such as waiting in the middle of WebAssembly.
const COMPATIBILITY_DATE: &str = "2026-07-01";

/// Dimensions of a vector index, until the file is changed: those of many embedding models.
const DIMENSIONS: u32 = 1_024;

/// Events that the ingestion plugin is given at once, and the seconds that they wait for others at most.
const QUEUE_BATCH: u32 = 100;
const QUEUE_SECONDS: u32 = 5;

/// Times that events come again that could not be recorded, the most that Cloudflare has, and the seconds until they do. After
/// them they are lost.
const QUEUE_RETRIES: u32 = 100;
const QUEUE_RETRY_SECONDS: u32 = 30;

/// `plugins.json`.
pub(super) fn plugins(parts: &[Part]) -> Value {
    parts.iter().map(plugin).collect()
}

fn plugin(part: &Part) -> Value {
    let Manifest { name, version, order, on_error, grants, limits, config, .. } = &part.manifest;
    let simple = |grants: &BTreeMap<String, Access>| -> Value {
        grants.iter().map(|(name, access)| (name.clone(), json!(access.name()))).collect::<Map<_, _>>().into()
    };
    let sql: Map<_, _> = grants.sql.iter().map(|(name, grant)| (name.clone(), sql_grant(grant))).collect();
    json!({
        "name": name,
        "version": version,
        "file": part.file(),
        "digest": part.digest(),
        "order": order,
        "on-error": match on_error { OnError::Deny => "deny", OnError::Allow => "allow" },
        "hooks": part.inspection.hooks.names(),
        "grants": {
            "kv": simple(&grants.kv),
            "sql": sql,
            "blob": simple(&grants.blob),
            "vector": simple(&grants.vector),
            "cache": simple(&grants.cache),
        },
        "config": config,
        "job-deadline-ms": u64::try_from(limits.job_deadline.as_millis()).unwrap_or(u64::MAX),
    })
}

fn sql_grant(grant: &SqlGrant) -> Value {
    match grant {
        SqlGrant::Whole(access) => json!(access.name()),
        SqlGrant::Tables(tables) => tables
            .iter()
            .map(|(table, access)| (table.clone(), json!(access.name())))
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// Whether a grant is one of single tables.
pub(super) fn names_tables(grant: &SqlGrant) -> bool {
    matches!(grant, SqlGrant::Tables(_))
}

/// `stores.json`: a store of each name that is granted to somebody, where it means what `wit/storage/` says.
pub(super) fn stores(parts: &[Part], runtime: Runtime) -> Value {
    let grants = || parts.iter().map(|part| &part.manifest.grants);
    let by_tables: BTreeSet<&String> = grants()
        .flat_map(|grants| &grants.sql)
        .filter(|(_, grant)| names_tables(grant))
        .map(|(database, _)| database)
        .collect();
    let mut stores = Map::new();
    let mut bindings = BTreeSet::new();
    for (kind, names) in [
        ("kv", grants().flat_map(|grants| grants.kv.keys()).collect::<BTreeSet<_>>()),
        ("sql", grants().flat_map(|grants| grants.sql.keys()).collect()),
        ("blob", grants().flat_map(|grants| grants.blob.keys()).collect()),
        ("vector", grants().flat_map(|grants| grants.vector.keys()).collect()),
        ("cache", grants().flat_map(|grants| grants.cache.keys()).collect()),
    ] {
        let of_kind: Map<_, _> = names
            .into_iter()
            .map(|name| {
                let mut store = fields(json!({ "in": place(kind, runtime) }));
                if runtime == Runtime::Worker && ["sql", "blob"].contains(&kind) {
                    store.insert("binding".to_owned(), json!(binding(kind, name, &mut bindings)));
                }
                if runtime == Runtime::Worker && kind == "sql" && by_tables.contains(name) {
                    store.insert("tableGrants".to_owned(), json!("not-enforced"));
                }
                if kind == "vector" {
                    let index = json!({ "dimensions": DIMENSIONS, "metric": "cosine", "indexed": [] });
                    store.extend(fields(index));
                }
                (name.clone(), Value::Object(store))
            })
            .collect();
        stores.insert(kind.to_owned(), of_kind.into());
    }
    stores.into()
}

fn place(kind: &str, runtime: Runtime) -> &'static str {
    match (runtime, kind) {
        (Runtime::Worker, "sql") => "d1",
        (Runtime::Worker, "blob") => "r2",
        (Runtime::Worker, _) => "durable-object",
        (Runtime::Node, "blob") => "files",
        (Runtime::Node, "cache") => "memory",
        (Runtime::Node, _) => "sqlite",
    }
}

/// The name under which a Worker finds a store, such as `SQL_GATEWAY`; none is given twice.
fn binding(kind: &str, name: &str, taken: &mut BTreeSet<String>) -> String {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    let mut binding: String = format!("{kind}_{name}").chars().map(letter).collect();
    while !taken.insert(binding.clone()) {
        binding.push('_');
    }
    binding
}

/// `wrangler.json`.
pub(super) fn wrangler(parts: &[Part], stores: &Value) -> Value {
    let bound = |kind: &str| -> Vec<(String, Value)> {
        let stores = stores.get(kind).and_then(Value::as_object).into_iter().flatten();
        let bindings = stores.filter_map(|(name, store)| Some((name, store.get("binding")?)));
        let mut taken = BTreeSet::new();
        bindings.map(|(name, binding)| (resource(name, &mut taken), binding.clone())).collect()
    };
    let databases =
        bound("sql").into_iter().map(|(name, binding)| json!({ "binding": binding, "database_name": name }));
    let buckets =
        bound("blob").into_iter().map(|(name, binding)| json!({ "binding": binding, "bucket_name": name }));
    let mut config = fields(json!({
        "name": "tollgate-plugins",
        "main": "src/worker.mjs",
        "compatibility_date": COMPATIBILITY_DATE,
        "build": { "command": "npm run build" },
        "durable_objects": { "bindings": [{ "name": "TOLLGATE", "class_name": "TollgateStore" }] },
        "migrations": [{ "tag": "v1", "new_sqlite_classes": ["TollgateStore"] }],
        "d1_databases": databases.collect::<Value>(),
        "r2_buckets": buckets.collect::<Value>(),
        "vars": {},
    }));
    let hooks = || parts.iter().map(|part| part.inspection.hooks);
    if hooks().any(|hooks| hooks.ingestion) {
        let queues = json!({
            "producers": [{ "binding": "EVENTS", "queue": "tollgate-events" }],
            "consumers": [{
                "queue": "tollgate-events",
                "max_batch_size": QUEUE_BATCH,
                "max_batch_timeout": QUEUE_SECONDS,
                "max_retries": QUEUE_RETRIES,
                "retry_delay": QUEUE_RETRY_SECONDS,
            }],
        });
        config.insert("queues".to_owned(), queues);
    }
    if hooks().any(|hooks| hooks.ingestion || hooks.jobs) {
        config.insert("triggers".to_owned(), json!({ "crons": ["* * * * *"] }));
    }
    config.into()
}

/// The fields of an object, to be added to.
fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The name of a store as Cloudflare takes it for a database or a bucket; none is given twice.
fn resource(name: &str, taken: &mut BTreeSet<String>) -> String {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let first = format!("tollgate-{}", name.chars().map(letter).collect::<String>());
    let mut resource = first.clone();
    let mut count = 1_u32;
    while !taken.insert(resource.clone()) {
        count += 1;
        resource = format!("{first}-{count}");
    }
    resource
}
