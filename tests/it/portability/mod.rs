//! The shipped components are the same everywhere: the committed files, by digest, driven by the same cases in Tollgate,
//! in Node and in workerd, give the same answers and leave the same in the stores.
//!
//! The cases are data, in `tests/portability/cases/`, as for `tollgate plugin test`; what a runtime made of them is a
//! [`Transcript`]. The others run them in projects that `tollgate plugin export` makes.

mod case;
mod exported;
mod foreign;
mod npm;
mod project;

use case::Transcript;
use project::Project;
use serde_json::json;
use tollgate::cases::Case;

const SHIPPED: [&str; 4] = ["blacklist", "quota", "ingestion", "sync"];

#[tokio::test(flavor = "multi_thread")]
async fn tollgate_answers_every_case_as_written() {
    let cases = case::all();
    judge("Tollgate", &cases, &case::run(&cases).await);
}

/// SQLite and files.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the npm registry; .ci/run runs it"]
async fn node_answers_as_tollgate_does() {
    compare("Node", &Project::export("node", &SHIPPED)).await;
}

/// Cloudflare's runtime, with its local Durable Objects, D1 and R2, as a project has them unless it is changed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the npm registry; .ci/run runs it"]
async fn workerd_answers_as_tollgate_does() {
    compare("workerd", &Project::export("worker", &SHIPPED)).await;
}

/// The same with kv stores in D1, and in Workers KV what is read often and written now and then.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the npm registry; .ci/run runs it"]
async fn workerd_answers_the_same_where_kv_stores_lie_in_d1_and_in_workers_kv() {
    let project = Project::export("worker", &SHIPPED);
    project.change("stores.json", |stores| {
        for name in ["blacklist", "quota"] {
            stores["kv"][name] = json!({ "in": "d1", "binding": "KV_STORES" });
        }
        stores["kv"]["hot-keys"] = json!({ "in": "kv", "binding": "HOT_KEYS" });
    });
    project.change("wrangler.json", |wrangler| {
        let database = json!({ "binding": "KV_STORES", "database_name": "kv-stores" });
        wrangler["d1_databases"].as_array_mut().unwrap().push(database);
        wrangler["kv_namespaces"] = json!([{ "binding": "HOT_KEYS" }]);
    });
    compare("workerd with D1 and KV", &project).await;
}

/// Runs a project's runtime and Tollgate side by side.
async fn compare(runtime: &str, project: &Project) {
    let cases = case::all();
    let found = project.run(&cases);
    judge(runtime, &cases, &found);
    let own = case::run(&cases).await;
    for case in &cases {
        let [found, own] = [&found, &own].map(|transcript| &transcript.cases[&case.name]);
        assert_eq!(found.kv, own.kv, "{runtime} stores other bytes in {}", case.name);
    }
}

/// Holds what a runtime made of the cases against what they expect, and its components against the stamps.
fn judge(runtime: &str, cases: &[Case], transcript: &Transcript) {
    for (plugin, digest) in case::stamped(cases) {
        assert_eq!(transcript.digests.get(&plugin), Some(&digest), "{runtime} ran another {plugin}");
    }
    let faults: Vec<String> = cases
        .iter()
        .flat_map(|case| {
            let outcome = transcript.cases.get(&case.name);
            let outcome = outcome.unwrap_or_else(|| panic!("{} did not run in {runtime}", case.name));
            let faults = case.faults(outcome);
            faults.into_iter().map(|fault| format!("{}: {fault}", case.name)).collect::<Vec<_>>()
        })
        .collect();
    assert!(faults.is_empty(), "{runtime} differs:\n{}", faults.join("\n"));
}
