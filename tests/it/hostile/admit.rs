//! What a policy can do when it is asked about a request.

use super::House;
use crate::support::Guest;
use crate::support::guest::ALLOW;

/// Fails with the text at 1,536 unless the call before answered with an error of this case; then it allows.
fn expects(case: u32) -> String {
    format!(
        "(if (i32.or (i32.eqz (i32.load8_u (i32.const 800))) (i32.ne (i32.load8_u (i32.const 804)) (i32.const {case})))
            (then unreachable)) {ALLOW}"
    )
}

async fn ends(guest: &Guest, limit: &str, words: &str) {
    let house = House::with(guest, "").await;
    house.serves_on().await;
    house.named(limit, words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_ends_at_its_deadline() {
    let guest = Guest::new().admit("(loop $on (br $on)) unreachable");
    let house = House::with(&guest, "").await;
    house.serves_on().await;
    house.overran("admit", "ran over its deadline of 20 ms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_in_host_calls_ends_at_its_deadline() {
    let open = "(call $open (i32.const 640) (i32.const 1) (i32.const 800))";
    let guest = Guest::new().kv("hostile").admit(&format!("(loop $on {open} (br $on)) unreachable"));
    let house = House::with(&guest, "").await;
    house.serves_on().await;
    house.overran("admit", "ran over its deadline of 20 ms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sleeps_is_ended_by_the_clock_on_the_wall() {
    let hour = "(call $sleep (i64.const 3600000000000))";
    ends(&Guest::new().clock().admit(&format!("{hour} {ALLOW}")), "waiting", "ran over its deadline").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_calls_are_counted_and_end() {
    // Far longer than the calls take, so that only their number ends them.
    let open = "(call $open (i32.const 640) (i32.const 1) (i32.const 800))";
    let until_refused =
        format!("(loop $on {open} (br_if $on (i32.ne (i32.load8_u (i32.const 804)) (i32.const 2)))) {ALLOW}");
    let house =
        House::with(&Guest::new().kv("hostile").admit(&until_refused), "admit-deadline-ms = 60000").await;
    house.serves_on().await;
    house.named("host-calls", "").await;
    assert!(house.server.metric("tollgate_plugin_host_calls_total").await >= 20_000.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_bomb_ends_at_its_memory() {
    let grow = "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    ends(&Guest::new().admit(grow), "memory", "out of its 16777216 bytes of memory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_instances_together_have_an_end_too() {
    // Each instance takes most of what it may and stays, warm; the second one finds too little left.
    let once = format!(
        "(if (i32.eq (memory.size) (i32.const 4)) (then
            (if (i32.eq (memory.grow (i32.const 200)) (i32.const -1)) (then unreachable))
            (loop $on (br_if $on (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 10000000))))))
        {ALLOW}"
    );
    let limits = "memory-bytes = 16777216\ntotal-memory-bytes = 20000000\nadmit-deadline-ms = 1000";
    let house = House::with(&Guest::new().admit(&once), limits).await;
    let client = house.server.client(&house.server.key("free", &[]));
    let both = tokio::join!(client.chat("gpt-test"), client.chat("gpt-test"), client.chat("gpt-test"));
    assert_eq!([both.0.status, both.1.status, both.2.status], [200; 3]);
    house.serves_on().await;
    house.named("total-memory", "out of their 20000000 bytes of memory together").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_bomb_ends_at_its_elements() {
    let guest = Guest::new().define("(table $t 1 funcref)").admit(
        "(loop $on (br_if $on (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
        unreachable",
    );
    ends(&guest, "table", "out of its 20000 elements of a table").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_recursion_ends_at_the_stack() {
    let guest = Guest::new()
        .define("(func $deep (param i64) (result i64) (i64.add (call $deep (local.get 0)) (local.get 0)))")
        .admit("(drop (call $deep (i64.const 1))) unreachable");
    ends(&guest, "stack", "out of its 524288 bytes of stack").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_on_every_call_harms_nobody_else() {
    let house = House::with(&Guest::new().admit("unreachable"), "").await;
    house.serves_on().await;
    assert!(house.server.log().contains("wasm `unreachable` instruction executed"), "{}", house.server.log());
    let traps =
        house.server.metric_with("tollgate_plugin_traps_total", &["plugin=\"hostile\"", "hook=\"admit\""]);
    assert!(traps.await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_beyond_the_guests_memory_are_a_trap() {
    for (at, length) in [(0xffff_0000_u32, 0x1_0000_u32), (1536, 0x7fff_ffff), (0xffff_ffff, 0xffff_ffff)] {
        let call = format!(
            "(call $get_many (call $store) (i32.const {}) (i32.const {}) (i32.const 800)) unreachable",
            at as i32, length as i32
        );
        let house = House::with(&Guest::new().kv("hostile").admit(&call), "").await;
        house.serves_on().await;
        assert!(house.server.log().contains("trapped: "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_small_in_the_guest_and_huge_in_the_host_ends_at_the_bytes_of_a_call() {
    // A thousand keys that are all the same megabyte of memory.
    let fill = "(local.set 0 (i32.const 8192)) (drop (memory.grow (i32.const 32)))
        (loop $on
            (i32.store (local.get 0) (i32.const 65536)) (i32.store offset=4 (local.get 0) (i32.const 1048576))
            (br_if $on (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 8))) (i32.const 16192))))";
    let call = "(call $get_many (call $store) (i32.const 8192) (i32.const 1000) (i32.const 800)) unreachable";
    let guest = Guest::new().kv("hostile").admit(&format!("{fill} {call}"));
    ends(&guest, "call-bytes", "passes more than 8388608 bytes to the host at once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_that_are_huge_in_the_host_end_at_the_bytes_of_a_call() {
    // Two thousand denials whose reasons are all the same 200,000 bytes.
    let decisions = "(drop (memory.grow (i32.const 32))) (call $allow (i32.const 100000000))";
    let house = House::with(&Guest::new().admit(decisions), "").await;
    house.serves_on().await;
    assert!(house.server.log().contains("trapped: "));
    let tickets = "(drop (memory.grow (i32.const 16))) (local.set 0 (i32.const 262144))
        (loop $on
            (i32.store8 offset=8 (local.get 0) (i32.const 1))
            (i32.store offset=16 (local.get 0) (i32.const 200000))
            (br_if $on (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 4))) (i32.const 700000))))
        (drop (call $allow (i32.const 2000))) (i32.store (i32.const 516) (i32.const 262144)) i32.const 512";
    ends(&Guest::new().admit(tickets), "call-bytes", "bytes to the host at once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_over_its_limit_is_a_failure_that_says_so() {
    let ticket = "(i32.store8 (i32.const 1032) (i32.const 1)) (i32.store (i32.const 1036) (i32.const 2048))
        (i32.store (i32.const 1040) (i32.const 1025)) (call $allow (local.get 15))";
    ends(&Guest::new().admit(ticket), "ticket", "gave a ticket of 1025 bytes, more than 1024").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_not_granted_stays_shut() {
    for (name, case) in [("private", 0), ("nowhere", 1)] {
        let guest = Guest::new().kv(name).admit(&format!("(drop (call $store)) {}", expects(case)));
        let house = House::with(&guest, "").await;
        house.serves_on().await;
        house.named("grant", "").await;
        let traps = house.server.metric_with("tollgate_plugin_traps_total", &["plugin=\"hostile\""]).await;
        assert_eq!(traps, 0.0, "store {name:?} did not answer with error {case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_over_its_limit_is_refused_and_the_plugin_told() {
    let set = "(drop (memory.grow (i32.const 32)))
        (call $set (call $store) (i32.const 640) (i32.const 1) (i32.const 0) (i32.const 1048577)
            (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 800))";
    // Case 2 is too-large.
    let house = House::with(&Guest::new().kv("hostile").admit(&format!("{set} {}", expects(2))), "").await;
    house.serves_on().await;
    house.named("size", "").await;
    let traps = house.server.metric_with("tollgate_plugin_traps_total", &["plugin=\"hostile\""]).await;
    assert_eq!(traps, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_that_are_never_closed_run_out() {
    let open = "(call $open (i32.const 640) (i32.const 7) (i32.const 800))";
    let until_refused =
        format!("(loop $on {open} (br_if $on (i32.eqz (i32.load8_u (i32.const 800))))) {ALLOW}");
    ends(&Guest::new().kv("hostile").admit(&until_refused), "handles", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_no_utf_8_is_a_trap() {
    let broken = Guest::new().define("(data (i32.const 1536) \"\\ff\\fe\")");
    let error = "(i32.store8 (i32.const 512) (i32.const 1)) (i32.store (i32.const 516) (i32.const 1536))
        (i32.store (i32.const 520) (i32.const 2)) i32.const 512";
    let house = House::with(&broken.admit(error), "").await;
    house.serves_on().await;
    assert!(house.server.log().contains("invalid utf-8"));
    let key = "(call $get (call $store) (i32.const 1536) (i32.const 2) (i32.const 800)) unreachable";
    let broken = Guest::new().kv("hostile").define("(data (i32.const 1536) \"\\ff\\fe\")");
    let house = House::with(&broken.admit(key), "").await;
    house.serves_on().await;
    assert!(house.server.log().contains("invalid utf-8"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_flood_is_cut_and_counted() {
    let print = "(call $print (i32.const 1536) (i32.const 5))";
    let guest = Guest::new().stdout().define("(data (i32.const 1536) \"noise\")");
    let lines = format!(
        "(local.set 0 (i32.const 0)) (i32.store8 (i32.const 1540) (i32.const 10))
        (loop $on {print} (br_if $on (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 500))))
        {ALLOW}"
    );
    let house = House::with(&guest.admit(&lines), "admit-deadline-ms = 1000").await;
    house.serves_on().await;
    house.named("log-lines", "nois").await;
    assert!(house.server.metric("tollgate_plugin_log_lines_dropped_total").await > 0.0);
}
