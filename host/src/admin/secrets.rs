//! `/secrets/rotate`.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::Json;
use crate::secret::Secret;
use crate::secrets::Key;

/// What is to be replaced.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SecretsRotate)]
pub(super) struct Rotate {
    /// Whether the master key stays.
    #[serde(default)]
    keep_master_key: bool,
    /// The new master key, 64 hexadecimal digits, where the server does not keep it in a file.
    #[schema(value_type = Option<String>)]
    new_master_key: Option<Secret>,
}

/// What was done.
#[derive(Serialize, ToSchema)]
#[schema(as = SecretsRotated)]
pub(super) struct Rotated {
    /// Secrets that were sealed anew.
    secrets: usize,
    /// Whether there is another master key.
    master_key_changed: bool,
}

/// Seals every secret with a new key, while all of them stay in use.
#[utoipa::path(post, path = "/secrets/rotate", request_body = Rotate, responses((status = 200, body = Rotated)))]
pub(super) async fn rotate(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Json(Rotate { keep_master_key, new_master_key }): Json<Rotate>,
) -> Result<Answer<Rotated>, ApiError> {
    let work = async {
        let given = match new_master_key {
            Some(_) if keep_master_key => {
                return Err(ApiError::invalid("`new_master_key` and `keep_master_key`: give one of them"));
            }
            Some(digits) => Some(Key::parse(digits.expose()).ok_or_else(|| {
                ApiError::invalid("`new_master_key` must be 64 hexadecimal digits")
                    .hint("`openssl rand -hex 32` makes one")
            })?),
            None => None,
        };
        Ok(admin.accounts.rotate_secrets(keep_master_key, given).await?)
    };
    let secrets = audit(via, "secrets rotate", "", work.await)?;
    Ok(Answer(Rotated { secrets, master_key_changed: !keep_master_key }))
}
