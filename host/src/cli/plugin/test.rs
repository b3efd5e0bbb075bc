//! `tollgate plugin test`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::PluginTest;
use super::{Target, read, read_manifest};
use crate::cases::{self, Case, Plugin};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::plugin::Engine;

/// Runs the cases of a plugin, and fails when one fails.
pub(in crate::cli) async fn test(test: PluginTest) -> Result<(), Failure> {
    let engine = Engine::for_a_command()?;
    let (plugin, cases, name) = loaded(&engine, &test)?;
    run(&engine, BTreeMap::from([(name, plugin)]), &cases).await
}

/// A plugin, its cases and its name.
pub(super) fn loaded(engine: &Engine, test: &PluginTest) -> Result<(Plugin, Vec<Case>, String), Failure> {
    let PluginTest { path, manifest, cases, only } = test;
    let target = Target::of(path.as_deref(), manifest.as_deref())?;
    let folder = target.folder();
    let manifest = target.manifest.clone().unwrap_or_else(|| folder.join("plugin.toml"));
    let loaded = Plugin::load(engine, &read(&target.file)?, &read_manifest(&manifest)?);
    let plugin = loaded.map_err(|error| error.context(target.file.display().to_string()))?;
    let name = plugin.manifest().name.clone();
    let mut cases = Case::all(&cases.clone().unwrap_or_else(|| folder.join("cases")), Some(&name))?;
    cases.retain(|case| only.as_ref().is_none_or(|part| case.name.contains(part.as_str())));
    if cases.is_empty() {
        return Err(Failure::Usage("there is no such case".to_owned()));
    }
    if let Some(newer) = newer_source(&folder, &target.file) {
        let (newer, file) = (newer.display(), target.file.display());
        eprintln!("note: {newer} changed after {file} was built; run `tollgate plugin build`");
    }
    Ok((plugin, cases, name))
}

async fn run(engine: &Engine, plugins: BTreeMap<String, Plugin>, cases: &[Case]) -> Result<(), Failure> {
    let progress = progress_bar(cases.len());
    let mut failed = 0;
    for case in cases {
        progress.set_message(case.name.clone());
        let faults = match cases::run(engine, &plugins, case).await {
            Ok(outcome) => case.faults(&outcome),
            Err(error) => vec![format!("{error:#}")],
        };
        failed += usize::from(!faults.is_empty());
        let report = report(case, &faults);
        progress.suspend(|| output::print(report.as_bytes()))?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    if failed == 0 {
        return Ok(output::print(format!("{} passed\n", of(cases.len())).as_bytes())?);
    }
    Err(Failure::Refused { message: format!("{failed} of {} failed", of(cases.len())), hint: None })
}

fn of(cases: usize) -> String {
    if cases == 1 { "1 case".to_owned() } else { format!("{cases} cases") }
}

fn report(case: &Case, faults: &[String]) -> String {
    let Case { name, about, .. } = case;
    if faults.is_empty() {
        return format!("ok      {name}\n");
    }
    let faults: String = faults.iter().map(|fault| format!("  {fault}\n")).collect();
    format!("FAILED  {name}: {about}\n{faults}")
}

/// A source that is newer than the component: whoever forgets to build tests what was before.
fn newer_source(folder: &Path, component: &Path) -> Option<PathBuf> {
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let built: SystemTime = changed(component)?;
    let sources = std::fs::read_dir(folder.join("src")).ok()?;
    let mut paths = sources.filter_map(|entry| Some(entry.ok()?.path()));
    paths.find(|path| changed(path).is_some_and(|changed| changed > built))
}

fn progress_bar(cases: usize) -> ProgressBar {
    let progress = ProgressBar::new(cases as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} cases  {elapsed}  {wide_msg}") {
        progress.set_style(style);
    }
    progress
}
