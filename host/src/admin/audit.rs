//! Who asked, and the log line of every change.

use super::error::ApiError;

/// The door a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Http,
    Socket,
}

impl Via {
    /// As logs and the versions table have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "admin token",
            Self::Socket => "admin socket",
        }
    }
}

/// Logs a change that was asked for, and hands its result on. `target` is a name, never a key or a statement. It is left
/// out of a refusal, which may be because somebody gave a key in place of its name.
pub(super) fn audit<T>(
    via: Via,
    action: &'static str,
    target: &str,
    result: Result<T, ApiError>,
) -> Result<T, ApiError> {
    match &result {
        Ok(_) => tracing::info!(action, target, by = via.name(), ok = true, "admin change"),
        Err(error) => {
            tracing::info!(action, by = via.name(), ok = false, code = error.code(), "admin change");
        }
    }
    result
}
