//! The shipped components are the same everywhere: the committed files, by digest, driven by the same cases in Tollgate,
//! in Node and in workerd, give the same answers and leave the same in the stores.
//!
//! The cases are data, in `tests/portability/cases/`, as for `tollgate plugin test`; what a runtime made of them is a
//! [`Transcript`].

mod case;
mod foreign;
mod npm;

use case::Transcript;
use tollgate::cases::Case;

#[tokio::test(flavor = "multi_thread")]
async fn tollgate_answers_every_case_as_written() {
    let cases = case::all();
    judge("Tollgate", &cases, &case::run(&cases).await);
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
    let cases = case::all();
    let found = npm::run(script, &cases);
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
