//! A new version of a shipped plugin on the tables of an earlier one.

use crate::support::{Behaviour, Setup, Upstream, component, eventually};

/// The log as its first version made it.
const EARLIER: &str = "CREATE TABLE request_logs (
    sequence INTEGER PRIMARY KEY, id TEXT NOT NULL, timestamp INTEGER NOT NULL, client_type TEXT NOT NULL,
    client_ip TEXT NOT NULL, user_agent TEXT NOT NULL, client_key_hash TEXT NOT NULL, client_name TEXT NOT NULL,
    api_key_hash TEXT NOT NULL, account_name TEXT NOT NULL, model TEXT NOT NULL, original_model TEXT NOT NULL,
    endpoint TEXT NOT NULL, response_time INTEGER NOT NULL, status_code INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, total_tokens INTEGER NOT NULL,
    is_stream INTEGER NOT NULL, has_error INTEGER NOT NULL, error_message TEXT, request_size INTEGER NOT NULL,
    response_size INTEGER NOT NULL)";

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_an_earlier_version_gets_the_new_columns_when_the_plugin_is_pushed() {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let server = Setup::with(&upstream).start();
    server.cli_ok(&["sql", "gateway", "DROP TABLE request_logs"]);
    server.cli_ok(&["sql", "gateway", EARLIER]);
    // A note at its end makes the same component another version, whose tables are prepared anew.
    let mut bytes = std::fs::read(component::shipped("ingestion")).unwrap();
    bytes.extend_from_slice(b"\0\x05\x04note");
    let pushed = server.home().join("ingestion.wasm");
    std::fs::write(&pushed, bytes).unwrap();
    server.cli_ok(&["plugin", "push", pushed.to_str().unwrap()]);
    assert_eq!(server.client(&server.key("user", &[])).chat("gpt-test").await.status, 200);
    let row =
        "SELECT input_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens FROM request_logs";
    eventually("the request is in the log", || async {
        (server.sql(row) == [["5", "0", "0", "0"]]).then_some(())
    })
    .await;
}
