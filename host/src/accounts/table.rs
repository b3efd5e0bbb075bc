//! Accounts in table `accounts` of database `gateway`, their secrets sealed.

use std::collections::BTreeMap;

use tollgate_store::sql::{Database, SqlError, Statement, Value};

use super::{Draft, RosterError, limits::RESEALED_AT_ONCE, view};
use crate::{
    limit_set::LimitSet,
    secret::Secret,
    secrets::{SecretsError, Vault},
};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS accounts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    dialect TEXT NOT NULL,
    base_url TEXT NOT NULL,
    description TEXT NOT NULL,
    email TEXT NOT NULL,
    models TEXT NOT NULL,
    weight INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    active INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    ca TEXT,
    proxy TEXT,
    proxy_user TEXT,
    proxy_password BLOB,
    api_key BLOB
) WITHOUT ROWID";

/// Columns that the table has not had from the beginning.
const ADDED: [(&str, &str); 4] = [
    ("aliases", "TEXT NOT NULL DEFAULT '{}'"),
    ("limits", "TEXT NOT NULL DEFAULT '{}'"),
    ("model_limits", "TEXT NOT NULL DEFAULT '{}'"),
    ("stream_usage", "INTEGER NOT NULL DEFAULT 0"),
];

/// Limits that once had columns of their own.
const ONCE: [&str; 4] = ["rpm", "tpm", "rpd", "concurrency"];

const COLUMNS: [&str; 22] = [
    "id",
    "name",
    "dialect",
    "base_url",
    "description",
    "email",
    "models",
    "weight",
    "priority",
    "active",
    "created_ms",
    "updated_ms",
    "expires_ms",
    "ca",
    "proxy",
    "proxy_user",
    "proxy_password",
    "api_key",
    "aliases",
    "limits",
    "model_limits",
    "stream_usage",
];

/// An account of the store.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Its id, which stays whatever else changes: secrets are bound to it.
    pub(super) id: String,
    pub(super) draft: Draft,
    pub(super) created_ms: u64,
    pub(super) updated_ms: u64,
    /// Whether a secret of it cannot be opened; then it does not serve.
    pub(super) is_damaged: bool,
    pub(super) sealed: Sealed,
}

/// The secrets of an account as the table has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sealed {
    pub(super) api_key: Option<Vec<u8>>,
    pub(super) proxy_password: Option<Vec<u8>>,
}

impl Stored {
    /// Its name, and its id for policies, blacklist and log.
    pub(super) fn named(&self) -> (String, String) {
        (self.draft.name.clone(), view::id(&self.draft))
    }

    /// What is sealed of it.
    pub(super) fn sealed(&self) -> impl Iterator<Item = &[u8]> {
        [&self.sealed.api_key, &self.sealed.proxy_password].into_iter().flatten().map(Vec::as_slice)
    }

    /// What a secret of the account is bound to: its column, and the address that it is sent to, so that whoever can write
    /// to the table cannot have it sent elsewhere.
    fn place(&self, column: &str) -> String {
        let address = match column {
            "proxy_password" => self.draft.proxy.as_deref().unwrap_or_default(),
            _ => &self.draft.base_url,
        };
        format!("accounts/{}/{column}/{address}", self.id)
    }
}

/// The table.
#[derive(Clone)]
pub(super) struct Table {
    pub(super) database: Database,
    pub(super) vault: Vault,
}

impl Table {
    /// Makes the table, or brings that of an earlier version up to date.
    pub(super) async fn open(database: Database, vault: Vault) -> Result<Table, SqlError> {
        database.execute(Statement::from(SCHEMA)).await?;
        let present = database.query("SELECT name FROM pragma_table_info('accounts')".into()).await?;
        let has = |column: &str| present.rows.iter().flatten().any(|name| *name == column.into());
        let missing = ADDED.iter().filter(|(column, _)| !has(column));
        let mut changes: Vec<String> = missing
            .map(|(column, kind)| format!("ALTER TABLE accounts ADD COLUMN {column} {kind}"))
            .collect();
        let once: Vec<&str> = ONCE.into_iter().filter(|column| has(column)).collect();
        if !once.is_empty() {
            let named: Vec<String> = once.iter().map(|column| format!("'{column}', {column}")).collect();
            // A patch leaves out what is null.
            changes.push(format!(
                "UPDATE accounts SET limits = json_patch(limits, json_object({}))",
                named.join(", ")
            ));
            changes.extend(once.iter().map(|column| format!("ALTER TABLE accounts DROP COLUMN {column}")));
        }
        if !changes.is_empty() {
            database.batch(changes.iter().map(|sql| Statement::from(sql.as_str())).collect()).await?;
        }
        Ok(Table { database, vault })
    }

    /// All of it, in the order of names.
    pub(super) async fn read(&self) -> Result<Vec<Stored>, RosterError> {
        let select = format!("SELECT {} FROM accounts ORDER BY name", COLUMNS.join(", "));
        let outcome = self.database.query(Statement::from(select.as_str())).await?;
        let stored = outcome.rows.into_iter().map(|row| {
            let stored = stored(row).ok_or(RosterError::DamagedTable)?;
            Ok(self.opened(stored))
        });
        stored.collect()
    }

    /// Writes an account, new or changed, with its secrets sealed anew. It is on disk when this returns.
    pub(super) async fn write(&self, stored: &mut Stored) -> Result<(), RosterError> {
        stored.sealed = self.seal(stored)?;
        self.database.execute(write(stored)?).await?;
        Ok(())
    }

    /// Removes an account, and in the same step whatever `also` does.
    pub(super) async fn delete(&self, id: &str, also: Statement) -> Result<(), RosterError> {
        let delete = Statement::new("DELETE FROM accounts WHERE id = ?1", vec![id.into()]);
        self.database.batch(vec![delete, also]).await?;
        Ok(())
    }

    /// Seals every secret with the newest key that is not yet; a damaged one stays as it is.
    pub(super) async fn reseal(&self, stored: &mut [Stored]) -> Result<(), RosterError> {
        let is_old = |sealed: &[u8]| !self.vault.is_current(sealed);
        let mut old: Vec<&mut Stored> =
            stored.iter_mut().filter(|stored| !stored.is_damaged && stored.sealed().any(is_old)).collect();
        for some in old.chunks_mut(RESEALED_AT_ONCE) {
            let mut statements = Vec::new();
            for stored in some {
                let sealed = self.seal(stored)?;
                let update = "UPDATE accounts SET api_key = ?2, proxy_password = ?3 WHERE id = ?1";
                let Sealed { api_key, proxy_password } = sealed.clone();
                let params = vec![stored.id.as_str().into(), api_key.into(), proxy_password.into()];
                statements.push(Statement::new(update, params));
                stored.sealed = sealed;
            }
            self.database.batch(statements).await?;
        }
        Ok(())
    }

    fn seal(&self, stored: &Stored) -> Result<Sealed, SecretsError> {
        let seal = |column: &str, secret: &Option<Secret>| {
            let secret = secret.as_ref();
            secret.map(|secret| self.vault.seal(&stored.place(column), secret)).transpose()
        };
        Ok(Sealed {
            api_key: seal("api_key", &stored.draft.api_key)?,
            proxy_password: seal("proxy_password", &stored.draft.proxy_password)?,
        })
    }

    fn opened(&self, mut stored: Stored) -> Stored {
        let open = |column: &str, sealed: &Option<Vec<u8>>| {
            let sealed = sealed.as_ref();
            sealed.map(|sealed| self.vault.open_sealed(&stored.place(column), sealed)).transpose()
        };
        let api_key = open("api_key", &stored.sealed.api_key);
        let opened =
            api_key.and_then(|key| Ok((key, open("proxy_password", &stored.sealed.proxy_password)?)));
        match opened {
            Ok((api_key, proxy_password)) => {
                stored.draft.api_key = api_key;
                stored.draft.proxy_password = proxy_password;
            }
            Err(error) => {
                let account = &stored.draft.name;
                tracing::error!(account, %error, "a secret of the account cannot be opened: it does not serve");
                stored.is_damaged = true;
            }
        }
        stored
    }
}

fn write(stored: &Stored) -> Result<Statement, RosterError> {
    let places: Vec<String> = (1..=COLUMNS.len()).map(|number| format!("?{number}")).collect();
    let set: Vec<String> =
        COLUMNS.iter().skip(1).map(|column| format!("{column} = excluded.{column}")).collect();
    let sql = format!(
        "INSERT INTO accounts ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}",
        COLUMNS.join(", "),
        places.join(", "),
        set.join(", ")
    );
    let draft = &stored.draft;
    let params: [Value; COLUMNS.len()] = [
        stored.id.as_str().into(),
        draft.name.as_str().into(),
        draft.dialect.as_str().into(),
        draft.base_url.as_str().into(),
        draft.description.as_str().into(),
        draft.email.as_str().into(),
        json(&draft.models)?,
        integer(draft.weight.into()),
        integer(draft.priority.into()),
        integer(draft.active.into()),
        integer(stored.created_ms),
        integer(stored.updated_ms),
        draft.expires_ms.map(integer).into(),
        draft.ca.clone().into(),
        draft.proxy.clone().into(),
        draft.proxy_user.clone().into(),
        stored.sealed.proxy_password.clone().into(),
        stored.sealed.api_key.clone().into(),
        json(&draft.aliases)?,
        json(&draft.limits)?,
        json(&draft.model_limits)?,
        integer(draft.stream_usage.into()),
    ];
    Ok(Statement::new(sql, params.into()))
}

fn stored(row: Vec<Value>) -> Option<Stored> {
    let mut row = row.into_iter();
    let mut next = || row.next();
    // In the order of the columns.
    let mut stored = Stored {
        id: text(next()?)?,
        draft: Draft {
            name: text(next()?)?,
            dialect: text(next()?)?,
            base_url: text(next()?)?,
            description: text(next()?)?,
            email: text(next()?)?,
            // A list that cannot be read must not widen the account to all models.
            models: serde_json::from_str(&text(next()?)?).ok()?,
            aliases: BTreeMap::new(),
            weight: number(&next()?)?.try_into().ok()?,
            priority: number(&next()?)?.try_into().ok()?,
            limits: LimitSet::default(),
            model_limits: BTreeMap::new(),
            active: number(&next()?)? == 1,
            expires_ms: None,
            ca: None,
            proxy: None,
            proxy_user: None,
            proxy_password: None,
            api_key: None,
            stream_usage: false,
        },
        created_ms: number(&next()?)?,
        updated_ms: number(&next()?)?,
        is_damaged: false,
        sealed: Sealed::default(),
    };
    stored.draft.expires_ms = number(&next()?);
    stored.draft.ca = text(next()?);
    stored.draft.proxy = text(next()?);
    stored.draft.proxy_user = text(next()?);
    stored.sealed.proxy_password = blob(next()?);
    stored.sealed.api_key = blob(next()?);
    stored.draft.aliases = serde_json::from_str(&text(next()?)?).ok()?;
    // Limits that cannot be read must not be none.
    stored.draft.limits = serde_json::from_str(&text(next()?)?).ok()?;
    stored.draft.model_limits = serde_json::from_str(&text(next()?)?).ok()?;
    stored.draft.stream_usage = number(&next()?)? == 1;
    Some(stored)
}

fn json(value: &impl serde::Serialize) -> Result<Value, RosterError> {
    serde_json::to_string(value).map(Value::from).map_err(|_| RosterError::DamagedTable)
}

fn text(value: Value) -> Option<String> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

fn blob(value: Value) -> Option<Vec<u8>> {
    if let Value::Blob(bytes) = value { Some(bytes) } else { None }
}

fn number(value: &Value) -> Option<u64> {
    // A negative limit can only have been put there by hand; it then allows nothing.
    if let Value::Integer(number) = value { Some(u64::try_from(*number).unwrap_or(0)) } else { None }
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
