//! `tollgate plugin inspect`.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Target, read};
use crate::cli::client::{Client, segment};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::plugin::signature::signed_by;
use crate::plugin::{Engine, Inspection, made_by};

/// What is to be looked at: a component here, or a plugin of the server.
pub(in crate::cli) fn is_here(what: Option<&str>) -> bool {
    what.is_none_or(|what| what.ends_with(".wasm") || Path::new(what).is_dir())
}

/// Shows what a component is, without a server.
pub(in crate::cli) fn inspect(path: Option<&Path>, json: bool) -> Result<(), Failure> {
    let Target { file, .. } = Target::of(path, None)?;
    let wasm = read(&file)?;
    let engine = Engine::for_a_command()?;
    let refused = |error: &dyn std::fmt::Display| Failure::Refused {
        message: format!("{}: {error}", file.display()),
        hint: None,
    };
    let component = engine.compile(&wasm).map_err(|error| refused(&error))?;
    let inspection = Inspection::of(&engine, &component).map_err(|error| refused(&error))?;
    print(&describe(&wasm, &inspection), json)
}

/// Shows a plugin of the server: which version serves, and what it has done.
pub(in crate::cli) async fn inspect_running(client: &Client, name: &str, json: bool) -> Result<(), Failure> {
    let mut found = client.get(&format!("/plugins/{}", segment(name))).await?;
    if !json && let Some(found) = found.as_object_mut() {
        for generation in found.get_mut("generations").and_then(Value::as_array_mut).into_iter().flatten() {
            *generation = brief(generation);
        }
        match found.remove("canary") {
            None | Some(Value::Null) => {}
            Some(canary) => drop(found.insert("canary".to_owned(), tried(&canary))),
        }
    }
    print(&found, json)
}

/// A canary on one line: what it answers, and how it compares with the version that serves.
fn tried(canary: &Value) -> Value {
    let part = |name: &str| canary.pointer(name).map(output::field).unwrap_or_default();
    let arm = |arm: &str| {
        let parts = ["calls", "failures", "refusals", "p99_us"];
        let [calls, failures, refusals, p99] = parts.map(|name| part(&format!("/{arm}/{name}")));
        format!("{calls} calls, {failures} failed, {refusals} refused, 99 of 100 within {p99} µs")
    };
    let (generation, share) = (part("/generation"), part("/share"));
    let (new, old) = (arm("new"), arm("old"));
    Value::String(format!(
        "generation {generation} has {share} of the requests: {new}; the present one: {old}"
    ))
}

/// A generation on one line: its number, state, digest, and who pushed it.
fn brief(generation: &Value) -> Value {
    let part = |name| generation.get(name).map(output::field).unwrap_or_default();
    let parts = ["generation", "state", "digest", "pushed_by"].map(part);
    Value::String(parts.join(" "))
}

/// A component as JSON.
pub(super) fn describe(wasm: &[u8], inspection: &Inspection) -> Value {
    let imports: Vec<String> = inspection.imports.iter().map(ToString::to_string).collect();
    let needs = inspection.needs().into_iter();
    let mut needs: Vec<String> =
        needs.map(|need| format!("[{}] NAME = {:?}", need.table, need.access.name())).collect();
    if inspection.sends_requests() {
        needs.push("[grants.http] \"HOST\" = \"public\"".to_owned());
    }
    if inspection.hooks.http {
        needs.push("[http] route = \"/NAME/\"".to_owned());
    }
    let signed_by: Vec<String> = signed_by(wasm).iter().map(ToString::to_string).collect();
    json!({
        "size": wasm.len(),
        "digest": hex::encode(Sha256::digest(wasm)),
        "hooks": inspection.hooks.names(),
        "contracts": inspection.packages(),
        "imports": imports,
        "needs": needs,
        "made_by": made_by(wasm),
        "signed_by": signed_by,
    })
}

fn print(found: &Value, json: bool) -> Result<(), Failure> {
    if json {
        return Ok(output::print_json(found)?);
    }
    Ok(output::print(lines(found).as_bytes())?)
}

/// A line for each field; one for each item of a list.
pub(super) fn lines(found: &Value) -> String {
    let mut text = String::new();
    for (name, value) in found.as_object().into_iter().flatten() {
        match value {
            Value::Array(items) => {
                items.iter().for_each(|item| text.push_str(&format!("{name}: {}\n", output::field(item))));
            }
            value => text.push_str(&format!("{name}: {}\n", output::field(value))),
        }
    }
    text
}
