//! Plugins in JavaScript and Python: made, built by their own tools, tested and run like those in Rust.
//!
//! Needs the npm registry and the package index, so it is not in the default run: `cargo test --test it -- --ignored
//! languages::`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Server, Setup, python};

/// A command of the command line in a folder, to its good end.
fn run(folder: &Path, args: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tollgate")).args(args).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}{said}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

fn make(home: &Path, hook: &str, language: &str) -> PathBuf {
    let name = format!("{language}-{hook}");
    run(home, &["plugin", "new", &name, "--hook", hook, "--lang", language]);
    home.join(name)
}

/// Gives a project what builds it, which is kept between runs.
fn install_javascript(project: &Path) {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages");
    std::fs::create_dir_all(&kept).unwrap();
    let turn = std::fs::File::create(kept.join("turn")).unwrap();
    turn.lock().unwrap();
    let package = std::fs::read_to_string(project.join("package.json")).unwrap();
    // The name differs from project to project.
    let wanted: serde_json::Value = serde_json::from_str(&package).unwrap();
    let (wanted, note) = (wanted["devDependencies"].to_string(), kept.join("installed"));
    if std::fs::read_to_string(&note).is_ok_and(|installed| installed == wanted) {
        std::os::unix::fs::symlink(kept.join("node_modules"), project.join("node_modules")).unwrap();
        return;
    }
    std::fs::write(kept.join("package.json"), package).unwrap();
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&kept);
    let output = npm.output().unwrap_or_else(|error| panic!("this needs npm, which does not start: {error}"));
    assert!(output.status.success(), "npm install: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(note, wanted).unwrap();
    std::os::unix::fs::symlink(kept.join("node_modules"), project.join("node_modules")).unwrap();
}

fn install_python(project: &Path) {
    let environment = python::environment("languages-venv", &project.join("requirements.txt"));
    std::os::unix::fs::symlink(environment, project.join(".venv")).unwrap();
}

fn build_and_test(project: &Path) {
    run(project, &["plugin", "build"]);
    let said = run(project, &["plugin", "test"]);
    assert!(said.contains(" passed") && !said.contains("FAILED"), "{said}");
}

/// Closes a model and opens it again.
async fn serves(server: &Server, project: &Path) {
    let name = project.file_name().unwrap().to_str().unwrap();
    server.cli_ok(&["plugin", "push", project.to_str().unwrap()]);
    let client = server.client(&server.key(name, &[]));
    assert_eq!(client.chat("demo").await.status, 200);
    server.cli_ok(&["kv", "set", name, "closed/demo", "retired in May"]);
    let refused = client.chat("demo").await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("retired in May"), "{}", refused.text());
    assert_eq!(client.chat("other").await.status, 200);
    server.cli_ok(&["kv", "delete", name, "closed/demo"]);
    assert_eq!(client.chat("demo").await.status, 200);
    let failed = server.metric_with("tollgate_plugin_traps_total", &[&format!("plugin=\"{name}\"")]).await;
    assert_eq!(failed, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "installs and runs componentize-js and componentize-py; .ci/run runs it"]
async fn policies_in_javascript_and_python_build_pass_their_cases_and_answer_requests_side_by_side() {
    let home = tempfile::tempdir().unwrap();
    let (javascript, python) =
        (make(home.path(), "admission", "js"), make(home.path(), "admission", "python"));
    install_javascript(&javascript);
    install_python(&python);
    for project in [&javascript, &python] {
        build_and_test(project);
        let said = run(project, &["plugin", "check", "--rounds", "20"]);
        assert!(said.contains("none trapped"), "{said}");
    }
    let server = Setup::demo().config("[kv.js-admission]\n[kv.python-admission]").start();
    serves(&server, &javascript).await;
    serves(&server, &python).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "installs and runs componentize-js; .ci/run runs it"]
async fn a_page_in_javascript_builds_and_answers_under_its_route() {
    let home = tempfile::tempdir().unwrap();
    let project = make(home.path(), "http", "js");
    install_javascript(&project);
    run(&project, &["plugin", "build"]);
    run(&project, &["plugin", "check"]);
    let server = Setup::demo().config("[kv.js-http]").start();
    server.cli_ok(&["plugin", "push", project.to_str().unwrap()]);
    let client = server.client(&server.key("alice", &[]));
    for visits in 1..3 {
        let page = client.get("/js-http/").await;
        assert_eq!(page.text(), format!("Hello alice, you are visitor {visits}.\n"));
        assert!(page.status == 200 && page.header("content-type").starts_with("text/plain"), "{page:?}");
    }
    assert_eq!(client.get("/js-http/more").await.status, 404);
    assert_eq!(client.post("/js-http/", &serde_json::Value::Null).await.status, 405);
    assert_eq!(server.cli_ok(&["kv", "get", "js-http", "visits"]), "2");
}

#[test]
#[ignore = "installs and runs componentize-js and componentize-py; .ci/run runs it"]
fn jobs_and_ingestion_in_javascript_and_python_build_and_pass_their_cases() {
    let home = tempfile::tempdir().unwrap();
    for hook in ["ingestion", "jobs"] {
        let (javascript, python) = (make(home.path(), hook, "js"), make(home.path(), hook, "python"));
        install_javascript(&javascript);
        install_python(&python);
        build_and_test(&javascript);
        build_and_test(&python);
    }
}

#[test]
fn what_is_missing_to_build_javascript_or_python_is_told_with_the_command_to_run() {
    let home = tempfile::tempdir().unwrap();
    for (language, command) in
        [("js", "npm install"), ("python", "python3 -m venv .venv && .venv/bin/pip install -r")]
    {
        let project = make(home.path(), "admission", language);
        let mut build = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        build.args(["plugin", "build"]).env("PATH", home.path()).current_dir(&project);
        let output = build.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(command), "{said}");
    }
}
