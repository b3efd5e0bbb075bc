//! What a plugin can do with SQL: in the very database where keys, accounts and the log are.

use super::House;
use crate::support::client::Answer;
use crate::support::{Guest, eventually};

/// The cases of the error variant.
const ACCESS_DENIED: &str = "0";
const UNAVAILABLE: &str = "5";

/// One table of the server's own database, to be read.
const GRANTED: &str = "[grants.sql.gateway]\nrequest_logs = \"read\"";

const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n";

/// A guest whose job runs this statement and ends with the first value of its answer, or with its error's case.
fn runs(function: &str, statement: &str) -> Guest {
    Guest::new()
        .sql("gateway", function, statement)
        .job("(if (call $statement) (then (return (call $refused)))) (call $ran (call $number))")
}

/// The job has ended with an error of this case.
fn refused(answer: &Answer, case: &str, statement: &str) {
    let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.ends_with(&format!("failed: {case}")), "{statement}: {}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_not_granted_is_neither_read_nor_written() {
    const REQUESTS: u64 = 3;
    let count = "SELECT count(*) FROM request_logs";
    let house = House::with(&runs("query", count), GRANTED).await;
    let server = &house.server;
    let client = server.client(&server.key("free", &[]));
    for _ in 0..REQUESTS {
        assert_eq!(client.chat("gpt-test").await.status, 200);
    }
    eventually("the requests are in the log", || async { (server.count(count) == REQUESTS).then_some(()) })
        .await;
    let read = house.job().await;
    assert_eq!((read.status.as_u16(), read.json()["changed"].as_u64()), (200, Some(REQUESTS)), "{read:?}");

    let keys = || server.sql("SELECT * FROM api_keys ORDER BY id");
    let before = keys();
    for (function, statement) in [
        ("query", "SELECT key_hash FROM api_keys"),
        ("query", "SELECT count(*) FROM accounts"),
        ("query", "SELECT (SELECT secret_hash FROM api_keys) FROM request_logs"),
        ("execute", "UPDATE api_keys SET limits = '{}'"),
        ("execute", "INSERT INTO api_keys (key_hash, name, created_ms, updated_ms) VALUES ('x', 'x', 0, 0)"),
        ("execute", "DELETE FROM accounts"),
        // Granted, but not for writing.
        ("execute", "DELETE FROM request_logs"),
    ] {
        let output = house.push(&runs(function, statement).build(), GRANTED);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        refused(&house.job().await, ACCESS_DENIED, statement);
    }
    house.named("grant", "").await;
    house.never_trapped().await;
    assert_eq!((keys(), server.count(count)), (before, REQUESTS));
    house.serves_on().await;
}

/// By `execute`, so that it has the one writer: nobody else writes meanwhile, not even the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_never_ends_gives_the_writer_back_after_its_turn() {
    let house = House::with(&runs("execute", ENDLESS), GRANTED).await;
    let beside = async {
        house.called("run").await;
        house.serves_on().await;
    };
    let (ended, ()) = tokio::join!(house.job(), beside);
    refused(&ended, UNAVAILABLE, ENDLESS);
    house.named("sql-turn", "").await;
    house.never_trapped().await;
    eventually("the log is written again", || async {
        (house.server.count("SELECT count(*) FROM request_logs") > 0).then_some(())
    })
    .await;
}

/// The guest itself runs for no millisecond: only the clock on the wall ends such a call.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_waits_for_a_query_without_end_is_given_up() {
    let waits = "(loop $on (drop (call $statement)) (br $on)) unreachable";
    let house = House::with(&Guest::new().sql("gateway", "query", ENDLESS).admit(waits), GRANTED).await;
    house.serves_on().await;
    house.named("waiting", "ran over its deadline of 20 ms").await;
}
