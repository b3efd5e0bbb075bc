//! `tollgate reload`.

use http::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::failure::Failure;
use super::output;

pub(super) async fn run(client: &Client) -> Result<(), Failure> {
    let answer = client.json(Method::POST, "/reload", &json!({})).await?;
    let keys = |name: &str| {
        let keys = answer.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        keys.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    let lines = [("took over", keys("changed")), ("needs a restart", keys("restart"))];
    let lines = lines.iter().filter(|(_, keys)| !keys.is_empty());
    let mut text: String = lines.map(|(what, keys)| format!("{what}: {keys}\n")).collect();
    if text.is_empty() {
        text.push_str("nothing has changed\n");
    }
    Ok(output::print(text.as_bytes())?)
}
