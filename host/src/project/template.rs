//! What a new plugin starts with: a small thing of each hook that works, to be changed into one's own.
//!
//! The same thing in every language, so that they share `hook/`: manifest, configuration and cases. What is not Rust has
//! `world/` too, which says to its tools what there is to implement and to call.

use anyhow::bail;
use clap::ValueEnum;
use include_dir::{Dir, include_dir};

use super::File;

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src/project/template");

/// The manual of cases.
const CASES: &str = include_str!("../cases/CASES.md");

/// What stands in a template where the plugin's name is to be.
pub(super) const PLACEHOLDER: &str = "PLUGIN-NAME";

/// The hook that a new plugin has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Hook {
    /// Decides which requests may pass: closes models by entries of a kv store.
    Admission,
    /// Stores what happened: sums tokens by client and day in a table of its own.
    Ingestion,
    /// Works on a schedule: counts the requests of the last hour into a kv store.
    Jobs,
    /// Answers requests under a route of its own: a page that counts its visits. In Rust and JavaScript.
    Http,
}

impl Hook {
    /// Whether there are cases of it: what answers requests is tried by asking it.
    pub fn has_cases(self) -> bool {
        self != Hook::Http
    }

    fn folder(self) -> &'static str {
        match self {
            Hook::Admission => "admission",
            Hook::Ingestion => "ingestion",
            Hook::Jobs => "jobs",
            Hook::Http => "http",
        }
    }
}

/// The language that a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// The smallest and fastest.
    Rust,
    /// Carries a JavaScript engine.
    #[value(name = "js", alias = "javascript")]
    JavaScript,
    /// Carries a Python.
    Python,
}

impl Language {
    fn folder(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::JavaScript => "javascript",
            Language::Python => "python",
        }
    }
}

/// The files of a template with the plugin's name in its places, in the order in which one would read them.
pub(super) fn files(name: &str, hook: Hook, language: Language) -> anyhow::Result<Vec<File>> {
    if hook == Hook::Http && language == Language::Python {
        bail!("a project with --hook http is made in Rust and JavaScript; take --lang rust or --lang js");
    }
    let (language_folder, hook_folder) = (language.folder(), hook.folder());
    let mut folders = vec![
        format!("{language_folder}/{hook_folder}"),
        format!("hook/{hook_folder}"),
        format!("{language_folder}/all"),
    ];
    if language != Language::Rust {
        folders.push(format!("world/{hook_folder}"));
    }
    let mut files = Vec::new();
    for folder in folders {
        let Some(template) = TEMPLATES.get_dir(&folder) else { bail!("there is no template {folder}") };
        collect(template, &folder, name, &mut files)?;
    }
    if hook.has_cases() {
        files.push(("cases/README.md".into(), CASES.as_bytes().to_vec()));
    }
    Ok(files)
}

fn collect(dir: &Dir<'_>, folder: &str, name: &str, files: &mut Vec<File>) -> anyhow::Result<()> {
    for file in dir.files() {
        let Some(text) = file.contents_utf8() else { bail!("{} is no text", file.path().display()) };
        let path = file.path().strip_prefix(folder)?;
        // Under its own name git would follow it here.
        let path = if path.as_os_str() == "gitignore" { ".gitignore".as_ref() } else { path };
        // What a hook has for itself comes before what all have.
        if files.iter().any(|(there, _)| there == path) {
            continue;
        }
        files.push((path.to_owned(), text.replace(PLACEHOLDER, name).into_bytes()));
    }
    dir.dirs().try_for_each(|inner| collect(inner, folder, name, files))
}
