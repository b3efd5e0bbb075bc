//! What serves now, for everybody who looks a plugin up.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::canary::Running;
use super::info::Shown;
use crate::plugin::ingest::{Sink, SinkError};
use crate::plugin::ingestion::{Event, Receipt};
use crate::plugin::versions::Version;
use crate::plugin::{ActivePlugin, CallError, Generation, Refusal};

/// What serves.
#[derive(Default)]
pub(super) struct Plugins {
    pub(super) by_name: RwLock<BTreeMap<String, Serving>>,
    /// Cancelled when the start has brought them all in; before, an absent plugin means nothing.
    pub(super) complete: CancellationToken,
}

pub(super) struct Serving {
    pub(super) plugin: Arc<ActivePlugin>,
    pub(super) version: Arc<Version>,
    pub(super) watch: Option<AbortOnDropHandle<()>>,
    pub(super) canary: Option<Running>,
}

impl Plugins {
    pub(super) fn plugin(&self, name: &str) -> Option<Arc<ActivePlugin>> {
        self.by_name.read().get(name).map(|serving| serving.plugin.clone())
    }

    pub(super) fn version(&self, name: &str) -> Option<Arc<Version>> {
        self.by_name.read().get(name).map(|serving| serving.version.clone())
    }

    pub(super) fn all(&self) -> Vec<Shown> {
        let shown = |serving: &Serving| Shown {
            generation: serving.plugin.current(),
            version: serving.version.clone(),
            watched: serving.watch.as_ref().is_some_and(|task| !task.is_finished()),
            canary: serving.canary.as_ref().map(Running::info),
        };
        self.by_name.read().values().map(shown).collect()
    }

    /// Refuses a generation whose route is another plugin's.
    pub(super) fn check_route(&self, generation: &Generation) -> Result<(), Refusal> {
        let Some(http) = &generation.manifest().http else { return Ok(()) };
        let has_it = |other: &Arc<Generation>| {
            let route = other.manifest().http.as_ref().map(|http| &http.route);
            other.name() != generation.name() && route == Some(&http.route)
        };
        match self.all().into_iter().map(|shown| shown.generation).find(has_it) {
            Some(other) => Err(Refusal::Route { route: http.route.clone(), by: other.name().to_string() }),
            None => Ok(()),
        }
    }

    /// Refuses a generation that takes events while another plugin does.
    pub(super) fn check_events(&self, generation: &Generation) -> Result<(), Refusal> {
        let other = self
            .ingesting()
            .filter(|other| generation.hooks().ingestion && other.name() != generation.name());
        other.map_or(Ok(()), |other| Err(Refusal::Ingesting { by: other.name().to_string() }))
    }

    /// The plugin that takes events. There are two only if one that was switched off came back at a start; then it is the
    /// first by name.
    pub(super) fn ingesting(&self) -> Option<Arc<Generation>> {
        let plugins = self.by_name.read();
        let mut current = plugins.values().map(|serving| serving.plugin.current());
        current.find(|generation| generation.hooks().ingestion)
    }
}

impl Sink for Arc<Plugins> {
    async fn ingest(&self, batch: &Arc<[Event]>) -> Result<Receipt, SinkError> {
        self.complete.cancelled().await;
        let Some(generation) = self.ingesting() else {
            return Err(SinkError::Unavailable("no plugin has the ingestion hook".to_owned()));
        };
        generation.ingest(batch.clone()).await.map_err(|error| match error {
            CallError::Busy | CallError::NoHook(_) => SinkError::Unavailable(error.to_string()),
            CallError::Guest(text) if is_unavailable(&text) => SinkError::Unavailable(text),
            CallError::Trap(_) | CallError::Deadline(_) | CallError::Guest(_) => {
                SinkError::Failed(error.to_string())
            }
        })
    }
}

/// Whether an error starts with the guest library's words for a store that does not answer. Further behind they may come
/// from an event, whose texts anybody can write.
fn is_unavailable(error: &str) -> bool {
    let store = error.strip_prefix("database ").or_else(|| error.strip_prefix("kv store "));
    store.and_then(|rest| rest.split_once(": ")).is_some_and(|(_, rest)| rest.starts_with("unavailable: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_store_is_unavailable_and_not_the_text_of_an_event() {
        assert!(is_unavailable("database gateway: unavailable: the deadline has passed"));
        assert!(is_unavailable("kv store hot-keys: unavailable: the store is closed"));
        assert!(!is_unavailable("cannot read \"database x: unavailable: \" in an event"));
        assert!(!is_unavailable("database gateway: invalid: no column named : unavailable: "));
        assert!(!is_unavailable("unavailable: "));
    }
}
