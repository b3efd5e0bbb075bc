//! `tollgate:storage/sql`.

/// A database that a guest has opened.
pub struct OpenDatabase {}
