//! `tollgate plugin`.

mod args;
mod bench;
mod check;
mod export;
mod inspect;
mod logs;
mod make;
mod server;
mod sign;
mod test;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub(super) use args::PluginCommand;
pub(super) use bench::bench;
pub(super) use check::check;
pub(super) use export::export;
pub(super) use inspect::{inspect, inspect_running, is_here};
pub(super) use logs::logs;
pub(super) use make::{build, new};
pub(super) use server::{list, list_versions, promote, push, rollback, set};
pub(super) use sign::{keygen, sign};
pub(super) use test::test;
pub(super) use watch::watch;

use super::failure::Failure;
use crate::build;

/// It travels in the URL, which may have 64 KiB with every byte of it tripled.
const MANIFEST_BYTES: usize = 16 * 1024;

/// A component that a command is about, with its manifest where one is given.
struct Target {
    file: PathBuf,
    manifest: Option<PathBuf>,
}

impl Target {
    /// The component named, or that of the plugin whose folder is named or is this.
    fn of(path: Option<&Path>, manifest: Option<&Path>) -> Result<Target, Failure> {
        match path {
            Some(file) if !file.is_dir() => {
                Ok(Target { file: file.to_owned(), manifest: manifest.map(Path::to_owned) })
            }
            Some(folder) => Target::built(folder, manifest),
            None => Target::built(Path::new(""), manifest),
        }
    }

    fn built(folder: &Path, manifest: Option<&Path>) -> Result<Target, Failure> {
        let own = folder.join("plugin.toml");
        if !own.is_file() {
            let folder = if folder.as_os_str().is_empty() { "this".into() } else { folder.to_string_lossy() };
            return Err(Failure::Usage(format!("name a component; {folder} is no plugin's folder")));
        }
        let file = folder.join(format!("{}.wasm", build::project_name(folder)?));
        if !file.is_file() {
            let file = file.display();
            return Err(Failure::Usage(format!("there is no {file} yet; run `tollgate plugin build`")));
        }
        Ok(Target { file, manifest: Some(manifest.map_or(own, Path::to_owned)) })
    }

    /// The folder that the component is in.
    fn folder(&self) -> PathBuf {
        self.file.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// The plugin's name, as the file's name says.
    fn name(&self) -> Option<String> {
        self.file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned)
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn read_manifest(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() > MANIFEST_BYTES {
        let size = text.len();
        return Err(Failure::Usage(format!(
            "{} has {size} bytes; a manifest has at most {MANIFEST_BYTES}",
            path.display()
        )));
    }
    Ok(text)
}
