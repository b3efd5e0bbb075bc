//! `tollgate key …` as it can be written on the command line.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::cli::limits::{self, LimitArgs};
use crate::cli::usage::RecentUsage;
use crate::keys;

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
    /// What a key has used in the last 60 s and 24 h, and of each of its limits.
    #[command(after_help = "\
Every limit is listed with what was used of it by the log and the statistics of days, some 200 ms late; frees_ms is when some of
it is free again. A budget counts from the first one that a key has, so that one set in mid-month allows its whole amount
from then on. Over some models, months and totals go by the names that upstreams have for them.

Examples:
  tollgate key usage alice
  tollgate key usage alice --models
  tollgate key usage alice --json")]
    Usage(RecentUsage),
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
    /// Delete a key with everything that was recorded of it; requests with it are refused from now on.
    #[command(after_help = "\
Its rows in the log, in the log of errors and in the statistics of its usage are removed, a few at a time, and then the key
itself. The command shows how far that is; without it the server goes on, after a crash too. What is summed over everybody
stays: statistics of days, and totals of accounts. A key that was revoked before is called by its id.

Examples:
  tollgate key delete alice --records
  tollgate key delete alice --records --yes")]
    Delete {
        /// The key's name, or its id.
        name: String,
        /// That its records go too: for a key without them there is `revoke`.
        #[arg(long, required = true)]
        records: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
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
    #[command(flatten)]
    limits: LimitArgs,
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
        let given = own.into_iter().filter_map(|(name, setting)| Some((name.to_owned(), setting?.0)));
        patch.extend(given);
        let ends = self.expires.map(|from_now_ms| json!(keys::now_ms().saturating_add(from_now_ms)));
        patch.extend(ends.map(|ends_ms| ("expires_ms".to_owned(), ends_ms)));
        patch.extend(self.description.map(|text| ("description".to_owned(), json!(text))));
        self.limits.add_to(&mut patch);
        patch
    }
}

/// Settings taken back, as the admin API takes them: added to a patch.
pub(in crate::cli) fn clear(patch: &mut Map<String, Value>, settings: Vec<Cleared>) {
    for setting in settings {
        match setting {
            Cleared::Other(name, without) => drop(patch.insert(name.to_owned(), without)),
            Cleared::Limit(name) => limits::clear(patch, name),
        }
    }
}

/// A list can be anything; the server knows what may stand in it.
#[expect(clippy::unnecessary_wraps, reason = "clap wants a result")]
fn list(text: &str) -> Result<Setting, String> {
    Ok(Setting(text.split(',').map(|item| json!(item.trim())).collect()))
}

fn cleared(text: &str) -> Result<Cleared, String> {
    if let Some(limit) = limits::named(text) {
        return Ok(Cleared::Limit(limit));
    }
    match text.replace('-', "_").as_str() {
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
