//! The README's tour and the guide of plugins, run as they stand.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tollgate::config::Config;
use tollgate::plugin::Manifest;

/// The address in the README; the test takes a free one instead, so that it meets no other server.
const ADDRESS: &str = "127.0.0.1:8080";

#[test]
fn the_tour_in_the_readme_works_when_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let tour = blocks(&readme, "## A tour");
    assert!(tour.contains("tollgate serve") && tour.contains("curl"), "there is no tour");
    paste(&tour, root);
}

/// Needs a WebAssembly toolchain and a minute or two, so it runs only when asked.
#[test]
#[ignore = "compiles a plugin; .ci/run runs it"]
fn the_guide_of_plugins_works_when_pasted() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/GUIDE.md");
    let guide = shells(&std::fs::read_to_string(guide).unwrap());
    assert!(guide.contains("plugin new") && guide.contains("plugin rollback"), "there is no guide");
    let home = tempfile::tempdir().unwrap();
    let began = std::time::Instant::now();
    paste(&guide, home.path());
    println!("from nothing to production in {} s", began.elapsed().as_secs());
}

/// Runs a shell's lines in a folder, and holds what they print against what their comments promise.
fn paste(lines: &str, folder: &Path) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let home = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_tollgate")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash")
        .args(["-eu", "-o", "pipefail"])
        .current_dir(folder)
        .env("PATH", path)
        .env("TMPDIR", home.path())
        .env_remove("TOLLGATE_ADMIN_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(lines.replace(ADDRESS, &free).as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "it failed\n{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    for expected in expectations(lines) {
        assert!(shown.contains(&expected), "it did not print {expected:?}:\n{shown}");
    }
}

/// The shell blocks of the section that starts with `heading`.
fn blocks(readme: &str, heading: &str) -> String {
    let section = readme.split(heading).nth(1).unwrap_or_default();
    shells(section.split("\n## ").next().unwrap_or_default())
}

/// The shell blocks of a text.
fn shells(text: &str) -> String {
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.collect::<Vec<_>>().join("\n")
}

/// What comments promise: `# prints: …`.
fn expectations(lines: &str) -> Vec<String> {
    let prints = |line: &str| Some(line.split_once("# prints: ")?.1.trim().to_owned());
    lines.lines().filter_map(prints).collect()
}

#[test]
fn the_plugin_in_the_readme_is_the_example_that_compiles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let shown =
        readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    let example = std::fs::read_to_string(root.join("plugins/guest/examples/weekdays.rs")).unwrap();
    assert_eq!(shown, example);
}

#[test]
fn the_configurations_in_the_readme_are_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let blocks = readme.split("\n```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut last = None;
    for block in blocks {
        let parsed = Config::parse(block, "README.md", &|_| Some("key".to_owned()));
        last = Some(parsed.unwrap_or_else(|error| panic!("{error}\n{block}")));
    }
    // The last one shows the defaults, but for what has none.
    let shown = last.expect("there is a configuration");
    let default = Config::default();
    assert_eq!((shown.listen, shown.data), (default.listen, default.data));
    assert_eq!((shown.gateway, shown.storage), (default.gateway, default.storage));
}

#[test]
fn the_manifests_in_the_readme_are_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let blocks = readme.split("```toml plugin.toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let whole: Vec<Manifest> = blocks
        .filter(|block| block.starts_with("name"))
        .map(|block| Manifest::parse(block).unwrap_or_else(|error| panic!("{error}\n{block}")))
        .collect();
    assert_eq!(whole[0].order, 5);
}

#[test]
fn the_limits_in_the_readme_are_the_defaults() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let blocks = readme.split("```toml plugin.toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let shown = blocks.into_iter().find(|block| block.starts_with("[limits]")).unwrap();
    let manifest = |limits: &str| Manifest::parse(&format!("name = \"a\"\n{limits}")).unwrap().limits;
    assert_eq!(manifest(shown), manifest(""));
    let keys = shown.lines().filter(|line| line.contains(" = ")).count();
    assert_eq!(keys, 9, "a limit is missing");
}
