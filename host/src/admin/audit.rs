//! Who asked, the log line of every change, and its row in the audit log.

use std::cell::RefCell;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::error::ApiError;
use super::extract::Parameters;
use super::limits::{PAGE_KEYS, PAGE_KEYS_DEFAULT};
use super::trail::{Change, Trail};

tokio::task_local! {
    /// The changes of the request that this task answers.
    static NOTED: RefCell<Vec<Noted>>;
}

/// A change that is not in the log yet.
struct Noted {
    action: &'static str,
    target: String,
    code: Option<&'static str>,
}

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
    let code = result.as_ref().err().map(ApiError::code);
    match code {
        None => tracing::info!(action, target, by = via.name(), ok = true, "admin change"),
        Some(code) => tracing::info!(action, by = via.name(), ok = false, code, "admin change"),
    }
    let noted = Noted { action, target: target.to_owned(), code };
    let _ = NOTED.try_with(|all| all.borrow_mut().push(noted));
    result
}

/// Tells what changes nothing, but came as a request that might, that nobody waits for it any more.
#[derive(Clone)]
pub(super) struct Gone(CancellationToken);

impl Gone {
    /// The result of work that is given up when the caller has gone.
    pub(super) async fn unless<T>(&self, work: impl Future<Output = T>) -> Result<T, ApiError> {
        let gone = || ApiError::unavailable("nobody waits for the answer any more");
        self.0.run_until_cancelled(work).await.ok_or_else(gone)
    }
}

/// Lets a change come to its end when its caller goes away in the middle, and writes it down before it is answered.
pub(super) async fn recorded(
    State(trail): State<Trail>,
    Extension(via): Extension<Via>,
    mut request: Request,
    next: Next,
) -> Response {
    let gone = CancellationToken::new();
    request.extensions_mut().insert(Gone(gone.clone()));
    let _here = gone.drop_guard();
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let work = NOTED.scope(RefCell::default(), async move {
        let response = next.run(request).await;
        for Noted { action, target, code } in NOTED.with(RefCell::take) {
            trail.record(via.name(), action, &target, code).await;
        }
        response
    });
    match tokio::spawn(work).await {
        Ok(response) => response,
        Err(error) => {
            ApiError::internal(format!("the change did not come to its end: {error}")).into_response()
        }
    }
}

/// Which of the log.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only changes before this number: the last one of the page before.
    before: Option<u64>,
    /// Only changes of this kind, such as `key create`.
    action: Option<String>,
    /// At most so many.
    limit: Option<u32>,
}

/// A part of the log, the latest change first.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangeList {
    changes: Vec<Change>,
}

/// The audit log: who changed what, when, and how it ended; the latest first.
#[utoipa::path(get, path = "/audit", params(Which), responses((status = 200, body = ChangeList)))]
pub(super) async fn list(
    State(admin): State<Shared>,
    Parameters(Which { before, action, limit }): Parameters<Which>,
) -> Result<Answer<ChangeList>, ApiError> {
    let limit = limit.unwrap_or(PAGE_KEYS_DEFAULT);
    if !(1..=PAGE_KEYS).contains(&limit) {
        return Err(ApiError::invalid(format!("`limit` must be from 1 to {PAGE_KEYS}")));
    }
    Ok(Answer(ChangeList { changes: admin.trail.list(before, action.as_deref(), limit).await? }))
}
