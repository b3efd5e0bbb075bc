//! The measured processes: started, asked for their CPU time, ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");

/// Linux counts CPU time in hundredths of a second (`USER_HZ`, proc(5)).
const TICKS_PER_SECOND: u64 = 100;

/// A running process that printed where it listens; ended when dropped.
pub struct Process {
    child: Child,
    url: String,
}

impl Process {
    /// This program again, as one of its peers.
    pub fn role(role: &str, target: &str) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env("TOLLGATE_BENCH_ROLE", role).env("TOLLGATE_BENCH_TARGET", target);
        Process::start(command)
    }

    fn start(mut command: Command) -> Result<Process> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let first = lines.next().context("the process ended at once")??;
        let url = first.strip_prefix("listening on ").context("an unexpected first line")?.to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Process { child, url })
    }

    /// `http://IP:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// CPU time used so far, user and system.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in parentheses, may hold blanks; user and system time are the 12th and 13th field after it.
        let fields = stat.rsplit_once(')').context("no name in stat")?.1;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The gateway with everything on: limits on client and account, blacklist, request log.
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
        let process = Process::start(command)?;
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

    /// A metric without labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let mut stream = TcpStream::connect(self.process.url().trim_start_matches("http://"))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no metric {name}"))?.trim().parse()?)
    }

    /// The client key.
    pub fn key(&self) -> &str {
        &self.key
    }
}
