//! The open databases of a store.

use std::sync::Arc;

use super::{Database, SqlError};
use crate::core::Core;

/// The open databases of a store, by name.
#[derive(Default)]
pub(crate) struct Databases {}

impl Databases {
    pub(crate) fn open(&self, _core: &Arc<Core>, _name: &str) -> Result<Database, SqlError> {
        todo!()
    }

    /// Lets the writers finish what waits and ends them; afterwards every call is unavailable. Before the committer ends.
    pub(crate) async fn close(&self) {}
}
