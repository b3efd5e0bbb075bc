//! `tollgate key delete`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::super::client::{Client, text};
use super::super::failure::Failure;
use super::super::{output, prompt};

/// Between two looks at how far the server is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Deletes a key and waits until its records are gone.
pub(super) async fn run(client: &Client, name: &str, sure: bool) -> Result<(), Failure> {
    if !sure {
        let what = format!("delete key {name} with everything that was recorded of it?");
        prompt::confirm(&what, "nobody is at the terminal: say --yes")?;
    }
    let answer = client.delete(&format!("{}?records=true", super::path(name))).await?;
    let id = text(&answer, "id")?;
    let progress = progress();
    let mut removed = 0;
    loop {
        // An id is hexadecimal digits.
        let deletions = client.get(&format!("/deletions?id={id}")).await?;
        // One that is not there any more is done.
        let Some(own) = deletions.pointer("/deletions/0") else { break };
        removed = own.get("removed_rows").and_then(Value::as_u64).unwrap_or_default();
        progress.set_position(removed);
        if own.get("done").and_then(Value::as_bool) == Some(true) {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    progress.finish_and_clear();
    let rest = "statistics of days and totals of accounts stay";
    Ok(output::print(format!("deleted {name} and {removed} rows; {rest}\n").as_bytes())?)
}

/// Shown on a terminal only.
fn progress() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} rows removed  {elapsed}") {
        progress.set_style(style);
    }
    progress
}
