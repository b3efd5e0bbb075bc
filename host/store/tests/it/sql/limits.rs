//! What one caller can ask of SQL, and no more.

use std::{process::Command, time::Duration};

use tollgate_store::{
    SqlError, Statement, Value,
    sql::limits::{HEAP_BYTES, PARAMETERS, STATEMENT_BYTES, VALUE_BYTES},
};

use crate::support::Memory;

#[tokio::test]
async fn statements_parameters_and_values_have_limits() {
    let store = Memory::default().open();
    let database = store.database("d").unwrap();
    let list = |count: usize| vec!["?"; count].join(",");
    let most = Statement::new(format!("SELECT 1 IN ({})", list(PARAMETERS)), vec![Value::Null; PARAMETERS]);
    database.query(most).await.unwrap();
    let more = PARAMETERS + 1;
    let more = Statement::new(format!("SELECT 1 IN ({})", list(more)), vec![Value::Null; more]);
    assert!(matches!(database.query(more).await, Err(SqlError::Invalid(text)) if text.contains("variable")));
    let long = format!("SELECT 1 /*{}*/", "x".repeat(STATEMENT_BYTES));
    assert!(matches!(database.query(long.as_str().into()).await, Err(SqlError::TooLarge(_))));
    assert!(matches!(database.pages(long.as_str().into()).await, Err(SqlError::TooLarge(_))));
    let large = Statement::new("SELECT length(?1)", vec![Value::Blob(vec![0; VALUE_BYTES + 1])]);
    assert!(matches!(database.pages(large).await, Err(SqlError::TooLarge(_))));
    for deep in [
        format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("SELECT {}", vec!["1"; 20_000].join("+")),
        vec!["SELECT 1"; 2_000].join(" UNION ALL "),
        format!("SELECT {}", vec!["1"; 5_000].join(",")),
        format!("SELECT '{}' LIKE '{}'", "a".repeat(60_000), "%a".repeat(30_000)),
    ] {
        let error = database.query(deep.as_str().into()).await.unwrap_err();
        assert!(matches!(error, SqlError::Invalid(_) | SqlError::TooLarge(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_deadline_ends_statements_that_read_and_that_write() {
    let store = Memory::default().open();
    let database = store.database("d").unwrap();
    database.execute("CREATE TABLE t (a)".into()).await.unwrap();
    let hasty = database.with_deadline(Duration::from_millis(100));
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    for result in [
        hasty.query(format!("{endless} SELECT count(*) FROM n").as_str().into()).await,
        hasty.execute(format!("{endless} SELECT count(*) FROM n").as_str().into()).await,
        hasty.execute(format!("{endless} INSERT INTO t SELECT 1 FROM n WHERE i < 0").as_str().into()).await,
    ] {
        assert!(
            matches!(&result, Err(SqlError::Unavailable(text)) if text.contains("deadline")),
            "{result:?}"
        );
    }
    assert_eq!(database.query("SELECT count(*) FROM t".into()).await.unwrap().rows, [[Value::Integer(0)]]);
}

/// The child: asks for 32 GB in one statement, in each of the ways to run one.
#[tokio::test]
#[ignore = "runs as the child of the next test, because what it does others in its process would feel"]
async fn glutton() {
    let store = Memory::default().open();
    let database = store.database("d").unwrap();
    let sql = format!("SELECT {}", vec![format!("randomblob({})", VALUE_BYTES - 100); 2_000].join(","));
    for result in [
        database.query(sql.as_str().into()).await.map(drop),
        database.execute(sql.as_str().into()).await.map(drop),
        database.pages(sql.as_str().into()).await.map(drop),
    ] {
        assert!(matches!(&result, Err(SqlError::Unavailable(text)) if text.contains("memory")), "{result:?}");
    }
    database.execute("CREATE TABLE t AS SELECT 1 AS a".into()).await.unwrap();
    assert_eq!(database.query("SELECT a FROM t".into()).await.unwrap().rows, [[Value::Integer(1)]]);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: i64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    // The allocator keeps some of what was freed.
    assert!(kib * 1024 < 3 * HEAP_BYTES, "{kib} KiB");
}

#[test]
fn a_statement_that_wants_all_memory_fails_alone() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["sql::limits::glutton", "--exact", "--ignored", "--quiet"])
        .status()
        .unwrap();
    assert!(status.success());
}
