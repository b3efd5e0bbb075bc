//! The way of a plugin author: a project from nothing, built, pushed and serving.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::component::shipped;
use crate::support::guest::ALLOW;
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Guest, Server, Setup, eventually};

/// A command of the command line in a folder.
fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tollgate")).args(args).current_dir(folder).output().unwrap()
}

fn run_ok(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code of a command that must fail, and what it said.
fn refusal(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = run(folder, args);
    assert!(!output.status.success(), "{args:?} did not fail");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_project_is_made_once_and_says_how_to_go_on() {
    let home = tempfile::tempdir().unwrap();
    let said = run_ok(home.path(), &["plugin", "new", "hello"]);
    assert!(said.contains("cd hello") && said.contains("tollgate plugin build"), "{said}");
    let (code, said) = refusal(home.path(), &["plugin", "new", "hello", "--hook", "jobs"]);
    assert!(code == Some(1) && said.contains("hello is there already"), "{said}");
    let (code, said) = refusal(home.path(), &["plugin", "new", "../hello"]);
    assert!(code == Some(1) && said.contains("a-z, 0-9 and '-'"), "{said}");

    let project = home.path().join("hello");
    for command in ["check", "test", "push"] {
        let (code, said) = refusal(&project, &["plugin", command]);
        assert!(code == Some(2) && said.contains("no hello.wasm yet; run `tollgate plugin build`"), "{said}");
    }
    let (code, said) = refusal(&project, &["plugin", "build", "hello"]);
    assert!(code == Some(2) && said.contains("leave the names out"), "{said}");
    let (code, said) = refusal(home.path(), &["plugin", "build"]);
    assert!(code == Some(2) && said.contains("tollgate plugin new"), "{said}");
}

const ONE_A_MINUTE: &str = r#"
    about = "The second request in a minute waits."
    [let]
    alice = { id = "c1", limits = { rpm = 1 } }
    [[steps]]
    call = "admit"
    with = [{}, ["$alice"]]
    gives = { ok = [{ allow = "$ticket" }] }
    [[steps]]
    at = 500
    call = "admit"
    with = [{ id = "another" }, ["$alice"]]
    gives = { ok = [{ deny = { limit-name = "rpm", reason = "$reason", current = 1, limit = 1, retry-after-ms = 60500 } }] }
    [after.kv.quota]
    "client:c1" = "$ledger"
"#;

/// Runs cases, by name and text, for the shipped quota.
fn test_quota(cases: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().unwrap();
    for (name, text) in cases {
        std::fs::write(home.path().join(format!("{name}.toml")), text).unwrap();
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/quota/plugin.toml");
    let [component, manifest, cases] =
        [shipped("quota"), manifest, home.path().to_owned()].map(|path| path.to_str().unwrap().to_owned());
    run(home.path(), &["plugin", "test", &component, "--manifest", &manifest, "--cases", &cases])
}

#[test]
fn a_plugin_keeps_its_cases_or_is_shown_where_it_does_not() {
    let good = test_quota(&[("one-a-minute", ONE_A_MINUTE)]);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stdout));
    assert_eq!(String::from_utf8(good.stdout).unwrap(), "ok      one-a-minute\n1 case passed\n");

    let generous = ONE_A_MINUTE.replace("limit = 1,", "limit = 2,").replace("$ledger", "nothing");
    let bad = test_quota(&[("generous", &generous), ("one-a-minute", ONE_A_MINUTE)]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8(bad.stderr).unwrap().contains("1 of 2 cases failed"));
    let said = String::from_utf8(bad.stdout).unwrap();
    let place = "  step 2, quota.admit: ok[0].deny.limit\n    expected 2\n    found    1\n";
    assert!(said.starts_with("FAILED  generous: The second request in a minute waits.\n"), "{said}");
    assert!(said.contains(place), "{said}");
    assert!(said.contains("kv store quota at the end: client:c1\n    expected \"nothing\""), "{said}");
    assert!(said.contains("ok      one-a-minute"), "{said}");
}

#[test]
fn what_the_calls_of_a_plugin_cost_is_measured_with_its_cases_beside_a_policy_that_does_nothing() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("one-a-minute.toml"), ONE_A_MINUTE).unwrap();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/quota/plugin.toml");
    let [component, manifest, cases] =
        [shipped("quota"), manifest, home.path().to_owned()].map(|path| path.to_str().unwrap().to_owned());
    let bench = ["plugin", "bench", &component, "--manifest", &manifest, "--cases", &cases, "--seconds", "1"];
    let told = run_ok(home.path(), &bench);
    for line in
        ["call\tcalls\tp50_us", "admit\t", "settle\t", "instantiate\t200\t", "memory of an instance: "]
    {
        assert!(told.contains(line), "{line:?} is not in {told}");
    }
    let told: serde_json::Value =
        serde_json::from_str(&run_ok(home.path(), &[&bench[..], &["--json"]].concat())).unwrap();
    for component in ["plugin", "null"] {
        let [admit, settle] = ["admit", "settle"].map(|hook| &told[component]["hooks"][hook]);
        assert!(admit["calls"].as_u64().unwrap() > settle["calls"].as_u64().unwrap() / 2, "{told}");
        let [half, most] = ["p50_us", "p99_us"].map(|time| admit[time].as_f64().unwrap());
        assert!(0.0 < half && half <= most, "{told}");
    }
    let memory = |component: &str| told[component]["memory_bytes"].as_u64().unwrap();
    assert!(memory("plugin") > memory("null") && memory("null") >= 65_536, "{told}");
}

#[test]
fn the_case_in_the_manual_passes() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cases/CASES.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let case = manual.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("cases/manual.toml", case.as_bytes());
    write("plugin.toml", b"name = \"quota\"\n[grants]\nkv.quota = \"read-write\"\nsql.gateway = \"read\"");
    write("quota.wasm", &std::fs::read(shipped("quota")).unwrap());
    assert_eq!(run_ok(home.path(), &["plugin", "test"]), "ok      manual\n1 case passed\n");
    assert_eq!(run_ok(Path::new("."), &["plugin", "test", home.path().to_str().unwrap()]).lines().count(), 2);
}

#[test]
fn a_case_that_makes_no_sense_is_told_with_its_place() {
    let sends = |from: &str, to: &str, says: &str| {
        assert!(ONE_A_MINUTE.contains(from));
        let output = test_quota(&[("odd", &ONE_A_MINUTE.replace(from, to))]);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
        assert!(output.status.code() == Some(1) && said.contains(says), "{to}: {said}");
    };
    sends("rpm = 1 }", "rmp = 1 }", "unknown field `rmp`, expected one of `rpm`, `tpm`, `rpd`");
    sends("{ id = \"another\" }", "{ id = 7 }", "step 2, admit: request: invalid type");
    sends(
        "call = \"admit\"",
        "call = \"admti\"",
        "step 1, admti: there is no call of admti with 2 arguments",
    );
    sends("call = \"admit\"", "call = \"other.admit\"", "there is no plugin other; there is quota");
    sends("after.kv.quota", "after.kv.notes", "no manifest grants kv store \"notes\"; granted are: quota");
    sends("\"$alice\"", "\"$bob\"", "`$bob` is neither in [let] nor in an answer before");
    sends("id = \"c1\"", "like = \"$alice\"", "`$alice` stands for itself");
    sends("about = ", "abuot = ", "unknown field `abuot`");
}

/// Runs a command on a shipped plugin: its component and its manifest.
fn on_shipped(command: &str, plugin: &str, more: &[&str]) -> Output {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/{plugin}/plugin.toml"));
    let component = shipped(plugin);
    let mut args = vec!["plugin", command, component.to_str().unwrap()];
    args.extend_from_slice(more);
    if command == "check" {
        args.extend_from_slice(&["--manifest", manifest.to_str().unwrap()]);
    }
    run(Path::new("."), &args)
}

#[test]
fn a_component_tells_what_it_is_and_what_it_needs() {
    let said = String::from_utf8(on_shipped("inspect", "quota", &[]).stdout).unwrap();
    for line in [
        "hooks: admission\n",
        "contracts: tollgate:policy@0.1.0\n",
        "contracts: tollgate:storage@0.1.0\n",
        "imports: tollgate:storage/kv@0.1.0 (",
        "needs: [grants.kv] NAME = \"read-write\"\n",
        "made_by: wit-component ",
    ] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    let found: serde_json::Value =
        serde_json::from_slice(&on_shipped("inspect", "sync", &["--json"]).stdout).unwrap();
    assert_eq!(found["size"], shipped("sync").metadata().unwrap().len());
    assert_eq!(found["hooks"], serde_json::json!(["jobs"]));
}

#[test]
fn the_server_tells_what_a_plugin_of_its_own_does() {
    let server = Setup::demo().start();
    let said = server.cli_ok(&["plugin", "inspect", "sync"]);
    for line in ["hooks: jobs\n", "grants: kv.blacklist = \"read\"\n", "calls: ", "pushed_by: shipped"] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    let output = server.cli(&["plugin", "inspect", "nothing"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no plugin"));
}

#[test]
fn the_shipped_plugins_take_whatever_valid_input_comes() {
    for plugin in ["blacklist", "quota", "ingestion", "sync"] {
        let output = on_shipped("check", plugin, &["--rounds", "60"]);
        let said = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{plugin}: {complaint}");
        assert!(said.contains("none trapped (seed "), "{said}");
        // One of its jobs reads a table of another plugin's.
        assert_eq!(said.contains("answered with an error"), plugin == "sync", "{said}");
        assert_eq!(complaint, "");
    }
}

#[test]
fn a_plugin_that_traps_or_answers_badly_fails_its_check_with_the_seed() {
    let home = tempfile::tempdir().unwrap();
    let manifest = home.path().join("plugin.toml");
    std::fs::write(&manifest, "name = \"bad\"").unwrap();
    let check = |guest: Guest, seed: &str| {
        let component = home.path().join("bad.wasm");
        std::fs::write(&component, guest.build()).unwrap();
        let paths = [&component, &manifest].map(|path| path.to_str().unwrap());
        refusal(home.path(), &["plugin", "check", paths[0], "--manifest", paths[1], "--seed", seed]).1
    };
    // Traps on the most tokens that there can be.
    let greedy = "(if (i64.eq (local.get 10) (i64.const -1)) (then unreachable))";
    let said = check(Guest::new().admit(&format!("{greedy} {ALLOW}")), "7");
    assert!(said.contains("seed 7: call ") && said.contains("18446744073709551615"), "{said}");
    assert!(said.contains("trapped"), "{said}");
    assert_eq!(
        said,
        check(Guest::new().admit(&format!("{greedy} {ALLOW}")), "7"),
        "the seed does not bring it back"
    );
    let said = check(Guest::new().admit("(call $allow (i32.const 0))"), "7");
    assert!(said.contains("0 decisions for "), "{said}");
}

#[test]
fn a_plugin_is_tried_out_over_every_kind_of_store_that_it_is_granted() {
    let home = tempfile::tempdir().unwrap();
    let opens = "(if (i32.eq (call $container) (i32.const -1)) (then unreachable))";
    let guest = Guest::new().blob("pictures").admit(&format!("{opens} {ALLOW}"));
    std::fs::write(home.path().join("keeper.wasm"), guest.build()).unwrap();
    let grants = "grants.blob.pictures = \"read-write\"\ngrants.vector.captions = \"read\"";
    std::fs::write(home.path().join("plugin.toml"), format!("name = \"keeper\"\n{grants}")).unwrap();
    let said = run_ok(home.path(), &["plugin", "check", "--rounds", "5"]);
    assert!(said.contains("none trapped"), "{said}");
    std::fs::create_dir(home.path().join("cases")).unwrap();
    let case = "about = \"It opens.\"\n[[steps]]\ncall = \"admit\"\nwith = [{}, [{}]]\ngives = { ok = [{ allow = \"\" }] }";
    std::fs::write(home.path().join("cases/opens.toml"), case).unwrap();
    run_ok(home.path(), &["plugin", "test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_writes_is_shown_as_it_comes_and_does_nothing_to_the_terminal() {
    let server = Setup::demo().start();
    let (component, manifest) = (server.home().join("chatty.wasm"), server.home().join("chatty.toml"));
    let guest = Guest::new()
        .stdout()
        .define(r#"(data (i32.const 1600) "over here\1b[2J\0a")"#)
        .admit(&format!("(call $print (i32.const 1600) (i32.const 14)) {ALLOW}"));
    std::fs::write(&component, guest.build()).unwrap();
    std::fs::write(&manifest, "name = \"chatty\"").unwrap();
    let [component, manifest] = [&component, &manifest].map(|path| path.to_str().unwrap());
    server.cli_ok(&["plugin", "push", component, "--manifest", manifest]);
    assert_eq!(server.cli_ok(&["plugin", "logs", "chatty"]), "");

    let mut following = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["plugin", "logs", "chatty", "--follow", "--server", server.url(), "--token", ADMIN_TOKEN])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let client = server.client(&server.key("alice", &[]));
    for _ in 0..2 {
        assert_eq!(client.chat("demo").await.status, 200);
        let line = lines.next().unwrap().unwrap();
        assert!(line.ends_with("Z stdout over here\\u{1b}[2J"), "{line:?}");
    }
    following.kill().unwrap();
    following.wait().unwrap();
    let kept = server.cli_ok(&["plugin", "logs", "chatty"]);
    assert_eq!(kept.lines().count(), 2, "{kept}");
    let page = server.get("/admin/v1/plugins/chatty/logs?after=1").await.json();
    assert_eq!((&page["lines"][0]["sequence"], &page["missed"]), (&2.into(), &0.into()));
    assert_eq!(server.get("/admin/v1/plugins/nobody/logs").await.status, 404);
    assert_eq!(server.get("/admin/v1/plugins/chatty/logs?after=-1").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_says_of_a_plugin_why_its_calls_failed() {
    let server = Setup::demo().start();
    let component = server.home().join("bad.wasm");
    let manifest = server.home().join("bad.toml");
    std::fs::write(&component, Guest::new().admit("unreachable").build()).unwrap();
    std::fs::write(&manifest, "name = \"bad\"\non-error = \"allow\"").unwrap();
    let [component, manifest] = [&component, &manifest].map(|path| path.to_str().unwrap());
    server.cli_ok(&["plugin", "push", component, "--manifest", manifest]);
    let client = server.client(&server.key("alice", &[]));
    assert_eq!(client.chat("demo").await.status, 200);
    let said = server.cli_ok(&["plugin", "logs", "bad"]);
    assert!(said.contains("Z host generation ") && said.contains(": admit trapped: "), "{said}");
}

/// Makes and builds a project. What is compiled for it, above all the standard library, is kept between runs; the compiler
/// is told the project's path, so that is always the same.
fn build(name: &str, hook: &str) -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("author");
    let (project, target) = (home.join(name), home.join("target").join(name));
    let _ = std::fs::remove_dir_all(&project);
    std::fs::create_dir_all(&target).unwrap();
    run_ok(&home, &["plugin", "new", name, "--hook", hook]);
    std::os::unix::fs::symlink(target, project.join("target")).unwrap();
    let said = run_ok(&project, &["plugin", "build"]);
    assert!(said.contains(&format!("{name}.wasm: ")), "{said}");
    let size = project.join(format!("{name}.wasm")).metadata().unwrap().len();
    println!("{name}.wasm has {size} bytes");
    assert!(size < 100_000, "{name}.wasm has {size} bytes");
    project
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "compiles a plugin; .ci/run runs it"]
async fn a_watched_project_is_pushed_when_it_is_saved_and_only_when_it_is_good() {
    let project = build("watched", "admission");
    let server = Setup::demo().config("[kv.watched]").start();
    let mut watching = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["plugin", "watch", "--server", server.url(), "--token", ADMIN_TOKEN])
        .current_dir(&project)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut turn = || {
        let lines = lines.by_ref().map(Result::unwrap);
        lines.take_while(|line| !line.starts_with("watching")).collect::<Vec<_>>().join("\n")
    };
    let first = turn();
    assert!(first.contains("2 cases passed") && first.contains("watched: generation"), "{first}");

    let source = project.join("src/lib.rs");
    let text = std::fs::read_to_string(&source).unwrap();
    let save = |from: &str, to: &str| {
        assert!(text.contains(from));
        std::fs::write(&source, text.replace(from, to)).unwrap();
    };
    save("\"closed\".into()", "\"shut\".into()");
    let failing = turn();
    assert!(failing.contains("found    \"shut\"") && !failing.contains("generation"), "{failing}");
    save("struct Plugin;", "struct Plugin");
    let broken = turn();
    assert!(!broken.contains("watched.wasm"), "{broken}");
    save("let key =", "tollgate_guest::log::line(&request.model); let key =");
    let good = turn();
    assert!(good.contains("2 cases passed") && good.contains("watched: generation"), "{good}");
    assert_eq!(server.client(&server.key("alice", &[])).chat("the-model").await.status, 200);
    let said = server.cli_ok(&["plugin", "logs", "watched"]);
    assert!(said.ends_with("Z stdout the-model"), "{said}");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

fn push(server: &Server, project: &Path) {
    let file = project.join(format!("{}.wasm", project.file_name().unwrap().to_str().unwrap()));
    let manifest = project.join("plugin.toml");
    server.cli_ok(&["plugin", "push", file.to_str().unwrap(), "--manifest", manifest.to_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "compiles plugins; .ci/run runs it"]
async fn a_new_plugin_of_every_hook_builds_and_does_what_it_says() {
    let project = |hook| build(&format!("my-{hook}"), hook);
    let [admission, ingestion, jobs, http] = ["admission", "ingestion", "jobs", "http"].map(project);
    for project in [&admission, &ingestion, &jobs, &http] {
        run_ok(project, &["plugin", "check"]);
        if *project != http {
            let said = run_ok(project, &["plugin", "test"]);
            assert!(said.contains(" passed") && !said.contains("FAILED"), "{said}");
        }
        let tested = Command::new("cargo").args(["test", "--quiet"]).current_dir(project).output().unwrap();
        assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    }

    let server = Setup::demo().config("[kv.my-admission]\n[kv.my-jobs]\n[kv.my-http]").start();
    push(&server, &admission);
    let client = server.client(&server.key("alice", &[]));
    push(&server, &http);
    for visitor in 1..3 {
        let page = client.get("/my-http/").await;
        assert_eq!(
            (page.status.as_u16(), page.text()),
            (200, format!("Hello alice, you are visitor {visitor}.\n"))
        );
    }
    assert_eq!(client.get("/my-http/other").await.status, 404);
    assert_eq!(client.chat("demo").await.status, 200);
    server.cli_ok(&["kv", "set", "my-admission", "closed/demo", "retired in May"]);
    let refused = client.chat("demo").await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("retired in May"), "{}", refused.text());
    assert_eq!(client.chat("other").await.status, 200);
    server.cli_ok(&["kv", "delete", "my-admission", "closed/demo"]);
    assert_eq!(client.chat("demo").await.status, 200);

    push(&server, &jobs);
    let logged = "select count(*) from request_logs";
    eventually("the requests are in the log", async || (server.count(logged) == 4).then_some(())).await;
    let admin = server.client(ADMIN_TOKEN);
    let report = admin.post("/admin/v1/plugins/my-jobs/jobs/count", &serde_json::json!({})).await.json();
    assert_eq!(report["summary"], "4 requests in the last hour");
    assert_eq!(server.cli_ok(&["kv", "get", "my-jobs", "last-hour"]), "4");

    // One plugin takes the events, so the shipped one steps back.
    let server = Setup::demo().config("[[plugin]]\nname = \"ingestion\"\nenabled = false").start();
    push(&server, &ingestion);
    let client = server.client(&server.key("bob", &[]));
    let used = client.chat("demo").await.json()["usage"]["total_tokens"].as_u64().unwrap();
    let sum = "select coalesce(sum(tokens), 0) from client_tokens where client = 'bob'";
    eventually("the tokens are summed", async || (server.count(sum) == used).then_some(())).await;
}
