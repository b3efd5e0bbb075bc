//! What a plugin can have the host answer: more than a call may move, or than a store answers at once.

use super::House;
use crate::support::Guest;
use crate::support::guest::{ALLOW, DONE};

/// Makes room for a megabyte in memory, where an instance has not done so yet.
const ROOM: &str = "(if (i32.eq (memory.size) (i32.const 4)) (then (drop (memory.grow (i32.const 32)))))";

/// Long enough that only the bytes end a call.
const UNHURRIED: &str = "admit-deadline-ms = 60000";

/// A guest whose `init` has written the largest value there may be, under key `h`, the first letter of its store's name.
fn with_a_large_value() -> Guest {
    Guest::new().kv("hostile").init(&format!(
        "{ROOM} (call $set (call $store) (i32.const 640) (i32.const 1) (i32.const 0) (i32.const 1048576)
            (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 800))
        (if (i32.load8_u (i32.const 800)) (then unreachable)) {DONE}"
    ))
}

/// Traps unless the call before answered with the error too-large; then it allows.
fn too_large() -> String {
    format!(
        "(if (i32.or (i32.eqz (i32.load8_u (i32.const 800))) (i32.ne (i32.load8_u (i32.const 804)) (i32.const 2)))
            (then unreachable)) {ALLOW}"
    )
}

/// The policy was told, each time, and everybody else is served on.
async fn ends(guest: &Guest, limits: &str, limit: &str) {
    let house = House::with(guest, limits).await;
    house.serves_on().await;
    house.named(limit, "").await;
    house.never_trapped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_counted_by_their_bytes_and_end() {
    // Seven answers of a megabyte pass: with their keys they leave too little of a call's 8 MiB for another.
    let until_refused = format!(
        "{ROOM} (local.set 0 (i32.const 0))
        (loop $on
            (call $get (call $store) (i32.const 640) (i32.const 1) (i32.const 800))
            (if (i32.eqz (i32.load8_u (i32.const 800))) (then
                (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                (br $on))))
        (if (i32.ne (local.get 0) (i32.const 7)) (then unreachable))
        {}",
        too_large()
    );
    ends(&with_a_large_value().admit(&until_refused), UNHURRIED, "host-bytes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_list_that_asks_for_a_gigabyte_is_refused() {
    // A thousand times the same key.
    let list = "(local.set 0 (i32.const 8192))
        (loop $on
            (i32.store (local.get 0) (i32.const 640)) (i32.store offset=4 (local.get 0) (i32.const 1))
            (br_if $on (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 8))) (i32.const 16192))))
        (call $get_many (call $store) (i32.const 8192) (i32.const 1000) (i32.const 800))";
    let guest = with_a_large_value().admit(&format!("{list} {}", too_large()));
    ends(&guest, UNHURRIED, "size").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_megabytes_that_a_few_letters_ask_for_is_refused() {
    // More than a call may move, and more than any value may have.
    for (bytes, limit) in [(9_000_000, "host-bytes"), (17_000_000, "size")] {
        let query = format!("SELECT zeroblob({bytes})");
        let asks = "(if (i32.eqz (call $statement)) (then unreachable))
            (if (i32.ne (global.get $case) (i32.const 2)) (then unreachable))";
        let guest = Guest::new().sql("gateway", "query", &query).admit(&format!("{asks} {ALLOW}"));
        let granted = format!("{UNHURRIED}\n[grants.sql.gateway]\nrequest_logs = \"read\"");
        ends(&guest, &granted, limit).await;
    }
}
