//! `tollgate:storage/kv`.

/// A kv store that a guest has opened.
pub struct OpenStore {}
