//! SQL databases over the data API.

use http::Method;
use serde_json::{Value, json};

use super::{client, start};
use crate::support::Client;

async fn run(app: &Client, body: Value) -> Value {
    let answer = app.call(Method::POST, "/api/sql/reports", &[], body.to_string()).await;
    assert!(answer.status.is_success(), "{body}: {}", answer.text());
    answer.json()
}

async fn refused(app: &Client, body: Value) -> (u16, String, String) {
    let answer = app.call(Method::POST, "/api/sql/reports", &[], body.to_string()).await;
    let (status, code) = answer.error();
    (status, code, answer.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_answered_with_columns_rows_and_what_they_wrote() {
    let server = start();
    let app = client(&server, &["--sql", "reports:read-write"]);
    run(&app, json!({ "sql": "create table t (id integer primary key, x)" })).await;
    let insert = json!({ "sql": "insert into t (x) values (?1), (?2), (?3)", "params": [1.5, null, { "hex": "00ff" }] });
    let written = run(&app, insert).await;
    assert_eq!((&written["rows_written"], &written["last_insert_rowid"]), (&json!(3), &json!(3)));
    let found = run(&app, json!({ "sql": "select x, id from t order by id" })).await;
    assert_eq!(found["columns"], json!(["x", "id"]));
    assert_eq!(found["rows"], json!([[1.5, 1], [null, 2], [{ "hex": "00ff" }, 3]]));
    let (status, _, text) = refused(&app, json!({ "sql": "selec" })).await;
    assert!(status == 400 && text.contains("syntax error"), "{text}");
    for wrong in [
        json!({}),
        json!({ "sql": "select 1", "batch": [] }),
        json!({ "batch": [], "params": [] }),
        json!({ "batch": [{ "sql": "select 1" }], "params": [1] }),
        json!({ "sql": "select ?1" }),
        json!({ "sql": "select ?1", "params": [[1]] }),
        json!({ "sql": "select ?1", "params": [18_446_744_073_709_551_615_u64] }),
        json!({ "sql": "select 1; select 2" }),
        json!({ "sql": "begin" }),
        json!({ "statement": "select 1" }),
    ] {
        let (status, code, text) = refused(&app, wrong.clone()).await;
        assert!(status == 400 && code == "invalid" || wrong["batch"] == json!([]), "{wrong}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_transaction() {
    let server = start();
    let app = client(&server, &["--sql", "reports:read-write"]);
    let made = run(
        &app,
        json!({ "batch": [
        { "sql": "create table t (x unique)" },
        { "sql": "insert into t values (?1)", "params": ["a"] },
        { "sql": "select count(*) from t" },
    ] }),
    )
    .await;
    let results = made["results"].as_array().unwrap();
    assert_eq!((results.len(), &results[2]["rows"]), (3, &json!([[1]])));
    let (status, _, text) = refused(
        &app,
        json!({ "batch": [
        { "sql": "insert into t values ('b')" },
        { "sql": "insert into t values ('a')" },
    ] }),
    )
    .await;
    assert!(status == 400 && text.contains("UNIQUE"), "{text}");
    assert_eq!(run(&app, json!({ "sql": "select count(*) from t" })).await["rows"], json!([[1]]));
    let (_, _, text) =
        refused(&app, json!({ "batch": [{ "sql": "select 1" }, { "sql": "select ?1", "params": [{}] }] }))
            .await;
    assert!(text.contains("batch[1]: params, ?1"), "{text}");
    let many: Vec<_> = (0..1001).map(|_| json!({ "sql": "select 1" })).collect();
    assert_eq!(refused(&app, json!({ "batch": many })).await.0, 413);
    let many = vec![json!({ "sql": "select 1", "params": vec![0; 150] }); 1000];
    let (status, _, text) = refused(&app, json!({ "batch": many })).await;
    assert!(status == 413 && text.contains("`params`"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_only_reads_only_reads_and_one_of_tables_has_only_those() {
    let server = start();
    let all = client(&server, &["--sql", "reports:read-write"]);
    run(
        &all,
        json!({ "batch": [
        { "sql": "create table open (x)" },
        { "sql": "create table shut (x)" },
        { "sql": "insert into open values (1)" },
    ] }),
    )
    .await;
    let reader = client(&server, &["--sql", "reports:read"]);
    assert_eq!(
        run(&reader, json!({ "sql": "select x from open union all select x from shut" })).await["rows"],
        json!([[1]])
    );
    let writes = [
        "insert into open values (2)",
        "update open set x = 3",
        "delete from open",
        "drop table open",
        "create table more (x)",
        "with a as (select 1) insert into open select * from a",
        "insert into open values (2) returning x",
        "pragma user_version = 1",
        "attach 'x' as y",
    ];
    let some_reads = client(&server, &["--sql", "reports:read:open"]);
    for (app, sql) in writes.iter().flat_map(|sql| [(&reader, sql), (&some_reads, sql)]) {
        let (status, code, text) = refused(app, json!({ "sql": sql })).await;
        assert_eq!((status, code.as_str()), (403, "scope_missing"), "{sql}: {text}");
        let (status, _, text) = refused(app, json!({ "batch": [{ "sql": sql }] })).await;
        assert_eq!(status, 403, "{sql}: {text}");
    }
    // A batch is the writer's, whatever is in it.
    for app in [&reader, &some_reads] {
        let (status, code, text) = refused(app, json!({ "batch": [{ "sql": "select x from open" }] })).await;
        assert_eq!((status, code.as_str()), (403, "scope_missing"), "{text}");
        assert!(text.contains("reports:read-write"), "{text}");
    }
    for sql in ["vacuum", "begin immediate"] {
        let (status, _, text) = refused(&reader, json!({ "sql": sql })).await;
        assert!(matches!(status, 400 | 403), "{sql}: {text}");
    }
    let some = client(&server, &["--sql", "reports:read-write:open"]);
    run(&some, json!({ "sql": "insert into open values (2)" })).await;
    for app in [&some, &some_reads] {
        run(app, json!({ "sql": "select count(*) from open" })).await;
        for sql in [
            "select * from shut",
            "select * from open join shut",
            "select * from sqlite_schema",
            "drop table open",
        ] {
            let (status, code, text) = refused(app, json!({ "sql": sql })).await;
            assert_eq!((status, code.as_str()), (403, "scope_missing"), "{sql}: {text}");
        }
    }
    assert_eq!(refused(&some_reads, json!({ "sql": "insert into open values (3)" })).await.0, 403);
    assert_eq!(run(&all, json!({ "sql": "select count(*) from open" })).await["rows"], json!([[2]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_does_not_end_and_a_result_that_is_too_large_are_refused() {
    let server = start();
    let app = client(&server, &["--sql", "reports:read"]);
    let endless = "with recursive n (x) as (select 1 union all select x + 1 from n)";
    let (status, code, text) =
        refused(&app, json!({ "sql": format!("{endless} select count(*) from n") })).await;
    assert_eq!((status, code.as_str()), (503, "unavailable"), "{text}");
    let (status, _, text) = refused(&app, json!({ "sql": format!("{endless} select x from n") })).await;
    assert!(status == 413 && text.contains("rows"), "{text}");
    let (status, _, text) = refused(&app, json!({ "sql": "select hex(zeroblob(5000000))" })).await;
    assert!(status == 413 && text.contains("bytes"), "{text}");
    let writer = client(&server, &["--sql", "reports:read-write"]);
    run(&writer, json!({ "sql": format!("create table w ({})", "x".repeat(100_000)) })).await;
    let wide = json!({ "sql": "select * from w, w a, w b, w c, w d, w e, w f, w g" });
    let wide = vec![wide; 100];
    let (status, _, text) = refused(&writer, json!({ "batch": wide })).await;
    assert!(status == 413 && text.contains("names"), "{text}");
    let long = format!("select '{}'", "x".repeat(300_000));
    assert_eq!(refused(&app, json!({ "sql": long })).await.0, 413);
}
