//! `tollgate key …` as it can be written on the command line.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::config::limits::RATE_MOST;
use crate::{keys, money};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyCommand {
    /// Make a key and print it, alone and only this once.
    #[command(after_help = "\
Examples:
  tollgate key create --name alice
  KEY=$(tollgate key create --name ci --rpm 60 --tpm 100000 --rpd 5000 --models 'gpt-4o*,o3')
  tollgate key create --name team --cost-per-month 50 --limit 'gpt-4o:cost-per-day=2' --expires 90")]
    Create(KeyCreate),
    /// List the keys: names and limits, never the keys themselves.
    #[command(after_help = "Example:\n  tollgate key list --json")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print everything about a key, and what it has used, as JSON.
    #[command(after_help = "Example:\n  tollgate key show alice")]
    Show {
        /// The key's name.
        name: String,
    },
    /// Change what a key may do; what is not named stays, and what it has used counts on.
    #[command(after_help = "\
Examples:
  tollgate key update alice --rpm 120 --clear cost-per-day,expires
  tollgate key update alice --forbidden-models 'o1*' --clients claude-code,anthropic-sdk
  tollgate key update alice --limit 'gpt-4o:none'")]
    Update {
        /// The key's name.
        name: String,
        /// Settings to take back, separated by commas, such as rpm,models,expires,cost-per-day.
        #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = cleared)]
        clear: Vec<Cleared>,
        #[command(flatten)]
        settings: Box<KeySettings>,
    },
    /// Give a key another secret and print it, alone and only this once; the one before stays valid for a while.
    #[command(after_help = "\
Examples:
  NEW=$(tollgate key rotate alice)          the secret before is valid for another day
  tollgate key rotate alice --overlap 0s    it ends now")]
    Rotate {
        /// The key's name.
        name: String,
        /// How long the secret before stays valid: days, or a time such as 12h, 30m or 0s.
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1")]
        overlap: u64,
    },
    /// Let a key in again that was switched off.
    #[command(after_help = "Example:\n  tollgate key enable alice")]
    Enable {
        /// The key's name.
        name: String,
    },
    /// Switch a key off; requests with it are refused until it is enabled.
    #[command(after_help = "Example:\n  tollgate key disable alice")]
    Disable {
        /// The key's name.
        name: String,
    },
    /// Revoke a key for good; requests with it are refused from now on.
    #[command(after_help = "Example:\n  tollgate key revoke alice")]
    Revoke {
        /// The key's name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct KeyCreate {
    /// A name for the key, unique among those not revoked.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) name: String,
    #[command(flatten)]
    pub(in crate::cli) settings: Box<KeySettings>,
}

/// What can be set of a key. Its limits are over all its models, those of --limit over some.
#[derive(Debug, Args)]
pub(in crate::cli) struct KeySettings {
    /// What the key is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// When it ends: days from now, or a time such as 12h or 30m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    expires: Option<u64>,
    /// Dialects it may speak, separated by commas: openai, anthropic, gemini.
    #[arg(long, value_name = "A,B", value_parser = list)]
    permissions: Option<Setting>,
    /// Models it may use, by name or pattern (`gpt-4*`), separated by commas; without it any.
    #[arg(long, value_name = "A,B", value_parser = list)]
    models: Option<Setting>,
    /// Models it may not use, whatever --models says.
    #[arg(long, value_name = "A,B", value_parser = list)]
    forbidden_models: Option<Setting>,
    /// Kinds of client that may use it: claude-code, codex, gemini-cli, openai-sdk, anthropic-sdk, google-sdk, other.
    #[arg(long, value_name = "A,B", value_parser = list)]
    clients: Option<Setting>,
    /// Requests in any 60 s.
    #[arg(long, value_name = "N", value_parser = count)]
    rpm: Option<Setting>,
    /// Tokens in any 60 s, in and out together.
    #[arg(long, value_name = "N", value_parser = count)]
    tpm: Option<Setting>,
    /// Requests in any 24 h.
    #[arg(long, value_name = "N", value_parser = count)]
    rpd: Option<Setting>,
    /// Requests at once.
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
pub(in crate::cli) struct Setting(Value);

/// A setting to be taken back.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) enum Cleared {
    /// A limit over all models.
    Limit(String),
    /// Any other, and what it is without one.
    Other(&'static str, Value),
}

/// A limit over some models; without a limit all over them are removed.
#[derive(Clone, Debug, PartialEq)]
struct ModelLimit {
    models: String,
    limit: Option<(String, Value)>,
}

impl KeySettings {
    /// The settings as the admin API takes them: only those that were named.
    pub(in crate::cli) fn patch(self) -> Map<String, Value> {
        let mut patch = Map::new();
        let own = [
            ("permissions", self.permissions),
            ("models", self.models),
            ("forbidden_models", self.forbidden_models),
            ("clients", self.clients),
        ];
        add(&mut patch, own);
        let ends = self.expires.map(|from_now_ms| json!(keys::now_ms().saturating_add(from_now_ms)));
        patch.extend(ends.map(|ends_ms| ("expires_ms".to_owned(), ends_ms)));
        patch.extend(self.description.map(|text| ("description".to_owned(), json!(text))));
        let mut limits = Map::new();
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
        add(&mut limits, over_all);
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
        patch
    }
}

/// Settings taken back, as the admin API takes them: added to a patch.
pub(in crate::cli) fn clear(patch: &mut Map<String, Value>, settings: Vec<Cleared>) {
    for setting in settings {
        match setting {
            Cleared::Other(name, without) => drop(patch.insert(name.to_owned(), without)),
            Cleared::Limit(name) => {
                if let Value::Object(limits) = patch.entry("limits").or_insert_with(|| json!({})) {
                    limits.insert(name, Value::Null);
                }
            }
        }
    }
}

fn add<const N: usize>(map: &mut Map<String, Value>, named: [(&str, Option<Setting>); N]) {
    map.extend(named.into_iter().filter_map(|(name, setting)| Some((name.to_owned(), setting?.0))));
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

/// A list can be anything; the server knows what may stand in it.
#[expect(clippy::unnecessary_wraps, reason = "clap wants a result")]
fn list(text: &str) -> Result<Setting, String> {
    Ok(Setting(text.split(',').map(|item| json!(item.trim())).collect()))
}

fn cleared(text: &str) -> Result<Cleared, String> {
    let name = text.replace('-', "_");
    if COUNTS.iter().chain(&COSTS).any(|limit| *limit == name) {
        return Ok(Cleared::Limit(name));
    }
    match name.as_str() {
        "description" => Ok(Cleared::Other("description", json!(""))),
        "expires" => Ok(Cleared::Other("expires_ms", Value::Null)),
        "permissions" => Ok(Cleared::Other("permissions", json!([]))),
        "models" => Ok(Cleared::Other("models", json!([]))),
        "forbidden_models" => Ok(Cleared::Other("forbidden_models", json!([]))),
        "clients" => Ok(Cleared::Other("clients", json!([]))),
        _ => Err("no setting of a key".to_owned()),
    }
}

/// Milliseconds of a time: days, or a number with its unit.
fn duration(text: &str) -> Result<u64, String> {
    const DAY_MS: u64 = 86_400_000;
    const UNITS: [(char, u64); 4] = [('d', DAY_MS), ('h', 3_600_000), ('m', 60_000), ('s', 1_000)];
    let with_unit = UNITS.into_iter().find_map(|(unit, ms)| Some((text.strip_suffix(unit)?, ms)));
    let (number, ms) = with_unit.unwrap_or((text, DAY_MS));
    let time_ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(ms));
    time_ms.ok_or_else(|| "a number of days, or one with d, h, m or s, such as 12h".to_owned())
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
