//! `/v1/models`: what a client may use. Answered here, so that it costs no account anything and needs no admission.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, rejection::PathRejection},
    response::Response,
};
use futures_util::future::join_all;
use http::Request;
use http_body::Body as _;
use moka::sync::Cache;
use serde::Deserialize;

use super::{
    accounts::Account,
    dialect::Dialect,
    error::{Class, Problem},
    flight::{End, bounded},
    limits::{MODELS_BYTES, MODELS_FAILED_TTL, MODELS_TIMEOUT, MODELS_TTL},
    proxy::{Admitted, Inner, identify, refuse, with_id},
};
use crate::plugin::admission::Ending;

const PATH: &str = "/v1/models";

/// Accounts whose lists are kept; more than anyone configures.
const LISTINGS: u64 = 4_096;

/// What upstreams said they serve, for accounts that are not restricted to some models.
pub(super) struct Listings {
    known: Cache<Arc<str>, Arc<[String]>>,
    /// Accounts whose upstream did not say.
    pub(super) failed: Cache<Arc<str>, ()>,
}

impl Listings {
    pub(super) fn new() -> Listings {
        Listings {
            known: Cache::builder().max_capacity(LISTINGS).time_to_live(MODELS_TTL).build(),
            failed: Cache::builder().max_capacity(LISTINGS).time_to_live(MODELS_FAILED_TTL).build(),
        }
    }
}

pub(super) async fn list(inner: Arc<Inner>, request: Request<Body>) -> Response {
    answer(inner, request, |dialect, models| Ok(dialect.models(models))).await
}

pub(super) async fn show(
    inner: Arc<Inner>,
    path: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    answer(inner, request, |dialect, models| match path {
        Ok(Path(id)) if models.contains(&id) => Ok(dialect.model(&id)),
        Ok(Path(id)) => Err(Problem::of(Class::Model, "model", unknown(&id))),
        Err(_) => Err(Problem::of(Class::Invalid, "model", "the model's name is not UTF-8")),
    })
    .await
}

/// The same for a model that does not exist and one that the client may not use.
pub(super) fn unknown(model: &str) -> String {
    format!("the model `{}` does not exist or you do not have access to it", bounded(model, 100))
}

async fn answer(
    inner: Arc<Inner>,
    request: Request<Body>,
    choose: impl FnOnce(Dialect, &[String]) -> Result<Response, Problem>,
) -> Response {
    let dialect = Dialect::OpenAi;
    let (parts, _) = request.into_parts();
    let client = match identify(&inner, dialect, PATH, &parts).await {
        Ok(client) => client,
        Err(problem) => return dialect.refuse(&problem),
    };
    let response = match choose(dialect, &usable(&inner, &client).await) {
        Ok(response) => {
            let size = response.body().size_hint().exact().unwrap_or(0);
            client.flight.end(End { response_size: size, ..End::new(Ending::Completed, 200) });
            response
        }
        Err(problem) => refuse(dialect, &client.flight, problem.into()),
    };
    with_id(response, &client.id)
}

async fn usable(inner: &Inner, client: &Admitted) -> Vec<String> {
    let listed = join_all(inner.accounts.iter().map(|account| served(inner, account))).await;
    let mut models: Vec<String> = listed.iter().flat_map(|models| models.iter().cloned()).collect();
    models.retain(|model| client.key.may_use(model));
    models.sort();
    models.dedup();
    models
}

async fn served(inner: &Inner, account: &Arc<Account>) -> Arc<[String]> {
    if !account.models().is_empty() {
        return account.models().into();
    }
    if let Some(listed) = inner.listings.known.get(&account.name) {
        return listed;
    }
    if inner.listings.failed.contains_key(&account.name) {
        return Arc::default();
    }
    let asked = tokio::time::timeout(MODELS_TIMEOUT, inner.upstreams.get(account, PATH, MODELS_BYTES));
    let asked = asked.await.ok().flatten();
    let Some(listed) = asked.and_then(|body| serde_json::from_slice::<Listed>(&body).ok()) else {
        inner.listings.failed.insert(account.name.clone(), ());
        return Arc::default();
    };
    let listed: Arc<[String]> = listed.data.into_iter().map(|model| model.id).collect();
    inner.listings.known.insert(account.name.clone(), listed.clone());
    listed
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<ListedModel>,
}

#[derive(Deserialize)]
struct ListedModel {
    id: String,
}
