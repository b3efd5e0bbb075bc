//! What becomes of versions without anybody's order, for the audit log.

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Registry;
use crate::plugin::limits::OWN_CHANGES;

/// A change that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnChange {
    /// As the audit log calls it when somebody does it.
    pub action: &'static str,
    /// The plugin's name.
    pub plugin: String,
}

/// The changes, on their way to whoever writes them down.
pub(super) struct OwnChanges {
    sender: mpsc::Sender<OwnChange>,
    receiver: Mutex<Option<mpsc::Receiver<OwnChange>>>,
}

impl Default for OwnChanges {
    fn default() -> OwnChanges {
        let (sender, receiver) = mpsc::channel(OWN_CHANGES);
        OwnChanges { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl OwnChanges {
    /// What finds no place is in the server's log only.
    pub(super) fn note(&self, action: &'static str, plugin: &str) {
        if self.sender.try_send(OwnChange { action, plugin: plugin.to_owned() }).is_err() {
            tracing::warn!(action, plugin, "nobody writes down what was done without an order");
        }
    }
}

impl Registry {
    /// The changes that nobody asked for, from now on; none: somebody has them already.
    pub fn own_changes(&self) -> Option<mpsc::Receiver<OwnChange>> {
        self.inner.own_changes.receiver.lock().take()
    }
}
