//! Python's packages, each set in a virtual environment of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A virtual environment with the pinned packages of a file, kept between runs.
pub fn environment(name: &str, requirements: &Path) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Tests that run at once must not set it up at once.
    let lock = std::fs::File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let wanted = std::fs::read(requirements).unwrap();
    if std::fs::read(folder.join("installed.txt")).is_ok_and(|installed| installed == wanted) {
        return folder;
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "--requirement"]).arg(requirements));
    std::fs::write(folder.join("installed.txt"), wanted).unwrap();
    folder
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}
