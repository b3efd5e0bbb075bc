//! Writes the record of every request to `request_logs`, those of errors to `error_logs` too, and adds it to its account's
//! `api_key_metrics`, to the `system_stats` of its day and to what its client used on that day, `usage_daily`. Attempts that
//! failed on other accounts before go to `error_logs`, and count for those accounts.
//!
//! Events come at least once. The last sequence that was stored is kept in `ingestion_state` and moves in the same
//! transaction as the rows and totals, so each event counts exactly once.

mod days;
mod errors;
mod limits;
mod schema;
mod totals;
mod usage;

use tollgate_guest::database::{Named, Statement, Value};
use tollgate_guest::ingestion::{Event, Receipt};
use tollgate_guest::{ingestion, lifecycle};

use crate::days::Day;
use crate::limits::EVENTS_AT_ONCE;
use crate::schema::{COLUMNS, PRESENT, TABLES, additions};
use crate::totals::Totals;
use crate::usage::Used;

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
            let present = columns.iter().filter_map(|row| match row.as_slice() {
                [Value::Text(table), Value::Text(column)] => Some((table.as_str(), column.as_str())),
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
            let all = batch.len() as u32;
            let events: Vec<Event> = batch.into_iter().filter(|event| event.sequence > last).collect();
            let stored = events.len() as u32;
            let mut last = last;
            for events in events.chunks(EVENTS_AT_ONCE) {
                let newest = events.last().map_or(last, |event| event.sequence);
                database.batch(&statements(last, newest, events))?;
                last = newest;
            }
            Ok(Receipt { stored, repeated: all - stored })
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

/// The transaction that stores events, the last of which is `newest` and all of them later than `last`.
fn statements(last: u64, newest: u64, events: &[Event]) -> Vec<Statement> {
    let mut statements = vec![Statement { sql: GUARD.to_owned(), params: vec![integer(last)] }];
    let sql = insert();
    statements.extend(events.iter().map(|event| Statement { sql: sql.clone(), params: row(event).into() }));
    statements.extend(Totals::of(events).into_iter().map(|(key, totals)| totals.statement(key)));
    statements.extend(Day::of(events).iter().flat_map(|(number, day)| day.statements(*number)));
    statements.extend(Used::of(events).into_iter().map(|(key, used)| used.statement(key)));
    statements.extend(events.iter().flat_map(errors::statements));
    statements.push(Statement { sql: WRITE_STATE.to_owned(), params: vec![integer(newest)] });
    statements
}

/// An insert of one row. For one of several rows SQLite would first copy every page that the statement touches, to be
/// able to undo it alone; and some hosts bind no more than 100 parameters.
fn insert() -> String {
    let places = "?, ".repeat(COLUMNS.len() - 1);
    format!("INSERT INTO request_logs ({}) VALUES ({places}?)", COLUMNS.join(", "))
}

fn row(event: &Event) -> [Value; COLUMNS.len()] {
    let text = |text: &str| Value::Text(text.to_owned());
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
        text(&event.token_source),
        event.cost.map_or(Value::Null, integer),
        Value::Integer(i64::from(event.is_stream)),
        Value::Integer(i64::from(event.has_error)),
        text(&event.error_type),
        event.error_message.as_deref().map_or(Value::Null, text),
        integer(event.request_size),
        integer(event.response_size),
    ]
}

/// SQLite's integers are signed; what does not fit is as large as possible.
fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
