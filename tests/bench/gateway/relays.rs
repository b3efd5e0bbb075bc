//! The gateways that people take instead: LiteLLM (PyPI) and Portkey's (npm), as their own instructions start them, with
//! one process each and without a database. Neither checks a limit then: LiteLLM knows one master key, Portkey none.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Process, free_address};

/// Time to start: LiteLLM imports for half a minute where the disk is cold.
const START: Duration = Duration::from_secs(120);

const LITELLM_KEY: &str = "sk-bench";

/// A running gateway, with what its requests carry beside a bearer key.
pub struct Relay {
    /// Its name and version.
    pub name: &'static str,
    /// Its process.
    pub process: Process,
    /// The bearer key that it wants.
    pub key: &'static str,
    /// Lines for the head of each request.
    pub headers: String,
    _home: tempfile::TempDir,
}

/// Installs them below the target directory, where they stay, and starts them in front of `upstream`.
pub fn start(upstream: &str) -> Result<Vec<Relay>> {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("relays");
    std::fs::create_dir_all(&place)?;
    Ok(vec![litellm(&place, upstream)?, portkey(&place, upstream)?])
}

fn litellm(place: &Path, upstream: &str) -> Result<Relay> {
    let environment = place.join("litellm");
    if !environment.join("bin/litellm").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        run(Command::new(environment.join("bin/pip"))
            .args(["install", "--quiet", "--requirement"])
            .arg(sources().join("requirements.txt")))?;
    }
    let home = tempfile::tempdir()?;
    let config = home.path().join("config.yaml");
    std::fs::write(
        &config,
        format!(
            "model_list:\n  - model_name: gpt-test\n    litellm_params:\n      model: openai/gpt-test\n      \
             api_base: {upstream}/v1\n      api_key: upstream-key\ngeneral_settings:\n  master_key: {LITELLM_KEY}\n"
        ),
    )?;
    let address = free_address()?;
    let mut command = Command::new(environment.join("bin/litellm"));
    command.args(["--host", "127.0.0.1", "--num_workers", "1", "--telemetry", "False"]);
    command.args(["--port", &address.port().to_string(), "--config"]).arg(&config);
    // It asks for prices on the network else.
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_MODE", "PRODUCTION");
    let process = Process::started(address, command, START, "LiteLLM")?;
    Ok(Relay { name: "LiteLLM 1.106", process, key: LITELLM_KEY, headers: String::new(), _home: home })
}

fn portkey(place: &Path, upstream: &str) -> Result<Relay> {
    let folder = place.join("portkey");
    let program = folder.join("node_modules/@portkey-ai/gateway/build/start-server.js");
    if !program.exists() {
        std::fs::create_dir_all(&folder)?;
        std::fs::copy(sources().join("package.json"), folder.join("package.json"))?;
        run(Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund"])
            .current_dir(&folder))?;
    }
    let address = free_address()?;
    let mut command = Command::new("node");
    command.arg(program).arg(format!("--port={}", address.port())).arg("--headless");
    let process = Process::started(address, command, START, "Portkey's gateway")?;
    let headers =
        format!("x-portkey-provider: openai\r\nx-portkey-custom-host: {upstream}/v1\r\naccept: */*\r\n");
    Ok(Relay { name: "Portkey 1.15", process, key: "k", headers, _home: tempfile::tempdir()? })
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/gateway/relays")
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
