//! The components under `plugins/prebuilt/` and `tests/components/prebuilt/` are made of the sources beside them.

use std::path::Path;

use tollgate::build;

fn plugins() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins"))
}

#[test]
fn prebuilt_plugins_are_made_of_their_sources() {
    let components = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/components"));
    let stale = [plugins(), components].map(|folder| build::check(folder).unwrap());
    let report: Vec<String> = stale
        .iter()
        .flatten()
        .map(|stale| format!("{}: {}; run `{}`", stale.name, stale.reason, stale.command))
        .collect();
    assert!(report.is_empty(), "{}", report.join("\n"));
}

/// Needs a WebAssembly toolchain and two minutes, so it runs only when asked.
#[test]
#[ignore = "compiles the plugins"]
fn plugins_build_from_their_sources() {
    let built = build::build(&[], plugins()).unwrap();
    for plugin in &built {
        println!("{} {} bytes {}", plugin.name, plugin.size, plugin.digest);
        assert!(plugin.size < 100_000, "{} has grown to {} bytes", plugin.name, plugin.size);
    }
}
