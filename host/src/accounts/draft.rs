//! An account as its owner describes it, over the admin API and in the table.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    RosterError,
    limits::{CREDENTIAL_BYTES, DESCRIPTION_BYTES, EMAIL_BYTES, MODEL_BYTES, MODELS, URL_BYTES},
};
use crate::{
    config::{
        check_name,
        limits::{CA_MOST_BYTES, CONCURRENCY_MOST, RATE_MOST, WEIGHT_MOST},
    },
    gateway::{
        AccountSpec, Dialect, ForwardProxy, check_base_url, check_credential, check_proxy_credential,
        check_proxy_url,
    },
    limit_set::{self, LimitSet},
    merge_patch::merge,
    secret::Secret,
};

/// An account in the store. Secrets go in and never out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// Its name, unique among all accounts.
    pub name: String,
    /// What its upstream speaks: `openai`, `anthropic` or `gemini`.
    #[serde(default = "openai")]
    pub dialect: String,
    /// Where its upstream is.
    pub base_url: String,
    /// The key sent upstream; none: nothing is sent.
    #[serde(default, skip_serializing)]
    #[schema(value_type = Option<String>, write_only)]
    pub api_key: Option<Secret>,
    /// The proxy on the way to its upstream: `http://HOST:PORT` or `socks5://HOST:PORT`.
    pub proxy: Option<String>,
    /// Who this gateway is for the proxy.
    pub proxy_user: Option<String>,
    /// The password for it.
    #[serde(default, skip_serializing)]
    #[schema(value_type = Option<String>, write_only)]
    pub proxy_password: Option<Secret>,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Whom to ask about it.
    #[serde(default)]
    pub email: String,
    /// The models it serves; empty: all.
    #[serde(default)]
    pub models: Vec<String>,
    /// Names that it serves too, and its own models that these stand for.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// How often it is drawn among accounts of its priority.
    #[serde(default = "one")]
    pub weight: u32,
    /// Lower numbers are tried first.
    #[serde(default)]
    pub priority: u32,
    /// Limits over all its models; requests that find no place by `concurrency` wait for one.
    #[serde(default, deserialize_with = "limit_set::from_object")]
    pub limits: LimitSet,
    /// Limits over the models that a name or pattern stands for, together, as clients name models.
    #[serde(default, deserialize_with = "limit_set::from_objects")]
    pub model_limits: BTreeMap<String, LimitSet>,
    /// Whether it serves.
    #[serde(default = "yes")]
    pub active: bool,
    /// Milliseconds since 1970, UTC, from which on it is not asked any more.
    pub expires_ms: Option<u64>,
    /// The certificates, as PEM, that its upstream's is trusted by; none: the system's.
    pub ca: Option<String>,
    /// Whether usage is asked for in streams whose client does not; the client does not get what tells of it.
    #[serde(default)]
    pub stream_usage: bool,
}

fn openai() -> String {
    Dialect::OpenAi.name().to_owned()
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

impl Draft {
    /// The same account with some fields changed (RFC 7396): null takes one back to its default, and a secret that is not
    /// named stays.
    pub(super) fn patched(&self, patch: &Map<String, Value>) -> Result<Draft, RosterError> {
        let wrong = |error| RosterError::Invalid(format!("the account would not be one: {error}"));
        let mut fields = serde_json::to_value(self).map_err(wrong)?;
        merge(&mut fields, &Value::Object(patch.clone()));
        let mut draft: Draft = serde_json::from_value(fields).map_err(wrong)?;
        if draft.name != self.name {
            return Err(RosterError::Invalid(
                "`name` cannot be changed: it stands in logs and metrics".into(),
            ));
        }
        if !patch.contains_key("api_key") {
            draft.api_key.clone_from(&self.api_key);
        }
        if !patch.contains_key("proxy_password") {
            draft.proxy_password.clone_from(&self.proxy_password);
        }
        Ok(draft)
    }

    /// The account for the gateway, if nothing is wrong with it.
    pub(super) fn spec(&self) -> Result<AccountSpec, RosterError> {
        let invalid = |message: String| Err(RosterError::Invalid(message));
        if let Err(rule) = check_name(&self.name) {
            return invalid(format!("`name` {rule}"));
        }
        let Some(dialect) = Dialect::ALL.into_iter().find(|dialect| dialect.name() == self.dialect) else {
            let names = Dialect::ALL.map(Dialect::name).join("`, `");
            return invalid(format!("`dialect` must be one of `{names}`"));
        };
        let base_url = match check_base_url(&self.base_url) {
            _ if self.base_url.len() > URL_BYTES => {
                return invalid(format!("`base_url` has at most {URL_BYTES} bytes"));
            }
            Ok(base_url) => base_url,
            Err(rule) => return invalid(format!("`base_url` {rule}")),
        };
        self.check_texts()?;
        let proxy = self.forward_proxy().map_err(RosterError::Invalid)?;
        self.check_numbers()?;
        Ok(AccountSpec {
            name: self.name.clone(),
            dialect,
            base_url,
            api_key: self.api_key.clone().unwrap_or_default(),
            models: self.models.clone(),
            aliases: self.aliases.clone(),
            weight: self.weight,
            priority: self.priority,
            limits: self.limits.clone(),
            model_limits: self.model_limits.clone(),
            expires_ms: self.expires_ms,
            ca: self.ca.as_deref().map(Into::into),
            proxy,
            stream_usage: self.stream_usage,
        })
    }

    fn forward_proxy(&self) -> Result<Option<ForwardProxy>, String> {
        let Some(url) = &self.proxy else {
            return match self.proxy_user.is_some() || self.proxy_password.is_some() {
                true => Err("`proxy_user` and `proxy_password` need `proxy`".to_owned()),
                false => Ok(None),
            };
        };
        check_proxy_url(url).map_err(|rule| format!("`proxy` {rule}"))?;
        let credentials = match (&self.proxy_user, &self.proxy_password) {
            (Some(user), Some(password)) => Some((user.clone(), password.clone())),
            (None, None) => None,
            _ => return Err("`proxy_user` and `proxy_password` go together".to_owned()),
        };
        if let Some((user, password)) = &credentials {
            check_proxy_credential(user).map_err(|rule| format!("`proxy_user` {rule}"))?;
            check_proxy_credential(password.expose()).map_err(|rule| format!("`proxy_password` {rule}"))?;
        }
        Ok(Some(ForwardProxy { url: url.clone(), credentials }))
    }

    fn check_texts(&self) -> Result<(), RosterError> {
        let invalid = |message: String| Err(RosterError::Invalid(message));
        for (field, text, most) in
            [("description", &self.description, DESCRIPTION_BYTES), ("email", &self.email, EMAIL_BYTES)]
        {
            if text.len() > most || text.chars().any(char::is_control) {
                return invalid(format!("`{field}` has at most {most} bytes and no control characters"));
            }
        }
        let is_model =
            |model: &String| (1..=MODEL_BYTES).contains(&model.len()) && !model.chars().any(char::is_control);
        if self.models.len() > MODELS || !self.models.iter().all(is_model) {
            return invalid(format!("`models` are at most {MODELS}, of 1 to {MODEL_BYTES} bytes each"));
        }
        if self.aliases.len() > MODELS || !self.aliases.iter().flat_map(|(name, to)| [name, to]).all(is_model)
        {
            return invalid(format!(
                "`aliases` are at most {MODELS} names and models, of 1 to {MODEL_BYTES} bytes each"
            ));
        }
        if let Some(key) = &self.api_key
            && (key.expose().len() > CREDENTIAL_BYTES || check_credential(key.expose()).is_err())
        {
            let rule = "printable ASCII without spaces";
            return invalid(format!("`api_key` must be 1 to {CREDENTIAL_BYTES} bytes of {rule}"));
        }
        if self.ca.as_ref().is_some_and(|ca| ca.len() as u64 > CA_MOST_BYTES) {
            return invalid(format!("`ca` has at most {CA_MOST_BYTES} bytes"));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), RosterError> {
        let within = |field: &str, value: Option<u64>, range: RangeInclusive<u64>| match value {
            Some(value) if !range.contains(&value) => Err(RosterError::Invalid(format!(
                "`{field}` must be from {} to {}",
                range.start(),
                range.end()
            ))),
            _ => Ok(()),
        };
        within("weight", Some(self.weight.into()), 1..=WEIGHT_MOST)?;
        within("limits.concurrency", self.limits.concurrency, 1..=CONCURRENCY_MOST)?;
        limit_set::check(&self.limits, &self.model_limits).map_err(RosterError::Invalid)?;
        within("expires_ms", self.expires_ms, 1..=RATE_MOST)
    }
}

impl From<&AccountSpec> for Draft {
    fn from(spec: &AccountSpec) -> Draft {
        let credentials = spec.proxy.as_ref().and_then(|proxy| proxy.credentials.as_ref());
        Draft {
            name: spec.name.clone(),
            dialect: spec.dialect.name().to_owned(),
            base_url: spec.base_url.clone(),
            api_key: Some(spec.api_key.clone()).filter(|key| !key.is_empty()),
            proxy: spec.proxy.as_ref().map(|proxy| proxy.url.clone()),
            proxy_user: credentials.map(|(user, _)| user.clone()),
            proxy_password: credentials.map(|(_, password)| password.clone()),
            description: String::new(),
            email: String::new(),
            models: spec.models.clone(),
            aliases: spec.aliases.clone(),
            weight: spec.weight,
            priority: spec.priority,
            limits: spec.limits.clone(),
            model_limits: spec.model_limits.clone(),
            active: true,
            expires_ms: spec.expires_ms,
            ca: spec.ca.as_deref().map(str::to_owned),
            stream_usage: spec.stream_usage,
        }
    }
}
