//! Keeps stores in step: accounts on the blacklist become unhealthy in the database, and the busiest accounts' metrics
//! come from the database into a store that is fast to read.

use serde::Serialize;
use tollgate_guest::blacklist::{ACCOUNT_PREFIX, Entry};
use tollgate_guest::database::{self, Statement, Value};
use tollgate_guest::jobs::{Budget, Guest, Job, Report, Timing};
use tollgate_guest::kv;

const BLACKLIST_JOB: &str = "blacklist-to-database";
const BLACKLIST_EVERY_MS: u64 = 300_000;

const HOT_KEYS_JOB: &str = "hot-keys";
const HOT_KEYS_EVERY_MS: u64 = 600_000;

/// A key stays hot over one run that fails.
const HOT_KEYS_TTL_MS: u64 = 2 * HOT_KEYS_EVERY_MS;

/// Keys read at once: the most that a store gives, as well as takes.
const PAGE: u32 = 1_000;

thread_local! {
    static BLACKLIST: kv::Named = const { kv::Named::new("blacklist") };
    static HOT_KEYS: kv::Named = const { kv::Named::new("hot-keys") };
    static DATABASE: database::Named = const { database::Named::new("gateway") };
}

/// Other metrics stay as they are; a row that is unhealthy already is not touched.
const MARK_UNHEALTHY: &str =
    "INSERT INTO api_key_metrics (api_key_hash, is_healthy, last_check, first_seen, created_at, updated_at)
    VALUES (?1, 0, ?2, ?2, ?2, ?2)
    ON CONFLICT (api_key_hash) DO UPDATE SET is_healthy = 0, last_check = ?2, updated_at = ?2
    WHERE is_healthy <> 0";

/// The 50 busiest keys with over 100 requests.
const BUSIEST: &str = "SELECT api_key_hash, total_requests, successful_requests, failed_requests,
    average_response_time, is_healthy, last_used FROM api_key_metrics
    WHERE total_requests > 100 ORDER BY total_requests DESC, api_key_hash LIMIT 50";

struct Sync;

tollgate_guest::jobs::export!(Sync);

impl Guest for Sync {
    fn schedule() -> Vec<Job> {
        let every = |name: &str, ms| Job { name: name.to_owned(), timing: Timing::Every(ms) };
        vec![every(BLACKLIST_JOB, BLACKLIST_EVERY_MS), every(HOT_KEYS_JOB, HOT_KEYS_EVERY_MS)]
    }

    fn run(name: String, budget: Budget) -> Result<Report, String> {
        match name.as_str() {
            BLACKLIST_JOB => blacklist_to_database(budget.now_ms),
            HOT_KEYS_JOB => hot_keys(),
            _ => Err(format!("no job {name}")),
        }
    }
}

fn blacklist_to_database(now_ms: u64) -> Result<Report, String> {
    let (mut seen, mut changed) = (0, 0);
    let mut cursor: Option<String> = None;
    loop {
        let page = BLACKLIST.with(|store| read_page(store, cursor.as_deref()))?;
        let hashes: Vec<&str> = page
            .keys
            .iter()
            .zip(&page.values)
            .filter_map(|(key, value)| blacklisted(key, value.as_deref()?, now_ms))
            .collect();
        seen += hashes.len();
        changed += DATABASE.with(|database| mark_unhealthy(database, &hashes, now_ms))?;
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(Report { changed, summary: format!("{seen} accounts blacklisted, {changed} newly unhealthy") })
}

/// A page of the blacklist.
struct Page {
    keys: Vec<String>,
    values: Vec<Option<Vec<u8>>>,
    cursor: Option<String>,
}

fn read_page(store: &kv::Named, cursor: Option<&str>) -> Result<Page, String> {
    let explain = |error| store.explain(&error);
    let open = store.get()?;
    let kv::Page { keys, cursor } = open.list_keys(Some(ACCOUNT_PREFIX), cursor, PAGE).map_err(explain)?;
    let values = if keys.is_empty() { Vec::new() } else { open.get_many(&keys).map_err(explain)? };
    Ok(Page { keys, values, cursor })
}

/// The account that an entry keeps out now, whole; one that is kept from a single model stays healthy. An entry that
/// cannot be read keeps its account out.
fn blacklisted<'a>(key: &'a str, value: &[u8], now_ms: u64) -> Option<&'a str> {
    let hash = key.strip_prefix(ACCOUNT_PREFIX).filter(|hash| !hash.contains('/'))?;
    let holds = Entry::decode(value).map_or(true, |entry| now_ms < entry.until_ms());
    holds.then_some(hash)
}

fn mark_unhealthy(database: &database::Named, hashes: &[&str], now_ms: u64) -> Result<u64, String> {
    if hashes.is_empty() {
        return Ok(0);
    }
    let now = Value::Integer(i64::try_from(now_ms).unwrap_or(i64::MAX));
    let statements: Vec<Statement> = hashes
        .iter()
        .map(|hash| Statement {
            sql: MARK_UNHEALTHY.to_owned(),
            params: vec![Value::Text((*hash).to_owned()), now.clone()],
        })
        .collect();
    let outcomes = database.batch(&statements)?;
    Ok(outcomes.iter().map(|outcome| outcome.rows_written).sum())
}

/// A busy key as others read it, under the key's hash.
#[derive(Debug, PartialEq, Serialize)]
struct HotKey<'a> {
    api_key_hash: &'a str,
    total_requests: i64,
    successful_requests: i64,
    failed_requests: i64,
    average_response_time: f64,
    is_healthy: bool,
    last_used: Option<i64>,
}

impl<'a> HotKey<'a> {
    fn from_row(row: &'a [Value]) -> Option<HotKey<'a>> {
        match row {
            [
                Value::Text(api_key_hash),
                Value::Integer(total_requests),
                Value::Integer(successful_requests),
                Value::Integer(failed_requests),
                average,
                Value::Integer(is_healthy),
                last_used,
            ] => Some(HotKey {
                api_key_hash,
                total_requests: *total_requests,
                successful_requests: *successful_requests,
                failed_requests: *failed_requests,
                average_response_time: match average {
                    Value::Real(average) => *average,
                    Value::Integer(average) => *average as f64,
                    _ => return None,
                },
                is_healthy: *is_healthy != 0,
                last_used: match last_used {
                    Value::Integer(last_used) => Some(*last_used),
                    _ => None,
                },
            }),
            _ => None,
        }
    }
}

fn hot_keys() -> Result<Report, String> {
    let outcome = DATABASE.with(|database| database.query(BUSIEST, Vec::new()))?;
    let mut entries = Vec::with_capacity(outcome.rows.len());
    for row in &outcome.rows {
        let key = HotKey::from_row(row).ok_or("api_key_metrics has a row of an unknown shape")?;
        let value = serde_json::to_vec(&key).map_err(|error| error.to_string())?;
        entries.push((key.api_key_hash.to_owned(), value));
    }
    if !entries.is_empty() {
        HOT_KEYS.with(|store| {
            store.get()?.set_many(&entries, Some(HOT_KEYS_TTL_MS)).map_err(|error| store.explain(&error))
        })?;
    }
    Ok(Report { changed: entries.len() as u64, summary: format!("{} hot keys", entries.len()) })
}

#[cfg(test)]
mod tests;
