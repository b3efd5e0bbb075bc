//! The gateway with everything on: limits on client and account, blacklist, request log.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::process::Process;

const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
const TOKEN: &str = "bench-token";

/// Its process and where its data are.
pub struct Tollgate {
    process: Process,
    home: tempfile::TempDir,
    /// What the processes before this one had ingested.
    before: u64,
}

impl Tollgate {
    /// Starts it in front of `upstream`, by so many accounts.
    pub fn with_accounts(upstream: &str, accounts: usize) -> Result<Tollgate> {
        let home = tempfile::tempdir()?;
        let mut config = String::new();
        for number in 0..accounts {
            write!(
                config,
                "[[account]]\nname = \"bench-{number}\"\ndialect = \"openai\"\nbase_url = \"{upstream}\"\napi_key = \"upstream-{number}\"\n\
                 rpm = 1000000000\ntpm = 1000000000000\n"
            )?;
        }
        std::fs::write(home.path().join("tollgate.toml"), config)?;
        let process = serve(&home)?;
        Ok(Tollgate { process, home, before: 0 })
    }

    /// Stops it and starts it again; returns how long the start took.
    pub fn restart(&mut self) -> Result<Duration> {
        self.before = self.ingested()?;
        self.process.terminate();
        let begun = Instant::now();
        self.process = serve(&self.home)?;
        Ok(begun.elapsed())
    }

    /// The server's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Makes a client key with limits too high to be met.
    pub fn key(&self, name: &str) -> Result<String> {
        let limits = json!({ "rpm": 1_000_000_000_u64, "tpm": 1_000_000_000_000_u64 });
        let made = self.admin("POST", "keys", &json!({ "name": name, "limits": limits }).to_string())?;
        Ok(made["key"].as_str().context("no key")?.to_owned())
    }

    /// Requests that stand in the log.
    pub fn ingested(&self) -> Result<u64> {
        Ok(self.before + self.metric("tollgate_events_ingested_total")? as u64)
    }

    /// Bytes of the store's file.
    pub fn file_bytes(&self) -> Result<u64> {
        Ok(self.home.path().join("data/tollgate.redb").metadata()?.len())
    }

    /// What the admin API answers.
    pub fn admin(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let request = format!(
            "{method} /admin/v1/{path} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.exchange(&request)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        ensure!(head.starts_with("HTTP/1.1 20"), "{path}: {answer}");
        Ok(serde_json::from_str(body)?)
    }

    /// Runs a statement on the gateway's tables; what it answers.
    pub fn sql(&self, statement: &str) -> Result<Value> {
        self.admin("POST", "sql/gateway", &json!({ "sql": statement }).to_string())
    }

    /// A metric without labels; zero until it was counted.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let answer = self.exchange("GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")?;
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(Ok(0.0), |line| Ok(line.trim().parse()?))
    }

    fn exchange(&self, request: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.process.url().trim_start_matches("http://"))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

fn serve(home: &tempfile::TempDir) -> Result<Process> {
    let mut command = Command::new(TOLLGATE);
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(home.path().join("tollgate.toml"));
    command.arg("--data").arg(home.path().join("data")).env("TOLLGATE_ADMIN_TOKEN", TOKEN);
    Process::announced(command)
}
