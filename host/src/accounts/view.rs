//! An account as people see it: everything but its secrets.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use tollgate_store::sql::{Database, SqlError, Statement, Value};
use utoipa::ToSchema;

use super::{Draft, table::Stored};
use crate::gateway::AccountSpec;

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
    /// Requests a minute.
    pub rpm: Option<u64>,
    /// Tokens a minute.
    pub tpm: Option<u64>,
    /// Requests a day.
    pub rpd: Option<u64>,
    /// Requests at once.
    pub concurrency: Option<u32>,
    /// The proxy on the way to its upstream.
    pub proxy: Option<String>,
    /// Who this gateway is for the proxy.
    pub proxy_user: Option<String>,
    /// The certificates, as PEM, that its upstream's is trusted by; none: the system's.
    pub ca: Option<String>,
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
    /// What went over its present key; none before the first request.
    pub totals: Option<Totals>,
}

/// What went over a key, as the ingestion plugin has counted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Totals {
    /// Requests.
    pub requests: u64,
    /// Those that were answered without an error.
    pub successful_requests: u64,
    /// Tokens in.
    pub input_tokens: u64,
    /// Tokens out.
    pub output_tokens: u64,
    /// Milliseconds since 1970, UTC.
    pub last_used_ms: Option<u64>,
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
            rpm: draft.rpm,
            tpm: draft.tpm,
            rpd: draft.rpd,
            concurrency: draft.concurrency,
            proxy: draft.proxy,
            proxy_user: draft.proxy_user,
            ca: draft.ca,
            description: draft.description,
            email: draft.email,
            id: None,
            created_ms: None,
            updated_ms: None,
            expires_ms: draft.expires_ms,
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
    let hashes: Vec<&str> = views.iter().map(|view| view.key_hash.as_str()).collect();
    let hashes = serde_json::to_string(&hashes).unwrap_or_default();
    let select = "SELECT api_key_hash, total_requests, successful_requests, total_input_tokens,
        total_output_tokens, last_used FROM api_key_metrics
        WHERE api_key_hash IN (SELECT value FROM json_each(?1))";
    let outcome = match database.query(Statement::new(select, vec![hashes.into()])).await {
        // The table is the ingestion plugin's, which may be switched off.
        Err(SqlError::Invalid(text)) if text.contains("no such table") => return Ok(()),
        outcome => outcome?,
    };
    let totals: HashMap<String, Totals> = outcome.rows.into_iter().filter_map(read).collect();
    for view in views {
        // Two accounts with the same key share what went over it.
        view.totals = totals.get(&view.key_hash).cloned();
    }
    Ok(())
}

fn read(row: Vec<Value>) -> Option<(String, Totals)> {
    let [hash, requests, successful, input, output, last] = <[Value; 6]>::try_from(row).ok()?;
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
        last_used_ms: number(&last),
    };
    Some((hash, totals))
}
