//! Sums up the tokens of each client by day, in a table of its own.
//!
//! One plugin takes the events, so a server takes this one when the shipped `ingestion`, which writes the request log, is
//! switched off.

use tollgate_guest::database::{Named, Statement, Value};
use tollgate_guest::ingestion::{Event, Guest, Receipt};
use tollgate_guest::{ingestion, lifecycle};

struct Plugin;
ingestion::export!(Plugin);
lifecycle::export!(Plugin);
thread_local!(static GATEWAY: Named = const { Named::new("gateway") });

const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS client_tokens (client TEXT, day INTEGER, tokens INTEGER, PRIMARY KEY (client, day))",
    "CREATE TABLE IF NOT EXISTS client_tokens_state (id INTEGER PRIMARY KEY, last INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO client_tokens_state VALUES (1, 0)",
];

/// Events come at least once: in one transaction, one that counts an event moves the state past it, so that it never
/// counts again.
const ADD: &str = "INSERT INTO client_tokens SELECT ?1, ?2, ?3 FROM client_tokens_state WHERE last < ?4
    ON CONFLICT DO UPDATE SET tokens = tokens + ?3";
const MOVE: &str = "UPDATE client_tokens_state SET last = ?1 WHERE last < ?1";

impl lifecycle::Guest for Plugin {
    fn init() -> Result<(), String> {
        let tables = TABLES.map(|sql| Statement { sql: sql.into(), params: Vec::new() });
        GATEWAY.with(|database| database.batch(&tables))?;
        Ok(())
    }
}

impl Guest for Plugin {
    fn ingest(batch: Vec<Event>) -> Result<Receipt, String> {
        let statements: Vec<Statement> = batch.iter().flat_map(statements).collect();
        let outcomes = GATEWAY.with(|database| database.batch(&statements))?;
        let moved = outcomes.iter().skip(1).step_by(2).filter(|outcome| outcome.rows_written > 0).count() as u32;
        Ok(Receipt { stored: moved, repeated: batch.len() as u32 - moved })
    }
}

fn statements(event: &Event) -> [Statement; 2] {
    let integer = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let (day, tokens) = (event.time_ms / 86_400_000, event.input_tokens.saturating_add(event.output_tokens));
    let sequence = integer(event.sequence);
    let row = vec![Value::Text(event.client_name.clone()), integer(day), integer(tokens), sequence.clone()];
    [Statement { sql: ADD.into(), params: row }, Statement { sql: MOVE.into(), params: vec![sequence] }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_for_its_client_and_day() {
        let event = Event {
            sequence: 7,
            request_id: "r".into(),
            time_ms: 2 * 86_400_000 + 5,
            client_type: "openai".into(),
            client_ip: "127.0.0.1".into(),
            user_agent: "test".into(),
            client_key_hash: "00".into(),
            client_name: "alice".into(),
            api_key_hash: "01".into(),
            account_name: "main".into(),
            model: "m".into(),
            original_model: "m".into(),
            endpoint: "/v1/chat/completions".into(),
            method: "POST".into(),
            referer: "".into(),
            response_time_ms: 5,
            status_code: 200,
            input_tokens: 3,
            output_tokens: 4,
            cache_read_tokens: 0,
            cache_write_tokens: 0,
            reasoning_tokens: 0,
            token_source: "reported".into(),
            cost: None,
            is_stream: false,
            has_error: false,
            error_type: "".into(),
            error_message: None,
            request_size: 10,
            response_size: 10,
            attempts: vec![],
        };
        let [add, _] = statements(&event);
        let expected = [Value::Text("alice".into()), Value::Integer(2), Value::Integer(7), Value::Integer(7)];
        assert_eq!(add.params, expected);
    }
}
