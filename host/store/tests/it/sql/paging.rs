//! Results that come in pages.

use std::time::Duration;

use tollgate_store::{
    Database, SqlError, Statement, Store, Value,
    sql::limits::{PAGE_BYTES_MOST, PAGE_ROWS, PAGED_READS, RESULT_ROWS},
};

use crate::support::Memory;

const COUNT: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT i, i * 2 AS twice FROM n";
const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";

fn open() -> (Store, Database) {
    let store = Memory::default().open();
    let database = store.database("d").unwrap();
    (store, database)
}

fn is_late<T>(result: &Result<T, SqlError>) -> bool {
    matches!(result, Err(SqlError::Unavailable(text)) if text.contains("deadline"))
}

#[tokio::test]
async fn a_result_larger_than_any_answer_comes_whole_in_pages() {
    let (_store, database) = open();
    let most = i64::try_from(RESULT_ROWS).unwrap() * 2 + 7;
    let statement = Statement::new(COUNT, vec![most.into()]);
    assert!(matches!(database.query(statement.clone()).await, Err(SqlError::TooLarge(_))));
    let mut pages = database.with_deadline(Duration::from_secs(60)).pages(statement).await.unwrap();
    assert_eq!(pages.columns(), ["i", "twice"]);
    let mut next = 1;
    while let Some(rows) = pages.next().await.unwrap() {
        assert!((1..=PAGE_ROWS).contains(&rows.len()), "{}", rows.len());
        for row in rows {
            assert_eq!(row, [Value::Integer(next), Value::Integer(next * 2)]);
            next += 1;
        }
    }
    assert_eq!(next, most + 1);
    assert_eq!(pages.next().await, Ok(None), "the end stays the end");
}

#[tokio::test]
async fn a_page_of_large_rows_ends_at_its_bytes() {
    let (_store, database) = open();
    let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) SELECT randomblob(300000) FROM n";
    let mut pages = database.pages(sql.into()).await.unwrap();
    let mut rows = 0;
    while let Some(page) = pages.next().await.unwrap() {
        assert!((page.len() - 1) * 300_000 < PAGE_BYTES_MOST, "{}", page.len());
        rows += page.len();
    }
    assert_eq!(rows, 20);
}

#[tokio::test]
async fn a_result_without_rows_has_its_columns_and_no_page() {
    let (_store, database) = open();
    let mut pages = database.pages("SELECT 1 AS one, 2 AS two WHERE false".into()).await.unwrap();
    assert_eq!(pages.columns(), ["one", "two"]);
    assert_eq!(pages.next().await, Ok(None));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_at_once() {
    let (_store, database) = open();
    database.execute("CREATE TABLE t (a)".into()).await.unwrap();
    for sql in ["INSERT INTO t VALUES (1)", "SELECT b FROM t", "SELECT 1; SELECT 2", "", "BEGIN"] {
        assert!(matches!(database.pages(sql.into()).await, Err(SqlError::Invalid(_))), "{sql}");
    }
    let error = database.pages("ATTACH 'file:/tmp/x?vfs=unix' AS x".into()).await.unwrap_err();
    assert!(matches!(error, SqlError::AccessDenied(_) | SqlError::Invalid(_)), "{error:?}");
    // An error that only shows after some pages.
    let late = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        SELECT CASE WHEN i < 4000 THEN i ELSE abs(-9223372036854775807 - 1) END FROM n";
    let mut pages = database.pages(late.into()).await.unwrap();
    let mut rows = 0;
    let error = loop {
        match pages.next().await {
            Ok(page) => rows += page.unwrap().len(),
            Err(error) => break error,
        }
    };
    assert_eq!((rows, error), (3 * PAGE_ROWS, SqlError::Invalid("integer overflow".to_owned())));
    assert_eq!(pages.next().await, Ok(None));
}

#[tokio::test]
async fn pages_are_of_one_snapshot_and_hold_up_no_writer() {
    let (_store, database) = open();
    database.execute("CREATE TABLE t AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n".into()).await.unwrap();
    let mut pages = database.pages("SELECT i FROM t".into()).await.unwrap();
    let first = pages.next().await.unwrap().unwrap().len();
    database.execute("UPDATE t SET i = -1".into()).await.unwrap();
    database.execute("DELETE FROM t WHERE rowid > 10".into()).await.unwrap();
    let mut rows = first;
    while let Some(page) = pages.next().await.unwrap() {
        assert!(page.iter().flatten().all(|value| matches!(value, Value::Integer(1..))));
        rows += page.len();
    }
    assert_eq!(rows, 5000);
    let now = database.query("SELECT count(*), max(i) FROM t".into()).await.unwrap();
    assert_eq!(now.rows, [[Value::Integer(10), Value::Integer(-1)]]);
}

#[tokio::test]
async fn a_deadline_ends_pages_and_a_reader_that_leaves_frees_its_place() {
    let (_store, database) = open();
    let mut pages = database.with_deadline(Duration::from_millis(300)).pages(ENDLESS.into()).await.unwrap();
    let end = loop {
        match pages.next().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(is_late(&end), "{end:?}");
    for _ in 0..PAGED_READS * 3 {
        database.pages(ENDLESS.into()).await.unwrap();
    }
}

#[tokio::test]
async fn readers_of_pages_have_places_of_their_own() {
    let (store, database) = open();
    let mut held = Vec::new();
    for _ in 0..PAGED_READS {
        held.push(database.pages(ENDLESS.into()).await.unwrap());
    }
    let more = database.with_deadline(Duration::from_millis(50)).pages(ENDLESS.into()).await;
    assert!(is_late(&more), "{more:?}");
    assert_eq!(database.query("SELECT 1".into()).await.unwrap().rows, [[Value::Integer(1)]]);
    // Closing does not wait for readers that take nothing.
    store.close().await.unwrap();
    for mut pages in held {
        while let Ok(Some(_)) = pages.next().await {}
        assert_eq!(pages.next().await, Ok(None));
    }
}
