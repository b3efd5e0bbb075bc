//! The runtimes that come from the npm registry, with pinned versions and a lock file.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder for the scripts of one test, below the packages that they need.
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
        Scripts { node: project.join("node_modules/.bin/node"), folder }
    }

    /// Puts a part of `tests/portability/` below a folder.
    pub fn add(&self, part: &str, folder: &str) {
        copy(&sources().join(part), &self.path(folder).join(part));
    }

    /// A path below the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a script to its good end; what it printed.
    pub fn node(&self, arguments: &[&OsStr]) -> Vec<u8> {
        let mut command = Command::new(&self.node);
        command.arg("--no-warnings").args(arguments).current_dir(&self.folder);
        printed(&mut command)
    }

    /// The search path of a shell on which this Node comes first.
    pub fn search_path(&self) -> String {
        let own = self.node.parent().unwrap();
        format!("{}:{}", own.display(), std::env::var("PATH").unwrap())
    }
}

/// Runs a command to its good end; what it printed.
pub fn printed(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(output.status.success(), "{command:?} failed:\n{}\n{}", said[0], said[1]);
    output.stdout
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
