//! Writes the record of every request to `request_logs` and adds it to its account's `api_key_metrics`.
//!
//! Events come at least once. The last sequence that was stored is kept in `ingestion_state` and moves in the same
//! transaction as the rows and totals, so each event counts exactly once.

mod limits;
mod schema;
mod totals;

use tollgate_guest::database::{Named, Statement, Value};
use tollgate_guest::ingestion::{Event, Receipt};
use tollgate_guest::{ingestion, lifecycle};

use crate::limits::ROWS_PER_INSERT;
use crate::schema::{COLUMNS, PRESENT, TABLES, additions};
use crate::totals::Totals;

thread_local! {
    static DATABASE: Named = const { Named::new("gateway") };
}

/// Fails by its NULL, and with it the whole transaction, when the state is not the one that was read: another instance
/// stored events meanwhile.
const GUARD: &str = "INSERT INTO ingestion_state (name, last_sequence) SELECT 'moved', NULL
    WHERE (SELECT last_sequence FROM ingestion_state WHERE name = 'request_logs') IS NOT ?1";

const READ_STATE: &str = "SELECT last_sequence FROM ingestion_state WHERE name = 'request_logs'";

const WRITE_STATE: &str = "UPDATE ingestion_state SET last_sequence = ?1 WHERE name = 'request_logs'";

struct Ingestion;

ingestion::export!(Ingestion);
lifecycle::export!(Ingestion);

impl lifecycle::Guest for Ingestion {
    fn init() -> Result<(), String> {
        let statements = TABLES.map(|sql| Statement { sql: sql.to_owned(), params: Vec::new() });
        DATABASE.with(|database| {
            database.batch(&statements)?;
            let columns = database.query(PRESENT, Vec::new())?.rows;
            let present = columns.iter().filter_map(|row| match row.first() {
                Some(Value::Text(name)) => Some(name.as_str()),
                _ => None,
            });
            let added = additions(&present.collect::<Vec<_>>());
            let added: Vec<_> = added.into_iter().map(|sql| Statement { sql, params: Vec::new() }).collect();
            if added.is_empty() { Ok(()) } else { database.batch(&added).map(|_| ()) }
        })
    }
}

impl ingestion::Guest for Ingestion {
    fn ingest(batch: Vec<Event>) -> Result<Receipt, String> {
        DATABASE.with(|database| {
            let last = last_sequence(database)?;
            let events: Vec<&Event> = batch.iter().filter(|event| event.sequence > last).collect();
            if !events.is_empty() {
                database.batch(&statements(last, &events))?;
            }
            let stored = events.len() as u32;
            Ok(Receipt { stored, repeated: batch.len() as u32 - stored })
        })
    }
}

fn last_sequence(database: &Named) -> Result<u64, String> {
    let outcome = database.query(READ_STATE, Vec::new())?;
    match outcome.rows.first().and_then(|row| row.first()) {
        Some(Value::Integer(last)) => {
            u64::try_from(*last).map_err(|_| "ingestion_state is corrupt".to_owned())
        }
        _ => Err("ingestion_state has no row".to_owned()),
    }
}

/// The transaction that stores events, all of them later than `last`.
fn statements(last: u64, events: &[&Event]) -> Vec<Statement> {
    let mut statements = vec![Statement { sql: GUARD.to_owned(), params: vec![integer(last)] }];
    let mut chunks = events.chunks_exact(ROWS_PER_INSERT);
    let several = insert(ROWS_PER_INSERT);
    for chunk in &mut chunks {
        let params = chunk.iter().copied().flat_map(row).collect();
        statements.push(Statement { sql: several.clone(), params });
    }
    let single = insert(1);
    for event in chunks.remainder() {
        statements.push(Statement { sql: single.clone(), params: row(event).into() });
    }
    statements.extend(Totals::of(events).iter().map(|(key, totals)| totals.statement(key)));
    let newest = events.iter().map(|event| event.sequence).max().unwrap_or(last);
    statements.push(Statement { sql: WRITE_STATE.to_owned(), params: vec![integer(newest)] });
    statements
}

/// An insert of so many rows.
fn insert(rows: usize) -> String {
    let mut sql = format!("INSERT INTO request_logs ({}) VALUES ", COLUMNS.join(", "));
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        sql.push_str("?, ".repeat(COLUMNS.len() - 1).as_str());
        sql.push_str("?)");
    }
    sql
}

fn row(event: &Event) -> [Value; COLUMNS.len()] {
    [
        integer(event.sequence),
        text(&event.request_id),
        integer(event.time_ms),
        text(&event.client_type),
        text(&event.client_ip),
        text(&event.user_agent),
        text(&event.client_key_hash),
        text(&event.client_name),
        text(&event.api_key_hash),
        text(&event.account_name),
        text(&event.model),
        text(&event.original_model),
        text(&event.endpoint),
        integer(event.response_time_ms),
        Value::Integer(i64::from(event.status_code)),
        integer(event.input_tokens),
        integer(event.output_tokens),
        integer(event.input_tokens.saturating_add(event.output_tokens)),
        integer(event.cache_read_tokens),
        integer(event.cache_write_tokens),
        integer(event.reasoning_tokens),
        Value::Integer(i64::from(event.is_stream)),
        Value::Integer(i64::from(event.has_error)),
        event.error_message.as_deref().map_or(Value::Null, text),
        integer(event.request_size),
        integer(event.response_size),
    ]
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// SQLite's integers are signed; what does not fit is as large as possible.
fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
