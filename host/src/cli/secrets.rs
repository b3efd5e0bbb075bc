//! `tollgate secrets`.

use http::Method;
use serde_json::{Value, json};

use super::args::Rotate;
use super::client::Client;
use super::failure::Failure;
use super::{output, prompt};

pub(super) async fn rotate(client: &Client, rotate: Rotate) -> Result<(), Failure> {
    let given = match rotate.new_master_key_env {
        Some(name) => Some(prompt::variable(&name)?),
        None if rotate.new_master_key_stdin => Some(prompt::line("new master key")?),
        None => None,
    };
    let body = json!({
        "keep_master_key": rotate.keep_master_key,
        "new_master_key": given.as_ref().map(|key| key.expose()),
    });
    let answer = client.json(Method::POST, "/secrets/rotate", &body).await?;
    let secrets = answer.get("secrets").and_then(Value::as_u64).unwrap_or_default();
    let master = if rotate.keep_master_key { "the same" } else { "a new" };
    Ok(output::print(format!("{secrets} secrets encrypted anew, under {master} master key\n").as_bytes())?)
}
