//! The log of requests that failed, and of attempts that others followed.

use tollgate_guest::database::{Statement, Value};
use tollgate_guest::ingestion::{Attempt, Event};

use crate::integer;

/// The statements that log what went wrong: each attempt that another one followed, and the request itself if it failed.
pub(crate) fn statements(event: &Event) -> impl Iterator<Item = Statement> {
    let attempts = (1..).zip(&event.attempts).map(|(number, attempt)| of_attempt(event, number, attempt));
    attempts.chain(event.has_error.then(|| of_request(event)))
}

fn of_request(event: &Event) -> Statement {
    statement(
        event,
        &Failure {
            attempt: 0,
            error_type: &event.error_type,
            message: event.error_message.as_deref().unwrap_or_default(),
            api_key_hash: &event.api_key_hash,
            account_name: &event.account_name,
            model: &event.model,
            status_code: event.status_code,
            response_time_ms: event.response_time_ms,
        },
    )
}

fn of_attempt(event: &Event, number: i64, attempt: &Attempt) -> Statement {
    statement(
        event,
        &Failure {
            attempt: number,
            error_type: &attempt.error_type,
            message: &attempt.message,
            api_key_hash: &attempt.api_key_hash,
            account_name: &attempt.account_name,
            model: &attempt.model,
            status_code: attempt.status_code,
            response_time_ms: attempt.response_time_ms,
        },
    )
}

/// What differs between a request and its attempts.
struct Failure<'a> {
    attempt: i64,
    error_type: &'a str,
    message: &'a str,
    api_key_hash: &'a str,
    account_name: &'a str,
    model: &'a str,
    status_code: u16,
    response_time_ms: u64,
}

fn statement(event: &Event, failure: &Failure<'_>) -> Statement {
    let text = |text: &str| Value::Text(text.to_owned());
    Statement {
        sql: INSERT.to_owned(),
        params: vec![
            integer(event.sequence),
            integer(event.time_ms),
            text(failure.error_type),
            text(failure.message),
            text(&event.request_id),
            text(&event.client_type),
            text(&event.client_ip),
            text(&event.endpoint),
            text(&event.method),
            text(&event.client_key_hash),
            text(failure.api_key_hash),
            Value::Integer(failure.status_code.into()),
            text(&event.user_agent),
            text(&event.referer),
            text(failure.model),
            text(&event.original_model),
            text(&event.client_name),
            text(failure.account_name),
            Value::Integer(event.is_stream.into()),
            integer(failure.response_time_ms),
            Value::Integer(failure.attempt),
        ],
    }
}

/// Some hosts bind all numbers as reals, which JSON would show. Sequences below zero go on downwards from the lowest, which
/// SQLite finds at one end of the table.
const INSERT: &str = "INSERT INTO error_logs (
    sequence, timestamp, error_type, message, request_id, client_type, client_ip, endpoint, method, client_key_hash,
    api_key_hash, status_code, user_agent, referer, context, attempt)
VALUES (iif(?21 = 0, ?1, min(ifnull((SELECT min(sequence) FROM error_logs), 0), 0) - 1),
    ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, json_object('model', ?15, 'original_model', ?16,
    'client_name', ?17, 'account_name', ?18, 'is_stream', CAST(?19 AS INTEGER), 'response_time', CAST(?20 AS INTEGER)), ?21)";
