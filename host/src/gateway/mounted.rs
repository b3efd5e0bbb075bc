//! Requests under the routes of plugins.
//!
//! They are no requests for an upstream: no policy is asked about them, and the request log does not have them.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http::{
    HeaderName, HeaderValue, Request,
    header::{CONTENT_LENGTH, HOST},
    request,
};
use http_body::Body as _;

use super::{
    dialect::{Dialect, key_in_headers},
    error::{Class, Problem},
    proxy::Inner,
};
use crate::{
    keys::ClientKey,
    plugin::{
        Mount, Unanswered,
        limits::{HTTP_BODY_BYTES, HTTP_RETRY_AFTER},
    },
};

/// Who asks, for the plugin: the name of the client's key.
const CLIENT: HeaderName = HeaderName::from_static("tollgate-client");

/// Has a plugin answer, or tells why it did not.
pub(super) async fn answer(
    inner: &Inner,
    mount: &Mount,
    head: request::Parts,
    body: Body,
    id: &str,
) -> Response {
    let answered = match prepared(inner, mount, head, body, id).await {
        Ok(request) => mount.answer(request).await.map_err(|why| problem(mount, &why, id)),
        Err(problem) => Err(problem),
    };
    match answered {
        Ok(response) => response.map(Body::new),
        Err(problem) => Dialect::COMMON.api().refuse(&problem, id),
    }
}

/// The request as the plugin is to see it: without the key of a client, but with its name.
async fn prepared(
    inner: &Inner,
    mount: &Mount,
    mut head: request::Parts,
    body: Body,
    id: &str,
) -> Result<Request<Body>, Problem> {
    head.headers.remove(CLIENT);
    if !mount.is_public() {
        let key = client(inner, &head, id).await?;
        let secret: Vec<HeaderName> = head
            .headers
            .keys()
            .filter(|name| Dialect::ALL.iter().any(|dialect| dialect.api().is_credential(name)))
            .cloned()
            .collect();
        secret.iter().for_each(|name| drop(head.headers.remove(name)));
        if let Ok(name) = HeaderValue::from_str(&key.name) {
            head.headers.insert(CLIENT, name);
        }
    }
    if body.size_hint().lower() > HTTP_BODY_BYTES as u64 {
        return Err(problem(mount, &Unanswered::TooLarge, id));
    }
    if head.uri.authority().is_none() {
        match head.headers.get(HOST) {
            Some(host) if host.to_str().is_ok() => {}
            Some(_) => return Err(Problem::new(Class::Invalid, "the header host is no text")),
            // HTTP/1.0 has none, and the plugin must have one.
            None => drop(head.headers.insert(HOST, HeaderValue::from_static("localhost"))),
        }
    }
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Problem::new(Class::Invalid, "there are several headers content-length"));
    }
    Ok(Request::from_parts(head, body))
}

async fn client(inner: &Inner, head: &request::Parts, id: &str) -> Result<Arc<ClientKey>, Problem> {
    let refused = |message: &'static str| {
        inner.flights.metrics.unauthenticated.increment(1);
        Problem::new(Class::Key, message)
    };
    let Some(key) = key_in_headers(head) else {
        return Err(refused("no api key was sent: put it into an authorization: Bearer header"));
    };
    match inner.keys.lookup(key).await {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(refused("the api key is not valid")),
        Err(error) => {
            tracing::error!(request_id = id, %error, "key lookup failed");
            let message = "keys cannot be checked at the moment";
            Err(Problem::new(Class::Unavailable, message).after(Some(HTTP_RETRY_AFTER)))
        }
    }
}

/// What the client is told: which plugin it was, and what became of it. What went on inside stands in the plugin's log.
fn problem(mount: &Mount, why: &Unanswered, id: &str) -> Problem {
    let plugin = mount.plugin();
    tracing::debug!(request_id = id, plugin, %why, "a plugin brought no answer");
    let (class, told) = match why {
        Unanswered::Busy => (Class::Unavailable, "has as many requests as it may have".to_owned()),
        Unanswered::Late => (Class::UpstreamTimeout, "did not answer in time".to_owned()),
        Unanswered::TooLarge => {
            return Problem::new(Class::TooLarge, format!("a body has at most {HTTP_BODY_BYTES} bytes here"));
        }
        Unanswered::Slow => return Problem::new(Class::Slow, "the request's body did not come in time"),
        Unanswered::Broken => {
            return Problem::new(Class::Invalid, "the request's body broke off or is malformed");
        }
        Unanswered::Failed(error) if error.is_overrun() => {
            (Class::UpstreamTimeout, "ran into its limit of time".to_owned())
        }
        Unanswered::Failed(_) => (Class::Upstream, "failed".to_owned()),
        Unanswered::Nothing => (Class::Upstream, "ended without an answer".to_owned()),
        Unanswered::Refused(code) => (Class::Upstream, format!("answered with an error: {code}")),
    };
    let problem = Problem::new(class, format!("the plugin {plugin:?} {told}"));
    if class == Class::Unavailable { problem.after(Some(HTTP_RETRY_AFTER)) } else { problem }
}
