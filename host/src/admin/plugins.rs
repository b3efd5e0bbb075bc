//! `/plugins`.

use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::{Body, Json, Parameters, Segments};
use crate::plugin::registry::Settings;
use crate::plugin::{JobReport, Lines, PluginInfo, Push, Pushed, Share, Trial};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PushParameters {
    manifest: Option<String>,
    /// Whether the manifest may grant more than the present one.
    #[serde(default)]
    grant: bool,
    /// A share of the requests, such as `5%`, that the new version answers before it serves.
    canary: Option<String>,
    /// Milliseconds after which the canary serves by itself; none: it waits to be promoted.
    promote_after_ms: Option<u64>,
}

impl PushParameters {
    fn trial(&self) -> Result<Option<Trial>, ApiError> {
        let promote_after = self.promote_after_ms.map(Duration::from_millis);
        match &self.canary {
            Some(share) => {
                let share =
                    Share::parse(share).map_err(|wrong| ApiError::invalid(format!("`canary`: {wrong}")))?;
                Ok(Some(Trial { share, promote_after }))
            }
            None if promote_after.is_some() => Err(ApiError::invalid("`promote_after_ms` is for a `canary`")),
            None => Ok(None),
        }
    }
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    to: Option<String>,
}

/// The plugins that serve.
#[derive(Serialize, ToSchema)]
#[schema(as = PluginList)]
pub(super) struct List {
    plugins: Vec<PluginInfo>,
}

/// The plugins that serve, with their versions.
#[utoipa::path(get, path = "/plugins", responses((status = 200, body = List)))]
pub(super) async fn list(State(admin): State<Shared>) -> Result<Answer<List>, ApiError> {
    Ok(Answer(List { plugins: admin.registry.list().await? }))
}

/// One of them, with its grants.
#[utoipa::path(get, path = "/plugins/{name}", responses((status = 200, body = PluginInfo)))]
pub(super) async fn get(
    State(admin): State<Shared>,
    Segments(name): Segments<String>,
) -> Result<Answer<PluginInfo>, ApiError> {
    Ok(Answer(admin.registry.plugin(&name).await?))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogParameters {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

/// Its last lines, after number `after`. Where there are none the answer waits for one, at most `wait_ms` and two seconds.
#[utoipa::path(get, path = "/plugins/{name}/logs", params(LogParameters), responses((status = 200, body = Lines)))]
pub(super) async fn logs(
    State(admin): State<Shared>,
    Segments(name): Segments<String>,
    Parameters(LogParameters { after, wait_ms }): Parameters<LogParameters>,
) -> Result<Answer<Lines>, ApiError> {
    Ok(Answer(admin.registry.logs(&name, after, Duration::from_millis(wait_ms)).await?))
}

/// The body is the component, as it is; the text of its `plugin.toml` may come along as the parameter `manifest`.
/// Answers when the new version serves, or with `canary` when it answers its share of the requests.
#[utoipa::path(put, path = "/plugins/{name}", params(PushParameters), request_body(content = Vec<u8>, content_type = "application/wasm"), responses((status = 200, body = Pushed)))]
pub(super) async fn push(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Parameters(parameters): Parameters<PushParameters>,
    Body(wasm): Body,
) -> Result<Answer<Pushed>, ApiError> {
    let trial = parameters.trial()?;
    let PushParameters { manifest, grant, .. } = parameters;
    let push = Push { wasm: wasm.into(), manifest, may_grant: grant, trial };
    // In a task of its own: a client that hangs up must not leave a push half done.
    let registry = admin.registry.clone();
    let work = {
        let name = name.clone();
        async move { registry.push_as(&name, push, via.name()).await }
    };
    let result = finish(tokio::spawn(work)).await;
    let action = if trial.is_some() { "plugin canary" } else { "plugin push" };
    Ok(Answer(audit(via, action, &name, result)?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSettings {
    /// Settings by name; null: it goes.
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    config: Settings,
}

/// Changes settings of `[config]` in the manifest, without a push; answers when the plugin serves with them.
#[utoipa::path(post, path = "/plugins/{name}/config", request_body = NewSettings, responses((status = 200, body = Pushed)))]
pub(super) async fn configure(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Json(NewSettings { config }): Json<NewSettings>,
) -> Result<Answer<Pushed>, ApiError> {
    let result = admin.registry.configure(&name, config, via.name()).await.map_err(ApiError::from);
    Ok(Answer(audit(via, "plugin config", &name, result)?))
}

/// Makes the canary the version that serves.
#[utoipa::path(post, path = "/plugins/{name}/promote", responses((status = 200, body = Pushed)))]
pub(super) async fn promote(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
) -> Result<Answer<Pushed>, ApiError> {
    let result = admin.registry.promote(&name).await.map_err(ApiError::from);
    Ok(Answer(audit(via, "plugin promote", &name, result)?))
}

/// Brings back the version whose digest starts with `to`, or the one before; a canary is taken back.
#[utoipa::path(post, path = "/plugins/{name}/rollback", request_body = Rollback, responses((status = 200, body = Pushed)))]
pub(super) async fn rollback(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Json(Rollback { to }): Json<Rollback>,
) -> Result<Answer<Pushed>, ApiError> {
    let registry = admin.registry.clone();
    let work = {
        let name = name.clone();
        async move { registry.rollback(&name, to.as_deref(), via.name()).await }
    };
    let result = finish(tokio::spawn(work)).await;
    Ok(Answer(audit(via, "plugin rollback", &name, result)?))
}

/// Runs a job now, outside its schedule. It goes on when the caller goes away.
#[utoipa::path(post, path = "/plugins/{name}/jobs/{job}", responses((status = 200, body = JobReport)))]
pub(super) async fn run_job(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments((name, job)): Segments<(String, String)>,
) -> Result<Answer<JobReport>, ApiError> {
    let result = admin.registry.run_job(&name, &job).await.map_err(ApiError::from);
    Ok(Answer(audit(via, "plugin job", &format!("{name} {job}"), result)?))
}

async fn finish(
    work: tokio::task::JoinHandle<Result<Pushed, crate::plugin::Refusal>>,
) -> Result<Pushed, ApiError> {
    match work.await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ApiError::internal(format!("the push did not come to its end: {error}"))),
    }
}
