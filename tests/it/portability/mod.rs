//! The shipped components are the same everywhere: the committed files, by digest, driven by the same cases in Tollgate,
//! in Node and in workerd, give the same answers and leave the same in the stores.
//!
//! The cases are data, in `tests/portability/cases/`; what a runtime made of them is a [`Transcript`].

mod case;
mod foreign;
mod npm;
mod stores;
mod tollgate;
mod values;

use case::{Case, Transcript};

#[tokio::test(flavor = "multi_thread")]
async fn tollgate_answers_every_case_as_written() {
    let cases = Case::all();
    judge("Tollgate", &cases, &tollgate::run(&cases).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the npm registry; .ci/run runs it"]
async fn node_answers_as_tollgate_does() {
    compare("Node", "node/main.mjs").await;
}

/// Cloudflare's runtime, with its local KV and D1.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the npm registry; .ci/run runs it"]
async fn workerd_answers_as_tollgate_does() {
    compare("workerd", "workerd/main.mjs").await;
}

/// Runs a script's runtime and Tollgate side by side.
async fn compare(runtime: &str, script: &str) {
    let cases = Case::all();
    let found = npm::run(script, &cases);
    judge(runtime, &cases, &found);
    let own = tollgate::run(&cases).await;
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
    let faults: Vec<String> = cases.iter().flat_map(|case| case.faults(transcript)).collect();
    assert!(faults.is_empty(), "{runtime} differs:\n{}", faults.join("\n"));
}
