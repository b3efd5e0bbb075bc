//! `tollgate plugin`.

use std::path::Path;

use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};

use super::args::PluginPush;
use super::client::{Client, segment, text};
use super::failure::Failure;
use super::keys::print_list;
use super::output;
use crate::plugin::{Engine, Inspection, Manifest};

const COLUMNS: [&str; 9] =
    ["name", "version", "generation", "state", "order", "hooks", "calls", "traps", "digest"];

/// It travels in the URL, which may have 64 KiB with every byte of it tripled.
const MANIFEST_BYTES: usize = 16 * 1024;

/// Builds the plugins of `plugins/` here, or of the present directory when it has none.
pub(super) fn build(names: &[String]) -> Result<(), Failure> {
    let inner = Path::new("plugins");
    let folder = if inner.join("Cargo.toml").is_file() { inner } else { Path::new(".") };
    for built in crate::build::build(names, folder)? {
        let line = format!("{}: {} bytes, digest {}\n", built.path.display(), built.size, built.digest);
        output::print(line.as_bytes())?;
    }
    Ok(())
}

/// Checks what the server would check, short of starting it.
pub(super) fn check(file: &Path, manifest: Option<&Path>) -> Result<(), Failure> {
    let manifest = manifest.map(read_manifest).transpose()?;
    let wasm = read(file)?;
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

pub(super) async fn push(client: &Client, push: PluginPush) -> Result<(), Failure> {
    let PluginPush { file, name, manifest } = push;
    let stem = || file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    let Some(name) = name.or_else(stem) else {
        return Err(Failure::Usage(format!("{} gives no name; use --name", file.display())));
    };
    let mut path = format!("/plugins/{}", segment(&name));
    if let Some(manifest) = manifest {
        path.push_str(&format!("?manifest={}", segment(&read_manifest(&manifest)?)));
    }
    let answer = client.put(&path, "application/wasm", read(&file)?).await?;
    print_pushed(&answer)
}

pub(super) async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    print_list(&client.get("/plugins").await?, "plugins", &COLUMNS, json)
}

pub(super) async fn rollback(client: &Client, name: &str, to: Option<String>) -> Result<(), Failure> {
    let path = format!("/plugins/{}/rollback", segment(name));
    let answer = client.json(Method::POST, &path, &json!({ "to": to })).await?;
    print_pushed(&answer)
}

fn print_pushed(answer: &Value) -> Result<(), Failure> {
    let generation = answer.get("generation").and_then(Value::as_u64).unwrap_or_default();
    let (name, digest) = (text(answer, "name")?, text(answer, "digest")?);
    Ok(output::print(format!("{name}: generation {generation} serves, digest {digest}\n").as_bytes())?)
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
