//! What `/keys` answers.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::accounting::{Deletion, Totals};
use crate::keys::{ClientKind, KeyInfo, Permission, Settings};
use crate::limit_set::LimitSet;

// One object with the settings in it: as a part of another they would refuse the rest, since they allow no further property.
/// A client key, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(in crate::admin) struct KeyView {
    /// The hash of its first secret, in hexadecimal; its id in log and policies.
    id: String,
    /// Its name, unique among the active keys.
    name: String,
    /// What it is for.
    description: String,
    /// Milliseconds since 1970, UTC, from which on it is refused; null: never.
    expires_ms: Option<u64>,
    /// The dialects it may speak; empty: all.
    permissions: Vec<Permission>,
    /// The models it may use, by name or pattern; empty: all.
    models: Vec<String>,
    /// The models it may not use, by name or pattern, whatever `models` says.
    forbidden_models: Vec<String>,
    /// The kinds of client it may be used by; empty: all.
    clients: Vec<ClientKind>,
    /// Limits over all its models.
    limits: LimitSet,
    /// Limits over the models that a name or pattern stands for, together.
    model_limits: BTreeMap<String, LimitSet>,
    /// False while it is switched off.
    enabled: bool,
    /// False once revoked.
    active: bool,
    /// Milliseconds since 1970, UTC.
    created_ms: u64,
    /// Milliseconds since 1970, UTC; of the revocation for a revoked key.
    updated_ms: u64,
    /// Milliseconds since 1970, UTC, until which the secret before the last rotation is valid too; null: there is none.
    previous_until_ms: Option<u64>,
    /// What it has used, as far back as statistics are kept; null where nothing is counted, as the ingestion plugin is switched
    /// off. Left out where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Totals>)]
    totals: Option<Option<Totals>>,
}

impl KeyView {
    /// What there is to see of a key; with what it has used, if that was asked for.
    pub(super) fn new(key: KeyInfo, totals: Option<Option<Totals>>) -> KeyView {
        let KeyInfo { id, name, settings, enabled, active, created_ms, updated_ms, previous_until_ms } = key;
        let Settings {
            description,
            expires_ms,
            permissions,
            models,
            forbidden_models,
            clients,
            limits,
            model_limits,
        } = settings;
        KeyView {
            id,
            name,
            description,
            expires_ms,
            permissions,
            models,
            forbidden_models,
            clients,
            limits,
            model_limits,
            enabled,
            active,
            created_ms,
            updated_ms,
            previous_until_ms,
            totals,
        }
    }
}

/// The client keys there are.
#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct KeyList {
    /// Revoked ones too, the oldest first.
    pub(super) keys: Vec<KeyView>,
}

/// A client key that has a new secret.
#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct KeyMade {
    /// The secret, shown this once.
    pub(super) key: String,
    /// The key's name.
    pub(super) name: String,
}

/// A client key that was let in again.
#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct KeyEnabled {
    /// Its name.
    pub(super) enabled: String,
}

/// A client key that was switched off.
#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct KeyDisabled {
    /// Its name.
    pub(super) disabled: String,
}

/// A client key that is no more.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::admin) enum KeyGone {
    /// What was recorded of it stays.
    Revoked {
        /// Its name.
        revoked: String,
    },
    /// What was recorded of it goes too.
    Deleted {
        /// Its name or id, as it was given.
        deleted: String,
        /// Its id.
        id: String,
    },
}

/// Deletions of keys with their records.
#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct DeletionList {
    pub(super) deletions: Vec<Deletion>,
}
