//! The bearer token of the API.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, Mac};
use http::StatusCode;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use sha2::Sha256;

use super::error::ApiError;

/// Separates hashes of tokens from everything else that is hashed under the server's secret.
const PURPOSE: &[u8] = b"tollgate admin token\0";

/// Bytes of a token made here: not to be guessed.
const TOKEN_BYTES: usize = 32;

/// Knows the token without holding it.
#[derive(Clone)]
pub struct AdminToken {
    mac: Hmac<Sha256>,
    hash: [u8; 32],
}

impl AdminToken {
    /// From the hash that [`AdminToken::hash`] gave, under the same secret.
    pub fn new(secret: &[u8; 32], hash: [u8; 32]) -> Self {
        Self { mac: keyed(secret), hash }
    }

    /// What is kept of a token.
    pub fn hash(secret: &[u8; 32], token: &str) -> [u8; 32] {
        let mut mac = keyed(secret);
        mac.update(token.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// A new token.
    pub fn generate() -> anyhow::Result<String> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
        Ok(format!("tga-{}", hex::encode(bytes)))
    }

    /// Whether it is this token. Takes the same time whatever was given.
    pub fn verify(&self, token: &str) -> bool {
        let mut mac = self.mac.clone();
        mac.update(token.as_bytes());
        mac.verify_slice(&self.hash).is_ok()
    }
}

fn keyed(secret: &[u8; 32]) -> Hmac<Sha256> {
    // HMAC takes keys of any length, so this fixed-length constructor is the one that cannot fail.
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(secret) {
        *to = *from;
    }
    let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into());
    mac.update(PURPOSE);
    mac
}

/// Lets a request pass only with the token.
pub(super) async fn require(State(token): State<AdminToken>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    match given {
        Some(given) if token.verify(given) => next.run(request).await,
        given => {
            let message =
                if given.is_some() { "this is not the admin token" } else { "the admin token is missing" };
            let error = ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
                .hint("send `authorization: Bearer TOKEN`; the first start printed it, and TOLLGATE_ADMIN_TOKEN sets it");
            ([(WWW_AUTHENTICATE, "Bearer")], error).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_under_the_same_secret_is_let_in() {
        let hash = AdminToken::hash(&[1; 32], "token");
        let token = AdminToken::new(&[1; 32], hash);
        assert!(token.verify("token"));
        for wrong in ["", "token ", "Token", "toke"] {
            assert!(!token.verify(wrong), "{wrong}");
        }
        assert!(!AdminToken::new(&[2; 32], hash).verify("token"));
    }

    #[test]
    fn generated_tokens_differ() {
        assert_ne!(AdminToken::generate().unwrap(), AdminToken::generate().unwrap());
    }
}
