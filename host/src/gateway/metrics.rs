//! What the gateway counts. Labels come from the configuration or from fixed lists, never from a request.

use std::{collections::HashMap, time::Duration};

use http::StatusCode;
use metrics::{Counter, Gauge, Histogram};

use super::{dialect::Dialect, usage::Tokens};

const CLASSES: [&str; 5] = ["2xx", "429", "499", "4xx", "5xx"];

/// Handles made once: looking one up by its labels costs more than counting.
pub(super) struct Metrics {
    requests: HashMap<(Dialect, &'static str), Counter>,
    pub(super) in_flight: Gauge,
    pub(super) unauthenticated: Counter,
    pub(super) retries: Counter,
    pub(super) unrecorded: Counter,
    input_tokens: Counter,
    output_tokens: Counter,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        describe();
        let mut requests = HashMap::new();
        for dialect in Dialect::ALL {
            for class in CLASSES {
                let counter = metrics::counter!("tollgate_requests_total", "dialect" => dialect.name(), "status" => class);
                requests.insert((dialect, class), counter);
            }
        }
        Metrics {
            requests,
            in_flight: metrics::gauge!("tollgate_requests_in_flight"),
            unauthenticated: metrics::counter!("tollgate_unauthenticated_total"),
            retries: metrics::counter!("tollgate_retries_total"),
            unrecorded: metrics::counter!("tollgate_unrecorded_total"),
            input_tokens: metrics::counter!("tollgate_tokens_total", "direction" => "input"),
            output_tokens: metrics::counter!("tollgate_tokens_total", "direction" => "output"),
        }
    }

    /// Counts a request that ended.
    pub(super) fn ended(&self, dialect: Dialect, status: u16, tokens: Tokens) {
        if let Some(counter) = self.requests.get(&(dialect, class(status))) {
            counter.increment(1);
        }
        self.input_tokens.increment(tokens.input);
        self.output_tokens.increment(tokens.output);
    }
}

/// What is counted of requests that wait for a place on an account.
pub(super) struct QueueMetrics {
    pub(super) waiting: Gauge,
    pub(super) refused: Counter,
    seconds: [(Waited, Histogram); 3],
}

/// How a wait for a place ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// There was a place.
    ForPlace,
    /// There was none in time.
    InVain,
    /// The client went away.
    Left,
}

impl QueueMetrics {
    pub(super) fn new() -> QueueMetrics {
        metrics::describe_gauge!("tollgate_queue_requests", "requests that wait for a place on an account");
        metrics::describe_counter!(
            "tollgate_queue_refused_total",
            "requests for which the queue had no room"
        );
        metrics::describe_histogram!("tollgate_queue_seconds", "time that requests waited for a place");
        let seconds = |waited, name: &'static str| {
            (waited, metrics::histogram!("tollgate_queue_seconds", "end" => name))
        };
        QueueMetrics {
            waiting: metrics::gauge!("tollgate_queue_requests"),
            refused: metrics::counter!("tollgate_queue_refused_total"),
            seconds: [
                seconds(Waited::ForPlace, "place"),
                seconds(Waited::InVain, "timeout"),
                seconds(Waited::Left, "client_left"),
            ],
        }
    }

    /// Counts a wait that ended.
    pub(super) fn waited(&self, waited: Waited, time: Duration) {
        self.seconds.iter().filter(|(end, _)| *end == waited).for_each(|(_, seconds)| seconds.record(time));
    }
}

/// The time to the head of an account's answers.
pub(super) fn upstream_seconds(account: &str) -> Histogram {
    metrics::histogram!("tollgate_upstream_seconds", "account" => account.to_owned())
}

/// Whether an account answered when it was last asked.
pub(super) fn account_up(account: &str) -> Gauge {
    metrics::gauge!("tollgate_account_up", "account" => account.to_owned())
}

fn class(status: u16) -> &'static str {
    match status {
        429 => "429",
        499 => "499",
        _ if StatusCode::from_u16(status).is_ok_and(|status| status.is_client_error()) => "4xx",
        500.. => "5xx",
        _ => "2xx",
    }
}

fn describe() {
    metrics::describe_counter!("tollgate_requests_total", "requests of known clients that ended");
    metrics::describe_gauge!("tollgate_requests_in_flight", "requests of known clients under way");
    metrics::describe_counter!(
        "tollgate_unauthenticated_total",
        "requests without a valid key; they are not logged"
    );
    metrics::describe_counter!("tollgate_retries_total", "attempts that failed before the first byte");
    metrics::describe_counter!("tollgate_unrecorded_total", "requests that could not be recorded");
    metrics::describe_counter!("tollgate_tokens_total", "tokens used, as far as known");
    metrics::describe_gauge!("tollgate_account_up", "whether an account answered when it was last asked");
    metrics::describe_histogram!("tollgate_upstream_seconds", "time to the head of an upstream's answer");
}
