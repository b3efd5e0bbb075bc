//! What a batch adds to the statistics of its days, which are those of UTC, by the time at which a request arrived.

use std::collections::{BTreeMap, BTreeSet};

use tollgate_guest::database::{Statement, Value};
use tollgate_guest::ingestion::Event;

use crate::integer;

/// Milliseconds of a day.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// The sum of one day's events in a batch.
#[derive(Debug, Default)]
pub(crate) struct Day<'a> {
    requests: u64,
    successful: u64,
    /// By the kind of client: openai, claude, gemini, anything else.
    clients: [u64; 4],
    input_tokens: u64,
    output_tokens: u64,
    cache_read_tokens: u64,
    cache_write_tokens: u64,
    cost: u64,
    response_time: u64,
    min_response_time: u64,
    max_response_time: u64,
    timeouts: u64,
    rate_limits: u64,
    auth_errors: u64,
    request_bytes: u64,
    response_bytes: u64,
    streams: u64,
    /// Hashes of the clients' keys.
    clients_seen: BTreeSet<&'a str>,
    /// Hashes of the accounts' keys.
    accounts_seen: BTreeSet<&'a str>,
}

impl<'a> Day<'a> {
    /// The days of a batch, by their number since 1970.
    pub(crate) fn of(events: &'a [Event]) -> BTreeMap<u64, Day<'a>> {
        let mut days: BTreeMap<u64, Day<'_>> = BTreeMap::new();
        for event in events {
            days.entry(event.time_ms / DAY_MS).or_default().add(event);
        }
        days
    }

    fn add(&mut self, event: &'a Event) {
        let time = event.response_time_ms;
        self.min_response_time = if self.requests == 0 { time } else { self.min_response_time.min(time) };
        self.max_response_time = self.max_response_time.max(time);
        let [openai, claude, gemini, other] = &mut self.clients;
        let client = match event.client_type.as_str() {
            "openai" => openai,
            "claude" => claude,
            "gemini" => gemini,
            _ => other,
        };
        // The client's or the upstream's.
        let error = event.error_type.as_str();
        let counted = [
            (&mut self.requests, true),
            (client, true),
            (&mut self.successful, !event.has_error),
            (&mut self.timeouts, error.ends_with("timeout")),
            (&mut self.rate_limits, error.ends_with("rate_limit")),
            (&mut self.auth_errors, error.ends_with("auth")),
            (&mut self.streams, event.is_stream),
        ];
        for (count, one) in counted {
            *count += u64::from(one);
        }
        let summed = [
            (&mut self.response_time, time),
            (&mut self.input_tokens, event.input_tokens),
            (&mut self.output_tokens, event.output_tokens),
            (&mut self.cache_read_tokens, event.cache_read_tokens),
            (&mut self.cache_write_tokens, event.cache_write_tokens),
            (&mut self.cost, event.cost.unwrap_or_default()),
            (&mut self.request_bytes, event.request_size),
            (&mut self.response_bytes, event.response_size),
        ];
        for (sum, more) in summed {
            *sum = sum.saturating_add(more);
        }
        let tried = event.attempts.iter().map(|attempt| attempt.api_key_hash.as_str());
        let is_known = |hash: &&str| !hash.is_empty();
        self.clients_seen.extend(Some(event.client_key_hash.as_str()).filter(is_known));
        self.accounts_seen.extend(tried.chain([event.api_key_hash.as_str()]).filter(is_known));
    }

    /// The statements that add this to the day's row: sums, then of each kind of key those that the day had not seen.
    pub(crate) fn statements(&self, day: u64) -> [Statement; 5] {
        let statement = |sql: &str, params| Statement { sql: sql.to_owned(), params };
        let keys = |kind: &str, seen| {
            statement(KEYS, vec![integer(day), Value::Text(kind.to_owned()), Value::Text(json_list(seen))])
        };
        [
            statement(UPSERT, self.params(day)),
            keys("client", &self.clients_seen),
            statement(NEW_CLIENTS, vec![integer(day)]),
            keys("account", &self.accounts_seen),
            statement(NEW_ACCOUNTS, vec![integer(day)]),
        ]
    }

    fn params(&self, day: u64) -> Vec<Value> {
        let counts = [day, self.requests, self.successful, self.requests - self.successful];
        let sums = [
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.cost,
            self.response_time,
            self.min_response_time,
            self.max_response_time,
            self.timeouts,
            self.rate_limits,
            self.auth_errors,
            self.request_bytes,
            self.response_bytes,
            self.streams,
        ];
        counts.into_iter().chain(self.clients).chain(sums).map(integer).collect()
    }
}

/// Hashes as a list in JSON. They are hexadecimal digits, of which none needs an escape; what is none is left out.
fn json_list(hashes: &BTreeSet<&str>) -> String {
    let sound = hashes.iter().filter(|hash| hash.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    format!("[{}]", sound.map(|hash| format!("\"{hash}\"")).collect::<Vec<_>>().join(","))
}

const KEYS: &str = "INSERT OR IGNORE INTO system_stats_keys (date, kind, key_hash)
    SELECT date(?1 * 86400, 'unixepoch'), ?2, value FROM json_each(?3)";

/// Right after the statement that inserts them: `changes()` is how many were new.
const NEW_CLIENTS: &str = "UPDATE system_stats SET unique_keys = unique_keys + changes()
    WHERE date = date(?1 * 86400, 'unixepoch')";

const NEW_ACCOUNTS: &str = "UPDATE system_stats SET active_accounts = active_accounts + changes()
    WHERE date = date(?1 * 86400, 'unixepoch')";

const UPSERT: &str = "INSERT INTO system_stats (
    date, total_requests, successful_requests, failed_requests, openai_requests, claude_requests, gemini_requests,
    unknown_requests, input_tokens, output_tokens, total_tokens, cache_read_tokens, cache_write_tokens, cost,
    total_response_time, average_response_time, min_response_time, max_response_time, error_rate, timeouts, rate_limits,
    auth_errors, request_bytes, response_bytes, stream_requests, unique_keys, active_accounts)
VALUES (date(?1 * 86400, 'unixepoch'), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?9 + ?10, ?11, ?12, ?13, ?14,
    CAST(?14 AS REAL) / ?2, ?15, ?16, CAST(?4 AS REAL) / ?2, ?17, ?18, ?19, ?20, ?21, ?22, 0, 0)
ON CONFLICT (date) DO UPDATE SET
    total_requests = total_requests + ?2,
    successful_requests = successful_requests + ?3,
    failed_requests = failed_requests + ?4,
    openai_requests = openai_requests + ?5,
    claude_requests = claude_requests + ?6,
    gemini_requests = gemini_requests + ?7,
    unknown_requests = unknown_requests + ?8,
    input_tokens = input_tokens + ?9,
    output_tokens = output_tokens + ?10,
    total_tokens = total_tokens + ?9 + ?10,
    cache_read_tokens = cache_read_tokens + ?11,
    cache_write_tokens = cache_write_tokens + ?12,
    cost = cost + ?13,
    total_response_time = total_response_time + ?14,
    average_response_time = CAST(total_response_time + ?14 AS REAL) / (total_requests + ?2),
    min_response_time = min(min_response_time, ?15),
    max_response_time = max(max_response_time, ?16),
    error_rate = CAST(failed_requests + ?4 AS REAL) / (total_requests + ?2),
    timeouts = timeouts + ?17,
    rate_limits = rate_limits + ?18,
    auth_errors = auth_errors + ?19,
    request_bytes = request_bytes + ?20,
    response_bytes = response_bytes + ?21,
    stream_requests = stream_requests + ?22";
