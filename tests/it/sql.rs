//! SQL from the command line and over the admin API: results of any size.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::server::ADMIN_TOKEN;
use crate::support::{Server, Setup};

/// More rows than an answer may have.
const ROWS: u64 = 250_000;

fn count(rows: u64) -> String {
    format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        SELECT i, 'row ' || i AS text FROM n"
    )
}

/// The command line with a pipe in place of a terminal.
fn piped(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(args).env("TOLLGATE_SERVER", server.url()).env("TOLLGATE_ADMIN_TOKEN", ADMIN_TOKEN);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_result_of_any_size_is_printed_as_it_comes() {
    let server = Setup::demo().start();
    server.cli_ok(&["sql", "gateway", "select 1"]);
    let before = server.peak_kib();
    let mut child = piped(&server, &["sql", "gateway", &count(ROWS)]).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    for (number, line) in lines.enumerate() {
        let expected = if number == 0 { "i\ttext".to_owned() } else { format!("{number}\trow {number}") };
        assert_eq!(line, expected);
        if number as u64 == ROWS {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
            let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
            assert!(kib < 64 * 1024, "the command line took {kib} KiB");
        }
    }
    assert!(child.wait().unwrap().success());
    // The kernel counts some pages late.
    let grown = server.peak_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "the server took {grown} KiB");
    let json = server.cli_ok(&["sql", "gateway", &count(ROWS), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len() as u64, ROWS);
    assert_eq!(json["columns"], json!(["i", "text"]));
    let empty: Value =
        serde_json::from_str(&server.cli_ok(&["sql", "gateway", "select 1 as one where false", "--json"]))
            .unwrap();
    let rows_written = json!({ "columns": ["one"], "rows": [], "rows_written": 0, "last_insert_rowid": 0 });
    assert_eq!(empty, rows_written);
}

#[test]
fn a_result_that_breaks_off_says_why_and_one_that_nobody_reads_ends() {
    let server = Setup::demo().start();
    let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        SELECT CASE WHEN i < 4000 THEN i ELSE abs(-9223372036854775807 - 1) END AS i FROM n";
    let output = server.cli(&["sql", "gateway", sql]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: invalid: integer overflow\n");
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let mut child = piped(&server, &["sql", "gateway", endless]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!((first.as_str(), child.wait().unwrap().code()), ("i\n", Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_over_http_are_columns_rows_and_an_end() {
    let server = Setup::demo().start();
    let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let lines = async |sql: &str| {
        let request = http::Request::post(format!("{}/admin/v1/sql/gateway", server.url()))
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .header("accept", "application/x-ndjson")
            .body(json!({ "sql": sql }).to_string())
            .unwrap();
        let response = http.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    let (status, text) = lines("select 1 as a, x'ff' as b union all select null, 'x'").await;
    let expected = r#"{"columns":["a","b"]}
[1,{"hex":"ff"}]
[null,"x"]
{"last_insert_rowid":0,"rows":2,"rows_written":0}
"#;
    assert_eq!((status, text.as_str()), (200, expected));
    let written = "{\"columns\":[]}\n{\"last_insert_rowid\":0,\"rows\":0,\"rows_written\":0}\n";
    assert_eq!(lines("create table t (a)").await, (200, written.to_owned()));
    let (status, text) = lines("insert into t values (1), (2) returning a").await;
    assert_eq!(status, 200);
    assert!(text.ends_with("[1]\n[2]\n{\"last_insert_rowid\":2,\"rows\":2,\"rows_written\":2}\n"), "{text}");
    let (status, text) = lines("selec 1").await;
    assert_eq!((status, text.contains("syntax error")), (400, true), "{text}");
}
