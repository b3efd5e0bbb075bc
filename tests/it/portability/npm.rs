//! The runtimes that come from the npm registry, with pinned versions and a lock file.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use tollgate::cases::Case;

use super::case::{Transcript, manifest, stamped};
use crate::support::component::{contracts, shipped};

/// A copy of `tests/portability/` for one test, below the packages that its scripts need.
pub struct Scripts {
    node: PathBuf,
    folder: tempfile::TempDir,
}

impl Scripts {
    /// Installs the packages where they are not there yet; they are kept between runs.
    pub fn new() -> Scripts {
        let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join("portability");
        install(&project);
        let folder = tempfile::tempdir_in(&project).unwrap();
        for part in ["common", "guest", "node", "workerd"] {
            copy(&sources().join(part), &folder.path().join(part));
        }
        Scripts { node: project.join("node_modules/.bin/node"), folder }
    }

    /// A path below the copy.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a script to its good end; what it printed.
    pub fn node(&self, arguments: &[&OsStr]) -> Vec<u8> {
        let mut command = Command::new(&self.node);
        command.arg("--no-warnings").args(arguments).current_dir(&self.folder);
        let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

/// Runs the cases by a script.
pub fn run(script: &str, cases: &[Case]) -> Transcript {
    let scripts = Scripts::new();
    let plugins: Map<String, Value> = stamped(cases)
        .into_keys()
        .map(|name| {
            let path = shipped(&name).canonicalize().unwrap();
            (name.clone(), json!({ "path": path, "grants": grants(&name) }))
        })
        .collect();
    let cases: Vec<Value> = cases.iter().map(Case::for_scripts).collect();
    let folder = scripts.path("components");
    let input = json!({ "wit": contracts(), "plugins": plugins, "cases": cases, "folder": folder });
    let file = scripts.path("input.json");
    std::fs::write(&file, serde_json::to_vec(&input).unwrap()).unwrap();
    serde_json::from_slice(&scripts.node(&[script.as_ref(), file.as_ref()])).unwrap()
}

/// The stores that a plugin's manifest grants.
fn grants(plugin: &str) -> Value {
    let manifest: Value = toml::from_str(&manifest(plugin)).unwrap();
    manifest["grants"].clone()
}

/// `tests/portability/` itself.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/portability")
}

/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Installs the packages of the lock file, one test at a time.
fn install(project: &Path) {
    std::fs::create_dir_all(project).unwrap();
    let turn = File::create(project.join("turn")).unwrap();
    turn.lock().unwrap();
    let wanted = std::fs::read(sources().join("package-lock.json")).unwrap();
    let note = project.join("installed");
    if std::fs::read(&note).is_ok_and(|installed| installed == wanted) {
        return;
    }
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(sources().join(file), project.join(file)).unwrap();
    }
    // Without a registry an installation tries for minutes; asking for one package tells at once.
    npm(project, &["view", "miniflare", "version", "--fetch-retries=0", "--fetch-timeout=20000"]);
    // Not `npm ci`: it asks for packages of other platforms, some of which were never published.
    npm(project, &["install", "--ignore-scripts", "--no-audit", "--no-fund"]);
    std::fs::write(note, wanted).unwrap();
}

fn npm(project: &Path, arguments: &[&str]) {
    let mut command = Command::new("npm");
    command.args(arguments).arg("--loglevel=error").current_dir(project);
    let output =
        command.output().unwrap_or_else(|error| panic!("this needs npm, which does not start: {error}"));
    assert!(
        output.status.success(),
        "this needs the npm registry, and `npm {}` does not reach it or fails:\n{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
