//! Plugins that the configuration names: what serves is what the files say, after each start.

use crate::support::{Guest, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_plugin_serves_with_the_component_and_the_manifest_of_its_files() {
    let files = tempfile::tempdir().unwrap();
    let [wasm, toml] = ["guest.wasm", "guest.toml"].map(|name| files.path().join(name));
    std::fs::write(&wasm, Guest::new().kv("notes").build()).unwrap();
    let grant = |access: &str| {
        std::fs::write(&toml, format!("name = \"guest\"\n[grants.kv]\nnotes = \"{access}\"\n")).unwrap();
    };
    grant("read-write");
    let config = format!("[kv.notes]\n[[plugin]]\nname = \"guest\"\nfile = {wasm:?}\nmanifest = {toml:?}");
    let mut server = Setup::demo().config(&config).start();
    let seen = |server: &crate::support::Server| {
        let text = server.cli_ok(&["plugin", "inspect", "guest", "--json"]);
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        (found["grants"].to_string(), found["generations"].as_array().unwrap().len())
    };
    let (grants, generations) = seen(&server);
    assert!(grants.contains("read-write") && generations == 1, "{grants}, {generations} generations");

    server.crash_and_restart();
    assert_eq!(seen(&server), (grants, 1), "nothing has changed");

    grant("read");
    server.crash_and_restart();
    let (grants, generations) = seen(&server);
    assert!(!grants.contains("write") && generations == 2, "{grants}, {generations} generations");

    std::fs::write(&wasm, Guest::new().kv("notes").define("(global i32 (i32.const 1))").build()).unwrap();
    server.crash_and_restart();
    assert_eq!(seen(&server).1, 3);
}
