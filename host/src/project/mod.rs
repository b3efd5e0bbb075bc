//! Makes the project of a new plugin.
//!
//! It lies in a folder of its own, outside of this repository, and carries what it is built with: the guest crate and the
//! contracts come out of this program, so that they fit this very version and are needed from no registry.

mod name;
mod template;
mod vendored;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

pub use template::{Hook, Language};

/// A file of a project: its path in there, and what it holds.
pub(crate) type File = (PathBuf, Vec<u8>);

/// Makes the folder `name` in `parent` with a plugin that has `hook`; the files it wrote, by their paths in the project.
/// An existing folder or file of that name is left as it is.
pub fn create(name: &str, hook: Hook, language: Language, parent: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = files(name, hook, language)?;
    write(&parent.join(name), &files)?;
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

/// Makes a folder with these files. An existing folder or file of its name is left as it is.
pub(crate) fn write(folder: &Path, files: &[File]) -> anyhow::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already; take another name, or remove it", folder.display())
        }
        made => made.with_context(|| format!("cannot make folder {}", folder.display()))?,
    }
    for (path, content) in files {
        let path = folder.join(path);
        if let Some(inner) = path.parent() {
            fs::create_dir_all(inner).with_context(|| format!("cannot make folder {}", inner.display()))?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// All files of a new project, in the order in which one would read them.
fn files(name: &str, hook: Hook, language: Language) -> anyhow::Result<Vec<File>> {
    name::check(name)?;
    let mut files = template::files(name, hook, language)?;
    if language == Language::Rust {
        files.push(("Cargo.lock".into(), vendored::lock_file(name)?.into_bytes()));
        files.extend(vendored::guest()?);
        files.extend(vendored::contracts("wit"));
    } else {
        files.extend(vendored::contracts("wit/deps"));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;
    use crate::plugin::Manifest;

    fn in_every_language(hook: &Hook) -> impl Iterator<Item = (Hook, Language)> {
        Language::value_variants().iter().map(|language| (*hook, *language))
    }

    #[test]
    fn a_project_has_all_that_it_is_built_with() {
        let parent = tempfile::tempdir().unwrap();
        let written = create("hello", Hook::Admission, Language::Rust, parent.path()).unwrap();
        for path in ["Cargo.toml", "Cargo.lock", "plugin.toml", "README.md", "src/lib.rs", ".gitignore"] {
            assert!(written.contains(&path.into()), "no {path}");
        }
        for path in
            ["vendor/tollgate-guest/Cargo.toml", "vendor/tollgate-guest/src/lib.rs", "wit/storage/kv.wit"]
        {
            assert!(parent.path().join("hello").join(path).is_file(), "no {path}");
        }
    }

    #[test]
    fn what_is_there_is_never_written_over() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("hello"), "mine").unwrap();
        let error = create("hello", Hook::Jobs, Language::Rust, parent.path()).unwrap_err().to_string();
        assert!(error.contains("is there already"), "{error}");
        assert_eq!(fs::read(parent.path().join("hello")).unwrap(), b"mine");
    }

    #[test]
    fn every_template_is_a_plugin_of_the_name_asked_for() {
        for (hook, language) in Hook::value_variants().iter().flat_map(in_every_language) {
            if hook == Hook::Http && language == Language::Python {
                let refused = files("my-plugin", hook, language).unwrap_err().to_string();
                assert!(refused.contains("--lang rust"), "{refused}");
                continue;
            }
            let files = files("my-plugin", hook, language).unwrap();
            let text = |path: &str| {
                let (_, content) = files.iter().find(|(found, _)| found == Path::new(path)).unwrap();
                String::from_utf8(content.clone()).unwrap()
            };
            assert_eq!(Manifest::parse(&text("plugin.toml")).unwrap().name, "my-plugin");
            let named = match language {
                Language::Rust => "Cargo.toml",
                Language::JavaScript => "package.json",
                Language::Python => "README.md",
            };
            assert!(text(named).contains("my-plugin"), "{named}");
            for (path, content) in &files {
                let content = String::from_utf8_lossy(content);
                assert!(!content.contains(template::PLACEHOLDER), "{} has a hole", path.display());
            }
        }
    }
}
