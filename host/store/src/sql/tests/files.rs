//! What SQLite does to its file: growing, shrinking, changing the page size, failing.

use super::*;
use crate::sql::limits::{DATABASES, RESULT_ROWS, TRANSACTION_BYTES};

const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
    INSERT INTO t SELECT i, hex(randomblob(100)) FROM n";

async fn fill(database: &Database, count: i64) {
    execute(database, "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body TEXT)").await;
    database.execute(Statement::new(FILL, vec![count.into()])).await.unwrap();
}

fn stored_chunks(committer: &TestCommitter) -> u64 {
    pages::stored(&committer.begin_read().unwrap()).unwrap()
}

#[test]
fn vacuum_shrinks_the_file_and_frees_its_chunks() {
    block_on(async {
        let (database, committer) = database();
        fill(&database, 20_000).await;
        let full = stored_chunks(&committer);
        execute(&database, "DELETE FROM t WHERE id % 10 <> 0").await;
        execute(&database, "VACUUM").await;
        let after = stored_chunks(&committer);
        assert!(after < full / 5, "{after} of {full}");
        assert_eq!(rows(&database, "SELECT count(*), min(id), max(id) FROM t").await, "2000|10|20000");
        check_integrity(&database).await;
    });
}

#[test]
fn the_page_size_can_change_up_and_down() {
    block_on(async {
        let (database, _) = database();
        fill(&database, 5_000).await;
        let sum = rows(&database, "SELECT count(*), sum(length(body)) FROM t").await;
        for size in ["512", "65536", "8192", "1024", "4096"] {
            execute(&database, &format!("PRAGMA page_size = {size}")).await;
            execute(&database, "VACUUM").await;
            check_integrity(&database).await;
            assert_eq!(rows(&database, "PRAGMA page_size").await, size);
            execute(&database, "INSERT INTO t (body) VALUES ('more')").await;
            execute(&database, "DELETE FROM t WHERE body = 'more'").await;
            assert_eq!(rows(&database, "SELECT count(*), sum(length(body)) FROM t").await, sum);
        }
    });
}

#[test]
fn auto_vacuum_gives_pages_back() {
    block_on(async {
        let (database, committer) = database();
        execute(&database, "PRAGMA auto_vacuum = FULL").await;
        execute(&database, "VACUUM").await;
        fill(&database, 10_000).await;
        let full = stored_chunks(&committer);
        execute(&database, "DELETE FROM t WHERE id > 100").await;
        assert!(stored_chunks(&committer) < full / 10);
        check_integrity(&database).await;
        execute(&database, "INSERT INTO t (body) SELECT body FROM t").await;
        check_integrity(&database).await;
    });
}

#[test]
fn a_new_page_fits_one_leaf_of_redb() {
    block_on(async {
        let (database, committer) = database();
        fill(&database, 20_000).await;
        let transaction = committer.begin_read().unwrap();
        let (stored, kept) = pages::space(&transaction).unwrap();
        assert!(kept * 100 < stored * 125, "{kept} bytes of redb for {stored} of pages");
    });
}

#[test]
fn a_large_transaction_that_fails_leaves_nothing() {
    block_on(async {
        let (database, committer) = database();
        fill(&database, 1_000).await;
        let before = rows(&database, "SELECT count(*), sum(length(body)) FROM t").await;
        let commits = committer.commits.load(Ordering::SeqCst);
        let statements = vec![
            "DELETE FROM t WHERE id % 3 = 0".into(),
            Statement::new(FILL.replace("SELECT i,", "SELECT i + 10000,"), vec![60_000.into()]),
            "UPDATE t SET body = body || 'x'".into(),
            "INSERT INTO t VALUES (10001, 'twice')".into(),
        ];
        let error = database.batch(statements).await.unwrap_err();
        assert_eq!(error, SqlError::Invalid("UNIQUE constraint failed: t.id".to_owned()));
        assert_eq!(commits, committer.commits.load(Ordering::SeqCst));
        assert_eq!(rows(&database, "SELECT count(*), sum(length(body)) FROM t").await, before);
        execute(&database, "INSERT INTO t VALUES (10001, 'once')").await;
        check_integrity(&database).await;
    });
}

#[test]
fn a_transaction_over_the_limit_is_too_large_and_leaves_nothing() {
    block_on(async {
        let (database, _) = database();
        let database = database.with_deadline(std::time::Duration::from_secs(60));
        fill(&database, 10).await;
        let count = i64::try_from(TRANSACTION_BYTES / 10_000 + 200).unwrap();
        let sql = FILL
            .replace("hex(randomblob(100))", "zeroblob(1) || randomblob(10000)")
            .replace("SELECT i,", "SELECT -i,");
        let error = database.execute(Statement::new(sql, vec![count.into()])).await.unwrap_err();
        assert!(matches!(error, SqlError::TooLarge(_)), "{error:?}");
        assert_eq!(rows(&database, "SELECT count(*) FROM t").await, "10");
        execute(&database, "INSERT INTO t (body) VALUES ('after')").await;
        check_integrity(&database).await;
    });
}

#[test]
fn results_statements_and_values_over_their_limits_are_too_large() {
    block_on(async {
        let (database, _) = database();
        let many = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= {RESULT_ROWS}) SELECT i FROM n"
        );
        for sql in [
            many.as_str(),
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT randomblob(1000000) FROM n",
            "SELECT length(randomblob(100000000))",
            "SELECT length(zeroblob(10000000) || zeroblob(10000000))",
            &format!("SELECT 1 -- {}", "x".repeat(300_000)),
        ] {
            let error = database.query(sql.into()).await.unwrap_err();
            assert!(matches!(error, SqlError::TooLarge(_)), "{}: {error:?}", &sql[..60.min(sql.len())]);
        }
        let large = Statement::new("SELECT ?1", vec![Value::Blob(vec![0; 17 << 20])]);
        assert!(matches!(database.execute(large).await, Err(SqlError::TooLarge(_))));
        let statements = vec![Statement::from("SELECT 1"); 10_001];
        assert!(matches!(database.batch(statements).await, Err(SqlError::TooLarge(_))));
        assert!(matches!(database.query("SELECT ?9000".into()).await, Err(SqlError::Invalid(_))));
    });
}

#[test]
fn a_sort_larger_than_the_temporary_space_is_too_large() {
    block_on(async {
        let (database, _) = database();
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
            SELECT count(*) FROM (SELECT randomblob(1000000) AS b FROM n ORDER BY b LIMIT -1 OFFSET 1)";
        let error = database.query(sql.into()).await.unwrap_err();
        assert!(matches!(error, SqlError::TooLarge(_)), "{error:?}");
        assert_eq!(rows(&database, "SELECT 1").await, "1");
    });
}

#[test]
fn a_failed_commit_leaves_writer_and_readers_as_before() {
    block_on(async {
        let (database, committer) = database();
        fill(&database, 500).await;
        for round in 0..100 {
            let before = rows(&database, "SELECT count(*), sum(id), total(length(body)) FROM t").await;
            committer.fails.store(true, Ordering::SeqCst);
            for sql in [
                "UPDATE t SET body = body || ' bad'",
                "INSERT INTO t (body) VALUES (' bad')",
                "CREATE TABLE bad (a)",
            ] {
                let error = database.execute(sql.into()).await.unwrap_err();
                assert_eq!(error, SqlError::Unavailable("injected".to_owned()));
                assert_eq!(
                    rows(&database, "SELECT count(*), sum(id), total(length(body)) FROM t").await,
                    before
                );
            }
            committer.fails.store(false, Ordering::SeqCst);
            // The same change counter as the failed commit, with other content.
            execute(&database, &format!("UPDATE t SET body = 'good{round}' WHERE id % 7 = {}", round % 7))
                .await;
            assert_eq!(rows(&database, "SELECT count(*) FROM t WHERE body LIKE '% bad'").await, "0");
            let own = execute(&database, "SELECT count(*) FROM t WHERE body LIKE '% bad'").await;
            assert_eq!(text(&own), "0");
        }
        check_integrity(&database).await;
    });
}

#[test]
fn databases_of_one_store_are_apart_and_keep_their_content() {
    block_on(async {
        let committer = TestCommitter::in_memory();
        let databases = Databases::default();
        let one = databases.open_on(committer.clone(), None, "one").unwrap();
        let two = databases.open_on(committer.clone(), None, "two").unwrap();
        execute(&two, "CREATE TABLE t AS SELECT 2 AS n").await;
        execute(&one, "CREATE TABLE t AS SELECT 1 AS n").await;
        let again = databases.open_on(committer.clone(), None, "one").unwrap();
        assert_eq!(rows(&again, "SELECT n FROM t").await, "1");
        databases.close().await;
        assert!(matches!(one.execute("SELECT 1".into()).await, Err(SqlError::Storage(_))));
        assert!(matches!(one.query("SELECT 1".into()).await, Err(SqlError::Storage(_))));
        let reopened = Databases::default();
        for (name, expected) in [("two", "2"), ("one", "1"), ("three", "")] {
            let database = reopened.open_on(committer.clone(), None, name).unwrap();
            execute(&database, "CREATE TABLE IF NOT EXISTS t (n)").await;
            assert_eq!(rows(&database, "SELECT n FROM t").await, expected, "{name}");
            check_integrity(&database).await;
        }
    });
}

#[test]
fn a_store_with_all_its_databases_still_opens_those() {
    let (committer, databases) = (TestCommitter::in_memory(), Databases::default());
    let open = |number: usize| databases.open_on(committer.clone(), None, &number.to_string());
    for number in 0..DATABASES {
        open(number).unwrap();
    }
    assert!(open(0).is_ok());
    assert!(matches!(open(DATABASES), Err(SqlError::TooLarge(_))));
}
