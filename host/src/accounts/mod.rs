//! The upstream accounts there are: those of the configuration, and those of the store, managed at run time.
//!
//! Every change is durable before it serves, and serves by one pointer swap in the gateway. Without any account the
//! built-in demo upstream answers, until there is one; it does not come back before the next start, since nobody expects
//! its answers where there were others.

mod draft;
mod known;
mod limits;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tollgate_store::{
    Clock,
    sql::{Database, SqlError},
};

pub use draft::Draft;
pub use view::{AccountView, Held, Origin, Status, Totals};

use crate::{
    gateway::{Account, AccountError, AccountSpec, Accounts, Prepared, demo},
    secrets::{Key, SecretsError, Vault},
};
use limits::{ACCOUNTS, DEMO_LOOK_EVERY};
use table::{Sealed, Stored, Table};

/// Why accounts cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// There is an account of that name.
    #[error("there is an account named {0} already")]
    NameTaken(String),
    /// No account has the name.
    #[error("there is no account named {0}")]
    NoSuchAccount(String),
    /// It can only be changed where it stands.
    #[error("account {0} is from the configuration")]
    Configured(String),
    /// The same name in the configuration and in the store.
    #[error(
        "account {0} stands in the configuration and in the store: give one another name, or take it out of the configuration and run `tollgate account delete {0}`"
    )]
    Twice(String),
    /// There is no room for another.
    #[error("there are {ACCOUNTS} accounts in the store, which is the most there can be")]
    TooMany,
    /// What was asked for cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The table holds what nobody wrote there.
    #[error("table accounts is damaged")]
    DamagedTable,
    /// No random numbers, or the demo upstream cannot listen.
    #[error("{0}")]
    System(String),
    /// A secret cannot be sealed, or the keys not be changed.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SqlError),
}

impl From<AccountError> for RosterError {
    fn from(error: AccountError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// What a roster is made of.
pub struct Parts {
    /// Where the table is.
    pub database: Database,
    /// What seals the secrets in it.
    pub vault: Vault,
    /// The gateway's accounts.
    pub accounts: Accounts,
    /// Those of the configuration.
    pub configured: Vec<AccountSpec>,
    /// The time of day.
    pub clock: Clock,
}

/// All accounts. Cheap to clone.
///
/// Changes must be let come to their end: one that is dropped in the middle may be durable and not serve.
#[derive(Clone)]
pub struct Roster(Arc<Inner>);

struct Inner {
    table: Table,
    accounts: Accounts,
    clock: Clock,
    /// Held while something changes.
    state: Mutex<State>,
    /// Name and id of each, the demo's too.
    named: ArcSwap<Vec<(String, String)>>,
}

struct State {
    configured: Vec<AccountSpec>,
    stored: Vec<Stored>,
    /// Some while the demo serves.
    demo: Option<CancellationToken>,
}

impl Roster {
    /// Reads the table and lets all accounts serve, or the demo if there is none. Ends a rotation of keys that was cut
    /// short.
    pub async fn open(parts: Parts) -> Result<Roster, RosterError> {
        let Parts { database, vault, accounts, configured, clock } = parts;
        known::open(&database).await?;
        let table = Table::open(database, vault).await?;
        let mut stored = table.read().await?;
        check_names(&configured, &stored)?;
        table.reseal(&mut stored).await?;
        table.vault.retire_keys(stored.iter().flat_map(Stored::sealed)).await?;
        let mut state = State { configured, stored, demo: None };
        let mut specs = specs(&state);
        if state.configured.is_empty() && state.stored.is_empty() {
            let stopping = CancellationToken::new();
            let address = demo::start(stopping.clone()).await;
            let address = address
                .map_err(|error| RosterError::System(format!("cannot start the demo upstream: {error}")))?;
            specs = demo::accounts(address);
            state.demo = Some(stopping);
        }
        let all: Vec<_> = names(&state).collect();
        known::note(&table.database, &all, clock()).await?;
        let named = specs.first().filter(|_| state.demo.is_some()).map(|demo| (demo.name.clone(), demo.id()));
        accounts.serve(accounts.prepare(specs).await?);
        let roster = Roster(Arc::new(Inner {
            table,
            accounts,
            clock,
            named: ArcSwap::from_pointee(named.into_iter().chain(all).collect()),
            state: Mutex::new(state),
        }));
        Ok(roster)
    }

    /// Whether the built-in demo upstream serves, since there is no account.
    pub async fn is_demo(&self) -> bool {
        self.0.state.lock().await.demo.is_some()
    }

    /// Name and id (for policies, blacklist and log) of each account.
    pub fn named(&self) -> Arc<Vec<(String, String)>> {
        self.0.named.load_full()
    }

    /// All accounts, in the order of names.
    pub async fn list(&self) -> Result<Vec<AccountView>, RosterError> {
        let now_ms = (self.0.clock)();
        let mut views: Vec<AccountView> = {
            let state = self.0.state.lock().await;
            let configured = state.configured.iter().map(AccountView::configured);
            configured.chain(state.stored.iter().map(|stored| AccountView::stored(stored, now_ms))).collect()
        };
        for account in self.0.accounts.list().iter().filter(|account| !account.is_up()) {
            let down = views.iter_mut().filter(|view| *view.name == *account.name);
            down.for_each(|view| view.status = Status::Down);
        }
        views.sort_by(|one, other| one.name.cmp(&other.name));
        let earlier = known::earlier(&self.0.table.database, &self.named()).await?;
        for view in &mut views {
            view.earlier_key_hashes = earlier.get(&view.name).cloned().unwrap_or_default();
        }
        view::add_totals(&self.0.table.database, &mut views).await?;
        Ok(views)
    }

    /// One of them.
    pub async fn get(&self, name: &str) -> Result<AccountView, RosterError> {
        let view = self.list().await?.into_iter().find(|view| view.name == name);
        view.ok_or_else(|| RosterError::NoSuchAccount(name.to_owned()))
    }

    /// Requests that are on an account now.
    pub fn under_way(&self, name: &str) -> u64 {
        let accounts = self.0.accounts.list();
        accounts.iter().filter(|account| *account.name == *name).map(|account| account.under_way()).sum()
    }

    /// Makes an account. When this returns it serves, and after a crash too.
    pub async fn create(&self, draft: Draft) -> Result<(), RosterError> {
        draft.spec()?;
        let mut state = self.0.state.lock().await;
        if names(&state).any(|(name, _)| name == draft.name) {
            return Err(RosterError::NameTaken(draft.name));
        }
        if state.stored.len() >= ACCOUNTS {
            return Err(RosterError::TooMany);
        }
        let id = getrandom::u64().and_then(|one| Ok((one, getrandom::u64()?)));
        let (one, two) = id.map_err(|error| RosterError::System(format!("no random numbers: {error}")))?;
        let now_ms = (self.0.clock)();
        let mut stored = Stored {
            id: format!("acc_{one:016x}{two:016x}"),
            draft,
            created_ms: now_ms,
            updated_ms: now_ms,
            is_damaged: false,
            sealed: Sealed::default(),
        };
        let mut next = state.stored.clone();
        next.push(stored.clone());
        let prepared = self.0.accounts.prepare(all(&state.configured, &next)).await?;
        self.note(&[stored.named()]).await?;
        self.0.table.write(&mut stored).await?;
        state.stored.push(stored);
        self.serve(&mut state, prepared);
        Ok(())
    }

    /// Changes an account of the store; `patch` as [`Draft::patched`] has it. When this returns the change serves.
    pub async fn change(&self, name: &str, patch: &Map<String, Value>) -> Result<(), RosterError> {
        let mut state = self.0.state.lock().await;
        let index = index(&state, name)?;
        let mut next = state.stored.clone();
        let changed = next.get_mut(index).ok_or(RosterError::DamagedTable)?;
        let is_replaced = |sealed: &Option<Vec<u8>>, field| sealed.is_none() || patch.contains_key(field);
        let keeps_damage = changed.is_damaged
            && !(is_replaced(&changed.sealed.api_key, "api_key")
                && is_replaced(&changed.sealed.proxy_password, "proxy_password"));
        changed.draft = changed.draft.patched(patch)?;
        changed.draft.spec()?;
        changed.updated_ms = (self.0.clock)();
        if keeps_damage {
            let text = "a secret of this account cannot be opened: give it a new `api_key`, and `proxy_password` if it has one";
            return Err(RosterError::Invalid(text.to_owned()));
        }
        changed.is_damaged = false;
        let prepared = self.0.accounts.prepare(all(&state.configured, &next)).await?;
        if let Some(changed) = next.get_mut(index) {
            self.note(&[changed.named()]).await?;
            self.0.table.write(changed).await?;
        }
        state.stored = next;
        self.serve(&mut state, prepared);
        Ok(())
    }

    /// Removes an account of the store. Requests that run on it finish.
    pub async fn delete(&self, name: &str) -> Result<(), RosterError> {
        let mut state = self.0.state.lock().await;
        let index = index(&state, name)?;
        let mut next = state.stored.clone();
        let removed = next.remove(index);
        let prepared = self.0.accounts.prepare(all(&state.configured, &next)).await?;
        self.0.table.delete(&removed.id, known::forget(name)).await?;
        state.stored = next;
        self.serve(&mut state, prepared);
        Ok(())
    }

    /// Puts other accounts in the place of those of the configuration; whether they are others. An error changes nothing.
    pub async fn reconfigure(&self, configured: Vec<AccountSpec>) -> Result<bool, RosterError> {
        let mut state = self.0.state.lock().await;
        if state.configured == configured {
            return Ok(false);
        }
        check_names(&configured, &state.stored)?;
        let prepared = self.0.accounts.prepare(all(&configured, &state.stored)).await?;
        self.note(&configured.iter().map(named).collect::<Vec<_>>()).await?;
        state.configured = configured;
        self.serve(&mut state, prepared);
        Ok(true)
    }

    /// Seals every secret with a new key, and keeps that under a new master key unless the present one is to stay; `given`
    /// is the new one where the server does not keep it itself. Everything can be read all the while.
    pub async fn rotate_secrets(&self, keep_master: bool, given: Option<Key>) -> Result<usize, RosterError> {
        let mut state = self.0.state.lock().await;
        let vault = &self.0.table.vault;
        if !keep_master {
            vault.change_master(given).await?;
        }
        vault.add_key((self.0.clock)()).await?;
        self.0.table.reseal(&mut state.stored).await?;
        vault.retire_keys(state.stored.iter().flat_map(Stored::sealed)).await?;
        Ok(state.stored.iter().flat_map(Stored::sealed).count())
    }

    async fn note(&self, accounts: &[(String, String)]) -> Result<(), RosterError> {
        Ok(known::note(&self.0.table.database, accounts, (self.0.clock)()).await?)
    }

    fn serve(&self, state: &mut State, prepared: Prepared) {
        let before = self.0.accounts.list();
        self.0.accounts.serve(prepared);
        self.0.named.store(Arc::new(names(state).collect()));
        if let Some(demo) = state.demo.take() {
            tracing::info!("there is an account now: the built-in demo upstream is gone");
            tokio::spawn(end_demo(before.iter().map(Arc::downgrade).collect(), demo));
        }
    }
}

/// Ends the demo when no request is left that may still be sent to it.
async fn end_demo(accounts: Vec<Weak<Account>>, stopping: CancellationToken) {
    while accounts.iter().any(|account| account.strong_count() > 0) {
        tokio::time::sleep(DEMO_LOOK_EVERY).await;
    }
    stopping.cancel();
}

/// What serves of the configuration and the store.
fn all(configured: &[AccountSpec], stored: &[Stored]) -> Vec<AccountSpec> {
    let serving = stored.iter().filter(|stored| stored.draft.active && !stored.is_damaged);
    // What was stored has been checked; a row that somebody changed by hand does not serve.
    let stored = serving.filter_map(|stored| match stored.draft.spec() {
        Ok(spec) => Some(spec),
        Err(error) => {
            tracing::error!(account = stored.draft.name, %error, "the account cannot serve");
            None
        }
    });
    configured.iter().cloned().chain(stored).collect()
}

fn specs(state: &State) -> Vec<AccountSpec> {
    all(&state.configured, &state.stored)
}

fn names(state: &State) -> impl Iterator<Item = (String, String)> {
    state.configured.iter().map(named).chain(state.stored.iter().map(Stored::named))
}

fn named(spec: &AccountSpec) -> (String, String) {
    (spec.name.clone(), spec.id())
}

fn check_names(configured: &[AccountSpec], stored: &[Stored]) -> Result<(), RosterError> {
    let twice = configured.iter().find(|spec| stored.iter().any(|stored| stored.draft.name == spec.name));
    twice.map_or(Ok(()), |spec| Err(RosterError::Twice(spec.name.clone())))
}

/// Where an account of the store stands in the list.
fn index(state: &State, name: &str) -> Result<usize, RosterError> {
    if state.configured.iter().any(|spec| spec.name == name) {
        return Err(RosterError::Configured(name.to_owned()));
    }
    let index = state.stored.iter().position(|stored| stored.draft.name == name);
    index.ok_or_else(|| RosterError::NoSuchAccount(name.to_owned()))
}
