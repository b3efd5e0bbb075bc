//! The log of requests that failed.

use tollgate_guest::database::{Statement, Value};
use tollgate_guest::ingestion::Event;

use crate::integer;

/// What kind of error a status is; under 400 it is one that came in mid-stream, after the head.
fn kind(status: u16) -> &'static str {
    match status {
        401 | 403 => "auth",
        402 => "payment",
        408 | 504 => "timeout",
        429 => "rate_limit",
        499 => "client_closed",
        ..400 => "stream",
        400..500 => "invalid_request",
        _ => "upstream",
    }
}

/// The statement that logs an event, if it is an error.
pub(crate) fn statement(event: &Event) -> Option<Statement> {
    let text = |text: &str| Value::Text(text.to_owned());
    event.has_error.then(|| Statement {
        sql: INSERT.to_owned(),
        params: vec![
            integer(event.sequence),
            integer(event.time_ms),
            text(kind(event.status_code)),
            text(event.error_message.as_deref().unwrap_or_default()),
            text(&event.request_id),
            text(&event.client_type),
            text(&event.client_ip),
            text(&event.endpoint),
            text(&event.method),
            text(&event.client_key_hash),
            text(&event.api_key_hash),
            Value::Integer(event.status_code.into()),
            text(&event.user_agent),
            text(&event.referer),
            text(&event.model),
            text(&event.original_model),
            text(&event.client_name),
            text(&event.account_name),
            Value::Integer(event.is_stream.into()),
            integer(event.response_time_ms),
        ],
    })
}

/// Some hosts bind all numbers as reals, which JSON would show.
const INSERT: &str = "INSERT INTO error_logs (
    sequence, timestamp, error_type, message, request_id, client_type, client_ip, endpoint, method, client_key_hash,
    api_key_hash, status_code, user_agent, referer, context)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, json_object('model', ?15, 'original_model', ?16,
    'client_name', ?17, 'account_name', ?18, 'is_stream', CAST(?19 AS INTEGER), 'response_time', CAST(?20 AS INTEGER)))";
