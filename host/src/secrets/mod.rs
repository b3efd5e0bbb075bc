//! What is kept encrypted: credentials of accounts.
//!
//! A secret is sealed under the newest of the data keys in table `secret_keys`, each of which is sealed under the master
//! key. What was sealed names its data key, and opens only in the place (account and field) that it was sealed for. So
//! keys are rotated in steps, each of them durable and each leaving everything readable: a new data key, then the secrets
//! one batch after the other, then the old data keys go. Another master key takes over in one transaction.

pub(crate) mod limits;
mod master;
mod seal;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tollgate_store::sql::{Database, SqlError, Statement, Value};

pub use master::{MasterKey, MasterKeyError};
pub use seal::Key;

use crate::secret::Secret;
use limits::PLAIN_BYTES;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS secret_keys (
    version INTEGER PRIMARY KEY,
    sealed BLOB NOT NULL,
    master TEXT NOT NULL,
    created_ms INTEGER NOT NULL
)";

/// The first byte of what was sealed, should the format change.
const FORMAT: u8 = 1;

/// Bytes before the nonce: the format and the version of the data key.
const HEAD_BYTES: usize = 5;

/// Why secrets cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The master key cannot be had.
    #[error(transparent)]
    Master(#[from] MasterKeyError),
    /// It is another master key.
    #[error(
        "the master key from {origin} is {given}, but the secrets here are kept under {needed}: give that key, in the file or variable that [secrets] names"
    )]
    WrongKey {
        /// Where the key came from.
        origin: String,
        /// Its fingerprint.
        given: String,
        /// That of the key that is needed.
        needed: String,
    },
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// What was sealed does not open.
    #[error("it does not open: it was sealed for another place, or it is damaged")]
    Damaged,
    /// The secret is too long.
    #[error("a secret has at most {PLAIN_BYTES} bytes")]
    TooLong,
    /// A new master key was given where the server makes it itself, or none where it has to be given.
    #[error("{0}")]
    NewMaster(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SqlError),
}

impl From<seal::SealError> for SecretsError {
    fn from(error: seal::SealError) -> Self {
        match error {
            seal::SealError::Random(error) => Self::Random(error),
            seal::SealError::Sealed => Self::Damaged,
        }
    }
}

/// Seals and opens secrets. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    database: Database,
    /// Data keys by version; never empty.
    ring: ArcSwap<BTreeMap<u32, Key>>,
    /// Held while keys change.
    master: Mutex<(MasterKey, Key)>,
}

impl Vault {
    /// Opens the data keys of a database with the master key; makes what there is not yet: the master key's file, the
    /// first data key.
    ///
    /// # Errors
    ///
    /// With another master key than the one they are kept under, or without its file.
    pub async fn open(database: Database, master: MasterKey, now_ms: u64) -> Result<Vault, SecretsError> {
        database.execute(Statement::from(SCHEMA)).await?;
        let sealed = read(&database).await?;
        let (key, ring) = match sealed.first() {
            None => {
                let key = match master.candidates()?.into_iter().next() {
                    Some(key) => key,
                    None => {
                        let key = new_key()?;
                        master.prepare(&key)?;
                        key
                    }
                };
                (key, BTreeMap::new())
            }
            Some(first) => unlock(&master, &sealed, &first.master)?,
        };
        master.settle(&key)?;
        let vault = Vault(Arc::new(Inner {
            database,
            ring: ArcSwap::from_pointee(ring),
            master: Mutex::new((master, key)),
        }));
        if sealed.is_empty() {
            vault.add_key(now_ms).await?;
        }
        Ok(vault)
    }

    /// Seals a secret for one place.
    pub fn seal(&self, place: &str, plain: &Secret) -> Result<Vec<u8>, SecretsError> {
        if plain.expose().len() > PLAIN_BYTES {
            return Err(SecretsError::TooLong);
        }
        let ring = self.0.ring.load();
        let (version, key) = ring.last_key_value().ok_or(SecretsError::Damaged)?;
        let head = [[FORMAT].as_slice(), &version.to_be_bytes()].concat();
        let sealed = key.seal(&bound(&head, place), plain.expose().as_bytes())?;
        Ok([head, sealed].concat())
    }

    /// Opens what was sealed for this place.
    pub fn open_sealed(&self, place: &str, sealed: &[u8]) -> Result<Secret, SecretsError> {
        let (head, rest) = sealed.split_at_checked(HEAD_BYTES).ok_or(SecretsError::Damaged)?;
        let version = version(sealed).ok_or(SecretsError::Damaged)?;
        let ring = self.0.ring.load();
        let key = ring.get(&version).ok_or(SecretsError::Damaged)?;
        let plain = key.open(&bound(head, place), rest)?;
        let text = std::str::from_utf8(&plain).map_err(|_| SecretsError::Damaged)?;
        Ok(Secret::new(text))
    }

    /// Whether something was sealed with the data key that seals now.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        version(sealed).is_some_and(|own| self.0.ring.load().last_key_value().is_some_and(|(v, _)| *v == own))
    }

    /// Makes a data key, with which everything is sealed from now on; what was sealed with others still opens.
    pub async fn add_key(&self, now_ms: u64) -> Result<(), SecretsError> {
        let master = self.0.master.lock().await;
        let mut ring = BTreeMap::clone(&self.0.ring.load());
        let version = ring.last_key_value().map_or(1, |(version, _)| version.saturating_add(1));
        let key = new_key()?;
        let sealed = master.1.seal(&data_key_place(version), key.digits().as_bytes())?;
        let insert = "INSERT INTO secret_keys (version, sealed, master, created_ms) VALUES (?1, ?2, ?3, ?4)";
        let created = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let params =
            vec![i64::from(version).into(), sealed.into(), master.1.fingerprint().into(), created.into()];
        // Durable before anything is sealed with it.
        self.0.database.execute(Statement::new(insert, params)).await?;
        ring.insert(version, key);
        self.0.ring.store(Arc::new(ring));
        Ok(())
    }

    /// Forgets the data keys that none of `sealed` was sealed with, but for the newest. Returns how many are left.
    pub async fn retire_keys<'a>(
        &self,
        sealed: impl Iterator<Item = &'a [u8]>,
    ) -> Result<usize, SecretsError> {
        let _changing = self.0.master.lock().await;
        let used: BTreeSet<u32> = sealed.filter_map(version).collect();
        let mut ring = BTreeMap::clone(&self.0.ring.load());
        let newest = ring.last_key_value().map(|(version, _)| *version);
        let unused: Vec<u32> =
            ring.keys().copied().filter(|v| Some(*v) != newest && !used.contains(v)).collect();
        for version in unused {
            let delete = "DELETE FROM secret_keys WHERE version = ?1";
            self.0.database.execute(Statement::new(delete, vec![i64::from(version).into()])).await?;
            ring.remove(&version);
        }
        let left = ring.len();
        self.0.ring.store(Arc::new(ring));
        Ok(left)
    }

    /// Puts another master key in the place of the present one: one made here where it is kept in a file, else the one
    /// that is given, which has to be given at the next start too.
    pub async fn change_master(&self, given: Option<Key>) -> Result<(), SecretsError> {
        let mut master = self.0.master.lock().await;
        let key = match (&master.0, given) {
            // One that is there already may be in use, if it is not known how the change before this one ended.
            (MasterKey::File(_), None) => match blocking(&master.0, MasterKey::prepared).await? {
                Some(key) => key,
                None => new_key()?,
            },
            (MasterKey::File(path), Some(_)) => {
                let text = format!("the master key is kept in {}, where a new one is made", path.display());
                return Err(SecretsError::NewMaster(text));
            }
            (MasterKey::Given { .. }, Some(key)) => key,
            (MasterKey::Given { origin, .. }, None) => {
                let text = format!(
                    "the master key comes from {origin}: give the new one (new-master-key), or keep it (keep-master-key)"
                );
                return Err(SecretsError::NewMaster(text));
            }
        };
        let prepared = key.clone();
        blocking(&master.0, move |master| master.prepare(&prepared)).await?;
        let update = "UPDATE secret_keys SET sealed = ?2, master = ?3 WHERE version = ?1";
        let mut statements = Vec::new();
        for (version, data_key) in self.0.ring.load().iter() {
            let sealed = key.seal(&data_key_place(*version), data_key.digits().as_bytes())?;
            let params = vec![i64::from(*version).into(), sealed.into(), key.fingerprint().into()];
            statements.push(Statement::new(update, params));
        }
        self.0.database.batch(statements).await?;
        if let MasterKey::Given { key: own, .. } = &mut master.0 {
            *own = key.clone();
        }
        // It is the key from here on, also if the file cannot be moved to its place now.
        master.1 = key.clone();
        Ok(blocking(&master.0, move |master| master.settle(&key)).await?)
    }
}

/// Work on the master key's file, off the runtime's workers.
async fn blocking<T: Send + 'static>(
    master: &MasterKey,
    work: impl FnOnce(&MasterKey) -> Result<T, MasterKeyError> + Send + 'static,
) -> Result<T, MasterKeyError> {
    let (place, master) = (master.origin(), master.clone());
    let ended = tokio::task::spawn_blocking(move || work(&master)).await;
    ended.unwrap_or_else(|error| {
        Err(MasterKeyError::File { path: place.into(), source: std::io::Error::other(error) })
    })
}

/// A data key as the table has it.
struct SealedKey {
    version: u32,
    sealed: Vec<u8>,
    master: String,
}

async fn read(database: &Database) -> Result<Vec<SealedKey>, SecretsError> {
    let select = "SELECT version, sealed, master FROM secret_keys ORDER BY version";
    let outcome = database.query(Statement::from(select)).await?;
    let row = |row: Vec<Value>| match <[Value; 3]>::try_from(row) {
        Ok([Value::Integer(version), Value::Blob(sealed), Value::Text(master)]) => {
            let version = u32::try_from(version).ok()?;
            Some(SealedKey { version, sealed, master })
        }
        _ => None,
    };
    outcome.rows.into_iter().map(|values| row(values).ok_or(SecretsError::Damaged)).collect()
}

/// Which of the candidates opens all data keys, and those.
fn unlock(
    master: &MasterKey,
    sealed: &[SealedKey],
    needed: &str,
) -> Result<(Key, BTreeMap<u32, Key>), SecretsError> {
    let candidates = master.candidates()?;
    for key in &candidates {
        let open = |sealed: &SealedKey| {
            let digits = key.open(&data_key_place(sealed.version), &sealed.sealed).ok()?;
            Some((sealed.version, Key::parse(std::str::from_utf8(&digits).ok()?)?))
        };
        if let Some(ring) = sealed.iter().map(open).collect() {
            return Ok((key.clone(), ring));
        }
    }
    let needed = needed.to_owned();
    Err(match (candidates.first(), master) {
        (None, MasterKey::File(path)) => {
            MasterKeyError::Missing { path: path.clone(), fingerprint: needed }.into()
        }
        (Some(key), _) if key.fingerprint() != needed => {
            SecretsError::WrongKey { origin: master.origin(), given: key.fingerprint(), needed }
        }
        _ => SecretsError::Damaged,
    })
}

fn new_key() -> Result<Key, SecretsError> {
    Key::generate().map_err(SecretsError::Random)
}

/// The version of the data key that something was sealed with.
fn version(sealed: &[u8]) -> Option<u32> {
    match sealed.first_chunk::<HEAD_BYTES>()? {
        [FORMAT, version @ ..] => Some(u32::from_be_bytes(*version)),
        _ => None,
    }
}

fn bound(head: &[u8], place: &str) -> Vec<u8> {
    [b"tollgate secret\0".as_slice(), head, place.as_bytes()].concat()
}

fn data_key_place(version: u32) -> Vec<u8> {
    [b"tollgate data key\0".as_slice(), &version.to_be_bytes()].concat()
}
