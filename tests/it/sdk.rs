//! The official Python SDKs against the real binary.
//!
//! Needs the package index, so it is not in the default run: `cargo test --test it -- --ignored sdk::`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Server, Setup, python};

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
    let output =
        Command::new(python::environment("sdk-venv", &sources().join("requirements.txt")).join("bin/python"))
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
