//! Upstream accounts managed while requests flow, and their credentials, which nobody sees again.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::support::{Behaviour, Client, Server, Setup, Upstream, eventually, server::ADMIN_TOKEN};

const FINE: Behaviour = Behaviour::Answer { input: 5, output: 2 };

/// `tollgate account create`, with the key that the upstream knows the account by.
fn create(server: &Server, name: &str, upstream: &Upstream, extra: &[&str]) {
    let mut args = vec!["account", "create", "--name", name, "--base-url", upstream.url()];
    args.extend_from_slice(extra);
    args.push("--api-key-stdin");
    let output = with_stdin(server, &args, &format!("upstream-{name}\n"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn with_stdin(server: &Server, args: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(args)
        .env("TOLLGATE_SERVER", server.url())
        .env("TOLLGATE_ADMIN_TOKEN", ADMIN_TOKEN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Requests that go on until they are stopped, and what was not answered with 200.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(client: &Client) -> Load {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = |_| {
            let (client, stop, sent) = (client.clone(), stop.clone(), sent.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.chat("m").await;
                    if answer.status != 200 {
                        failed.push(format!("{} {}", answer.status, answer.text()));
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        };
        let tasks = (0..8).map(task).collect();
        Load { stop, sent, tasks }
    }

    /// Waits until some more requests have been answered.
    async fn more(&self) {
        let enough = self.sent.load(Ordering::Relaxed) + 20;
        eventually("requests flow", || async { (self.sent.load(Ordering::Relaxed) >= enough).then_some(()) })
            .await;
    }

    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for task in self.tasks {
            failed.extend(task.await.unwrap());
        }
        failed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_change_and_go_under_load_and_no_request_fails() {
    let upstream = Upstream::start(FINE).await;
    let mut server = Setup::with(&upstream).start();
    let client = server.client(&server.key("user", &[]));
    let load = Load::start(&client);
    create(&server, "second", &upstream, &["--priority", "0", "--models", "m"]);
    load.more().await;
    assert!(upstream.seen_from("second") > 0, "it takes requests at once");
    server.cli_ok(&["account", "update", "second", "--weight", "50", "--clear", "models"]);
    load.more().await;
    server.cli_ok(&["account", "disable", "second"]);
    load.more().await;
    server.cli_ok(&["account", "enable", "second"]);
    load.more().await;
    server.cli_ok(&["secrets", "rotate"]);
    load.more().await;
    server.cli_ok(&["account", "delete", "second"]);
    let seen = upstream.seen_from("second");
    load.more().await;
    assert_eq!(load.stop().await, [""; 0]);
    // What had been picked before the change may still have been on its way.
    assert!(upstream.seen_from("second") <= seen + 8, "it is still asked");

    create(&server, "third", &upstream, &["--expires", "30"]);
    server.crash_and_restart();
    let listed: Value = serde_json::from_str(&server.cli_ok(&["account", "list", "--json"])).unwrap();
    let names: Vec<_> =
        listed["accounts"].as_array().unwrap().iter().map(|a| (&a["name"], &a["from"])).collect();
    assert_eq!(names, [(&json!("main"), &json!("configuration")), (&json!("third"), &json!("store"))]);
    assert_eq!(server.client(&server.key("again", &[])).chat("m").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_a_removed_account_ends_well_and_is_logged() {
    let pause = Duration::from_millis(20);
    let upstream = Upstream::start(Behaviour::Slow { input: 3, output: 30, pause }).await;
    let server = Setup::demo().start();
    create(&server, "gone", &upstream, &[]);
    let client = server.client(&server.key("reader", &[]));
    let mut body = client.chat_stream("m").await.into_body();
    body.frame().await.unwrap().unwrap();
    server.cli_ok(&["account", "delete", "gone"]);
    let rest = body.collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n"), "the stream was cut");
    eventually("the request is in the log", || async {
        let rows = server.sql("SELECT account_name, status_code, has_error FROM request_logs");
        (rows == [["gone", "200", "0"]]).then_some(())
    })
    .await;
    assert_eq!(client.chat("m").await.status, 404, "no account is left, and the demo does not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_goes_when_there_is_an_account_and_says_so() {
    let upstream = Upstream::start(FINE).await;
    let mut server = Setup::demo().start();
    let client = server.client(&server.key("user", &[]));
    assert!(client.chat("m").await.text().contains("You said"));
    let load = Load::start(&client);
    load.more().await;
    create(&server, "main", &upstream, &[]);
    load.more().await;
    assert_eq!(load.stop().await, [""; 0]);
    assert!(!client.chat("m").await.text().contains("You said"));
    assert!(server.log().contains("the built-in demo upstream is gone"));
    server.crash_and_restart();
    let (client, seen) = (server.client(&server.key("again", &[])), upstream.seen_from("main"));
    assert_eq!((client.chat("m").await.status.as_u16(), upstream.seen_from("main")), (200, seen + 1));
    let shown: Value = serde_json::from_str(&server.cli_ok(&["account", "show", "main", "--json"])).unwrap();
    assert_eq!((&shown["status"], &shown["has_api_key"]), (&json!("serving"), &json!(true)));
}

#[test]
fn a_command_that_has_nobody_to_ask_says_where_a_secret_can_come_from() {
    let server = Setup::demo().start();
    let fields = ["account", "create", "--name", "x", "--base-url", "http://h:1"];
    for (more, part) in [
        (&[][..], "--api-key-env or --api-key-stdin"),
        (&["--api-key-env", "TOLLGATE_TEST_UNSET"], "the variable TOLLGATE_TEST_UNSET is not set"),
        (&["--api-key-stdin"], "stdin has no line with the api key"),
        (&["--no-api-key", "--proxy", "http://h:1", "--proxy-user", "u"], "--proxy-password-env"),
    ] {
        let output = server.cli(&[&fields[..], more].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(server.cli_ok(&["account", "list"]).lines().count(), 1, "none was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_of_an_account_are_shown() {
    let upstream = Upstream::start(FINE).await;
    let server = Setup::with(&upstream).start();
    let client = server.client(&server.key("user", &[]));
    for _ in 0..3 {
        assert_eq!(client.chat("m").await.status, 200);
    }
    let totals = eventually("the totals are there", || async {
        let shown: Value =
            serde_json::from_str(&server.cli_ok(&["account", "show", "main", "--json"])).unwrap();
        (shown["totals"]["requests"] == 3).then(|| shown["totals"].clone())
    })
    .await;
    assert_eq!((&totals["input_tokens"], &totals["output_tokens"]), (&json!(15), &json!(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_an_account_from_being_asked_is_shown_beside_what_it_was_used_for() {
    let upstream = Upstream::start(FINE).await;
    let server = Setup::default().account("main", &upstream, "").account("other", &upstream, "").start();
    let client = server.client(&server.key("user", &[]));
    server.cli_ok(&["blacklist", "add", "--account", "main", "--reason", "unpaid", "--ttl", "1h"]);
    server.cli_ok(&["blacklist", "add", "--account", "other", "--model", "gpt-4", "--reason", "full"]);
    assert_eq!(client.chat("m").await.status, 200);
    let list = eventually("the totals are there", || async {
        let list = server.cli_ok(&["account", "list"]);
        list.lines().any(|line| line.contains("\t1\t0\t0")).then_some(list)
    })
    .await;
    let lines: Vec<Vec<&str>> = list.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    assert_eq!((lines[0][0], lines[0][7]), ("main", "blacklisted"), "{list}");
    assert_eq!((lines[1][0], lines[1][7], lines[1][11]), ("other", "serving", "1"), "{list}");
    assert!(lines[0][8].starts_with("* until 1") && lines[1][8].starts_with("gpt-4 until 1"), "{list}");
    let shown = server.get("/admin/v1/accounts/main").await.json();
    assert_eq!((&shown["held"][0]["reason"], &shown["totals"]), (&json!("unpaid"), &json!(null)));
    // Another account with the same key is held by the same entry.
    let twin = json!({ "name": "twin", "base_url": upstream.url(), "api_key": "upstream-main" });
    let admin = server.client(ADMIN_TOKEN);
    let made = admin.call(http::Method::POST, "/admin/v1/accounts", &[], twin.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let list = server.get("/admin/v1/accounts").await.json();
    let held: Vec<_> = list["accounts"].as_array().unwrap().iter().map(|shown| &shown["status"]).collect();
    assert_eq!(held, ["blacklisted", "serving", "blacklisted"]);
    server.cli_ok(&["blacklist", "remove", "--account", "main"]);
    let shown = server.get("/admin/v1/accounts/main").await.json();
    assert_eq!((&shown["status"], &shown["held"]), (&json!("serving"), &json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_nowhere_in_the_clear() {
    const KEYS: [&str; 3] = [
        "sk-first-credential-in-the-clear",
        "sk-other-credential-in-the-clear",
        "password-of-the-proxy-in-the-clear",
    ];
    let upstream = Upstream::start(Behaviour::Refuse { status: 401, retry_after: None }).await;
    let mut server = Setup::demo().log("debug").start();
    let admin = server.client(ADMIN_TOKEN);
    let body = json!({ "name": "shy", "base_url": upstream.url(), "api_key": KEYS[0] });
    assert_eq!(admin.post("/admin/v1/accounts", &body).await.status, 201);
    let mut said = String::new();
    // Refused for many reasons, with the key in the request.
    for wrong in [
        json!({ "name": "shy", "base_url": upstream.url(), "api_key": KEYS[0] }),
        json!({ "name": "x", "base_url": "none", "api_key": KEYS[0] }),
        json!({ "name": "x", "base_url": format!("http://{}@h", KEYS[0]) }),
        json!({ "name": "x", "base_url": upstream.url(), "api_key": format!("{} {}", KEYS[0], KEYS[1]) }),
    ] {
        said += &admin.post("/admin/v1/accounts", &wrong).await.text();
    }
    server.cli_ok(&["secrets", "rotate"]);
    let output =
        with_stdin(&server, &["account", "update", "shy", "--api-key-stdin"], &format!("{}\n", KEYS[1]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    said += &String::from_utf8_lossy(&output.stdout);
    // The upstream refuses it, which is logged.
    said += &server.client(&server.key("user", &[])).chat("m").await.text();
    // And through a proxy that is not there.
    let proxy = json!({ "proxy": "http://127.0.0.1:1", "proxy_user": "me", "proxy_password": KEYS[2] });
    let changed = admin.send(http::Method::PATCH, "/admin/v1/accounts/shy", proxy.to_string().into()).await;
    assert_eq!(changed.status(), 200);
    said += &server.client(&server.key("other", &[])).chat("m").await.text();
    for path in ["/metrics", "/admin/v1/accounts", "/admin/v1/accounts/shy", "/admin/v1/health"] {
        said += &server.get(path).await.text();
    }
    eventually("the request is in the log", || async {
        (server.count("SELECT count(*) FROM request_logs") == 2).then_some(())
    })
    .await;
    said += &server.cli_ok(&["sql", "gateway", "SELECT * FROM request_logs"]);
    said += &server.cli_ok(&["sql", "gateway", "SELECT * FROM accounts"]);
    let audit = server.cli_ok(&["audit", "list"]);
    assert!(audit.contains("admin token\taccount create\tshy\ttrue"), "{audit}");
    assert!(
        audit.contains("admin token\taccount change\tshy\ttrue") && audit.contains("secrets rotate"),
        "{audit}"
    );
    said += &audit;
    assert!(server.log().contains("account create"), "the changes are logged");
    said += &server.log();
    assert_eq!(server.terminate(), Some(0));
    let data = std::fs::read(server.home().join("data/tollgate.redb")).unwrap();
    for key in KEYS {
        assert!(!said.contains(key), "{key} was shown in\n{said}");
        assert!(!data.windows(key.len()).any(|window| window == key.as_bytes()), "{key} is in the data file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_master_key_the_server_does_not_start_and_says_which_is_needed() {
    let upstream = Upstream::start(FINE).await;
    let mut server = Setup::demo().start();
    create(&server, "main", &upstream, &[]);
    let rotated = server.cli_ok(&["secrets", "rotate"]);
    assert!(rotated.contains("1 secrets encrypted anew, under a new master key"), "{rotated}");
    server.crash();
    let start = |config: &str| {
        std::fs::write(server.home().join("other.toml"), config).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(server.home().join("other.toml"))
            .arg("--data")
            .arg(server.home().join("data"))
            .env("MASTER", "5".repeat(64))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let wrong = start("[secrets]\nkey_env = \"MASTER\"\n");
    assert!(wrong.contains("the master key from the variable MASTER is"), "{wrong}");
    assert!(!wrong.contains("5555"), "{wrong}");
    let missing = start("[secrets]\nkey_file = \"none.key\"\n");
    assert!(missing.contains("none.key is missing"), "{missing}");
    server.crash_and_restart();
    assert_eq!(server.client(&server.key("user", &[])).chat("m").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_the_middle_of_rotations_loses_no_account() {
    let upstream = Upstream::start(FINE).await;
    let mut server = Setup::demo().start();
    let admin = server.client(ADMIN_TOKEN);
    for number in 0..80 {
        let name = format!("a{number}");
        let body = json!({ "name": name, "base_url": upstream.url(), "api_key": format!("upstream-{name}") });
        assert_eq!(admin.post("/admin/v1/accounts", &body).await.status, 201);
    }
    for round in 0..4_u64 {
        let admin = server.client(ADMIN_TOKEN);
        let rotating = tokio::spawn(async move {
            let body = json!({}).to_string();
            let _ = admin.try_post("/admin/v1/secrets/rotate", body).await;
        });
        // Different places of the work each round; no state is awaited, so a plain pause is what is meant.
        tokio::time::sleep(Duration::from_millis(1 + round * 3)).await;
        server.crash();
        rotating.await.unwrap();
        server.crash_and_restart();
        let listed: Value = serde_json::from_str(&server.cli_ok(&["account", "list", "--json"])).unwrap();
        let accounts = listed["accounts"].as_array().unwrap();
        assert_eq!(accounts.len(), 80);
        assert!(accounts.iter().all(|account| account["status"] == "serving"), "{listed}");
        assert_eq!(server.count("SELECT count(*) FROM secret_keys"), 1, "the rotation was not finished");
    }
    assert_eq!(server.client(&server.key("user", &[])).chat("m").await.status, 200);
}
