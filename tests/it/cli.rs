//! The command line as people script it: exit codes, first lines, one value on stdout and the rest on stderr.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::support::component::shipped;
use crate::support::{Behaviour, Client, Server, Setup, Upstream, eventually};

/// The binary without anything the surroundings may have set.
fn tollgate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(args);
    for name in ["SERVER", "ADMIN_TOKEN", "DATA", "LOG", "LOG_FORMAT"] {
        command.env_remove(format!("TOLLGATE_{name}"));
    }
    command
}

fn run(args: &[&str], data: &Path) -> Output {
    tollgate(args).arg("--data").arg(data).output().unwrap()
}

fn run_ok(args: &[&str], data: &Path) -> String {
    let output = run(args, data);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server started without a configuration and without a token, as a newcomer does.
struct Newcomer {
    child: Child,
    stdout: BufReader<ChildStdout>,
    url: String,
}

impl Newcomer {
    fn start(data: &Path) -> Newcomer {
        Newcomer::start_with(data, &[])
    }

    fn start_with(data: &Path, arguments: &[&str]) -> Newcomer {
        let mut child = tollgate(&["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .arg("--data")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::OpenOptions::new().create(true).append(true).open(log(data)).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        let url = first.strip_prefix("listening on ").unwrap_or_else(|| panic!("{first:?}: {}", said(data)));
        Newcomer { url: url.trim_end().to_owned(), child, stdout }
    }

    fn line(&mut self, label: &str) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.strip_prefix(label).unwrap_or_else(|| panic!("no {label:?} in {line:?}")).trim_end().to_owned()
    }

    /// Ends it in order; what was left on its stdout.
    fn terminate(mut self) -> String {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log(data: &Path) -> std::path::PathBuf {
    data.with_extension("log")
}

fn said(data: &Path) -> String {
    std::fs::read_to_string(log(data)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_starts_serves_a_request_and_stops() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let mut server = Newcomer::start(&data);
    let token = server.line("admin token: ");
    let key = server.line("client key: ");
    assert!(said(&data).contains("demo"), "the demo upstream is not announced");

    let answer = Client::new(&server.url, &key).chat("gpt-test").await;
    assert_eq!(answer.status, 200, "{}", answer.text());

    let by_token = tollgate(&["key", "list", "--server", &server.url, "--token", &token]).output().unwrap();
    assert_eq!(by_token.status.code(), Some(0), "{}", stderr(&by_token));
    let made = run_ok(&["key", "create", "--name", "alice", "--rpm", "60", "--models", "a,b"], &data);
    assert!(made.starts_with("tg-") && made.lines().count() == 1, "{made:?}");
    let keys = run_ok(&["key", "list"], &data);
    assert!(
        keys.starts_with("name\tlimits\tmodels\tstate\texpires_ms\tcreated_ms\tlast_used_ms\t"),
        "{keys}"
    );
    assert!(keys.contains("\nalice\trpm=60\ta,b\tactive\t\\N\t"), "{keys}");
    let plugins = run_ok(&["plugin", "list"], &data);
    for name in ["blacklist", "quota", "ingestion", "sync"] {
        assert!(plugins.lines().any(|line| line.starts_with(&format!("{name}\t"))), "{name} in\n{plugins}");
    }
    let select = "select 1 as one, null as two, 'a\tb' as three";
    assert_eq!(run_ok(&["sql", "gateway", select], &data), "one\ttwo\tthree\n1\t\\N\ta\\tb\n");

    assert_eq!(server.terminate(), "");
    assert!(!data.join("admin.sock").exists());

    // The second start shows nothing again, and what was made is still there.
    let server = Newcomer::start(&data);
    assert_eq!(Client::new(&server.url, &key).chat("gpt-test").await.status, 200);
    let rows = run_ok(&["sql", "gateway", "select count(*) from request_logs"], &data);
    assert_eq!(rows.lines().nth(1), Some("1"), "the first request is in the log:\n{rows}");
    assert_eq!(server.terminate(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_memory_leaves_nothing_and_begins_anew_at_every_start() {
    let home = tempfile::tempdir().unwrap();
    let (data, config) = (home.path().join("data"), home.path().join("tollgate.toml"));
    std::fs::write(&config, "[storage]\nengine = \"memory\"\n").unwrap();
    let mut earlier: Vec<(String, String)> = Vec::new();
    for _ in 0..2 {
        let mut server = Newcomer::start_with(&data, &["--config", config.to_str().unwrap()]);
        let token = server.line("admin token: ");
        let key = server.line("client key: ");
        assert!(said(&data).contains("set `request_logs_days` in [retention]"), "{}", said(&data));
        for (token, key) in &earlier {
            assert_eq!(Client::new(&server.url, key).chat("gpt-test").await.status, 401);
            assert_eq!(Client::new(&server.url, token).get("/admin/v1/keys").await.status, 401);
        }
        let keys = run_ok(&["key", "list"], &data);
        assert_eq!((keys.lines().count(), keys.contains("\nfirst\t")), (2, true), "{keys}");
        assert!(!run_ok(&["account", "list"], &data).contains("extra"));
        assert_eq!(Client::new(&server.url, &key).chat("gpt-test").await.status, 200);
        eventually("its only request is in the log", async || {
            let rows = run_ok(&["sql", "gateway", "select count(*) from request_logs"], &data);
            (rows.lines().nth(1) == Some("1")).then_some(())
        })
        .await;
        run_ok(&["key", "create", "--name", "alice"], &data);
        let account = ["account", "create", "--name", "extra", "--base-url", "http://127.0.0.1:9"];
        run_ok(&[&account[..], &["--no-api-key"]].concat(), &data);
        run_ok(&["plugin", "push", shipped("quota").to_str().unwrap()], &data);
        let stats: Value = serde_json::from_str(&run_ok(&["store", "stats", "--json"], &data)).unwrap();
        assert_eq!((&stats["file"]["path"], &stats["file"]["file_bytes"]), (&Value::Null, &Value::Null));
        assert_eq!(server.terminate(), "");
        let left = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, ["compiled", "lock", "master.key", "secret"]);
        earlier.push((token, key));
    }
}

#[test]
fn a_first_start_that_fails_has_shown_nothing_and_the_next_one_does() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    // In the way of the admin socket.
    std::fs::create_dir_all(data.join("admin.sock")).unwrap();
    let failed = run(&["serve", "--listen", "127.0.0.1:0"], &data);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("admin.sock") && failed.stdout.is_empty(), "{}", stderr(&failed));
    std::fs::remove_dir(data.join("admin.sock")).unwrap();
    let shown = Newcomer::start(&data).terminate();
    assert!(shown.contains("admin token: tga-") && shown.contains("client key: tg-"), "{shown:?}");
}

#[test]
fn the_data_directory_is_for_one_user_and_one_server() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let server = Newcomer::start(&data);
    let mode = |name: &str| data.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("."), mode("secret"), mode("admin.sock")), (0o700, 0o600, 0o600));
    let second = run(&["serve", "--listen", "127.0.0.1:0"], &data);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another server"), "{}", stderr(&second));
    assert!(second.stdout.is_empty());
    run_ok(&["key", "list"], &data);
    server.terminate();
}

#[test]
fn without_a_server_commands_say_so_and_exit_with_2() {
    let home = tempfile::tempdir().unwrap();
    for args in
        [&["key", "list"][..], &["plugin", "list"], &["sql", "gateway", "select 1"], &["kv", "list", "quota"]]
    {
        let output = run(args, home.path());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains("no server is running on data directory"), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    let output =
        tollgate(&["key", "list", "--server", "http://127.0.0.1:1", "--token", "t"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no server is running at http://127.0.0.1:1"), "{}", stderr(&output));
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [&["frobnicate"][..], &[], &["key", "create"], &["serve", "--listen", "nowhere"]] {
        let output = tollgate(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
fn a_wrong_configuration_names_line_and_nearest_key() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("tollgate.toml");
    std::fs::write(&file, "[[account]]\nname = \"a\"\nbas_url = \"http://h/v1\"\napi_key = \"k\"\n").unwrap();
    let data = home.path().join("data");
    let output = run(&["serve", "--config", file.to_str().unwrap()], &data);
    assert_eq!(output.status.code(), Some(2));
    let expected = "tollgate.toml:3: unknown key `bas_url` in [[account]]; did you mean `base_url`?";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    assert!(!data.exists(), "nothing is made for a wrong configuration");
}

#[test]
fn a_component_is_checked_without_a_server() {
    let home = tempfile::tempdir().unwrap();
    let output = tollgate(&["plugin", "check"]).arg(shipped("quota")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("hooks: admission\n"), "{report}");

    let manifest = home.path().join("plugin.toml");
    std::fs::write(&manifest, "name = \"quota\"\n").unwrap();
    let ungranted =
        tollgate(&["plugin", "check"]).arg(shipped("quota")).arg("--manifest").arg(&manifest).output();
    let ungranted = ungranted.unwrap();
    assert_eq!(ungranted.status.code(), Some(1));
    assert!(stderr(&ungranted).contains("tollgate:storage/kv"), "{}", stderr(&ungranted));

    let text = home.path().join("text.wasm");
    std::fs::write(&text, "no component").unwrap();
    let output = tollgate(&["plugin", "check"]).arg(&text).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("text.wasm: not a valid component"), "{}", stderr(&output));
}

#[test]
fn refusals_come_with_their_reason_and_exit_with_1() {
    let server = Setup::demo().start();
    server.key("taken", &[]);
    for (args, reason) in [
        (&["key", "create", "--name", "taken"][..], "there is a key named taken already"),
        (&["key", "revoke", "nobody"], "no active key named nobody"),
        (&["plugin", "rollback", "nothing"], "there is no plugin"),
        (&["sql", "nowhere", "select 1"], "there is no database `nowhere`"),
        (&["sql", "gateway", "selec 1"], "syntax error"),
        (&["kv", "get", "quota", "nothing"], "there is no key `nothing` in kv store `quota`"),
        (&["kv", "list", "nowhere"], "there is no kv store `nowhere`"),
    ] {
        let output = server.cli(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains(reason), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    let wrong = tollgate(&["key", "list", "--server", server.url(), "--token", "wrong"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("this is not the admin token"), "{}", stderr(&wrong));
}

#[test]
fn statements_write_and_print_for_people_and_machines() {
    let server = Setup::demo().start();
    let sql = |statement: &str| server.cli_ok(&["sql", "gateway", statement]);
    sql("create table mine (a, b)");
    let insert = server.cli(&["sql", "gateway", "insert into mine values (1, x'00ff'), (2.5, 'x')"]);
    assert_eq!(stderr(&insert), "2 rows written\n");
    assert!(insert.stdout.is_empty());
    assert_eq!(sql("select a, b from mine order by a"), "a\tb\n1\t\\x00ff\n2.5\tx");
    let json: Value =
        serde_json::from_str(&server.cli_ok(&["sql", "gateway", "select a, b from mine", "--json"])).unwrap();
    assert_eq!(json["rows"], serde_json::json!([[1, {"hex": "00ff"}], [2.5, "x"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_flight_ends_as_it_should_and_is_in_the_log_after_sigterm() {
    let pause = Duration::from_millis(100);
    let upstream = Upstream::start(Behaviour::Slow { input: 5, output: 10, pause }).await;
    let server = Setup::with(&upstream).start();
    let key = server.key("user", &[]);
    let response = server.client(&key).chat_stream("gpt-test").await;
    let ending = tokio::task::spawn_blocking(move || {
        let mut server = server;
        (server.terminate(), server)
    });
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"data: [DONE]\n\n"), "{}", String::from_utf8_lossy(&body));
    let (code, mut server) = ending.await.unwrap();
    assert_eq!(code, Some(0), "{}", server.log());
    server.crash_and_restart();
    let rows = server.sql("select status_code, is_stream, has_error from request_logs");
    assert_eq!(rows, [["200", "1", "0"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_at_once() {
    let server = Setup::demo().start();
    let key = server.key("gone", &[]);
    assert_eq!(server.client(&key).chat("gpt-test").await.status, 200);
    server.cli_ok(&["key", "revoke", "gone"]);
    assert_eq!(server.client(&key).chat("gpt-test").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_given_in_place_of_its_name_does_not_reach_the_log() {
    let server = Setup::demo().start();
    let key = server.key("mine", &[]);
    assert_eq!(server.cli(&["key", "revoke", &key]).status.code(), Some(1));
    let admin = server.client(crate::support::server::ADMIN_TOKEN);
    let body = serde_json::json!({ "client": key, "reason": "was rude" });
    assert_eq!(admin.post("/admin/v1/blacklist", &body).await.status, 404);
    let path = format!("/admin/v1/blacklist/client/{key}");
    assert_eq!(admin.send(http::Method::DELETE, &path, bytes::Bytes::new()).await.status(), 404);
    server.cli_ok(&["key", "revoke", "mine"]);
    let log = server.log();
    assert!(log.contains("mine") && log.contains("not_found"), "the changes are in the log");
    assert!(!log.contains(&key), "the key is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blacklist_is_managed_over_the_admin_api() {
    let server = Setup::demo().start();
    let key = server.key("rude", &[]);
    let admin = Client::new(server.url(), crate::support::server::ADMIN_TOKEN);
    let body = serde_json::json!({ "client": "rude", "reason": "was rude", "ttl_ms": 600_000 });
    let added = admin.post("/admin/v1/blacklist", &body).await;
    assert_eq!(added.status, 201, "{}", added.text());
    assert_ne!(server.client(&key).chat("gpt-test").await.status, 200);
    let listed = admin.get("/admin/v1/blacklist").await.json();
    assert_eq!(listed["entries"][0]["entry"]["reason"], "was rude");
    assert_eq!(admin.get("/admin/v1/blacklist/client/rude").await.json()["blacklisted"], true);
    let removed =
        admin.send(http::Method::DELETE, "/admin/v1/blacklist/client/rude", bytes::Bytes::new()).await;
    assert_eq!(removed.status(), 200);
    assert_eq!(server.client(&key).chat("gpt-test").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blacklist_is_managed_on_the_command_line() {
    let server = Setup::demo().start();
    let key = server.key("rude", &[]);
    let rude = ["--client", "rude"];
    let blacklist = |arguments: &[&str]| server.cli_ok(&[&["blacklist"], arguments].concat());
    blacklist(&[&["add", "--reason", "was rude", "--ttl", "10m"], &rude[..]].concat());
    blacklist(&["add", "--account", "demo", "--model", "gpt-other", "--reason", "over its TPM"]);
    assert_ne!(server.client(&key).chat("gpt-test").await.status, 200);
    let listed = blacklist(&["list"]);
    let told = |line: usize| listed.lines().nth(line).unwrap().split('\t').collect::<Vec<_>>();
    assert_eq!(
        (told(1)[1], told(1)[3], told(1)[4], told(1)[5], told(1)[7]),
        ("demo", "gpt-other", "over its TPM", "tpm", "true"),
        "{listed}"
    );
    assert_eq!((told(2)[0], told(2)[4]), ("client", "was rude"), "{listed}");
    let stats: serde_json::Value = serde_json::from_str(&blacklist(&["stats"])).unwrap();
    assert_eq!(stats, serde_json::json!({ "total": 2, "active": 2, "expired": 0 }));
    let checked = blacklist(&[&["check"], &rude[..]].concat());
    assert!(checked.contains("\"blacklisted\": true") && checked.contains("was rude"), "{checked}");
    blacklist(&[&["remove"], &rude[..]].concat());
    assert_eq!(server.client(&key).chat("gpt-test").await.status, 200);
    let again = server.cli(&["blacklist", "remove", "--client", "rude"]);
    assert_eq!(again.status.code(), Some(1));
    let nobody = server.cli(&["blacklist", "check"]);
    assert_eq!(nobody.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_entries_is_added_to_the_blacklist_and_listed_by_prefix() {
    let server = Setup::demo().start();
    let file = server.home().join("entries.jsonl");
    let id = |number: usize| format!("{number:064x}");
    let line = |number: usize| {
        format!("{{\"client\": \"{}\", \"reason\": \"leaked\", \"ttl_ms\": 60000}}\n", id(number))
    };
    let lines: String = (0..700).map(line).collect();
    std::fs::write(
        &file,
        format!("{{\"account\": \"demo\", \"model\": \"m\", \"reason\": \"full\"}}\n\n{lines}"),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(server.cli_ok(&["blacklist", "add", "--file", file]), "added 701");
    let listed = |prefix: &str| server.cli_ok(&["blacklist", "list", "--prefix", prefix]).lines().count() - 1;
    assert_eq!((listed("client:"), listed("account:"), listed(&format!("client:{}", id(5)))), (700, 1, 1));
    // All of 500 lines or none of them, and which.
    let wrong = format!(
        "{}{{\"client\": \"nobody\", \"reason\": \"x\"}}\n",
        (1000..1500).map(line).collect::<String>()
    );
    std::fs::write(file, wrong).unwrap();
    let output = server.cli(&["blacklist", "add", "--file", file]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("lines 501 to 501 (500 entries before were added)") && said.contains("nobody"),
        "{said}"
    );
    assert_eq!(listed("client:"), 1_200);
    std::fs::write(file, "{\n").unwrap();
    let output = server.cli(&["blacklist", "add", "--file", file]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1: "), "{output:?}");
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_errors_have_one_shape_and_status_pages_need_no_token() {
    let server: Server = Setup::demo().start();
    let stranger = Client::new(server.url(), "wrong");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(stranger.get(path).await.status, 200, "{path}");
    }
    for (path, status, code) in
        [("/admin/v1/keys", 401, "unauthorized"), ("/admin/v1/nothing", 401, "unauthorized")]
    {
        let answer = stranger.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["error"]["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
    }
    for (path, status, code) in [
        ("/admin/v1/nothing", 404, "not_found"),
        ("/admin/v1/kv/nothing", 404, "not_found"),
        ("/admin/v1/kv/quota?limit=0", 400, "invalid"),
        ("/admin/v1/kv/quota?limt=1", 400, "invalid"),
        ("/admin/v1/blacklist/server/x", 400, "invalid"),
        ("/admin/v1/sql/gateway", 405, "method_not_allowed"),
    ] {
        let answer = server.get(path).await;
        let (error, text) = (answer.json(), answer.text());
        assert_eq!(
            (answer.status.as_u16(), error["error"]["code"].as_str()),
            (status, Some(code)),
            "{path}: {text}"
        );
        assert!(error["error"]["message"].is_string());
    }
    let health = server.get("/admin/v1/health").await.json();
    assert_eq!(health["status"], "ok");
}
