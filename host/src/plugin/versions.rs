//! Every version that was pushed.
//!
//! A component is kept once, under its SHA-256, in the host's blob container `host/components`. A generation is one push or
//! rollback: a name, a component, a manifest; a row of table `plugin_generations` of database `gateway`.
//! What is written here is durable before it serves, so that a restart serves what served last.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Mutex;
use tollgate_store::blob::limits::LIST_ITEMS;
use tollgate_store::sql::{Database, Outcome, SqlError, Statement, Value};
use tollgate_store::{BlobError, BlobList, BlobOptions, Container, GetOptions, Got, PutOptions, Store};
use utoipa::ToSchema;

use super::limits::{COMPONENT_BYTES, KEPT_GENERATIONS};
use super::shipped::PUSHED_BY;

const SCHEMA: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS plugin_generations(
        generation INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, digest TEXT NOT NULL,
        manifest TEXT NOT NULL, pushed_ms INTEGER NOT NULL, pushed_by TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('serving', 'superseded', 'rolled-back')), reason TEXT)",
    "CREATE INDEX IF NOT EXISTS plugin_generations_name ON plugin_generations(name, generation)",
];

/// The container of all components; no configured name has a `/`.
const COMPONENTS: &str = "host/components";

const COLUMNS: &str = "generation, name, digest, manifest, pushed_ms, pushed_by, state, reason";

/// A component that no generation names may belong to a push that is under way; it is removed only when older than this.
const UNNAMED_COMPONENT_MS: u64 = 3_600_000;

/// A failure to keep or find a version.
#[derive(Debug, thiserror::Error)]
pub(super) enum VersionError {
    #[error(transparent)]
    Generations(#[from] SqlError),
    #[error(transparent)]
    Components(#[from] BlobError),
    /// A generation is to serve whose component is not kept.
    #[error("the component {0} is not kept any more")]
    NoComponent(String),
}

/// The generations and their components.
#[derive(Clone)]
pub(super) struct Versions {
    database: Database,
    components: Container,
    /// Versions of each plugin that are kept.
    keep: u32,
    /// Held by whoever names or removes components, so that nothing is removed between a look and a name.
    naming: Arc<Mutex<()>>,
}

/// One generation as the table has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PluginVersion)]
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
    /// Milliseconds since 1970, UTC, when it was pushed, or promoted where it was a canary.
    pub pushed_ms: u64,
    /// Who pushed it; `shipped` for what came with the binary.
    pub pushed_by: String,
    /// Whether it serves.
    pub state: State,
    /// Why it was rolled back.
    pub reason: Option<String>,
}

/// What became of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = PluginVersionState)]
pub enum State {
    /// It serves now, or will after a restart.
    Serving,
    /// A later one took its place.
    Superseded,
    /// It was taken back, by an operator or by the host after traps.
    RolledBack,
    /// It answers a share of the requests; kept as one that was taken back, until it is promoted.
    Canary,
}

/// What becomes of the generation that a new one replaces.
pub(super) enum Replaced<'a> {
    Superseded,
    RolledBack { reason: &'a str },
}

impl Versions {
    /// Opens them; what was kept beyond the last `keep` versions of each plugin goes.
    pub(super) async fn open(store: &Store, database: Database, keep: u32) -> Result<Versions, VersionError> {
        database.batch(SCHEMA.map(|sql| Statement::new(sql, Vec::new())).to_vec()).await?;
        let options = BlobOptions { object_bytes: COMPONENT_BYTES as u64, ..BlobOptions::default() };
        let components = store.container(COMPONENTS, options)?;
        let versions = Versions { database, components, keep, naming: Arc::default() };
        versions.take_over().await?;
        let names = versions.rows("SELECT DISTINCT name FROM plugin_generations", Vec::new()).await?;
        let names = names.into_iter().flatten().map(into_text);
        versions.database.batch(names.map(|name| versions.prune(&name)).collect()).await?;
        Ok(versions)
    }

    /// Moves the components that an earlier version kept in a table. Cut short, it begins again.
    async fn take_over(&self) -> Result<(), VersionError> {
        let known = "SELECT 1 FROM sqlite_schema WHERE name = 'plugin_components'";
        if self.rows(known, Vec::new()).await?.is_empty() {
            return Ok(());
        }
        for digest in
            self.rows("SELECT digest FROM plugin_components", Vec::new()).await?.into_iter().flatten()
        {
            let wasm = "SELECT wasm FROM plugin_components WHERE digest = ?1";
            if let Some(Value::Blob(wasm)) =
                self.rows(wasm, vec![digest.clone()]).await?.into_iter().flatten().next()
            {
                self.keep_component(&into_text(digest), &wasm).await?;
            }
        }
        self.database.execute(Statement::new("DROP TABLE plugin_components", Vec::new())).await?;
        Ok(())
    }

    /// Keeps a component. Without a generation that names it, it goes away again after a while.
    pub(super) async fn keep_component(&self, digest: &str, wasm: &[u8]) -> Result<(), VersionError> {
        // Also when it is there already: it is new again, so that nobody removes it before it is named.
        let options =
            PutOptions { content_type: Some("application/wasm".to_owned()), ..PutOptions::default() };
        self.components.put(digest, wasm, options).await?;
        Ok(())
    }

    /// Makes a generation the one that serves, also after a restart. Its component must be kept.
    pub(super) async fn record(&self, new: &Version, replaced: Replaced<'_>) -> Result<(), VersionError> {
        let _naming = self.naming.lock().await;
        if self.components.head(&new.digest).await?.is_none() {
            return Err(VersionError::NoComponent(new.digest.clone()));
        }
        let (state, reason) = match replaced {
            Replaced::Superseded => ("superseded", Value::Null),
            Replaced::RolledBack { reason } => ("rolled-back", text(reason)),
        };
        let replace =
            "UPDATE plugin_generations SET state = ?2, reason = ?3 WHERE name = ?1 AND state = 'serving'";
        let statements = vec![
            Statement::new(replace, vec![text(&new.name), text(state), reason]),
            insert(new, "serving", Value::Null),
            self.prune(&new.name),
        ];
        self.database.batch(statements).await?;
        // It serves from here on: what is left lying is removed by the next push.
        if let Err(error) = self.remove_unnamed(new.pushed_ms).await {
            tracing::warn!(%error, "cannot remove components that nothing names any more");
        }
        Ok(())
    }

    /// Keeps a generation that is tried beside the one that serves, as one that was taken back.
    pub(super) async fn record_canary(&self, new: &Version, reason: &str) -> Result<(), VersionError> {
        let _naming = self.naming.lock().await;
        if self.components.head(&new.digest).await?.is_none() {
            return Err(VersionError::NoComponent(new.digest.clone()));
        }
        let statements = vec![insert(new, "rolled-back", text(reason)), self.prune(&new.name)];
        Ok(self.database.batch(statements).await.map(drop)?)
    }

    /// Writes down why a generation was taken back.
    pub(super) async fn explain(&self, generation: u64, reason: &str) -> Result<(), SqlError> {
        let explain = "UPDATE plugin_generations SET reason = ?2 WHERE generation = ?1";
        let statement = Statement::new(explain, vec![integer(generation), text(reason)]);
        self.database.execute(statement).await.map(drop)
    }

    async fn remove_unnamed(&self, now_ms: u64) -> Result<(), VersionError> {
        let rows = self.rows("SELECT DISTINCT digest FROM plugin_generations", Vec::new()).await?;
        let named: HashSet<String> = rows.into_iter().flatten().map(into_text).collect();
        let old = now_ms.saturating_sub(UNNAMED_COMPONENT_MS);
        let mut list = BlobList { limit: LIST_ITEMS, ..BlobList::default() };
        loop {
            let page = self.components.list(list.clone()).await?;
            let unnamed = page.objects.into_iter().filter(|info| info.uploaded_ms < old);
            let keys: Vec<String> = unnamed.map(|info| info.key).filter(|key| !named.contains(key)).collect();
            self.components.delete_many(&keys).await?;
            list.cursor = page.cursor;
            if list.cursor.is_none() {
                return Ok(());
            }
        }
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
    pub(super) async fn component(&self, digest: &str) -> Result<Vec<u8>, VersionError> {
        let options = GetOptions { verify: true, ..GetOptions::default() };
        match self.components.get(digest, options).await? {
            Got::Found(reader) => Ok(reader.read_all().await?),
            Got::Absent | Got::Unmet(..) => Err(VersionError::NoComponent(digest.to_owned())),
        }
    }

    /// The highest number that any generation ever had.
    pub(super) async fn last_generation(&self) -> Result<u64, SqlError> {
        // The counter of AUTOINCREMENT outlives the rows.
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'plugin_generations'";
        let rows = self.rows(sql, Vec::new()).await?;
        Ok(rows.first().and_then(|row| row.first()).map_or(0, as_u64))
    }

    /// Removes the generations of versions beyond the kept ones, and never the one that serves, the ones that would take its
    /// place (with other settings, and with another component) and the last one that came with a binary and has its component:
    /// after a row of bad versions, or of settings, they may be far behind. `READ_GENERATIONS` counts them.
    fn prune(&self, name: &str) -> Statement {
        let generations = "
            DELETE FROM plugin_generations WHERE name = ?1 AND state <> 'serving'
            AND generation NOT IN (
                SELECT max(older.generation)
                FROM plugin_generations older, plugin_generations serving
                WHERE older.name = ?1 AND older.state = 'superseded'
                AND serving.name = ?1 AND serving.state = 'serving' AND older.generation < serving.generation
                AND (older.digest <> serving.digest OR older.manifest <> serving.manifest)
                GROUP BY older.digest = serving.digest)
            AND generation NOT IN (
                SELECT max(shipped.generation)
                FROM plugin_generations shipped, plugin_generations serving
                WHERE shipped.name = ?1 AND shipped.pushed_by = ?4
                AND serving.name = ?1 AND serving.state = 'serving' AND shipped.digest = serving.digest
                GROUP BY shipped.digest)
            AND (generation NOT IN (
                    SELECT generation FROM plugin_generations WHERE name = ?1 ORDER BY generation DESC LIMIT ?2)
                OR (digest, manifest) NOT IN (
                    SELECT digest, manifest FROM plugin_generations WHERE name = ?1
                    GROUP BY digest, manifest ORDER BY max(generation) DESC LIMIT ?3))";
        let params =
            vec![text(name), integer(KEPT_GENERATIONS.into()), integer(self.keep.into()), text(PUSHED_BY)];
        Statement::new(generations, params)
    }

    async fn versions(&self, rest: &str, params: Vec<Value>) -> Result<Vec<Version>, SqlError> {
        let rows = self.rows(&format!("SELECT {COLUMNS} FROM plugin_generations {rest}"), params).await?;
        rows.into_iter().map(of_row).collect()
    }

    async fn rows(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Vec<Value>>, SqlError> {
        let Outcome { rows, .. } = self.database.query(Statement::new(sql, params)).await?;
        Ok(rows)
    }
}

/// A row; one that was a canary's gives way to that of its promotion.
fn insert(new: &Version, state: &str, reason: Value) -> Statement {
    let insert = "INSERT OR REPLACE INTO
        plugin_generations(generation, name, digest, manifest, pushed_ms, pushed_by, state, reason)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let row = vec![
        integer(new.generation),
        text(&new.name),
        text(&new.digest),
        text(&new.manifest),
        integer(new.pushed_ms),
        text(&new.pushed_by),
        text(state),
        reason,
    ];
    Statement::new(insert, row)
}

fn of_row(row: Vec<Value>) -> Result<Version, SqlError> {
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

#[cfg(test)]
mod tests {
    use tollgate_store::Options;

    use super::*;

    fn version(generation: u64, digest: &str) -> Version {
        Version {
            generation,
            name: "guest".to_owned(),
            digest: digest.to_owned(),
            manifest: String::new(),
            pushed_ms: 0,
            pushed_by: "tester".to_owned(),
            state: State::Serving,
            reason: None,
        }
    }

    #[tokio::test]
    async fn components_of_an_earlier_versions_table_are_taken_over() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store.redb"), Options::default()).unwrap();
        let database = store.database("gateway").unwrap();
        for sql in [
            "CREATE TABLE plugin_components(
                digest TEXT PRIMARY KEY, size INTEGER NOT NULL, added_ms INTEGER NOT NULL, wasm BLOB NOT NULL)",
            "INSERT INTO plugin_components VALUES ('a', 1, 1, x'01'), ('b', 1, 1, x'02')",
        ] {
            database.execute(Statement::new(sql, Vec::new())).await.unwrap();
        }
        for _ in 0..2 {
            let versions = Versions::open(&store, database.clone(), 10).await.unwrap();
            assert_eq!(versions.component("a").await.unwrap(), [1]);
            assert_eq!(versions.component("b").await.unwrap(), [2]);
        }
    }

    #[tokio::test]
    async fn a_component_goes_an_hour_after_nothing_names_it_any_more() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store.redb"), Options::default()).unwrap();
        let database = store.database("gateway").unwrap();
        let versions = Versions::open(&store, database, 10).await.unwrap();
        for digest in ["named", "unnamed"] {
            versions.keep_component(digest, digest.as_bytes()).await.unwrap();
        }
        let kept_ms = versions.components.head("unnamed").await.unwrap().unwrap().uploaded_ms;
        let push = async |generation: u64, pushed_ms: u64| {
            let version = Version { pushed_ms, ..version(generation, "named") };
            versions.record(&version, Replaced::Superseded).await.unwrap();
        };
        push(1, kept_ms + UNNAMED_COMPONENT_MS).await;
        assert_eq!(versions.component("unnamed").await.unwrap(), b"unnamed");
        push(2, kept_ms + UNNAMED_COMPONENT_MS + 1).await;
        assert!(matches!(versions.component("unnamed").await, Err(VersionError::NoComponent(_))));
        assert_eq!(versions.component("named").await.unwrap(), b"named");
    }

    #[tokio::test]
    async fn the_last_versions_are_kept_and_the_one_to_go_back_to() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store.redb"), Options::default()).unwrap();
        let database = store.database("gateway").unwrap();
        let versions = Versions::open(&store, database.clone(), 3).await.unwrap();
        let push = async |generation: u64, digest: &str| {
            versions.keep_component(digest, digest.as_bytes()).await.unwrap();
            versions.record(&version(generation, digest), Replaced::Superseded).await.unwrap();
        };
        let kept = async |versions: &Versions| {
            let history = versions.history("guest", 100).await.unwrap();
            history.into_iter().map(|version| version.digest).collect::<Vec<_>>()
        };
        for (generation, digest) in (1..).zip(["a", "b", "c", "d"]) {
            push(generation, digest).await;
        }
        assert_eq!(kept(&versions).await, ["d", "c", "b"]);
        // The same version again is no further one.
        for generation in 5..8 {
            push(generation, "d").await;
        }
        assert_eq!(kept(&versions).await, ["d", "d", "d", "d", "c", "b"]);
        // Bad versions, however many, leave what was good, and what was good before that.
        for (generation, digest) in (8..).zip(["w", "x", "y", "z"]) {
            push(generation, digest).await;
            versions.take_back(&version(generation, digest), 7, "bad").await.unwrap();
        }
        let digests = kept(&versions).await;
        assert!(digests.starts_with(&["z".to_owned(), "y".to_owned()]), "{digests:?}");
        assert!(digests.contains(&"d".to_owned()), "{digests:?}");
        push(12, "e").await;
        assert_eq!(versions.history("guest", 100).await.unwrap()[0].digest, "e");
        assert!(kept(&versions).await.contains(&"d".to_owned()), "a rollback has nothing to bring back");
        // With fewer to be kept the others go at the start.
        let versions = Versions::open(&store, database, 2).await.unwrap();
        let digests = kept(&versions).await;
        assert_eq!((digests.len(), &digests[0]), (3, &"e".to_owned()), "{digests:?}");
    }

    /// Ten changes of settings once left nothing that a rollback could go back to but settings.
    #[tokio::test]
    async fn settings_however_many_leave_the_component_of_before_and_who_brought_this_one() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store.redb"), Options::default()).unwrap();
        let database = store.database("gateway").unwrap();
        let versions = Versions::open(&store, database, 3).await.unwrap();
        let set = async |generation: u64, digest: &str, pushed_by: &str| {
            versions.keep_component(digest, digest.as_bytes()).await.unwrap();
            let (manifest, pushed_by) = (generation.to_string(), pushed_by.to_owned());
            let version = Version { manifest, pushed_by, ..version(generation, digest) };
            versions.record(&version, Replaced::Superseded).await.unwrap();
        };
        set(1, "oldest", "tester").await;
        set(2, "older", "tester").await;
        set(3, "present", PUSHED_BY).await;
        for generation in 4..14 {
            set(generation, "present", "tester").await;
        }
        let history = versions.history("guest", 100).await.unwrap();
        let kept: Vec<_> = history.iter().map(|version| version.generation).collect();
        assert_eq!(kept, [13, 12, 11, 3, 2]);
    }
}
