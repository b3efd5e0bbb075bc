//! `tollgate plugin watch`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::args::{PluginPush, PluginTest};
use super::{push, test};
use crate::build;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::output;

/// What a plugin is made of and tested by; what a build writes is elsewhere.
const WATCHED: [&str; 7] =
    ["src", "cases", "wit", "Cargo.toml", "package.json", "requirements.txt", "plugin.toml"];

/// Time between two looks at it. An editor writes a file in several steps, so that two looks must see the same.
const PAUSE: Duration = Duration::from_millis(200);

/// Builds, tests and pushes the plugin of this folder now and at every change, until interrupted. What fails is told, and the
/// version before serves on.
pub(in crate::cli) async fn watch(client: &Client) -> Result<(), Failure> {
    let name = build::project_name(Path::new("."))?;
    loop {
        // Taken before the build: what is saved meanwhile is a change.
        let seen = Files::look();
        if let Err(failure) = turn(client, &name).await {
            failure.print();
        }
        output::print(b"watching; save a file to go on\n")?;
        changed(&seen).await;
    }
}

/// One way from the sources to the server.
async fn turn(client: &Client, name: &str) -> Result<(), Failure> {
    // It waits for the compiler for a minute or so; nothing else runs on this thread.
    let built = build::build_project(Path::new("."))?;
    output::print(format!("{name}.wasm: {} bytes\n", built.size).as_bytes())?;
    if Path::new("cases").is_dir() {
        test(PluginTest::default()).await?;
    }
    push(client, PluginPush::default()).await
}

/// Ends when the files are no longer those seen, and nobody is writing them.
async fn changed(seen: &Files) {
    let mut last = Files::look();
    loop {
        tokio::time::sleep(PAUSE).await;
        let now = Files::look();
        if now != *seen && now == last {
            return;
        }
        last = now;
    }
}

/// The files that are watched, each with its time and length. Looked at again and again, since the crate that the system
/// tells of changes (notify) has all of tokio built anew, by a feature of mio; and a project has some twenty files.
#[derive(Default, PartialEq, Eq)]
struct Files(BTreeMap<PathBuf, (Option<SystemTime>, u64)>);

impl Files {
    fn look() -> Files {
        let mut files = Files::default();
        WATCHED.iter().for_each(|path| files.collect(Path::new(path)));
        files
    }

    /// What is gone by now is not there.
    fn collect(&mut self, path: &Path) {
        let Ok(metadata) = path.symlink_metadata() else { return };
        if metadata.is_dir() {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.for_each(|entry| self.collect(&entry.path()));
        } else {
            self.0.insert(path.to_owned(), (metadata.modified().ok(), metadata.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(folder: &Path) -> Files {
        let mut files = Files::default();
        files.collect(folder);
        files
    }

    #[test]
    fn a_file_that_is_new_changed_or_gone_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("inner"), folder.path().join("inner/lib.rs"));
        std::fs::create_dir(inner).unwrap();
        let empty = look(folder.path());
        std::fs::write(&file, "one").unwrap();
        let one = look(folder.path());
        std::fs::write(&file, "other").unwrap();
        let other = look(folder.path());
        assert!(empty != one && one != other && other == look(folder.path()));
        std::fs::remove_file(file).unwrap();
        assert!(look(folder.path()) == empty);
    }
}
