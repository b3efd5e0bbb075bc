//! Reports from `system_stats`, which has a row for each day of UTC, and `usage_daily`, which has one for each client and model,
//! and each account and model, on such a day, and, at date '', one for what each used on days that are no longer kept.

use std::collections::HashMap;

use chrono::{Days, NaiveDate};
use serde::Serialize;
use thiserror::Error;
use tollgate_store::{Database, SqlError, Statement, Value};
use utoipa::ToSchema;

use super::if_counted;
use super::limits::{REPORT_DAYS, REPORT_ROWS};
use crate::money;

/// What a report has a row for each of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// A day of UTC.
    Day,
    /// A client key.
    Key,
    /// An upstream account.
    Account,
    /// A model, as it was sent upstream.
    Model,
}

impl Grouping {
    const ALL: [(&'static str, Grouping); 4] = [
        ("day", Grouping::Day),
        ("key", Grouping::Key),
        ("account", Grouping::Account),
        ("model", Grouping::Model),
    ];

    /// One by its name.
    pub fn named(name: &str) -> Option<Grouping> {
        Grouping::ALL.into_iter().find_map(|(own, grouping)| (own == name).then_some(grouping))
    }

    /// The columns in front, where the sums are from, and the order.
    fn query(self) -> String {
        // A key's name may be another's by now: names go to the next key when one is revoked.
        let name = "(SELECT name FROM api_keys WHERE api_keys.key_hash = usage_daily.key_hash)";
        let grouped = |column: &str, name: &str, kind: &str| {
            format!(
                "SELECT {column}, {name}, {SUMS} FROM usage_daily WHERE kind = '{kind}' AND date BETWEEN ?1 AND ?2
                GROUP BY {column} ORDER BY 3 DESC, 1"
            )
        };
        match self {
            Grouping::Day => {
                "SELECT date, NULL, total_requests, failed_requests, input_tokens, output_tokens,
                cache_read_tokens, cache_write_tokens, cost, NULL, NULL
                FROM system_stats WHERE date BETWEEN ?1 AND ?2 ORDER BY 1"
                    .to_owned()
            }
            Grouping::Key => grouped("key_hash", name, "key"),
            Grouping::Account => grouped("key_hash", "NULL", "account"),
            // There are fewer accounts than clients.
            Grouping::Model => grouped("model", "NULL", "account"),
        }
    }
}

/// Which days a report is about, the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    since: NaiveDate,
    until: NaiveDate,
}

impl Window {
    /// The days asked for; without a last one up to today, without a first one thirty of them.
    pub fn of(since: Option<NaiveDate>, until: Option<NaiveDate>, today: NaiveDate) -> Window {
        let until = until.unwrap_or(today);
        let since = since.or_else(|| until.checked_sub_days(Days::new(REPORT_DAYS - 1)));
        Window { since: since.unwrap_or(NaiveDate::MIN), until }
    }
}

/// What was used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = UsageTotals)]
pub struct Totals {
    /// Requests.
    pub requests: u64,
    /// Those that ended in an error.
    pub failed_requests: u64,
    /// The whole prompts, what came from or went into a cache included.
    pub input_tokens: u64,
    /// The whole answers.
    pub output_tokens: u64,
    /// Of the prompts: read from a cache.
    pub cache_read_tokens: u64,
    /// Of the prompts: written to a cache.
    pub cache_write_tokens: u64,
    /// What that cost, in the price table's unit; models without a price add nothing.
    pub cost: f64,
    /// Milliseconds since 1970, UTC; null: never, or not told of days.
    pub first_used_ms: Option<u64>,
    /// Milliseconds since 1970, UTC; null: never.
    pub last_used_ms: Option<u64>,
}

/// A row of a report.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct UsageRow {
    /// The day, the model, or the id of the key or account; empty for requests that reached no account.
    pub group: String,
    /// The name of the key or account, as far as it is still known.
    pub name: Option<String>,
    /// What was used.
    #[serde(flatten)]
    pub totals: Totals,
}

/// A report.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct UsageReport {
    /// In the order of days; otherwise those with the most requests first.
    pub usage: Vec<UsageRow>,
    /// Whether there are more rows than a report has.
    pub truncated: bool,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The ingestion plugin has made no tables.
    #[error("nothing is counted: the ingestion plugin is switched off")]
    NotCounted,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SqlError),
}

const SUMS: &str =
    "sum(requests), sum(failed_requests), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens),
    sum(cache_write_tokens), sum(cost), min(first_used), max(last_used)";

/// What was used in some days, by day, key, account or model.
pub async fn report(database: &Database, by: Grouping, window: Window) -> Result<UsageReport, ReportError> {
    let sql = format!("{} LIMIT {}", by.query(), REPORT_ROWS + 1);
    let params = vec![window.since.to_string().into(), window.until.to_string().into()];
    let outcome =
        if_counted(database.query(Statement { sql, params }).await)?.ok_or(ReportError::NotCounted)?;
    let truncated = outcome.rows.len() > REPORT_ROWS;
    let usage = outcome.rows.into_iter().take(REPORT_ROWS).filter_map(row).collect();
    Ok(UsageReport { usage, truncated })
}

/// All that a client key has used since usage is counted, on days that are no longer kept too; none where nothing is counted.
pub async fn totals(database: &Database, client_key_hash: &str) -> Result<Option<Totals>, SqlError> {
    let sql = format!("SELECT {SUMS} FROM usage_daily WHERE kind = 'key' AND key_hash = ?1");
    let outcome = database.query(Statement { sql, params: vec![client_key_hash.into()] }).await;
    let row = if_counted(outcome)?.and_then(|outcome| outcome.rows.into_iter().next());
    Ok(row.map(|row| sums(&row)))
}

/// The same of every key that has used something, by its id.
pub async fn totals_by_key(database: &Database) -> Result<Option<HashMap<String, Totals>>, SqlError> {
    let sql = format!("SELECT key_hash, {SUMS} FROM usage_daily WHERE kind = 'key' GROUP BY key_hash");
    let Some(outcome) = if_counted(database.query(Statement { sql, params: Vec::new() }).await)? else {
        return Ok(None);
    };
    let read = |row: Vec<Value>| match row.split_first()? {
        (Value::Text(id), rest) => Some((id.clone(), sums(rest))),
        _ => None,
    };
    Ok(Some(outcome.rows.into_iter().filter_map(read).collect()))
}

fn row(row: Vec<Value>) -> Option<UsageRow> {
    let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
    let (group, rest) = row.split_first()?;
    let (name, rest) = rest.split_first()?;
    Some(UsageRow { group: text(group)?, name: text(name), totals: sums(rest) })
}

/// Sums of no rows are NULL.
fn sums(row: &[Value]) -> Totals {
    let number = |place: usize| match row.get(place) {
        Some(Value::Integer(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let sum = |place| number(place).unwrap_or_default();
    Totals {
        requests: sum(0),
        failed_requests: sum(1),
        input_tokens: sum(2),
        output_tokens: sum(3),
        cache_read_tokens: sum(4),
        cache_write_tokens: sum(5),
        cost: money::units(sum(6)),
        first_used_ms: number(7),
        last_used_ms: number(8),
    }
}
