//! The jobs' statements on real SQLite, and what they read and write.

use rusqlite::{Connection, params};

use super::*;

/// The columns that this plugin knows of the table, which `ingestion` makes.
fn gateway() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE TABLE api_key_metrics (api_key_hash TEXT PRIMARY KEY, total_requests INTEGER NOT NULL DEFAULT 0,
            successful_requests INTEGER NOT NULL DEFAULT 0, failed_requests INTEGER NOT NULL DEFAULT 0,
            average_response_time REAL NOT NULL DEFAULT 0, is_healthy INTEGER NOT NULL DEFAULT 1, last_check INTEGER,
            last_used INTEGER, first_seen INTEGER, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL)",
        )
        .unwrap();
    connection
}

fn add(connection: &Connection, hash: &str, requests: i64) {
    let sql = "INSERT INTO api_key_metrics (api_key_hash, total_requests, created_at, updated_at)
        VALUES (?1, ?2, 1, 1)";
    connection.execute(sql, params![hash, requests]).unwrap();
}

#[test]
fn an_unhealthy_mark_leaves_the_other_metrics() {
    let connection = gateway();
    add(&connection, "known", 7);
    let mark = |hash| connection.execute(MARK_UNHEALTHY, params![hash, 500]).unwrap();
    assert_eq!((mark("known"), mark("known"), mark("new"), mark("new")), (1, 0, 1, 0));
    let row = |hash: &str| -> (i64, i64, i64, i64) {
        let sql = "SELECT total_requests, is_healthy, created_at, updated_at FROM api_key_metrics
            WHERE api_key_hash = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        connection.query_row(sql, [hash], row).unwrap()
    };
    assert_eq!(row("known"), (7, 0, 1, 500));
    assert_eq!(row("new"), (0, 0, 500, 500));
}

#[test]
fn the_busiest_keys_are_the_fifty_with_most_requests_over_a_hundred() {
    let connection = gateway();
    for requests in 60..=180 {
        add(&connection, &format!("key-{requests}"), requests);
    }
    let mut statement = connection.prepare(BUSIEST).unwrap();
    let rows: Vec<i64> = statement.query_map([], |row| row.get(1)).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows, (131..=180).rev().collect::<Vec<_>>());
    connection.execute("DELETE FROM api_key_metrics WHERE total_requests > 101", []).unwrap();
    let mut statement = connection.prepare(BUSIEST).unwrap();
    let rows: Vec<i64> = statement.query_map([], |row| row.get(1)).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows, [101]);
}

#[test]
fn only_entries_that_hold_for_the_whole_account_count() {
    let entry = |until_ms: u64| format!(r#"{{"reason":"r","until_ms":{until_ms}}}"#).into_bytes();
    assert_eq!(blacklisted("account:abc", &entry(11), 10), Some("abc"));
    assert_eq!(blacklisted("account:abc", &entry(10), 10), None);
    assert_eq!(blacklisted("account:abc/model", &entry(11), 10), None);
    assert_eq!(blacklisted("client:abc", &entry(11), 10), None);
    assert_eq!(blacklisted("account:abc", b"unreadable", 10), Some("abc"));
}

#[test]
fn a_hot_key_is_plain_json() {
    let row = [
        Value::Text("abc".to_owned()),
        Value::Integer(200),
        Value::Integer(190),
        Value::Integer(10),
        Value::Real(12.5),
        Value::Integer(1),
        Value::Null,
    ];
    let json = serde_json::to_string(&HotKey::from_row(&row).unwrap()).unwrap();
    assert_eq!(
        json,
        r#"{"api_key_hash":"abc","total_requests":200,"successful_requests":190,"failed_requests":10,"average_response_time":12.5,"is_healthy":true,"last_used":null}"#
    );
    assert_eq!(HotKey::from_row(&row[1..]), None);
}
