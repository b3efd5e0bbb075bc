//! SQL from the command line and over the admin API: results of any size.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
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
        // Not at the end: what is left does not fit into the pipe, so that the process is still there.
        if number as u64 == ROWS * 9 / 10 {
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
    // Without a row yet, too: else the places of such reads would be taken for minutes.
    let silent = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    for _ in 0..6 {
        let mut child = piped(&server, &["sql", "gateway", silent]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(server.cli_ok(&["sql", "gateway", "select 1 as one"]), "one\n1");
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

/// A stock SQLite file with `rows` rows, in the server's folder.
fn stock(server: &Server, name: &str, rows: u64) -> String {
    let path = server.home().join(name);
    let native = rusqlite::Connection::open(&path).unwrap();
    let sql = format!(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT); CREATE INDEX i ON t (body);
        CREATE TABLE p (id INTEGER PRIMARY KEY, t REFERENCES t ON DELETE CASCADE);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
            INSERT INTO t SELECT i, hex(randomblob(20)) FROM n;
        INSERT INTO p SELECT id, id FROM t WHERE id % 10 = 0;"
    );
    native.execute_batch(&sql).unwrap();
    path.to_str().unwrap().to_owned()
}

const SUM: &str =
    "SELECT count(*) || ' ' || total(length(body)) || ' ' || max(body) || (SELECT count(*) FROM p) FROM t";

fn native_sum(path: &str) -> String {
    rusqlite::Connection::open(path).unwrap().query_row(SUM, [], |row| row.get(0)).unwrap()
}

fn sum(server: &Server) -> String {
    server.cli_ok(&["sql", "reports", SUM]).lines().last().unwrap().to_owned()
}

fn refused(server: &Server, args: &[&str], reason: &str) {
    let output = server.cli(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(said.contains(reason) && output.stdout.is_empty(), "{args:?}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_comes_in_and_goes_out_as_a_file_while_the_server_serves() {
    let server = Setup::demo().config("[sql.reports]").start();
    let from = stock(&server, "from.sqlite", 300_000);
    let key = server.key("k", &[]);
    let client = server.client(&key);
    let before = server.peak_kib();
    let import = piped(&server, &["sql", "import", "reports", &from]).spawn().unwrap();
    let import = tokio::task::spawn_blocking(|| import.wait_with_output().unwrap());
    let mut served = 0;
    while !import.is_finished() {
        assert_eq!(client.chat("gpt-test").await.status, 200);
        served += 1;
    }
    let import = import.await.unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    let size = std::fs::metadata(&from).unwrap().len();
    let said = format!("{size} bytes with 2 tables are in `reports`\n");
    assert_eq!(String::from_utf8_lossy(&import.stderr), said);
    assert!(served > 5, "{served}");
    assert_eq!(sum(&server), native_sum(&from));

    let to = server.home().join("to.sqlite");
    let to = to.to_str().unwrap();
    server.cli_ok(&["sql", "export", "reports", to]);
    assert_eq!(native_sum(to), native_sum(&from));
    let grown = server.peak_kib().saturating_sub(before);
    assert!(grown < 200 * 1024, "{size} bytes came and went, and the server grew by {grown} KiB");
    // The stock program's own check, in the version that Python has.
    let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(c.execute('PRAGMA integrity_check').fetchone()[0], c.execute('SELECT count(*) FROM t').fetchone()[0])";
    let python = Command::new("python3").args(["-c", script, to]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&python.stdout), "ok 300000\n");
    refused(&server, &["sql", "export", "reports", to], "exists already");
    refused(&server, &["sql", "export", "nowhere", "x.sqlite"], "there is no database `nowhere`");
    let left: Vec<_> =
        std::fs::read_dir(server.home()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".tollgate")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits for a minute; .ci/run runs it"]
async fn exports_that_nobody_reads_end_and_give_their_places_back() {
    let server = Setup::demo().config("[sql.reports]").start();
    server.cli_ok(&["sql", "import", "reports", &stock(&server, "from.sqlite", 300_000)]);
    let stream = tokio::net::TcpStream::connect(server.url().trim_start_matches("http://")).await.unwrap();
    // Streams on which the server may send nothing but heads, so that no write to the socket is ever late.
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut held = Vec::new();
    for _ in 0..2 {
        let request = http::Request::get(format!("{}/admin/v1/sql/reports/file", server.url()))
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .body(String::new())
            .unwrap();
        held.push(sender.send_request(request).await.unwrap());
    }
    let third = tokio::time::timeout(Duration::from_secs(180), server.get("/admin/v1/sql/reports/file"));
    assert_eq!(third.await.expect("a place is free again").status, 200);
    assert!(held.iter().all(|answer| answer.status() == 200) && !connection.is_finished());
}

#[test]
fn an_import_is_refused_with_the_reason() {
    let server = Setup::demo().config("[sql.reports]").start();
    let good = stock(&server, "good.sqlite", 2_000);
    let bytes = std::fs::read(&good).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = server.home().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut damaged = bytes.clone();
    damaged[40_960..81_920].fill(0x55);
    for (file, reason) in [
        (file("text", b"hello"), "no SQLite database"),
        (file("empty", b""), "no SQLite database"),
        (file("short", &bytes[..40_960]), "damaged"),
        (file("damaged", &damaged), "the file is damaged"),
    ] {
        refused(&server, &["sql", "import", "reports", &file], reason);
        assert_eq!(server.cli_ok(&["sql", "reports", "select count(*) as n from sqlite_schema"]), "n\n0");
    }
    refused(&server, &["sql", "import", "gateway", &good], "the server's own database");
    refused(&server, &["sql", "import", "nowhere", &good], "there is no database `nowhere`");
    refused(&server, &["sql", "import", "reports", "/no/such/file"], "cannot read /no/such/file");
    server.cli_ok(&["sql", "import", "reports", &good]);
    refused(&server, &["sql", "import", "reports", &good], "not empty");
    server.cli_ok(&["sql", "import", "reports", &good, "--replace"]);
    assert_eq!(sum(&server), native_sum(&good));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_an_import_has_what_it_had_and_takes_it_again() {
    let mut server = Setup::demo().config("[sql.reports]").start();
    let (old, new) = (stock(&server, "old.sqlite", 1_000), stock(&server, "new.sqlite", 200_000));
    server.cli_ok(&["sql", "import", "reports", &old]);
    let bytes = std::fs::read(&new).unwrap();
    // Half of the file, on a connection that stays open.
    let half = bytes::Bytes::from(bytes[..bytes.len() / 2].to_vec());
    let (taken, was_taken) = tokio::sync::oneshot::channel();
    let pieces = futures_util::stream::unfold((half, Some(taken)), |(mut left, mut taken)| async move {
        if left.is_empty() {
            // Asked for more: what came before is with the server.
            taken.take().map(|taken| taken.send(()));
            std::future::pending::<()>().await;
        }
        let piece = left.split_to(left.len().min(64 * 1024));
        Some((Ok::<_, std::io::Error>(http_body::Frame::data(piece)), (left, taken)))
    });
    let request = http::Request::put(format!("{}/admin/v1/sql/reports/file?replace=true", server.url()))
        .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
        .header("content-length", bytes.len())
        .body(http_body_util::StreamBody::new(pieces))
        .map(|request| request.map(Box::pin))
        .unwrap();
    let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let sent = tokio::spawn(async move { http.request(request).await });
    was_taken.await.unwrap();
    assert_eq!(sum(&server), native_sum(&old), "the old content serves meanwhile");
    server.crash_and_restart();
    assert!(sent.await.unwrap().is_err());
    assert_eq!(sum(&server), native_sum(&old));
    server.cli_ok(&["sql", "import", "reports", &new, "--replace"]);
    assert_eq!(sum(&server), native_sum(&new));
    assert_eq!(server.cli_ok(&["sql", "reports", "PRAGMA integrity_check"]), "integrity_check\nok");
}

/// Runs the command with this on its standard input.
fn fed(server: &Server, args: &[&str], input: &str) -> std::process::Output {
    let mut child = piped(server, args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn statements_from_a_pipe_run_up_to_the_first_that_fails() {
    let server = Setup::demo().config("[sql.reports]").start();
    let script = "create table t (a, b); -- a comment; with a semicolon
        create trigger g after insert on t begin
            update t set b = 'x;' where a = new.a;
        end;
        insert into t values (1, ';'),
            (2, 'two');
        .tables
        select * from t";
    let script = script.replace("        .tables", ".tables");
    let output = fed(&server, &["sql", "reports"], &script);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stdout), "t\na\tb\n1\tx;\n2\tx;\n", "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "0 rows written\n0 rows written\n2 rows written\n");
    let output = fed(&server, &["sql", "reports"], "select 1 as one;\nselec 2;\nselect 3;");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), "one\n1\n"));
    assert!(
        text(&output.stderr).starts_with("error: line 2: invalid: near \"selec\""),
        "{}",
        text(&output.stderr)
    );
    let output = fed(&server, &["sql", "reports", "--json"], "select 1 as one;");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["rows"], json!([[1]]));
    let output = fed(&server, &["sql", "reports"], ".schema t\n.nothing\n");
    assert!(text(&output.stdout).starts_with("CREATE TABLE t (a, b);\n"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("line 2: `.nothing` is no command"), "{}", text(&output.stderr));
    assert_eq!(fed(&server, &["sql", "reports"], "").status.code(), Some(0));
}

/// Talks to the shell on a terminal of its own: after each text that it prints the next line is typed.
const TALK: &str = r#"
import os, pty, sys
steps = [("reports> ", "create table t (a,"), ("...> ", "b);"), ("rows written", "insert into t values (1, 'ein'), (22, null);"),
    ("2 rows written", ".tables"), ("t\r\n", "select * from t;"), ("(2 rows)", "selec 1;"), ("syntax error", ".schema"), ("CREATE TABLE t", "select count(*) from t, t as u"), ("...> ", "\x03"), ("reports> ", "\x04")]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = ""
for expected, answer in steps:
    while expected not in seen:
        seen += os.read(terminal, 4096).decode()
    sys.stdout.write(seen); seen = ""
    os.write(terminal, (answer + ("" if answer in "\x03\x04" else "\r")).encode())
try:
    while True:
        more = os.read(terminal, 4096)
        if not more: break
        sys.stdout.write(more.decode())
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn on_a_terminal_it_is_a_shell() {
    let server = Setup::demo().config("[sql.reports]").start();
    let output = Command::new("python3")
        .args(["-c", TALK, env!("CARGO_BIN_EXE_tollgate"), "sql", "reports"])
        .env("TOLLGATE_SERVER", server.url())
        .env("TOLLGATE_ADMIN_TOKEN", ADMIN_TOKEN)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for expected in [
        "a   b\r\n--  ----\r\n 1  ein\r\n22  NULL\r\n(2 rows)",
        "near \"selec\": syntax error",
        "CREATE TABLE t (a,",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}
