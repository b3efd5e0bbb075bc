//! `tollgate serve`.

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::args::{Connection, LogFormat, Serve};
use super::failure::Failure;
use super::{output, prompt};
use crate::app::{App, FirstStart, Source};
use crate::config::{Config, ConfigError, MasterKeySource};
use crate::secret::Secret;

/// Variable with the log filter, such as `debug` or `tollgate=debug,info`.
const LOG: &str = "TOLLGATE_LOG";

/// What is logged when nobody says otherwise.
const LOG_DEFAULT: &str = "info";

pub(super) fn run(serve: Serve, connection: Connection) -> Result<(), Failure> {
    let logging = Logging::start(serve.log_format)?;
    let data = connection.data;
    let mut config = configuration(&serve, data.clone())?;
    logging.set(config.log.as_deref());
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
    let source = source(serve, data, config.secrets.clone(), logging);
    runtime.block_on(serve_until_stopped(config, token, source))
}

/// The configuration as it was read, to be read again.
fn source(serve: Serve, data: Option<PathBuf>, secrets: MasterKeySource, logging: Logging) -> Source {
    let read = move || {
        if serve.config.is_none() {
            return Err("the server was started without --config: there is nothing to read again".to_owned());
        }
        let mut config = configuration(&serve, data.clone()).map_err(|failure| failure.message())?;
        if config.secrets == MasterKeySource::Prompt {
            // Asked for at the start, and there alone.
            config.secrets.clone_from(&secrets);
        }
        Ok(config)
    };
    Source { read: Box::new(read), log: Box::new(move |filter| logging.set(filter)) }
}

async fn serve_until_stopped(config: Config, token: Option<Secret>, source: Source) -> Result<(), Failure> {
    // Before anything is opened: a signal during the start must end it in order too.
    let mut terminate = signals()?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let data = config.data.clone();
    let mut app = App::start(config, token, source).await?;
    if app.demo() {
        tracing::warn!("there is no account: the built-in demo upstream answers as account `demo`");
    }
    announce(&mut app)?;
    tracing::info!(address = %app.address(), data = %data.display(), "serving");
    loop {
        tokio::select! {
            () = terminate.recv() => break,
            _ = hangup.recv() => app.reload().await,
        }
    }
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

/// What is logged, which can be changed.
struct Logging {
    /// None: `TOLLGATE_LOG` has it, and counts more than the configuration.
    set: Option<Box<dyn Fn(EnvFilter) + Send + Sync>>,
}

impl Logging {
    fn start(format: LogFormat) -> Result<Self, Failure> {
        let given = std::env::var(LOG).ok().filter(|text| !text.is_empty());
        let filter = match &given {
            Some(text) => {
                EnvFilter::try_new(text).map_err(|error| Failure::Usage(format!("{LOG}={text}: {error}")))?
            }
            None => EnvFilter::new(LOG_DEFAULT),
        };
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let (installed, set): (_, Box<dyn Fn(EnvFilter) + Send + Sync>) = match format {
            LogFormat::Text => {
                let logs = logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
                let logs = logs.with_filter_reloading();
                let handle = logs.reload_handle();
                (logs.try_init(), Box::new(move |filter| drop(handle.reload(filter))))
            }
            LogFormat::Json => {
                let logs = logs.json().with_filter_reloading();
                let handle = logs.reload_handle();
                (logs.try_init(), Box::new(move |filter| drop(handle.reload(filter))))
            }
        };
        installed.map_err(|error| Failure::Failed(anyhow::anyhow!("cannot start logging: {error}")))?;
        Ok(Self { set: given.is_none().then_some(set) })
    }

    /// Logs as the configuration has it.
    fn set(&self, filter: Option<&str>) {
        // The configuration has been checked.
        if let (Some(set), Ok(filter)) = (&self.set, EnvFilter::try_new(filter.unwrap_or(LOG_DEFAULT))) {
            set(filter);
        }
    }
}
