//! What models a client may use. Answered here, so that it costs no account anything and needs no admission.

use std::sync::Arc;

use axum::response::Response;
use futures_util::future::join_all;
use http::request;
use http_body::Body as _;
use moka::sync::Cache;

use super::{
    account::Account,
    dialect::Dialect,
    error::{Class, Problem},
    flight::{End, bounded},
    forward,
    limits::{MODELS_BYTES, MODELS_FAILED_TTL, MODELS_TIMEOUT, MODELS_TTL},
    permission,
    proxy::{Admitted, Inner, identify, refuse},
    request::model_in_path,
};
use crate::plugin::admission::Ending;

/// Accounts whose lists are kept; more than there may be.
const LISTINGS: u64 = 4_096;

/// What upstreams said they serve, for accounts that are not restricted to some models, by the accounts' numbers.
pub(super) struct Listings {
    known: Cache<u64, Arc<[String]>>,
    /// Accounts whose upstream did not say.
    pub(super) failed: Cache<u64, ()>,
}

impl Listings {
    pub(super) fn new() -> Listings {
        Listings {
            known: Cache::builder().max_capacity(LISTINGS).time_to_live(MODELS_TTL).build(),
            failed: Cache::builder().max_capacity(LISTINGS).time_to_live(MODELS_FAILED_TTL).build(),
        }
    }
}

/// The same for a model that does not exist and one that the client may not use.
pub(super) fn unknown(model: &str) -> String {
    format!("the model `{}` does not exist or you do not have access to it", bounded(model, 100))
}

/// Answers with the list, or with the one model whose name, as in the path, is given.
pub(super) async fn answer(
    inner: &Inner,
    dialect: Dialect,
    head: &request::Parts,
    one: Option<&str>,
    id: &str,
) -> Response {
    let path = dialect.api().listing().path;
    let client = match identify(inner, dialect, path, head, id).await {
        Ok(client) => client,
        Err(problem) => return dialect.api().refuse(&problem, id),
    };
    if let Err(problem) = permission::check(&client.key, dialect, &head.headers) {
        return refuse(dialect, &client, problem.into());
    }
    let models = usable(inner, dialect, &client).await;
    let answered = match one {
        None => Ok(dialect.api().models(&models, head.uri.query().unwrap_or_default())),
        Some(encoded) => described(dialect, &models, encoded),
    };
    match answered {
        Ok(response) => {
            let size = response.body().size_hint().exact().unwrap_or(0);
            client.flight.end(End { response_size: size, ..End::new(Ending::Completed, 200) });
            response
        }
        Err(problem) => refuse(dialect, &client, problem.into()),
    }
}

fn described(dialect: Dialect, models: &[String], encoded: &str) -> Result<Response, Problem> {
    let model = model_in_path(encoded)?;
    match models.iter().any(|known| *known == model) {
        true => Ok(dialect.api().model(&model)),
        false => Err(Problem::of(Class::Model, "model", unknown(&model))),
    }
}

async fn usable(inner: &Inner, dialect: Dialect, client: &Admitted) -> Vec<String> {
    let accounts = inner.accounts.list();
    let speaking =
        accounts.iter().filter(|account| account.dialect == dialect && !account.is_expired(client.now_ms));
    let speaking: Vec<&Arc<Account>> = speaking.collect();
    let listed = join_all(speaking.iter().map(|account| served(inner, account))).await;
    let aliases = speaking.iter().flat_map(|account| account.aliases());
    let mut models: Vec<String> =
        listed.iter().flat_map(|models| models.iter()).chain(aliases).cloned().collect();
    models.retain(|model| client.key.may_use(model));
    models.sort();
    models.dedup();
    models
}

async fn served(inner: &Inner, account: &Arc<Account>) -> Arc<[String]> {
    if !account.models().is_empty() {
        return account.models().into();
    }
    let key = account.number;
    let known = || match inner.listings.known.get(&key) {
        None if inner.listings.failed.contains_key(&key) => Some(Arc::default()),
        known => known,
    };
    if let Some(listed) = known() {
        return listed;
    }
    // One at a time: nobody's limits hold the number of requests that ask for lists.
    let _turn = account.listing.lock().await;
    if let Some(listed) = known() {
        return listed;
    }
    let api = account.dialect.api();
    let listing = api.listing();
    let asked = forward::get(account, listing.path, listing.query, MODELS_BYTES);
    let asked = tokio::time::timeout(MODELS_TIMEOUT, asked).await.ok().flatten();
    let Some(listed) = asked.and_then(|body| api.listed(&body)) else {
        inner.listings.failed.insert(key, ());
        return Arc::default();
    };
    let listed: Arc<[String]> = listed.into();
    inner.listings.known.insert(key, listed.clone());
    listed
}
