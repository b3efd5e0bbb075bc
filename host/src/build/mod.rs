//! Builds plugins into components.
//!
//! A folder of plugins is a cargo workspace with one package for each plugin, named like its folder and beside its
//! `plugin.toml`. What is built goes to `prebuilt/NAME.wasm`, with a stamp that says what it was made of, so that
//! nobody needs a WebAssembly toolchain to run or test, and nobody can forget to build again. A project is the folder of
//! one plugin, as [`project`](crate::project) makes it; its component lies beside its `plugin.toml`, without a stamp.

mod component;
mod componentize;
mod stamp;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use self::stamp::Stamp;
use self::toolchain::{Order, Toolchain};
use crate::plugin::Manifest;
use crate::project::Language;

pub use componentize::preparation;

/// The command that makes stale plugins fresh; names follow.
const COMMAND: &str = "tollgate plugin build";

/// A plugin that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its name.
    pub name: String,
    /// The component's file.
    pub path: PathBuf,
    /// The component's size in bytes.
    pub size: u64,
    /// The SHA-256 of the component, in hexadecimal.
    pub digest: String,
}

/// A plugin whose component is not made of the present sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// Its name.
    pub name: String,
    /// What does not fit.
    pub reason: String,
    /// The command that builds it.
    pub command: String,
}

/// Builds the plugins of a folder, or those named, and stamps them. Shows its progress on a terminal; takes up to two
/// minutes the first time.
pub fn build(names: &[String], plugins_dir: &Path) -> anyhow::Result<Vec<Built>> {
    let plugins_dir =
        fs::canonicalize(plugins_dir).with_context(|| format!("no folder {}", plugins_dir.display()))?;
    let known = self::names(&plugins_dir)?;
    let names = if names.is_empty() { known.clone() } else { names.to_vec() };
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        bail!("no plugin `{unknown}` in {}; there are: {}", plugins_dir.display(), known.join(", "));
    }
    let toolchain = Toolchain::find(&plugins_dir)?;
    let inputs = |name: &String| stamp::inputs(name, &plugins_dir);
    let before = names.iter().map(inputs).collect::<anyhow::Result<Vec<_>>>()?;
    let order = Order { names, folder: &plugins_dir, locked: true };
    let mut built = Vec::with_capacity(order.names.len());
    for ((name, component), before) in components(&toolchain, &order)?.into_iter().zip(before) {
        if inputs(&name)? != before {
            bail!("the sources of {name} changed while it was built; build it again");
        }
        built.push(store(&name, &component, before, &toolchain, &plugins_dir)?);
    }
    Ok(built)
}

/// Builds the plugin of a project, into `NAME.wasm` in its folder. Takes up to two minutes the first time.
///
/// What it is written in is seen by its source: `src/plugin.js`, `src/plugin.py`, or else a cargo package.
pub fn build_project(folder: &Path) -> anyhow::Result<Built> {
    let folder = fs::canonicalize(folder).with_context(|| format!("no folder {}", folder.display()))?;
    let name = project_name(&folder)?;
    let component = match componentize::language(&folder) {
        Language::Rust => package(&name, &folder)?,
        other => {
            let progress = progress_bar(1);
            progress.set_message(format!("{name}.wasm"));
            let component = componentize::build(other, &folder)?;
            progress.finish_and_clear();
            component
        }
    };
    let path = folder.join(format!("{name}.wasm"));
    fs::write(&path, &component).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Built { name, path, size: component.len() as u64, digest: stamp::digest(&component) })
}

/// The component of a cargo package.
fn package(name: &str, folder: &Path) -> anyhow::Result<Vec<u8>> {
    let toolchain = Toolchain::find(folder)?;
    // Not locked: whoever adds a dependency adds it to the lock file by building.
    let order = Order { names: vec![name.to_owned()], folder, locked: false };
    let built = components(&toolchain, &order)?.into_iter().next();
    Ok(built.with_context(|| format!("cargo made no wasm of {name}"))?.1)
}

/// The name of a project's plugin, as its `plugin.toml` says; its package has the same.
pub fn project_name(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("plugin.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest = Manifest::parse(&text).with_context(|| path.display().to_string())?;
    Ok(manifest.name)
}

/// Compiles plugins and makes components of them, in the order asked.
fn components(toolchain: &Toolchain, order: &Order<'_>) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let progress = progress_bar(order.names.len());
    let machine_paths = toolchain.machine_paths(order.folder);
    let mut components = Vec::with_capacity(order.names.len());
    for (name, module) in toolchain.compile(order, &|unit| progress.set_message(unit.to_owned()))? {
        progress.set_message(format!("{name}.wasm"));
        let component =
            component::encode(&module, &machine_paths).with_context(|| format!("plugin {name}"))?;
        components.push((name, component));
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(components)
}

/// The plugins of a folder whose component is missing or was made of other sources. Reads files only.
pub fn check(plugins_dir: &Path) -> anyhow::Result<Vec<Stale>> {
    let mut stale = Vec::new();
    for name in names(plugins_dir)? {
        if let Some(reason) = staleness(&name, plugins_dir)? {
            let command = format!("{COMMAND} {name}");
            stale.push(Stale { name, reason, command });
        }
    }
    Ok(stale)
}

/// The plugins of a folder: its sub-folders with a `plugin.toml`, in order.
pub fn names(plugins_dir: &Path) -> anyhow::Result<Vec<String>> {
    let entries =
        fs::read_dir(plugins_dir).with_context(|| format!("cannot read folder {}", plugins_dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().join("plugin.toml").is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn staleness(name: &str, plugins_dir: &Path) -> anyhow::Result<Option<String>> {
    let path = component_path(name, plugins_dir);
    let Some(stamp) = Stamp::read(&path)? else { return Ok(Some("it was never built".to_owned())) };
    let Ok(component) = fs::read(&path) else { return Ok(Some("its component is missing".to_owned())) };
    if stamp.wasm != stamp::digest(&component) {
        return Ok(Some("its component is not the one that was stamped".to_owned()));
    }
    if stamp.inputs != stamp::inputs(name, plugins_dir)? {
        return Ok(Some("its sources changed after it was built".to_owned()));
    }
    Ok(None)
}

fn store(
    name: &str,
    component: &[u8],
    inputs: String,
    toolchain: &Toolchain,
    plugins_dir: &Path,
) -> anyhow::Result<Built> {
    let path = component_path(name, plugins_dir);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let digest = stamp::digest(component);
    fs::write(&path, component).with_context(|| format!("cannot write {}", path.display()))?;
    let stamp = Stamp { inputs, wasm: digest.clone(), toolchain: toolchain.to_string() };
    stamp.write(&path)?;
    Ok(Built { name: name.to_owned(), path, size: component.len() as u64, digest })
}

fn component_path(name: &str, plugins_dir: &Path) -> PathBuf {
    plugins_dir.join("prebuilt").join(format!("{name}.wasm"))
}

fn progress_bar(plugins: usize) -> ProgressBar {
    let progress = ProgressBar::new(plugins as u64);
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {bar:24} {pos}/{len} plugins  {elapsed}  {wide_msg}")
    {
        progress.set_style(style);
    }
    progress.enable_steady_tick(std::time::Duration::from_millis(100));
    progress
}
