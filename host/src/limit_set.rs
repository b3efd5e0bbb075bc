//! What a client key or an upstream account is limited to: over all its models, and over some of them together.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::config::limits::RATE_MOST;
use crate::money;
use crate::plugin::admission::{Limit, Limits, Measure};

/// Groups of models with limits of their own: each is a value that quota reads and writes for a request, and its tickets
/// hold so many.
const GROUPS: usize = 8;

/// Longest name of such a group, for the same reason.
const GROUP_BYTES: usize = 100;

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

/// Limits over the models that a name or pattern stands for, together.
pub type ModelLimits = BTreeMap<String, LimitSet>;

impl LimitSet {
    /// Those counted in whole numbers.
    pub(crate) fn counts(&self) -> [(&'static str, Measure, Option<u64>); 7] {
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

    /// Those counted in money.
    pub(crate) fn costs(&self) -> [(&'static str, Measure, Option<f64>); 3] {
        [
            ("cost_per_day", Measure::CostPerDay, self.cost_per_day),
            ("cost_per_month", Measure::CostPerMonth, self.cost_per_month),
            ("cost_total", Measure::CostTotal, self.cost_total),
        ]
    }

    fn check(&self, place: &str) -> Result<(), String> {
        for (name, _, value) in self.counts() {
            if value.is_some_and(|value| !(1..=RATE_MOST).contains(&value)) {
                return Err(format!("`{place}{name}` must be from 1 to {RATE_MOST}"));
            }
        }
        for (name, _, value) in self.costs() {
            if value.is_some_and(|units| money::billionths(units).is_none_or(|amount| amount == 0)) {
                return Err(format!("`{place}{name}` must be an amount over 0, up to {}", money::MOST));
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

#[cfg(test)]
impl LimitSet {
    /// So many requests at once and no other limit.
    pub(crate) fn at_once(most: u64) -> LimitSet {
        LimitSet { concurrency: Some(most), ..LimitSet::default() }
    }
}

/// Whether limits can be; the error names the field and what is allowed.
pub(crate) fn check(limits: &LimitSet, model_limits: &ModelLimits) -> Result<(), String> {
    check_groups(model_limits)?;
    limits.check("limits.")?;
    model_limits.iter().try_for_each(|(models, limits)| limits.check(&format!("model_limits.{models}.")))
}

/// Whether there can be limits over these models.
pub(crate) fn check_groups(model_limits: &ModelLimits) -> Result<(), String> {
    let is_group =
        |models: &String| (1..=GROUP_BYTES).contains(&models.len()) && !models.chars().any(char::is_control);
    if model_limits.len() > GROUPS || !model_limits.keys().all(is_group) {
        return Err(format!(
            "`model_limits` has at most {GROUPS} names or patterns of models, of 1 to {GROUP_BYTES} bytes"
        ));
    }
    Ok(())
}

/// The limits as policies see them.
pub(crate) fn for_policies(limits: &LimitSet, model_limits: &ModelLimits) -> Limits {
    let LimitSet { rpm, tpm, rpd, .. } = *limits;
    let beyond = |limit: &Limit| !matches!(limit.measure, Measure::Rpm | Measure::Tpm | Measure::Rpd);
    let over_some = model_limits.iter().flat_map(|(models, limits)| limits.limits(Some(models)));
    let further = limits.limits(None).filter(beyond).chain(over_some).collect();
    Limits { rpm, tpm, rpd, further }
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

/// For a field of limits over all models.
pub(crate) fn from_object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LimitSet, D::Error> {
    FromObject::deserialize(deserializer).map(|FromObject(limits)| limits)
}

/// For a field of limits over some models.
pub(crate) fn from_objects<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ModelLimits, D::Error> {
    let objects = BTreeMap::<String, FromObject>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|(models, FromObject(limits))| (models, limits)).collect())
}
