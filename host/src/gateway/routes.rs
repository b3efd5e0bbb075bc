//! What stands where: the dialects say it.

use std::sync::Arc;

use axum::{Router, body::Body, response::Response};
use http::{HeaderName, HeaderValue, Method, Request, header::ALLOW};

use super::{
    dialect::{Dialect, Target},
    error::{Class, Problem},
    flight::bounded,
    models, mounted,
    proxy::{Inner, forwarded},
};
use crate::request_ids;

/// Everything that the dialects serve, with answers in their own shapes to what they do not.
pub(super) fn router(inner: Arc<Inner>) -> Router {
    Router::new().fallback(move |request: Request<Body>| async move { answer(&inner, request).await })
}

async fn answer(inner: &Inner, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let id = inner.ids.next();
    if let Some(mount) = inner.mounts.of(head.uri.path()) {
        return identified(mounted::answer(inner, &mount, head, body, &id).await, &id, None);
    }
    let (dialect, target) = Dialect::of(&head);
    let response = match (target, &head.method) {
        (Some(Target::Forward(endpoint, model)), &Method::POST) => {
            forwarded(inner, endpoint, model, &head, body, &id).await
        }
        (Some(Target::Models), &Method::GET | &Method::HEAD) => {
            models::answer(inner, dialect, &head, None, &id).await
        }
        (Some(Target::Model(model)), &Method::GET | &Method::HEAD) => {
            models::answer(inner, dialect, &head, Some(model), &id).await
        }
        (Some(Target::Nothing) | None, _) => {
            let message = format!("there is nothing at {}", bounded(head.uri.path(), 200));
            dialect.api().refuse(&Problem::new(Class::Path, message), &id)
        }
        (Some(target), method) => {
            let message = format!("{} is not allowed here", bounded(method.as_str(), 20));
            let mut response = dialect.api().refuse(&Problem::new(Class::Method, message), &id);
            let allowed = if matches!(target, Target::Forward(..)) { "POST" } else { "GET, HEAD" };
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            response
        }
    };
    identified(response, &id, dialect.api().id_header())
}

/// Has an answer tell the request's id, also in a header of the dialect's own.
fn identified(mut response: Response, id: &str, also_in: Option<HeaderName>) -> Response {
    if let Ok(id) = HeaderValue::from_str(id) {
        if let Some(name) = also_in {
            response.headers_mut().insert(name, id.clone());
        }
        response.headers_mut().insert(request_ids::HEADER, id);
    }
    response
}
