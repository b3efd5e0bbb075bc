//! The id of each request, in its answer and in the log line about what went wrong with it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;

use crate::request_ids::{HEADER, RequestIds};

/// A fault of the server, in the extensions of an answer, for the one log line about it.
#[derive(Clone)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Gives a request its id.
pub(crate) async fn identified(ids: State<Arc<RequestIds>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let id = ids.next();
    if let Some(Fault { code, message }) = response.extensions_mut().remove() {
        tracing::warn!(request_id = id, code, message, "a request failed");
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, id);
    }
    response
}
