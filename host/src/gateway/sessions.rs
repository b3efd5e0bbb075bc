//! Which account a client's session is on, so that its next request finds what the upstream has cached of the earlier ones.
//!
//! A session is what a client names one: a header of its tool, or a field that the dialect has for it. What prompts have in
//! common tells nothing: one that is sent a thousand times would have all of them on one account.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock},
};

use http::HeaderMap;
use moka::sync::Cache;
use serde_json::value::RawValue;

use super::{
    account::Account,
    dialect::Dialect,
    limits::{SESSION_IDLE, SESSIONS},
};

/// The header in which anybody may name a session; dialects know those of their tools.
const HEADER: &str = "x-session-id";

/// A session's name, hashed under a key of this process: two that have the same can only share an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionName(u64);

impl SessionName {
    /// The name in a request's headers.
    pub(super) fn of_headers(headers: &HeaderMap) -> Option<SessionName> {
        let name =
            std::iter::once(HEADER).chain(Dialect::session_headers()).find_map(|name| headers.get(name))?;
        (!name.is_empty()).then(|| SessionName(hash(name.as_bytes())))
    }

    /// The name that is the value of a field, whatever its type; none if that is null or empty.
    pub(super) fn of_field(value: Option<&RawValue>) -> Option<SessionName> {
        let text = value?.get();
        (!matches!(text, "null" | "\"\"")).then(|| SessionName(hash(text.as_bytes())))
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(value)
}

/// A session of a client's key with a model, since caches are a model's.
#[derive(Clone, Copy)]
pub(super) struct Session(u64);

impl Session {
    pub(super) fn new(key: &str, model: &str, name: SessionName) -> Session {
        Session(hash((key, model, name.0)))
    }
}

/// The accounts that sessions are on, by name: one that is changed keeps its sessions.
pub(super) struct Sessions(Cache<u64, Arc<str>>);

impl Sessions {
    pub(super) fn new() -> Sessions {
        Sessions(Cache::builder().max_capacity(SESSIONS).time_to_idle(SESSION_IDLE).build())
    }

    /// The name of the account that a session is on.
    pub(super) fn account(&self, session: Session) -> Option<Arc<str>> {
        self.0.get(&session.0)
    }

    /// Takes note of the account that has answered a session.
    pub(super) fn answered(&self, session: Session, account: &Account) {
        if self.0.get(&session.0).is_none_or(|known| known != account.name) {
            self.0.insert(session.0, account.name.clone());
        }
    }
}
