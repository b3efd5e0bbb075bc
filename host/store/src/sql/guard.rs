//! What watches a connection while a call runs on it: the authorizer and the deadline.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::{
    Connection,
    hooks::{AuthContext, Authorization},
};

use super::{
    access::{Refusal, Rules},
    limits::STEPS_BETWEEN_CHECKS,
    shape::Shape,
};

/// When a call must end.
#[derive(Clone, Debug)]
pub(super) struct Until {
    pub(super) deadline: Instant,
    /// Set when nobody waits for the result any more.
    pub(super) abandoned: Arc<AtomicBool>,
}

/// The end of a call whose turn begins now.
pub(super) fn ends(deadline: Instant, turn: Duration) -> Instant {
    Instant::now().checked_add(turn).map_or(deadline, |end| end.min(deadline))
}

/// The state that a connection's callbacks look at. Without a call (BEGIN, COMMIT and the like) everything is open.
#[derive(Default)]
pub(super) struct Guard(Mutex<State>);

#[derive(Default)]
struct State {
    call: Option<Call>,
    until: Option<Until>,
    refusal: Option<Refusal>,
}

struct Call {
    rules: Arc<Rules>,
    shape: Shape,
    /// Names in the statement that are known to be no tables.
    aliases: HashSet<String>,
}

impl Guard {
    /// Makes SQLite ask this guard.
    pub(super) fn attach(self: &Arc<Self>, connection: &mut Connection) -> Result<(), rusqlite::Error> {
        let guard = self.clone();
        connection.authorizer(Some(move |context: AuthContext<'_>| guard.authorize(&context)))?;
        let guard = self.clone();
        connection.progress_handler(STEPS_BETWEEN_CHECKS, Some(move || guard.must_stop()))
    }

    /// From here on, until `leave`, statements run for a caller.
    pub(super) fn enter(&self, rules: &Arc<Rules>, shape: Shape, until: &Until) {
        let call = Call { rules: rules.clone(), shape, aliases: HashSet::new() };
        *self.0.lock() = State { call: Some(call), until: Some(until.clone()), refusal: None };
    }

    /// Ends the call; nothing is checked or interrupted afterwards. Returns why the authorizer refused, if it did.
    pub(super) fn leave(&self) -> Option<Refusal> {
        std::mem::take(&mut *self.0.lock()).refusal
    }

    /// Runs something of our own in the midst of a call.
    pub(super) fn pause<T>(&self, run: impl FnOnce() -> T) -> T {
        let call = self.0.lock().call.take();
        let result = run();
        self.0.lock().call = call;
        result
    }

    /// The name that the authorizer refused without knowing whether it is a table.
    pub(super) fn take_unnamed(&self) -> Option<String> {
        let mut state = self.0.lock();
        match state.refusal.take() {
            Some(Refusal::Unnamed(name)) => Some(name),
            other => {
                state.refusal = other;
                None
            }
        }
    }

    /// Lets the call use a name that is no table.
    pub(super) fn add_alias(&self, name: &str) {
        if let Some(call) = &mut self.0.lock().call {
            call.aliases.insert(name.to_ascii_lowercase());
        }
    }

    fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        let mut state = self.0.lock();
        let Some(call) = &state.call else {
            return Authorization::Allow;
        };
        match call.rules.check(&context.action, context.database_name, call.shape) {
            Ok(()) => Authorization::Allow,
            Err(Refusal::Unnamed(name)) if call.aliases.contains(&name.to_ascii_lowercase()) => {
                Authorization::Allow
            }
            Err(refusal) => {
                state.refusal = Some(refusal);
                Authorization::Deny
            }
        }
    }

    /// Whether the call that runs is over.
    pub(super) fn must_stop(&self) -> bool {
        let state = self.0.lock();
        state.until.as_ref().is_some_and(Until::is_over)
    }
}

impl Until {
    pub(super) fn is_over(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}
