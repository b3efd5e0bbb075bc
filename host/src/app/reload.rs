//! Reads the configuration again while the server goes on.
//!
//! It is read and checked whole before anything changes, and accounts, which alone can still be refused, go first.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::Mutex;

use crate::accounting::Pruner;
use crate::accounts::Roster;
use crate::admin::{Reload, Reloaded, Trail};
use crate::config::Config;
use crate::gateway::{Gateway, Prices};

/// Reads a configuration and checks it; the error says what is wrong, with its line.
pub type Read = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Sets what is logged, to a filter or back to the default.
pub type SetLog = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// Where a running server's configuration comes from.
pub struct Source {
    /// Reads it again.
    pub read: Read,
    /// Sets what is logged.
    pub log: SetLog,
}

/// What can change while the server goes on.
pub(super) struct Reloader {
    pub(super) source: Source,
    /// What the server runs with. Held while it changes.
    pub(super) current: Mutex<Config>,
    pub(super) roster: Roster,
    pub(super) gateway: Gateway,
    pub(super) trail: Trail,
    pub(super) pruner: Pruner,
}

impl Reloader {
    /// As the admin API asks for it.
    pub(super) fn door(self: &Arc<Self>) -> Reload {
        let reloader = self.clone();
        Arc::new(move || {
            let reloader = reloader.clone();
            async move { reloader.reload().await }.boxed()
        })
    }

    /// As a signal asks for it: what came of it goes into the logs.
    pub(super) async fn on_signal(&self) {
        match self.reload().await {
            Ok(Reloaded { changed, restart }) => {
                tracing::info!(?changed, needs_restart = ?restart, "reloaded the configuration");
                self.trail.record("signal", "reload", "", None).await;
            }
            Err(problem) => {
                tracing::error!(problem, "the configuration was not reloaded, and nothing has changed");
                self.trail.record("signal", "reload", "", Some("refused")).await;
            }
        }
    }

    async fn reload(&self) -> Result<Reloaded, String> {
        let mut current = self.current.lock().await;
        // Small files, and seldom.
        let new = tokio::task::block_in_place(|| (self.source.read)())?;
        let mut changed = Vec::new();
        if self.roster.reconfigure(new.accounts.clone()).await.map_err(|error| error.to_string())? {
            changed.push("account".to_owned());
        }
        if new.gateway != current.gateway {
            self.gateway.reconfigure(new.gateway.clone());
            changed.push("gateway".to_owned());
        }
        if new.prices != current.prices {
            self.gateway.reprice(Prices::new(new.prices.clone()));
            changed.push("price".to_owned());
        }
        if new.audit_keep != current.audit_keep {
            self.trail.keep(new.audit_keep);
            changed.push("audit".to_owned());
        }
        if new.retention != current.retention {
            self.pruner.keep(new.retention);
            changed.push("retention".to_owned());
        }
        if new.log != current.log {
            (self.source.log)(new.log.as_deref());
            changed.push("log".to_owned());
        }
        // What a restart is needed for stays as the server runs with it, so that the next time names it again.
        let live = Config {
            accounts: new.accounts.clone(),
            gateway: new.gateway.clone(),
            prices: new.prices.clone(),
            audit_keep: new.audit_keep,
            retention: new.retention,
            log: new.log.clone(),
            ..current.clone()
        };
        let restart = differing(&live, &new);
        *current = live;
        Ok(Reloaded { changed, restart })
    }
}

/// The keys of the file that say something else than the server runs with.
fn differing(live: &Config, new: &Config) -> Vec<String> {
    let keys = [
        ("listen", live.listen != new.listen),
        ("data", live.data != new.data),
        ("workers", live.workers != new.workers),
        ("storage", live.storage != new.storage),
        ("secrets", live.secrets != new.secrets),
        ("telemetry", live.telemetry != new.telemetry),
        ("plugin", live.plugins != new.plugins),
        ("plugins", live.plugin_settings != new.plugin_settings),
        ("kv", live.kv != new.kv),
        ("sql", live.sql != new.sql),
        ("blob", live.blob != new.blob),
        ("vector", live.vector != new.vector),
        ("cache", live.cache != new.cache),
    ];
    let named: Vec<String> =
        keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| (*key).to_owned()).collect();
    match named.is_empty() && live != new {
        true => vec!["another key".to_owned()],
        false => named,
    }
}
