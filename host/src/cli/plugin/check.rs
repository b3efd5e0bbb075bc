//! `tollgate plugin check`.

use std::path::Path;

use super::{Target, read, read_manifest};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::plugin::{Engine, Inspection, Manifest};

/// Checks what the server would check, short of starting it.
pub(in crate::cli) fn check(path: Option<&Path>, manifest: Option<&Path>) -> Result<(), Failure> {
    let Target { file, manifest, .. } = Target::of(path, manifest)?;
    let manifest = manifest.as_deref().map(read_manifest).transpose()?;
    let wasm = read(&file)?;
    let engine = Engine::new()?;
    let refused = |error: &dyn std::fmt::Display| Failure::Refused {
        message: format!("{}: {error}", file.display()),
        hint: None,
    };
    let component = engine.compile(&wasm).map_err(|error| refused(&error))?;
    let inspection = Inspection::of(&engine, &component).map_err(|error| refused(&error))?;
    let mut report = format!("hooks: {}\n", inspection.hooks.names().join(", "));
    for import in &inspection.imports {
        report.push_str(&format!("imports: {import}\n"));
    }
    if let Some(text) = manifest {
        let manifest = Manifest::parse(&text).map_err(|error| refused(&error))?;
        inspection.check_grants(&manifest.grants).map_err(|error| refused(&error))?;
        report.push_str(&format!("manifest: {} {}\n", manifest.name, manifest.version));
    }
    Ok(output::print(report.as_bytes())?)
}
