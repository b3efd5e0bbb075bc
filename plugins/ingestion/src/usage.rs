//! What a batch adds to what each client and each account used of each model on a day of UTC. There is a row for each
//! that was used, so that reports need not read the log.

use std::collections::BTreeMap;

use tollgate_guest::database::{Statement, Value};
use tollgate_guest::ingestion::Event;

use crate::days::DAY_MS;
use crate::integer;

/// What is summed: kind, hash, day since 1970, and model.
type Key<'a> = (&'static str, &'a str, u64, &'a str);

/// The sum of one key's events in a batch.
#[derive(Debug, Default)]
pub(crate) struct Used {
    requests: u64,
    failed: u64,
    input_tokens: u64,
    output_tokens: u64,
    cache_read_tokens: u64,
    cache_write_tokens: u64,
    cost: u64,
    first_ms: u64,
    last_ms: u64,
}

impl Used {
    /// The sums of a batch. An attempt that failed before is a request to its account, which its client made once.
    pub(crate) fn of(events: &[Event]) -> BTreeMap<Key<'_>, Used> {
        let mut sums: BTreeMap<Key<'_>, Used> = BTreeMap::new();
        for event in events {
            let day = event.time_ms / DAY_MS;
            for attempt in &event.attempts {
                let key = ("account", attempt.api_key_hash.as_str(), day, attempt.model.as_str());
                sums.entry(key).or_default().count(event.time_ms, true);
            }
            // What reached no account used no model, whatever it named: anybody can invent names.
            let model = if event.api_key_hash.is_empty() { "" } else { event.model.as_str() };
            for (kind, hash) in [("key", &event.client_key_hash), ("account", &event.api_key_hash)] {
                sums.entry((kind, hash, day, model)).or_default().add(event);
            }
        }
        sums
    }

    fn count(&mut self, time_ms: u64, has_failed: bool) {
        self.first_ms = if self.requests == 0 { time_ms } else { self.first_ms.min(time_ms) };
        self.last_ms = self.last_ms.max(time_ms);
        self.requests += 1;
        self.failed += u64::from(has_failed);
    }

    fn add(&mut self, event: &Event) {
        self.count(event.time_ms, event.has_error);
        let summed = [
            (&mut self.input_tokens, event.input_tokens),
            (&mut self.output_tokens, event.output_tokens),
            (&mut self.cache_read_tokens, event.cache_read_tokens),
            (&mut self.cache_write_tokens, event.cache_write_tokens),
            (&mut self.cost, event.cost.unwrap_or_default()),
        ];
        for (sum, more) in summed {
            *sum = sum.saturating_add(more);
        }
    }

    /// The statement that adds this to its row.
    pub(crate) fn statement(&self, (kind, hash, day, model): Key<'_>) -> Statement {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut params = vec![integer(day), text(kind), text(hash), text(model)];
        let sums = [
            self.requests,
            self.failed,
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.cost,
            self.first_ms,
            self.last_ms,
        ];
        params.extend(sums.map(integer));
        Statement { sql: UPSERT.to_owned(), params }
    }
}

const UPSERT: &str = "INSERT INTO usage_daily (
    date, kind, key_hash, model, requests, failed_requests, input_tokens, output_tokens,
    cache_read_tokens, cache_write_tokens, cost, first_used, last_used)
VALUES (date(?1 * 86400, 'unixepoch'), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
ON CONFLICT (kind, key_hash, date, model) DO UPDATE SET
    requests = requests + ?5,
    failed_requests = failed_requests + ?6,
    input_tokens = input_tokens + ?7,
    output_tokens = output_tokens + ?8,
    cache_read_tokens = cache_read_tokens + ?9,
    cache_write_tokens = cache_write_tokens + ?10,
    cost = cost + ?11,
    first_used = min(first_used, ?12),
    last_used = max(last_used, ?13)";
