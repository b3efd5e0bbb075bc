//! What the gateway counts. Labels come from the configuration or from fixed lists, never from a request.

use std::{collections::HashMap, time::Duration};

use http::StatusCode;
use metrics::{Counter, Gauge, Histogram};

use super::{dialect::Dialect, usage::Tokens};
use crate::plugin::admission::Ending;

const CLASSES: [&str; 5] = ["2xx", "429", "499", "4xx", "5xx"];

/// What policies name as the measure of a denial. A plugin can name anything; all else is `other`.
const MEASURES: [&str; 13] = [
    "rpm",
    "tpm",
    "rpd",
    "concurrency",
    "tokens-per-day",
    "tokens-per-month",
    "tokens-total",
    "cost-per-day",
    "cost-per-month",
    "cost-total",
    "price",
    "blacklisted",
    OTHER,
];

const OTHER: &str = "other";

/// Whom a denial is of, in the order of `Metrics::denials`.
const SUBJECTS: [&str; 2] = ["client", "account"];

/// How an attempt at an upstream ended.
const ATTEMPT_ENDS: [&str; 6] = ["answered", "limited", "refused", "error", "unreachable", "timeout"];

/// Handles made once: looking one up by its labels costs more than counting.
pub(super) struct Metrics {
    requests: HashMap<(Dialect, &'static str), (Counter, Histogram)>,
    first_byte: HashMap<Dialect, Histogram>,
    denials: [[Counter; MEASURES.len()]; SUBJECTS.len()],
    pub(super) in_flight: Gauge,
    pub(super) unauthenticated: Counter,
    pub(super) retries: Counter,
    pub(super) unrecorded: Counter,
    input_tokens: Counter,
    output_tokens: Counter,
}

/// A request that ended.
pub(super) struct Ended {
    pub(super) dialect: Dialect,
    /// The status that the client got.
    pub(super) status: u16,
    pub(super) tokens: Tokens,
    pub(super) took: Duration,
    /// Time to the first byte of an upstream's answer, if one came.
    pub(super) first_byte: Option<Duration>,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        let requests = Dialect::ALL.into_iter().flat_map(|dialect| CLASSES.map(|class| (dialect, class)));
        let handles = |(dialect, class): (Dialect, &'static str)| {
            let labels = [("dialect", dialect.name()), ("status", class)];
            let counter = metrics::counter!("tollgate_requests_total", &labels);
            ((dialect, class), (counter, metrics::histogram!("tollgate_request_seconds", &labels)))
        };
        let first_byte = |dialect: Dialect| {
            (dialect, metrics::histogram!("tollgate_first_byte_seconds", "dialect" => dialect.name()))
        };
        let denials = |subject: &'static str| {
            MEASURES.map(|measure| {
                metrics::counter!("tollgate_denials_total", "subject" => subject, "measure" => measure)
            })
        };
        Metrics {
            requests: requests.map(handles).collect(),
            first_byte: Dialect::ALL.into_iter().map(first_byte).collect(),
            denials: SUBJECTS.map(denials),
            in_flight: metrics::gauge!("tollgate_requests_in_flight"),
            unauthenticated: metrics::counter!("tollgate_unauthenticated_total"),
            retries: metrics::counter!("tollgate_retries_total"),
            unrecorded: metrics::counter!("tollgate_unrecorded_total"),
            input_tokens: metrics::counter!("tollgate_tokens_total", "direction" => "input"),
            output_tokens: metrics::counter!("tollgate_tokens_total", "direction" => "output"),
        }
    }

    /// Counts a request that ended.
    pub(super) fn ended(&self, ended: &Ended) {
        if let Some((counter, seconds)) = self.requests.get(&(ended.dialect, class(ended.status))) {
            counter.increment(1);
            seconds.record(ended.took);
        }
        if let Some((seconds, time)) = self.first_byte.get(&ended.dialect).zip(ended.first_byte) {
            seconds.record(time);
        }
        self.input_tokens.increment(ended.tokens.input);
        self.output_tokens.increment(ended.tokens.output);
    }

    /// Counts a denial by the measure that the policy names.
    pub(super) fn denied(&self, is_account: bool, measure: &str) {
        let known = MEASURES.iter().position(|known| *known == measure).unwrap_or(MEASURES.len() - 1);
        let counters = self.denials.get(usize::from(is_account));
        if let Some(counter) = counters.and_then(|counters| counters.get(known)) {
            counter.increment(1);
        }
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

/// What is counted of an account.
pub(super) struct AccountMetrics {
    /// The time to the head of its answers.
    pub(super) seconds: Histogram,
    attempts: [Counter; ATTEMPT_ENDS.len()],
    /// What requests cost that it served, in billionths of the price table's unit: whole, so that no sum drifts.
    pub(super) cost: Counter,
}

impl AccountMetrics {
    pub(super) fn new(account: &str) -> AccountMetrics {
        let label = || ("account", account.to_owned());
        let attempts = |end: &'static str| {
            metrics::counter!("tollgate_upstream_attempts_total", &[label(), ("end", end.to_owned())])
        };
        AccountMetrics {
            seconds: metrics::histogram!("tollgate_upstream_seconds", &[label()]),
            attempts: ATTEMPT_ENDS.map(attempts),
            cost: metrics::counter!("tollgate_cost_billionths_total", &[label()]),
        }
    }

    /// Counts an attempt that was answered with something worth passing on.
    pub(super) fn answered(&self) {
        self.attempt("answered");
    }

    /// Counts an attempt that failed, by how it ended and the status of the answer, if there was one.
    pub(super) fn failed(&self, ending: Ending, status: Option<u16>) {
        self.attempt(match (ending, status) {
            (Ending::TimedOut, _) => "timeout",
            (_, Some(429)) => "limited",
            (_, Some(401..=403)) => "refused",
            (_, Some(_)) => "error",
            (_, None) => "unreachable",
        });
    }

    fn attempt(&self, end: &'static str) {
        let counter = ATTEMPT_ENDS.iter().zip(&self.attempts).find(|(known, _)| **known == end);
        counter.into_iter().for_each(|(_, counter)| counter.increment(1));
    }
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
