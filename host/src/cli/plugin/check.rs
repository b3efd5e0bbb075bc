//! `tollgate plugin check`.

use std::fmt::Display;
use std::path::Path;

use super::inspect::{describe, lines};
use super::{Target, read, read_manifest};
use crate::cases::{Exercised, Plugin, exercise};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::plugin::limits::COMPONENT_BYTES_AIM;
use crate::plugin::{Engine, Inspection};

/// Checks what the server would check, short of starting it, and with a manifest how it behaves.
pub(in crate::cli) async fn check(
    path: Option<&Path>,
    manifest: Option<&Path>,
    rounds: u32,
    seed: Option<u64>,
) -> Result<(), Failure> {
    let Target { file, manifest, .. } = Target::of(path, manifest)?;
    let manifest = manifest.as_deref().map(read_manifest).transpose()?;
    let wasm = read(&file)?;
    let engine = Engine::for_a_command()?;
    let refused = |error: &dyn Display| Failure::Refused {
        message: format!("{}: {error}", file.display()),
        hint: None,
    };
    let component = engine.compile(&wasm).map_err(|error| refused(&error))?;
    let inspection = Inspection::of(&engine, &component).map_err(|error| refused(&error))?;
    output::print(lines(&describe(&wasm, &inspection)).as_bytes())?;
    if wasm.len() > COMPONENT_BYTES_AIM {
        eprintln!(
            "note: a policy in Rust should stay under {COMPONENT_BYTES_AIM} bytes; see [profile.release] in Cargo.toml"
        );
    }
    let Some(text) = manifest else { return Ok(()) };
    let plugin = Plugin::load(&engine, &wasm, &text).map_err(|error| refused(&error))?;
    inspection.check_manifest(plugin.manifest()).map_err(|error| refused(&error))?;
    let line = format!("manifest: {} {}\n", plugin.manifest().name, plugin.manifest().version);
    output::print(line.as_bytes())?;
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let exercised = exercise(&engine, &plugin, rounds, seed).await;
    let exercised = exercised.map_err(|error| refused(&format!("seed {seed}: {error:#}")))?;
    Ok(output::print(told(&exercised, seed).as_bytes())?)
}

fn told(Exercised { calls, errors, first_error }: &Exercised, seed: u64) -> String {
    let mut text = format!("random calls: {calls}, none trapped (seed {seed})\n");
    if let Some(first) = first_error {
        text.push_str(&format!("of them answered with an error: {errors}, the first one {first}\n"));
    }
    text
}
