//! What a data token may do: stores, how far, and which part of them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use tollgate_store::{Access as SqlAccess, TableGrant};
use utoipa::ToSchema;

use super::TokenError;
use super::limits::{PREFIX_BYTES, SCOPES, TABLE_BYTES, TABLES};
use crate::plugin::Access;

/// The stores that a token opens, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Scopes {
    /// kv stores.
    pub kv: BTreeMap<String, KeyScope>,
    /// Blob containers.
    pub blob: BTreeMap<String, KeyScope>,
    /// SQL databases.
    pub sql: BTreeMap<String, SqlScope>,
    /// Vector indexes; tokens of earlier versions have none.
    #[serde(default)]
    pub vector: BTreeMap<String, IndexScope>,
}

/// A scope of a kv store or blob container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyScope {
    /// How far it goes.
    pub access: Access,
    /// Only keys that start with this.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

/// A scope of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlScope {
    /// How far it goes.
    pub access: Access,
    /// Only these tables; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
}

/// A scope of a vector index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IndexScope {
    /// How far it goes.
    pub access: Access,
}

/// The kinds of stores whose entries have keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyed {
    /// A kv store.
    Kv,
    /// A blob container.
    Blob,
}

/// What a token does not allow; the text names the scope that it lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(String);

impl fmt::Display for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kv => "kv",
            Self::Blob => "blob",
        })
    }
}

impl Scopes {
    /// The scope that opens a store for this, if the token has it.
    pub fn keyed(&self, kind: Keyed, store: &str, access: Access) -> Result<&KeyScope, Denied> {
        let scopes = match kind {
            Keyed::Kv => &self.kv,
            Keyed::Blob => &self.blob,
        };
        let scope = scopes.get(store).filter(|scope| covers(scope.access, access));
        scope.ok_or_else(|| Denied(format!("the token lacks the scope `{kind} {store}:{}`", name(access))))
    }

    /// The scope that opens a database, if the token has one.
    pub fn sql(&self, database: &str) -> Result<&SqlScope, Denied> {
        let scope = self.sql.get(database);
        scope.ok_or_else(|| Denied(format!("the token lacks the scope `sql {database}:read`")))
    }

    /// Lets an index be used for this, if the token has a scope for it.
    pub fn vector(&self, index: &str, access: Access) -> Result<(), Denied> {
        match self.vector.get(index) {
            Some(scope) if covers(scope.access, access) => Ok(()),
            _ => Err(Denied(format!("the token lacks the scope `vector {index}:{}`", name(access)))),
        }
    }

    /// Bounds what a token may name; `known` has the names of the stores there are.
    pub(super) fn check(&self, known: &Known) -> Result<(), TokenError> {
        let invalid = |text: String| Err(TokenError::Invalid(text));
        let count = self.kv.len() + self.blob.len() + self.sql.len() + self.vector.len();
        if !(1..=SCOPES).contains(&count) {
            return invalid(format!("a token has 1 to {SCOPES} scopes in `kv`, `blob`, `sql` and `vector`"));
        }
        for (kind, scopes, stores) in [("kv", &self.kv, &known.kv), ("blob", &self.blob, &known.blob)] {
            for (store, scope) in scopes {
                exists(kind, store, stores)?;
                if scope.prefix.len() > PREFIX_BYTES {
                    return invalid(format!("{kind}.{store}.prefix: at most {PREFIX_BYTES} bytes"));
                }
            }
        }
        self.vector.keys().try_for_each(|index| exists("vector", index, &known.vector))?;
        for (database, scope) in &self.sql {
            exists("sql", database, &known.sql)?;
            let fits = |table: &String| (1..=TABLE_BYTES).contains(&table.len());
            if scope.tables.len() > TABLES || !scope.tables.iter().all(fits) {
                return invalid(format!(
                    "sql.{database}.tables: at most {TABLES} names of 1 to {TABLE_BYTES} bytes"
                ));
            }
            if scope.tables.is_empty() && scope.access == Access::ReadWrite && *database == known.rules {
                return invalid(format!(
                    "sql.{database}: who writes all of it changes keys and plugins; name the tables"
                ));
            }
        }
        Ok(())
    }
}

/// Names of the stores that there are.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// kv stores.
    pub kv: Vec<String>,
    /// Blob containers.
    pub blob: Vec<String>,
    /// SQL databases.
    pub sql: Vec<String>,
    /// Vector indexes.
    pub vector: Vec<String>,
    /// The database that holds the host's own tables.
    pub rules: String,
}

fn exists(kind: &str, store: &str, stores: &[String]) -> Result<(), TokenError> {
    if stores.iter().any(|known| known == store) {
        return Ok(());
    }
    let text = format!("{kind}.{store}: there is none of that name; there are: {}", stores.join(", "));
    Err(TokenError::Invalid(text))
}

impl KeyScope {
    /// Lets keys pass that the scope covers.
    pub fn key(&self, key: &str) -> Result<(), Denied> {
        if key.starts_with(&self.prefix) {
            return Ok(());
        }
        Err(Denied(format!("the token's scope is only for keys that start with `{}`", self.prefix)))
    }

    /// The prefix to list by, when this one is asked for.
    pub fn list<'a>(&'a self, asked: Option<&'a str>) -> Result<&'a str, Denied> {
        let prefix = asked.unwrap_or(&self.prefix);
        self.key(prefix)?;
        Ok(prefix)
    }
}

impl SqlScope {
    /// What the database lets pass. A scope that only reads is to be kept from the writer besides: it is one for all.
    pub fn granted(&self) -> SqlAccess {
        if self.tables.is_empty() {
            return match self.access {
                Access::Read => SqlAccess::ReadOnly,
                Access::ReadWrite => SqlAccess::Full,
            };
        }
        let grant = |table: &String| match self.access {
            Access::Read => TableGrant::read(table),
            Access::ReadWrite => TableGrant::read_write(table),
        };
        SqlAccess::Tables { rules: self.tables.iter().map(grant).collect() }
    }
}

fn covers(has: Access, needed: Access) -> bool {
    has == Access::ReadWrite || needed == Access::Read
}

fn name(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::ReadWrite => "read-write",
    }
}
