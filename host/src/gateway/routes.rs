//! What stands where: the dialects say it.

use std::sync::Arc;

use axum::{Router, body::Body, response::Response};
use http::{HeaderName, HeaderValue, Method, Request, header::ALLOW};

use super::{
    dialect::{Dialect, Target},
    error::{Class, Problem},
    flight::bounded,
    models,
    proxy::{Inner, forwarded},
};

/// Everything that the dialects serve, with answers in their own shapes to what they do not.
pub(super) fn router(inner: Arc<Inner>) -> Router {
    Router::new().fallback(move |request: Request<Body>| async move { answer(&inner, request).await })
}

async fn answer(inner: &Inner, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let (dialect, target) = Dialect::of(&head);
    let id = inner.ids.next();
    let mut response = match (target, &head.method) {
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
    if let Ok(id) = HeaderValue::from_str(&id) {
        if let Some(name) = dialect.api().id_header() {
            response.headers_mut().insert(name, id.clone());
        }
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
    }
    response
}
