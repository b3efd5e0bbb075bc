//! The runtimes that come from the npm registry, with pinned versions and a lock file.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Map, Value, json};

use super::case::{Case, Transcript, stamped};
use crate::support::component::{contracts, shipped};

/// Runs the cases by a script of `tests/portability/`.
pub fn run(script: &str, cases: &[Case]) -> Transcript {
    let project = project();
    let folder = tempfile::tempdir_in(&project).unwrap();
    let plugins: Map<String, Value> = stamped(cases)
        .into_keys()
        .map(|name| (name.clone(), json!({ "path": absolute(&shipped(&name)), "grants": grants(&name) })))
        .collect();
    let cases: Vec<Value> = cases.iter().map(Case::for_scripts).collect();
    let input = json!({ "wit": contracts(), "plugins": plugins, "cases": cases, "folder": folder.path() });
    let file = folder.path().join("input.json");
    std::fs::write(&file, serde_json::to_vec(&input).unwrap()).unwrap();
    let node = project.join("node_modules/.bin/node");
    let output =
        run_to_end(Command::new(node).arg("--no-warnings").arg(script).arg(file).current_dir(&project));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The stores that a plugin's manifest grants.
fn grants(plugin: &str) -> Value {
    let path = sources().join(format!("../../plugins/{plugin}/plugin.toml"));
    let manifest: Value = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    manifest["grants"].clone()
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/portability")
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap()
}

/// A copy of the scripts beside the packages that they need; the packages are kept between runs.
pub fn project() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("portability");
    for part in ["common", "node", "workerd"] {
        let _ = std::fs::remove_dir_all(folder.join(part));
        std::fs::create_dir_all(folder.join(part)).unwrap();
        for file in std::fs::read_dir(sources().join(part)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.join(part).join(file.file_name())).unwrap();
        }
    }
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(sources().join(file), folder.join(file)).unwrap();
    }
    let wanted = std::fs::read(folder.join("package-lock.json")).unwrap();
    let note = folder.join("installed");
    if !std::fs::read(&note).is_ok_and(|installed| installed == wanted) {
        install(&folder);
        std::fs::write(note, wanted).unwrap();
    }
    folder
}

fn install(folder: &Path) {
    // Not `npm ci`: it asks for packages of other platforms, some of which were never published.
    let arguments = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    let output = match Command::new("npm").args(arguments).current_dir(folder).output() {
        Ok(output) => output,
        Err(error) => panic!("this needs npm, which does not start: {error}"),
    };
    assert!(
        output.status.success(),
        "npm cannot install the runtimes; is the npm registry reachable?\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub fn run_to_end(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    output
}
