//! Tests of plugins, written as data: what is in the stores, which calls come when, what is answered and left behind.
//!
//! A [`Case`] is a TOML file; `CASES.md` beside this is its manual. It runs in the real plugin runtime over a store of its own,
//! under a clock that it moves ([`run`]). The shipped components' cases also run in other runtimes, which read them by
//! [`Case::for_scripts`] and answer with an [`Outcome`] too.

mod bench;
mod blobs;
mod caches;
mod case;
mod compare;
mod exercise;
mod home;
mod opaque;
mod run;
mod stores;
mod values;
mod vectors;

pub use bench::{Bench, Cost, Costs};
pub use case::{BLOB, Before, CACHE, Case, KV, SQL, Step, VECTOR};
pub use exercise::{Exercised, exercise};
pub use run::{Plugin, run};

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What a runtime made of one case.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// The answer of each step, with what is opaque under its names.
    pub answers: Vec<Value>,
    /// The values of all keys of a store, in hexadecimal.
    pub kv: BTreeMap<String, BTreeMap<String, String>>,
    /// The rows of each query.
    pub sql: BTreeMap<String, BTreeMap<String, Value>>,
}
