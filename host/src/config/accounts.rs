//! The `[[account]]` tables.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::limits;
use super::parse::Environment;
use super::reader::Section;
use crate::gateway::{
    AccountSpec, Dialect, ForwardProxy, check_base_url, check_credential, check_proxy_credential,
    check_proxy_url,
};
use crate::limit_set::{self, LimitSet, ModelLimits};
use crate::money;
use crate::secret::Secret;

pub(super) fn accounts(
    sections: Vec<Section<'_>>,
    directory: &Path,
    environment: Environment<'_>,
) -> Vec<AccountSpec> {
    let mut names = BTreeSet::new();
    let mut accounts = Vec::new();
    for section in sections {
        let account = account(&section, directory, environment);
        if let Some(name) = section.text("name")
            && !names.insert(name)
        {
            section.problem("name", format!("`name`{} repeats `{name}`", section.place()));
        }
        section.finish();
        accounts.extend(account);
    }
    accounts
}

fn account(section: &Section<'_>, directory: &Path, environment: Environment<'_>) -> Option<AccountSpec> {
    let name = section.required_name("name");
    let dialect = section.choice("dialect", &Dialect::ALL.map(|dialect| (dialect.name(), dialect)));
    let base_url = base_url(section);
    let api_key = api_key(section, environment);
    let small = |key, range| section.number(key, range).and_then(|number| u32::try_from(number).ok());
    let aliases = aliases(section);
    let (models, weight) = (section.texts("models"), small("weight", 1..=limits::WEIGHT_MOST));
    let priority = small("priority", 0..=u64::from(u32::MAX));
    let (limits, model_limits) = (limit_set(section, limits::CONCURRENCY_MOST), model_limits(section));
    let (ca, proxy) = (ca(section, directory), proxy(section, environment));
    let stream_usage = section.flag("stream_usage").unwrap_or(false);
    Some(AccountSpec {
        name: name?.to_owned(),
        dialect: dialect.unwrap_or(Dialect::OpenAi),
        base_url: base_url?,
        api_key: api_key?,
        models: models.unwrap_or_default(),
        aliases: aliases.unwrap_or_default(),
        weight: weight.unwrap_or(1),
        priority: priority.unwrap_or(0),
        limits,
        model_limits,
        expires_ms: None,
        ca,
        proxy,
        stream_usage,
    })
}

/// The limits that stand in a section.
fn limit_set(section: &Section<'_>, concurrency_most: u64) -> LimitSet {
    let count = |key| section.number(key, 1..=limits::RATE_MOST);
    LimitSet {
        rpm: count("rpm"),
        tpm: count("tpm"),
        rpd: count("rpd"),
        concurrency: section.number("concurrency", 1..=concurrency_most),
        tokens_per_day: count("tokens_per_day"),
        tokens_per_month: count("tokens_per_month"),
        tokens_total: count("tokens_total"),
        cost_per_day: budget(section, "cost_per_day"),
        cost_per_month: budget(section, "cost_per_month"),
        cost_total: budget(section, "cost_total"),
    }
}

fn budget(section: &Section<'_>, key: &'static str) -> Option<f64> {
    let amount = section.money(key)?;
    if amount == 0 {
        section.problem(key, format!("`{key}`{} must be over 0; leave it out for none", section.place()));
    }
    Some(money::units(amount))
}

fn model_limits(section: &Section<'_>) -> ModelLimits {
    let own = section.tables("model_limits", "{ \"gpt-4*\" = { rpm = 10 } }");
    let limits: ModelLimits = own
        .into_iter()
        .map(|(models, own)| {
            let limits = limit_set(&own, limits::RATE_MOST);
            own.finish();
            (models.to_owned(), limits)
        })
        .collect();
    if let Err(rule) = limit_set::check_groups(&limits) {
        section.problem("model_limits", format!("{rule}{}", section.place()));
    }
    limits
}

fn aliases(section: &Section<'_>) -> Option<BTreeMap<String, String>> {
    let aliases = section.text_map("aliases", "{ fast = \"gpt-4o-mini\" }")?;
    let most = limits::MODEL_MOST_BYTES;
    let is_long = |name: &String| name.len() > most || name.chars().any(char::is_control);
    if let Some(name) = aliases.iter().flat_map(|(name, to)| [name, to]).find(|name| is_long(name)) {
        let place = section.place();
        section.problem(
            "aliases",
            format!("`aliases`{place}: `{name}` is no model's name of at most {most} bytes"),
        );
    }
    Some(aliases)
}

/// The certificates in the file that is named; which are none shows when the account is made.
pub(super) fn ca(section: &Section<'_>, directory: &Path) -> Option<Arc<str>> {
    let path = directory.join(section.text("ca_file")?);
    match read_bounded(&path, limits::CA_MOST_BYTES) {
        Ok(text) => Some(text.into()),
        Err(error) => {
            let place = section.place();
            section.problem("ca_file", format!("`ca_file`{place}: cannot read {}: {error}", path.display()));
            None
        }
    }
}

fn read_bounded(path: &Path, most: u64) -> io::Result<String> {
    // Looked at first: opening a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        Err(io::Error::other(format!("it has more than {most} bytes")))
    } else {
        Ok(text)
    }
}

fn proxy(section: &Section<'_>, environment: Environment<'_>) -> Option<ForwardProxy> {
    let (url, user) = (section.text("proxy"), section.text("proxy_user"));
    let (given, variable) = (section.text("proxy_password"), section.text("proxy_password_env"));
    let place = section.place();
    let wrong = |key, problem: String| {
        section.problem(key, format!("`{key}`{place}{problem}"));
        None
    };
    let (key, password) = match (given, variable) {
        (Some(_), Some(_)) => {
            return wrong("proxy_password_env", " and `proxy_password`: give one of them".to_owned());
        }
        (Some(text), None) => ("proxy_password", Some(Secret::new(text))),
        (None, Some(variable)) => match environment(variable).filter(|value| !value.trim().is_empty()) {
            Some(text) => ("proxy_password_env", Some(Secret::new(text.trim()))),
            None => return wrong("proxy_password_env", format!(": the variable `{variable}` is not set")),
        },
        (None, None) => ("proxy_password", None),
    };
    let Some(url) = url else {
        return match user.is_some() || password.is_some() {
            true => wrong(if user.is_some() { "proxy_user" } else { key }, " needs `proxy`".to_owned()),
            false => None,
        };
    };
    if let Err(rule) = check_proxy_url(url) {
        return wrong("proxy", format!(" {rule}"));
    }
    let credentials = match (user, password) {
        (None, None) => None,
        (Some(user), Some(password)) => {
            if let Err(rule) = check_proxy_credential(user) {
                return wrong("proxy_user", format!(" {rule}"));
            }
            if let Err(rule) = check_proxy_credential(password.expose()) {
                return wrong(key, format!(" {rule}"));
            }
            Some((user.to_owned(), password))
        }
        (Some(_), None) => return wrong("proxy_user", " needs `proxy_password`".to_owned()),
        (None, Some(_)) => return wrong(key, " needs `proxy_user`".to_owned()),
    };
    Some(ForwardProxy { url: url.to_owned(), credentials })
}

fn base_url(section: &Section<'_>) -> Option<String> {
    match check_base_url(section.required_text("base_url")?) {
        Ok(url) => Some(url),
        Err(rule) => {
            section.problem("base_url", format!("`base_url`{} {rule}", section.place()));
            None
        }
    }
}

fn api_key(section: &Section<'_>, environment: Environment<'_>) -> Option<Secret> {
    let (given, variable) = (section.text("api_key"), section.text("api_key_env"));
    let place = section.place();
    match (section.has("api_key"), section.has("api_key_env")) {
        (true, true) => {
            section.problem("api_key_env", format!("`api_key` and `api_key_env`{place}: give one of them"));
            return None;
        }
        (false, false) => {
            section.report(format!("missing `api_key` or `api_key_env`{place}"));
            return None;
        }
        _ => {}
    }
    let (key, text) = match (given, variable) {
        (Some(text), _) => ("api_key", text.to_owned()),
        (None, Some(variable)) => match environment(variable).filter(|value| !value.trim().is_empty()) {
            Some(text) => ("api_key_env", text.trim().to_owned()),
            None => {
                let message = format!("`api_key_env`{place}: the variable `{variable}` is not set");
                section.problem("api_key_env", message);
                return None;
            }
        },
        (None, None) => return None,
    };
    if let Err(rule) = check_credential(&text) {
        section.problem(key, format!("`{key}`{place}: a key {rule}"));
        return None;
    }
    Some(Secret::new(text))
}
