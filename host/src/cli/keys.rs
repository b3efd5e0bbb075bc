//! `tollgate key`.

use http::Method;
use serde_json::{Value, json};

use super::args::KeyCreate;
use super::client::{Client, segment, text};
use super::failure::Failure;
use super::output;

const COLUMNS: [&str; 7] = ["name", "rpm", "tpm", "rpd", "models", "active", "created_ms"];

pub(super) async fn create(client: &Client, key: KeyCreate) -> Result<(), Failure> {
    let KeyCreate { name, rpm, tpm, rpd, models } = key;
    let body = json!({ "name": name, "rpm": rpm, "tpm": tpm, "rpd": rpd, "models": models });
    let answer = client.json(Method::POST, "/keys", &body).await?;
    output::print(format!("{}\n", text(&answer, "key")?).as_bytes())?;
    Ok(())
}

pub(super) async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let answer = client.get("/keys").await?;
    print_list(&answer, "keys", &COLUMNS, json)
}

pub(super) async fn revoke(client: &Client, name: &str) -> Result<(), Failure> {
    client.delete(&format!("/keys/{}", segment(name))).await?;
    output::print(format!("revoked {name}\n").as_bytes())?;
    Ok(())
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
