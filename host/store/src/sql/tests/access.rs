//! The authorizer against statements that try to get out.

use super::*;
use crate::sql::{Access, TableGrant};

fn tables(rules: Vec<TableGrant>) -> Access {
    Access::Tables { rules }
}

/// A database with `mine` (granted), `readable` (granted for reading) and `secret` (not), and ways from one to the other.
async fn with_secret() -> (Database, Database) {
    let (full, _) = database();
    for sql in [
        "CREATE TABLE secret (key TEXT PRIMARY KEY, n INTEGER)",
        "INSERT INTO secret VALUES ('hidden', 42)",
        "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO counted DEFAULT VALUES",
        "CREATE INDEX secret_index ON secret (n)",
        "CREATE TABLE readable (a)",
        "INSERT INTO readable VALUES ('r')",
        "CREATE TABLE mine (id INTEGER PRIMARY KEY, a)",
        "INSERT INTO mine (a) VALUES ('m')",
        "CREATE VIEW window AS SELECT * FROM secret",
        "CREATE TABLE bait (a)",
        "CREATE TRIGGER spring AFTER INSERT ON bait BEGIN INSERT INTO mine (a) SELECT key FROM secret; END",
        "CREATE TABLE child (k REFERENCES secret (key) ON DELETE CASCADE)",
        "CREATE VIRTUAL TABLE docs USING fts5 (body)",
    ] {
        execute(&full, sql).await;
    }
    let granted = full.with_access(tables(vec![
        TableGrant::read_write("mine"),
        TableGrant::read("readable"),
        TableGrant::read_write("made"),
        TableGrant::read_write("bait"),
        TableGrant::read_write("child"),
        TableGrant::read_write("window"),
    ]));
    (full, granted)
}

fn assert_denied(result: Result<Outcome, SqlError>, sql: &str) {
    match result {
        Err(SqlError::AccessDenied(text)) => assert!(!text.contains("hidden"), "{sql}: {text}"),
        other => panic!("{sql}: {other:?}"),
    }
}

#[test]
fn ungranted_tables_are_out_of_reach_by_every_way() {
    block_on(async {
        let (full, granted) = with_secret().await;
        let before = rows(&full, "SELECT group_concat(sql) FROM sqlite_schema").await;
        for sql in [
            "SELECT * FROM secret",
            "SELECT count(*) FROM secret",
            "SELECT 1 FROM secret",
            "SELECT rowid FROM main.secret",
            "SELECT \"key\" FROM [secret]",
            "SELECT (SELECT key FROM secret) FROM mine",
            "WITH x AS (SELECT key FROM secret) SELECT count(*) FROM x",
            "WITH secret AS (SELECT 1) SELECT count(*) FROM main.secret",
            "WITH RECURSIVE r(k) AS (SELECT key FROM secret UNION SELECT k FROM r) SELECT * FROM r",
            "SELECT * FROM mine JOIN secret ON 1",
            "SELECT * FROM mine WHERE a IN secret",
            "SELECT * FROM mine WHERE EXISTS (SELECT 1 FROM secret WHERE n > 40)",
            "SELECT a FROM mine UNION ALL SELECT key FROM secret",
            "SELECT a FROM mine ORDER BY (SELECT n FROM secret)",
            "SELECT sum(id) OVER (PARTITION BY (SELECT n FROM secret)) FROM mine",
            "SELECT * FROM window",
            "SELECT count(*) FROM window",
            "EXPLAIN SELECT * FROM secret",
            "EXPLAIN QUERY PLAN SELECT * FROM secret",
            "VALUES ((SELECT key FROM secret))",
            "SELECT * FROM sqlite_master",
            "SELECT count(*) FROM sqlite_schema",
            "SELECT sql FROM main.sqlite_master",
            "SELECT * FROM sqlite_temp_master",
            "SELECT * FROM sqlite_sequence",
            "SELECT * FROM pragma_table_info('secret')",
            "SELECT * FROM pragma_table_xinfo('secret')",
            "SELECT * FROM pragma_index_list('secret')",
            "SELECT * FROM pragma_foreign_key_list('secret')",
            "SELECT * FROM pragma_index_info('secret_index')",
            "SELECT * FROM pragma_table_list",
            "SELECT * FROM pragma_database_list",
            "SELECT i.* FROM mine, pragma_table_info(replace('sec-ret', '-', '')) i",
            "SELECT * FROM dbstat",
            "SELECT count(*) FROM dbstat",
            "SELECT * FROM docs",
            "SELECT * FROM docs_content",
            "SELECT count(*) FROM docs_data",
            "PRAGMA table_info(secret)",
            "PRAGMA main.table_info('secret')",
            "PRAGMA table_list",
            "PRAGMA integrity_check",
            "PRAGMA integrity_check(secret)",
            "PRAGMA quick_check(mine)",
            "PRAGMA foreign_key_check",
            "PRAGMA database_list",
        ] {
            assert_denied(granted.query(sql.into()).await, sql);
            assert_denied(granted.execute(sql.into()).await, sql);
        }
        for sql in [
            "INSERT INTO secret VALUES ('x', 1)",
            "REPLACE INTO secret VALUES ('hidden', 1)",
            "UPDATE secret SET n = 1",
            "UPDATE secret SET n = 1 RETURNING key",
            "DELETE FROM secret",
            "UPDATE mine SET a = (SELECT key FROM secret)",
            "UPDATE mine SET a = secret.key FROM secret",
            "UPDATE mine SET a = 1 RETURNING (SELECT key FROM secret)",
            "DELETE FROM mine WHERE a = (SELECT key FROM secret) RETURNING a",
            "INSERT INTO mine (a) SELECT key FROM secret",
            "INSERT INTO mine VALUES (1, 1) ON CONFLICT DO UPDATE SET a = (SELECT key FROM secret)",
            "INSERT INTO readable VALUES (1)",
            "DELETE FROM readable",
            "UPDATE readable SET a = 1",
            // Through triggers and foreign keys of others.
            "INSERT INTO bait VALUES (1)",
            "INSERT INTO child VALUES ('hidden')",
            "CREATE TABLE made AS SELECT * FROM secret",
            "CREATE TABLE made AS SELECT * FROM sqlite_master",
            "CREATE TABLE made AS SELECT rowid FROM sqlite_master",
            "CREATE TABLE other (a)",
            "CREATE TABLE secret2 (a)",
            "CREATE VIEW made AS SELECT * FROM secret",
            "CREATE TRIGGER made AFTER INSERT ON mine BEGIN SELECT key FROM secret; END",
            "CREATE TEMP TRIGGER made AFTER INSERT ON secret BEGIN SELECT 1; END",
            "CREATE TEMP TABLE made (a)",
            "CREATE TEMP TABLE mine (a)",
            "CREATE TEMP VIEW made AS SELECT * FROM secret",
            "CREATE VIRTUAL TABLE made USING fts5 (a)",
            "CREATE VIRTUAL TABLE made USING dbstat",
            "CREATE INDEX i ON secret (key)",
            "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT)",
            "INSERT INTO counted DEFAULT VALUES",
            "CREATE INDEX secret_index2 ON readable (a)",
            "DROP TABLE secret",
            "DROP TABLE mine",
            "DROP TABLE IF EXISTS mine",
            "DROP INDEX secret_index",
            "DROP VIEW window",
            "DROP TRIGGER spring",
            "ALTER TABLE secret ADD COLUMN x",
            "ALTER TABLE readable ADD COLUMN x",
            "ALTER TABLE secret RENAME TO mine2",
            "ALTER TABLE mine RENAME TO mine2",
            "ALTER TABLE mine RENAME COLUMN a TO b",
            "ALTER TABLE mine DROP COLUMN a",
            "REINDEX",
            "REINDEX secret",
            "ANALYZE",
            "ANALYZE secret",
            "VACUUM",
            "DELETE FROM sqlite_sequence",
            "PRAGMA user_version = 1",
            "PRAGMA foreign_keys = OFF",
            "PRAGMA optimize",
        ] {
            assert_denied(granted.execute(sql.into()).await, sql);
        }
        for sql in [
            "INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 2, 'x')",
            "UPDATE sqlite_master SET sql = ''",
            "DELETE FROM sqlite_master",
            "INSERT INTO window VALUES ('x', 1)",
        ] {
            let result = granted.execute(sql.into()).await;
            assert!(
                matches!(result, Err(SqlError::AccessDenied(_) | SqlError::Invalid(_))),
                "{sql}: {result:?}"
            );
        }
        assert_eq!(rows(&full, "SELECT group_concat(sql) FROM sqlite_schema").await, before);
        assert_eq!(rows(&full, "SELECT * FROM secret").await, "hidden|42");
        assert_eq!(rows(&full, "SELECT * FROM mine").await, "1|m");
        check_integrity(&full).await;
    });
}

#[test]
fn granted_tables_can_be_made_indexed_extended_and_used() {
    block_on(async {
        let (full, granted) = with_secret().await;
        for sql in [
            "CREATE TABLE IF NOT EXISTS made (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT UNIQUE, b, CHECK (b <> 3))",
            "CREATE TABLE IF NOT EXISTS made (id)",
            "CREATE INDEX IF NOT EXISTS made_b ON made (b) WHERE b > 0",
            "CREATE UNIQUE INDEX IF NOT EXISTS made_lower ON made (lower(a))",
            "ALTER TABLE made ADD COLUMN c",
            "ALTER TABLE main.\"made\" ADD COLUMN d INTEGER NOT NULL DEFAULT 5 CHECK (d > 1)",
            "INSERT INTO made (a, b) VALUES ('x', 1), ('y', 2) ON CONFLICT (a) DO UPDATE SET b = excluded.b",
            "INSERT INTO made (a, b) SELECT a, 7 FROM readable",
            "UPDATE Made SET c = (SELECT count(*) FROM mine) WHERE a = 'x' RETURNING a",
            "DELETE FROM MADE WHERE a = 'y'",
        ] {
            execute(&granted, sql).await;
        }
        for (sql, expected) in [
            ("SELECT a, b, c, d FROM made ORDER BY id", "x|1|1|5 r|7|null|5"),
            ("SELECT count(*) FROM made, mine", "2"),
            ("WITH x AS (SELECT 1 UNION ALL SELECT 2) SELECT count(*) FROM x", "2"),
            ("WITH x AS (SELECT 1), y AS (SELECT 2) SELECT count(*) FROM x, y, made", "2"),
            ("SELECT count(*) FROM (SELECT a FROM made) AS inner_one", "2"),
            ("WITH secret AS (SELECT 'own') SELECT * FROM secret", "own"),
            (
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT sum(i) FROM n",
                "6",
            ),
            ("SELECT value FROM json_each('[1,2]')", "1 2"),
            ("SELECT name FROM pragma_table_info('readable')", "a"),
            ("PRAGMA table_info(readable)", "0|a||0|null|0"),
            ("SELECT upper(a) || printf('%03d', b) FROM made WHERE lower(a) = 'x'", "X001"),
        ] {
            assert_eq!(rows(&granted, sql).await, expected, "{sql}");
            assert_eq!(rows(&granted, sql).await, expected, "again: {sql}");
        }
        check_integrity(&full).await;
    });
}

#[test]
fn what_reaches_out_of_the_database_is_closed_to_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out.db");
    let file = file.to_str().unwrap();
    block_on(async {
        let (full, _) = database();
        execute(&full, "CREATE TABLE t (a)").await;
        for sql in [
            format!("ATTACH '{file}' AS x"),
            format!("ATTACH 'file:{file}?vfs=unix' AS x"),
            format!("ATTACH 'file:{file}?vfs=unix' || '' AS x"),
            format!("ATTACH (SELECT '{file}') AS x"),
            "ATTACH ':memory:' AS x".to_owned(),
            "ATTACH '' AS x".to_owned(),
            "ATTACH 'main.db' AS x".to_owned(),
            "DETACH main".to_owned(),
            format!("VACUUM INTO '{file}'"),
            format!("VACUUM INTO 'file:{file}?vfs=unix'"),
            format!("VACUUM main INTO '{file}' || ''"),
            format!("SELECT load_extension('{file}')"),
            "SELECT fts3_tokenizer('x')".to_owned(),
            "CREATE VIRTUAL TABLE d USING dbstat".to_owned(),
            "CREATE TEMP TABLE x (a)".to_owned(),
            "CREATE TABLE temp.x (a)".to_owned(),
            "CREATE TABLE temp.x AS SELECT 1".to_owned(),
            "CREATE VIEW Temp.x AS SELECT 1".to_owned(),
            "CREATE TRIGGER temp.x AFTER INSERT ON main.t BEGIN SELECT 1; END".to_owned(),
            "CREATE VIRTUAL TABLE temp.x USING fts5 (a)".to_owned(),
            "PRAGMA writable_schema = 1".to_owned(),
            "PRAGMA writable_schema(reset)".to_owned(),
            "PRAGMA journal_mode = WAL".to_owned(),
            "PRAGMA journal_mode = OFF".to_owned(),
            "PRAGMA main.journal_mode(delete)".to_owned(),
            "PRAGMA locking_mode = EXCLUSIVE".to_owned(),
            "PRAGMA mmap_size = 1000000".to_owned(),
            "PRAGMA schema_version = 1".to_owned(),
            "PRAGMA foreign_keys = 0".to_owned(),
            "PRAGMA ignore_check_constraints = 1".to_owned(),
            "PRAGMA trusted_schema = 1".to_owned(),
            "PRAGMA cell_size_check = 0".to_owned(),
            "PRAGMA cache_size = -1000000".to_owned(),
            "PRAGMA cache_spill = 0".to_owned(),
            "PRAGMA temp_store = 2".to_owned(),
            format!("PRAGMA temp_store_directory = '{file}'"),
            "PRAGMA hard_heap_limit = 1000".to_owned(),
            "PRAGMA soft_heap_limit = 1000".to_owned(),
            "PRAGMA query_only = 1".to_owned(),
            "PRAGMA read_uncommitted = 1".to_owned(),
            "PRAGMA recursive_triggers = 1".to_owned(),
            "PRAGMA reverse_unordered_selects = 1".to_owned(),
            "PRAGMA wal_checkpoint".to_owned(),
            "PRAGMA shrink_memory".to_owned(),
            "PRAGMA vdbe_trace = 1".to_owned(),
            "PRAGMA key = 'x'".to_owned(),
            "PRAGMA busy_timeout = 10000".to_owned(),
            "PRAGMA threads = 4".to_owned(),
            "PRAGMA max_page_count = 1".to_owned(),
            "PRAGMA encoding = 'UTF-16'".to_owned(),
        ] {
            assert_denied(full.execute(sql.as_str().into()).await, &sql);
            let queried = full.query(sql.as_str().into()).await;
            assert!(
                matches!(queried, Err(SqlError::AccessDenied(_) | SqlError::Invalid(_))),
                "{sql}: {queried:?}"
            );
        }
        for sql in ["INSERT INTO sqlite_schema VALUES (1, 2, 3, 4, 5)", "DELETE FROM sqlite_schema"] {
            assert!(matches!(full.execute(sql.into()).await, Err(SqlError::Invalid(_))), "{sql}");
        }
        execute(&full, "VACUUM").await;
        check_integrity(&full).await;
    });
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn prepared_statements_do_not_pass_from_one_access_to_another() {
    block_on(async {
        let (full, granted) = with_secret().await;
        let closed = full.with_access(tables(vec![]));
        for _ in 0..3 {
            for sql in ["SELECT n FROM secret", " SELECT n FROM secret ", "/*0*/SELECT n FROM secret"] {
                assert_eq!(rows(&full, sql).await, "42");
                assert_denied(granted.query(sql.into()).await, sql);
                assert_denied(granted.execute(sql.into()).await, sql);
                execute(&full, sql).await;
            }
            assert_eq!(rows(&granted, "SELECT a FROM mine").await, "m");
            assert_denied(closed.query("SELECT a FROM mine".into()).await, "closed");
            // A change of the schema makes SQLite prepare cached statements again.
            execute(&full, "CREATE TABLE IF NOT EXISTS extra (a)").await;
            execute(&full, "DROP TABLE extra").await;
        }
        // Equal accesses share; what a name stood for before does not count.
        assert_eq!(rows(&granted, "WITH late AS (SELECT 1) SELECT count(*) FROM late").await, "1");
        execute(&full, "CREATE TABLE late AS SELECT 5 AS a").await;
        assert_denied(granted.query("SELECT count(*) FROM late".into()).await, "late");
    });
}

#[test]
fn a_handle_that_only_reads_reads_everything_and_writes_nothing() {
    block_on(async {
        let (full, _) = with_secret().await;
        let reader = full.with_access(Access::ReadOnly);
        assert_eq!(rows(&reader, "SELECT n FROM secret").await, "42");
        assert_eq!(rows(&reader, "SELECT count(*) FROM sqlite_schema WHERE name = 'mine'").await, "1");
        assert_eq!(rows(&reader, "PRAGMA integrity_check").await, "ok");
        for sql in ["INSERT INTO mine (a) VALUES (1)", "SELECT 1", "VACUUM", "PRAGMA user_version = 1"] {
            assert_denied(reader.execute(sql.into()).await, sql);
        }
        assert!(matches!(reader.query("DELETE FROM mine".into()).await, Err(SqlError::AccessDenied(_))));
    });
}

#[test]
fn the_last_rowid_of_another_is_not_shown() {
    block_on(async {
        let (full, granted) = with_secret().await;
        execute(&full, "INSERT INTO secret (rowid, key) VALUES (777, 'k')").await;
        let outcome = execute(&granted, "DELETE FROM mine").await;
        assert_eq!((outcome.rows_written, outcome.last_insert_rowid), (1, 0));
        let shown = granted.execute("SELECT last_insert_rowid(), changes(), total_changes()".into()).await;
        assert!(!text(&shown.unwrap()).contains("777"));
    });
}
