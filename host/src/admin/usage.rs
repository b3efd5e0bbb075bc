//! `/usage`.

use axum::Json as Answer;
use axum::extract::State;
use chrono::{DateTime, NaiveDate};
use serde::Deserialize;
use tollgate_store::Database;
use utoipa::IntoParams;

use super::error::ApiError;
use super::extract::Parameters;
use super::{Admin, Shared};
use crate::accounting::{
    Grouping, Limited, RecentUsage, ReportError, UsageReport, Whose, Window, recent, report,
};
use crate::keys::now_ms;

/// What of the usage.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// `day` (if left out), `key`, `account` or `model`: what there is a row for each of.
    by: Option<String>,
    /// The first day, of UTC, such as `2026-01-31`; left out: of thirty.
    since: Option<String>,
    /// The last day; left out: today.
    until: Option<String>,
}

/// What clients have used, by day, key, account or model: requests, tokens and what they cost.
#[utoipa::path(get, path = "/usage", params(Which), responses((status = 200, body = UsageReport)))]
pub(super) async fn usage(
    State(admin): State<Shared>,
    Parameters(Which { by, since, until }): Parameters<Which>,
) -> Result<Answer<UsageReport>, ApiError> {
    let by = Grouping::named(by.as_deref().unwrap_or("day"));
    let by = by.ok_or_else(|| ApiError::invalid("`by` must be `day`, `key`, `account` or `model`"))?;
    let window = Window::of(day("since", since)?, day("until", until)?, today());
    let mut report = report(gateway(&admin)?, by, window).await.map_err(|error| match error {
        ReportError::NotCounted => ApiError::conflict(error.to_string()),
        ReportError::Store(error) => {
            ApiError::from(error).hint("fewer days, by `since` and `until`, are read sooner")
        }
    })?;
    if by == Grouping::Account {
        let accounts = admin.accounts.list().await?;
        for row in &mut report.usage {
            let account = accounts.iter().find(|account| account.key_hashes().any(|hash| *hash == row.group));
            row.name = account.map(|account| account.name.clone());
        }
    }
    Ok(Answer(report))
}

/// What was used of late.
pub(super) async fn recent_usage(
    admin: &Admin,
    whose: Whose<'_>,
    limited: Limited<'_>,
) -> Result<Answer<RecentUsage>, ApiError> {
    let recent = recent(gateway(admin)?, whose, limited, now_ms()).await?;
    recent.map(Answer).ok_or_else(|| ApiError::conflict(ReportError::NotCounted.to_string()))
}

fn gateway(admin: &Admin) -> Result<&Database, ApiError> {
    admin.sql.get("gateway").ok_or_else(|| ApiError::unavailable("there is no database `gateway`"))
}

fn today() -> NaiveDate {
    let time = i64::try_from(now_ms()).ok().and_then(DateTime::from_timestamp_millis);
    time.unwrap_or_default().date_naive()
}

fn day(field: &str, text: Option<String>) -> Result<Option<NaiveDate>, ApiError> {
    let wrong = |_| ApiError::invalid(format!("`{field}` must be a day such as `2026-01-31`"));
    text.map(|text| text.parse().map_err(wrong)).transpose()
}
