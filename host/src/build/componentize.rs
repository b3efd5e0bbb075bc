//! Builds components of JavaScript and Python, by the tools of the Bytecode Alliance: `componentize-js` and
//! `componentize-py`. They put a program and what runs it into one component, and the paths of its sources, for traces.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::project::Language;

/// The world of a project's `wit/`.
const WORLD: &str = "plugin";

/// What the host would serve inertly anyway: without them nothing of it is imported. What answers requests needs them all.
const DISABLED: [&str; 5] = ["stdio", "random", "clocks", "http", "fetch-event"];

/// A program that makes components, and how it is called in a project.
struct Tool {
    name: &'static str,
    /// Where a project has it, if it has it for itself.
    local: &'static str,
    install: &'static str,
}

const JAVASCRIPT: Tool = Tool {
    name: "componentize-js",
    local: "node_modules/.bin/componentize-js",
    install: "there is no componentize-js; with Node.js 20 or newer (nodejs.org; Debian, Ubuntu: apt-get install -y npm) run
  npm install
in this folder",
};

const PYTHON: Tool = Tool {
    name: "componentize-py",
    local: ".venv/bin/componentize-py",
    install: "there is no componentize-py; with Python 3.10 or newer (Debian, Ubuntu: apt-get install -y python3-venv) run
  python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
in this folder",
};

/// What is to be run once in a new project before it can be built; none: the compiler brings what it needs.
pub fn preparation(language: Language) -> Option<&'static str> {
    match language {
        Language::Rust => None,
        Language::JavaScript => Some("npm install"),
        Language::Python => Some("python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"),
    }
}

/// What a project is written in, by its source.
pub(super) fn language(folder: &Path) -> Language {
    let has = |name: &str| folder.join("src").join(name).is_file();
    match (has("plugin.js"), has("plugin.py")) {
        (true, _) => Language::JavaScript,
        (_, true) => Language::Python,
        _ => Language::Rust,
    }
}

/// Whether a project's world has the hook of `wasi:http`.
fn answers_requests(folder: &Path) -> bool {
    let world = std::fs::read_to_string(folder.join("wit/world.wit"));
    world.is_ok_and(|world| world.contains("export wasi:http/incoming-handler@"))
}

/// The component of a project that is not written in Rust.
pub(super) fn build(language: Language, folder: &Path) -> anyhow::Result<Vec<u8>> {
    let out = tempfile::Builder::new().suffix(".wasm").tempfile().context("cannot make a file")?;
    let tool = if language == Language::Python { PYTHON } else { JAVASCRIPT };
    let mut command = Command::new(tool.program(folder));
    if language == Language::Python {
        command.args(["-d", "wit", "-w", WORLD, "componentize", "plugin", "-p", "src", "--stub-wasi", "-o"]);
        command.arg(out.path());
    } else {
        command.args(["src/plugin.js", "--wit", "wit", "--world-name", WORLD]);
        if !answers_requests(folder) {
            command.arg("--disable").args(DISABLED);
        }
        command.arg("--out").arg(out.path());
    }
    // Backtraces are of the tool, which its users cannot mend.
    command.env_remove("RUST_BACKTRACE").current_dir(folder).stdin(Stdio::null());
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(tool.install),
        output => output.with_context(|| format!("cannot run {}", tool.name))?,
    };
    if !output.status.success() {
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        bail!("{} failed:\n{}", tool.name, said.concat().trim());
    }
    std::fs::read(out.path()).with_context(|| format!("{} made no component", tool.name))
}

impl Tool {
    /// The project's own, or else the one on the path.
    fn program(&self, folder: &Path) -> PathBuf {
        let local = folder.join(self.local);
        if local.is_file() { local } else { PathBuf::from(self.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_project_is_written_in_is_seen_by_its_source() {
        for (file, expected) in
            [("plugin.js", Language::JavaScript), ("plugin.py", Language::Python), ("lib.rs", Language::Rust)]
        {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("src")).unwrap();
            std::fs::write(folder.path().join("src").join(file), "").unwrap();
            assert_eq!(language(folder.path()), expected);
        }
    }

    #[test]
    fn a_tool_that_fails_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join(PYTHON.local);
        std::fs::create_dir_all(bin.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/bin/false", &bin).unwrap();
        let error = build(Language::Python, folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("componentize-py failed"), "{error}");
    }
}
