//! `tollgate usage`.

use super::args::Usage;
use super::client::{Client, segment};
use super::failure::Failure;
use super::keys::print_list;

const COLUMNS: [&str; 9] = [
    "group",
    "name",
    "requests",
    "failed_requests",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost",
];

pub(super) async fn run(client: &Client, usage: Usage) -> Result<(), Failure> {
    let Usage { by, since, until, json } = usage;
    let mut path = format!("/usage?by={}", segment(&by));
    for (name, day) in [("since", since), ("until", until)] {
        if let Some(day) = day {
            path.push_str(&format!("&{name}={}", segment(&day)));
        }
    }
    print_list(&client.get(&path).await?, "usage", &COLUMNS, json)
}
