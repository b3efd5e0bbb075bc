//! `tollgate audit`.

use super::args::AuditCommand;
use super::client::{Client, segment};
use super::failure::Failure;
use super::keys::print_list;

const COLUMNS: [&str; 7] = ["id", "time_ms", "actor", "action", "target", "ok", "code"];

pub(super) async fn run(client: &Client, command: AuditCommand) -> Result<(), Failure> {
    let AuditCommand::List { action, before, limit, json } = command;
    let mut path = format!("/audit?limit={limit}");
    if let Some(action) = action {
        path.push_str(&format!("&action={}", segment(&action)));
    }
    if let Some(before) = before {
        path.push_str(&format!("&before={before}"));
    }
    print_list(&client.get(&path).await?, "changes", &COLUMNS, json)
}
