//! Projects as `tollgate plugin export` makes them of the shipped components, and the cases in them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tollgate::cases::Case;

use super::case::Transcript;
use super::npm::{Scripts, printed};

/// A project in a folder that goes with it.
pub struct Project {
    scripts: Scripts,
    runtime: &'static str,
}

/// Its folder.
const FOLDER: &str = "project";

impl Project {
    /// Exports plugins that come with Tollgate, by their names.
    pub fn export(runtime: &'static str, plugins: &[&str]) -> Project {
        let project = Project { scripts: Scripts::new(), runtime };
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["plugin", "export", "--to", runtime]).arg(project.path("")).args(plugins);
        let said = String::from_utf8(printed(&mut command)).unwrap();
        assert!(said.contains("npm install\n") && said.contains("npm test\n"), "{said}");
        project
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scripts.path(FOLDER).join(name)
    }

    /// Changes a file of JSON.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path(name);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }

    /// A command in it that finds Node's current version.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path("")).env("PATH", self.scripts.search_path());
        command
    }

    /// Runs the cases in it, over stores that every kind of case has.
    pub fn run(&self, cases: &[Case]) -> Transcript {
        self.change("stores.json", |stores| {
            let worker = self.runtime == "worker";
            let place = |worker_has, node_has| if worker { worker_has } else { node_has };
            stores["blob"]["images"] = json!({ "in": place("r2", "files") });
            if worker {
                stores["blob"]["images"]["binding"] = json!("IMAGES");
            }
            stores["vector"]["captions"] = json!({
                "in": place("durable-object", "sqlite"),
                "dimensions": 3,
                "metric": "cosine",
                "indexed": ["kind", "size.width"],
            });
            stores["cache"]["models"] = json!({ "in": place("durable-object", "memory") });
        });
        let script = match self.runtime {
            "worker" => "workerd",
            other => other,
        };
        if script == "workerd" {
            self.change("wrangler.json", |wrangler| {
                wrangler["r2_buckets"] = json!([{ "binding": "IMAGES", "bucket_name": "images" }]);
            });
        }
        for part in ["common", script] {
            self.scripts.add(part, FOLDER);
        }
        self.node(&[Path::new("tollgate/build.mjs"), Path::new(self.runtime)]);
        let cases: Vec<Value> = cases.iter().map(Case::for_scripts).collect();
        let input = self.path("input.json");
        fs::write(&input, serde_json::to_vec(&json!({ "cases": cases })).unwrap()).unwrap();
        serde_json::from_slice(&self.node(&[&Path::new(script).join("main.mjs"), &input])).unwrap()
    }

    fn node(&self, arguments: &[&Path]) -> Vec<u8> {
        printed(self.command("node").arg("--no-warnings").args(arguments))
    }
}
