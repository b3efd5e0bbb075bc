//! The one shape of an error: `{"error":{"code","message","hint"?}}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use tollgate_store::{BlobError, CommitError, KvError, SqlError};
use utoipa::ToSchema;

use super::told::Fault;
use crate::accounts::RosterError;
use crate::keys::KeyError;
use crate::plugin::{JobError, Refusal};
use crate::secrets::SecretsError;
use crate::tokens::TokenError;

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: Option<String>,
}

/// An error as it is answered.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorBody {
    error: Problem,
}

/// What is wrong.
#[derive(Serialize, ToSchema)]
#[schema(as = ErrorDetail)]
struct Problem {
    /// For programs.
    code: &'static str,
    /// For people.
    message: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hint: Option<String>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: None }
    }

    /// What the caller sent cannot be.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The path is there, with other methods.
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "not with this method")
    }

    /// More than the server takes.
    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// `if-match` or another condition of the request does not hold; nothing has changed.
    pub(crate) fn precondition_failed() -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", "the precondition does not hold")
    }

    /// A fault of the server.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// Not now; later it may work.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// What is there stands against it.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// The machine's word for what happened.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The body of the answer.
    pub(crate) fn body(&self) -> ErrorBody {
        let Self { code, message, hint, .. } = self.clone();
        ErrorBody { error: Problem { code, message, hint } }
    }

    /// Says which part of the request is meant.
    pub(crate) fn at(mut self, place: impl std::fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Says what helps.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status.is_server_error() {
            response.extensions_mut().insert(Fault { code: self.code, message: self.message });
        }
        response
    }
}

impl From<KvError> for ApiError {
    fn from(error: KvError) -> Self {
        let message = error.to_string();
        match error {
            KvError::TooLarge(_) => Self::too_large(message),
            KvError::Full(_) => Self::new(StatusCode::INSUFFICIENT_STORAGE, "full", message)
                .hint("delete entries, or set a larger `limit_bytes` of the store in the configuration"),
            KvError::Conflict => Self::conflict(message),
            KvError::Invalid(_) => Self::invalid(message),
            KvError::Unavailable(_) | KvError::Storage(_) => Self::unavailable(message),
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        let message = error.to_string();
        match error {
            BlobError::TooLarge(_) => Self::too_large(message),
            BlobError::PreconditionFailed => Self::precondition_failed(),
            BlobError::OutOfRange(_) => Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "out_of_range", message),
            BlobError::Invalid(_) => Self::invalid(message),
            BlobError::Unavailable(_) | BlobError::Storage(_) => Self::unavailable(message),
        }
    }
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        let message = error.to_string();
        match error {
            CommitError::AccessDenied => Self::new(StatusCode::FORBIDDEN, "access_denied", message),
            CommitError::TooLarge(_) => Self::too_large(message),
            CommitError::Conflict => Self::conflict(message),
            CommitError::Invalid(_) => Self::invalid(message),
            CommitError::Unavailable(_) | CommitError::Storage(_) => Self::unavailable(message),
        }
    }
}

impl From<SqlError> for ApiError {
    fn from(error: SqlError) -> Self {
        let message = error.to_string();
        match error {
            SqlError::AccessDenied(_) => Self::new(StatusCode::FORBIDDEN, "access_denied", message),
            SqlError::TooLarge(_) => Self::too_large(message),
            SqlError::Conflict => Self::conflict(message),
            SqlError::Invalid(_) => Self::invalid(message),
            SqlError::Unavailable(_) | SqlError::Storage(_) => Self::unavailable(message),
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        let message = error.to_string();
        match error {
            KeyError::NameTaken(_) => {
                Self::conflict(message).hint("choose another name, or revoke that key first")
            }
            KeyError::NoSuchKey(_) => {
                Self::not_found(message).hint("`tollgate key list` shows the keys there are")
            }
            KeyError::Invalid(_) => Self::invalid(message),
            KeyError::Busy(_) => Self::conflict(message).hint("try again"),
            KeyError::Random(_) => Self::unavailable(message),
            KeyError::Store(error) => error.into(),
        }
    }
}

impl From<RosterError> for ApiError {
    fn from(error: RosterError) -> Self {
        let message = error.to_string();
        match error {
            RosterError::NameTaken(_) | RosterError::Twice(_) => Self::conflict(message),
            RosterError::NoSuchAccount(_) => {
                Self::not_found(message).hint("`tollgate account list` shows the accounts there are")
            }
            RosterError::Configured(_) => {
                Self::conflict(message).hint("change it in the configuration's file, then `tollgate reload`")
            }
            RosterError::TooMany => Self::conflict(message).hint("delete accounts that are not used"),
            RosterError::Invalid(_) => Self::invalid(message),
            RosterError::DamagedTable => Self::internal(message),
            RosterError::System(_) => Self::unavailable(message),
            RosterError::Secrets(error) => error.into(),
            RosterError::Store(error) => error.into(),
        }
    }
}

impl From<SecretsError> for ApiError {
    fn from(error: SecretsError) -> Self {
        let message = error.to_string();
        match error {
            SecretsError::TooLong | SecretsError::NewMaster(_) => Self::invalid(message),
            SecretsError::Master(_) | SecretsError::Random(_) => Self::unavailable(message),
            SecretsError::WrongKey { .. } | SecretsError::Damaged => Self::internal(message),
            SecretsError::Store(error) => error.into(),
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let message = error.to_string();
        match error {
            TokenError::NameTaken(_) => {
                Self::conflict(message).hint("choose another name, or revoke that token first")
            }
            TokenError::NoSuchToken(_) => {
                Self::not_found(message).hint("`tollgate token list` shows the tokens there are")
            }
            TokenError::Invalid(_) => Self::invalid(message),
            TokenError::Random(_) => Self::unavailable(message),
            TokenError::Store(error) => error.into(),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::TooLarge { .. } => Self::too_large(message),
            Refusal::Name(_)
            | Refusal::Manifest(_)
            | Refusal::Component(_)
            | Refusal::Grants(_)
            | Refusal::Untrusted(_)
            | Refusal::Canary(_)
            | Refusal::Ingesting { .. }
            | Refusal::Route { .. }
            | Refusal::Start(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", message),
            Refusal::NoSuchPlugin(_) | Refusal::NoSuchVersion(_) => Self::not_found(message)
                .hint("`tollgate plugin list --json` shows plugins and their versions"),
            Refusal::Unavailable(_) => Self::unavailable(message),
        }
    }
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        let message = error.to_string();
        match error {
            JobError::NoSuchJob { .. } => Self::not_found(message),
            JobError::Running => Self::conflict(message),
            JobError::Failed(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "job_failed", message),
        }
    }
}
