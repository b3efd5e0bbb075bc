//! What an operator can set of a client key, and what of it can be.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::KeyError;
use super::client_kind::ClientKind;
use crate::config::limits::{MODEL_MOST_BYTES, RATE_MOST};
use crate::money;
use crate::plugin::admission::{Limit, Limits, Measure};

/// Longest description.
const DESCRIPTION_BYTES: usize = 1_024;

/// Models or patterns in one list of a key: each is compared with the model of every request.
const MODELS: usize = 256;

/// Groups of models with limits of their own: each is a value that quota reads and writes for a request, and its tickets
/// hold so many.
const GROUPS: usize = 8;

/// Longest name of such a group, for the same reason.
const GROUP_BYTES: usize = 100;

/// Everything about a key that can be edited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What it is for.
    pub description: String,
    /// Milliseconds since 1970, UTC, from which on it is refused.
    pub expires_ms: Option<u64>,
    /// The dialects it may speak; empty: all.
    pub permissions: Vec<Permission>,
    /// The models it may use, by name or pattern; empty: all.
    pub models: Vec<String>,
    /// The models it may not use, by name or pattern, whatever `models` says.
    pub forbidden_models: Vec<String>,
    /// The kinds of client it may be used by; empty: all.
    pub clients: Vec<ClientKind>,
    /// Limits over all its models.
    #[serde(deserialize_with = "from_object")]
    pub limits: LimitSet,
    /// Limits over the models that a name or pattern stands for, together.
    #[serde(deserialize_with = "from_objects")]
    pub model_limits: BTreeMap<String, LimitSet>,
}

/// A dialect that a key may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// As `dialect = "openai"` of an account.
    Openai,
    /// As `dialect = "anthropic"` of an account.
    Anthropic,
    /// As `dialect = "gemini"` of an account.
    Gemini,
}

impl Permission {
    /// The dialect's name.
    pub fn dialect(self) -> &'static str {
        match self {
            Permission::Openai => "openai",
            Permission::Anthropic => "anthropic",
            Permission::Gemini => "gemini",
        }
    }
}

/// Limits; what is left out is unlimited. Windows slide, days and months are those of UTC, and money is in the unit of the
/// price table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSet {
    /// Requests in any 60 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u64>,
    /// Tokens in any 60 s, in and out together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<u64>,
    /// Requests in any 24 h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpd: Option<u64>,
    /// Requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
    /// Tokens of a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// Tokens of a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_month: Option<u64>,
    /// Tokens of all time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_total: Option<u64>,
    /// Money of a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_per_day: Option<f64>,
    /// Money of a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_per_month: Option<f64>,
    /// Money of all time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_total: Option<f64>,
}

impl LimitSet {
    /// Those counted in whole numbers.
    fn counts(&self) -> [(&'static str, Measure, Option<u64>); 7] {
        [
            ("rpm", Measure::Rpm, self.rpm),
            ("tpm", Measure::Tpm, self.tpm),
            ("rpd", Measure::Rpd, self.rpd),
            ("concurrency", Measure::Concurrency, self.concurrency),
            ("tokens_per_day", Measure::TokensPerDay, self.tokens_per_day),
            ("tokens_per_month", Measure::TokensPerMonth, self.tokens_per_month),
            ("tokens_total", Measure::TokensTotal, self.tokens_total),
        ]
    }

    fn costs(&self) -> [(&'static str, Measure, Option<f64>); 3] {
        [
            ("cost_per_day", Measure::CostPerDay, self.cost_per_day),
            ("cost_per_month", Measure::CostPerMonth, self.cost_per_month),
            ("cost_total", Measure::CostTotal, self.cost_total),
        ]
    }

    fn check(&self, place: &str) -> Result<(), KeyError> {
        for (name, _, value) in self.counts() {
            if value.is_some_and(|value| !(1..=RATE_MOST).contains(&value)) {
                return invalid(format!("`{place}{name}` must be from 1 to {RATE_MOST}"));
            }
        }
        for (name, _, value) in self.costs() {
            if value.is_some_and(|units| money::billionths(units).is_none_or(|amount| amount == 0)) {
                let most = money::MOST;
                return invalid(format!("`{place}{name}` must be an amount over 0, up to {most}"));
            }
        }
        Ok(())
    }

    fn limits(&self, models: Option<&str>) -> impl Iterator<Item = Limit> {
        let limit = move |measure, most: Option<u64>| {
            Some(Limit { measure, most: most?, models: models.map(str::to_owned) })
        };
        let counts = self.counts().into_iter().filter_map(move |(_, measure, most)| limit(measure, most));
        // An amount that is none can only have been put there by hand; it then allows nothing.
        let billionths = |units: f64| money::billionths(units).unwrap_or(0);
        let costs = self.costs();
        counts.chain(
            costs.into_iter().filter_map(move |(_, measure, units)| limit(measure, units.map(billionths))),
        )
    }
}

impl Settings {
    /// The same with changes: a JSON merge patch (RFC 7396) of the settings, in which null removes.
    pub fn patched(&self, patch: &Value) -> Result<Settings, KeyError> {
        let mut settings =
            serde_json::to_value(self).map_err(|error| KeyError::Invalid(error.to_string()))?;
        merge(&mut settings, patch);
        let settings: Settings =
            serde_json::from_value(settings).map_err(|error| KeyError::Invalid(error.to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    /// Whether it can be.
    pub fn check(&self) -> Result<(), KeyError> {
        if self.description.len() > DESCRIPTION_BYTES || !is_clean(&self.description) {
            return invalid("a key's description has at most 1024 bytes and no control characters");
        }
        for models in [&self.models, &self.forbidden_models] {
            if models.len() > MODELS || !models.iter().all(|model| is_model(model, MODEL_MOST_BYTES)) {
                return invalid(
                    "a list of models has at most 256 names or patterns, of 1 to 256 bytes, without control characters",
                );
            }
        }
        if self.model_limits.len() > GROUPS
            || !self.model_limits.keys().all(|models| is_model(models, GROUP_BYTES))
        {
            return invalid(format!(
                "`model_limits` has at most {GROUPS} names or patterns of models, of 1 to {GROUP_BYTES} bytes"
            ));
        }
        self.limits.check("limits.")?;
        self.model_limits
            .iter()
            .try_for_each(|(models, limits)| limits.check(&format!("model_limits.{models}.")))
    }

    /// The limits as policies see them.
    pub(super) fn for_policies(&self) -> Limits {
        let LimitSet { rpm, tpm, rpd, .. } = self.limits;
        let beyond = |limit: &Limit| !matches!(limit.measure, Measure::Rpm | Measure::Tpm | Measure::Rpd);
        let over_some = self.model_limits.iter().flat_map(|(models, limits)| limits.limits(Some(models)));
        let further = self.limits.limits(None).filter(beyond).chain(over_some).collect();
        Limits { rpm, tpm, rpd, further }
    }
}

/// Limits of an object alone: serde takes a list for the fields in order too, and an empty one for no limits at all.
struct FromObject(LimitSet);

impl<'de> Deserialize<'de> for FromObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FromObject, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = LimitSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of limits")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<LimitSet, A::Error> {
                LimitSet::deserialize(MapAccessDeserializer::new(fields))
            }
        }
        deserializer.deserialize_map(Fields).map(FromObject)
    }
}

fn from_object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LimitSet, D::Error> {
    FromObject::deserialize(deserializer).map(|FromObject(limits)| limits)
}

fn from_objects<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, LimitSet>, D::Error> {
    let objects = BTreeMap::<String, FromObject>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|(models, FromObject(limits))| (models, limits)).collect())
}

/// A JSON merge patch. What is not an object takes the place of what was there.
fn merge(target: &mut Value, patch: &Value) {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *target, patch) else {
        *target = patch.clone();
        return;
    };
    for (name, change) in changes {
        match change {
            Value::Null => drop(fields.remove(name)),
            change if change.is_object() => {
                let field = fields.entry(name.clone()).or_insert_with(|| Value::Object(Default::default()));
                merge(field, change);
            }
            change => drop(fields.insert(name.clone(), change.clone())),
        }
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, KeyError> {
    Err(KeyError::Invalid(message.into()))
}

fn is_clean(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn is_model(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && is_clean(text)
}
