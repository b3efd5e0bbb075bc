//! Asks accounts from time to time whether they answer, where the operator wants it. Those that do not are passed over until
//! they do.
//!
//! They are asked for their models, which costs nothing. What goes wrong with requests themselves is for policies to judge.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use http::StatusCode;

use super::{
    account::Account,
    accounts::Accounts,
    forward,
    limits::{HEALTH_AT_ONCE, HEALTH_LOOK_EVERY, HEALTH_TIMEOUT},
    proxy::Inner,
};

/// Asks all accounts again and again, as often as the present settings say, until the gateway is gone.
pub(super) async fn look_after(gateway: Weak<Inner>) {
    let mut since = Duration::ZERO;
    loop {
        tokio::time::sleep(HEALTH_LOOK_EVERY).await;
        let Some(inner) = gateway.upgrade() else { return };
        since = since.saturating_add(HEALTH_LOOK_EVERY);
        let (every, accounts) = (inner.settings.load().health_interval, inner.accounts.clone());
        drop(inner);
        match every {
            Some(every) if since >= every => {
                check(&accounts).await;
                since = Duration::ZERO;
            }
            Some(_) => {}
            // Nobody looks any more, so that nobody would see one come back.
            None => {
                let list = accounts.list();
                list.iter()
                    .filter(|account| !account.is_up())
                    .for_each(|account| note(&accounts, account, true));
            }
        }
    }
}

/// Asks all accounts.
pub(super) async fn check(accounts: &Accounts) {
    let ask = async |account: &Arc<Account>| {
        let answered = tokio::time::timeout(HEALTH_TIMEOUT, forward::ask_for_models(account)).await;
        note(accounts, account, answered.ok().flatten().is_some_and(|status| !is_down(status)));
    };
    stream::iter(accounts.list().iter()).for_each_concurrent(HEALTH_AT_ONCE, ask).await;
}

/// Takes note of whether an account answers. One that has come back may serve who waits for others.
pub(super) fn note(accounts: &Accounts, account: &Account, is_up: bool) {
    if account.set_up(is_up) {
        accounts.changed();
    }
}

/// Whether an answer says that requests would fail too. One that has no list, or tells of a limit, is there.
fn is_down(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 401..=403 | 407)
}
