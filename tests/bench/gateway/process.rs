//! The measured processes: started, asked for their CPU time, ended.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Linux counts CPU time in hundredths of a second (`USER_HZ`, proc(5)).
const TICKS_PER_SECOND: u64 = 100;

/// A running process, ended when dropped.
pub struct Process {
    child: Child,
    url: String,
}

impl Process {
    /// This program again, as one of its peers.
    pub fn role(role: &str, target: &str) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env("TOLLGATE_BENCH_ROLE", role).env("TOLLGATE_BENCH_TARGET", target);
        Process::announced(command)
    }

    /// A process that prints where it listens.
    pub fn announced(mut command: Command) -> Result<Process> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let first = lines.next().context("the process ended at once")??;
        let url = first.strip_prefix("listening on ").context("an unexpected first line")?.to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Process { child, url })
    }

    /// A process of which it is known where it will listen, once it does.
    pub fn started(
        address: SocketAddr,
        mut command: Command,
        within: Duration,
        name: &str,
    ) -> Result<Process> {
        let child = command.stdout(Stdio::null()).spawn().with_context(|| name.to_owned())?;
        let mut process = Process { child, url: format!("http://{address}") };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            let waits = process.runs() && begun.elapsed() < within;
            ensure!(waits, "{name} did not start; its messages, if it had some, are above");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(process)
    }

    /// `http://IP:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its id, and those of its workers if they are processes.
    pub fn ids(&self) -> Result<Vec<u32>> {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"))?;
        let children = children.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        Ok([vec![own], children].concat())
    }

    /// CPU time used so far, user and system, by all of them.
    pub fn cpu(&self) -> Result<Duration> {
        self.ids()?.into_iter().map(cpu).sum()
    }

    /// Memory that is in use now, in bytes (`VmRSS`, proc(5)).
    pub fn memory_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Asks it to end, its workers with it, and waits until it has.
    pub fn terminate(&mut self) {
        Command::new("kill").arg(self.child.id().to_string()).status().ok();
        self.child.wait().ok();
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An address that was free a moment ago; nobody else takes ports on this machine in between, or the start fails.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn cpu(id: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name, in parentheses, may hold blanks; user and system time are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')').context("no name in stat")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}
