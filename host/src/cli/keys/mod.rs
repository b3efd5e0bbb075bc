//! `tollgate key`.

mod args;
mod delete;

use http::Method;
use serde_json::{Value, json};

use super::client::{Client, segment, text};
use super::failure::Failure;
use super::usage::recent;
use super::{limits, output};

pub(super) use args::{KeyCommand, KeyCreate, KeySettings};

const COLUMNS: [&str; 11] = [
    "name",
    "limits",
    "models",
    "state",
    "expires_ms",
    "created_ms",
    "last_used_ms",
    "requests",
    "input_tokens",
    "output_tokens",
    "cost",
];

pub(super) async fn run(client: &Client, command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Create(KeyCreate { name, settings }) => create(client, name, settings).await,
        KeyCommand::List { json } => list(client, json).await,
        KeyCommand::Show { name } => Ok(output::print_json(&client.get(&path(&name)).await?)?),
        KeyCommand::Usage(usage) => {
            let path = path(&usage.name);
            recent(client, &path, usage).await
        }
        KeyCommand::Update { name, clear, settings } => {
            let mut patch = settings.patch();
            args::clear(&mut patch, clear);
            client.json(Method::PATCH, &path(&name), &Value::Object(patch)).await?;
            say("updated", &name)
        }
        KeyCommand::Rotate { name, overlap } => {
            let body = json!({ "overlap_ms": overlap });
            print_secret(&client.json(Method::POST, &format!("{}/rotate", path(&name)), &body).await?)
        }
        KeyCommand::Enable { name } => {
            client.json(Method::POST, &format!("{}/enable", path(&name)), &json!({})).await?;
            say("enabled", &name)
        }
        KeyCommand::Disable { name } => {
            client.json(Method::POST, &format!("{}/disable", path(&name)), &json!({})).await?;
            say("disabled", &name)
        }
        KeyCommand::Delete { name, yes, .. } => delete::run(client, &name, yes).await,
        KeyCommand::Revoke { name } => {
            client.delete(&path(&name)).await?;
            say("revoked", &name)
        }
    }
}

async fn create(client: &Client, name: String, settings: Box<KeySettings>) -> Result<(), Failure> {
    let mut body = settings.patch();
    body.insert("name".to_owned(), json!(name));
    print_secret(&client.json(Method::POST, "/keys", &Value::Object(body)).await?)
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let answer = client.get("/keys?totals=true").await?;
    if json {
        return Ok(output::print_json(&answer)?);
    }
    let keys = answer.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(output::print_table(&COLUMNS, &keys.iter().map(row).collect::<Vec<_>>())?)
}

fn row(key: &Value) -> Vec<Value> {
    let field = |name: &str| key.get(name).cloned().unwrap_or_default();
    let is = |name: &str| field(name) == Value::Bool(true);
    let state = match (is("active"), is("enabled")) {
        (false, _) => "revoked",
        (true, false) => "disabled",
        (true, true) => "active",
    };
    let own = [
        field("name"),
        json!(limits::shown(key)),
        field("models"),
        json!(state),
        field("expires_ms"),
        field("created_ms"),
    ];
    let totals = field("totals");
    let used = COLUMNS.iter().skip(own.len()).map(|column| totals.get(column).cloned().unwrap_or_default());
    own.iter().cloned().chain(used).collect()
}

/// Prints the objects of a list as rows, or the answer as it is.
pub(super) fn print_list(answer: &Value, list: &str, columns: &[&str], json: bool) -> Result<(), Failure> {
    if json {
        return Ok(output::print_json(answer)?);
    }
    let objects = answer.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let row = |object: &Value| columns.iter().map(|c| object.get(c).cloned().unwrap_or_default()).collect();
    Ok(output::print_table(columns, &objects.iter().map(row).collect::<Vec<_>>())?)
}

fn print_secret(answer: &Value) -> Result<(), Failure> {
    output::print(format!("{}\n", text(answer, "key")?).as_bytes())?;
    Ok(())
}

fn say(what: &str, name: &str) -> Result<(), Failure> {
    output::print(format!("{what} {name}\n").as_bytes())?;
    Ok(())
}

fn path(name: &str) -> String {
    format!("/keys/{}", segment(name))
}
