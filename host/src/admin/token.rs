//! The bearer token of the API.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Wrong tokens, of which the audit log has a row now and then: whoever tries millions must not fill it. The first one has its
/// own; those that follow have one together when the time since then is over, whether anybody tries again or not.
pub(super) struct Refusals {
    every: Duration,
    tried: Mutex<Tried>,
}

#[derive(Default)]
struct Tried {
    /// Since the last row.
    tokens: u64,
    /// Where the last of them came from, if that is known.
    from: Option<IpAddr>,
    written: Option<Instant>,
}

/// What is to be done about a wrong token.
#[derive(Debug, PartialEq, Eq)]
enum Note {
    /// It gets a row of its own.
    Now,
    /// It is the first of those that get a row together, from then on.
    At(Instant),
    /// It is one of them.
    Counted,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals { every: REFUSALS_EVERY, tried: Mutex::default() }
    }
}

impl Refusals {
    /// Counts a wrong token.
    fn count(&self, from: Option<IpAddr>, now: Instant) -> Note {
        let mut tried = self.tried.lock();
        let next = tried.written.map(|written| written + self.every);
        match next.filter(|next| now < *next || tried.tokens > 0) {
            Some(next) => {
                tried.tokens = tried.tokens.saturating_add(1);
                tried.from = from;
                if tried.tokens == 1 { Note::At(next) } else { Note::Counted }
            }
            None => {
                tried.written = Some(now);
                Note::Now
            }
        }
    }

    /// Those that have no row yet, which they get now: how many they are, and where the last one came from.
    fn take(&self, now: Instant) -> (u64, Option<IpAddr>) {
        let mut tried = self.tried.lock();
        tried.written = Some(now);
        (std::mem::take(&mut tried.tokens), tried.from.take())
    }
}

impl Guard {
    /// Takes note of a wrong token. The answer does not wait for the disk.
    fn refused(&self, request: &Request) {
        metrics::counter!("tollgate_admin_refused_total").increment(1);
        let peer = request.extensions().get::<Peer>();
        let from = peer.map(|Peer(peer)| peer.ip().to_canonical());
        let time = match self.refusals.count(from, Instant::now()) {
            Note::Now => None,
            Note::At(time) => Some(time),
            Note::Counted => return,
        };
        let guard = self.clone();
        tokio::spawn(async move {
            let (count, from) = match time {
                None => (1, from),
                Some(time) => {
                    tokio::time::sleep_until(time.into()).await;
                    guard.refusals.take(Instant::now())
                }
            };
            guard.write(count, from).await;
        });
    }

    async fn write(&self, count: u64, from: Option<IpAddr>) {
        let from = from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
        let target = if count > 1 { format!("{from}, the last of {count}") } else { from };
        tracing::warn!(from = target, "a wrong admin token");
        self.trail.refused("admin token", &target, "unauthorized").await;
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
    use tollgate_store::{Options, Store};

    use super::*;
    use crate::admin::Change;

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
    fn of_wrong_tokens_the_first_stands_alone_and_the_rest_together_once_its_time_is_over() {
        let (refusals, begin) = (Refusals::default(), Instant::now());
        let [first, last] = [1, 2].map(|number| Some(IpAddr::from([10, 0, 0, number])));
        let (middle, end) = (begin + REFUSALS_EVERY / 2, begin + REFUSALS_EVERY);
        assert_eq!(refusals.count(first, begin), Note::Now);
        assert_eq!(refusals.count(first, middle), Note::At(end));
        assert_eq!(refusals.count(first, middle), Note::Counted);
        // The row is about to be written.
        assert_eq!(refusals.count(last, end), Note::Counted);
        assert_eq!(refusals.take(end), (3, last));
        assert_eq!(refusals.count(last, end), Note::At(end + REFUSALS_EVERY), "a row a minute at most");
        assert_eq!(refusals.take(end + REFUSALS_EVERY), (1, last));
        assert_eq!(refusals.count(first, end + 2 * REFUSALS_EVERY), Note::Now);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_wrong_token_is_counted_in_the_audit_log_though_nobody_tries_again() {
        const TRIED: u64 = 20;
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), Options::default()).unwrap();
        let clock = Options::default().clock;
        let trail =
            Trail::open(store.database("gateway").unwrap(), clock, Duration::from_secs(60)).await.unwrap();
        let token = AdminToken::new(&[1; 32], AdminToken::hash(&[1; 32], "token"));
        let refusals = Refusals { every: Duration::from_millis(50), tried: Mutex::default() };
        let guard = Guard { token, trail: trail.clone(), refusals: Arc::new(refusals) };
        for _ in 0..TRIED {
            guard.refused(&Request::default());
        }
        let counted = |change: &Change| match change.target.rsplit_once("unknown, the last of ") {
            Some((_, count)) => count.parse().unwrap(),
            None => u64::from(change.target == "unknown"),
        };
        let all = async {
            while trail.list(None, None, 100).await.unwrap().iter().map(counted).sum::<u64>() < TRIED {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("all are written down");
        let rows = trail.list(None, None, 100).await.unwrap();
        assert_eq!(rows.iter().map(counted).sum::<u64>(), TRIED);
        assert!(rows.iter().any(|row| row.target != "unknown"), "{rows:?}");
    }

    #[test]
    fn generated_tokens_differ() {
        assert_ne!(AdminToken::generate().unwrap(), AdminToken::generate().unwrap());
    }
}
