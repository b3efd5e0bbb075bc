//! The gateway with everything on: limits on client and account, blacklist, request log.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::Process;

const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");

/// Its process, a client key and where its data are.
pub struct Tollgate {
    process: Process,
    key: String,
    _home: tempfile::TempDir,
}

impl Tollgate {
    /// Starts it in front of `upstream` and makes a client key with limits too high to be met.
    pub fn start(upstream: &str) -> Result<Tollgate> {
        let home = tempfile::tempdir()?;
        let config = home.path().join("tollgate.toml");
        let account = format!(
            "[[account]]\nname = \"bench\"\ndialect = \"openai\"\nbase_url = \"{upstream}\"\napi_key = \"upstream-key\"\n\
             rpm = 1000000000\ntpm = 1000000000000\n"
        );
        std::fs::write(&config, account)?;
        let mut command = Command::new(TOLLGATE);
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
        command.arg("--data").arg(home.path().join("data")).env("TOLLGATE_ADMIN_TOKEN", "bench-token");
        let process = Process::announced(command)?;
        let output = Command::new(TOLLGATE)
            .args(["key", "create", "--name", "bench", "--rpm", "1000000000", "--tpm", "1000000000000"])
            .env("TOLLGATE_SERVER", process.url())
            .env("TOLLGATE_ADMIN_TOKEN", "bench-token")
            .output()?;
        anyhow::ensure!(output.status.success(), "key create: {}", String::from_utf8_lossy(&output.stderr));
        let key = String::from_utf8(output.stdout)?.trim().to_owned();
        Ok(Tollgate { process, key, _home: home })
    }

    /// The server's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The client key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A metric without labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let mut stream = TcpStream::connect(self.process.url().trim_start_matches("http://"))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no metric {name}"))?.trim().parse()?)
    }
}
