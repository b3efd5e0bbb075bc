//! The upstream accounts: those configured, or the demo.

use anyhow::Context as _;

use crate::gateway::{Account, AccountSpec, Accounts, demo};

/// The accounts, and what others need to know of them.
pub(super) struct Upstreams {
    pub(super) accounts: Accounts,
    /// Name and id of each.
    pub(super) named: Vec<(String, String)>,
    /// Whether the demo serves.
    pub(super) demo: bool,
}

/// Makes the accounts; without any it starts the demo upstream as account `demo`.
pub(super) async fn open(configured: Vec<AccountSpec>) -> anyhow::Result<Upstreams> {
    let demo = configured.is_empty();
    let specs = if demo {
        let address = demo::start().await.context("cannot start the demo upstream")?;
        demo::accounts(address)
    } else {
        configured
    };
    let accounts = specs.into_iter().map(Account::new).collect::<Result<Vec<_>, _>>()?;
    let mut named: Vec<(String, String)> =
        accounts.iter().map(|account| (account.name.to_string(), account.key_hash.to_string())).collect();
    // The demo has one name for all dialects.
    named.dedup();
    Ok(Upstreams { accounts: Accounts::new(accounts), named, demo })
}
