//! An account as people see it: everything but its secrets.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use tollgate_store::sql::{Database, SqlError, Statement, Value};
use utoipa::ToSchema;

use super::{Draft, table::Stored};
use crate::{gateway::AccountSpec, limit_set::LimitSet, money};

/// Where an account was described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// In the configuration file, where alone it can be changed.
    Configuration,
    /// In the store.
    Store,
}

/// Whether an account serves, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It serves.
    Serving,
    /// It did not answer when it was last asked for its models, and is passed over until it does.
    Down,
    /// It is on the blacklist, and not asked before its time there is over.
    Blacklisted,
    /// It was switched off.
    Disabled,
    /// Its time is over.
    Expired,
    /// A secret of it cannot be opened.
    Damaged,
}

/// An account.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AccountView {
    /// Its name.
    pub name: String,
    /// Where it was described.
    pub from: Origin,
    /// Whether it serves.
    pub status: Status,
    /// What its upstream speaks.
    pub dialect: String,
    /// Where its upstream is.
    pub base_url: String,
    /// Whether it has a key.
    pub has_api_key: bool,
    /// SHA-256 of its key (of its name, if it has no key): its id in policies, blacklist and log.
    pub key_hash: String,
    /// The models it serves; empty: all.
    pub models: Vec<String>,
    /// Names that it serves too, and its own models that these stand for.
    pub aliases: BTreeMap<String, String>,
    /// How often it is drawn among accounts of its priority.
    pub weight: u32,
    /// Lower numbers are tried first.
    pub priority: u32,
    /// Limits over all its models.
    pub limits: LimitSet,
    /// Limits over the models that a name or pattern stands for, together.
    pub model_limits: BTreeMap<String, LimitSet>,
    /// The proxy on the way to its upstream.
    pub proxy: Option<String>,
    /// Who this gateway is for the proxy.
    pub proxy_user: Option<String>,
    /// The certificates, as PEM, that its upstream's is trusted by; none: the system's.
    pub ca: Option<String>,
    /// Whether usage is asked for in streams whose client does not; the client does not get what tells of it.
    pub stream_usage: bool,
    /// What it is for.
    pub description: String,
    /// Whom to ask about it.
    pub email: String,
    /// Its id in the store.
    pub id: Option<String>,
    /// Milliseconds since 1970, UTC.
    pub created_ms: Option<u64>,
    /// Milliseconds since 1970, UTC.
    pub updated_ms: Option<u64>,
    /// Milliseconds since 1970, UTC, from which on it is not asked any more.
    pub expires_ms: Option<u64>,
    /// The ids it has had before its key was changed, the latest first.
    pub earlier_key_hashes: Vec<String>,
    /// For which models it stands on the blacklist now.
    pub held: Vec<Held>,
    /// What went over it, under earlier keys too; none before the first request.
    pub totals: Option<Totals>,
}

/// An entry of the blacklist that holds an account back now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Held {
    /// The model; none: all of them.
    pub model: Option<String>,
    /// Why.
    pub reason: String,
    /// Until when, in milliseconds since 1970, UTC; none: until it is taken off the list.
    pub until_ms: Option<u64>,
}

/// What went over an account, as the ingestion plugin has counted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AccountTotals)]
pub struct Totals {
    /// Requests.
    pub requests: u64,
    /// Those that were answered without an error.
    pub successful_requests: u64,
    /// Tokens in.
    pub input_tokens: u64,
    /// Tokens out.
    pub output_tokens: u64,
    /// What they cost, in billionths of the price table's unit; models without a price add nothing.
    #[serde(rename = "cost", serialize_with = "as_units")]
    #[schema(value_type = f64)]
    pub cost: u64,
    /// Milliseconds since 1970, UTC.
    pub last_used_ms: Option<u64>,
    /// Failures of its own since it last answered without an error, under its present key.
    pub failures_in_a_row: u64,
    /// When it last failed so, in milliseconds since 1970, UTC.
    pub last_failure_ms: Option<u64>,
    /// False after several failures in a row.
    pub is_healthy: bool,
}

fn as_units<S: serde::Serializer>(billionths: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(money::units(*billionths))
}

impl Default for Totals {
    fn default() -> Totals {
        Totals {
            requests: 0,
            successful_requests: 0,
            input_tokens: 0,
            output_tokens: 0,
            cost: 0,
            last_used_ms: None,
            failures_in_a_row: 0,
            last_failure_ms: None,
            is_healthy: true,
        }
    }
}

impl Totals {
    /// Adds what was counted under an earlier key, whose health says nothing any more.
    fn add(&mut self, earlier: &Totals) {
        let sums = [
            (&mut self.requests, earlier.requests),
            (&mut self.successful_requests, earlier.successful_requests),
            (&mut self.input_tokens, earlier.input_tokens),
            (&mut self.output_tokens, earlier.output_tokens),
            (&mut self.cost, earlier.cost),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
        self.last_used_ms = self.last_used_ms.max(earlier.last_used_ms);
    }
}

impl AccountView {
    pub(super) fn configured(spec: &AccountSpec) -> AccountView {
        AccountView::of(Draft::from(spec), Origin::Configuration, Status::Serving)
    }

    pub(super) fn stored(stored: &Stored, now_ms: u64) -> AccountView {
        let draft = &stored.draft;
        let status = match draft.expires_ms {
            _ if stored.is_damaged => Status::Damaged,
            _ if !draft.active => Status::Disabled,
            Some(expires_ms) if expires_ms <= now_ms => Status::Expired,
            _ => Status::Serving,
        };
        AccountView {
            id: Some(stored.id.clone()),
            has_api_key: stored.sealed.api_key.is_some(),
            created_ms: Some(stored.created_ms),
            updated_ms: Some(stored.updated_ms),
            ..AccountView::of(draft.clone(), Origin::Store, status)
        }
    }

    /// Every id that it has, or has had.
    pub fn key_hashes(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.key_hash).chain(&self.earlier_key_hashes)
    }

    fn of(draft: Draft, from: Origin, status: Status) -> AccountView {
        AccountView {
            key_hash: id(&draft),
            has_api_key: draft.api_key.is_some(),
            name: draft.name,
            from,
            status,
            dialect: draft.dialect,
            base_url: draft.base_url,
            models: draft.models,
            aliases: draft.aliases,
            weight: draft.weight,
            priority: draft.priority,
            limits: draft.limits,
            model_limits: draft.model_limits,
            proxy: draft.proxy,
            proxy_user: draft.proxy_user,
            ca: draft.ca,
            stream_usage: draft.stream_usage,
            description: draft.description,
            email: draft.email,
            id: None,
            created_ms: None,
            updated_ms: None,
            expires_ms: draft.expires_ms,
            earlier_key_hashes: Vec::new(),
            held: Vec::new(),
            totals: None,
        }
    }
}

/// The id of an account for policies, blacklist and log.
pub(super) fn id(draft: &Draft) -> String {
    let api_key = draft.api_key.clone().unwrap_or_default();
    AccountSpec { name: draft.name.clone(), api_key, ..AccountSpec::default() }.id()
}

/// Adds what each has been used for.
pub(super) async fn add_totals(database: &Database, views: &mut [AccountView]) -> Result<(), SqlError> {
    let hashes: Vec<&String> = views.iter().flat_map(AccountView::key_hashes).collect();
    let hashes = serde_json::to_string(&hashes).unwrap_or_default();
    let select =
        "SELECT api_key_hash, total_requests, successful_requests, total_input_tokens, total_output_tokens,
            total_cost, last_used, consecutive_failures, last_failure, is_healthy
        FROM api_key_metrics WHERE api_key_hash IN (SELECT value FROM json_each(?1))";
    let outcome = match database.query(Statement::new(select, vec![hashes.into()])).await {
        // The table is the ingestion plugin's, which may be switched off.
        Err(SqlError::Invalid(text)) if text.contains("no such table") => return Ok(()),
        outcome => outcome?,
    };
    let counted: HashMap<String, Totals> = outcome.rows.into_iter().filter_map(read).collect();
    for view in views {
        // Two accounts with the same key share what went over it.
        let mut totals = counted.get(&view.key_hash).cloned();
        for earlier in view.earlier_key_hashes.iter().filter_map(|hash| counted.get(hash)) {
            totals.get_or_insert_default().add(earlier);
        }
        view.totals = totals;
    }
    Ok(())
}

fn read(row: Vec<Value>) -> Option<(String, Totals)> {
    let [hash, requests, successful, input, output, cost, last, failures, failed, healthy] =
        <[Value; 10]>::try_from(row).ok()?;
    let number = |value: &Value| match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    let Value::Text(hash) = hash else { return None };
    let totals = Totals {
        requests: number(&requests)?,
        successful_requests: number(&successful)?,
        input_tokens: number(&input)?,
        output_tokens: number(&output)?,
        cost: number(&cost)?,
        last_used_ms: number(&last),
        failures_in_a_row: number(&failures)?,
        last_failure_ms: number(&failed),
        is_healthy: number(&healthy)? == 1,
    };
    Some((hash, totals))
}
