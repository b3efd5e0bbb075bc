//! The limits of a key or an account, as they can be written on the command line.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::config::limits::RATE_MOST;
use crate::money;

/// Limits over all models, and over some.
#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    /// Requests in any 60 s.
    #[arg(long, value_name = "N", value_parser = count)]
    rpm: Option<Setting>,
    /// Tokens in any 60 s, in and out together.
    #[arg(long, value_name = "N", value_parser = count)]
    tpm: Option<Setting>,
    /// Requests in any 24 h.
    #[arg(long, value_name = "N", value_parser = count)]
    rpd: Option<Setting>,
    /// Requests at once; further ones of a key are refused, those for an account go to others or wait.
    #[arg(long, value_name = "N", value_parser = count)]
    concurrency: Option<Setting>,
    /// Tokens of a day (UTC).
    #[arg(long, value_name = "N", value_parser = count)]
    tokens_per_day: Option<Setting>,
    /// Tokens of a month (UTC).
    #[arg(long, value_name = "N", value_parser = count)]
    tokens_per_month: Option<Setting>,
    /// Tokens of all time.
    #[arg(long, value_name = "N", value_parser = count)]
    tokens_total: Option<Setting>,
    /// Money of a day (UTC), in the unit of the price table.
    #[arg(long, value_name = "AMOUNT", value_parser = cost)]
    cost_per_day: Option<Setting>,
    /// Money of a month (UTC).
    #[arg(long, value_name = "AMOUNT", value_parser = cost)]
    cost_per_month: Option<Setting>,
    /// Money of all time.
    #[arg(long, value_name = "AMOUNT", value_parser = cost)]
    cost_total: Option<Setting>,
    /// A limit over some models together, such as 'gpt-4*:rpm=10' or 'o3:cost-per-day=5'; can be given again.
    #[arg(long = "limit", value_name = "MODELS:LIMIT=N", value_parser = model_limit)]
    model_limits: Vec<ModelLimit>,
}

/// A value as the admin API takes it.
#[derive(Clone, Debug, PartialEq)]
struct Setting(Value);

/// A limit over some models; without a limit all over them are removed.
#[derive(Clone, Debug, PartialEq)]
struct ModelLimit {
    models: String,
    limit: Option<(String, Value)>,
}

impl LimitArgs {
    /// Adds those that were named to a patch, as the admin API takes them.
    pub(super) fn add_to(self, patch: &mut Map<String, Value>) {
        let over_all = [
            ("rpm", self.rpm),
            ("tpm", self.tpm),
            ("rpd", self.rpd),
            ("concurrency", self.concurrency),
            ("tokens_per_day", self.tokens_per_day),
            ("tokens_per_month", self.tokens_per_month),
            ("tokens_total", self.tokens_total),
            ("cost_per_day", self.cost_per_day),
            ("cost_per_month", self.cost_per_month),
            ("cost_total", self.cost_total),
        ];
        let given = over_all.into_iter().filter_map(|(name, setting)| Some((name.to_owned(), setting?.0)));
        let limits: Map<String, Value> = given.collect();
        if !limits.is_empty() {
            patch.insert("limits".to_owned(), Value::Object(limits));
        }
        let mut over_some: BTreeMap<String, Value> = BTreeMap::new();
        for ModelLimit { models, limit } in self.model_limits {
            match (over_some.entry(models).or_insert_with(|| json!({})), limit) {
                (Value::Object(fields), Some((name, value))) => drop(fields.insert(name, value)),
                (entry, _) => *entry = Value::Null,
            }
        }
        if !over_some.is_empty() {
            patch.insert("model_limits".to_owned(), over_some.into_iter().collect());
        }
    }
}

/// The name of a limit over all models as the admin API has it, if it is one.
pub(super) fn named(text: &str) -> Option<String> {
    let name = text.replace('-', "_");
    COUNTS.iter().chain(&COSTS).any(|limit| *limit == name).then_some(name)
}

/// Adds to a patch that a limit over all models is taken back.
pub(super) fn clear(patch: &mut Map<String, Value>, limit: String) {
    if let Value::Object(limits) = patch.entry("limits").or_insert_with(|| json!({})) {
        limits.insert(limit, Value::Null);
    }
}

/// The limits of a key or an account as the admin API has it, one text each.
pub(super) fn shown(object: &Value) -> Vec<String> {
    let of_set = |set: &Value, models: &str| -> Vec<String> {
        let limits = set.as_object().into_iter().flatten();
        limits.map(|(name, most)| format!("{models}{name}={most}")).collect()
    };
    let mut limits = object.get("limits").map(|set| of_set(set, "")).unwrap_or_default();
    for (models, set) in object.get("model_limits").and_then(Value::as_object).into_iter().flatten() {
        limits.extend(of_set(set, &format!("{models}:")));
    }
    limits
}

/// What removes all limits over some models.
const NONE: &str = "none";

const COUNTS: [&str; 7] =
    ["rpm", "tpm", "rpd", "concurrency", "tokens_per_day", "tokens_per_month", "tokens_total"];

const COSTS: [&str; 3] = ["cost_per_day", "cost_per_month", "cost_total"];

fn count(text: &str) -> Result<Setting, String> {
    match text.parse::<u64>() {
        Ok(number) if (1..=RATE_MOST).contains(&number) => Ok(Setting(json!(number))),
        _ => Err(format!("a whole number from 1 to {RATE_MOST}")),
    }
}

fn cost(text: &str) -> Result<Setting, String> {
    let units = text.parse::<f64>().ok();
    match units.and_then(money::billionths) {
        Some(1..) => Ok(Setting(json!(units))),
        _ => Err(format!("an amount over 0, up to {}", money::MOST)),
    }
}

fn model_limit(text: &str) -> Result<ModelLimit, String> {
    const FORM: &str = "a model or pattern, a colon and a limit, such as 'gpt-4*:rpm=10', or 'gpt-4*:none'";
    // A model's name may have a colon in it, a limit's not.
    let (models, limit) = text.rsplit_once(':').filter(|(models, _)| !models.is_empty()).ok_or(FORM)?;
    let models = models.to_owned();
    if limit == NONE {
        return Ok(ModelLimit { models, limit: None });
    }
    let (name, value) = limit.split_once('=').ok_or(FORM)?;
    let name = name.replace('-', "_");
    let Setting(value) = match name.as_str() {
        name if COUNTS.contains(&name) => count(value)?,
        name if COSTS.contains(&name) => cost(value)?,
        _ => return Err(format!("there is no limit `{name}`")),
    };
    Ok(ModelLimit { models, limit: Some((name, value)) })
}
