//! Data tokens: made, listed, revoked, looked up by their hash. They open the data API, and nothing else.
//!
//! A token is shown once, when it is made; what it may do is kept under its HMAC, in a kv store of the host that no
//! configuration can name. Every use asks that store, which answers from memory, so that a revoked token is gone at once.

mod limits;
mod scope;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use tollgate_store::{Clock, Kv, KvError, KvOptions, Store};
use utoipa::ToSchema;

use crate::mint::Mint;
use limits::{NAME_BYTES, READY_TOKENS, RECORD_BYTES, TOKENS};

pub use scope::{Denied, IndexScope, KeyScope, Keyed, Known, Scopes, SqlScope};

/// What every token starts with, so that people and scanners recognise one.
const PREFIX: &str = "tgd-";

/// The kv store. A configured store has no `/` in its name.
const STORE: &str = "host/tokens";

/// A token to be made.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// A name, unique among the tokens there are: 1 to 64 bytes.
    pub name: String,
    /// The kv stores that it opens.
    #[serde(default)]
    pub kv: BTreeMap<String, KeyScope>,
    /// The blob containers that it opens.
    #[serde(default)]
    pub blob: BTreeMap<String, KeyScope>,
    /// The SQL databases that it opens.
    #[serde(default)]
    pub sql: BTreeMap<String, SqlScope>,
    /// The vector indexes that it opens.
    #[serde(default)]
    pub vector: BTreeMap<String, IndexScope>,
    /// Milliseconds since 1970, UTC, from which on it is refused; none: it stays.
    #[serde(default)]
    pub expires_ms: Option<u64>,
}

/// A token, without itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenInfo {
    /// Its name.
    pub name: String,
    /// What it opens.
    #[serde(flatten)]
    pub scopes: Scopes,
    /// Milliseconds since 1970, UTC.
    pub created_ms: u64,
    /// Milliseconds since 1970, UTC, from which on it is refused; none: it stays.
    pub expires_ms: Option<u64>,
}

/// Why tokens cannot be made, changed or looked up.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A token has the name.
    #[error("there is a token named {0} already")]
    NameTaken(String),
    /// No token has the name.
    #[error("there is no token named {0}")]
    NoSuchToken(String),
    /// What was asked for cannot be; the text names the field.
    #[error("{0}")]
    Invalid(String),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] KvError),
}

/// The tokens of this server. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    store: Store,
    kv: Kv,
    mint: Mint,
    clock: Clock,
    known: Known,
    /// Read before, each with the version of its entry: another version counts for nothing.
    ready: Cache<[u8; 32], (u64, Arc<TokenInfo>)>,
}

impl Tokens {
    /// Opens the tokens. They are only valid under the secret they were made with.
    pub fn open(store: &Store, secret: &[u8], clock: Clock, known: Known) -> Result<Tokens, TokenError> {
        let mint = Mint::new(secret, PREFIX)
            .ok_or_else(|| TokenError::Invalid("the server's secret is no key for HMAC".to_owned()))?;
        let kv = store.kv(STORE, KvOptions::default())?;
        let ready = Cache::new(READY_TOKENS);
        Ok(Tokens(Arc::new(Inner { store: store.clone(), kv, mint, clock, known, ready })))
    }

    /// Makes a token and returns it: the only time that anybody sees it. It is on disk when this returns.
    pub async fn create(&self, new: NewToken) -> Result<String, TokenError> {
        let NewToken { name, kv, blob, sql, vector, expires_ms } = new;
        let scopes = Scopes { kv, blob, sql, vector };
        if name.trim().is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            let text = format!("`name` must have 1 to {NAME_BYTES} bytes and no control characters");
            return Err(TokenError::Invalid(text));
        }
        scopes.check(&self.0.known)?;
        let now_ms = (self.0.clock)();
        if expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
            return Err(TokenError::Invalid("`expires_ms` is over already".to_owned()));
        }
        if self.names().await?.len() >= TOKENS as usize {
            return Err(TokenError::Invalid(format!("there are {TOKENS} tokens; revoke some first")));
        }
        let info = TokenInfo { name, scopes, created_ms: now_ms, expires_ms };
        let record = serde_json::to_vec(&info).map_err(|error| TokenError::Invalid(error.to_string()))?;
        if record.len() > RECORD_BYTES {
            return Err(TokenError::Invalid("the prefixes and tables are too long together".to_owned()));
        }
        let token = self.0.mint.make().map_err(TokenError::Random)?;
        self.keep(info, record, &hex::encode(self.0.mint.hash(&token))).await?;
        Ok(token)
    }

    /// All tokens, in the order of their names; an expired one is none any more.
    pub async fn list(&self) -> Result<Vec<TokenInfo>, TokenError> {
        let hashes = self.0.kv.get_many(&self.names().await?).await?;
        let hashes = hashes.into_iter().flatten();
        let keys: Vec<_> = hashes.map(|hash| of_hash(&String::from_utf8_lossy(&hash.value))).collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let records = self.0.kv.get_many(&keys).await?;
        let infos = records.iter().flatten().filter_map(|record| serde_json::from_slice(&record.value).ok());
        Ok(infos.filter(|info| self.is_valid(info)).collect())
    }

    /// Revokes the token of a name. When this returns, no lookup finds it any more, after a crash neither.
    pub async fn revoke(&self, name: &str) -> Result<(), TokenError> {
        loop {
            let mut change = self.0.store.transaction();
            let Some(hash) = change.get(&self.0.kv, &of_name(name)).await? else {
                return Err(TokenError::NoSuchToken(name.to_owned()));
            };
            change.delete(&self.0.kv, &of_name(name))?;
            change.delete(&self.0.kv, &of_hash(&String::from_utf8_lossy(&hash)))?;
            match change.commit().await {
                // Another change of the same name won; what it left is looked at again.
                Err(KvError::Conflict) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Finds a valid token: made here, not revoked, not expired.
    pub async fn lookup(&self, token: &str) -> Result<Option<Arc<TokenInfo>>, TokenError> {
        if !self.0.mint.is_well_formed(token) || !self.0.mint.is_own(token) {
            return Ok(None);
        }
        let hash = self.0.mint.hash(token);
        let Some(entry) = self.0.kv.get(&of_hash(&hex::encode(hash))).await? else {
            return Ok(None);
        };
        let ready = self.0.ready.get(&hash).filter(|(version, _)| *version == entry.version);
        let info = match ready {
            Some((_, info)) => info,
            None => {
                // What cannot be read opens nothing.
                let Ok(info) = serde_json::from_slice(&entry.value) else { return Ok(None) };
                let info: Arc<TokenInfo> = Arc::new(info);
                self.0.ready.insert(hash, (entry.version, info.clone()));
                info
            }
        };
        Ok(self.is_valid(&info).then_some(info))
    }

    fn is_valid(&self, info: &TokenInfo) -> bool {
        info.expires_ms.is_none_or(|expires_ms| (self.0.clock)() < expires_ms)
    }

    async fn names(&self) -> Result<Vec<String>, TokenError> {
        let (mut names, mut cursor) = (Vec::new(), None);
        loop {
            // A page may be short for what has expired.
            let page = self.0.kv.list_keys(Some(&of_name("")), cursor.as_deref(), TOKENS).await?;
            names.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() || names.len() >= TOKENS as usize {
                names.truncate(TOKENS as usize);
                return Ok(names);
            }
        }
    }

    async fn keep(&self, info: TokenInfo, record: Vec<u8>, hash: &str) -> Result<(), TokenError> {
        // The store forgets it in its time; whether it is valid is its record's to say.
        let ttl_ms = info.expires_ms.map(|expires_ms| expires_ms.saturating_sub(info.created_ms));
        let (kv, name) = (&self.0.kv, of_name(&info.name));
        let mut change = self.0.store.transaction();
        if change.get(kv, &name).await?.is_some() {
            return Err(TokenError::NameTaken(info.name));
        }
        change.set(kv, &name, hash.as_bytes().to_vec(), ttl_ms)?;
        change.set(kv, &of_hash(hash), record, ttl_ms)?;
        match change.commit().await {
            Err(KvError::Conflict) => Err(TokenError::NameTaken(info.name)),
            result => Ok(result?),
        }
    }
}

fn of_name(name: &str) -> String {
    format!("name/{name}")
}

fn of_hash(hash: &str) -> String {
    format!("hash/{hash}")
}
