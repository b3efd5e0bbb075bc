//! The official Python SDKs against the real binary.
//!
//! Needs the package index, so it is not in the default run: `cargo test --test it -- --ignored sdk::`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Server, Setup};

#[test]
#[ignore = "sets up a virtual environment from the package index; .ci/run runs it"]
fn the_openai_sdk_chats_streams_embeds_lists_and_meets_its_own_exceptions() {
    let server = Setup::demo().start();
    run_script(&server, "openai_client.py");
}

#[test]
#[ignore = "sets up a virtual environment from the package index; .ci/run runs it"]
fn the_google_sdk_generates_streams_calls_tools_counts_embeds_lists_and_meets_its_own_exceptions() {
    let server = Setup::demo().start();
    run_script(&server, "gemini_client.py");
}

#[test]
#[ignore = "sets up a virtual environment from the package index; .ci/run runs it"]
fn the_anthropic_sdk_writes_messages_streams_calls_tools_counts_lists_and_meets_its_own_exceptions() {
    let server = Setup::demo().start();
    run_script(&server, "anthropic_client.py");
}

fn run_script(server: &Server, script: &str) {
    let free = server.key("free", &[]);
    let limited = server.key("limited", &["--rpm", "1"]);
    let output = Command::new(environment().join("bin/python"))
        .arg(sources().join(script))
        .env("TOLLGATE_URL", server.url())
        .env("TOLLGATE_KEY", free)
        .env("TOLLGATE_LIMITED_KEY", limited)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/sdk")
}

/// A virtual environment with the pinned SDKs, kept between runs.
fn environment() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk-venv");
    // Tests that run at once must not set it up at once.
    let lock = std::fs::File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let requirements = sources().join("requirements.txt");
    let wanted = std::fs::read(&requirements).unwrap();
    if std::fs::read(folder.join("installed.txt")).is_ok_and(|installed| installed == wanted) {
        return folder;
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    run(Command::new(folder.join("bin/pip"))
        .args(["install", "--quiet", "--requirement"])
        .arg(&requirements));
    std::fs::write(folder.join("installed.txt"), wanted).unwrap();
    folder
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}
