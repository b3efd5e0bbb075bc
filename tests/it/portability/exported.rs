//! `tollgate plugin export`: its projects work as their README says.

use std::io::{BufRead as _, BufReader, Lines};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::{Value, json};

use super::foreign::build;
use super::npm::{self, Scripts, printed};
use super::project::Project;
use crate::support::Client;
use crate::support::component::{shipped, trapping};

fn export(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["plugin", "export"]).args(args).current_dir(folder);
    command.output().unwrap()
}

#[test]
fn a_project_is_made_once_and_of_what_a_runtime_can_serve() {
    let home = tempfile::tempdir().unwrap();
    let made = export(home.path(), &["edge", "--to", "worker", "sync", "quota"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let said = String::from_utf8(made.stdout).unwrap();
    assert!(said.contains("cd edge\n  npm install\n  npm test\n  npm start\n"), "{said}");
    let note = String::from_utf8(made.stderr).unwrap();
    assert!(note.contains("trusted with the whole database: sync (gateway)"), "{note}");
    let component = std::fs::read(home.path().join("edge/plugins/quota.wasm")).unwrap();
    assert_eq!(component, std::fs::read(shipped("quota")).unwrap());

    let refused = |args: &[&str], code: i32, reason: &str| {
        let output = export(home.path(), args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && said.contains(reason), "{args:?}: {said}");
    };
    refused(&["edge", "--to", "node", "quota"], 1, "edge is there already");
    refused(&["a", "--to", "node", "nothing"], 1, "cannot read nothing");
    refused(&["a", "--to", "node"], 2, "this is no plugin's folder");
    refused(&["a", "--to", "redis", "quota"], 2, "possible values: worker, node");
    let file = shipped("quota");
    let file = file.to_str().unwrap();
    refused(&["a", "--to", "node", file], 2, "comes without a manifest; give --manifest FILE");
    std::fs::write(home.path().join("http.wasm"), trapping("export wasi:http/incoming-handler@0.2.0;"))
        .unwrap();
    std::fs::write(home.path().join("http.toml"), "name = \"http\"\n[http]\nroute = \"/http/\"").unwrap();
    let http = ["a", "--to", "node", "http.wasm", "--manifest", "http.toml"];
    refused(&http, 1, "plugin http answers HTTP requests itself, which only Tollgate serves");
    refused(&[&http[..], &["--manifest", "other.toml"]].concat(), 2, "more of them than components");
    assert!(!home.path().join("a").exists());
}

#[test]
fn the_cases_run_with_the_packages_of_the_projects() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let package = |path: &str| -> Value {
        serde_json::from_slice(&std::fs::read(root.join(path).join("package.json")).unwrap()).unwrap()
    };
    let own = package("tests/portability");
    for runtime in ["node", "worker"] {
        let project = package(&format!("plugins/edge/project/{runtime}"));
        for (name, version) in project["devDependencies"].as_object().unwrap() {
            assert_eq!(own["dependencies"][name], *version, "{name}, {runtime}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the npm registry; .ci/run runs it"]
async fn a_project_for_node_works_as_its_readme_says() {
    let project = Project::export("node", &super::SHIPPED);
    works(&project).await;
    let database = rusqlite::Connection::open(project.path("data/sql/_gateway.sqlite")).unwrap();
    let mut statement = database.prepare("SELECT status_code FROM request_logs ORDER BY 1").unwrap();
    let rows: Vec<u16> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows, [200, 200, 429]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the npm registry; .ci/run runs it"]
async fn a_worker_project_works_as_its_readme_says() {
    let project = Project::export("worker", &super::SHIPPED);
    project.change("wrangler.json", |config| config["vars"] = json!({ "CLIENT_RPM": "1" }));
    works(&project).await;
    npm::copy(&npm::sources().join("workerd"), &project.path("workerd"));
    let rows = printed(project.command("node").args(["--no-warnings", "workerd/recorded.mjs"]));
    let rows: Value = serde_json::from_slice(&rows).unwrap();
    let row = |status: u16, tokens: u64| json!({ "status_code": status, "total_tokens": tokens });
    assert_eq!(rows, json!([row(200, 8), row(429, 0)]));
}

/// Its engine is in the component, and what it imports of WASI is there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the npm registry; .ci/run runs it"]
async fn a_plugin_in_javascript_runs_elsewhere_too() {
    let scripts = Scripts::new();
    let component = build(&scripts, "guest");
    let manifest = npm::sources().join("guest/plugin.toml");
    let [component, manifest] = [&component, &manifest].map(|path| path.to_str().unwrap());
    for runtime in ["node", "worker"] {
        let project = Project::export(runtime, &[component, "--manifest", manifest]);
        let tested = String::from_utf8(printed(project.command("npm").arg("test"))).unwrap();
        assert!(tested.contains("pass 3") && tested.contains("fail 0"), "{tested}");
    }
}

/// What no case can show: access to tables, the clock of jobs, what becomes of allows and events.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the npm registry; .ci/run runs it"]
async fn the_kit_keeps_its_own_promises() {
    let project = Project::export("node", &["quota"]);
    npm::copy(&npm::sources().join("kit"), &project.path("kit"));
    // What it says about D1 does not need a Worker.
    npm::copy(&npm::sources().join("../../plugins/edge/kit/worker"), &project.path("tollgate/worker"));
    let tested = printed(project.command("node").args(["--no-warnings", "--test", "kit/*.test.mjs"]));
    let tested = String::from_utf8(tested).unwrap();
    assert!(tested.contains("pass 15") && tested.contains("fail 0"), "{tested}");
}

/// Installs, tests and starts a project with all shipped plugins; then each client has one request a minute.
async fn works(project: &Project) {
    printed(project.command("npm").arg("install"));
    let tested = String::from_utf8(printed(project.command("npm").arg("test"))).unwrap();
    assert!(tested.contains("pass 3") && tested.contains("fail 0"), "{tested}");
    let (_running, url) = Running::start(project);
    let client = Client::new(&url, "a-key");
    let [first, second] = [client.chat("demo").await, client.chat("demo").await];
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 429), "{}", second.text());
    assert!(second.text().contains("1 of 1 requests per minute are used"), "{}", second.text());
    assert_eq!(Client::new(&url, "another-key").chat("demo").await.status.as_u16(), 200);
}

/// What `npm start` started, in a group of processes that end with it.
struct Running {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(project: &Project) -> (Running, String) {
        let mut command = project.command("npm");
        command.arg("start").env("PORT", "0").env("CLIENT_RPM", "1").process_group(0).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut running = Running { child, said };
        let mut said = running.said.by_ref().map_while(Result::ok);
        let url = said.find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()));
        let url = url.expect("it does not start");
        (running, url.trim_end_matches('/').to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        Command::new("kill").args(["-TERM", "--", &group]).status().unwrap();
        // Its output ends with the last of them.
        self.said.by_ref().for_each(drop);
        self.child.wait().unwrap();
    }
}
