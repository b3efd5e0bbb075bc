//! What one caller can ask of SQL, and no more.

use std::{
    future::Future,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use tollgate_store::{
    SqlError, Statement, Value,
    sql::limits::{
        FUNCTION_ARGUMENTS, HEAP_BYTES, LIKE_PATTERN_BYTES, PARAMETERS, STATEMENT_BYTES, VALUE_BYTES,
    },
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

/// A deadline is looked at between the steps of a statement, and a function is one step: SQLite's own took up to minutes with
/// these arguments.
#[tokio::test]
async fn no_function_runs_long_beyond_the_deadline() {
    let store = Memory::default().open();
    let database = store.database("d").unwrap().with_deadline(Duration::from_millis(200));
    let repeat = |text: &str, count: usize| Value::Text(text.repeat(count));
    let many = 1_000_000;
    let long_part = Value::Text("a".repeat(many) + "b");
    let names = |prefix: char| {
        let names = (0..100_000).map(|n| format!("\"{prefix}{n}\":1")).collect::<Vec<_>>();
        Value::Text(format!("{{{}}}", names.join(",")))
    };
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    for statement in [
        Statement::new("SELECT instr(?1, ?2)", vec![repeat("a", 3 * many), long_part.clone()]),
        Statement::new("SELECT replace(?1, ?2, 'x')", vec![repeat("a", 3 * many), long_part]),
        Statement::new("SELECT trim(?1, ?2)", vec![repeat("b", many), Value::Text("ä".repeat(many) + "b")]),
        Statement::new("SELECT rtrim(?1, ?2)", vec![repeat("b", many), Value::Text("ä".repeat(many) + "b")]),
        Statement::new("SELECT unhex(?1, ?2)", vec![repeat("-", many), Value::Text("ä".repeat(many) + "-")]),
        Statement::new("SELECT json_patch(?1, ?2)", vec![names('a'), names('b')]),
        Statement::new(
            "SELECT ?1 LIKE ?2",
            vec![repeat("a", many), Value::Text(format!("%{}b", "a".repeat(50_000 - 2)))],
        ),
        Statement::new(
            "SELECT ?1 GLOB ?2",
            vec![repeat("a", many), Value::Text(format!("*{}b", "a".repeat(50_000 - 2)))],
        ),
        Statement::new(
            format!("{endless} SELECT sum(length(hex(zeroblob(8000000 + i)))) FROM n"),
            Vec::new(),
        ),
    ] {
        let started = Instant::now();
        match database.query(statement.clone()).await {
            Ok(_) | Err(SqlError::TooLarge(_) | SqlError::Invalid(_)) => {}
            Err(error) => assert_eq!(error, SqlError::Unavailable("the deadline has passed".to_owned())),
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{}: {:?}", statement.sql, started.elapsed());
    }
}

#[tokio::test]
async fn patterns_and_arguments_have_limits_that_are_named() {
    let store = Memory::default().open();
    let database = store.database("d").unwrap();
    let like = |bytes: usize| Statement::new("SELECT 'a' LIKE ?1", vec![Value::Text("a".repeat(bytes))]);
    database.query(like(LIKE_PATTERN_BYTES)).await.unwrap();
    let error = database.query(like(LIKE_PATTERN_BYTES + 1)).await.unwrap_err();
    assert!(matches!(&error, SqlError::TooLarge(text) if text.contains("256 bytes")), "{error:?}");
    let max = |count: usize| Statement::from(format!("SELECT max({})", vec!["1"; count].join(",")).as_str());
    database.query(max(FUNCTION_ARGUMENTS)).await.unwrap();
    assert!(matches!(database.query(max(FUNCTION_ARGUMENTS + 1)).await, Err(SqlError::Invalid(_))));
    let pieces = |bytes: usize| Value::Text(format!("{{\"a\":\"{}\"}}", "a".repeat(bytes)));
    let patch = Statement::new("SELECT json_patch(?1, ?2)", vec![pieces(40_000), pieces(40_000)]);
    let error = database.query(patch).await.unwrap_err();
    assert!(matches!(&error, SqlError::Invalid(text) if text.contains("1073741824")), "{error:?}");
}

/// Names were once counted by nobody: a batch of wide joins held gigabytes of them.
#[tokio::test]
async fn the_names_of_columns_count_in_a_result() {
    let store = Memory::default().open();
    let database = store.database("d").unwrap();
    let columns: Vec<_> = (0..31).map(|n| format!("c{n}_{}", "x".repeat(8_000))).collect();
    let table = format!("CREATE TABLE w ({})", columns.join(","));
    database.execute(table.as_str().into()).await.unwrap();
    let wide = |number: usize| format!("SELECT * FROM w, w a, w b, w c, w d, w e, w f, w g /*{number}*/");
    let different: Vec<_> = (0..40).map(|number| wide(number).as_str().into()).collect();
    let error = database.batch(different.clone()).await.unwrap_err();
    assert!(matches!(error, SqlError::TooLarge(_)), "{error:?}");
    database.batch(different[..5].to_vec()).await.unwrap();
    let equal = vec![different[0].clone(); 1_000];
    let outcomes = database.batch(equal).await.unwrap();
    assert_eq!(outcomes[0].columns.len(), 8 * 31);
    assert!(outcomes.iter().all(|outcome| Arc::ptr_eq(&outcome.columns, &outcomes[0].columns)));
}

/// Else who is cut again and again would have work on all readers at once.
#[tokio::test]
async fn a_call_whose_caller_has_gone_keeps_its_place_until_its_work_has_ended() {
    let store = Memory::default().open();
    let places = Arc::new(tokio::sync::Semaphore::new(1));
    let place = places.clone().acquire_owned().await.unwrap();
    let database = store.database("d").unwrap().with_place(place);
    // One step of some hundred milliseconds.
    let params = vec![Value::Text("a".repeat(2_000_000)), Value::Text(format!("%{}b", "a".repeat(200)))];
    let mut call = Box::pin(async move { database.query(Statement::new("SELECT ?1 LIKE ?2", params)).await });
    std::future::poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(call);
    assert_eq!(places.available_permits(), 0);
    let freed = tokio::time::timeout(Duration::from_secs(60), places.acquire());
    drop(freed.await.unwrap().unwrap());
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
    // A blob of zeros gets its bytes only when a function of ours asks for them.
    let blobs = vec![format!("randomblob({}), instr(zeroblob({0}), x'01')", VALUE_BYTES - 100); 20].join(",");
    let result = database.query(format!("SELECT {blobs}").as_str().into()).await;
    assert!(matches!(&result, Err(SqlError::Unavailable(text)) if text.contains("memory")), "{result:?}");
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
