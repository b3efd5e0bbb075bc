//! What is done with the plugins of a running server.

use http::Method;
use serde_json::{Map, Value, json};

use super::args::PluginPush;
use super::{Target, read, read_manifest};
use crate::cli::client::{Client, segment, text};
use crate::cli::failure::Failure;
use crate::cli::keys::print_list;
use crate::cli::output;

const COLUMNS: [&str; 9] =
    ["name", "version", "generation", "state", "order", "hooks", "calls", "traps", "digest"];

const VERSION_COLUMNS: [&str; 7] =
    ["name", "generation", "state", "digest", "pushed_ms", "pushed_by", "reason"];

pub(in crate::cli) async fn push(client: &Client, push: PluginPush) -> Result<(), Failure> {
    let PluginPush { path, name, manifest, grant, canary, promote_after } = push;
    let target = Target::of(path.as_deref(), manifest.as_deref())?;
    let Target { file, manifest, .. } = &target;
    let Some(name) = name.or_else(|| target.name()) else {
        return Err(Failure::Usage(format!("{} gives no name; use --name", file.display())));
    };
    let manifest = manifest.as_deref().map(read_manifest).transpose()?;
    let promote_after = promote_after.map(|time| time.as_millis().to_string());
    let parameters = [
        ("manifest", manifest),
        ("grant", grant.then(|| "true".to_owned())),
        ("canary", canary),
        ("promote_after_ms", promote_after),
    ];
    let parameters =
        parameters.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", segment(&value?))));
    let path = format!("/plugins/{}?{}", segment(&name), parameters.collect::<Vec<_>>().join("&"));
    let path = path.trim_end_matches('?');
    let answer = client.put(path, "application/wasm", read(file)?).await?;
    print_pushed(&answer)
}

pub(in crate::cli) async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    print_list(&client.get("/plugins").await?, "plugins", &COLUMNS, json)
}

/// Lists what is kept of each plugin, newest first.
pub(in crate::cli) async fn list_versions(client: &Client) -> Result<(), Failure> {
    let list = client.get("/plugins").await?;
    let mut rows = Vec::new();
    for plugin in list.get("plugins").and_then(Value::as_array).into_iter().flatten() {
        let name = text(plugin, "name")?;
        let plugin = client.get(&format!("/plugins/{}", segment(name))).await?;
        for version in plugin.get("generations").and_then(Value::as_array).into_iter().flatten() {
            let row = VERSION_COLUMNS.map(|column| match column {
                "name" => json!(name),
                column => version.get(column).cloned().unwrap_or_default(),
            });
            rows.push(row.to_vec());
        }
    }
    Ok(output::print_table(&VERSION_COLUMNS, &rows)?)
}

pub(in crate::cli) async fn rollback(client: &Client, name: &str, to: Option<String>) -> Result<(), Failure> {
    let path = format!("/plugins/{}/rollback", segment(name));
    let answer = client.json(Method::POST, &path, &json!({ "to": to })).await?;
    print_pushed(&answer)
}

pub(in crate::cli) async fn set(
    client: &Client,
    name: &str,
    settings: Vec<(String, String)>,
    unset: Vec<String>,
) -> Result<(), Failure> {
    let set = settings.into_iter().map(|(key, value)| (key, json!(value)));
    let config: Map<String, Value> = set.chain(unset.into_iter().map(|key| (key, Value::Null))).collect();
    let path = format!("/plugins/{}/config", segment(name));
    print_pushed(&client.json(Method::POST, &path, &json!({ "config": config })).await?)
}

pub(in crate::cli) async fn promote(client: &Client, name: &str) -> Result<(), Failure> {
    let path = format!("/plugins/{}/promote", segment(name));
    print_pushed(&client.json(Method::POST, &path, &json!({})).await?)
}

fn print_pushed(answer: &Value) -> Result<(), Failure> {
    let generation = answer.get("generation").and_then(Value::as_u64).unwrap_or_default();
    let (name, digest) = (text(answer, "name")?, text(answer, "digest")?);
    let share = answer.get("canary").and_then(Value::as_str).map(|share| format!(" {share} of the requests"));
    let share = share.unwrap_or_default();
    let line = format!("{name}: generation {generation} serves{share}, digest {digest}\n");
    Ok(output::print(line.as_bytes())?)
}
