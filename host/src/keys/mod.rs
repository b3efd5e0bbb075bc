//! Client keys: created, listed, edited, rotated, revoked, and looked up by the hash of their secret.
//!
//! A secret is shown once, when it is made; what is kept is its HMAC-SHA-256 under the server's secret. The key itself is
//! known by the hash of its first secret, so that usage, limits and history stay with it when the secret changes. When a
//! key was last used is not kept here: the request log has it, and the way of a request writes nothing.

mod client_key;
mod client_kind;
mod settings;
mod table;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use moka::sync::Cache;
use tollgate_store::sql::{Database, SqlError, Statement, Value};

use crate::mint::Mint;
use table::{integer, statement};

pub use client_key::ClientKey;
pub use client_kind::ClientKind;
pub use settings::{Permission, Settings};

/// What every key starts with, so that people and scanners recognise one.
const PREFIX: &str = "tg-";

/// Keys in use at once that are answered from memory.
const KNOWN_KEYS: u64 = 16_384;

/// Refused keys answered from memory: revoked ones that somebody still tries.
const UNKNOWN_KEYS: u64 = 4_096;

/// How long a looked-up key is believed. Changes made by this process are seen at once; this bounds what any other
/// change, such as one by hand, takes.
const KNOWN_TTL: Duration = Duration::from_secs(60);

/// How long a refused key is believed to be unknown.
const UNKNOWN_TTL: Duration = Duration::from_secs(10);

/// Longest name.
const NAME_BYTES: usize = 64;

/// How long the secret before a rotation stays valid, unless said otherwise: a day to hand out the new one.
pub const OVERLAP_MS: u64 = 24 * 60 * 60 * 1_000;

/// The longest that can be asked for: a secret that is to live longer is no previous one.
pub const OVERLAP_MOST_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// A key to be made.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// A name, unique among the active keys.
    pub name: String,
    /// Everything else.
    pub settings: Settings,
}

#[cfg(test)]
impl NewKey {
    /// A key that may use some models.
    pub(crate) fn for_models(name: &str, models: &[&str]) -> NewKey {
        let models = models.iter().map(|model| (*model).to_owned()).collect();
        NewKey { name: name.to_owned(), settings: Settings { models, ..Settings::default() } }
    }
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyInfo {
    /// The hash of its first secret, in hexadecimal; its id in log and policies.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What was set.
    pub settings: Settings,
    /// False while it is switched off.
    pub enabled: bool,
    /// False once revoked.
    pub active: bool,
    /// Milliseconds since 1970, UTC.
    pub created_ms: u64,
    /// Milliseconds since 1970, UTC; of the revocation for a revoked key.
    pub updated_ms: u64,
    /// Milliseconds since 1970, UTC, until which the secret before the last rotation is valid too.
    pub previous_until_ms: Option<u64>,
}

/// Why keys cannot be made, changed or looked up.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// An active key has the name.
    #[error("there is a key named {0} already")]
    NameTaken(String),
    /// No active key has the name.
    #[error("there is no active key named {0}")]
    NoSuchKey(String),
    /// What was asked for cannot be.
    #[error("{0}")]
    Invalid(String),
    /// Somebody else changed the key meanwhile, again and again.
    #[error("the key {0} is being changed by others")]
    Busy(String),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SqlError),
}

/// The keys of this server. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    database: Database,
    mint: Mint,
    /// What was read, with the epoch before reading it: an entry of another epoch counts for nothing, so that a lookup
    /// that overlaps a change cannot keep the key as it was.
    known: Cache<[u8; 32], (u64, Known)>,
    unknown: Cache<[u8; 32], u64>,
    /// Counts changes.
    epoch: AtomicU64,
}

/// A key found by one of its secrets.
#[derive(Clone)]
struct Known {
    key: Arc<ClientKey>,
    /// Milliseconds since 1970 from which on the secret is not valid; none: for good.
    until_ms: Option<u64>,
}

impl Keys {
    /// Opens the key table, making it if need be. Keys are only valid under the secret they were made with.
    pub async fn open(database: Database, secret: &[u8]) -> Result<Keys, KeyError> {
        let mint = Mint::new(secret, PREFIX)
            .ok_or_else(|| KeyError::Invalid("the server's secret is no key for HMAC".to_owned()))?;
        table::prepare(&database).await?;
        Ok(Keys(Arc::new(Inner {
            database,
            mint,
            known: Cache::builder().max_capacity(KNOWN_KEYS).time_to_live(KNOWN_TTL).build(),
            unknown: Cache::builder().max_capacity(UNKNOWN_KEYS).time_to_live(UNKNOWN_TTL).build(),
            epoch: AtomicU64::new(0),
        })))
    }

    /// Makes a key and returns its secret: the only time that anybody sees it. It is on disk when this returns.
    pub async fn create(&self, new: NewKey) -> Result<String, KeyError> {
        check_name(&new.name)?;
        new.settings.check()?;
        let (secret, hash) = self.make()?;
        let mut params = vec![Value::Text(new.name.clone()), hash, integer(now_ms())?];
        params.extend(table::columns(&new.settings)?);
        let insert = "INSERT INTO api_keys (name, key_hash, secret_hash, created_ms, updated_ms, description, expires_ms,
                permissions, models, forbidden_models, clients, limits, model_limits)
            SELECT ?1, ?2, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11
            WHERE NOT EXISTS (SELECT 1 FROM api_keys WHERE name = ?1 AND active = 1)";
        if self.write(insert, params).await? { Ok(secret) } else { Err(KeyError::NameTaken(new.name)) }
    }

    /// All keys, revoked ones included, oldest first.
    pub async fn list(&self) -> Result<Vec<KeyInfo>, KeyError> {
        self.select("ORDER BY id", Vec::new()).await
    }

    /// The active key of a name.
    pub async fn get(&self, name: &str) -> Result<KeyInfo, KeyError> {
        let found = self.select("WHERE name = ?1 AND active = 1", vec![Value::Text(name.to_owned())]).await?;
        found.into_iter().next().ok_or_else(|| KeyError::NoSuchKey(name.to_owned()))
    }

    /// Edits the active key of a name: a JSON merge patch of its [`Settings`]. What it has used stays.
    pub async fn update(&self, name: &str, patch: &serde_json::Value) -> Result<KeyInfo, KeyError> {
        /// How often another change may come between reading and writing.
        const ATTEMPTS: usize = 5;
        let before = |settings: &Settings| -> Result<Value, KeyError> {
            serde_json::to_string(settings).map(Value::Text).map_err(|e| KeyError::Invalid(e.to_string()))
        };
        for _ in 0..ATTEMPTS {
            let info = self.get(name).await?;
            let settings = info.settings.patched(patch)?;
            if before(&settings)? == before(&info.settings)? {
                return Ok(info);
            }
            let mut params = vec![
                Value::Text(info.id.clone()),
                integer(info.updated_ms)?,
                integer(now_ms().max(info.updated_ms.saturating_add(1)))?,
            ];
            params.extend(table::columns(&settings)?);
            let update =
                "UPDATE api_keys SET updated_ms = ?3, description = ?4, expires_ms = ?5, permissions = ?6,
                    models = ?7, forbidden_models = ?8, clients = ?9, limits = ?10, model_limits = ?11
                WHERE key_hash = ?1 AND active = 1 AND updated_ms = ?2";
            if self.write(update, params).await? {
                return self.get(name).await;
            }
        }
        Err(KeyError::Busy(name.to_owned()))
    }

    /// Gives the active key of a name another secret and returns it, the only time that anybody sees it. The secret before
    /// stays valid for so many milliseconds more; the one before that ends now.
    pub async fn rotate(&self, name: &str, overlap_ms: u64) -> Result<String, KeyError> {
        if overlap_ms > OVERLAP_MOST_MS {
            return Err(KeyError::Invalid(format!("`overlap_ms` must be from 0 to {OVERLAP_MOST_MS}")));
        }
        let (secret, hash) = self.make()?;
        let now_ms = now_ms();
        let until = integer(now_ms.saturating_add(overlap_ms))?;
        let params = vec![Value::Text(name.to_owned()), hash, integer(now_ms)?, until];
        let update =
            "UPDATE api_keys SET previous_hash = secret_hash, previous_until_ms = ?4, secret_hash = ?2,
                updated_ms = max(?3, updated_ms + 1)
            WHERE name = ?1 AND active = 1";
        if self.write(update, params).await? { Ok(secret) } else { Err(KeyError::NoSuchKey(name.to_owned())) }
    }

    /// Switches the active key of a name on or off. When this returns, every lookup knows.
    pub async fn enable(&self, name: &str, enabled: bool) -> Result<(), KeyError> {
        let params = vec![Value::Text(name.to_owned()), Value::Integer(enabled.into()), integer(now_ms())?];
        let update = "UPDATE api_keys SET enabled = ?2, updated_ms = max(?3, updated_ms + 1)
            WHERE name = ?1 AND active = 1";
        if self.write(update, params).await? { Ok(()) } else { Err(KeyError::NoSuchKey(name.to_owned())) }
    }

    /// Revokes the active key of a name. When this returns, no lookup finds it any more, after a crash neither.
    pub async fn revoke(&self, name: &str) -> Result<(), KeyError> {
        let params = vec![Value::Text(name.to_owned()), integer(now_ms())?];
        let update = "UPDATE api_keys SET active = 0, updated_ms = ?2 WHERE name = ?1 AND active = 1";
        if self.write(update, params).await? { Ok(()) } else { Err(KeyError::NoSuchKey(name.to_owned())) }
    }

    /// Revokes a key, by its name or its id, and in the same step does what `also` says; its id. It may have been revoked before.
    pub async fn delete(
        &self,
        name: &str,
        also: impl FnOnce(&KeyInfo) -> Statement,
    ) -> Result<String, KeyError> {
        let which = "WHERE (name = ?1 AND active = 1) OR key_hash = ?1 ORDER BY active DESC LIMIT 1";
        let found = self.select(which, vec![Value::Text(name.to_owned())]).await?.pop();
        let info = found.ok_or_else(|| KeyError::NoSuchKey(name.to_owned()))?;
        let update = "UPDATE api_keys SET active = 0, updated_ms = ?2 WHERE key_hash = ?1 AND active = 1";
        let params = vec![Value::Text(info.id.clone()), integer(now_ms())?];
        let outcome = self.0.database.batch(vec![statement(update, params), also(&info)]).await;
        // Even a failed call may have written.
        self.0.epoch.fetch_add(1, Ordering::Release);
        outcome?;
        Ok(info.id)
    }

    /// Finds a valid key by a secret: made here, neither revoked nor switched off, not expired.
    pub async fn lookup(&self, secret: &str) -> Result<Option<Arc<ClientKey>>, KeyError> {
        if !self.0.mint.is_well_formed(secret) {
            return Ok(None);
        }
        let hash = self.0.mint.hash(secret);
        let epoch = self.0.epoch.load(Ordering::Acquire);
        if let Some((_, found)) = self.0.known.get(&hash).filter(|(of, _)| *of == epoch) {
            return Ok(found.if_valid());
        }
        if self.0.unknown.get(&hash) == Some(epoch) || !self.0.mint.is_own(secret) {
            return Ok(None);
        }
        Ok(self.read(hash, epoch).await?.and_then(|found| found.if_valid()))
    }

    async fn read(&self, hash: [u8; 32], epoch: u64) -> Result<Option<Known>, KeyError> {
        let text = Value::Text(hex::encode(hash));
        let current = "WHERE secret_hash = ?1 AND active = 1 AND enabled = 1";
        let previous = "WHERE previous_hash = ?1 AND active = 1 AND enabled = 1";
        let mut found =
            self.select(current, vec![text.clone()]).await?.pop().map(|info| Known::of(info, false));
        if found.is_none() {
            found = self.select(previous, vec![text]).await?.pop().map(|info| Known::of(info, true));
        }
        match &found {
            Some(known) => self.0.known.insert(hash, (epoch, known.clone())),
            None => self.0.unknown.insert(hash, epoch),
        }
        Ok(found)
    }

    fn make(&self) -> Result<(String, Value), KeyError> {
        let secret = self.0.mint.make().map_err(KeyError::Random)?;
        let hash = hex::encode(self.0.mint.hash(&secret));
        Ok((secret, Value::Text(hash)))
    }

    async fn select(&self, which: &str, params: Vec<Value>) -> Result<Vec<KeyInfo>, KeyError> {
        let sql = format!("SELECT {} FROM api_keys {which}", table::COLUMNS);
        let outcome = self.0.database.query(statement(&sql, params)).await?;
        Ok(outcome.rows.iter().filter_map(|row| table::info(row)).collect())
    }

    /// Whether a row was written.
    async fn write(&self, sql: &str, params: Vec<Value>) -> Result<bool, KeyError> {
        let outcome = self.0.database.execute(statement(sql, params)).await;
        // Even a failed call may have written.
        self.0.epoch.fetch_add(1, Ordering::Release);
        Ok(outcome?.rows_written > 0)
    }
}

impl Known {
    fn of(info: KeyInfo, by_previous: bool) -> Known {
        let ends = [info.settings.expires_ms, info.previous_until_ms.filter(|_| by_previous)];
        Known { until_ms: ends.into_iter().flatten().min(), key: Arc::new(ClientKey::of(info)) }
    }

    fn if_valid(self) -> Option<Arc<ClientKey>> {
        self.until_ms.is_none_or(|until_ms| now_ms() < until_ms).then_some(self.key)
    }
}

fn check_name(name: &str) -> Result<(), KeyError> {
    if name.trim().is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
        return Err(KeyError::Invalid("a key's name has 1 to 64 bytes and no control characters".to_owned()));
    }
    Ok(())
}

/// Milliseconds since 1970, UTC.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests;
