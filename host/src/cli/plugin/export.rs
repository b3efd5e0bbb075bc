//! `tollgate plugin export`.

use std::path::Path;

use super::args::PluginExport;
use super::{Target, read, read_manifest};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::edge::{self, Part};
use crate::plugin::shipped::SHIPPED;
use crate::plugin::{Engine, Inspection, Manifest};
use crate::project;

/// Makes a project that runs plugins elsewhere, and says how to go on.
pub(in crate::cli) fn export(export: &PluginExport) -> Result<(), Failure> {
    let PluginExport { folder, plugins, to, manifest } = export;
    let engine = Engine::for_a_command()?;
    let mut manifests = manifest.iter();
    let named: Vec<Option<&str>> = if plugins.is_empty() {
        vec![None]
    } else {
        plugins.iter().map(|name| Some(name.as_str())).collect()
    };
    let parts = named.into_iter().map(|named| {
        let (wasm, manifest) = find(named, || manifests.next().map(AsRef::as_ref))?;
        part(&engine, named, wasm, &manifest)
    });
    let parts = parts.collect::<Result<Vec<Part>, Failure>>()?;
    if manifests.next().is_some() {
        return Err(Failure::Usage("--manifest: there are more of them than components".to_owned()));
    }
    let trusted = edge::trusted(&parts, *to);
    let files = edge::files(parts, *to).map_err(|error| refused(error.to_string()))?;
    project::write(folder, &files)?;
    let folder = folder.display();
    let mut text = format!("{folder}/ has {} files; next:\n  cd {folder}\n", files.len());
    ["npm install", "npm test", "npm start"].iter().for_each(|step| text.push_str(&format!("  {step}\n")));
    output::print(text.as_bytes())?;
    if !trusted.is_empty() {
        let trusted = trusted.join(", ");
        eprintln!(
            "note: D1 cannot keep a plugin to the tables it is granted; trusted with the whole database: {trusted}"
        );
    }
    Ok(())
}

/// A component and its manifest. `named`: a file, a plugin's folder, or a plugin that comes with this program; none: this folder.
fn find<'a>(
    named: Option<&str>,
    manifest: impl FnOnce() -> Option<&'a Path>,
) -> Result<(Vec<u8>, String), Failure> {
    let path = named.map(Path::new);
    if path.is_some_and(|path| !path.exists()) {
        let shipped = SHIPPED.iter().find(|shipped| {
            Manifest::parse(shipped.manifest).is_ok_and(|manifest| Some(manifest.name.as_str()) == named)
        });
        if let Some(shipped) = shipped {
            return Ok((shipped.wasm.to_vec(), shipped.manifest.to_owned()));
        }
    }
    let is_file = path.is_some_and(|path| !path.is_dir());
    let target = Target::of(path, if is_file { manifest() } else { None })?;
    let wasm = read(&target.file)?;
    let Some(manifest) = &target.manifest else {
        let file = target.file.display();
        return Err(Failure::Usage(format!("{file} comes without a manifest; give --manifest FILE")));
    };
    Ok((wasm, read_manifest(manifest)?))
}

fn part(engine: &Engine, named: Option<&str>, wasm: Vec<u8>, manifest: &str) -> Result<Part, Failure> {
    let named = named.unwrap_or("this folder");
    let failed = |error: &dyn std::fmt::Display| refused(format!("{named}: {error}"));
    let manifest = Manifest::parse(manifest).map_err(|error| failed(&error))?;
    let component = engine.compile(&wasm).map_err(|error| failed(&error))?;
    let inspection = Inspection::of(engine, &component).map_err(|error| failed(&error))?;
    Ok(Part { wasm, inspection, manifest })
}

fn refused(message: String) -> Failure {
    Failure::Refused { message, hint: None }
}
