//! What a plugin written in Rust depends on: the bindings of `wit/` and the few helpers that several plugins share.
//!
//! A plugin implements the `Guest` trait of each hook it serves and names itself to that hook's `export!` macro; the
//! component then exports these hooks only, and imports only the stores it calls.
//!
//! Everything compiles natively too, so that a plugin's logic has ordinary unit tests; a call to a store panics there.

pub mod blacklist;
pub mod database;
pub mod kv;
pub mod log;

#[doc(hidden)]
#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::unwrap_used,
    reason = "generated from wit/, which is documented there"
)]
pub mod bindings;

/// Caches.
pub mod cache {
    pub use crate::bindings::stores::tollgate::storage::cache::{Cache, Priority, SetOptions, Stats};
}

/// Vector indexes.
pub mod vector {
    pub use crate::bindings::stores::tollgate::storage::vector::{
        Index, Info, Match, Metric, QueryOptions, ReturnMetadata, Target, Vector,
    };
}

/// The hook that decides which requests may pass: implement [`Guest`](admission::Guest), then
/// `tollgate_guest::admission::export!(MyPlugin)`.
pub mod admission {
    pub use crate::bindings::admission::export;
    pub use crate::bindings::admission::exports::tollgate::policy::admission::*;
}

/// The hook that stores what happened.
pub mod ingestion {
    pub use crate::bindings::ingestion::export;
    pub use crate::bindings::ingestion::exports::tollgate::policy::ingestion::*;
}

/// The hook for work on a schedule.
pub mod jobs {
    pub use crate::bindings::jobs::export;
    pub use crate::bindings::jobs::exports::tollgate::policy::jobs::*;
}

/// The hook that prepares a new version.
pub mod lifecycle {
    pub use crate::bindings::lifecycle::export;
    pub use crate::bindings::lifecycle::exports::tollgate::policy::lifecycle::*;
}

/// A call of a policy is mostly small allocations, for the strings and records that cross the sandbox's wall. Talc is
/// faster at them than the standard library's allocator, and smaller.
#[cfg(target_family = "wasm")]
#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();
