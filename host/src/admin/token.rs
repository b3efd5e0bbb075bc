//! The bearer token of the API.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, Mac};
use http::StatusCode;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use parking_lot::Mutex;
use sha2::Sha256;

use super::error::ApiError;
use super::limits::REFUSALS_EVERY;
use super::trail::Trail;
use crate::gateway::Peer;

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

/// What keeps strangers out.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) token: AdminToken,
    pub(super) trail: Trail,
    pub(super) refusals: Arc<Refusals>,
}

/// Wrong tokens, of which the audit log has a row now and then: whoever tries millions must not fill it.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Tried>);

#[derive(Default)]
struct Tried {
    /// Since the last row, and with the one that is tried now.
    tokens: u64,
    written: Option<Instant>,
}

impl Refusals {
    /// Counts a wrong token; how many there were since the last row, if it is time for another.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut tried = self.0.lock();
        tried.tokens = tried.tokens.saturating_add(1);
        let is_time =
            tried.written.is_none_or(|written| now.saturating_duration_since(written) >= REFUSALS_EVERY);
        is_time.then(|| {
            tried.written = Some(now);
            std::mem::take(&mut tried.tokens)
        })
    }
}

impl Guard {
    /// Takes note of a wrong token.
    fn refused(&self, request: &Request) {
        metrics::counter!("tollgate_admin_refused_total").increment(1);
        let Some(count) = self.refusals.count(Instant::now()) else { return };
        let peer = request.extensions().get::<Peer>();
        let from = peer.map_or("unknown".to_owned(), |Peer(peer)| peer.ip().to_canonical().to_string());
        let target = if count > 1 { format!("{from}, the last of {count}") } else { from };
        tracing::warn!(from = target, "a wrong admin token");
        let trail = self.trail.clone();
        // The answer does not wait for the disk.
        tokio::spawn(async move { trail.refused("admin token", &target, "unauthorized").await });
    }
}

/// Lets a request pass only with the token.
pub(super) async fn require(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    match given {
        Some(given) if guard.token.verify(given) => next.run(request).await,
        given => {
            if given.is_some() {
                guard.refused(&request);
            }
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
    fn wrong_tokens_are_told_now_and_then_and_counted_in_between() {
        let (refusals, begin) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.count(begin), Some(1));
        for _ in 0..9 {
            assert_eq!(refusals.count(begin + REFUSALS_EVERY / 2), None);
        }
        assert_eq!(refusals.count(begin + REFUSALS_EVERY), Some(10));
        assert_eq!(refusals.count(begin + REFUSALS_EVERY), None);
    }

    #[test]
    fn generated_tokens_differ() {
        assert_ne!(AdminToken::generate().unwrap(), AdminToken::generate().unwrap());
    }
}
