//! Client keys: created, listed, revoked, looked up by their hash.
//!
//! A key is shown once, when it is made; what is kept is its HMAC-SHA-256 under the server's secret. When a key was last
//! used is not kept here: the request log has it, and the way of a request writes nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use moka::sync::Cache;
use serde::Serialize;
use tollgate_store::sql::{Database, SqlError, Statement, Value};

use crate::mint::Mint;
use crate::plugin::admission::{Limits, Subject, SubjectKind};

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

/// Longest name and description.
const NAME_BYTES: usize = 64;
const DESCRIPTION_BYTES: usize = 1_024;

/// Models a key can name.
const MODELS: usize = 256;

const COLUMNS: &str =
    "key_hash, name, description, rpm, tpm, rpd, models, active, created_ms, updated_ms, expires_ms";

const SCHEMA: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS api_keys (
        id INTEGER PRIMARY KEY,
        key_hash TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        description TEXT NOT NULL DEFAULT '',
        rpm INTEGER,
        tpm INTEGER,
        rpd INTEGER,
        models TEXT NOT NULL DEFAULT '[]',
        active INTEGER NOT NULL DEFAULT 1,
        created_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        expires_ms INTEGER
    )",
    "CREATE UNIQUE INDEX IF NOT EXISTS api_keys_active_name ON api_keys (name) WHERE active = 1",
];

/// A key to be made.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// A name, unique among the active keys.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Requests a minute, over all models.
    pub rpm: Option<u64>,
    /// Tokens a minute, in and out, over all models.
    pub tpm: Option<u64>,
    /// Requests a day, over all models.
    pub rpd: Option<u64>,
    /// The models it may use; empty: all.
    pub models: Vec<String>,
    /// Milliseconds since 1970, UTC, from which on it is refused.
    pub expires_ms: Option<u64>,
}

/// A key as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// The hash under which it is kept, in hexadecimal; also its id in log and policies.
    pub key_hash: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Requests a minute.
    pub rpm: Option<u64>,
    /// Tokens a minute.
    pub tpm: Option<u64>,
    /// Requests a day.
    pub rpd: Option<u64>,
    /// The models it may use; empty: all.
    pub models: Vec<String>,
    /// False once revoked.
    pub active: bool,
    /// Milliseconds since 1970, UTC.
    pub created_ms: u64,
    /// Milliseconds since 1970, UTC; of the revocation for a revoked key.
    pub updated_ms: u64,
    /// Milliseconds since 1970, UTC.
    pub expires_ms: Option<u64>,
}

/// A valid key, as a request needs it.
#[derive(Debug)]
pub struct ClientKey {
    /// Its hash, in hexadecimal.
    pub id: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The key as policies see it.
    pub subject: Arc<Subject>,
    models: Vec<String>,
    expires_ms: Option<u64>,
}

impl ClientKey {
    /// Whether it may use a model.
    pub fn may_use(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|own| own == model)
    }
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
    /// that overlaps a revocation cannot keep the key alive.
    known: Cache<[u8; 32], (u64, Arc<ClientKey>)>,
    unknown: Cache<[u8; 32], u64>,
    /// Counts changes.
    epoch: AtomicU64,
}

impl Keys {
    /// Opens the key table, making it if need be. Keys are only valid under the secret they were made with.
    pub async fn open(database: Database, secret: &[u8]) -> Result<Keys, KeyError> {
        let mint = Mint::new(secret, PREFIX)
            .ok_or_else(|| KeyError::Invalid("the server's secret is no key for HMAC".to_owned()))?;
        database.batch(SCHEMA.iter().map(|sql| statement(sql, Vec::new())).collect()).await?;
        Ok(Keys(Arc::new(Inner {
            database,
            mint,
            known: Cache::builder().max_capacity(KNOWN_KEYS).time_to_live(KNOWN_TTL).build(),
            unknown: Cache::builder().max_capacity(UNKNOWN_KEYS).time_to_live(UNKNOWN_TTL).build(),
            epoch: AtomicU64::new(0),
        })))
    }

    /// Makes a key and returns it: the only time that anybody sees it. It is on disk when this returns.
    pub async fn create(&self, new: NewKey) -> Result<String, KeyError> {
        validate(&new)?;
        let key = self.0.mint.make().map_err(KeyError::Random)?;
        let now = integer(now_ms())?;
        let models =
            serde_json::to_string(&new.models).map_err(|error| KeyError::Invalid(error.to_string()))?;
        let params = vec![
            Value::Text(hex::encode(self.0.mint.hash(&key))),
            Value::Text(new.name.clone()),
            Value::Text(new.description),
            optional(new.rpm)?,
            optional(new.tpm)?,
            optional(new.rpd)?,
            Value::Text(models),
            now,
            optional(new.expires_ms)?,
        ];
        let insert = "INSERT INTO api_keys (key_hash, name, description, rpm, tpm, rpd, models, created_ms, updated_ms, expires_ms)
            SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9
            WHERE NOT EXISTS (SELECT 1 FROM api_keys WHERE name = ?2 AND active = 1)";
        let outcome = self.0.database.execute(statement(insert, params)).await?;
        self.changed();
        if outcome.rows_written == 0 { Err(KeyError::NameTaken(new.name)) } else { Ok(key) }
    }

    /// All keys, revoked ones included, oldest first.
    pub async fn list(&self) -> Result<Vec<KeyInfo>, KeyError> {
        let sql = format!("SELECT {COLUMNS} FROM api_keys ORDER BY id");
        let outcome = self.0.database.query(statement(&sql, Vec::new())).await?;
        Ok(outcome.rows.iter().filter_map(|row| info(row)).collect())
    }

    /// Revokes the active key of a name. When this returns, no lookup finds it any more, after a crash neither.
    pub async fn revoke(&self, name: &str) -> Result<(), KeyError> {
        let sql = "UPDATE api_keys SET active = 0, updated_ms = ?2 WHERE name = ?1 AND active = 1";
        let params = vec![Value::Text(name.to_owned()), integer(now_ms())?];
        let outcome = self.0.database.execute(statement(sql, params)).await;
        // Even a failed call may have written.
        self.changed();
        if outcome?.rows_written == 0 { Err(KeyError::NoSuchKey(name.to_owned())) } else { Ok(()) }
    }

    /// Finds a valid key: made here, not revoked, not expired.
    pub async fn lookup(&self, key: &str) -> Result<Option<Arc<ClientKey>>, KeyError> {
        if !self.0.mint.is_well_formed(key) {
            return Ok(None);
        }
        let hash = self.0.mint.hash(key);
        let epoch = self.0.epoch.load(Ordering::Acquire);
        if let Some((_, found)) = self.0.known.get(&hash).filter(|(of, _)| *of == epoch) {
            return Ok(valid(found));
        }
        if self.0.unknown.get(&hash) == Some(epoch) || !self.0.mint.is_own(key) {
            return Ok(None);
        }
        self.read(hash, epoch).await.map(|found| found.and_then(valid))
    }

    async fn read(&self, hash: [u8; 32], epoch: u64) -> Result<Option<Arc<ClientKey>>, KeyError> {
        let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE key_hash = ?1 AND active = 1");
        let outcome = self.0.database.query(statement(&sql, vec![Value::Text(hex::encode(hash))])).await?;
        let found = outcome.rows.first().and_then(|row| info(row)).map(|info| Arc::new(client_key(info)));
        match &found {
            Some(key) => self.0.known.insert(hash, (epoch, key.clone())),
            None => self.0.unknown.insert(hash, epoch),
        }
        Ok(found)
    }

    fn changed(&self) {
        self.0.epoch.fetch_add(1, Ordering::Release);
    }
}

fn valid(key: Arc<ClientKey>) -> Option<Arc<ClientKey>> {
    match key.expires_ms {
        Some(expires_ms) if expires_ms <= now_ms() => None,
        _ => Some(key),
    }
}

fn client_key(info: KeyInfo) -> ClientKey {
    let (id, name): (Arc<str>, Arc<str>) = (info.key_hash.into(), info.name.into());
    ClientKey {
        id: id.clone(),
        name: name.clone(),
        subject: Arc::new(Subject {
            kind: SubjectKind::Client,
            id,
            name,
            limits: Limits { rpm: info.rpm, tpm: info.tpm, rpd: info.rpd, further: Vec::new() },
        }),
        models: info.models,
        expires_ms: info.expires_ms,
    }
}

fn validate(new: &NewKey) -> Result<(), KeyError> {
    let invalid = |message: &str| Err(KeyError::Invalid(message.to_owned()));
    let clean = |text: &str| !text.chars().any(char::is_control);
    if new.name.trim().is_empty() || new.name.len() > NAME_BYTES || !clean(&new.name) {
        return invalid("a key's name has 1 to 64 bytes and no control characters");
    }
    if new.description.len() > DESCRIPTION_BYTES || !clean(&new.description) {
        return invalid("a key's description has at most 1024 bytes and no control characters");
    }
    if new.models.len() > MODELS || new.models.iter().any(|model| model.is_empty() || !clean(model)) {
        return invalid("a key names at most 256 models, none of them empty");
    }
    Ok(())
}

fn info(row: &[Value]) -> Option<KeyInfo> {
    let [hash, name, description, rpm, tpm, rpd, models, active, created, updated, expires] = row else {
        return None;
    };
    Some(KeyInfo {
        key_hash: text(hash)?,
        name: text(name)?,
        description: text(description)?,
        rpm: unsigned(rpm),
        tpm: unsigned(tpm),
        rpd: unsigned(rpd),
        // A list that cannot be read must not widen the key to all models.
        models: serde_json::from_str(&text(models)?).ok()?,
        active: unsigned(active) == Some(1),
        created_ms: unsigned(created)?,
        updated_ms: unsigned(updated)?,
        expires_ms: unsigned(expires),
    })
}

fn text(value: &Value) -> Option<String> {
    if let Value::Text(text) = value { Some(text.clone()) } else { None }
}

fn unsigned(value: &Value) -> Option<u64> {
    // A negative limit can only have been put there by hand; it then allows nothing.
    if let Value::Integer(number) = value { Some(u64::try_from(*number).unwrap_or(0)) } else { None }
}

fn optional(number: Option<u64>) -> Result<Value, KeyError> {
    number.map_or(Ok(Value::Null), integer)
}

fn integer(number: u64) -> Result<Value, KeyError> {
    let number = i64::try_from(number).map_err(|_| KeyError::Invalid(format!("{number} is too large")))?;
    Ok(Value::Integer(number))
}

fn statement(sql: &str, params: Vec<Value>) -> Statement {
    Statement { sql: sql.to_owned(), params }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
