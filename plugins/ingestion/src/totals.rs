//! What a batch adds to an account's totals.

use std::collections::BTreeMap;

use tollgate_guest::database::{Statement, Value};
use tollgate_guest::ingestion::{Attempt, Event};

use crate::integer;
use crate::limits::UNHEALTHY_AFTER;

/// The sum of one account's events in a batch.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Totals {
    requests: u64,
    successful: u64,
    response_time: u64,
    last_response_time: u64,
    min_response_time: u64,
    max_response_time: u64,
    /// Failures that are the account's, since its last success or since the batch began.
    failures_in_a_row: u64,
    last_failure_ms: Option<u64>,
    input_tokens: u64,
    output_tokens: u64,
    cost: u64,
    first_ms: u64,
    last_ms: u64,
}

impl Totals {
    /// The totals of each account in a batch, which is in order of time as the requests ended. An attempt that failed before
    /// is a request to its account.
    pub(crate) fn of(events: &[Event]) -> BTreeMap<&str, Totals> {
        let mut totals: BTreeMap<&str, Totals> = BTreeMap::new();
        for event in events {
            let attempts =
                event.attempts.iter().map(|attempt| (&attempt.api_key_hash, Ended::of_attempt(attempt)));
            let ends = attempts.chain([(&event.api_key_hash, Ended::of_request(event))]);
            for (hash, ended) in ends.filter(|(hash, _)| !hash.is_empty()) {
                totals.entry(hash).or_default().add(event.time_ms, &ended);
            }
        }
        totals
    }

    fn add(&mut self, time_ms: u64, ended: &Ended<'_>) {
        let time = ended.response_time_ms;
        let first = self.requests == 0;
        self.requests += 1;
        self.response_time = self.response_time.saturating_add(time);
        self.last_response_time = time;
        self.min_response_time = if first { time } else { self.min_response_time.min(time) };
        self.max_response_time = self.max_response_time.max(time);
        self.input_tokens = self.input_tokens.saturating_add(ended.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(ended.output_tokens);
        self.cost = self.cost.saturating_add(ended.cost);
        self.first_ms = if first { time_ms } else { self.first_ms.min(time_ms) };
        self.last_ms = self.last_ms.max(time_ms);
        match ended.error_type {
            None => {
                self.successful += 1;
                self.failures_in_a_row = 0;
            }
            Some(error_type) if is_account_failure(error_type) => {
                self.failures_in_a_row += 1;
                self.last_failure_ms = self.last_failure_ms.max(Some(time_ms));
            }
            Some(_) => {}
        }
    }

    /// The statement that adds this to the account's row.
    pub(crate) fn statement(&self, api_key_hash: &str) -> Statement {
        let unhealthy = self.failures_in_a_row >= UNHEALTHY_AFTER.unsigned_abs();
        let params = vec![
            Value::Text(api_key_hash.to_owned()),
            integer(self.requests),
            integer(self.successful),
            integer(self.requests - self.successful),
            integer(self.response_time),
            Value::Real(self.response_time as f64 / self.requests.max(1) as f64),
            integer(self.last_response_time),
            integer(self.min_response_time),
            integer(self.max_response_time),
            Value::Integer(i64::from(!unhealthy)),
            integer(self.failures_in_a_row),
            self.last_failure_ms.map_or(Value::Null, integer),
            integer(self.input_tokens),
            integer(self.output_tokens),
            integer(self.first_ms),
            integer(self.last_ms),
            Value::Integer(UNHEALTHY_AFTER),
            integer(self.cost),
        ];
        Statement { sql: UPSERT.to_owned(), params }
    }
}

/// How something sent to an account ended.
#[derive(Default)]
struct Ended<'a> {
    /// None: well.
    error_type: Option<&'a str>,
    response_time_ms: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost: u64,
}

impl<'a> Ended<'a> {
    fn of_attempt(attempt: &'a Attempt) -> Ended<'a> {
        let response_time_ms = attempt.response_time_ms;
        Ended { error_type: Some(&attempt.error_type), response_time_ms, ..Ended::default() }
    }

    fn of_request(event: &'a Event) -> Ended<'a> {
        Ended {
            error_type: event.has_error.then_some(event.error_type.as_str()),
            response_time_ms: event.response_time_ms,
            input_tokens: event.input_tokens,
            output_tokens: event.output_tokens,
            cost: event.cost.unwrap_or_default(),
        }
    }
}

/// Whether a failure is the account's own. A client that went away or sent a wrong request says nothing about it.
fn is_account_failure(error_type: &str) -> bool {
    error_type.starts_with("upstream") || error_type == "stream"
}

/// A success in the batch ends the row of failures that stood before; without one the new failures add to it. A row of
/// failures that is long enough makes the account unhealthy, a success makes it healthy, and anything else leaves it.
const UPSERT: &str = "INSERT INTO api_key_metrics (
    api_key_hash, total_requests, successful_requests, failed_requests, total_response_time, average_response_time,
    last_response_time, min_response_time, max_response_time, is_healthy, consecutive_failures, last_failure,
    total_input_tokens, total_output_tokens, total_tokens, first_seen, last_used, last_check, created_at, updated_at,
    total_cost)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?13 + ?14, ?15, ?16, ?16, ?15, ?16, ?18)
ON CONFLICT (api_key_hash) DO UPDATE SET
    total_requests = total_requests + ?2,
    successful_requests = successful_requests + ?3,
    failed_requests = failed_requests + ?4,
    total_response_time = total_response_time + ?5,
    average_response_time = CAST(total_response_time + ?5 AS REAL) / (total_requests + ?2),
    last_response_time = ?7,
    min_response_time = min(ifnull(min_response_time, ?8), ?8),
    max_response_time = max(ifnull(max_response_time, ?9), ?9),
    is_healthy = CASE
        WHEN ?11 + iif(?3 > 0, 0, consecutive_failures) >= ?17 THEN 0
        WHEN ?3 > 0 THEN 1
        ELSE is_healthy END,
    consecutive_failures = ?11 + iif(?3 > 0, 0, consecutive_failures),
    last_failure = ifnull(?12, last_failure),
    total_input_tokens = total_input_tokens + ?13,
    total_output_tokens = total_output_tokens + ?14,
    total_tokens = total_tokens + ?13 + ?14,
    total_cost = total_cost + ?18,
    first_seen = min(ifnull(first_seen, ?15), ?15),
    last_used = max(ifnull(last_used, ?16), ?16),
    last_check = max(ifnull(last_check, ?16), ?16),
    updated_at = max(updated_at, ?16)";
