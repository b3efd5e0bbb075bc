use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use wit_parser::Resolve;

use super::*;
use crate::plugin::{Access, Engine};

fn part(name: &str) -> Part {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let wasm = std::fs::read(root.join(format!("prebuilt/{name}.wasm"))).unwrap();
    let manifest = std::fs::read_to_string(root.join(name).join("plugin.toml")).unwrap();
    let engine = Engine::new().unwrap();
    let inspection = Inspection::of(&engine, &engine.compile(&wasm).unwrap()).unwrap();
    Part { wasm, inspection, manifest: Manifest::parse(&manifest).unwrap() }
}

fn json_of(files: &[File], path: &str) -> Value {
    let (_, content) = files.iter().find(|(found, _)| found == Path::new(path)).unwrap();
    serde_json::from_slice(content).unwrap()
}

/// The contracts as the kit reads them: what the WIT parser makes of `wit/`, without the documentation.
fn contracts() -> Value {
    let mut resolve = Resolve::default();
    for package in ["storage", "policy"] {
        resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit").join(package)).unwrap();
    }
    let mut value = serde_json::to_value(&resolve).unwrap();
    undocumented(&mut value);
    value
}

fn undocumented(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("docs");
            fields.values_mut().for_each(undocumented);
        }
        Value::Array(items) => items.iter_mut().for_each(undocumented),
        _ => {}
    }
}

#[test]
fn the_contracts_of_the_kit_are_those_of_wit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/edge/kit/contracts.json");
    let expected = contracts();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, format!("{expected}\n")).unwrap();
    }
    let found: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(found == expected, "wit/ has changed; write the file anew with BLESS=1");
}

#[test]
fn a_project_has_its_runtime_s_part_of_the_kit_and_the_components_as_they_are() {
    for (runtime, there, absent) in [
        (Runtime::Worker, "tollgate/worker/durable.mjs", "tollgate/node/sqlite.mjs"),
        (Runtime::Node, "tollgate/node/sqlite.mjs", "tollgate/worker/durable.mjs"),
    ] {
        let files = files(vec![part("quota")], runtime).unwrap();
        let has = |path: &str| files.iter().any(|(found, _)| found == Path::new(path));
        for path in ["package.json", "package-lock.json", "README.md", ".gitignore", "tollgate/kv.mjs", there]
        {
            assert!(has(path), "no {path}");
        }
        assert!(!has(absent) && !has("gitignore"));
        let (_, component) = files.iter().find(|(path, _)| path == Path::new("plugins/quota.wasm")).unwrap();
        assert_eq!(*component, part("quota").wasm);
        let plugins = json_of(&files, "plugins.json");
        assert_eq!(plugins[0]["digest"], part("quota").digest());
        assert_eq!(plugins[0]["hooks"], json!(["admission"]));
    }
}

#[test]
fn plugins_stand_in_their_order_with_what_they_are_granted() {
    let files = files(vec![part("sync"), part("quota"), part("blacklist")], Runtime::Worker).unwrap();
    let plugins = json_of(&files, "plugins.json");
    let names: Vec<&Value> = plugins.as_array().unwrap().iter().map(|plugin| &plugin["name"]).collect();
    assert_eq!(names, ["blacklist", "quota", "sync"]);
    assert_eq!(plugins[2]["grants"]["sql"], json!({ "gateway": { "api_key_metrics": "read-write" } }));
    let stores = json_of(&files, "stores.json");
    assert_eq!(stores["kv"]["hot-keys"], json!({ "in": "durable-object" }));
    let gateway = json!({ "in": "d1", "binding": "SQL_GATEWAY", "tableGrants": "not-enforced" });
    assert_eq!(stores["sql"]["gateway"], gateway);
    let wrangler = json_of(&files, "wrangler.json");
    let database = json!({ "binding": "SQL_GATEWAY", "database_name": "tollgate-gateway" });
    assert_eq!(wrangler["d1_databases"], json!([database]));
    assert_eq!(wrangler["triggers"]["crons"], json!(["* * * * *"]));
    assert_eq!(wrangler.get("queues"), None);
    let trusted = trusted(&[part("sync"), part("quota")], Runtime::Worker);
    assert_eq!(trusted, ["sync (gateway)"]);
}

#[test]
fn stores_whose_names_differ_little_are_bound_apart() {
    let mut plugin = part("sync");
    let grant = plugin.manifest.grants.sql.values().next().unwrap().clone();
    let names = ["A-b", "a-b", "a-b-2", "a.b", "a_b"];
    plugin.manifest.grants.sql = names.iter().map(|name| ((*name).to_owned(), grant.clone())).collect();
    plugin.manifest.grants.blob.insert("a-b".to_owned(), Access::ReadWrite);
    let wrangler = json_of(&files(vec![plugin], Runtime::Worker).unwrap(), "wrangler.json");
    let databases = wrangler["d1_databases"].as_array().unwrap();
    for field in ["binding", "database_name"] {
        let found: BTreeSet<&str> = databases.iter().map(|one| one[field].as_str().unwrap()).collect();
        assert_eq!(found.len(), names.len(), "{field}: {databases:?}");
    }
    assert_eq!(databases[0]["database_name"], "tollgate-a-b");
    assert_eq!(databases[1]["database_name"], "tollgate-a-b-2");
    assert_eq!(wrangler["r2_buckets"][0]["bucket_name"], "tollgate-a-b");
}

#[test]
fn the_queue_keeps_events_that_cannot_be_recorded_yet() {
    let files = files(vec![part("ingestion")], Runtime::Worker).unwrap();
    let wrangler = json_of(&files, "wrangler.json");
    let consumer = &wrangler["queues"]["consumers"][0];
    assert_eq!((&consumer["max_retries"], &consumer["retry_delay"]), (&json!(100), &json!(30)));
}

#[test]
fn what_the_kit_does_not_serve_is_refused_by_name() {
    let refusal = |parts: Vec<Part>| files(parts, Runtime::Node).unwrap_err().to_string();
    assert!(refusal(vec![part("quota"), part("quota")]).contains("two plugins are called quota"));
    let mut other = part("ingestion");
    other.manifest.name = "other".to_owned();
    assert!(refusal(vec![part("ingestion"), other]).contains("only one can take the events"));
    let mut ungranted = part("quota");
    ungranted.manifest.grants.kv.clear();
    assert!(
        refusal(vec![ungranted]).contains("tollgate:storage/kv@0.1.0, which the manifest does not grant")
    );
    let mut foreign = part("quota");
    foreign.inspection.imports[0].interface = "wasi:keyvalue/store@0.2.0-draft2".to_owned();
    assert!(refusal(vec![foreign]).contains("imports wasi:keyvalue/store@0.2.0-draft2, which only Tollgate"));
}
