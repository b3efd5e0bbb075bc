//! Every version that was pushed, in the tables `plugin_components` and `plugin_generations` of database `gateway`.
//!
//! A component is kept once, under its SHA-256. A generation is one push or rollback: a name, a component, a manifest.
//! What is written here is durable before it serves, so that a restart serves what served last.

use serde::Serialize;
use tollgate_store::sql::{Database, Outcome, SqlError, Statement, Value};

use super::limits::KEPT_GENERATIONS;

const SCHEMA: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS plugin_components(
        digest TEXT PRIMARY KEY, size INTEGER NOT NULL, added_ms INTEGER NOT NULL, wasm BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS plugin_generations(
        generation INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, digest TEXT NOT NULL,
        manifest TEXT NOT NULL, pushed_ms INTEGER NOT NULL, pushed_by TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('serving', 'superseded', 'rolled-back')), reason TEXT)",
    "CREATE INDEX IF NOT EXISTS plugin_generations_name ON plugin_generations(name, generation)",
];

const COLUMNS: &str = "generation, name, digest, manifest, pushed_ms, pushed_by, state, reason";

/// A component that no generation names may belong to a push that is under way; it is removed only when older than this.
const UNNAMED_COMPONENT_MS: u64 = 3_600_000;

/// The tables.
#[derive(Clone)]
pub(super) struct Versions {
    database: Database,
}

/// One generation as the table has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Its number; grows with every push and rollback of any plugin.
    pub generation: u64,
    /// The plugin's name.
    #[serde(skip)]
    pub name: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// The text of `plugin.toml`.
    #[serde(skip)]
    pub manifest: String,
    /// Milliseconds since 1970, UTC.
    pub pushed_ms: u64,
    /// Who pushed it; `shipped` for what came with the binary.
    pub pushed_by: String,
    /// Whether it serves.
    pub state: State,
    /// Why it was rolled back.
    pub reason: Option<String>,
}

/// What became of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It serves now, or will after a restart.
    Serving,
    /// A later one took its place.
    Superseded,
    /// It was taken back, by an operator or by the host after traps.
    RolledBack,
}

/// What becomes of the generation that a new one replaces.
pub(super) enum Replaced<'a> {
    Superseded,
    RolledBack { reason: &'a str },
}

impl Versions {
    pub(super) async fn open(database: Database) -> Result<Versions, SqlError> {
        database.batch(SCHEMA.map(|sql| Statement::new(sql, Vec::new())).to_vec()).await?;
        Ok(Versions { database })
    }

    /// Keeps a component. Without a generation that names it, it goes away again after a while.
    pub(super) async fn keep_component(
        &self,
        digest: &str,
        wasm: &[u8],
        now_ms: u64,
    ) -> Result<(), SqlError> {
        // Looked up first: a component that is there need not travel to the writer.
        let there =
            self.rows("SELECT 1 FROM plugin_components WHERE digest = ?1", vec![text(digest)]).await?;
        if !there.is_empty() {
            return Ok(());
        }
        let params =
            vec![text(digest), integer(wasm.len() as u64), integer(now_ms), Value::Blob(wasm.to_vec())];
        let insert =
            "INSERT OR IGNORE INTO plugin_components(digest, size, added_ms, wasm) VALUES (?1, ?2, ?3, ?4)";
        self.database.execute(Statement::new(insert, params)).await.map(drop)
    }

    /// Makes a generation the one that serves, also after a restart. Fails, by the NULL, if its component is not kept.
    pub(super) async fn record(&self, new: &Version, replaced: Replaced<'_>) -> Result<(), SqlError> {
        let (state, reason) = match replaced {
            Replaced::Superseded => ("superseded", Value::Null),
            Replaced::RolledBack { reason } => ("rolled-back", text(reason)),
        };
        let replace =
            "UPDATE plugin_generations SET state = ?2, reason = ?3 WHERE name = ?1 AND state = 'serving'";
        let insert =
            "INSERT INTO plugin_generations(generation, name, digest, manifest, pushed_ms, pushed_by, state)
                      VALUES (?1, ?2, (SELECT digest FROM plugin_components WHERE digest = ?3), ?4, ?5, ?6,
                      'serving')";
        let row = vec![
            integer(new.generation),
            text(&new.name),
            text(&new.digest),
            text(&new.manifest),
            integer(new.pushed_ms),
            text(&new.pushed_by),
        ];
        let mut statements = vec![
            Statement::new(replace, vec![text(&new.name), text(state), reason]),
            Statement::new(insert, row),
        ];
        statements.extend(prune(&new.name, new.pushed_ms));
        self.database.batch(statements).await.map(drop)
    }

    /// Takes back generation `bad`, so that `good`, an earlier one, serves again.
    pub(super) async fn take_back(&self, bad: &Version, good: u64, reason: &str) -> Result<(), SqlError> {
        let away = "UPDATE plugin_generations SET state = 'rolled-back', reason = ?2 WHERE generation = ?1";
        let back = "UPDATE plugin_generations SET state = 'serving' WHERE generation = ?1";
        let statements = vec![
            Statement::new(away, vec![integer(bad.generation), text(reason)]),
            Statement::new(back, vec![integer(good)]),
        ];
        self.database.batch(statements).await.map(drop)
    }

    /// What serves, by name.
    pub(super) async fn serving(&self) -> Result<Vec<Version>, SqlError> {
        self.versions("WHERE state = 'serving' ORDER BY name", Vec::new()).await
    }

    /// The last generations of a plugin, newest first.
    pub(super) async fn history(&self, name: &str, limit: u32) -> Result<Vec<Version>, SqlError> {
        let params = vec![text(name), integer(limit.into())];
        self.versions("WHERE name = ?1 ORDER BY generation DESC LIMIT ?2", params).await
    }

    /// A component's bytes.
    pub(super) async fn component(&self, digest: &str) -> Result<Option<Vec<u8>>, SqlError> {
        let rows =
            self.rows("SELECT wasm FROM plugin_components WHERE digest = ?1", vec![text(digest)]).await?;
        match rows.into_iter().next().and_then(|row| row.into_iter().next()) {
            Some(Value::Blob(wasm)) => Ok(Some(wasm)),
            _ => Ok(None),
        }
    }

    /// The highest number that any generation ever had.
    pub(super) async fn last_generation(&self) -> Result<u64, SqlError> {
        // The counter of AUTOINCREMENT outlives the rows.
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'plugin_generations'";
        let rows = self.rows(sql, Vec::new()).await?;
        Ok(rows.first().and_then(|row| row.first()).map_or(0, as_u64))
    }

    async fn versions(&self, rest: &str, params: Vec<Value>) -> Result<Vec<Version>, SqlError> {
        let rows = self.rows(&format!("SELECT {COLUMNS} FROM plugin_generations {rest}"), params).await?;
        rows.into_iter().map(version).collect()
    }

    async fn rows(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Vec<Value>>, SqlError> {
        let Outcome { rows, .. } = self.database.query(Statement::new(sql, params)).await?;
        Ok(rows)
    }
}

/// Removes generations beyond the kept ones, and components that nothing names any more.
fn prune(name: &str, now_ms: u64) -> [Statement; 2] {
    let generations =
        "DELETE FROM plugin_generations WHERE name = ?1 AND state <> 'serving' AND generation NOT IN
        (SELECT generation FROM plugin_generations WHERE name = ?1 ORDER BY generation DESC LIMIT ?2)";
    let components = "DELETE FROM plugin_components WHERE added_ms < ?1
        AND digest NOT IN (SELECT digest FROM plugin_generations)";
    [
        Statement::new(generations, vec![text(name), integer(KEPT_GENERATIONS.into())]),
        Statement::new(components, vec![integer(now_ms.saturating_sub(UNNAMED_COMPONENT_MS))]),
    ]
}

fn version(row: Vec<Value>) -> Result<Version, SqlError> {
    let Ok([generation, name, digest, manifest, pushed_ms, pushed_by, state, reason]) =
        <[Value; 8]>::try_from(row)
    else {
        return Err(SqlError::Invalid("a row of plugin_generations has the wrong shape".to_owned()));
    };
    Ok(Version {
        generation: as_u64(&generation),
        name: into_text(name),
        digest: into_text(digest),
        manifest: into_text(manifest),
        pushed_ms: as_u64(&pushed_ms),
        pushed_by: into_text(pushed_by),
        state: match into_text(state).as_str() {
            "serving" => State::Serving,
            "rolled-back" => State::RolledBack,
            _ => State::Superseded,
        },
        reason: Some(into_text(reason)).filter(|reason| !reason.is_empty()),
    })
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn integer(value: u64) -> Value {
    Value::Integer(value.cast_signed())
}

fn as_u64(value: &Value) -> u64 {
    match value {
        Value::Integer(number) => number.cast_unsigned(),
        _ => 0,
    }
}

fn into_text(value: Value) -> String {
    match value {
        Value::Text(text) => text,
        _ => String::new(),
    }
}
