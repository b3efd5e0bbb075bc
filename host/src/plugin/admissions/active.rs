//! The name under which the generations of a plugin follow each other.

use std::sync::Arc;
use std::time::Duration;

use crate::plugin::admission::{Decision, Request, Subject};
use crate::plugin::{CallError, Generation};

/// A plugin that serves: its current generation, and perhaps a canary.
pub struct ActivePlugin {}

/// A new generation that answers a plugin's first calls while the old one stands by.
///
/// `start_canary` → `Canary::ended` → `promote` on `Passed` or `Quiet`, `abandon` on `Failed`.
pub struct Canary {}

/// How a canary went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryEnd {
    /// It answered all its calls.
    Passed,
    /// A call failed (and was answered by the old generation); how.
    Failed(String),
    /// The time ran out with no failure, before it had all its calls.
    Quiet,
}

impl ActivePlugin {
    /// Serves a generation.
    pub fn new(_generation: Arc<Generation>) -> Arc<ActivePlugin> {
        todo!()
    }

    /// The plugin's name.
    pub fn name(&self) -> &Arc<str> {
        todo!()
    }

    /// The generation that serves now. Not to be kept: an old generation ends when nobody holds it any more.
    pub fn current(&self) -> Arc<Generation> {
        todo!()
    }

    /// Lets a new generation answer the next `calls` admit calls; a call that fails there is answered by the current
    /// one, and ends the canary. Replaces a canary that is running.
    pub fn start_canary(&self, _generation: Arc<Generation>, _calls: u32) -> Arc<Canary> {
        todo!()
    }

    /// The generation serves from now on, in place of the current one, which is returned; a canary ends.
    pub fn promote(&self, _generation: Arc<Generation>) -> Arc<Generation> {
        todo!()
    }

    /// Ends a canary; the current generation serves on.
    pub fn abandon(&self) {
        todo!()
    }

    pub(crate) async fn admit(
        &self,
        _request: &Arc<Request>,
        _subjects: &Arc<[Arc<Subject>]>,
    ) -> Result<Vec<Decision>, CallError> {
        todo!()
    }
}

impl Canary {
    /// Waits for the end, at most so long.
    pub async fn ended(&self, _within: Duration) -> CanaryEnd {
        todo!()
    }
}
