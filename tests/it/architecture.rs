//! The walls of the house, stated as absences and held here.

use std::path::{Path, PathBuf};

/// Rust sources below a folder of the project, with their paths from its root.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let mut found = Vec::new();
    collect(&root.join(folder), &mut found);
    assert!(!found.is_empty(), "no sources in {folder}");
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            (name, code_of(&std::fs::read_to_string(&path).unwrap()))
        })
        .collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A source without its comments: what a comment names is no dependency.
fn code_of(source: &str) -> String {
    source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Shows each source below a folder of the project, without its comments and with its path from the root.
pub fn each_source(folder: &str, mut show: impl FnMut(&str, &str)) {
    sources(folder).iter().for_each(|(name, code)| show(name, code));
}

/// No source in `folder` holds one of `words`, but for the files in `except`.
fn assert_absent(folder: &str, words: &[&str], except: &[&str]) {
    for (name, code) in sources(folder) {
        if except.iter().any(|allowed| name.starts_with(allowed)) {
            continue;
        }
        for word in words {
            assert!(!code.contains(word), "{name} holds {word:?}");
        }
    }
}

#[test]
fn the_gateway_names_neither_wasmtime_nor_redb() {
    assert_absent("host/src/gateway", &["wasmtime", "redb", "rusqlite"], &[]);
    assert_absent("host/src/admin", &["wasmtime", "redb", "rusqlite"], &[]);
}

#[test]
fn the_gateway_does_not_know_which_dialect_it_serves() {
    // In any case, so that variants are among them.
    let words = ["openai", "anthropic", "gemini", "claude", "codex"];
    let knowing = ["host/src/gateway/dialect/", "host/src/gateway/demo/", "host/src/gateway/tests/"];
    for (name, code) in sources("host/src/gateway") {
        if knowing.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_lowercase();
        for word in words {
            assert!(!code.contains(word), "{name} holds {word:?}");
        }
    }
}

#[test]
fn the_data_api_names_neither_the_other_apis_nor_what_is_under_the_store() {
    assert_absent("host/src/data", &["crate::admin", "crate::gateway", "wasmtime", "redb", "rusqlite"], &[]);
}

#[test]
fn the_store_names_neither_wasmtime_nor_http() {
    assert_absent("host/store/src", &["wasmtime", "axum", "hyper", "tollgate::"], &[]);
}

#[test]
fn only_the_store_names_redb_and_sqlite() {
    assert_absent("host/src", &["redb::", "rusqlite::"], &[]);
}

#[test]
fn one_capability_names_no_other() {
    assert_absent(
        "host/src/capability",
        &["capability::sql", "super::sql"],
        &["host/src/capability/sql", "host/src/capability/mod.rs"],
    );
    assert_absent(
        "host/src/capability",
        &["capability::kv", "super::kv"],
        &["host/src/capability/kv", "host/src/capability/mod.rs"],
    );
    assert_absent(
        "host/src/capability",
        &["capability::blob", "super::blob"],
        &["host/src/capability/blob", "host/src/capability/mod.rs"],
    );
    assert_absent(
        "host/src/capability",
        &["capability::vector", "super::vector"],
        &["host/src/capability/vector", "host/src/capability/mod.rs"],
    );
    assert_absent(
        "host/src/capability",
        &["capability::cache", "super::cache"],
        &["host/src/capability/cache", "host/src/capability/mod.rs"],
    );
}

#[test]
fn plugins_and_capabilities_do_not_reach_back_to_the_gateway() {
    assert_absent("host/src/plugin", &["crate::gateway", "crate::admin", "crate::cli"], &[]);
    assert_absent("host/src/capability", &["crate::gateway", "crate::admin", "crate::cli"], &[]);
}

#[test]
fn bindgen_stands_in_one_file() {
    assert_absent("host/src", &["bindgen!"], &["host/src/plugin/bindings.rs"]);
}

#[test]
fn unsafe_stands_only_in_the_sql_vfs_the_vector_kernel_and_the_loader_of_compiled_code() {
    let allowed =
        ["host/store/src/sql/vfs", "host/store/src/vector/kernel.rs", "host/src/plugin/compiled.rs"];
    assert_absent("host", &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"], &allowed);
}

#[test]
fn telemetry_knows_no_request() {
    assert_absent("host/src/telemetry", &["crate::gateway", "crate::plugin", "crate::admin"], &[]);
}

#[test]
fn no_build_script_runs_cargo() {
    for folder in ["host", "host/store"] {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(folder).join("build.rs");
        assert!(!script.exists(), "{} exists", script.display());
    }
}
