//! `tollgate account`.

mod args;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use http::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, segment};
use super::failure::Failure;
use super::usage::{RecentUsage, recent};
use super::{limits, output, prompt};
pub(super) use args::AccountCommand;
use args::{Create, Fields, Update};

const COLUMNS: [&str; 14] = [
    "name",
    "dialect",
    "base_url",
    "models",
    "limits",
    "priority",
    "weight",
    "status",
    "held",
    "from",
    "last_used_ms",
    "requests",
    "failures_in_a_row",
    "cost",
];

/// What can be cleared beside limits, and the field of the API that it is.
const CLEARED: [(&str, &str); 14] = [
    ("aliases", "aliases"),
    ("api-key", "api_key"),
    ("ca", "ca"),
    ("description", "description"),
    ("email", "email"),
    ("expires", "expires_ms"),
    ("models", "models"),
    ("priority", "priority"),
    ("proxy", "proxy"),
    ("proxy-password", "proxy_password"),
    ("proxy-user", "proxy_user"),
    ("stream-usage", "stream_usage"),
    ("weight", "weight"),
    ("dialect", "dialect"),
];

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

pub(super) async fn create(client: &Client, create: Create) -> Result<(), Failure> {
    let Create { name, base_url, no_api_key, fields } = create;
    let asks = !no_api_key && fields.api_key_env.is_none() && !fields.api_key_stdin;
    let mut body = body(fields)?;
    body.insert("name".into(), name.clone().into());
    body.insert("base_url".into(), base_url.into());
    if asks {
        let otherwise = "give its key with --api-key-env or --api-key-stdin, or --no-api-key if it has none";
        body.insert("api_key".into(), prompt::ask_or("api key", otherwise)?.expose().into());
    }
    client.json(Method::POST, "/accounts", &body.into()).await?;
    Ok(output::print(format!("created {name}\n").as_bytes())?)
}

pub(super) async fn update(client: &Client, update: Update) -> Result<(), Failure> {
    let Update { name, base_url, api_key, clear, fields } = update;
    let mut body = body(fields)?;
    body.extend(base_url.map(|url| ("base_url".to_owned(), url.into())));
    if api_key {
        let otherwise = "nobody is at the terminal: use --api-key-env or --api-key-stdin";
        body.insert("api_key".into(), prompt::ask_or("api key", otherwise)?.expose().into());
    }
    for field in &clear {
        if let Some(limit) = limits::named(field) {
            limits::clear(&mut body, limit);
        } else if let Some((_, cleared)) = CLEARED.iter().find(|(name, _)| name == field) {
            body.insert((*cleared).to_owned(), Value::Null);
        } else {
            let names = CLEARED.map(|(name, _)| name).join(", ");
            return Err(Failure::Usage(format!("--clear {field}: it can be a limit, {names}")));
        }
    }
    if body.is_empty() {
        return Err(Failure::Usage("nothing to change: see `tollgate account update --help`".to_owned()));
    }
    client.json(Method::PATCH, &path(&name), &body.into()).await?;
    Ok(output::print(format!("updated {name}\n").as_bytes())?)
}

pub(super) async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let answer = client.get("/accounts").await?;
    if json {
        return Ok(output::print_json(&answer)?);
    }
    let accounts = answer.get("accounts").and_then(Value::as_array).into_iter().flatten();
    Ok(output::print_table(&COLUMNS, &accounts.map(row).collect::<Vec<_>>())?)
}

fn row(account: &Value) -> Vec<Value> {
    let field = |column: &str| match column {
        "limits" => Some(json!(limits::shown(account))),
        "held" => Some(json!(held(account))),
        column => account.get(column).or_else(|| account.get("totals")?.get(column)).cloned(),
    };
    COLUMNS.iter().map(|column| field(column).unwrap_or_default()).collect()
}

/// What the blacklist keeps an account back for: a model or `*`, and until when.
fn held(account: &Value) -> Vec<String> {
    let entries = account.get("held").and_then(Value::as_array).into_iter().flatten();
    let text = |entry: &Value| {
        let model = entry.get("model").and_then(Value::as_str).unwrap_or("*");
        let until = entry.get("until_ms").and_then(Value::as_u64).map(|ms| format!(" until {ms}"));
        format!("{model}{}", until.unwrap_or_default())
    };
    entries.map(text).collect()
}

pub(super) async fn show(client: &Client, name: &str, json: bool) -> Result<(), Failure> {
    let answer = client.get(&path(name)).await?;
    if json {
        return Ok(output::print_json(&answer)?);
    }
    let fields = answer.as_object().into_iter().flatten();
    let rows: Vec<_> = fields.map(|(name, value)| vec![name.as_str().into(), value.clone()]).collect();
    Ok(output::print_table(&["field", "value"], &rows)?)
}

pub(super) async fn usage(client: &Client, usage: RecentUsage) -> Result<(), Failure> {
    let path = path(&usage.name);
    recent(client, &path, usage).await
}

pub(super) async fn switch(client: &Client, name: &str, active: bool) -> Result<(), Failure> {
    client.json(Method::PATCH, &path(name), &json!({ "active": active })).await?;
    let done = if active { "enabled" } else { "disabled" };
    Ok(output::print(format!("{done} {name}\n").as_bytes())?)
}

pub(super) async fn delete(client: &Client, name: &str) -> Result<(), Failure> {
    client.delete(&path(name)).await?;
    Ok(output::print(format!("deleted {name}\n").as_bytes())?)
}

fn path(name: &str) -> String {
    format!("/accounts/{}", segment(name))
}

/// The fields that were given.
fn body(fields: Fields) -> Result<Map<String, Value>, Failure> {
    let key = match (&fields.api_key_env, fields.api_key_stdin) {
        (Some(name), _) => Some(prompt::variable(name)?),
        (None, true) => Some(prompt::line("api key")?),
        (None, false) => None,
    };
    let password = match (&fields.proxy_password_env, fields.proxy_password_stdin) {
        (Some(name), _) => Some(prompt::variable(name)?),
        (None, true) => Some(prompt::line("proxy's password")?),
        (None, false) if fields.proxy_user.is_some() => {
            let otherwise = "give the proxy's password with --proxy-password-env or --proxy-password-stdin";
            Some(prompt::ask_or("proxy's password", otherwise)?)
        }
        (None, false) => None,
    };
    let ca = match &fields.ca_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.with_context(|| format!("cannot read {}", path.display()))?)
        }
        None => None,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = u64::try_from(now).unwrap_or(u64::MAX);
    let expires_ms = fields.expires.map(|days| now_ms.saturating_add(days.saturating_mul(DAY_MS)));
    let aliases: Map<String, Value> =
        fields.alias.into_iter().map(|(name, model)| (name, model.into())).collect();
    let given = [
        ("aliases", (!aliases.is_empty()).then(|| aliases.into())),
        ("api_key", key.map(|key| key.expose().into())),
        ("ca", ca.map(Into::into)),
        ("description", fields.description.map(Into::into)),
        ("dialect", fields.dialect.map(Into::into)),
        ("email", fields.email.map(Into::into)),
        ("expires_ms", expires_ms.map(Into::into)),
        ("models", fields.models.map(Into::into)),
        ("priority", fields.priority.map(Into::into)),
        ("proxy", fields.proxy.map(Into::into)),
        ("proxy_password", password.map(|password| password.expose().into())),
        ("proxy_user", fields.proxy_user.map(Into::into)),
        ("stream_usage", fields.stream_usage.then_some(Value::Bool(true))),
        ("weight", fields.weight.map(Into::into)),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let mut body: Map<String, Value> = given.collect();
    fields.limits.add_to(&mut body);
    Ok(body)
}
