//! Who asks: the data token of a request.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};

use crate::api::error::ApiError;
use crate::tokens::{Denied, TokenError, TokenInfo, Tokens};

/// What the request's token may do, in the request's extensions.
pub(super) type Token = Arc<TokenInfo>;

/// Lets a request pass only with a valid token.
pub(super) async fn require(State(tokens): State<Tokens>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let Some(given) = given else { return unknown("the data token is missing") };
    match tokens.lookup(given).await {
        Ok(Some(token)) => {
            request.extensions_mut().insert::<Token>(token);
            super::body::with_retry(next.run(request).await)
        }
        Ok(None) => unknown("this is no valid data token"),
        Err(TokenError::Store(error)) => ApiError::from(error).into_response(),
        Err(error) => ApiError::internal(error.to_string()).into_response(),
    }
}

fn unknown(message: &str) -> Response {
    let error = ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        .hint("send `authorization: Bearer TOKEN`; `tollgate token create` makes one");
    ([(WWW_AUTHENTICATE, "Bearer")], error).into_response()
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        ApiError::new(StatusCode::FORBIDDEN, "scope_missing", denied.to_string())
    }
}
