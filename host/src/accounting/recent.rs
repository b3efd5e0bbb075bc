//! What a client or an account has used of late, and of each of its limits, by the rows of the log and of days.
//!
//! What a policy itself has counted is in a format of its own, which is none of the host's business; the rows are the truth
//! for people, some 200 ms later. There is no index of clients: an entry in it for each request would cost every request, and
//! this is asked for by people. So the log of the last 24 hours is read by its time, an hour at a time.

mod rows;

use std::collections::BTreeMap;

use serde::Serialize;
use tollgate_store::{Database, SqlError};
use utoipa::ToSchema;

use super::limits::RECENT_MODELS;
use crate::limit_set::LimitSet;
use crate::money;
use rows::{OfLog, Rows, Times, Used};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;

/// Who is asked about.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// A client key, by its id.
    Client(&'a str),
    /// An account, by its name, and its id: what it used of late is the name's, its months and totals are the key's, as its
    /// limits are.
    Account(&'a str, &'a str),
}

/// Whose limits, and what is known of it beside the log.
#[derive(Clone, Copy, Debug)]
pub struct Limited<'a> {
    /// Over all models.
    pub limits: &'a LimitSet,
    /// Over some.
    pub model_limits: &'a BTreeMap<String, LimitSet>,
    /// Requests under way, where that is known.
    pub under_way: Option<u64>,
}

/// What was used in some time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = RecentSum)]
pub struct Sum {
    /// Requests.
    pub requests: u64,
    /// Those that count against limits: without error, or left by their client.
    pub counted_requests: u64,
    /// Those that ended in an error.
    pub failed_requests: u64,
    /// The whole prompts.
    pub input_tokens: u64,
    /// The whole answers.
    pub output_tokens: u64,
    /// What that cost, in the price table's unit; models without a price add nothing.
    pub cost: f64,
}

/// What was used of a model, as clients name it; empty for requests that reached no account.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ModelUsage {
    /// The model.
    pub model: String,
    /// In the last 60 s.
    pub minute: Sum,
    /// In the last 24 h.
    pub day: Sum,
}

/// A number, or money in the price table's unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Quantity {
    /// Requests or tokens.
    Count(u64),
    /// Money.
    Money(f64),
}

/// What was used of a limit.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LimitUsage {
    /// The limit, such as `rpm`.
    pub limit: &'static str,
    /// The models that it is over; null: all.
    pub models: Option<String>,
    /// What was used of it; null where that is not known, such as of months and totals of some models.
    #[schema(value_type = Option<f64>)]
    pub used: Option<Quantity>,
    /// The most that may be.
    #[schema(value_type = f64)]
    pub most: Quantity,
    /// Milliseconds until some of it is free again; null: never, or nothing is used.
    pub frees_ms: Option<u64>,
}

/// What was used of late.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct RecentUsage {
    /// When this was so, in milliseconds since 1970, UTC.
    pub now_ms: u64,
    /// In the last 60 s.
    pub minute: Sum,
    /// In the last 24 h.
    pub day: Sum,
    /// By model, those with the most requests first; a thousand at most.
    pub models: Vec<ModelUsage>,
    /// Of each limit.
    pub limits: Vec<LimitUsage>,
}

/// What was used of late, by now; none where nothing is counted.
pub async fn recent(
    database: &Database,
    whose: Whose<'_>,
    limited: Limited<'_>,
    now_ms: u64,
) -> Result<Option<RecentUsage>, SqlError> {
    let times = Times::at(now_ms);
    let Some(of_models) = rows::log(database, whose, &times).await? else { return Ok(None) };
    let Some(of_days) = rows::days(database, whose, &times).await? else { return Ok(None) };
    let mut models: Vec<ModelUsage> = of_models
        .iter()
        .map(|(model, used)| ModelUsage {
            model: model.clone(),
            minute: used.minute.sum(),
            day: used.day.sum(),
        })
        .collect();
    models.sort_by_key(|used| std::cmp::Reverse(used.day.requests));
    models.truncate(RECENT_MODELS);
    let all = Used::over(None, &of_models, &of_days);
    let over_all = of_set(limited.limits, None, &all, limited.under_way, &times);
    let over_some = limited.model_limits.iter().flat_map(|(models, limits)| {
        let used = Used::over(Some(models), &of_models, &of_days);
        of_set(limits, Some(models), &used, None, &times)
    });
    let limits = over_all.into_iter().chain(over_some).collect();
    Ok(Some(RecentUsage { now_ms, minute: all.log.minute.sum(), day: all.log.day.sum(), models, limits }))
}

/// What was used of each limit of a set.
fn of_set(
    set: &LimitSet,
    models: Option<&str>,
    used: &Used,
    under_way: Option<u64>,
    times: &Times,
) -> Vec<LimitUsage> {
    let Used { log: OfLog { minute, day, today }, days } = used;
    let (month, total) = (days.map(|days| days.month), days.map(|days| days.total));
    let leaves = |rows: &Rows, window_ms: u64| {
        rows.oldest_ms.map(|oldest_ms| oldest_ms.saturating_add(window_ms).saturating_sub(times.now))
    };
    let at = |end_ms: u64, used: u64| (used > 0).then(|| end_ms.saturating_sub(times.now));
    let of_month = |used: Option<u64>| (used, used.and_then(|used| at(times.next_month, used)));
    let [of_minute, of_day] = [leaves(minute, MINUTE_MS), leaves(day, DAY_MS)];
    let known = |limit: &str| match limit {
        "rpm" => (Some(minute.counted), of_minute),
        "tpm" => (Some(minute.tokens()), of_minute),
        "rpd" => (Some(day.counted), of_day),
        "concurrency" => (under_way, None),
        "tokens_per_day" => (Some(today.tokens()), at(times.next_midnight, today.tokens())),
        "cost_per_day" => (Some(today.cost), at(times.next_midnight, today.cost)),
        "tokens_per_month" => of_month(month.map(|month| month.tokens)),
        "cost_per_month" => of_month(month.map(|month| month.cost)),
        "tokens_total" => (total.map(|total| total.tokens), None),
        _ => (total.map(|total| total.cost), None),
    };
    let counts = set.counts().map(|(limit, _, most)| (limit, most.map(Quantity::Count)));
    let costs = set.costs().map(|(limit, _, most)| (limit, most.map(Quantity::Money)));
    let usage = |(limit, most): (&'static str, Option<Quantity>)| {
        let (most, (used, frees_ms)) = (most?, known(limit));
        let used = used.map(|used| match most {
            Quantity::Count(_) => Quantity::Count(used),
            Quantity::Money(_) => Quantity::Money(money::units(used)),
        });
        Some(LimitUsage { limit, models: models.map(str::to_owned), used, most, frees_ms })
    };
    counts.into_iter().chain(costs).filter_map(usage).collect()
}
