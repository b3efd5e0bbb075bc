//! SQLite's dialect works as it does on a file.

use super::*;

/// Runs statements, then compares a query's rows.
fn check(statements: &[&str], query: &str, expected: &str) {
    block_on(async {
        let (database, _) = database();
        for sql in statements {
            execute(&database, sql).await;
        }
        assert_eq!(rows(&database, query).await, expected, "{query}");
        check_integrity(&database).await;
    });
}

#[test]
fn upsert_and_replace_write_one_row() {
    check(
        &[
            "CREATE TABLE t (k TEXT PRIMARY KEY, n INTEGER) STRICT, WITHOUT ROWID",
            "INSERT INTO t VALUES ('a', 1), ('b', 1)",
            "INSERT INTO t VALUES ('a', 5) ON CONFLICT (k) DO UPDATE SET n = n + excluded.n",
            "INSERT OR REPLACE INTO t VALUES ('b', 9)",
            "INSERT OR IGNORE INTO t VALUES ('b', 10)",
        ],
        "SELECT k, n FROM t ORDER BY k",
        "a|6 b|9",
    );
}

#[test]
fn returning_gives_rows_and_counts() {
    block_on(async {
        let (database, _) = database();
        execute(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, n)").await;
        let inserted = execute(&database, "INSERT INTO t (n) VALUES (1), (2) RETURNING id, n").await;
        assert_eq!(
            (text(&inserted).as_str(), inserted.rows_written, inserted.last_insert_rowid),
            ("1|1 2|2", 2, 2)
        );
        assert_eq!(*inserted.columns, ["id", "n"]);
        let updated = execute(&database, "UPDATE t SET n = n * 10 RETURNING n").await;
        assert_eq!(
            (text(&updated).as_str(), updated.rows_written, updated.last_insert_rowid),
            ("10 20", 2, 0)
        );
        let created = execute(&database, "CREATE TABLE u (a)").await;
        assert_eq!((created.rows_written, created.last_insert_rowid), (0, 0));
    });
}

#[test]
fn foreign_keys_cascade_and_refuse() {
    check(
        &[
            "CREATE TABLE p (id INTEGER PRIMARY KEY)",
            "CREATE TABLE c (p REFERENCES p ON DELETE CASCADE)",
            "INSERT INTO p VALUES (1), (2)",
            "INSERT INTO c VALUES (1), (1), (2)",
            "DELETE FROM p WHERE id = 1",
        ],
        "SELECT count(*) FROM c",
        "1",
    );
    block_on(async {
        let (database, _) = database();
        execute(&database, "CREATE TABLE p (id INTEGER PRIMARY KEY)").await;
        execute(&database, "CREATE TABLE c (p REFERENCES p)").await;
        let error = database.execute("INSERT INTO c VALUES (7)".into()).await.unwrap_err();
        assert_eq!(error, SqlError::Invalid("FOREIGN KEY constraint failed".to_owned()));
    });
}

#[test]
fn queries_have_ctes_windows_json_and_unions() {
    let setup = &["CREATE TABLE t (a, b)", "INSERT INTO t VALUES ('x', 1), ('x', 2), ('y', 5)"];
    check(
        setup,
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 4) SELECT sum(i) FROM n",
        "10",
    );
    check(setup, "SELECT a, sum(b) OVER (PARTITION BY a ORDER BY b) FROM t", "x|1 x|3 y|5");
    check(setup, "SELECT json_extract('{\"a\":[1,2]}', '$.a[1]'), '{\"k\":3}' ->> 'k'", "2|3");
    check(setup, "SELECT value FROM json_each('[4,5]')", "4 5");
    check(setup, "SELECT a FROM t UNION SELECT 'z' ORDER BY 1", "x y z");
    check(setup, "SELECT name FROM pragma_table_info('t')", "a b");
}

#[test]
fn triggers_views_and_indexes_of_every_kind_work() {
    check(
        &[
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b INTEGER)",
            "CREATE TABLE log (what TEXT)",
            "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a || '!'); END",
            "CREATE VIEW v AS SELECT a, b FROM t WHERE b > 1",
            "CREATE UNIQUE INDEX part ON t (b) WHERE a IS NOT NULL",
            "CREATE INDEX expr ON t (lower(a))",
            "INSERT INTO t (a, b) VALUES ('A', 1), ('B', 2), (NULL, 2)",
        ],
        "SELECT group_concat(what, ','), (SELECT count(*) FROM v), (SELECT b FROM t WHERE lower(a) = 'b') FROM log",
        "A!,B!|2|2",
    );
}

#[test]
fn full_text_search_and_rtree_work() {
    check(
        &[
            "CREATE VIRTUAL TABLE f USING fts5 (body)",
            "INSERT INTO f VALUES ('the quick fox'), ('a slow dog')",
            "CREATE VIRTUAL TABLE r USING rtree (id, x0, x1)",
            "INSERT INTO r VALUES (1, 0, 2), (2, 5, 6)",
        ],
        "SELECT (SELECT body FROM f WHERE f MATCH 'quick'), (SELECT id FROM r WHERE x0 > 4)",
        "the quick fox|2",
    );
}

#[test]
fn tables_can_be_altered() {
    check(
        &[
            "CREATE TABLE t (a, b)",
            "INSERT INTO t VALUES (1, 2)",
            "ALTER TABLE t ADD COLUMN c NOT NULL DEFAULT 3 CHECK (c > 0)",
            "ALTER TABLE t RENAME COLUMN a TO z",
            "ALTER TABLE t DROP COLUMN b",
            "ALTER TABLE t RENAME TO u",
        ],
        "SELECT z, c FROM u",
        "1|3",
    );
}

#[test]
fn pragmas_that_inspect_or_mark_work() {
    block_on(async {
        let (database, _) = database();
        execute(&database, "CREATE TABLE t (a)").await;
        execute(&database, "PRAGMA user_version = 7").await;
        assert_eq!(rows(&database, "PRAGMA user_version").await, "7");
        assert_eq!(rows(&database, "PRAGMA page_size").await, "4096");
        assert_eq!(rows(&database, "PRAGMA foreign_keys").await, "1");
        assert_eq!(rows(&database, "SELECT count(*) FROM pragma_table_list WHERE name = 't'").await, "1");
        assert_eq!(text(&execute(&database, "PRAGMA optimize").await), "");
        check_integrity(&database).await;
    });
}

#[test]
fn a_query_refuses_what_writes_and_a_second_statement() {
    block_on(async {
        let (database, _) = database();
        execute(&database, "CREATE TABLE t (a)").await;
        for sql in [
            "INSERT INTO t VALUES (1)",
            "DROP TABLE t",
            "VACUUM",
            "PRAGMA user_version = 3",
            "CREATE TABLE u (a)",
        ] {
            let error = database.query(sql.into()).await.unwrap_err();
            assert_eq!(
                error,
                SqlError::Invalid("the statement writes; a query only reads".to_owned()),
                "{sql}"
            );
        }
        for sql in ["SELECT 1; SELECT 2", "SELECT 1; garbage", "", "  -- nothing", ";", ";; SELECT 1"] {
            assert!(matches!(database.query(sql.into()).await, Err(SqlError::Invalid(_))), "{sql}");
            assert!(matches!(database.execute(sql.into()).await, Err(SqlError::Invalid(_))), "{sql}");
        }
        assert_eq!(rows(&database, "SELECT 1; -- the end").await, "1");
        for sql in ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "RELEASE call", "END", "ROLLBACK TO call"] {
            for result in [database.query(sql.into()).await, database.execute(sql.into()).await] {
                assert!(matches!(result, Err(SqlError::Invalid(_))), "{sql}: {result:?}");
            }
        }
        check_integrity(&database).await;
    });
}

#[test]
fn values_of_all_types_come_back_as_they_went() {
    block_on(async {
        let (database, _) = database();
        let values = vec![
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(0.1),
            Value::from("späť\0 \u{1f600}"),
            Value::Blob(vec![0, 255]),
            Value::from(""),
        ];
        let read =
            database.query(Statement::new("SELECT ?1, ?2, ?3, ?4, ?5, ?6", values.clone())).await.unwrap();
        assert_eq!(read.rows, [values]);
        let error = database.query(Statement::new("SELECT ?1, ?2", vec![Value::Null])).await.unwrap_err();
        assert_eq!(error, SqlError::Invalid("the statement has 2 parameters, 1 were given".to_owned()));
    });
}
