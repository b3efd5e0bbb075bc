//! A Tollgate server in a process and a data directory of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::client::{Answer, Client};
use super::upstream::Upstream;

/// The token of every server under test.
pub const ADMIN_TOKEN: &str = "test-admin-token";

/// What a server under test is started with.
#[derive(Default)]
pub struct Setup {
    config: String,
    /// What is logged, as in TOLLGATE_LOG; none: as the server does by itself.
    log: Option<&'static str>,
    environment: Vec<(&'static str, String)>,
}

impl Setup {
    /// No account, so that the server runs its own demo upstream.
    pub fn demo() -> Setup {
        Setup::default()
    }

    /// One account `main` at `upstream`, without limits.
    pub fn with(upstream: &Upstream) -> Setup {
        Setup::default().account("main", upstream, "")
    }

    /// One more account; `extra` holds further lines of its table.
    pub fn account(mut self, name: &str, upstream: &Upstream, extra: &str) -> Setup {
        self.config.push_str(&format!(
            "[[account]]\nname = \"{name}\"\ndialect = \"openai\"\nbase_url = \"{}\"\napi_key = \"upstream-{name}\"\n{extra}\n",
            upstream.url()
        ));
        self
    }

    /// Further configuration, before the accounts' tables.
    pub fn config(mut self, lines: &str) -> Setup {
        self.config.insert_str(0, &format!("{lines}\n"));
        self
    }

    /// Logs more, such as `debug`.
    pub fn log(mut self, filter: &'static str) -> Setup {
        self.log = Some(filter);
        self
    }

    /// Sets a variable of the server's environment.
    pub fn environment(mut self, name: &'static str, value: &str) -> Setup {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Starts the server and waits until it listens.
    pub fn start(self) -> Server {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("tollgate.toml"), &self.config).unwrap();
        let mut environment = self.environment;
        environment.extend(self.log.map(|filter| ("TOLLGATE_LOG", filter.to_owned())));
        let (child, url) = launch(home.path(), &environment);
        Server { home, child: Some(child), url, environment }
    }
}

/// A running server; killed when dropped.
pub struct Server {
    home: tempfile::TempDir,
    child: Option<Child>,
    url: String,
    environment: Vec<(&'static str, String)>,
}

impl Server {
    /// `http://IP:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// A folder that goes with the server, for a test's own files.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs a command of the command line against this server.
    pub fn cli(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(args)
            .env("TOLLGATE_SERVER", &self.url)
            .env("TOLLGATE_ADMIN_TOKEN", ADMIN_TOKEN)
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed; what it printed, without the last line's end.
    pub fn cli_ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "tollgate {args:?} failed: {}\nserver said:\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        text.trim_end().to_owned()
    }

    /// Makes a client key; `limits` are further arguments of `key create`.
    pub fn key(&self, name: &str, limits: &[&str]) -> String {
        let mut args = vec!["key", "create", "--name", name];
        args.extend_from_slice(limits);
        self.cli_ok(&args)
    }

    /// Rows of a query against the gateway's database, without the header line.
    pub fn sql(&self, query: &str) -> Vec<Vec<String>> {
        let text = self.cli_ok(&["sql", "gateway", query]);
        text.lines().skip(1).map(|row| row.split('\t').map(str::to_owned).collect()).collect()
    }

    /// The one number a query returns.
    pub fn count(&self, query: &str) -> u64 {
        let rows = self.sql(query);
        rows[0][0].parse().unwrap_or_else(|_| panic!("not a number from {query}: {rows:?}"))
    }

    /// A metric's value, summed over its labels; it must be there.
    pub async fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics").await;
        let text = answer.text();
        let rows = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let values: Vec<f64> = rows.filter_map(|row| row.rsplit(' ').next()?.parse().ok()).collect();
        assert!(!values.is_empty(), "there is no metric {name}:\n{text}");
        values.iter().sum()
    }

    /// The sum of a metric over its rows that have all of these labels, each as it stands there; 0 when there is none.
    pub async fn metric_with(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").await.text();
        let rows = text.lines().filter(|row| row.split(['{', ' ']).next() == Some(name));
        let rows = rows.filter(|row| labels.iter().all(|label| row.contains(label)));
        rows.filter_map(|row| row.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// A request without a body as the administrator.
    pub async fn get(&self, path: &str) -> Answer {
        Client::new(&self.url, ADMIN_TOKEN).get(path).await
    }

    /// A client that presents `key`.
    pub fn client(&self, key: &str) -> Client {
        Client::new(&self.url, key)
    }

    /// Ends the process as a power switch would, then starts it again on the same data.
    pub fn crash_and_restart(&mut self) {
        self.crash();
        let (child, url) = launch(self.home.path(), &self.environment);
        self.child = Some(child);
        self.url = url;
    }

    /// Ends the process as a power switch would.
    pub fn crash(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks the process to end; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(status.success());
        child.wait().unwrap().code()
    }

    /// Sends the process a signal, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// What the server wrote to stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("server.log")).unwrap_or_default()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that resident memory has been, in KiB.
    pub fn peak_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Threads of the process.
    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    /// Memory maps of the process.
    pub fn maps(&self) -> usize {
        std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap().lines().count()
    }

    /// Open file handles of the process.
    pub fn handles(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
        if std::thread::panicking() {
            eprintln!("--- the server said ---\n{}", self.log());
        }
    }
}

fn launch(home: &Path, environment: &[(&str, String)]) -> (Child, String) {
    let log: PathBuf = home.join("server.log");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(home.join("tollgate.toml"))
        .arg("--data")
        .arg(home.join("data"))
        .env("TOLLGATE_ADMIN_TOKEN", ADMIN_TOKEN)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    let Some(url) = first.strip_prefix("listening on ") else {
        let log = std::fs::read_to_string(home.join("server.log")).unwrap_or_default();
        panic!("the server did not start; first line {first:?}, log:\n{log}");
    };
    // Keeps the pipe open and empty: the server must never block on it.
    std::thread::spawn(move || lines.for_each(drop));
    (child, url.to_owned())
}
