//! The cases of the shipped components, and what a runtime made of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use tollgate::cases::{self, BLOB, CACHE, Case, KV, Outcome, Plugin, SQL, VECTOR};
use tollgate::plugin::Engine;

use crate::support::component::shipped;

/// What a runtime made of all cases.
#[derive(Deserialize)]
pub struct Transcript {
    /// The SHA-256 of the component of each plugin, as the runtime read it.
    pub digests: BTreeMap<String, String>,
    pub cases: BTreeMap<String, Outcome>,
}

/// All cases, by name.
pub fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/portability/cases");
    let cases = Case::all(&folder, None).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(cases.len(), std::fs::read_dir(folder).unwrap().count(), "a file there is no case");
    cases
}

/// The plugins that the cases call, with the digests of their components as their stamps say.
pub fn stamped(cases: &[Case]) -> BTreeMap<String, String> {
    let plugins: BTreeSet<&String> = cases
        .iter()
        .flat_map(|case| &case.steps)
        .map(|step| &step.plugin)
        .filter(|plugin| ![KV, SQL, BLOB, VECTOR, CACHE].contains(&plugin.as_str()))
        .collect();
    let digest = |plugin: &str| {
        let stamp = std::fs::read_to_string(shipped(plugin).with_extension("stamp")).unwrap();
        let stamp: toml::Table = stamp.parse().unwrap();
        stamp["wasm"].as_str().unwrap().to_owned()
    };
    plugins.into_iter().map(|plugin| (plugin.clone(), digest(plugin))).collect()
}

/// The text of a shipped plugin's manifest.
pub fn manifest(plugin: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/{plugin}/plugin.toml"));
    std::fs::read_to_string(path).unwrap()
}

/// What Tollgate makes of the cases.
pub async fn run(cases: &[Case]) -> Transcript {
    let engine = Engine::new().unwrap();
    let load = |name: &str| {
        let wasm = std::fs::read(shipped(name)).unwrap();
        Plugin::load(&engine, &wasm, &manifest(name)).unwrap()
    };
    let plugins: BTreeMap<String, Plugin> =
        stamped(cases).into_keys().map(|name| (name.clone(), load(&name))).collect();
    let digests = plugins.iter().map(|(name, plugin)| (name.clone(), plugin.digest().to_owned()));
    let mut transcript = Transcript { digests: digests.collect(), cases: BTreeMap::new() };
    for case in cases {
        let outcome = cases::run(&engine, &plugins, case).await;
        let outcome = outcome.unwrap_or_else(|error| panic!("{}: {error:#}", case.name));
        transcript.cases.insert(case.name.clone(), outcome);
    }
    transcript
}
