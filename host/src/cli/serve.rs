//! `tollgate serve`.

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::args::{Connection, LogFormat, Serve};
use super::failure::Failure;
use super::{output, prompt};
use crate::app::{App, FirstStart};
use crate::config::{Config, ConfigError, MasterKeySource};
use crate::secret::Secret;

/// Variable with the log filter, such as `debug` or `tollgate=debug,info`.
const LOG: &str = "TOLLGATE_LOG";

pub(super) fn run(serve: Serve, connection: Connection) -> Result<(), Failure> {
    start_logging(serve.log_format)?;
    let mut config = configuration(&serve, connection.data)?;
    if config.secrets == MasterKeySource::Prompt {
        let digits = prompt::ask("master key (64 hexadecimal digits)")?;
        config.secrets = MasterKeySource::Given { digits, origin: "the prompt".to_owned() };
    }
    let token = admin_token(connection.token)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = config.workers {
        runtime.worker_threads(workers);
    }
    let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(serve_until_stopped(config, token))
}

async fn serve_until_stopped(config: Config, token: Option<Secret>) -> Result<(), Failure> {
    // Before anything is opened: a signal during the start must end it in order too.
    let mut terminate = signals()?;
    let data = config.data.clone();
    let mut app = App::start(config, token).await?;
    if app.demo() {
        tracing::warn!("there is no account: the built-in demo upstream answers as account `demo`");
    }
    announce(&mut app)?;
    tracing::info!(address = %app.address(), data = %data.display(), "serving");
    terminate.recv().await;
    tracing::info!("stopping: requests in flight may finish; a second signal ends at once");
    tokio::select! {
        stopped = app.stop() => stopped?,
        () = terminate.recv() => return Err(anyhow::anyhow!("ended before everything was finished").into()),
    }
    tracing::info!("stopped");
    Ok(())
}

/// The first line is for scripts; what follows it on the first start is shown this once.
fn announce(app: &mut App) -> Result<(), Failure> {
    let mut text = format!("listening on http://{}\n", app.address());
    if let Some(FirstStart { admin_token, client_key }) = app.take_first_start() {
        if let Some(token) = admin_token {
            text.push_str(&format!("admin token: {}\n", token.expose()));
        }
        text.push_str(&format!("client key: {}\n", client_key.expose()));
    }
    Ok(output::print(text.as_bytes())?)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

fn signals() -> anyhow::Result<Signals> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    Ok(Signals { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
}

impl Signals {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn configuration(serve: &Serve, data: Option<PathBuf>) -> Result<Config, Failure> {
    let mut config = match &serve.config {
        Some(path) => Config::load(path).map_err(|error| match error {
            ConfigError::Invalid(_) => Failure::Usage(error.to_string()),
            ConfigError::Read { .. } => Failure::Failed(error.into()),
        })?,
        None => Config::default(),
    };
    if let Some(listen) = serve.listen {
        config.listen = listen;
    }
    if let Some(data) = data {
        config.data = data;
    }
    Ok(config)
}

/// Sets the token, whether it came from the environment or the command line. It must fit into a header.
fn admin_token(given: Option<String>) -> Result<Option<Secret>, Failure> {
    match given {
        Some(token) if !token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) => {
            Err(Failure::Usage("the admin token must be printable ASCII without spaces".to_owned()))
        }
        Some(token) if !token.is_empty() => Ok(Some(Secret::new(token))),
        _ => Ok(None),
    }
}

fn start_logging(format: LogFormat) -> Result<(), Failure> {
    let filter = match std::env::var(LOG) {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).map_err(|error| Failure::Usage(format!("{LOG}={text}: {error}")))?
        }
        _ => EnvFilter::new("info"),
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    installed.map_err(|error| Failure::Failed(anyhow::anyhow!("cannot start logging: {error}")))
}
