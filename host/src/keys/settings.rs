//! What an operator can set of a client key, and what of it can be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::KeyError;
use super::client_kind::ClientKind;
use crate::config::limits::MODEL_MOST_BYTES;
use crate::limit_set::{self, LimitSet};
use crate::merge_patch::merge;
use crate::plugin::admission::Limits;

/// Longest description.
const DESCRIPTION_BYTES: usize = 1_024;

/// Models or patterns in one list of a key: each is compared with the model of every request.
const MODELS: usize = 256;

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
    #[serde(deserialize_with = "limit_set::from_object")]
    pub limits: LimitSet,
    /// Limits over the models that a name or pattern stands for, together.
    #[serde(deserialize_with = "limit_set::from_objects")]
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
        limit_set::check(&self.limits, &self.model_limits).map_err(KeyError::Invalid)
    }

    /// The limits as policies see them.
    pub(super) fn for_policies(&self) -> Limits {
        limit_set::for_policies(&self.limits, &self.model_limits)
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
